//! The load tester behind `nervewire bench`: its command-line grammar and what it measures.
//!
//! A run starts one new server ([`target`]), applies one load, and returns figures. A mode ([`modes`]) makes the
//! requested number of runs. Each run measures the daemon and, if requested, the floor and the naive server
//! right after it, so that a slow moment of the machine affects all of them. Then it makes a [`report`].
//!
//! * One epoll thread generates the load ([`generator`]; several with `--generators`). It shares the machine
//!   with the server, so it must cost little. Its own CPU is reported beside the server's.
//! * CPU and memory are those of the server's process, from /proc.
//! * Two executables of the daemon are measured alternately ([`alternate`]).
//! * Every event is stamped ([`wire::stamp`]) and every subscriber has a tally. A loss fails the run.
//!
//! The crate does not know the internals of the daemon: it uses only the wire, /proc and `/metrics`.

mod alternate;
mod common;
mod error;
mod generator;
mod modes;
mod progress;
mod report;
mod target;
mod wire;

use common::Common;
pub use error::BenchError;
pub use modes::Mode;
use progress::Progress;
// For `benches/lists.rs` of the daemon.
pub use target::tenants::Tenant;
pub use target::{DaemonSettings, Target};
pub use wire::Access;
pub use wire::http_connection::HttpConnection;

/// What to print, and whether the measurement counts as passed.
#[derive(Debug)]
pub struct Outcome {
    /// A table, or JSON with `--json`.
    pub text: String,
    /// False if a bar was missed, or an event was lost or repeated.
    pub passed: bool,
}

/// Measures a mode, alternately with another executable if one was given.
///
/// # Errors
/// The settings contradict each other, or a server does not start, refuses or ends.
pub fn run(mut mode: Mode) -> Result<Outcome, BenchError> {
    let common = mode.common().clone();
    common.check(mode.connections())?;
    target::cleanup::cleared_on_signals();
    let mut measure = |common: Common, progress: &mut dyn Progress| {
        *mode.common() = common;
        mode.measure(progress)
    };
    let report = alternate::run(&common, &mut measure, common.progress().as_mut())?;
    let text = if common.json { report.json().to_string() } else { report.table() };
    Ok(Outcome { text, passed: report.is_ok() })
}
