//! `idle`: the memory of an idle connection, and whether it is freed.
//!
//! * User memory is the growth of the server's PSS from before the first wave to the end of it, per
//!   connection. It includes what connecting leaves in the allocator. The very first connection is opened and
//!   closed before.
//! * The first wave disconnects, and a second one connects. The growth of the process beyond the first wave
//!   is reported in percent of the first wave's growth.
//! * Kernel memory is TCP's, of both ends, as in `/proc/net/sockstat` for the whole network namespace. It is
//!   exact only if nothing else on the machine uses TCP.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Common, help, whole_seconds};
use crate::error::BenchError;
use crate::generator::engine::Engine;
use crate::generator::h2::Streams;
use crate::generator::subscribers::Subscribers;
use crate::progress::Progress;
use crate::report::Report;
use crate::target::process::{self, TcpMemory};
use crate::target::{Server, Target};
use crate::wire::Wire;

/// How often the memory of a process is read until it is stable.
const LOOK: Duration = Duration::from_millis(250);
/// The longest wait for stable memory, beyond [`Args::rest`].
const REST_MAX: Duration = Duration::from_secs(16);

/// The kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket.
    Ws,
    /// SSE over HTTP/1.1.
    Sse,
    /// SSE over HTTP/2.
    H2,
}

impl Transport {
    const fn label(self) -> &'static str {
        match self {
            Transport::Ws => "ws",
            Transport::Sse => "sse",
            Transport::H2 => "h2",
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  nervewire bench idle                                     # 10,000 WebSockets, twice
  nervewire bench idle --transport sse --bar 'bytes<=400' --bar 'second<=5'
  nervewire bench idle --transport h2 --connections 2000 --streams-per-connection 100";

/// Measure the memory of an idle connection, and whether it is freed afterwards
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Kind of connection: `ws`, `sse` (HTTP/1.1) or `h2` (SSE streams over HTTP/2)
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub(crate) transport: Transport,
    /// Connections, or streams
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Streams on each connection, with h2
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) streams_per_connection: usize,
    /// Seconds that memory must be stable before it is reported
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = whole_seconds)]
    pub(crate) rest: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    match args.transport {
        Transport::H2 => args.connections / args.streams_per_connection.max(1),
        Transport::Ws | Transport::Sse => args.connections,
    }
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, transport, connections, streams_per_connection, rest } = args;
    let h2 = *transport == Transport::H2;
    if *connections == 0 || common.runs == 0 || (h2 && *streams_per_connection == 0) {
        return Err(BenchError::Usage("connections, streams and runs are at least 1".into()));
    }
    if h2 && (common.floor || common.naive) {
        return Err(BenchError::Usage("the baselines do not speak HTTP/2".into()));
    }
    let what = match transport {
        Transport::Ws => "WebSocket connections".to_owned(),
        Transport::Sse => "SSE connections".to_owned(),
        Transport::H2 => format!("SSE streams, {streams_per_connection} on an HTTP/2 connection"),
    };
    let parameters = json!({"transport": transport.label(), "connections": connections, "rest": rest.as_secs(), "runs": common.runs});
    let mut report =
        Report::new("idle", format!("{connections} {what}, nothing published"), parameters, &common.bars);
    for _ in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, None)?;
            measure(args, &target, &mut report, progress)?;
        }
    }
    Ok(report)
}

/// A wave of connections of any kind.
enum Wave {
    Sockets(Box<Engine>),
    Streams(Streams),
}

impl Wave {
    fn connect(
        args: &Args,
        target: &Target,
        count: usize,
        progress: &mut dyn Progress,
    ) -> Result<Wave, BenchError> {
        let patience = args.common.patience;
        let wire = match args.transport {
            Transport::Ws => Wire::Ws,
            Transport::Sse => Wire::Sse,
            Transport::H2 => {
                let each = args.streams_per_connection;
                return Streams::open(&target.access, count, each, patience, progress).map(Wave::Streams);
            }
        };
        let mut engine = Engine::new()?;
        let mut subscribers = Subscribers::new();
        subscribers.join(&mut engine, &target.access, wire, count, patience, progress)?;
        Ok(Wave::Sockets(Box::new(engine)))
    }

    fn disconnect(self) {
        match self {
            Wave::Sockets(mut engine) => engine.close_all(),
            Wave::Streams(streams) => drop(streams),
        }
    }
}

fn measure(
    args: &Args,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let pid =
        target.pid.ok_or_else(|| BenchError::Usage("idle reads the server's memory: give --pid".into()))?;
    let count = args.connections as f64;
    Wave::connect(args, target, 1, progress)?.disconnect();
    let before = at_rest(pid, args.rest)?;
    let wave = Wave::connect(args, target, args.connections, progress)?;
    let first = at_rest(pid, args.rest)?;
    wave.disconnect();
    let between = at_rest(pid, args.rest)?;
    let wave = Wave::connect(args, target, args.connections, progress)?;
    let second = at_rest(pid, args.rest)?;
    wave.disconnect();
    let server: Server = target.server;
    let grown = |from: u64, to: u64| to as f64 - from as f64;
    report.add(server, "bytes", "user memory per connection", "bytes", grown(before.pss, first.pss) / count);
    let further = 100.0 * grown(first.pss, second.pss) / grown(before.pss, first.pss).max(1.0);
    report.add(server, "second", "growth by a second wave", "%", further);
    report.add(
        server,
        "left",
        "left behind per connection that left",
        "bytes",
        grown(before.pss, between.pss) / count,
    );
    report.add(
        server,
        "tcp",
        "TCP memory per connection, both ends",
        "bytes",
        grown(before.tcp.bytes, first.tcp.bytes) / count,
    );
    Ok(())
}

/// The memory of a server at rest.
pub(super) struct RestingMemory {
    /// PSS in bytes.
    pub(super) pss: u64,
    tcp: TcpMemory,
}

/// Waits until the memory of the process is stable.
pub(super) fn at_rest(pid: u32, rest: Duration) -> Result<RestingMemory, BenchError> {
    let looks = rest.div_duration_f64(LOOK).ceil().max(1.0) as u32;
    let (began, mut last, mut same) = (Instant::now(), 0u64, 0);
    while same < looks && began.elapsed() < REST_MAX + rest {
        std::thread::sleep(LOOK);
        let now = process::pss(pid).ok_or_else(|| BenchError::Server(format!("process {pid} has ended")))?;
        same = if now.abs_diff(last) < 32 * 1_024 { same + 1 } else { 0 };
        last = now;
    }
    Ok(RestingMemory { pss: last, tcp: process::tcp_memory().unwrap_or_default() })
}
