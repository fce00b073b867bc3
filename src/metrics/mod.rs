//! Counters every room adds to: relaxed atomics, one padded block per worker, so counting never shares a cache line.
//!
//! Labels are a closed set: no metric names an organization, user, address or credential.

mod process;
mod times;

pub use process::Process;
pub use times::{Snapshot, Times};

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::close::Close;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Log lines that were dropped since standard error was not read. There is one log for the process.
pub static LOG_LINES_DROPPED: Counter = Counter(AtomicU64::new(0));

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// The value.
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
    /// The value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a subscriber is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Transport {
    /// WebSocket.
    Ws = 0,
    /// SSE over HTTP/1.1, in chunks.
    Sse = 1,
    /// SSE as an HTTP/2 stream.
    SseH2 = 2,
    /// SSE over HTTP/1.0, whose body ends with the connection.
    SseHttp10 = 3,
}

impl Transport {
    /// Every transport, in the order of their ordinals.
    pub const ALL: [Transport; 4] = [Transport::Ws, Transport::Sse, Transport::SseH2, Transport::SseHttp10];
    /// The name used in metrics and listings.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Transport::Ws => "ws",
            Transport::Sse => "sse",
            Transport::SseH2 => "sse_h2",
            Transport::SseHttp10 => "sse_http10",
        }
    }
}

/// What one worker counts. Only its own thread adds; anyone reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Sockets accepted and not yet closed, whatever they speak.
    pub sockets: Gauge,
    /// Connections by [`Transport`].
    pub connections: [Gauge; Transport::ALL.len()],
    /// (event, subscriber) pairs found when an event was evaluated against a subscription.
    pub matched: Counter,
    /// Pairs written whole into the transport, a merged chunk counted once.
    pub delivered: Counter,
    /// Pairs that went into another by merging of chunks.
    pub coalesced: Counter,
    /// Pairs matched and not yet written.
    pub pending: Gauge,
    /// Pairs that were pending when their connection ended or met a gap.
    pub dropped: Counter,
    /// Connections that read behind the live position.
    pub behind: Gauge,
    /// Sequences passed over by declared gaps.
    pub gap_skipped: Counter,
    /// Bytes written to subscribers.
    pub bytes_sent: Counter,
    /// System calls that wrote to subscribers.
    pub writes: Counter,
    /// Connections ended, by [`Close`].
    pub closed: [Counter; Close::ALL.len()],
    /// Connections whose rights were looked at anew after a change.
    pub rechecked: Counter,
    /// HTTP requests answered.
    pub requests: Counter,
    /// From publishing to the end of the system call that wrote it, per live delivery.
    pub times: Times,
    /// Turns of the worker's loop; it stands still when the worker hangs.
    pub turns: Counter,
}

/// What is counted for the process as a whole.
#[derive(Debug)]
pub struct Metrics {
    /// One block per worker.
    pub workers: Box<[WorkerMetrics]>,
    /// Events accepted for publishing.
    pub published: Counter,
    /// Publishes refused for want of room, space or a healthy store.
    pub publish_unavailable: Counter,
    /// Failed credentials.
    pub auth_failures: Counter,
    /// Connections refused by a limit.
    pub refused: Counter,
}

impl Metrics {
    /// Zeroes, for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Metrics {
        Metrics {
            workers: (0..workers).map(|_| WorkerMetrics::default()).collect(),
            published: Counter::default(),
            publish_unavailable: Counter::default(),
            auth_failures: Counter::default(),
            refused: Counter::default(),
        }
    }
    /// A counter summed over the workers.
    pub fn sum(&self, of: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }
    /// A gauge summed over the workers.
    pub fn sum_gauge(&self, of: impl Fn(&WorkerMetrics) -> i64) -> i64 {
        self.workers.iter().map(of).sum()
    }
}
