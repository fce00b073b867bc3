//! Writes log lines to standard error through a bounded queue and a thread of its own.
//!
//! * A thread that logs never waits. If nobody reads the pipe, the pipe fills up and then the queue. Further
//!   lines are dropped and counted, and the number is logged as soon as the pipe is read again.
//! * At the end of the process the queued lines are still written, for at most [`LAST`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::LOG_LINES_DROPPED;
use crate::sync::{Condvar, Mutex};

/// Most bytes of lines that wait to be written.
const WAITING_BYTES: usize = 1 << 20;
/// Most time for writing the last lines at the end of the process.
const LAST: Duration = Duration::from_secs(1);
/// Interval between two checks whether the last lines are written.
const LOOK: Duration = Duration::from_millis(1);

/// The sender of log lines.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Waiting>);

struct Waiting {
    lines: Mutex<Lines>,
    wake: Condvar,
}

#[derive(Default)]
struct Lines {
    queue: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Dropped lines that were not reported yet.
    dropped: u64,
    /// Whether the thread is writing a line.
    is_writing: bool,
}

impl LogWriter {
    /// Starts the thread, which ends with the process. It writes to `out`. Before the next line it calls
    /// `dropped` with the number of lines that were dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static, dropped: fn(u64)) -> io::Result<LogWriter> {
        let waiting = Arc::new(Waiting { lines: Mutex::default(), wake: Condvar::default() });
        let writer = LogWriter(waiting.clone());
        std::thread::Builder::new().name("log".into()).spawn(move || waiting.write(out, dropped))?;
        Ok(writer)
    }

    /// Waits until the lines logged so far are written, for at most [`LAST`].
    pub(super) fn flush(&self) {
        let begun = Instant::now();
        let is_empty = || {
            let lines = self.0.lines.lock();
            lines.queue.is_empty() && !lines.is_writing
        };
        while !is_empty() && begun.elapsed() < LAST {
            std::thread::sleep(LOOK);
        }
    }
}

impl Waiting {
    fn push(&self, line: &[u8]) {
        let mut lines = self.lines.lock();
        if lines.bytes + line.len() > WAITING_BYTES {
            lines.dropped += 1;
            LOG_LINES_DROPPED.add(1);
            return;
        }
        lines.bytes += line.len();
        lines.queue.push_back(line.into());
        self.wake.notify_one();
    }

    fn write(&self, mut out: impl Write, dropped: fn(u64)) {
        let mut lines = self.lines.lock();
        loop {
            lines.is_writing = false;
            while lines.queue.is_empty() {
                lines = self.wake.wait(lines);
            }
            let Some(line) = lines.queue.pop_front() else { continue };
            lines.is_writing = true;
            drop(lines);
            // If the log cannot be written, there is no other place to report it.
            let _ = out.write_all(&line);
            lines = self.lines.lock();
            lines.bytes -= line.len();
            let lost = std::mem::take(&mut lines.dropped);
            if lost > 0 {
                drop(lines); // `dropped` logs, which takes this lock
                dropped(lost);
                lines = self.lines.lock();
            }
        }
    }
}

impl Write for LogWriter {
    /// Queues one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        self.clone()
    }
}

/// Standard error. It also works if another process made the file non-blocking.
pub(super) struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match stderr.lock().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let fd = stderr.as_fd();
                    poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer that writes one line for each permission.
    struct Stalled {
        permissions: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permissions.recv(); // after the test the sender is gone and every write proceeds
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log that is not read blocks no caller, keeps a bounded part of the lines, and reports how many were
    /// lost.
    #[test]
    fn a_log_that_nobody_reads_drops_lines_and_says_so_later() {
        static TOLD: AtomicU64 = AtomicU64::new(0);
        let (permit, permissions) = channel();
        let (written, lines) = channel();
        let dropped = |lost| {
            TOLD.fetch_add(lost, Ordering::Relaxed);
        };
        let mut log = LogWriter::start(Stalled { permissions, written }, dropped).expect("a thread");
        let line = [b'x'; 1_024];
        let most = WAITING_BYTES / line.len();
        for _ in 0..most + 10 {
            log.write_all(&line).expect("taken");
        }
        assert_eq!(log.0.lines.lock().bytes, WAITING_BYTES);
        for _ in 0..most {
            permit.send(()).expect("it writes");
            assert_eq!(lines.recv().expect("written"), line);
        }
        log.flush();
        assert_eq!(TOLD.load(Ordering::Relaxed), 10);
        assert_eq!(log.0.lines.lock().bytes, 0);
        log.write_all(&line).expect("taken");
        permit.send(()).expect("it writes");
        log.flush();
        assert_eq!(lines.recv().expect("written"), line);
    }
}
