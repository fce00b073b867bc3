//! The workers' threads: each with its runtime, its share of every listener, and its end.
//!
//! Every worker accepts from every listener and deals what it accepted to the worker with the fewest sockets, so that one
//! inherited listener serves as well as many.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use crate::http::conn::{Door, serve};
use crate::http::respond::Answer;
use crate::outcome::Refusal;
use crate::ring::Reader;
use crate::worker::mail::Mail;
use crate::worker::{Accepted, Shared, Worker};

/// Tasks (requests, accepts) a worker polls between two turns of its loop and looks at the reactor: a request with a large
/// body takes some hundred microseconds, so tokio's 61 of them would delay live events by many milliseconds.
const TASKS_PER_TURN: u32 = 4;
/// How many sockets more than the least loaded worker one may have before it deals on.
const IMBALANCE: usize = 2;
/// How long accepting rests when no descriptor is left.
const REST: Duration = Duration::from_millis(100);
/// Sockets served beyond the capacity: long enough for their requests to be read and refused in the right form (an event
/// stream by an event), and for probes to be answered by a full daemon.
const REFUSING: usize = 64;
/// The rest of what is held in reserve is the store's, the listeners' and the eventfds'.
const _: () = assert!(REFUSING as u64 + 32 <= super::capacity::RESERVED);

/// A running worker.
#[derive(Debug)]
pub(super) struct Running {
    thread: JoinHandle<io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Running {
    /// Ends the worker and waits for its thread.
    pub(super) fn end(self) {
        let _ = self.stop.send(()); // a worker that failed has gone already
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
            Err(_) => tracing::error!("a worker panicked"),
        }
    }

    /// Whether it has ended, which it must not while the daemon serves.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts one worker; returns once it serves.
///
/// # Errors
/// No thread, descriptor or runtime is to be had.
pub(super) fn start(
    id: usize,
    shared: &Arc<Shared>,
    reader: Reader,
    listeners: Vec<(std::os::fd::OwnedFd, bool, Door)>,
    capacity: usize,
) -> io::Result<Running> {
    let (stop, stopped) = oneshot::channel();
    let (up, is_up) = std::sync::mpsc::sync_channel(1);
    let shared = shared.clone();
    let thread = std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(TASKS_PER_TURN)
            .build_local(Default::default())?;
        runtime.block_on(async move {
            let worker = match prepare(id, shared, reader, listeners, capacity) {
                Ok(worker) => worker,
                Err(error) => {
                    let _ = up.send(Err(error)); // `start` is waiting
                    return Ok(());
                }
            };
            let _ = up.send(Ok(())); // `start` is waiting
            tokio::select! {
                ended = worker.run() => ended,
                _ = stopped => Ok(()),
            }
        })
    })?;
    is_up.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))?;
    Ok(Running { thread, stop })
}

fn prepare(
    id: usize,
    shared: Arc<Shared>,
    reader: Reader,
    listeners: Vec<(std::os::fd::OwnedFd, bool, Door)>,
    capacity: usize,
) -> io::Result<Rc<Worker>> {
    let worker = Worker::new(id, shared, reader)?;
    let dealt = Rc::downgrade(&worker);
    let on_accepted = move |accepted| {
        if let Some(worker) = dealt.upgrade() {
            tokio::task::spawn_local(serve(worker, accepted, Door::Public));
        }
    };
    if worker.on_accepted.set(Box::new(on_accepted)).is_err() {
        return Err(io::Error::other("a worker was prepared twice"));
    }
    for (fd, unix, door) in listeners {
        // Both loops end when the worker drains; the runtime drops them with the thread at the latest.
        if unix {
            let listener = UnixListener::from_std(fd.into())?;
            tokio::task::spawn_local(accept_unix(worker.clone(), listener, capacity));
        } else {
            let listener = TcpListener::from_std(fd.into())?;
            tokio::task::spawn_local(accept_tcp(worker.clone(), listener, door, capacity));
        }
    }
    Ok(worker)
}

async fn accept_tcp(worker: Rc<Worker>, listener: TcpListener, door: Door, capacity: usize) {
    let mut stopped = std::pin::pin!(worker.stopped());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, _)) if is_full(&worker, capacity) => refuse(&worker, &stream),
            Ok((stream, peer)) => deal(&worker, Accepted::Tcp(stream, peer.ip()), door),
            Err(error) => rest(&error).await,
        }
    }
}

async fn accept_unix(worker: Rc<Worker>, listener: UnixListener, capacity: usize) {
    let mut stopped = std::pin::pin!(worker.stopped());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) if is_full(&worker, capacity) => refuse(&worker, &stream),
            Ok(stream) => deal(&worker, Accepted::Unix(stream), Door::Public),
            Err(error) => rest(&error).await,
        }
    }
}

/// Whether a socket more cannot even be told properly why it is refused.
fn is_full(worker: &Worker, capacity: usize) -> bool {
    let held: usize = worker.shared.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
    held >= capacity.saturating_add(REFUSING)
}

/// Says that the daemon is full, as far as one write gets.
fn refuse(worker: &Worker, stream: &impl std::os::fd::AsFd) {
    let refusal = Refusal::unavailable("the server is full");
    let answer = Answer::refusal(&refusal, &*worker.shared.clock).whole_and_last();
    let _ = rustix::net::send(
        stream,
        &answer,
        rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL,
    );
}

/// Gives a socket to the worker with the fewest, if that is not this one.
fn deal(worker: &Rc<Worker>, accepted: Accepted, door: Door) {
    let load = |id: usize| worker.shared.loads[id].load(Ordering::Relaxed);
    let least = (0..worker.shared.loads.len()).min_by_key(|id| load(*id)).unwrap_or(worker.id);
    if door == Door::Echo || load(worker.id) <= load(least) + IMBALANCE {
        tokio::task::spawn_local(serve(worker.clone(), accepted, door));
    } else {
        worker.shared.mail[least].push(Mail::Accepted(accepted));
    }
}

/// A failed accept is this connection's bad luck, or means that no descriptor is left.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(REST).await;
}
