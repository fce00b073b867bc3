//! `churn`: connections per second. Each is opened, authenticated by a JWT of its own user, receives `ready`,
//! and is closed by the client.
//!
//! * A fixed number of connections is in progress at once. When one is done, the next is opened. Each TCP
//!   connection is new.
//! * The baselines check no credential. Their figure is the rate that the kernel alone allows.

use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::engine::{ConnEvent, Engine, Handler, Key, TICK, is_type};
use crate::generator::stall_detector::StallDetector;
use crate::progress::Progress;
use crate::report::meter::Meter;
use crate::report::{Rate, Report};
use crate::target::{Server, Target};
use crate::wire::Wire;
use crate::wire::request::subscribe;
use crate::wire::stamp::now_ns;

/// Users that connect, each with its own token.
const USERS: usize = 512;

const EXAMPLES: &str = "\
Examples:
  nervewire bench churn --connects 20000 --concurrent 64
  nervewire bench churn --floor --runs 5 --bar 'rate>=0.5x'";

/// Measure connections per second: each is opened, authenticated by JWT, made ready and closed
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of the connections
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Connections opened and closed in each run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) connects: u64,
    /// Connections in progress at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) concurrent: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.concurrent
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, connects, concurrent, .. } = args;
    if *connects == 0 || *concurrent == 0 || common.runs == 0 {
        return Err(BenchError::Usage("connects, concurrent and runs are at least 1".into()));
    }
    let wire = args.transport.name();
    let about =
        format!("{connects} connections over {wire}, {concurrent} at a time, by JWT, closed when ready");
    let parameters = json!({
        "transport": args.transport.label(),
        "connects": connects, "concurrent": concurrent, "runs": common.runs,
    });
    let mut report = Report::new("churn", about, parameters, &common.bars);
    for run in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, None)?;
            measure(args, run, &target, &mut report, progress)?;
        }
    }
    Ok(report)
}

/// Returns the opening requests, one for each user. For a server that was not started here, all use its one
/// credential.
fn requests(args: &Args, target: &Target) -> Result<Vec<Vec<u8>>, BenchError> {
    if target.server == Server::Daemon && target.secret.is_none() {
        return Ok(vec![subscribe(&target.access, args.transport, "")]);
    }
    (0..USERS)
        .map(|user| {
            let token = target.token(&format!("user-{user}"), &["subscribe"])?;
            Ok(subscribe(&target.access.with_credential(&token), args.transport, ""))
        })
        .collect()
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let requests = requests(args, target)?;
    let mut connector = Connector {
        engine: Engine::new()?,
        watcher: ReadyWatcher::new()?,
        requests,
        opened: 0,
        per_second: Vec::new(),
    };
    let warm_up = (args.connects / 10).clamp(1, 1_000);
    connector.connect(args, target, warm_up, &mut |_| {})?;
    connector.watcher.histogram.reset();
    connector.per_second.clear();
    progress.begin("connecting", args.connects);
    let meter = Meter::start(target);
    connector.connect(args, target, args.connects, &mut |done| progress.at(done))?;
    let used = meter.used(target);
    let server = target.server;
    report.add(server, "rate", "connects", "1/s", args.connects as f64 / used.elapsed);
    if let Some(spent) = used.cpu {
        let each = 1e6 / args.connects as f64;
        report.add(server, "cpu", "CPU per connect", "µs", spent.total * each);
        report.add(server, "user", "of it in user space", "µs", spent.user * each);
    }
    let us = |quantile| connector.watcher.histogram.value_at_quantile(quantile) as f64 / 1e3;
    report.add(server, "p50", "connect to ready, p50", "µs", us(0.5));
    report.add(server, "p99", "connect to ready, p99", "µs", us(0.99));
    report.latency(server, "connect to ready", &connector.watcher.histogram);
    report.rates.push(Rate { server, name: "connects", run, per_second: connector.per_second });
    Ok(())
}

struct Connector {
    engine: Engine,
    watcher: ReadyWatcher,
    requests: Vec<Vec<u8>>,
    opened: usize,
    per_second: Vec<f64>,
}

impl Connector {
    /// Opens `count` connections and waits until each was ready and is closed.
    fn connect(
        &mut self,
        args: &Args,
        target: &Target,
        count: u64,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let (mut opened, mut done, mut counted) = (0u64, 0u64, 0u64);
        let mut stall = StallDetector::new(args.common.patience);
        let began = Instant::now();
        while done < count {
            while opened < count && opened - done < args.concurrent as u64 {
                let tag = (opened % args.concurrent as u64) as usize;
                let request = &self.requests[self.opened % self.requests.len()];
                let now = now_ns();
                let key = self.engine.open(target.access.addr, args.transport, tag, request)?;
                self.watcher.began(key, now);
                self.opened += 1;
                opened += 1;
            }
            self.engine.turn(TICK, &mut self.watcher)?;
            if let Some(what) = self.watcher.trouble.take() {
                return Err(BenchError::Server(format!("connection {done}: {what}")));
            }
            for key in self.watcher.ready.drain(..) {
                self.engine.close(key);
                done += 1;
            }
            if began.elapsed().as_secs() as usize > self.per_second.len() {
                self.per_second.push((done - counted) as f64);
                counted = done;
            }
            at(done);
            stall.check(done, || format!("{done} of {count} connections were ready"))?;
        }
        Ok(())
    }
}

/// Waits for connections to become ready.
struct ReadyWatcher {
    /// When the connection of each key was opened, in nanoseconds.
    began: Vec<u64>,
    /// Connections that became ready since the last turn.
    ready: Vec<Key>,
    histogram: Histogram<u64>,
    trouble: Option<String>,
}

impl ReadyWatcher {
    fn new() -> Result<ReadyWatcher, BenchError> {
        Ok(ReadyWatcher {
            began: Vec::new(),
            ready: Vec::new(),
            histogram: crate::report::histogram()?,
            trouble: None,
        })
    }

    fn began(&mut self, key: Key, now: u64) {
        if self.began.len() <= key {
            self.began.resize(key + 1, 0);
        }
        self.began[key] = now;
    }
}

impl Handler for ReadyWatcher {
    fn on_event(&mut self, key: Key, _: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Text(text) if is_type(text, "ready") => {
                let took = now_ns().saturating_sub(self.began.get(key).copied().unwrap_or_default());
                self.histogram.saturating_record(took);
                self.ready.push(key);
            }
            ConnEvent::Answer { status, body } => {
                self.trouble = Some(format!("response {status}: {}", String::from_utf8_lossy(body)));
            }
            ConnEvent::Ended(ended) => self.trouble = Some(format!("ended before it was ready: {ended:?}")),
            _ => {}
        }
    }
}
