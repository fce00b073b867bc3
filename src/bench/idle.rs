//! `idle`: what a connection that does nothing costs in memory, and whether the memory comes back.
//!
//! * User memory is the growth of the server's PSS from before the first wave to its end, over the connections; what connecting
//!   leaves behind in the allocator counts. The very first connection is made and dropped before.
//! * The wave leaves, and a second one comes: how much the process has grown then beyond the first is told in percent of the
//!   first's growth.
//! * Kernel memory is TCP's, both ends together, as `/proc/net/sockstat` has it for the whole namespace: on a machine where
//!   nothing else talks.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Common;
use super::crowd::Crowd;
use super::engine::Engine;
use super::error::BenchError;
use super::h2::Streams;
use super::process::{self, TcpMemory};
use super::progress::Progress;
use super::report::Report;
use super::subscriber::Wire;
use super::target::{Server, Target};

/// Between two looks at a process that is to come to rest.
const LOOK: Duration = Duration::from_millis(250);
/// The longest it is waited for, beyond [`Settings::rest`].
const REST_MAX: Duration = Duration::from_secs(16);

/// What is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebSocket.
    Ws,
    /// SSE, HTTP/1.1.
    Sse,
    /// SSE streams, HTTP/2, so many on a connection.
    H2(usize),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ws => "ws",
            Kind::Sse => "sse",
            Kind::H2(_) => "h2",
        }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As every mode.
    pub common: Common,
    /// What is held open.
    pub kind: Kind,
    /// How many of them.
    pub connections: usize,
    /// How long memory must stand still to be told: allocators return it some time after it was freed.
    pub rest: Duration,
}

/// Runs it.
///
/// # Errors
/// A server does not come up, refuses, or its process is not known.
pub fn run(settings: &Settings, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Settings { common, kind, connections, rest } = settings;
    if *connections == 0 || common.runs == 0 || *kind == Kind::H2(0) {
        return Err(BenchError::Usage("connections, streams and runs are at least 1".into()));
    }
    if matches!(kind, Kind::H2(_)) && (common.floor || common.naive) {
        return Err(BenchError::Usage("the baselines do not speak HTTP/2".into()));
    }
    let what = match kind {
        Kind::Ws => "WebSocket connections".to_owned(),
        Kind::Sse => "SSE connections".to_owned(),
        Kind::H2(each) => format!("SSE streams, {each} on an HTTP/2 connection"),
    };
    let told = json!({"transport": kind.name(), "connections": connections, "rest": rest.as_secs(), "runs": common.runs});
    let mut report =
        Report::new("idle", format!("{connections} {what}, nothing published"), told, &common.bars);
    for _ in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, None)?;
            measure(settings, &target, &mut report, progress)?;
        }
    }
    Ok(report)
}

/// A wave of connections, however they are held.
enum Wave {
    Sockets(Box<Engine>),
    Streams(Streams),
}

impl Wave {
    fn come(
        settings: &Settings,
        target: &Target,
        count: usize,
        progress: &mut dyn Progress,
    ) -> Result<Wave, BenchError> {
        let wire = match settings.kind {
            Kind::Ws => Wire::Ws,
            Kind::Sse => Wire::Sse,
            Kind::H2(each) => {
                return Streams::open(&target.access, count, each, settings.common.patience, progress)
                    .map(Wave::Streams);
            }
        };
        let mut engine = Engine::new()?;
        let mut crowd = Crowd::new();
        crowd.join(&mut engine, &target.access, wire, count, settings.common.patience, progress)?;
        Ok(Wave::Sockets(Box::new(engine)))
    }

    fn leave(self) {
        match self {
            Wave::Sockets(mut engine) => engine.close_all(),
            Wave::Streams(streams) => drop(streams),
        }
    }
}

fn measure(
    settings: &Settings,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let pid =
        target.pid.ok_or_else(|| BenchError::Usage("idle reads the server's memory: give --pid".into()))?;
    let count = settings.connections as f64;
    Wave::come(settings, target, 1, progress)?.leave();
    let before = at_rest(pid, settings.rest)?;
    let wave = Wave::come(settings, target, settings.connections, progress)?;
    let first = at_rest(pid, settings.rest)?;
    wave.leave();
    let between = at_rest(pid, settings.rest)?;
    let wave = Wave::come(settings, target, settings.connections, progress)?;
    let second = at_rest(pid, settings.rest)?;
    wave.leave();
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

/// What a server at rest takes.
struct Rest {
    /// Bytes.
    pss: u64,
    tcp: TcpMemory,
}

/// Waits until the process's memory stands still.
fn at_rest(pid: u32, rest: Duration) -> Result<Rest, BenchError> {
    let looks = rest.div_duration_f64(LOOK).ceil().max(1.0) as u32;
    let (began, mut last, mut same) = (Instant::now(), 0u64, 0);
    while same < looks && began.elapsed() < REST_MAX + rest {
        std::thread::sleep(LOOK);
        let now = process::pss(pid).ok_or_else(|| BenchError::Server(format!("process {pid} has gone")))?;
        same = if now.abs_diff(last) < 32 * 1_024 { same + 1 } else { 0 };
        last = now;
    }
    Ok(Rest { pss: last, tcp: process::tcp_memory().unwrap_or_default() })
}
