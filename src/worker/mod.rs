//! A worker: one thread, one runtime, its own sockets; nothing on it is shared or locked but what arrives by mail.
//!
//! * Its state is one [`RefCell`], borrowed only between awaits, so the loop and its tasks never meet inside it.
//! * The loop serves in turns (`turn`): socket events, mail, tenants with news, connections with work left; after each
//!   turn it yields to the reactor, so that accepts, requests and heartbeats go on under any load.
//! * Who is told what: `fanout` serves live connections, `catchup` those behind, `inbound` reads, `keepalive` ticks.

pub mod catchup;
pub mod commits;
pub mod connect;
mod connection_index;
mod fair_queue;
pub mod fanout;
mod gate;
pub mod inbound;
pub mod keepalive;
pub mod mail;
pub mod scan;
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
use crate::connection::newcomers::Newcomers;
use crate::connection::rate::Rates;
use crate::connection::shares::Shares;
use crate::connection::{Connection, Tick};
use crate::frame::Frame;
use crate::frame::ws_decode;
use crate::ids::{Sequence, TenantId};
use crate::metrics::{Metrics, WorkerMetrics};
use crate::outcome::Refusal;
use crate::ring::{Read, Reader};
use crate::tenant::{Tenant, Tenants};
use crate::time::Clock;
use crate::wake::WakeQueue;

use connection_index::ConnectionIndex;
use fair_queue::FairQueue;
use mail::Mail;
use scan::Scans;
use slab::Slab;
use sockets::{Ready, Sockets, Token};
use view::View;
use wheel::Wheel;
use ws_publish::Committed;

/// Bytes of the one read buffer of a worker, and so the most that is kept of a connection whose turn ended amid its input.
const READ_BUFFER: usize = 16 * 1024;
/// What every worker sees.
pub struct Shared {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Every tenant.
    pub tenants: Arc<Tenants>,
    /// Limits on connections.
    pub admission: Arc<Admission>,
    /// Sockets whose peers have not shown a valid credential.
    pub newcomers: Arc<Newcomers>,
    /// What has come in part: request bodies and WebSocket messages.
    pub incoming: Arc<Shares>,
    /// Answers that wait to be read.
    pub unread_answers: Arc<Shares>,
    /// Event streams over HTTP/2 that wait to be read.
    pub unread_streams: Arc<Shares>,
    /// How much organizations publish and ask a second.
    pub rates: Rates,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// One mailbox per worker.
    pub mail: Arc<[WakeQueue<Mail>]>,
    /// Tenants with news, one queue per worker.
    pub wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    /// Sockets each worker holds, for dealing new ones.
    pub loads: Box<[AtomicUsize]>,
    /// Bounds of inbound WebSocket messages.
    pub ws_limits: ws_decode::Limits,
    /// Set when the daemon stops: nothing new is accepted.
    pub stopping: AtomicBool,
    /// Connections so far, in every organization together.
    next_connection: AtomicU64,
    /// Keyed at random: makes ids of that count, so that they tell nobody how many others connect, and differ between
    /// runs, so that a replayed event's origin never hides another run's event.
    connection_ids: RandomState,
}

impl Shared {
    /// Joins the parts.
    #[allow(clippy::too_many_arguments)] // each is one room's handle, named at its only caller
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
        let newcomers = Newcomers::new(config.limits.unauthenticated_connections, admission.clone());
        let anybody = config.limits.unauthenticated_bytes;
        let incoming = Shares::new(
            "requests and messages on their way",
            config.limits.body_bytes_per_organization,
            anybody,
        );
        let unread = config.limits.unread_bytes_per_organization;
        let unread_answers = Shares::new("unread answers", unread, anybody);
        let unread_streams = Shares::new("unread event streams", unread, anybody);
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

    /// A connection id that was not given out before, but for one chance in 2^64 per pair.
    pub fn connection_id(&self) -> u64 {
        self.connection_ids.hash_one(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the daemon stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether anything new may begin.
    ///
    /// # Errors
    /// 503 once the daemon stops.
    pub fn serving(&self) -> Result<(), Refusal> {
        match self.is_stopping() {
            true => Err(Refusal::unavailable("the server is stopping")),
            false => Ok(()),
        }
    }
}

/// A fresh socket, non-blocking.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, with its peer.
    Tcp(std::net::TcpStream, std::net::IpAddr),
    /// Over a unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// What serves sockets that are dealt to a worker.
pub type OnAccepted = Box<dyn Fn(Accepted)>;

/// A socket's place in its worker's load, given back when it is dropped.
pub struct HeldSocket {
    worker: Rc<Worker>,
    handed_over: bool,
}

impl HeldSocket {
    /// The connection took it over: [`Worker::drop_connection`] gives it back.
    pub fn hand_over(mut self) {
        self.handed_over = true;
    }
}

impl Drop for HeldSocket {
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
    /// What it shares.
    pub shared: Arc<Shared>,
    sockets: Sockets,
    state: RefCell<State>,
    /// What serves sockets that come by mail; set once, before any comes.
    pub on_accepted: OnceCell<OnAccepted>,
    /// True once this worker drains: connections still in hyper end after their present request.
    stop: tokio::sync::watch::Sender<bool>,
    /// Bodies that were drained after they had blocked, or dropped. Outside `state`: a body may be drained while it is borrowed.
    body_ready: RefCell<VecDeque<Token>>,
    /// Wakes the loop from this thread's own tasks.
    nudge: Notify,
    /// Outside `state`: a task asks while it is not borrowed, mail tells while it is.
    commits: commits::Commits,
    /// Outside `state` likewise.
    gate: RefCell<gate::Gate>,
}

/// What a worker owns.
pub(crate) struct State {
    pub(crate) connections: Slab<Connection>,
    pub(crate) views: Slab<View>,
    pub(crate) by_tenant: HashMap<TenantId, u32>,
    /// Tenants of connections that never subscribed, with how many those are: a quiet tenant that nobody holds is
    /// forgotten.
    pub(crate) held: HashMap<TenantId, (Arc<Tenant>, u32)>,
    index: ConnectionIndex,
    pub(crate) wheel: Wheel,
    /// Connections whose tick has come, with that tick; those of a tick that took long come before those of the next.
    due: VecDeque<(Tick, std::vec::IntoIter<Token>)>,
    /// Connections with work left that no edge will announce.
    run: FairQueue<Token>,
    scans: Scans,
    /// Publishes over WebSockets whose commit is over and whose publisher has not been answered.
    acks: FairQueue<Committed>,
    /// Turns so far.
    turn: u64,
    /// Views with news that were not served in this turn, each once in this or in `news` ([`View::queued`]).
    fresh: VecDeque<u32>,
    /// Views with news that had their share of this turn.
    news: VecDeque<u32>,
    pub(crate) reader: Reader,
    generation: u32,
    /// Connections came or went in this second, and in the one before.
    pub(crate) crowded: bool,
    pub(crate) was_crowded: bool,
    /// Sockets that are ready and have not been served.
    events: VecDeque<Ready>,
    /// Mail that was taken out of the mailbox and has not been dealt with.
    mail: VecDeque<Mail>,
    /// Scratch, empty between uses.
    told: Vec<Arc<Tenant>>,
    pub(crate) input: Box<[u8]>,
    pub(crate) frames: Vec<Arc<Frame>>,
    pub(crate) bytes: Vec<u8>,
    outs: Vec<submit::Out>,
    submission: submit::Submission,
    pub(crate) control: Vec<u8>,
}

impl Worker {
    /// A worker without connections, on the current runtime.
    ///
    /// # Errors
    /// No descriptor is left for its epoll set.
    pub fn new(id: usize, shared: Arc<Shared>, reader: Reader) -> io::Result<Rc<Worker>> {
        let sockets = Sockets::new()?;
        sockets.add_wake(&shared.mail[id])?;
        sockets.add_wake(&shared.wakes[id])?;
        let state = State {
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
            fresh: VecDeque::new(),
            news: VecDeque::new(),
            reader,
            generation: 0,
            crowded: false,
            was_crowded: false,
            events: VecDeque::new(),
            mail: VecDeque::new(),
            told: Vec::new(),
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
            commits: commits::Commits::default(),
            gate: RefCell::default(),
        }))
    }

    /// Serves until the thread's runtime is dropped.
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
                _ = second.tick() => self.tick(),
            }
            while self.turn()? {
                // Other tasks of this thread and the reactor get their part between turns.
                tokio::task::yield_now().await;
                if self.due(&mut second).await {
                    self.tick();
                }
            }
        }
    }

    /// Whether a second has passed, without waiting.
    async fn due(&self, second: &mut tokio::time::Interval) -> bool {
        tokio::select! {
            biased;
            _ = second.tick() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Takes a place in this worker's load for a socket.
    #[must_use]
    pub fn hold_socket(self: &Rc<Self>) -> HeldSocket {
        self.shared.loads[self.id].fetch_add(1, Ordering::Relaxed);
        self.metrics().sockets.add(1);
        HeldSocket { worker: self.clone(), handed_over: false }
    }

    fn socket_closed(&self) {
        self.shared.loads[self.id].fetch_sub(1, Ordering::Relaxed);
        self.metrics().sockets.add(-1);
    }

    /// Ends when this worker begins to drain.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stopping| *stopping).await; // a dropped worker has stopped too
        }
    }

    /// Keeps this worker's view of a tenant alive for a reader that waits for news.
    #[must_use]
    pub fn watch(self: &Rc<Self>, tenant: &Arc<Tenant>) -> Watch {
        let state = &mut *self.state.borrow_mut();
        let view = state.join_view(tenant, self.id);
        let news = state.views[view as usize].news.clone();
        Watch { worker: self.clone(), view, news }
    }

    /// Reads a tenant's ring after `position`.
    pub fn read_ring(&self, tenant: &Tenant, position: Sequence, out: &mut Vec<Arc<Frame>>) -> Read {
        let state = &mut *self.state.borrow_mut();
        tenant.ring().read(&mut state.reader, position.next().0, out, view::BATCH_FRAMES)
    }

    /// Waits, if need be, until a body of `bytes` that `tenant` publishes may be worked on.
    pub async fn enter(&self, tenant: TenantId, bytes: usize) {
        let wait = self.gate.borrow_mut().enter(tenant, bytes);
        if let Some(wait) = wait {
            self.nudge();
            let _ = wait.await; // a gate that has gone holds nobody up
        }
    }

    /// Wakes the loop: a task of this thread left work for it.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// This worker's counters.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[self.id]
    }
}

/// A reader's interest in a tenant's news; see [`Worker::watch`].
pub struct Watch {
    worker: Rc<Worker>,
    view: u32,
    news: Rc<Notify>,
}

impl Watch {
    /// Ends when the worker has seen events after this call.
    pub fn news(&self) -> impl Future<Output = ()> + use<> {
        let notified = Rc::clone(&self.news);
        // Registered at once, not at the first poll: nothing comes unnoticed.
        let mut waiting = Box::pin(async move { notified.notified().await });
        let _ = futures_util::FutureExt::now_or_never(&mut waiting);
        waiting
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let state = &mut *self.worker.state.borrow_mut();
        state.leave_view(self.view, self.worker.id);
    }
}

impl State {
    /// The connection a token names, if it still lives.
    pub(crate) fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections
            .get_mut(token.slot as usize)
            .filter(|connection| connection.generation == token.generation)
    }

    /// The organization of a connection that still lives.
    fn tenant_of(&mut self, token: Token) -> Option<TenantId> {
        self.connection(token).map(|connection| tenant_of(connection))
    }

    /// Puts a connection on the run list, once.
    pub(crate) fn run(&mut self, token: Token) {
        if let Some(connection) = self.connection(token)
            && !connection.flags.running
        {
            connection.flags.running = true;
            let tenant = tenant_of(connection);
            self.run.push(tenant, token);
        }
    }

    /// Puts a view on a list of those with news, once.
    pub(crate) fn queue_view(&mut self, view: u32) {
        if let Some(it) = self.views.get_mut(view as usize)
            && !it.queued
        {
            it.queued = true;
            match it.served == self.turn {
                true => self.news.push_back(view),
                false => self.fresh.push_back(view),
            }
        }
    }

    /// A generation no earlier holder of any slot had, while 2^32 connections last.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == u32::MAX {
            self.generation = 1; // u32::MAX is the wake token's
        }
        self.generation
    }
}

/// The organization of a connection; the diagnostic echo has a number that no organization has.
fn tenant_of(connection: &Connection) -> TenantId {
    connection.admitted.as_ref().map_or(TenantId(0), |admitted| admitted.principal().tenant)
}
