//! The load tester behind `nervewire bench`: its command-line grammar and what it measures.
//!
//! A run starts one new server ([`target`]), applies one load, and returns figures. A mode makes the
//! requested number of runs. Each run measures the daemon and, if requested, the floor and the naive server
//! ([`baseline`]) right after it, so that a slow moment of the machine affects all of them. Then it makes a
//! [`report`].
//!
//! * One epoll thread generates the load ([`engine`]; several with `--generators`, [`subscriber_threads`]). It shares the
//!   machine with the server, so it must cost little. Its own CPU is reported beside the server's.
//! * CPU and memory are those of the server's process, from /proc ([`process`], [`footprint`]).
//! * Two executables of the daemon are measured alternately ([`alternate`]).
//! * Every event is stamped ([`stamp`]) and every subscriber has a tally ([`delivery_check`]). A loss fails the run.
//!
//! A mode is a file with its flags, `Args`, and three functions: `connections` (how many it holds open in this
//! process), `run`, and the mode's own checks. It has one row in [`modes!`].
//!
//! The crate does not know the internals of the daemon: it uses only the wire, /proc and `/metrics`.

pub mod alternate;
pub mod baseline;
pub mod burst;
pub mod catchup;
pub mod churn;
pub mod cleanup;
pub mod closed_loop;
mod common;
pub mod delivery_check;
pub mod engine;
pub mod error;
pub mod fanout;
pub mod footprint;
pub mod h2;
pub mod http_connection;
pub mod idle;
pub mod interval;
pub mod latency;
mod launch;
pub mod load;
pub mod messages;
pub mod meter;
pub mod noisy;
pub mod open;
pub mod probes;
pub mod process;
pub mod progress;
pub mod publish;
pub mod publisher;
pub mod quiet_tenant;
pub mod report;
pub mod resume;
pub mod stamp;
pub mod streams;
pub mod subscriber;
pub mod subscriber_threads;
pub mod subscribers;
pub mod target;
pub mod tenants;
pub mod threshold;
pub mod token;

use common::Common;
pub use error::BenchError;
use progress::Progress;
use report::Report;

/// Maximum events of one publish (protocol §8).
pub const EVENTS_PER_PUBLISH: usize = 1_000;

/// Declares the modes: the subcommand's name, and the module of its flags.
macro_rules! modes {
    ($($Mode:ident($module:ident),)*) => {
        /// What to measure: a subcommand of `nervewire bench`.
        #[derive(Clone, Debug, clap::Subcommand)]
        #[allow(missing_docs, reason = "the help of a mode is the documentation of its flags")]
        pub enum Mode {
            $($Mode($module::Args),)*
        }

        impl Mode {
            fn common(&mut self) -> &mut Common {
                match self {
                    $(Mode::$Mode(args) => &mut args.common,)*
                }
            }

            fn connections(&self) -> usize {
                match self {
                    $(Mode::$Mode(args) => $module::connections(args),)*
                }
            }

            fn measure(&self, progress: &mut dyn Progress) -> Result<Report, BenchError> {
                match self {
                    $(Mode::$Mode(args) => $module::run(args, progress),)*
                }
            }
        }
    };
}

modes! {
    Fanout(fanout),
    Idle(idle),
    Latency(latency),
    Churn(churn),
    Publish(publish),
    Messages(messages),
    Catchup(catchup),
    Open(open),
    Resume(resume),
    Noisy(noisy),
    Streams(streams),
}

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
    cleanup::cleared_on_signals();
    let mut measure = |common: Common, progress: &mut dyn Progress| {
        *mode.common() = common;
        mode.measure(progress)
    };
    let report = alternate::run(&common, &mut measure, common.progress().as_mut())?;
    let text = if common.json { report.json().to_string() } else { report.table() };
    Ok(Outcome { text, passed: report.is_ok() })
}

/// Creates an empty histogram of nanoseconds, up to a minute, with three significant digits.
///
/// # Errors
/// Never with these constants, but the library's constructor returns a result.
pub fn histogram() -> Result<hdrhistogram::Histogram<u64>, BenchError> {
    hdrhistogram::Histogram::new_with_max(60_000_000_000, 3)
        .map_err(|error| BenchError::Server(format!("no histogram: {error}")))
}
