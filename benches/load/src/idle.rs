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

use super::Common;
use super::engine::Engine;
use super::error::BenchError;
use super::h2::Streams;
use super::process::{self, TcpMemory};
use super::progress::Progress;
use super::report::Report;
use super::subscriber::Wire;
use super::subscribers::Subscribers;
use super::target::{Server, Target};

/// How often the memory of a process is read until it is stable.
const LOOK: Duration = Duration::from_millis(250);
/// The longest wait for stable memory, beyond [`Settings::rest`].
const REST_MAX: Duration = Duration::from_secs(16);

/// The kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebSocket.
    Ws,
    /// SSE over HTTP/1.1.
    Sse,
    /// SSE streams over HTTP/2, with the number of streams per connection.
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

/// The settings of the mode.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of every mode.
    pub common: Common,
    /// The kind of connection.
    pub kind: Kind,
    /// The number of connections or streams.
    pub connections: usize,
    /// How long memory must be stable before it is reported. Allocators return memory some time after it was
    /// freed.
    pub rest: Duration,
}

/// Runs the mode.
///
/// # Errors
/// A server does not start, refuses, or its process is unknown.
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
    let parameters = json!({"transport": kind.name(), "connections": connections, "rest": rest.as_secs(), "runs": common.runs});
    let mut report =
        Report::new("idle", format!("{connections} {what}, nothing published"), parameters, &common.bars);
    for _ in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, None)?;
            measure(settings, &target, &mut report, progress)?;
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
        let mut crowd = Subscribers::new();
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

/// The memory of a server at rest.
struct RestingMemory {
    /// PSS in bytes.
    pss: u64,
    tcp: TcpMemory,
}

/// Waits until the memory of the process is stable.
fn at_rest(pid: u32, rest: Duration) -> Result<RestingMemory, BenchError> {
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
