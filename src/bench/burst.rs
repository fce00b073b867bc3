//! A load in short bursts, for where the server's latency is measured on the cores the load is made on.
//!
//! A thread that is always busy holds a core for a slice of the kernel's scheduler, here 1.4 ms, or until its next tick, 4 ms
//! at 250 Hz. What a server would be told to answer for then is the slice. Publishers and readers on other machines hold none.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The longest the thread works without a rest, about.
const WORK: Duration = Duration::from_micros(200);
/// How long it rests.
const REST: Duration = Duration::from_micros(100);
/// How late the kernel may end a rest, nanoseconds; by default it is 50 µs.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).expect("not zero");

/// When the thread rested last.
#[derive(Debug)]
pub struct Bursts {
    since: Instant,
}

impl Bursts {
    /// For the calling thread.
    #[must_use]
    pub fn new() -> Bursts {
        let _ = rustix::thread::set_current_timer_slack(Some(SLACK_NS)); // else rests are longer
        Bursts { since: Instant::now() }
    }

    /// Between two pieces of work: rests if it is time to.
    pub fn pause(&mut self) {
        if self.since.elapsed() >= WORK {
            std::thread::sleep(REST);
            self.since = Instant::now();
        }
    }
}

impl Default for Bursts {
    fn default() -> Bursts {
        Bursts::new()
    }
}
