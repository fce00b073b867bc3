//! What the kernel tells of a process and of TCP: CPU, memory, sockets. Reads /proc, knows no servers.

use std::time::Duration;

/// A tick of `stat`.
const TICK: Duration = Duration::from_millis(10);

/// CPU of a process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All its living threads on a core, to the nanosecond (`schedstat`); where threads have ended, with theirs in steps of 10 ms.
    pub total: Duration,
    /// In user space, in steps of 10 ms (`stat`).
    pub user_ticks: u64,
    /// In the kernel, in steps of 10 ms.
    pub system_ticks: u64,
}

impl Cpu {
    /// Of process `pid`; `None` where it has gone.
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
        // The ticks hold what ended threads took, and are rounded down: more than the sum of the living is theirs.
        let total = Duration::from_nanos(total).max(TICK.saturating_mul((user_ticks + system_ticks) as u32));
        Some(Cpu { total, user_ticks, system_ticks })
    }

    /// Since `before`: seconds in all, and the user's share of it.
    ///
    /// The kernel splits by sampling at its tick, some hundred times a second of CPU: the share of a short run is rough.
    #[must_use]
    pub fn since(&self, before: &Cpu) -> Spent {
        let total = self.total.saturating_sub(before.total).as_secs_f64();
        let user = self.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(before.system_ticks) as f64;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        Spent { total, user: total * share }
    }
}

/// CPU of a stretch of time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// User and system.
    pub total: f64,
    /// Of it in user space.
    pub user: f64,
}

/// Bytes of memory that are this process's own share (PSS).
#[must_use]
pub fn pss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib(text.lines().find(|line| line.starts_with("Pss:"))?)
}

/// Bytes of memory that are resident, shared ones included: cheap to read where [`pss`] is not.
#[must_use]
pub fn rss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib(text.lines().find(|line| line.starts_with("VmRSS:"))?)
}

/// Makes the peak of resident memory start anew from what is resident now. False where the kernel refuses.
#[must_use]
pub fn reset_peak(pid: u32) -> bool {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok() // 5: reset VmHWM, see proc_pid_clear_refs(5)
}

/// The most bytes that were resident at once, since [`reset_peak`] or the process's start.
#[must_use]
pub fn peak_rss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib(text.lines().find(|line| line.starts_with("VmHWM:"))?)
}

fn kib(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// What all TCP sockets of this network namespace hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpMemory {
    /// Sockets in use.
    pub in_use: u64,
    /// Bytes of kernel memory in their buffers, in whole pages.
    pub bytes: u64,
}

/// TCP's line of `/proc/net/sockstat`.
#[must_use]
pub fn tcp_memory() -> Option<TcpMemory> {
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
