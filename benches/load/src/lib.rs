//! The load tester of `nervewire bench`.
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
//! A mode is a file with `Settings` and `fn run(&Settings, &mut dyn Progress) -> Result<Report, BenchError>`.
//! Its flags are in `src/cli/bench.rs` of the daemon. It does not know the internals of the daemon: it uses only the wire,
//! /proc and `/metrics`.

use std::time::Duration;

pub mod alternate;
pub mod baseline;
pub mod burst;
pub mod catchup;
pub mod churn;
pub mod cleanup;
pub mod closed_loop;
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

use baseline::Baselines;
use error::BenchError;
use target::{DaemonSettings, Server, Target};
use threshold::Threshold;

/// Maximum events of one publish (protocol §8).
pub const EVENTS_PER_PUBLISH: usize = 1_000;

/// The settings of every mode.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// The daemon to measure.
    pub daemon: DaemonSettings,
    /// The directory of the baselines.
    pub baselines: Baselines,
    /// Whether to measure the floor too.
    pub floor: bool,
    /// Whether to measure the naive server too.
    pub naive: bool,
    /// Runs against each server, at least 1.
    pub runs: usize,
    /// The longest time without progress.
    pub patience: Duration,
    /// Limits for the figures.
    pub bars: Vec<Threshold>,
}

impl Common {
    /// Returns the servers of one run in the order of measurement. The daemon is first, because the floor
    /// uses its batch depth.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        let wanted = [(Server::Daemon, true), (Server::Floor, self.floor), (Server::Naive, self.naive)];
        wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(server, _)| server).collect()
    }

    /// Starts a server for one run. A floor writes at most `depth` events at once.
    ///
    /// # Errors
    /// The program does not exist or does not start.
    pub fn start(&self, server: Server, depth: Option<u64>) -> Result<Target, BenchError> {
        match server {
            Server::Daemon => Target::daemon(&self.daemon),
            baseline => self.baselines.start(baseline, depth),
        }
    }
}

/// Creates an empty histogram of nanoseconds, up to a minute, with three significant digits.
///
/// # Errors
/// Never with these constants, but the library's constructor returns a result.
pub fn histogram() -> Result<hdrhistogram::Histogram<u64>, BenchError> {
    hdrhistogram::Histogram::new_with_max(60_000_000_000, 3)
        .map_err(|error| BenchError::Server(format!("no histogram: {error}")))
}
