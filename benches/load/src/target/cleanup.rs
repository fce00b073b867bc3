//! Cleans up when a bench is interrupted: ends the daemon that it started and removes the daemon's directory.
//!
//! * This happens on SIGINT, SIGTERM and SIGHUP. The bench then exits with 128 plus the signal's number, as
//!   shells expect.
//! * On SIGKILL no code can run. The kernel ends the daemon, and the directory remains.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

/// The running daemons with their directories. There is one for each server under measurement, that is one.
static LEFT: Mutex<Vec<Leftover>> = Mutex::new(Vec::new());

/// A process, once it exists, and its directory.
type Leftover = (Option<u32>, PathBuf);

fn left() -> MutexGuard<'static, Vec<Leftover>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a directory, and its process once it exists.
pub(super) fn register(pid: Option<u32>, dir: &Path) {
    let mut left = left();
    left.retain(|(_, noted)| noted != dir);
    left.push((pid, dir.to_owned()));
}

/// Unregisters a directory and its process after both are gone.
pub(super) fn forget(dir: &Path) {
    left().retain(|(_, noted)| noted != dir);
}

/// Makes the kernel kill the child when the thread that starts it ends. This is the bench's main thread.
pub(super) fn dies_with_us(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call. It neither allocates nor
    // locks.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// From now on, a signal that ends the bench also cleans up what it started.
pub(crate) fn cleared_on_signals() {
    let waiting = || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let number = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            Ok::<i32, std::io::Error>(tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
            })
        })?;
        for (pid, dir) in left().drain(..) {
            if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::KILL); // it may have ended already
            }
            let _ = std::fs::remove_dir_all(dir); // best effort: a dying daemon may still write
        }
        std::process::exit(128 + number)
    };
    // Without a thread or a runtime a signal ends the bench without cleaning up.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(waiting);
}
