//! Measures an interval of a load: the server's CPU, this process's CPU, the server's writes, and the duration.
//!
//! * The server's CPU is read last before the interval and first after it, so that the other readings cost it
//!   nothing.
//! * The writes are read from the server over HTTP. Only a mode that reports a batch depth reads them.

use std::time::{Duration, Instant};

use crate::target::Target;
use crate::target::process::{Cpu, CpuUsage};

/// Wait between two readings of the writes, and the maximum number of readings.
const BETWEEN_READINGS: Duration = Duration::from_millis(20);
const SETTLING: usize = 50;

/// The readings before an interval.
#[derive(Debug)]
pub(crate) struct Meter {
    writes: Option<u64>,
    own: Option<Cpu>,
    cpu: Option<Cpu>,
    began: Instant,
}

/// The resources used by an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntervalUsage {
    /// Duration in seconds.
    pub elapsed: f64,
    /// CPU of the server, if its process is known.
    pub cpu: Option<CpuUsage>,
    /// CPU of this process, in seconds.
    pub own: f64,
    /// The server's writes, if they were requested and are available.
    writes: Option<u64>,
}

impl Meter {
    /// Starts a measurement.
    pub(crate) fn start(target: &Target) -> Meter {
        Meter::reading(target, None)
    }

    /// Starts a measurement that includes the server's writes.
    pub(crate) fn with_writes(target: &Target) -> Meter {
        Meter::reading(target, settled_writes(target))
    }

    fn reading(target: &Target, writes: Option<u64>) -> Meter {
        let own = Cpu::of(std::process::id());
        Meter { writes, own, cpu: target.cpu(), began: Instant::now() }
    }

    /// Returns the resources used since the start. The interval may continue.
    pub(crate) fn used(&self, target: &Target) -> IntervalUsage {
        let elapsed = self.began.elapsed().as_secs_f64();
        let since = |before: Option<Cpu>, now: Option<Cpu>| Some(now?.since(&before?));
        let cpu = since(self.cpu, target.cpu());
        let own = since(self.own, Cpu::of(std::process::id())).unwrap_or_default().total;
        let writes = self.writes.and_then(|before| Some(settled_writes(target)?.saturating_sub(before)));
        IntervalUsage { elapsed, cpu, own, writes }
    }
}

/// Returns the server's writes when two readings agree. The server counts a write after making it, and a
/// receiver may see the event earlier.
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

impl IntervalUsage {
    /// Returns deliveries per write, if writes are known and not zero.
    pub(crate) fn depth(&self, deliveries: u64) -> Option<f64> {
        let writes = self.writes.filter(|writes| *writes > 0)?;
        Some(deliveries as f64 / writes as f64)
    }
}
