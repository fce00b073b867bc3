//! The load tester: what `nervewire bench` runs.
//!
//! A run is: one server, fresh ([`target`]), one load, figures out. A mode does as many runs as asked, each against the daemon
//! and, where asked, against the floor and the naive server ([`baseline`]) right after it, so that a slow moment of the machine
//! meets all of them; then a [`report`].
//!
//! * One epoll thread makes the load ([`engine`], several with `--generators`, [`crew`]): it shares the machine with the server, so it must cost little. Its own CPU
//!   is told beside the server's.
//! * CPU and memory are the server process's, from /proc ([`process`], [`footprint`]).
//! * Two executables of the daemon are measured in turns ([`alternate`]).
//! * Every event is stamped ([`stamp`]) and every subscriber keeps an account ([`tally`]): a loss is a failed run.
//!
//! A mode is a file with `Settings` and `fn run(&Settings, &mut dyn Progress) -> Result<Report, BenchError>`; its flags are in
//! `cli/bench.rs`. It knows nothing of the daemon's inside: only the wire, /proc and `/metrics`.

use std::time::Duration;

pub mod alternate;
pub mod bar;
pub mod baseline;
pub mod burst;
pub mod bystander;
pub mod caller;
pub mod catchup;
pub mod churn;
pub mod closed_loop;
pub mod crew;
pub mod crowd;
pub mod engine;
pub mod error;
pub mod fanout;
pub mod footprint;
pub mod h2;
pub mod idle;
pub mod latency;
mod launch;
pub mod leftovers;
pub mod load;
pub mod messages;
pub mod meter;
pub mod noisy;
pub mod open;
pub mod plot;
pub mod probes;
pub mod process;
pub mod progress;
pub mod publish;
pub mod publisher;
pub mod report;
pub mod resume;
pub mod stamp;
pub mod streams;
pub mod stretch;
pub mod subscriber;
pub mod tally;
pub mod target;
pub mod tenants;
pub mod token;

use bar::Bar;
use baseline::Baselines;
use error::BenchError;
use target::{DaemonSettings, Server, Target};

/// Most events of one publish (protocol §8).
pub const EVENTS_PER_PUBLISH: usize = 1_000;

/// What every mode is told.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// Which daemon.
    pub daemon: DaemonSettings,
    /// Where the baselines are.
    pub baselines: Baselines,
    /// Measure the floor too.
    pub floor: bool,
    /// Measure the naive server too.
    pub naive: bool,
    /// Runs against each server, at least 1.
    pub runs: usize,
    /// How long nothing may move.
    pub patience: Duration,
    /// What the figures are held to.
    pub bars: Vec<Bar>,
}

impl Common {
    /// The servers of one run, in the order they are measured: the daemon first, since its batch depth is the floor's.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        let wanted = [(Server::Daemon, true), (Server::Floor, self.floor), (Server::Naive, self.naive)];
        wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(server, _)| server).collect()
    }

    /// Starts a server for one run; a floor puts at most `depth` events into one write.
    ///
    /// # Errors
    /// It is not there or does not come up.
    pub fn start(&self, server: Server, depth: Option<u64>) -> Result<Target, BenchError> {
        match server {
            Server::Daemon => Target::daemon(&self.daemon),
            baseline => self.baselines.start(baseline, depth),
        }
    }
}

/// An empty histogram of nanoseconds, up to a minute, to three digits.
///
/// # Errors
/// Never with these constants; the library cannot know.
pub fn histogram() -> Result<hdrhistogram::Histogram<u64>, BenchError> {
    hdrhistogram::Histogram::new_with_max(60_000_000_000, 3)
        .map_err(|error| BenchError::Server(format!("no histogram: {error}")))
}
