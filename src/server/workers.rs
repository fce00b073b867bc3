//! The worker threads: each has a runtime, its copy of every listener, and a way to end it.
//!
//! Every worker accepts from every listener and passes an accepted socket to the worker with the fewest
//! sockets. So a single inherited listener serves as well as many.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use crate::error_response::ErrorResponse;
use crate::event_ring::Reader;
use crate::http::ListenerKind;
use crate::http::connection::serve;
use crate::http::response::ApiResponse;
use crate::worker::mail::Mail;
use crate::worker::{Accepted, SharedState, Worker};

/// Tasks (requests, accepts) that a worker polls before its loop and the reactor run again. A request with a
/// large body takes some hundred microseconds, so tokio's default of 61 tasks would delay live events by many
/// milliseconds.
const TASKS_PER_TURN: u32 = 4;
/// A worker keeps an accepted socket while it has at most this many more than the least loaded worker.
const IMBALANCE: usize = 2;
/// How long accepting pauses after an error, such as when no descriptor is left.
const REST: Duration = Duration::from_millis(100);
/// Sockets served beyond the capacity. Their requests are read and refused in the right form (an event stream
/// by an event), and a full daemon still answers probes.
const REFUSING: usize = 64;
/// The rest of the reserved descriptors belongs to the store, the listeners and the eventfds.
const _: () = assert!(REFUSING as u64 + 32 <= super::capacity::RESERVED);

/// A running worker thread.
#[derive(Debug)]
pub(super) struct WorkerThread {
    thread: JoinHandle<io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl WorkerThread {
    /// Ends the worker and waits for its thread.
    pub(super) fn end(self) {
        let _ = self.stop.send(()); // a worker that failed has already ended
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
            Err(_) => tracing::error!("a worker panicked"),
        }
    }

    /// Whether the worker has ended, which must not happen while the daemon serves.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts one worker. Returns once it serves.
///
/// # Errors
/// The thread, a descriptor or the runtime cannot be created.
pub(super) fn start(
    id: usize,
    shared: &Arc<SharedState>,
    reader: Reader,
    listeners: Vec<(std::os::fd::OwnedFd, bool, ListenerKind)>,
    capacity: usize,
) -> io::Result<WorkerThread> {
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
    Ok(WorkerThread { thread, stop })
}

fn prepare(
    id: usize,
    shared: Arc<SharedState>,
    reader: Reader,
    listeners: Vec<(std::os::fd::OwnedFd, bool, ListenerKind)>,
    capacity: usize,
) -> io::Result<Rc<Worker>> {
    let worker = Worker::new(id, shared, reader)?;
    let dealt = Rc::downgrade(&worker);
    let on_accepted = move |accepted| {
        if let Some(worker) = dealt.upgrade() {
            tokio::task::spawn_local(serve(worker, accepted, ListenerKind::Public));
        }
    };
    if worker.on_accepted.set(Box::new(on_accepted)).is_err() {
        return Err(io::Error::other("a worker was prepared twice"));
    }
    for (fd, unix, kind) in listeners {
        // Both loops end when the worker drains. At the latest, the runtime drops them with the thread.
        if unix {
            let listener = UnixListener::from_std(fd.into())?;
            tokio::task::spawn_local(accept_unix(worker.clone(), listener, capacity));
        } else {
            let listener = TcpListener::from_std(fd.into())?;
            tokio::task::spawn_local(accept_tcp(worker.clone(), listener, kind, capacity));
        }
    }
    Ok(worker)
}

async fn accept_tcp(worker: Rc<Worker>, listener: TcpListener, kind: ListenerKind, capacity: usize) {
    let mut stopped = std::pin::pin!(worker.stopped());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, _)) if is_full(&worker, capacity) => refuse(&worker, &stream),
            Ok((stream, peer)) => assign_to_worker(&worker, Accepted::Tcp(stream, peer.ip()), kind),
            Err(error) => pause_after_accept_error(&error).await,
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
            Ok(stream) => assign_to_worker(&worker, Accepted::Unix(stream), ListenerKind::Public),
            Err(error) => pause_after_accept_error(&error).await,
        }
    }
}

/// Whether there are too many sockets even to refuse one more with a full response.
fn is_full(worker: &Worker, capacity: usize) -> bool {
    let held: usize = worker.shared.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum();
    held >= capacity.saturating_add(REFUSING)
}

/// Answers 503 with a single non-blocking write.
fn refuse(worker: &Worker, stream: &impl std::os::fd::AsFd) {
    let refusal = ErrorResponse::unavailable("the server is full");
    let answer = ApiResponse::error(&refusal, &*worker.shared.clock).to_final_bytes();
    let _ = rustix::net::send(
        stream,
        &answer,
        rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL,
    );
}

/// Passes a socket to the worker with the fewest sockets, which may be this one.
fn assign_to_worker(worker: &Rc<Worker>, accepted: Accepted, kind: ListenerKind) {
    let load = |id: usize| worker.shared.loads[id].load(Ordering::Relaxed);
    let least = (0..worker.shared.loads.len()).min_by_key(|id| load(*id)).unwrap_or(worker.id);
    if kind == ListenerKind::Echo || load(worker.id) <= load(least) + IMBALANCE {
        tokio::task::spawn_local(serve(worker.clone(), accepted, kind));
    } else {
        worker.shared.mail[least].push(Mail::Accepted(accepted));
    }
}

/// Logs a failed accept and pauses: the error concerns one connection, or no descriptor is left.
async fn pause_after_accept_error(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(REST).await;
}
