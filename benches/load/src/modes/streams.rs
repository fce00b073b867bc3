//! `streams`: many LLM streams at once, each with a producer and readers. The mode measures chunks a second on
//! disk and delivered, their times, and the CPU of a delivered chunk over that of a plain event.
//!
//! * Every reader must get exactly the produced text and one end. Anything else fails the run.
//! * For the ratio the same chunks are published as plain events over WebSocket, with the same sockets, rate and
//!   sizes, in a daemon of its own. The order changes from run to run.
//! * CPU, rates and times are those of the measured part: after a tenth of it as warm-up, until every chunk was
//!   acknowledged and read, without opening and finishing.
//! * `cuts` and `kill` interrupt the load. Then there is no comparison, and a killed daemon has no CPU figure.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::common::{Common, help, seconds};
use crate::error::BenchError;
use crate::generator::stream_load::{Exactness, Interrupted, Interruptions, Shape, StreamLoad};
use crate::generator::stream_state::Via;
use crate::progress::Progress;
use crate::report::meter::{IntervalUsage, Meter};
use crate::report::{DeliveryFaults, Report};
use crate::target::{Server, Target};
use crate::wire::stream::STREAMS_MAX;
use crate::wire::{EVENTS_PER_PUBLISH, Wire};

/// The most chunks that may be outstanding for a stream.
const OUTSTANDING_MAX: u64 = 100_000;
/// The part of the measured time that the warm-up takes.
const WARM_UP: u32 = 10;

const EXAMPLES: &str = "\
Examples:
  nervewire bench streams                                  # 1,000 streams, 50 chunks a second each
  nervewire bench streams --rate 0 --producers 16 --bar 'durable>=50000' --bar 'over_plain<=1.3'
  nervewire bench streams --rate 0 --via ndjson --seconds 30
  nervewire bench streams --readers 2 --cuts 100 --kill    # everybody is cut off, the daemon is killed

A chunk is delivered when a reader has received it; with two readers it counts twice. Readers must get
exactly the produced text and one end, whatever is cut off; otherwise the run fails.";

/// How producers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Producers {
    /// `append` over WebSockets, pipelined
    Ws,
    /// Lines of a request body that stays open; it has a connection for each stream
    Ndjson,
}

impl Producers {
    const fn label(self) -> &'static str {
        match self {
            Producers::Ws => "ws",
            Producers::Ndjson => "ndjson",
        }
    }
}

/// Measure LLM streams: chunks a second, times, CPU over that of plain events, and exact text
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of readers
    #[arg(long, value_enum, default_value_t = Wire::Sse)]
    pub(crate) transport: Wire,
    /// How producers send
    #[arg(long, value_enum, default_value_t = Producers::Ws)]
    pub(crate) via: Producers,
    /// Streams, all open at once
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) streams: usize,
    /// Readers of each stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) readers: usize,
    /// WebSockets that the producers share [default: one for each stream]
    #[arg(long, value_name = "N")]
    pub(crate) producers: Option<usize>,
    /// Chunks a second of each stream; 0 for as fast as possible
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Chunks of a stream that may be sent and not yet acknowledged
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) outstanding: u64,
    /// Chunks in each frame; with `ndjson`, lines in each write
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) array: u64,
    /// Bytes of a chunk
    #[arg(long, value_name = "BYTES", default_value_t = 20)]
    pub(crate) size: usize,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Connections to cut a second, of readers and producers; they resume, and take their streams over
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) cuts: f64,
    /// Kill the daemon (SIGKILL) in the middle, and start it again on the same directory
    #[arg(long)]
    pub(crate) kill: bool,
    /// Measure the streams alone, without the comparison with plain events
    #[arg(long)]
    pub(crate) alone: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Args {
    /// Returns the number of sockets of producers.
    fn sockets(&self) -> usize {
        match self.via {
            Producers::Ws => self.producers.unwrap_or(self.streams).min(self.streams),
            Producers::Ndjson => self.streams,
        }
    }

    fn shape(&self, is_plain: bool) -> Shape {
        Shape {
            via: match (is_plain, self.via) {
                (true, _) => Via::Publish,
                (false, Producers::Ws) => Via::Append,
                (false, Producers::Ndjson) => Via::Lines,
            },
            wire: self.transport,
            streams: self.streams,
            readers: self.readers,
            sockets: self.sockets(),
            rate: self.rate,
            outstanding: self.outstanding,
            array: self.array,
            chunk_size: self.size,
            patience: self.common.patience,
        }
    }

    fn interruptions(&self) -> Interruptions {
        Interruptions { cuts: self.cuts, kill: self.kill }
    }

    fn is_compared(&self) -> bool {
        !self.alone && !self.kill && self.cuts == 0.0
    }
}

pub(crate) fn connections(args: &Args) -> usize {
    // Besides, streams are opened and taken over on connections of their own.
    args.streams.saturating_mul(args.readers.saturating_add(1)).saturating_add(args.sockets())
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(args)?;
    let Args { streams, readers, rate, array, size, common, .. } = args;
    let pace = match *rate {
        0.0 => format!("as fast as possible, {} outstanding", args.outstanding),
        rate => format!("{rate} chunks a second each"),
    };
    let (wire, sockets) = (args.transport.name(), args.sockets());
    let via = match args.via {
        Producers::Ws => "WebSockets",
        Producers::Ndjson => "open NDJSON bodies",
    };
    let about = format!(
        "{streams} streams, {pace}, chunks of {size} bytes; producers on {sockets} {via}, {readers} readers each over {wire}"
    );
    let parameters = json!({
        "transport": args.transport.label(), "via": args.via.label(), "streams": streams, "readers": readers,
        "producers": sockets, "rate": rate, "outstanding": args.outstanding, "array": array, "size": size,
        "seconds": args.seconds.as_secs_f64(), "cuts": args.cuts, "kill": args.kill, "alone": args.alone,
        "runs": common.runs,
    });
    let mut report = Report::new("streams", about, parameters, &common.bars);
    let mut limits = common.clone();
    if common.daemon.url.is_none() {
        // As many streams and as much text as the flags want.
        let limit = |key: &str, value: String| format!("{key}={value}");
        limits.daemon.set.insert(0, limit("streams.open_per_organization", streams.to_string()));
        limits.daemon.set.insert(0, limit("streams.bytes", (1_u64 << 32).to_string()));
    }
    for run in 0..common.runs {
        let mut kinds = vec![false];
        if args.is_compared() {
            kinds.insert(1 - run % 2, true);
        }
        let (mut opened, mut plain) = (None, None);
        for is_plain in kinds {
            let mut target = limits.start(Server::Daemon, None)?;
            let figures = measure(args, is_plain, &mut target, progress)?;
            *(if is_plain { &mut plain } else { &mut opened }) = Some(figures);
        }
        if let Some(opened) = opened {
            report_run(&mut report, run, &opened, plain.as_ref());
        }
    }
    Ok(report)
}

fn check(args: &Args) -> Result<(), BenchError> {
    args.common.daemon_alone()?;
    let refuse = |what: String| Err(BenchError::Usage(what));
    if args.streams == 0 || args.size == 0 || args.producers == Some(0) || args.seconds.is_zero() {
        return refuse("streams, size and producers are at least 1, and the run lasts some time".into());
    }
    if args.streams > STREAMS_MAX {
        return refuse(format!("at most {STREAMS_MAX} streams have texts that differ"));
    }
    if args.size > 1_024 {
        return refuse("a chunk is at most 1,024 bytes".into());
    }
    if !args.rate.is_finite() || args.rate < 0.0 || !args.cuts.is_finite() || args.cuts < 0.0 {
        return refuse("rate and cuts are numbers of at least 0".into());
    }
    if !(1..=EVENTS_PER_PUBLISH as u64).contains(&args.array)
        || !(args.array..=OUTSTANDING_MAX).contains(&args.outstanding)
    {
        return refuse(format!(
            "an array is 1 to {EVENTS_PER_PUBLISH} chunks, and at least an array and at most {OUTSTANDING_MAX} chunks may be \
             outstanding"
        ));
    }
    if args.via == Producers::Ndjson && (args.readers == 0 || args.producers.is_some()) {
        return refuse(
            "an open body is acknowledged at its end: it has a connection for each stream, and needs readers to tell what is \
             on disk"
                .into(),
        );
    }
    if args.kill && args.common.daemon.url.is_some() {
        return refuse("--kill needs a daemon that the bench starts: leave out --url".into());
    }
    Ok(())
}

/// The result of one load.
struct Figures {
    used: IntervalUsage,
    /// Chunks acknowledged and chunks received in the measured part.
    durable: u64,
    delivered: u64,
    /// Times from sending a chunk to its ack and to its readers, in nanoseconds.
    acks: Histogram<u64>,
    reads: Histogram<u64>,
    exactness: Exactness,
    delivery_faults: DeliveryFaults,
    interrupted: Interrupted,
    faults: Vec<String>,
    stalled: Option<BenchError>,
}

fn measure(
    args: &Args,
    is_plain: bool,
    target: &mut Target,
    progress: &mut dyn Progress,
) -> Result<Figures, BenchError> {
    let mut load = StreamLoad::start(args.shape(is_plain), target, progress)?;
    progress.begin("warming up", 0);
    let warmed = load.run(args.seconds / WARM_UP, Interruptions::default(), target, progress);
    let mut stalled = BenchError::or_stalled(warmed)?;
    load.record();
    let before = load.counts();
    progress.begin(if is_plain { "plain events" } else { "streams" }, args.seconds.as_millis() as u64);
    let meter = Meter::with_writes(target);
    if stalled.is_none() {
        stalled = BenchError::or_stalled(load.run(args.seconds, args.interruptions(), target, progress))?;
    }
    let used = meter.used(target);
    let [durable, delivered] = load.counts();
    let [acks, reads] = load.times().map(Histogram::clone);
    if stalled.is_none() {
        progress.begin("finishing", 0);
        stalled = BenchError::or_stalled(load.finish())?;
    }
    let (exactness, mut delivery_faults) = load.exactness();
    delivery_faults.deliveries = delivered - before[1];
    Ok(Figures {
        used,
        durable: durable - before[0],
        delivered: delivered - before[1],
        acks,
        reads,
        exactness,
        delivery_faults,
        interrupted: load.interrupted(),
        faults: load.faults().to_vec(),
        stalled,
    })
}

impl Figures {
    /// Returns the CPU of the daemon for each delivered chunk in microseconds: all, and in user space.
    fn cpu(&self) -> Option<[f64; 2]> {
        let cpu = self.used.cpu.filter(|_| self.interrupted.restart.is_none() && self.delivered > 0)?;
        Some([cpu.total, cpu.user].map(|seconds| seconds * 1e6 / self.delivered as f64))
    }
}

/// The keys and names of a load's figures.
struct Names {
    durable: [&'static str; 2],
    delivered: [&'static str; 2],
    cpu: [&'static str; 2],
    user: [&'static str; 2],
    depth: [&'static str; 2],
    generator: [&'static str; 2],
    acks: [[&'static str; 2]; 2],
    reads: [[&'static str; 2]; 2],
    /// The names of the histograms.
    times: [&'static str; 2],
}

const STREAMS: Names = Names {
    durable: ["durable", "chunks on disk"],
    delivered: ["delivered", "chunks delivered"],
    cpu: ["cpu", "CPU per chunk delivered"],
    user: ["user", "of it in user space"],
    depth: ["depth", "chunks per write"],
    generator: ["generator", "CPU of the bench per chunk delivered"],
    acks: [["ack_p50", "append to ack, p50"], ["ack_p99", "append to ack, p99"]],
    reads: [["read_p50", "append to read, p50"], ["read_p99", "append to read, p99"]],
    times: ["append to ack", "append to read"],
};

const PLAIN: Names = Names {
    durable: ["plain_durable", "plain: events on disk"],
    delivered: ["plain_delivered", "plain: events delivered"],
    cpu: ["plain_cpu", "plain: CPU per event delivered"],
    user: ["plain_user", "plain: of it in user space"],
    depth: ["plain_depth", "plain: events per write"],
    generator: ["plain_generator", "plain: CPU of the bench per event"],
    acks: [["plain_ack_p50", "plain: publish to ack, p50"], ["plain_ack_p99", "plain: publish to ack, p99"]],
    reads: [
        ["plain_read_p50", "plain: publish to read, p50"],
        ["plain_read_p99", "plain: publish to read, p99"],
    ],
    times: ["plain: publish to ack", "plain: publish to read"],
};

fn report_run(report: &mut Report, run: usize, opened: &Figures, plain: Option<&Figures>) {
    let daemon = Server::Daemon;
    report_load(report, run, opened, &STREAMS);
    if let Some(plain) = plain {
        report_load(report, run, plain, &PLAIN);
        if let (Some([cpu, _]), Some([plain_cpu, _])) = (opened.cpu(), plain.cpu())
            && plain_cpu > 0.0
        {
            report.add(daemon, "over_plain", "CPU per chunk over that of a plain event", "", cpu / plain_cpu);
        }
    }
    let Exactness { readers, exact } = opened.exactness;
    report.add(daemon, "readers", "readers", "", readers as f64);
    report.add(daemon, "exact", "readers with the exact text and one end", "", exact as f64);
    let Interrupted { readers, takeovers, restart } = opened.interrupted;
    report.add(daemon, "cut_readers", "readers cut off, and resumed", "", readers as f64);
    report.add(daemon, "takeovers", "streams taken over", "", takeovers as f64);
    if let Some(restart) = restart {
        report.add(daemon, "restart", "start of the daemon after kill -9", "s", restart.as_secs_f64());
    }
}

fn report_load(report: &mut Report, run: usize, figures: &Figures, names: &Names) {
    let daemon = Server::Daemon;
    let Figures { used, durable, delivered, .. } = figures;
    let mut add = |[key, name]: [&'static str; 2], unit, value| report.add(daemon, key, name, unit, value);
    add(names.durable, "1/s", *durable as f64 / used.elapsed);
    add(names.delivered, "1/s", *delivered as f64 / used.elapsed);
    if let Some([cpu, user]) = figures.cpu() {
        add(names.cpu, "µs", cpu);
        add(names.user, "µs", user);
    }
    if let Some(depth) = used.depth(*delivered).filter(|_| figures.interrupted.restart.is_none()) {
        add(names.depth, "", depth);
    }
    if *delivered > 0 {
        add(names.generator, "µs", used.own * 1e6 / *delivered as f64);
    }
    let [ack_times, read_times] = names.times;
    for (name, times, rows) in
        [(ack_times, &figures.acks, names.acks), (read_times, &figures.reads, names.reads)]
    {
        if times.is_empty() {
            continue; // an open body has no acks
        }
        for ([key, row], quantile) in rows.into_iter().zip([0.5, 0.99]) {
            report.add(daemon, key, row, "µs", times.value_at_quantile(quantile) as f64 / 1e3);
        }
        report.latency(daemon, name, times);
    }
    report.count(daemon, run, figures.delivery_faults, true);
    let Exactness { readers, exact } = figures.exactness;
    if exact < readers {
        let what = if names.durable == PLAIN.durable {
            "the published chunks"
        } else {
            "the exact text and one end"
        };
        report.fault(daemon, run, format_args!("{exact} of {readers} readers have {what}"));
    }
    for fault in &figures.faults {
        report.fault(daemon, run, fault);
    }
    if let Some(stalled) = &figures.stalled {
        report.fault(daemon, run, stalled);
    }
}
