//! `bench`: its command-line grammar, and the conversion of flags to the settings of `crate::bench`, which
//! measures.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::bench_log::{self, CatchupArgs, OpenArgs};
use super::bench_publish::{self, MessagesArgs, PublishArgs};
use super::bench_tenants::{self, NoisyArgs, ResumeArgs, StreamsArgs};
use super::exit::{CliError, Exit};
use super::output;
use crate::descriptors;
use nervewire_load::baseline::Baselines;
use nervewire_load::error::BenchError;
use nervewire_load::progress::{Progress, Shown, Silent};
use nervewire_load::subscriber::Wire;
use nervewire_load::target::{DaemonSettings, Server};
use nervewire_load::threshold::Threshold;
use nervewire_load::{
    Common, alternate, catchup, churn, fanout, idle, latency, messages, noisy, open, publish, resume,
    streams,
};

/// File descriptors of a bench besides its connections.
const SPARE_DESCRIPTORS: usize = 64;
const BARS: &str = "\
Bars: --bar KEY<=NUMBER or KEY>=NUMBER sets a limit for the median of the runs. With an x after
the number it limits the ratio to the floor, and with x:before (or another server's name in the
table) the ratio to that server: --bar 'cpu<=1.10x' --bar 'user<=0.6' --bar 'cpu<=1.03x:before'.
The keys are those of --json. The exit code is 1 if a bar is missed or an event is lost or repeated.";

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure the server's CPU time per delivery (user and system) and the deliveries per write
    #[command(after_help = format!("\
Examples:
  nervewire bench fanout                                   # 1,000 WebSockets, one event at a time
  nervewire bench fanout --transport sse --subscribers 10000 --events 60
  nervewire bench fanout --subscribers 10000 --burst 8     # lockstep bursts
  nervewire bench fanout --outstanding 32 --events 5000    # up to 32 events in progress
  nervewire bench fanout --floor --runs 5 --bar 'cpu<=1.10x' --bar 'user<=0.6'
  nervewire bench fanout --url http://127.0.0.1:8080 --pid 4711 --admin 127.0.0.1:8081

{BARS}"))]
    Fanout(FanoutArgs),
    /// Measure the memory of an idle connection, and whether it is freed afterwards
    #[command(after_help = format!("\
Examples:
  nervewire bench idle                                     # 10,000 WebSockets, twice
  nervewire bench idle --transport sse --bar 'bytes<=400' --bar 'second<=5'
  nervewire bench idle --transport h2 --connections 2000 --streams-per-connection 100

{BARS}"))]
    Idle(IdleArgs),
    /// Measure the latency from publish to each subscriber at a fixed publish rate
    #[command(after_help = format!("\
Examples:
  nervewire bench latency --rate 20 --subscribers 1000 --seconds 20
  nervewire bench latency --floor --runs 5 --bar 'p50<=1.25x' --bar 'p99<=1.25x'

{BARS}"))]
    Latency(LatencyArgs),
    /// Measure connections per second: each is opened, authenticated by JWT, made ready and closed
    #[command(after_help = format!("\
Examples:
  nervewire bench churn --connects 20000 --concurrent 64
  nervewire bench churn --floor --runs 5 --bar 'rate>=0.5x'

{BARS}"))]
    Churn(ChurnArgs),
    /// Measure events published and acknowledged per second, and the latency of acks
    #[command(after_help = format!("{}\n\n{BARS}", bench_publish::EXAMPLES))]
    Publish(PublishArgs),
    /// Measure messages created per second, each with its event, and the CPU time of one
    #[command(after_help = format!("{}\n\n{BARS}", bench_publish::MESSAGES))]
    Messages(MessagesArgs),
    /// Measure the rate and CPU time of reading a log from its beginning, by stream or by page
    #[command(after_help = format!("{}\n\n{BARS}", bench_log::CATCHUP))]
    Catchup(CatchupArgs),
    /// Measure how long a daemon with a large log takes to start after kill -9 and after an orderly stop
    #[command(after_help = format!("{}\n\n{BARS}", bench_log::OPEN))]
    Open(OpenArgs),
    /// Measure how soon all subscribers catch up when all reconnect at once, and the effect on another tenant
    #[command(after_help = format!("{}\n\n{BARS}", bench_tenants::RESUME))]
    Resume(ResumeArgs),
    /// Measure the effect of a busy tenant, whose subscribers do not read, on a quiet tenant
    #[command(after_help = format!("{}\n\n{BARS}", bench_tenants::NOISY))]
    Noisy(NoisyArgs),
    /// Measure the cost of a chunk of a token stream with few streams and with many
    #[command(after_help = format!("{}\n\n{BARS}", bench_tenants::STREAMS))]
    Streams(StreamsArgs),
}

/// Flags of every mode.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Measure the daemon at this address, `http://host:port`; without it a new daemon is started for each
    /// run, in a new directory
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// API key or token (JWT) for the daemon; prefer the variable, because other users of the machine may see
    /// arguments
    #[arg(long, alias = "token", value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Process id of the daemon, to read CPU and memory
    #[arg(long, value_name = "PID", requires = "url")]
    pub pid: Option<u32>,
    /// Admin listener of the daemon, `host:port`, to read counters
    #[arg(long, value_name = "ADDR", requires = "url")]
    pub admin: Option<String>,
    /// Executable to start as the daemon [default: this one]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub daemon: Option<PathBuf>,
    /// Another executable, measured alternately with the daemon and reported as `before`, with ratios
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub before: Option<PathBuf>,
    /// A setting for the started daemon, `key=value` as in docs/configuration.md; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "url", value_parser = setting)]
    pub set: Vec<String>,
    /// Also measure the bare epoll floor, alternately with the daemon, and report ratios
    #[arg(long)]
    pub floor: bool,
    /// Also measure the broadcast-channel baseline
    #[arg(long)]
    pub naive: bool,
    /// Directory of the baselines [default: examples/ beside this executable]
    #[arg(long, value_name = "DIR")]
    pub baselines: Option<PathBuf>,
    /// Runs against each server, each with a new process
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub runs: usize,
    /// Require a figure to keep a limit; may be repeated
    #[arg(long = "bar", value_name = "BAR")]
    pub bars: Vec<Threshold>,
    /// Seconds without progress after which a run is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub patience: u64,
    /// Print the report as JSON with stable field names
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Parses a setting of `--set`.
fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("must be key=value, such as limits.event_bytes=1024".into()),
    }
}

/// The transport of subscribers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Transport {
    /// WebSocket.
    Ws,
    /// SSE over HTTP/1.1.
    Sse,
}

impl Transport {
    pub(super) const fn wire(self) -> Wire {
        match self {
            Transport::Ws => Wire::Ws,
            Transport::Sse => Wire::Sse,
        }
    }
}

/// Flags of `bench fanout`.
#[derive(Debug, Args)]
pub struct FanoutArgs {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers; limited by the file descriptors of one process
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub subscribers: usize,
    /// Publishes measured in each run
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub events: u64,
    /// Events in each publish; the next publish is sent when every subscriber has received all of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub burst: usize,
    /// Threads that hold subscribers; use more than one only if the server has cores of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub generators: usize,
    /// Publishes in progress at once, each on its own keep-alive connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub outstanding: usize,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Kind of connection: `ws`, `sse` (HTTP/1.1) or `h2` (SSE streams over HTTP/2)
    #[arg(long, value_enum, default_value_t = IdleTransport::Ws)]
    pub transport: IdleTransport,
    /// Connections, or streams
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: usize,
    /// Streams on each connection, with h2
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub streams_per_connection: usize,
    /// Seconds that memory must be stable before it is reported
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    pub rest: u64,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The kind of connection that `bench idle` holds open.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IdleTransport {
    /// WebSocket.
    Ws,
    /// SSE over HTTP/1.1.
    Sse,
    /// SSE over HTTP/2.
    H2,
}

/// Flags of `bench latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub subscribers: usize,
    /// Publishes per second
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    pub rate: f64,
    /// Length of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub seconds: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench churn`.
#[derive(Debug, Args)]
pub struct ChurnArgs {
    /// Transport of the connections
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Connections opened and closed in each run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub connects: u64,
    /// Connections in progress at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub concurrent: usize,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl CommonArgs {
    fn common(&self) -> Common {
        Common {
            daemon: DaemonSettings {
                url: self.url.clone(),
                key: self.key.clone(),
                pid: self.pid,
                admin: self.admin.clone(),
                exe: self.daemon.clone(),
                set: self.set.clone(),
            },
            baselines: Baselines(self.baselines.clone()),
            floor: self.floor,
            naive: self.naive,
            runs: self.runs,
            patience: Duration::from_secs(self.patience),
            bars: self.bars.clone(),
        }
    }

    /// Rejects settings that could only fail at the end, before anything is started.
    fn check(&self, connections: usize) -> Result<(), BenchError> {
        for bar in &self.bars {
            let (taken, flag) = match bar.against {
                None => continue,
                Some(Server::Before) => (self.before.is_some(), "--before PATH"),
                Some(Server::Naive) => (self.naive, "--naive"),
                Some(_) => (self.floor, "--floor"),
            };
            if !taken {
                let (key, text) = (&bar.key, bar.text());
                return Err(BenchError::Usage(format!("--bar {key} {text} is a ratio: add {flag}")));
            }
        }
        let _ = descriptors::raise(); // on failure the limit stays, and is reported below
        let limit = descriptors::limit();
        if connections.saturating_add(SPARE_DESCRIPTORS) as u64 > limit {
            return Err(BenchError::Usage(format!(
                "{connections} connections need too many descriptors: the limit of this process is {limit} (ulimit -n)"
            )));
        }
        Ok(())
    }

    fn progress(&self) -> Box<dyn Progress> {
        if self.quiet { Box::new(Silent) } else { Box::new(Shown::new()) }
    }
}

pub(super) fn run(command: BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Fanout(args) => args.common.report(args.subscribers, &mut |common, progress| {
            let settings = fanout::Settings {
                common,
                wire: args.transport.wire(),
                subscribers: args.subscribers,
                events: args.events,
                burst: args.burst,
                outstanding: args.outstanding,
                generators: args.generators,
                size: args.size,
            };
            fanout::run(&settings, progress)
        }),
        BenchCommand::Idle(args) => {
            let kind = match args.transport {
                IdleTransport::Ws => idle::Kind::Ws,
                IdleTransport::Sse => idle::Kind::Sse,
                IdleTransport::H2 => idle::Kind::H2(args.streams_per_connection),
            };
            let connections = match kind {
                idle::Kind::H2(streams) => args.connections / streams.max(1),
                _ => args.connections,
            };
            args.common.report(connections, &mut |common, progress| {
                let rest = Duration::from_secs(args.rest);
                let settings = idle::Settings { common, kind, connections: args.connections, rest };
                idle::run(&settings, progress)
            })
        }
        BenchCommand::Latency(args) => args.common.report(args.subscribers, &mut |common, progress| {
            let settings = latency::Settings {
                common,
                wire: args.transport.wire(),
                subscribers: args.subscribers,
                rate: args.rate,
                seconds: args.seconds,
                size: args.size,
            };
            latency::run(&settings, progress)
        }),
        BenchCommand::Churn(args) => args.common.report(args.concurrent, &mut |common, progress| {
            let settings = churn::Settings {
                common,
                wire: args.transport.wire(),
                connects: args.connects,
                concurrent: args.concurrent,
            };
            churn::run(&settings, progress)
        }),
        BenchCommand::Publish(args) => args
            .common
            .report(args.clients, &mut |common, progress| publish::run(&args.settings(common), progress)),
        BenchCommand::Messages(args) => args
            .common
            .report(args.clients, &mut |common, progress| messages::run(&args.settings(common), progress)),
        BenchCommand::Catchup(args) => args
            .common
            .report(args.readers, &mut |common, progress| catchup::run(&args.settings(common), progress)),
        BenchCommand::Open(args) => {
            args.common.report(0, &mut |common, progress| open::run(&args.settings(common), progress))
        }
        BenchCommand::Resume(args) => args
            .common
            .report(args.subscribers, &mut |common, progress| resume::run(&args.settings(common), progress)),
        BenchCommand::Noisy(args) => args
            .common
            .report(args.subscribers, &mut |common, progress| noisy::run(&args.settings(common), progress)),
        BenchCommand::Streams(args) => {
            let most =
                args.streams.iter().max().map_or(0, |most| usize::try_from(*most).unwrap_or(usize::MAX));
            args.common.report(most, &mut |common, progress| streams::run(&args.settings(common)?, progress))
        }
    }
}

impl CommonArgs {
    /// Runs a mode, alternately with another executable if one was given, and prints its report.
    fn report(&self, connections: usize, mode: &mut alternate::Mode<'_>) -> Result<(), CliError> {
        self.check(connections)?;
        nervewire_load::cleanup::cleared_on_signals();
        let report = {
            let mut progress = self.progress();
            alternate::run(&self.common(), self.before.as_deref(), mode, progress.as_mut())?
        };
        output::line(&if self.json { report.json().to_string() } else { report.table() })?;
        match report.is_ok() {
            true => Ok(()),
            false => Err(CliError::new(Exit::Failed, "a bar was missed or a run failed; see above", "")),
        }
    }
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        let exit = match &error {
            BenchError::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        CliError::new(exit, error.to_string(), "")
    }
}
