//! Reads CPU, memory and sockets of a process, and of TCP, from /proc. This file does not know servers.

use std::time::Duration;

/// A tick of `stat`.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// CPU time of all living threads, to the nanosecond (`schedstat`). If threads have ended, theirs is
    /// included in steps of 10 ms.
    pub total: Duration,
    /// CPU time in user space, in steps of 10 ms (`stat`).
    pub user_ticks: u64,
    /// CPU time in the kernel, in steps of 10 ms.
    pub system_ticks: u64,
}

impl Cpu {
    /// Reads the CPU time of process `pid`; `None` if it has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Cpu> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let mut total = 0u64;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end between the two reads.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        let (user_ticks, system_ticks) = (ticks(11)?, ticks(12)?);
        // The ticks include ended threads and are rounded down. If they exceed the sum of the living threads,
        // the rest belongs to ended threads.
        let total = Duration::from_nanos(total).max(TICK.saturating_mul((user_ticks + system_ticks) as u32));
        Some(Cpu { total, user_ticks, system_ticks })
    }

    /// Returns the CPU time since `before` in seconds, and the share in user space.
    ///
    /// The kernel splits user and system time by sampling at its tick, some hundred times per second of CPU
    /// time. So the share of a short run is imprecise.
    #[must_use]
    pub fn since(&self, before: &Cpu) -> CpuUsage {
        let total = self.total.saturating_sub(before.total).as_secs_f64();
        let user = self.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(before.system_ticks) as f64;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        CpuUsage { total, user: total * share }
    }
}

/// CPU time of an interval, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUsage {
    /// User and system time.
    pub total: f64,
    /// User time.
    pub user: f64,
}

/// Returns the bytes of memory that are the process's own share (PSS).
pub(crate) fn pss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib(text.lines().find(|line| line.starts_with("Pss:"))?)
}

/// Returns the bytes of resident memory, including shared pages. This is cheap to read; [`pss`] is not.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib(text.lines().find(|line| line.starts_with("VmRSS:"))?)
}

/// Resets the peak of resident memory to the current value. Returns false if the kernel refuses.
pub(crate) fn reset_peak(pid: u32) -> bool {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok() // 5: reset VmHWM, see proc_pid_clear_refs(5)
}

/// Returns the peak of resident bytes since [`reset_peak`] or the start of the process.
pub(crate) fn peak_rss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib(text.lines().find(|line| line.starts_with("VmHWM:"))?)
}

fn kib(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// The resources of all TCP sockets of this network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpMemory {
    /// Sockets in use.
    pub in_use: u64,
    /// Bytes of kernel memory in their buffers, in whole pages.
    pub bytes: u64,
}

/// Reads the TCP line of `/proc/net/sockstat`.
pub(crate) fn tcp_memory() -> Option<TcpMemory> {
    let text = std::fs::read_to_string("/proc/net/sockstat").ok()?;
    tcp_line(&text)
}

fn tcp_line(text: &str) -> Option<TcpMemory> {
    let words: Vec<&str> = text.lines().find(|line| line.starts_with("TCP:"))?.split_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    Some(TcpMemory { in_use: after("inuse")?, bytes: after("mem")? * 4_096 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tcp_line() {
        let text = "sockets: used 85\nTCP: inuse 4 orphan 0 tw 0 alloc 6 mem 3\nUDP: inuse 0 mem 0\n";
        assert_eq!(tcp_line(text), Some(TcpMemory { in_use: 4, bytes: 12_288 }));
        assert!(tcp_memory().is_some());
    }

    #[test]
    fn this_process_is_measured() {
        let pid = std::process::id();
        let before = Cpu::of(pid).unwrap();
        let mut sum = 0u64;
        while Cpu::of(pid).unwrap().total == before.total {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Cpu::of(pid).unwrap().since(&before).total > 0.0);
        assert!(pss(pid).unwrap() > 100_000);
        assert!(rss(pid).unwrap() >= 100_000);
        assert!(peak_rss(pid).unwrap() >= 100_000);
        assert_eq!(Cpu::of(0), None);
    }

    #[test]
    fn threads_that_have_ended_count() {
        let pid = std::process::id();
        let before = Cpu::of(pid).unwrap();
        let busy = || {
            let mut sum = 0u64;
            let me = || {
                let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
                text.split(' ').next().unwrap().parse::<u64>().unwrap()
            };
            while me() < 60_000_000 {
                sum = std::hint::black_box(sum + 1);
            }
        };
        std::thread::spawn(busy).join().unwrap();
        assert!(Cpu::of(pid).unwrap().since(&before).total > 0.03);
    }
}
