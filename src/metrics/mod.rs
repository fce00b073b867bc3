//! Counters for all modules: relaxed atomics in one padded block per worker, so that workers never share a
//! cache line.
//!
//! Labels are a closed set: no metric names an organization, user, address or credential.

mod process;
mod streams;
mod times;

pub use process::Process;
pub use streams::StreamMetrics;
pub use times::{Snapshot, Times};

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::close::CloseReason;
use crate::transport::PerTransport;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Log lines that were dropped because standard error was not read. There is one log per process.
pub static LOG_LINES_DROPPED: Counter = Counter(AtomicU64::new(0));

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Returns the value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Returns the value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker. Only its own thread adds; any thread reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Sockets accepted and not yet closed, of any protocol.
    pub sockets: Gauge,
    /// Open connections.
    pub connections: PerTransport<Gauge>,
    /// (event, subscriber) pairs that matched when the event was evaluated against the subscription.
    pub matched: Counter,
    /// Pairs written completely to the transport; a merged chunk counts once.
    pub delivered: Counter,
    /// Pairs that were merged into another chunk.
    pub coalesced: Counter,
    /// Pairs that matched and are not yet written.
    pub pending: Gauge,
    /// Pairs that were pending when their connection ended or had a gap.
    pub dropped: Counter,
    /// Connections that read behind the live position.
    pub behind: Gauge,
    /// Sequences skipped by declared gaps.
    pub gap_skipped: Counter,
    /// Bytes written to subscribers.
    pub bytes_sent: Counter,
    /// Writes to subscribers, in system calls.
    pub writes: Counter,
    /// Closed connections, by [`CloseReason`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// Connections whose rights were checked again after a change.
    pub rechecked: Counter,
    /// HTTP requests answered.
    pub requests: Counter,
    /// Time from publishing an event to the end of the system call that wrote it, per live delivery.
    pub times: Times,
    /// Turns of the worker's loop. The count does not grow while the worker hangs.
    pub turns: Counter,
}

/// The counters of the process.
#[derive(Debug)]
pub struct Metrics {
    /// One block per worker.
    pub workers: Box<[WorkerMetrics]>,
    /// Events accepted for publishing.
    pub published: Counter,
    /// Publishes refused because of a full queue, a full disk or an unhealthy store.
    pub publish_unavailable: Counter,
    /// Credentials that could not be verified.
    pub auth_failures: Counter,
    /// Connections refused by a limit.
    pub refused: Counter,
    /// LLM streams.
    pub streams: StreamMetrics,
}

impl Metrics {
    /// Creates counters at zero for this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Metrics {
        Metrics {
            workers: (0..workers).map(|_| WorkerMetrics::default()).collect(),
            published: Counter::default(),
            publish_unavailable: Counter::default(),
            auth_failures: Counter::default(),
            refused: Counter::default(),
            streams: StreamMetrics::default(),
        }
    }
    /// Returns a counter summed over the workers.
    pub fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }
    /// Returns a gauge summed over the workers.
    pub fn sum_gauge(&self, of: impl Fn(&WorkerMetrics) -> i64) -> i64 {
        self.workers.iter().map(of).sum()
    }
}
