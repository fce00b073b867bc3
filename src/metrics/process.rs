//! Facts about this process from the kernel, read at each call.

use std::sync::LazyLock;

use rustix::time::{ClockId, clock_gettime};

use crate::descriptors;

/// Ticks per second in `/proc`. Linux promises this number to programs, whatever its own clock does
/// (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Facts with the names that every Prometheus client uses for them.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// CPU time in user and kernel space, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Address space in bytes.
    pub virtual_bytes: u64,
    /// Number of open file descriptors.
    pub open_descriptors: u64,
    /// The limit of open file descriptors; `u64::MAX` means no limit.
    pub max_descriptors: u64,
    /// When the process started, in Unix seconds; `None` if `/proc` does not say.
    pub started_at: Option<f64>,
}

/// When the process started. It is read once, because it cannot change and `/proc/stat` is long on large
/// machines.
static STARTED_AT: LazyLock<Option<f64>> = LazyLock::new(|| {
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: f64 = own.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / TICKS)
});

impl Process {
    /// Reads the present values; `None` without `/proc`.
    #[must_use]
    pub fn read() -> Option<Process> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Some(Process {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: bytes("VmRSS:")?,
            virtual_bytes: bytes("VmSize:")?,
            open_descriptors: open_descriptors()?,
            max_descriptors: descriptors::limit(),
            started_at: *STARTED_AT,
        })
    }
}

/// Returns the number of open file descriptors. Since Linux 6.2 it is the size of the directory; before, they
/// have to be counted.
fn open_descriptors() -> Option<u64> {
    match std::fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        number => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::read().expect("Linux has /proc");
        assert!(process.cpu_seconds > 0.0);
        assert!(process.resident_bytes > 100_000 && process.virtual_bytes >= process.resident_bytes);
        assert!((3..=process.max_descriptors).contains(&process.open_descriptors));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - process.started_at.expect("/proc says it");
        assert!((-2.0..3_600.0).contains(&age), "{age}");
    }
}
