//! A stretch of a load on the meter: the server's CPU, this process's, the server's writes, and how long it took.
//!
//! * The server's CPU is read last before the stretch and first after it, so that taking the other readings costs it nothing.
//! * Reading the writes asks the server over HTTP: only a mode that tells a batch depth asks for them.

use std::time::{Duration, Instant};

use super::process::{Cpu, Spent};
use super::target::Target;

/// Between two readings of the writes, and how many there are at most.
const BETWEEN_READINGS: Duration = Duration::from_millis(20);
const SETTLING: usize = 50;

/// Readings before a stretch.
#[derive(Debug)]
pub struct Meter {
    writes: Option<u64>,
    own: Option<Cpu>,
    cpu: Option<Cpu>,
    began: Instant,
}

/// What a stretch took.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Seconds.
    pub elapsed: f64,
    /// CPU of the server, where its process is known.
    pub cpu: Option<Spent>,
    /// CPU of this process, seconds.
    pub own: f64,
    /// The server's writes, where they were asked for and are told.
    writes: Option<u64>,
}

impl Meter {
    /// From now on.
    #[must_use]
    pub fn start(target: &Target) -> Meter {
        Meter::reading(target, None)
    }

    /// From now on, the server's writes too.
    #[must_use]
    pub fn with_writes(target: &Target) -> Meter {
        Meter::reading(target, settled_writes(target))
    }

    fn reading(target: &Target, writes: Option<u64>) -> Meter {
        let own = Cpu::of(std::process::id());
        Meter { writes, own, cpu: target.cpu(), began: Instant::now() }
    }

    /// Since the start. The stretch may go on.
    #[must_use]
    pub fn used(&self, target: &Target) -> Used {
        let elapsed = self.began.elapsed().as_secs_f64();
        let since = |before: Option<Cpu>, now: Option<Cpu>| Some(now?.since(&before?));
        let cpu = since(self.cpu, target.cpu());
        let own = since(self.own, Cpu::of(std::process::id())).unwrap_or_default().total;
        let writes = self.writes.and_then(|before| Some(settled_writes(target)?.saturating_sub(before)));
        Used { elapsed, cpu, own, writes }
    }
}

/// The server's writes once two readings agree: it counts them after they were made, which a receiver may notice first.
fn settled_writes(target: &Target) -> Option<u64> {
    let mut last = target.writes()?;
    for _ in 0..SETTLING {
        std::thread::sleep(BETWEEN_READINGS);
        let now = target.writes()?;
        if now == last {
            break;
        }
        last = now;
    }
    Some(last)
}

impl Used {
    /// Deliveries in one write, where writes are known and there were any.
    #[must_use]
    pub fn depth(&self, deliveries: u64) -> Option<f64> {
        let writes = self.writes.filter(|writes| *writes > 0)?;
        Some(deliveries as f64 / writes as f64)
    }
}
