//! `request-ids`: chunks that are published as plain events, with one subscriber for each `request_id`. The mode
//! measures whether a chunk costs more with many of them. A stream is here what has the same `request_id`.
//!
//! * The same work is done twice: with few streams, then with many. The numbers of chunks, of arrays and of
//!   sends are equal. Array k holds one chunk for each of `array` streams, round-robin, and the next is sent
//!   when every chunk was received and the publisher got its response. So no two chunks share a write in
//!   either case, and only the number of streams differs.
//! * A subscriber requests `?request_id=…` and must receive exactly the chunks of its stream. A chunk of
//!   another stream is a fault, and so is a loss.
//! * The floor finds the subscriber of a chunk in an array. So its ratio shows how much more time the kernel
//!   needs for sockets that it has not used for a while.
//! * CPU is measured only during the counted chunks, after each stream has received its first.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::delivery_check::Tally;
use crate::generator::engine::{ConnEvent, Engine, Handler, Key, TICK, is_type, until_quiet};
use crate::generator::stall_detector::StallDetector;
use crate::generator::subscribers::{PUBLISHERS, check_trouble, record_trouble};
use crate::generator::wave::{JoinWatcher, Wave};
use crate::progress::Progress;
use crate::report::histogram;
use crate::report::meter::{IntervalUsage, Meter};
use crate::report::{DeliveryFaults, Report};
use crate::target::{Server, Target};
use crate::wire::request::{HttpPublish, subscribe};
use crate::wire::stamp::now_ns;
use crate::wire::{Access, EVENTS_PER_PUBLISH, Wire};

const EXAMPLES: &str = "\
Examples:
  nervewire bench request-ids                              # 100 and 10,000 streams
  nervewire bench request-ids --transport sse --streams 1000 --streams 5000
  nervewire bench request-ids --runs 5 --bar 'many_over_few<=1.3'";

/// Measure the cost of a chunk published as a plain event, with few request ids and with many
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Number of streams; give the flag twice: few, then many
    #[arg(long, value_name = "N", default_values_t = [100, 10_000])]
    pub(crate) streams: Vec<u64>,
    /// Chunks to measure, of all streams together; the same number for few and many streams
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) chunks: u64,
    /// Chunks in each publish, each for a different stream
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) array: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// The result of one run.
struct Figures {
    used: IntervalUsage,
    /// Chunks per write, as counted by the daemon.
    depth: Option<f64>,
    delivery_faults: DeliveryFaults,
    /// Received chunks of other streams.
    foreign: u64,
    /// Time from each array to its last receipt, in nanoseconds.
    whole: Histogram<u64>,
    stalled: Option<BenchError>,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.streams.iter().max().map_or(0, |most| usize::try_from(*most).unwrap_or(usize::MAX))
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let [few, many] = check(args)?;
    let Args { chunks, array, common, .. } = args;
    let wire = args.transport.name();
    let about = format!(
        "{few} and {many} token streams, one subscriber each over {wire}; {chunks} chunks round-robin in arrays of {array}, \
         each array delivered before the next"
    );
    let parameters = json!({
        "transport": args.transport.label(), "streams": [few, many],
        "chunks": chunks, "array": array, "runs": common.runs,
    });
    let mut report = Report::new("request-ids", about, parameters, &common.bars);
    for run in 0..common.runs {
        for server in common.servers() {
            let [few, many] = [few, many].map(|streams| -> Result<Figures, BenchError> {
                let target = common.start(server, None)?;
                measure(args, streams, &target, progress)
            });
            report_run(args, server, run, &few?, &many?, &mut report);
        }
    }
    Ok(report)
}

/// Returns the two numbers of streams.
fn check(args: &Args) -> Result<[u64; 2], BenchError> {
    let refuse = |what: String| Err(BenchError::Usage(what));
    if args.common.naive {
        return refuse(
            "the broadcast channel sends everything to every subscriber: it has no streams".into(),
        );
    }
    if args.common.runs == 0 {
        return refuse("runs are at least 1".into());
    }
    let Args { streams, chunks, array, .. } = args;
    let Ok(streams) = <[u64; 2]>::try_from(streams.as_slice()) else {
        return refuse("give --streams twice: few, then many".into());
    };
    if !(1..=EVENTS_PER_PUBLISH as u64).contains(array) || chunks % array != 0 || *chunks == 0 {
        return refuse(format!(
            "an array holds 1 to {EVENTS_PER_PUBLISH} chunks, and the chunks are a multiple of it"
        ));
    }
    if streams.iter().any(|streams| streams % array != 0 || *streams == 0) {
        return refuse(format!(
            "the streams are a multiple of {array}, the chunks in an array: with fewer, two chunks of one stream would share a \
             write"
        ));
    }
    Ok(streams)
}

fn report_run(args: &Args, server: Server, run: usize, few: &Figures, many: &Figures, report: &mut Report) {
    let chunks = args.chunks as f64;
    let cpu = |figures: &Figures| figures.used.cpu.map(|it| it.total * 1e6 / chunks);
    let user = |figures: &Figures| figures.used.cpu.map(|it| it.user * 1e6 / chunks);
    for (key, name, value) in [
        ("few", "CPU per chunk, few streams", cpu(few)),
        ("many", "CPU per chunk, many streams", cpu(many)),
        ("few_user", "of it in user space, few streams", user(few)),
        ("many_user", "of it in user space, many streams", user(many)),
    ] {
        if let Some(value) = value {
            report.add(server, key, name, "µs", value);
        }
    }
    if let Some((few, many)) = cpu(few).zip(cpu(many)).filter(|(few, _)| *few > 0.0) {
        report.add(server, "many_over_few", "many over few", "", many / few);
    }
    for (figures, streams, keys) in [
        (few, args.streams[0], ["few_depth", "few_rate", "few_generator"]),
        (many, args.streams[1], ["many_depth", "many_rate", "many_generator"]),
    ] {
        let which = keys[0].starts_with("few");
        if let Some(depth) = figures.depth {
            let name = if which { "chunks per write, few streams" } else { "chunks per write, many streams" };
            report.add(server, keys[0], name, "", depth);
        }
        let name = if which { "chunks, few streams" } else { "chunks, many streams" };
        report.add(server, keys[1], name, "1/s", chunks / figures.used.elapsed);
        let name = if which { "CPU of the bench per chunk, few" } else { "CPU of the bench per chunk, many" };
        report.add(server, keys[2], name, "µs", figures.used.own * 1e6 / chunks);
        report.count(server, run, figures.delivery_faults, true);
        let name = if which { "array to its last receipt, few" } else { "array to its last receipt, many" };
        report.latency(server, name, &figures.whole);
        if figures.foreign > 0 {
            let foreign = figures.foreign;
            report
                .faults
                .push(format!("{streams} streams, run {}: {foreign} chunks of other streams", run + 1));
        }
        if let Some(stalled) = &figures.stalled {
            report.faults.push(format!("{streams} streams, run {}: {stalled}", run + 1));
        }
    }
}

fn measure(
    args: &Args,
    streams: u64,
    target: &Target,
    progress: &mut dyn Progress,
) -> Result<Figures, BenchError> {
    let patience = args.common.patience;
    let (mut engine, mut readers) = (Engine::new()?, Readers::new(streams));
    join(args, &target.access, &mut engine, &mut readers, progress)?;
    let mut publisher = Publisher {
        key: engine.open(target.access.addr, Wire::Http, PUBLISHERS, b"")?,
        publish: HttpPublish::new(&target.access, false),
        streams,
        array: args.array,
        published: 0,
        whole: histogram()?,
        body: Vec::new(),
        request: Vec::new(),
    };
    // This publishes the first chunk of every stream. The number of publishes is the same for few and for
    // many streams, so that the daemon has handled equally many.
    let warm_up = args.streams[1].max(args.streams[0]);
    let warmed = publisher.publish(warm_up, &mut engine, &mut readers, patience, &mut |_| {});
    let mut stalled = BenchError::or_stalled(warmed)?;
    progress.begin(&format!("{streams} streams"), args.chunks);
    let had = readers.deliveries;
    publisher.whole.reset();
    let meter = Meter::with_writes(target);
    if stalled.is_none() {
        let at = &mut |done| progress.at(done);
        stalled =
            BenchError::or_stalled(publisher.publish(args.chunks, &mut engine, &mut readers, patience, at))?;
    }
    let used = meter.used(target);
    let deliveries = readers.deliveries - had;
    until_quiet(|wait| engine.turn(wait, &mut readers))?;
    readers.check()?;
    Ok(Figures {
        used,
        depth: used.depth(deliveries),
        delivery_faults: DeliveryFaults { deliveries, ..readers.delivery_faults(publisher.published) },
        foreign: readers.foreign,
        whole: publisher.whole,
        stalled,
    })
}

/// Returns the name of stream `at`.
fn request_id(at: u64) -> String {
    format!("bench-{at:06}")
}

fn join(
    args: &Args,
    access: &Access,
    engine: &mut Engine,
    readers: &mut Readers,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let streams = readers.tallies.len();
    progress.begin("connecting", streams as u64);
    let request = |at| {
        let query = format!("?request_id={}", request_id(at as u64));
        Cow::Owned(subscribe(access, args.transport, &query))
    };
    let wave =
        Wave { access, wire: args.transport, first: 0, count: streams, patience: args.common.patience };
    wave.join(engine, readers, request, progress)?;
    Ok(())
}

/// The publisher.
struct Publisher {
    key: Key,
    publish: HttpPublish,
    streams: u64,
    array: u64,
    /// Chunks published so far.
    published: u64,
    /// Time from publish to the last receipt, in nanoseconds.
    whole: Histogram<u64>,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl Publisher {
    /// Publishes `count` chunks, one array at a time.
    fn publish(
        &mut self,
        count: u64,
        engine: &mut Engine,
        readers: &mut Readers,
        patience: Duration,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let (first, mut stall) = (self.published, StallDetector::new(patience));
        while self.published < first + count {
            let answers = readers.answers + 1;
            let began = now_ns();
            array(self.published, self.array, self.streams, began, &mut self.body);
            self.request.clear();
            self.publish.request(&self.body, &mut self.request);
            self.published += self.array;
            engine.send(self.key, &self.request);
            while readers.answers < answers || readers.deliveries < self.published {
                engine.turn(TICK, readers)?;
                readers.check()?;
                stall.check(readers.deliveries + readers.answers, || {
                    format!("{} of {} chunks have arrived", readers.deliveries, self.published)
                })?;
            }
            self.whole.saturating_record(now_ns().saturating_sub(began));
            at(self.published - first);
        }
        Ok(())
    }
}

/// Writes `count` chunks from `first` on as one body into `out`, which is cleared first. Chunk n belongs to
/// stream n mod `streams`.
fn array(first: u64, count: u64, streams: u64, t: u64, out: &mut Vec<u8>) {
    out.clear();
    for n in first..first + count {
        out.push(if n == first { b'[' } else { b',' });
        let (stream, index) = (request_id(n % streams), n / streams);
        // Writing to a Vec never fails.
        let _ = write!(
            out,
            r#"{{"type":"stream_chunk","request_id":"{stream}","index":{index},"chunk":" token","is_final":false,"metadata":{{"n":"{n:012}","t":"{t:019}"}}}}"#
        );
    }
    out.push(b']');
}

/// The subscribers, one for each stream.
struct Readers {
    /// The tally of each subscriber, by the index in its stream.
    tallies: Vec<Tally>,
    joined: usize,
    deliveries: u64,
    foreign: u64,
    answers: u64,
    trouble: Option<String>,
}

impl Readers {
    fn new(streams: u64) -> Readers {
        let tallies = vec![Tally::default(); streams as usize];
        Readers { tallies, joined: 0, deliveries: 0, foreign: 0, answers: 0, trouble: None }
    }

    /// Returns losses, repeats and reorderings of the first `published` chunks.
    fn delivery_faults(&self, published: u64) -> DeliveryFaults {
        let streams = self.tallies.len() as u64;
        // Stream s has the chunks s, s + streams, …
        let of = |stream: u64| (published + streams - 1 - stream) / streams;
        let lost = |(stream, tally): (usize, &Tally)| tally.lost(of(stream as u64));
        DeliveryFaults {
            deliveries: 0,
            losses: self.tallies.iter().enumerate().map(lost).sum(),
            repeats: self.tallies.iter().map(Tally::repeats).sum(),
            reordered: self.tallies.iter().map(Tally::reordered).sum(),
        }
    }

    fn chunk(&mut self, tag: usize, n: u64) {
        let streams = self.tallies.len() as u64;
        let Some(tally) = self.tallies.get_mut(tag) else { return };
        if n % streams != tag as u64 {
            self.foreign += 1;
        } else if tally.take(n / streams) {
            self.deliveries += 1;
        }
    }
}

impl JoinWatcher for Readers {
    fn joined(&self) -> usize {
        self.joined
    }
    fn check(&self) -> Result<(), BenchError> {
        check_trouble(self.trouble.as_ref())
    }
}

impl Handler for Readers {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Event(stamp, _) => self.chunk(tag, stamp.n),
            ConnEvent::Text(text) if is_type(text, "ready") => self.joined += 1,
            ConnEvent::Answer { status: 200..=299, .. } if tag == PUBLISHERS => self.answers += 1,
            seen => record_trouble(&mut self.trouble, tag, &seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stamp::Scan;

    #[test]
    fn an_array_holds_one_valid_stamped_chunk_for_each_stream_in_turn() {
        let mut body = Vec::new();
        array(20, 10, 15, 7, &mut body);
        let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let parameters: Vec<(String, u64, u64)> = events
            .iter()
            .map(|event| {
                let n = Scan::new().find(event.to_string().as_bytes()).unwrap().n;
                assert_eq!(event["type"], "stream_chunk");
                (event["request_id"].as_str().unwrap().to_owned(), event["index"].as_u64().unwrap(), n)
            })
            .collect();
        assert_eq!(parameters[0], ("bench-000005".to_owned(), 1, 20));
        assert_eq!(parameters[9], ("bench-000014".to_owned(), 1, 29));
        assert_eq!(parameters.len(), 10);
    }

    #[test]
    fn a_chunk_too_many_too_few_or_of_another_stream_is_counted() {
        let mut readers = Readers::new(3);
        for n in [0, 1, 2, 3, 4] {
            readers.chunk(n as usize % 3, n);
        }
        assert_eq!(readers.delivery_faults(5), DeliveryFaults::default());
        assert_eq!(readers.delivery_faults(6).losses, 1);
        assert_eq!(readers.delivery_faults(7).losses, 2);
        readers.chunk(0, 3);
        readers.chunk(1, 5);
        assert_eq!((readers.delivery_faults(5).repeats, readers.foreign, readers.deliveries), (1, 1, 5));
    }
}
