//! A worker: one thread, one runtime, its own sockets. Its state is never shared or locked; other threads
//! only send mail.
//!
//! * Its state is one [`RefCell`], borrowed only between awaits, so the loop and its tasks never borrow it at
//!   the same time.
//! * The loop serves in turns (`turn`): socket events, mail, tenants with new events, connections with work
//!   left. After each turn it yields to the reactor, so that accepts, requests and heartbeats continue under
//!   any load.
//! * `fanout` serves live connections, `catchup` those that are behind, `inbound` reads input, `keepalive`
//!   handles ticks.

pub mod catchup;
pub mod commits;
pub mod connect;
mod connection_index;
pub mod connection_list;
mod fair_queue;
mod fair_share;
pub mod fanout;
pub mod inbound;
pub mod keepalive;
pub mod mail;
mod recheck;
mod scan;
pub mod slab;
mod slot_set;
pub mod sockets;
mod submit;
pub mod subscribe;
#[cfg(test)]
mod tests;
mod turn;
pub mod view;
pub mod wheel;
pub mod ws_publish;

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::auth::Auth;
use crate::config::Config;
use crate::connection::admission::Admission;
use crate::connection::byte_shares::ByteShares;
use crate::connection::rate::Rates;
use crate::connection::unauthenticated::UnauthenticatedSockets;
use crate::connection::{Connection, Tick};
use crate::error_response::ErrorResponse;
use crate::event_ring::{Reader, RingRead};
use crate::frame::Frame;
use crate::frame::ws_decode;
use crate::ids::{Sequence, TenantId};
use crate::metrics::{Metrics, WorkerMetrics};
use crate::tenant::{Tenant, Tenants};
use crate::time::Clock;
use crate::wake::WakeQueue;

use connection_index::ConnectionIndex;
use fair_queue::FairQueue;
use mail::{CommittedPublish, Mail};
use scan::Scans;
use slab::Slab;
use sockets::{Ready, Sockets, Token};
use view::View;
use wheel::Wheel;

/// Size of a worker's one read buffer in bytes, and so the most input that is kept for a connection whose
/// turn ended.
const READ_BUFFER: usize = 16 * 1024;
/// What all workers share.
pub struct Shared {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Credentials and rights.
    pub auth: Arc<Auth>,
    /// All tenants.
    pub tenants: Arc<Tenants>,
    /// Limits of connections.
    pub admission: Arc<Admission>,
    /// Sockets whose peers have not presented a valid credential.
    pub newcomers: Arc<UnauthenticatedSockets>,
    /// Memory share of incomplete input: request bodies and WebSocket messages.
    pub incoming: Arc<ByteShares>,
    /// Memory share of responses that are not read yet.
    pub unread_answers: Arc<ByteShares>,
    /// Memory share of event streams over HTTP/2 that are not read yet.
    pub unread_streams: Arc<ByteShares>,
    /// Rates of events and requests.
    pub rates: Rates,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// One mailbox per worker.
    pub mail: Arc<[WakeQueue<Mail>]>,
    /// Tenants with new events, one queue per worker.
    pub wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    /// Number of sockets of each worker, for assigning new ones.
    pub loads: Box<[AtomicUsize]>,
    /// Limits of inbound WebSocket messages.
    pub ws_limits: ws_decode::Limits,
    /// Set when the daemon stops; then nothing new is accepted.
    pub stopping: AtomicBool,
    /// Number of connections so far, over all organizations.
    next_connection: AtomicU64,
    /// Derives connection ids from that count, with a random key. So an id does not reveal how many other
    /// connections there are. Ids also differ between runs, so that a replayed event's origin never hides
    /// another run's event.
    connection_ids: RandomState,
}

impl Shared {
    /// Creates the shared state from its parts.
    #[allow(clippy::too_many_arguments)] // each is one module's handle, named at its only caller
    pub fn new(
        config: Arc<Config>,
        auth: Arc<Auth>,
        tenants: Arc<Tenants>,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        mail: Arc<[WakeQueue<Mail>]>,
        wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    ) -> Arc<Shared> {
        let loads = mail.iter().map(|_| AtomicUsize::new(0)).collect();
        let ws_limits = ws_decode::Limits::client(config.limits.ws_frame_bytes);
        let newcomers =
            UnauthenticatedSockets::new(config.limits.unauthenticated_connections, admission.clone());
        let anybody = config.limits.unauthenticated_bytes;
        let incoming = ByteShares::new(
            "incomplete requests and messages",
            config.limits.body_bytes_per_organization,
            anybody,
        );
        let unread = config.limits.unread_bytes_per_organization;
        let unread_answers = ByteShares::new("unread responses", unread, anybody);
        let unread_streams = ByteShares::new("unread event streams", unread, anybody);
        let rates = Rates::new(&config.limits, mail.len());
        Arc::new(Shared {
            config,
            auth,
            tenants,
            admission,
            newcomers,
            incoming,
            unread_answers,
            unread_streams,
            rates,
            metrics,
            clock,
            mail,
            wakes,
            loads,
            ws_limits,
            stopping: AtomicBool::new(false),
            next_connection: AtomicU64::new(0),
            connection_ids: RandomState::new(),
        })
    }

    /// Returns a new connection id. Two ids are equal with a chance of one in 2^64.
    pub fn connection_id(&self) -> u64 {
        self.connection_ids.hash_one(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns true if the daemon is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Checks that new work may begin.
    ///
    /// # Errors
    /// 503 once the daemon stops.
    pub fn serving(&self) -> Result<(), ErrorResponse> {
        match self.is_stopping() {
            true => Err(ErrorResponse::unavailable("the server is stopping")),
            false => Ok(()),
        }
    }
}

/// A new, non-blocking socket.
#[derive(Debug)]
pub enum Accepted {
    /// A TCP socket, with its peer.
    Tcp(std::net::TcpStream, std::net::IpAddr),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Serves the sockets that are assigned to a worker.
pub type OnAccepted = Box<dyn Fn(Accepted)>;

/// A socket's entry in its worker's load, released on drop.
pub struct SocketLoadGuard {
    worker: Rc<Worker>,
    handed_over: bool,
}

impl SocketLoadGuard {
    /// Passes the entry to the connection that took over the socket: [`Worker::drop_connection`] releases it.
    pub fn hand_over(mut self) {
        self.handed_over = true;
    }
}

impl Drop for SocketLoadGuard {
    fn drop(&mut self) {
        if !self.handed_over {
            self.worker.socket_closed();
        }
    }
}

/// One worker, owned by its thread.
pub struct Worker {
    /// Its number.
    pub id: usize,
    /// What it shares with the other workers.
    pub shared: Arc<Shared>,
    sockets: Sockets,
    state: RefCell<WorkerState>,
    /// Serves the sockets that come by mail; set once, before any comes.
    pub on_accepted: OnceCell<OnAccepted>,
    /// True once this worker drains: connections still in hyper end after their present request.
    stop: tokio::sync::watch::Sender<bool>,
    /// Bodies that were drained after they had blocked, or that were dropped. Outside `state`, because a body
    /// may be drained while that is borrowed.
    body_ready: RefCell<VecDeque<Token>>,
    /// Wakes the loop from this thread's own tasks.
    nudge: Notify,
    /// Outside `state`: a task polls it while that is not borrowed, and mail completes it while that is
    /// borrowed.
    commits: commits::CommitWaits,
    /// Outside `state` for the same reason.
    fair_share: RefCell<fair_share::FairShare>,
}

/// A worker and its state, borrowed until the next await. What the loop and its tasks do to connections are
/// methods of this.
pub(crate) struct WorkerLoop<'w> {
    worker: &'w Rc<Worker>,
    state: &'w mut WorkerState,
}

/// The state that a worker owns.
pub(crate) struct WorkerState {
    pub(crate) connections: Slab<Connection>,
    pub(crate) views: Slab<View>,
    pub(crate) by_tenant: HashMap<TenantId, u32>,
    /// Tenants of connections that never subscribed, with the number of these. A quiet tenant without such a
    /// reference is removed from memory.
    pub(crate) held: HashMap<TenantId, (Arc<Tenant>, u32)>,
    index: ConnectionIndex,
    pub(crate) wheel: Wheel,
    /// Connections that are due, with their tick. Those of a tick that is not finished come before those of
    /// the next.
    due: VecDeque<(Tick, std::vec::IntoIter<Token>)>,
    /// Connections with work left that no edge will announce.
    run: FairQueue<Token>,
    scans: Scans,
    /// Publishes over WebSocket whose commit is over and whose publisher was not answered yet.
    acks: FairQueue<CommittedPublish>,
    /// Number of turns so far.
    turn: u64,
    /// Views with new events that were not served in this turn. A view is at most once in this or in
    /// `served_views` ([`View::queued`]).
    fresh_views: VecDeque<u32>,
    /// Views with new events that had their share of this turn.
    served_views: VecDeque<u32>,
    pub(crate) reader: Reader,
    generation: u32,
    /// Whether connections came or went in this second or in the one before.
    pub(crate) crowded: bool,
    pub(crate) was_crowded: bool,
    /// Sockets that are ready and were not served yet.
    events: VecDeque<Ready>,
    /// Mail that was taken from the mailbox and not handled yet.
    mail: VecDeque<Mail>,
    /// A buffer for reuse, empty between uses.
    signalled: Vec<Arc<Tenant>>,
    pub(crate) input: Box<[u8]>,
    pub(crate) frames: Vec<Arc<Frame>>,
    pub(crate) bytes: Vec<u8>,
    outs: Vec<submit::PendingWrite>,
    submission: submit::Submission,
    pub(crate) control: Vec<u8>,
}

impl Worker {
    /// Creates a worker without connections, on the current runtime.
    ///
    /// # Errors
    /// No file descriptor is left for its epoll set.
    pub fn new(id: usize, shared: Arc<Shared>, reader: Reader) -> io::Result<Rc<Worker>> {
        let sockets = Sockets::new()?;
        sockets.add_wake(&shared.mail[id])?;
        sockets.add_wake(&shared.wakes[id])?;
        let state = WorkerState {
            connections: Slab::new(),
            views: Slab::new(),
            by_tenant: HashMap::new(),
            held: HashMap::new(),
            index: ConnectionIndex::new(),
            wheel: Wheel::new(),
            due: VecDeque::new(),
            run: FairQueue::default(),
            scans: Scans::default(),
            acks: FairQueue::default(),
            turn: 1,
            fresh_views: VecDeque::new(),
            served_views: VecDeque::new(),
            reader,
            generation: 0,
            crowded: false,
            was_crowded: false,
            events: VecDeque::new(),
            mail: VecDeque::new(),
            signalled: Vec::new(),
            input: vec![0; READ_BUFFER].into_boxed_slice(),
            frames: Vec::new(),
            bytes: Vec::new(),
            outs: Vec::new(),
            submission: submit::Submission::new(shared.config.fanout_submission),
            control: Vec::new(),
        };
        Ok(Rc::new(Worker {
            id,
            shared,
            sockets,
            state: RefCell::new(state),
            on_accepted: OnceCell::new(),
            stop: tokio::sync::watch::channel(false).0,
            body_ready: RefCell::default(),
            nudge: Notify::new(),
            commits: commits::CommitWaits::default(),
            fair_share: RefCell::default(),
        }))
    }

    /// Runs the loop until the thread's runtime is dropped.
    ///
    /// # Errors
    /// The epoll set failed, which ends the process.
    pub async fn run(self: Rc<Self>) -> io::Result<()> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ready = self.sockets.readable() => ready?,
                () = self.nudge.notified() => {}
                _ = second.tick() => self.with_state(|it| it.tick()),
            }
            while self.with_state(|it| it.turn())? {
                // Other tasks of this thread and the reactor run between turns.
                tokio::task::yield_now().await;
                if self.due(&mut second).await {
                    self.with_state(|it| it.tick());
                }
            }
        }
    }

    /// Returns true if a second has passed, without waiting.
    async fn due(&self, second: &mut tokio::time::Interval) -> bool {
        tokio::select! {
            biased;
            _ = second.tick() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Calls `work` with the state borrowed.
    fn with_state<R>(self: &Rc<Self>, work: impl FnOnce(&mut WorkerLoop<'_>) -> R) -> R {
        work(&mut WorkerLoop { worker: self, state: &mut self.state.borrow_mut() })
    }

    /// Counts a socket in this worker's load.
    #[must_use]
    pub fn hold_socket(self: &Rc<Self>) -> SocketLoadGuard {
        self.shared.loads[self.id].fetch_add(1, Ordering::Relaxed);
        self.metrics().sockets.add(1);
        SocketLoadGuard { worker: self.clone(), handed_over: false }
    }

    fn socket_closed(&self) {
        self.shared.loads[self.id].fetch_sub(1, Ordering::Relaxed);
        self.metrics().sockets.add(-1);
    }

    /// Completes when this worker begins to drain.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stopping| *stopping).await; // a dropped worker has stopped too
        }
    }

    /// Keeps this worker's view of a tenant for a reader that waits for new events.
    #[must_use]
    pub fn watch(self: &Rc<Self>, tenant: &Arc<Tenant>) -> EventWatch {
        let state = &mut *self.state.borrow_mut();
        let view = state.join_view(tenant, self.id);
        let new_events = state.views[view as usize].new_events.clone();
        EventWatch { worker: self.clone(), view, new_events }
    }

    /// Reads a tenant's ring after `position`.
    pub fn read_ring(&self, tenant: &Tenant, position: Sequence, out: &mut Vec<Arc<Frame>>) -> RingRead {
        let state = &mut *self.state.borrow_mut();
        tenant.ring().read(&mut state.reader, position.next().0, out, view::BATCH_FRAMES)
    }

    /// Waits, if needed, until a body of `bytes` that `tenant` publishes may be processed.
    pub async fn enter(&self, tenant: TenantId, bytes: usize) {
        let wait = self.fair_share.borrow_mut().enter(tenant, bytes);
        if let Some(wait) = wait {
            self.nudge();
            let _ = wait.await; // if the gate was dropped, continue
        }
    }

    /// Wakes the loop, because a task of this thread left work for it.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Returns this worker's counters.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[self.id]
    }
}

/// A reader that waits for a tenant's events; see [`Worker::watch`].
pub struct EventWatch {
    worker: Rc<Worker>,
    view: u32,
    new_events: Rc<Notify>,
}

impl EventWatch {
    /// Completes when the worker has seen events after this call.
    pub fn events_seen(&self) -> impl Future<Output = ()> + use<> {
        let notified = Rc::clone(&self.new_events);
        // Registered at once and not at the first poll, so that no event is missed.
        let mut waiting = Box::pin(async move { notified.notified().await });
        let _ = futures_util::FutureExt::now_or_never(&mut waiting);
        waiting
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        let state = &mut *self.worker.state.borrow_mut();
        state.leave_view(self.view, self.worker.id);
    }
}

impl WorkerState {
    /// Returns the connection of a token, if it still exists.
    pub(crate) fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections
            .get_mut(token.slot as usize)
            .filter(|connection| connection.generation == token.generation)
    }

    /// Returns the organization of a connection, if it still exists.
    fn tenant_of(&mut self, token: Token) -> Option<TenantId> {
        self.connection(token).map(|connection| tenant_of(connection))
    }

    /// Adds a connection to the run list, at most once.
    pub(crate) fn run(&mut self, token: Token) {
        if let Some(connection) = self.connection(token)
            && !connection.flags.running
        {
            connection.flags.running = true;
            let tenant = tenant_of(connection);
            self.run.push(tenant, token);
        }
    }

    /// Adds a view to a list of those with new events, at most once.
    pub(crate) fn queue_view(&mut self, view: u32) {
        if let Some(it) = self.views.get_mut(view as usize)
            && !it.queued
        {
            it.queued = true;
            match it.served == self.turn {
                true => self.served_views.push_back(view),
                false => self.fresh_views.push_back(view),
            }
        }
    }

    /// Returns a generation that no slot has had before, within 2^32 connections.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == u32::MAX {
            self.generation = 1; // u32::MAX belongs to the wake token
        }
        self.generation
    }
}

/// Returns the organization of a connection. The diagnostic echo has a number that no organization has.
fn tenant_of(connection: &Connection) -> TenantId {
    connection.admitted.as_ref().map_or(TenantId(0), |admitted| admitted.principal().tenant)
}
