//! A load in short bursts, for measuring the server's latency on the same cores that generate the load.
//!
//! A thread that is always busy keeps a core for a slice of the kernel's scheduler (here 1.4 ms) or until its
//! next tick (4 ms at 250 Hz). That slice would be counted as the server's latency. Publishers and readers on
//! other machines do not hold a core of the server.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Approximate longest time that the thread works without a rest.
const WORK: Duration = Duration::from_micros(200);
/// Duration of a rest.
const REST: Duration = Duration::from_micros(100);
/// How late the kernel may end a rest, in nanoseconds. The kernel's default is 50 µs.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).expect("not zero");

/// The time of the thread's last rest.
#[derive(Debug)]
pub(crate) struct BurstPacer {
    since: Instant,
}

impl BurstPacer {
    /// Creates a state for the calling thread.
    pub(crate) fn new() -> BurstPacer {
        let _ = rustix::thread::set_current_timer_slack(Some(SLACK_NS)); // on failure, rests are longer
        BurstPacer { since: Instant::now() }
    }

    /// Called between two pieces of work. Rests if the thread has worked long enough.
    pub(crate) fn pause(&mut self) {
        if self.since.elapsed() >= WORK {
            std::thread::sleep(REST);
            self.since = Instant::now();
        }
    }
}
