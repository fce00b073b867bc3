//! The flags of every mode, and what follows from them: the servers to measure, and the checks that can fail
//! before anything is started.

use std::num::{ParseFloatError, ParseIntError};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::BenchError;
use crate::progress::{Progress, Shown, Silent};
use crate::report::threshold::Threshold;
use crate::target::baseline;
use crate::target::{DaemonSettings, Server, Target};

/// File descriptors of a bench besides its connections.
const SPARE_DESCRIPTORS: usize = 64;

/// Ends the help of every mode.
const BARS: &str = "\
Bars: --bar KEY<=NUMBER or KEY>=NUMBER sets a limit for the median of the runs. With an x after
the number it limits the ratio to the floor, and with x:before (or another server's name in the
table) the ratio to that server: --bar 'cpu<=1.10x' --bar 'user<=0.6' --bar 'cpu<=1.03x:before'.
The keys are those of --json. The exit code is 1 if a bar is missed or an event is lost or repeated.";

/// Returns the end of a mode's help, which begins with its examples.
pub(crate) fn help(examples: &str) -> String {
    format!("{examples}\n\n{BARS}")
}

/// The flags of every mode.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) daemon: DaemonSettings,
    /// Also measure the bare epoll floor, alternately with the daemon, and report ratios
    #[arg(long)]
    pub(crate) floor: bool,
    /// Also measure the broadcast-channel baseline
    #[arg(long)]
    pub(crate) naive: bool,
    /// Directory of the baselines [default: examples/ beside this executable]
    #[arg(long, value_name = "DIR")]
    pub(crate) baselines: Option<PathBuf>,
    /// Runs against each server, each with a new process
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) runs: usize,
    /// Require a figure to keep a limit; may be repeated
    #[arg(long = "bar", value_name = "BAR")]
    pub(crate) bars: Vec<Threshold>,
    /// Seconds without progress after which a run is stopped
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = whole_seconds)]
    pub(crate) patience: Duration,
    /// Print the report as JSON with stable field names
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Common {
    /// Returns the servers of one run in the order of measurement. The daemon is first, because the floor
    /// uses its batch depth.
    pub(crate) fn servers(&self) -> Vec<Server> {
        let wanted = [(Server::Daemon, true), (Server::Floor, self.floor), (Server::Naive, self.naive)];
        wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(server, _)| server).collect()
    }

    /// Starts a server for one run. A floor writes at most `depth` events at once.
    pub(crate) fn start(&self, server: Server, depth: Option<u64>) -> Result<Target, BenchError> {
        match server {
            Server::Daemon => Target::daemon(&self.daemon),
            baseline => baseline::start(self.baselines.as_deref(), baseline, depth),
        }
    }

    /// Checks the settings of modes that use what the baselines do not have: tenants, filters, a log.
    pub(crate) fn daemon_alone(&self) -> Result<(), BenchError> {
        if self.floor || self.naive {
            return Err(BenchError::Usage(
                "the baselines have neither tenants, filters nor a log: this mode measures the daemon alone"
                    .into(),
            ));
        }
        if self.runs == 0 {
            return Err(BenchError::Usage("runs are at least 1".into()));
        }
        Ok(())
    }

    /// Rejects settings that could only fail at the end, before anything is started. The mode holds up to
    /// `connections` open in this process.
    pub(crate) fn check(&self, connections: usize) -> Result<(), BenchError> {
        for bar in &self.bars {
            let (taken, flag) = match bar.against {
                None => continue,
                Some(Server::Before) => (self.daemon.before.is_some(), "--before PATH"),
                Some(Server::Naive) => (self.naive, "--naive"),
                Some(_) => (self.floor, "--floor"),
            };
            if !taken {
                let (key, text) = (&bar.key, bar.text());
                return Err(BenchError::Usage(format!("--bar {key} {text} is a ratio: add {flag}")));
            }
        }
        let most = getrlimit(Resource::Nofile).maximum;
        // On failure the limit stays, and is reported below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if connections.saturating_add(SPARE_DESCRIPTORS) as u64 > limit {
            return Err(BenchError::Usage(format!(
                "{connections} connections need too many descriptors: the limit of this process is {limit} (ulimit -n)"
            )));
        }
        Ok(())
    }

    pub(crate) fn progress(&self) -> Box<dyn Progress> {
        if self.quiet { Box::new(Silent) } else { Box::new(Shown::new()) }
    }
}

/// Parses a number of whole seconds.
pub(crate) fn whole_seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// Parses a number of seconds with decimals. A negative or absurdly large number becomes zero.
pub(crate) fn seconds(text: &str) -> Result<Duration, ParseFloatError> {
    text.parse().map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
