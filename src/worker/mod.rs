//! A worker: one thread, one runtime, its own sockets. Its state is never shared or locked; other threads
//! only send mail.
//!
//! * Its state is one [`RefCell`], borrowed only between awaits ([`WorkerLoop`]), so the loop and its tasks
//!   never borrow it at the same time.
//! * The loop serves in turns (`turn`): socket events, mail, tenants with new events, connections with work
//!   left. After each turn it yields to the reactor, so that accepts, requests and heartbeats continue under
//!   any load.
//! * `connect` and `disconnect` begin and end connections. `fanout` serves live ones, `catchup` those that are
//!   behind, `inbound` reads input, `keepalive` handles ticks.

pub mod catchup;
pub mod commits;
pub mod connect;
mod connection_index;
pub mod connection_list;
mod disconnect;
mod event_watch;
mod fair_queue;
mod fair_share;
pub mod fanout;
pub mod inbound;
pub mod keepalive;
pub mod mail;
mod read_streams;
mod recheck;
mod scan;
mod shared;
pub mod slab;
mod slot_set;
pub mod sockets;
mod state;
pub mod stream_readers;
mod submit;
pub mod subscribe;
#[cfg(test)]
mod tests;
mod turn;
pub mod view;
pub mod wheel;
mod written_event;
pub mod ws_publish;
mod ws_stream;

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;

use crate::event_ring::Reader;
use crate::ids::TenantId;
use crate::metrics::WorkerMetrics;

pub use event_watch::EventWatch;
pub use shared::SharedState;

use sockets::{Sockets, Token};
use state::WorkerState;

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
    /// Passes the entry to the connection that took over the socket: [`WorkerLoop::drop_connection`] releases it.
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
    pub shared: Arc<SharedState>,
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

impl Worker {
    /// Creates a worker without connections, on the current runtime.
    ///
    /// # Errors
    /// No file descriptor is left for its epoll set.
    pub fn new(id: usize, shared: Arc<SharedState>, reader: Reader) -> io::Result<Rc<Worker>> {
        let sockets = Sockets::new()?;
        sockets.add_wake(&shared.mail[id])?;
        sockets.add_wake(&shared.wakes[id])?;
        let state = WorkerState::new(reader, shared.config.fanout_submission);
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
