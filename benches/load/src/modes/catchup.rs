//! `catchup`: readers read a log from its beginning to its end, over an event stream or by page
//! (`GET /api/v1/events`). It measures bytes per second, bytes per CPU second of the daemon, and the memory
//! of the daemon.
//!
//! * One publisher fills the log with durable arrays. Then all readers start at once at the oldest event.
//! * Bytes are those of events as received, with their framing (`id:` and `data:` lines, commas of a page),
//!   without the heads of responses and chunks.
//! * Every event is counted by number at every reader. A lost, repeated or reordered event fails the run.
//! * Each page reader has a thread. Stream readers share one.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem;
use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::delivery_check::{self, Tally};
use crate::generator::engine::{ConnEvent, Engine, Handler, Key, TICK, until_quiet};
use crate::generator::stall_detector::StallDetector;
use crate::generator::subscribers::record_trouble;
use crate::progress::Progress;
use crate::report::footprint::Footprint;
use crate::report::histogram;
use crate::report::meter::Meter;
use crate::report::{DeliveryFaults, Report};
use crate::target::{Server, Target};
use crate::wire::http_connection::HttpConnection;
use crate::wire::request::{HttpPublish, subscribe};
use crate::wire::stamp::{Scan, Template, now_ns};
use crate::wire::{Access, EVENTS_PER_PUBLISH, Wire};

/// Maximum bytes of a publish. Arrays are shortened to keep it.
const PUBLISH_MAX: usize = 2 << 20;
/// Wait before a publish is sent again after a 503.
const AGAIN: Duration = Duration::from_millis(100);
const MEGABYTE: f64 = 1e6;

/// How a log is read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ReadTransport {
    /// An SSE stream over HTTP/1.1.
    Sse,
    /// A WebSocket.
    Ws,
    /// `GET /api/v1/events`, 1,000 events a page.
    Pages,
}

impl ReadTransport {
    /// Returns the protocol of a stream, or `None` for pages.
    const fn wire(self) -> Option<Wire> {
        match self {
            ReadTransport::Sse => Some(Wire::Sse),
            ReadTransport::Ws => Some(Wire::Ws),
            ReadTransport::Pages => None,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  nervewire bench catchup                                  # one reader over SSE, 500 MB
  nervewire bench catchup --readers 100 --megabytes 100
  nervewire bench catchup --by pages --before ../old/nervewire --bar 'per_cpu>=4x:before'

One publisher fills the log first. Then each reader reads all of it. The newest events are in the
organization's ring; --set limits.ring_bytes_per_tenant makes it smaller. Lost, repeated and
reordered events are counted and fail the run.";

/// Measure the rate and CPU time of reading a log from its beginning, by stream or by page
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// How the log is read
    #[arg(long, value_enum, default_value_t = ReadTransport::Sse)]
    pub(crate) by: ReadTransport,
    /// Readers, which all start at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) readers: usize,
    /// Megabytes of events in the log, as published
    #[arg(long, value_name = "MB", default_value_t = 500.0)]
    pub(crate) megabytes: f64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(crate) size: usize,
    /// Events in each publish that fills the log
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) array: u64,
    /// Seconds to wait after the run before memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) rest: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Args {
    fn events(&self) -> u64 {
        ((self.megabytes * MEGABYTE / Template::custom(0, self.size).size() as f64) as u64).max(1)
    }
}

pub(crate) fn connections(args: &Args) -> usize {
    args.readers
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, by, readers, megabytes, size, array, rest } = args;
    common.daemon_alone()?;
    if *readers == 0 || !(1..=EVENTS_PER_PUBLISH as u64).contains(array) || !megabytes.is_finite() {
        let limits = format!("readers are at least 1, an array is 1 to {EVENTS_PER_PUBLISH} events");
        return Err(BenchError::Usage(limits));
    }
    let (how, label) = match by.wire() {
        Some(wire) => (wire.name(), wire.label()),
        None => ("GET, a thousand events a page", "pages"),
    };
    let about = format!("{readers} readers of a log of {megabytes} MB over {how}, events of {size} bytes");
    let parameters = json!({
        "by": label, "readers": readers, "megabytes": megabytes, "events": args.events(), "size": size,
        "array": array, "rest": rest, "runs": common.runs,
    });
    let mut report = Report::new("catchup", about, parameters, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        measure(args, run, &target, &mut report, progress)?;
    }
    Ok(report)
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let events = args.events();
    fill(args, &target.access, events, progress)?;
    progress.begin("reading", events * args.readers as u64);
    let footprint = Footprint::start(target);
    let meter = Meter::start(target);
    let began = Instant::now();
    let read = match args.by.wire() {
        Some(wire) => streams(args, &target.access, wire, events, progress)?,
        None => pages(args, &target.access)?,
    };
    let used = meter.used(target);
    // The wait for repeats is not part of the reading time.
    let elapsed = (read.ended.max(began) - began).as_secs_f64().max(f64::MIN_POSITIVE);
    let (megabytes, deliveries) =
        (read.bytes as f64 / MEGABYTE, read.delivery_faults.deliveries.max(1) as f64);
    let daemon = Server::Daemon;
    report.add(daemon, "rate", "read", "MB/s", megabytes / elapsed);
    if let Some(spent) = used.cpu {
        let cpu = spent.total.max(f64::MIN_POSITIVE);
        report.add(daemon, "per_cpu", "read per CPU second", "MB/s", megabytes / cpu);
        report.add(daemon, "cpu", "CPU per event", "µs", spent.total * 1e6 / deliveries);
        report.add(daemon, "user", "of it in user space", "µs", spent.user * 1e6 / deliveries);
    }
    report.add(daemon, "generator", "CPU of the bench per event", "µs", used.own * 1e6 / deliveries);
    report.add(daemon, "generator_share", "the bench's share of a core", "", used.own / elapsed);
    report.latency(daemon, read.timed, &read.times);
    report.count(daemon, run, read.delivery_faults, true);
    if let Some(stalled) = read.stalled {
        report.fault(daemon, run, stalled);
    }
    if args.rest > 0 {
        progress.begin("resting", 0);
        std::thread::sleep(Duration::from_secs(args.rest));
    }
    footprint.report_memory(target, report);
    Ok(())
}

/// The result of reading.
struct ReadResult {
    bytes: u64,
    delivery_faults: DeliveryFaults,
    /// When the last reader finished.
    ended: Instant,
    /// Name of the measured interval, and its durations in nanoseconds.
    timed: &'static str,
    times: Histogram<u64>,
    stalled: Option<BenchError>,
}

/// Publishes events 0 to `events`. Each array is acknowledged as durable before the next is sent.
fn fill(args: &Args, access: &Access, events: u64, progress: &mut dyn Progress) -> Result<(), BenchError> {
    progress.begin("filling the log", events);
    let publish = HttpPublish::new(access, true);
    let mut template = Template::custom(0, args.size);
    let most = args.array.min((PUBLISH_MAX / template.size()).max(1) as u64);
    let mut caller = HttpConnection::new(access, args.common.patience)?;
    let (mut body, mut request) = (Vec::new(), Vec::new());
    let mut first = 0;
    while first < events {
        let count = most.min(events - first);
        template.array(first, count, now_ns(), &mut body);
        request.clear();
        publish.request(&body, &mut request);
        match caller.call(&request)? {
            (200..=299, _) => first += count,
            (503, _) => std::thread::sleep(AGAIN),
            (status, answer) => {
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
                return Err(BenchError::Server(format!("filling the log: response {status}: {answer}")));
            }
        }
        progress.at(first);
    }
    Ok(())
}

fn streams(
    args: &Args,
    access: &Access,
    wire: Wire,
    events: u64,
    progress: &mut dyn Progress,
) -> Result<ReadResult, BenchError> {
    let mut readers = Readers {
        tallies: vec![Tally::default(); args.readers],
        last: events - 1,
        finished: 0,
        deliveries: 0,
        bytes: 0,
        began: now_ns(),
        times: histogram()?,
        trouble: None,
    };
    let mut engine = Engine::new()?;
    let request = subscribe(access, wire, "?earliest=true");
    for tag in 0..args.readers {
        engine.open(access.addr, wire, tag, &request)?;
    }
    let mut stall = StallDetector::new(args.common.patience);
    let mut read = || -> Result<(), BenchError> {
        while readers.finished < args.readers {
            engine.turn(TICK, &mut readers)?;
            if let Some(trouble) = readers.trouble.take() {
                return Err(BenchError::Server(trouble));
            }
            progress.at(readers.deliveries);
            let waiting = || format!("{} of {} have caught up", readers.finished, args.readers);
            stall.check(readers.deliveries, waiting)?;
        }
        Ok(())
    };
    let stalled = BenchError::or_stalled(read())?;
    let ended = Instant::now();
    until_quiet(|wait| engine.turn(wait, &mut readers))?;
    let delivery_faults = DeliveryFaults {
        deliveries: readers.deliveries,
        ..delivery_check::delivery_faults(&readers.tallies, events)
    };
    let (bytes, times) = (readers.bytes, readers.times);
    Ok(ReadResult { bytes, delivery_faults, ended, timed: "beginning to caught up", times, stalled })
}

/// The readers of streams, by tag.
struct Readers {
    tallies: Vec<Tally>,
    /// Number of the last event.
    last: u64,
    /// Readers that have received it.
    finished: usize,
    deliveries: u64,
    bytes: u64,
    /// Start of the readers, in nanoseconds.
    began: u64,
    times: Histogram<u64>,
    trouble: Option<String>,
}

impl Handler for Readers {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Event(stamp, text) => {
                self.bytes += text.len() as u64;
                let first = self.tallies.get_mut(tag).is_some_and(|tally| tally.take(stamp.n));
                self.deliveries += u64::from(first);
                if first && stamp.n == self.last {
                    self.finished += 1;
                    self.times.saturating_record(now_ns().saturating_sub(self.began));
                }
            }
            seen => record_trouble(&mut self.trouble, tag, &seen),
        }
    }
}

fn pages(args: &Args, access: &Access) -> Result<ReadResult, BenchError> {
    let one = || read_pages(access, args.common.patience);
    let readers: Vec<Result<Paged, BenchError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.readers).map(|_| scope.spawn(one)).collect();
        let lost = || Err(BenchError::Server("a reader's thread ended".into()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let ended = Instant::now();
    let (mut tallies, mut bytes, mut times) = (Vec::new(), 0, histogram()?);
    for reader in readers {
        let (tally, read, pages) = reader?;
        tallies.push(tally);
        bytes += read;
        times += pages;
    }
    let mut delivery_faults = delivery_check::delivery_faults(&tallies, args.events());
    delivery_faults.deliveries = args.readers as u64 * args.events() - delivery_faults.losses;
    Ok(ReadResult { bytes, delivery_faults, ended, timed: "request to page", times, stalled: None })
}

/// The result of one page reader: its tally, bytes, and the durations of its pages.
type Paged = (Tally, u64, Histogram<u64>);

/// Reads the log from its beginning until a page says that there is no more.
fn read_pages(access: &Access, patience: Duration) -> Result<Paged, BenchError> {
    let mut caller = HttpConnection::new(access, patience)?;
    let (scan, mut tally, mut bytes, mut times) = (Scan::new(), Tally::default(), 0, histogram()?);
    let mut path = "/api/v1/events?earliest=true&limit=1000".to_owned();
    loop {
        let sent_at = Instant::now();
        let (status, page) = caller.get(&path)?;
        times.saturating_record(sent_at.elapsed().as_nanos() as u64);
        if status != 200 {
            let page = String::from_utf8_lossy(&page[..page.len().min(300)]);
            return Err(BenchError::Server(format!("GET {path}: response {status}: {page}")));
        }
        let end = memmem::rfind(page, NEXT)
            .ok_or_else(|| BenchError::Server("a page without next_cursor".into()))?;
        let (events, rest) = page.split_at(end);
        bytes += events.len() as u64;
        for stamp in scan.all(events) {
            tally.take(stamp.n);
        }
        if memmem::find(rest, b"\"caught_up\":true").is_some() {
            return Ok((tally, bytes, times));
        }
        let cursor = rest[NEXT.len()..].split(|byte| *byte == b'"').next().unwrap_or_default();
        path = format!("/api/v1/events?after={}&limit=1000", String::from_utf8_lossy(cursor));
    }
}

/// The bytes after the events of a page and before the cursor.
const NEXT: &[u8] = b",\"next_cursor\":\"";
