//! What a bench that is broken off would leave behind: the daemon it started, and that one's directory.
//!
//! * On SIGINT, SIGTERM and SIGHUP both go, and the bench ends with 128 and the signal's number, as a shell expects.
//! * Where it cannot say anything any more (SIGKILL), the kernel ends the daemon; the directory stays.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::sync::Mutex;

/// Daemons that run, with their directories. Their number is that of servers under measurement: one.
static LEFT: LazyLock<Mutex<Vec<Left>>> = LazyLock::new(Mutex::default);

/// A process, once there is one, and where it lives.
type Left = (Option<u32>, PathBuf);

/// Notes a directory, and the process that lives in it once there is one.
pub(super) fn note(pid: Option<u32>, dir: &Path) {
    let mut left = LEFT.lock();
    left.retain(|(_, noted)| noted != dir);
    left.push((pid, dir.to_owned()));
}

/// The directory is gone, and whoever lived in it.
pub(super) fn forget(dir: &Path) {
    LEFT.lock().retain(|(_, noted)| noted != dir);
}

/// Has the kernel kill the child when the thread that starts it ends: the bench's main thread.
pub(super) fn dies_with_us(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call; it neither allocates nor locks.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// From now on a signal that ends the bench ends what it started too.
pub fn cleared_on_signals() {
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
        for (pid, dir) in LEFT.lock().drain(..) {
            if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::KILL); // it may have ended already
            }
            let _ = std::fs::remove_dir_all(dir); // a daemon that is just dying may still write: best effort
        }
        std::process::exit(128 + number)
    };
    // Without a thread or a runtime a signal ends the bench as it always would.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(waiting);
}
