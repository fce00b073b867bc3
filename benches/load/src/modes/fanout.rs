//! `fanout`: the cost of a delivery to the server. Events are published to all subscribers, one after another
//! or several at a time.
//!
//! * A *lane* is one keep-alive publisher. It publishes again when its events have reached every subscriber
//!   and its response has arrived. One lane is lockstep; W lanes keep up to W publishes outstanding.
//! * CPU is measured only during the counted publishes, without connecting and warm-up. The receivers count
//!   deliveries.
//! * The batch depth is deliveries ÷ the server's count of writes. A floor is compared at the daemon's batch
//!   depth.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::delivery_check::AHEAD;
use crate::generator::engine::{Engine, Key, TICK, until_quiet};
use crate::generator::stall_detector::StallDetector;
use crate::generator::subscriber_threads::{Size, SubscriberThreads};
use crate::generator::subscribers::{PUBLISHERS, WINDOW};
use crate::progress::Progress;
use crate::report::histogram;
use crate::report::meter::{IntervalUsage, Meter};
use crate::report::{DeliveryFaults, Rate, Report};
use crate::target::{Server, Target};
use crate::wire::request::HttpPublish;
use crate::wire::stamp::{Stamp, Template, now_ns};
use crate::wire::{EVENTS_PER_PUBLISH, Wire};

/// A trial run is shorter than a measured one by this factor.
const TRIAL: u64 = 4;
/// Maximum number of trials before each run.
const TRIALS: usize = 4;
/// Depths with a smaller relative difference count as equal.
const SAME_DEPTH: f64 = 0.05;

const EXAMPLES: &str = "\
Examples:
  nervewire bench fanout                                   # 1,000 WebSockets, one event at a time
  nervewire bench fanout --transport sse --subscribers 10000 --events 60
  nervewire bench fanout --subscribers 10000 --burst 8     # lockstep bursts
  nervewire bench fanout --outstanding 32 --events 5000    # up to 32 events in progress
  nervewire bench fanout --floor --runs 5 --bar 'cpu<=1.10x' --bar 'user<=0.6'
  nervewire bench fanout --url http://127.0.0.1:8080 --pid 4711 --admin 127.0.0.1:8081";

/// Measure the server's CPU time per delivery (user and system) and the deliveries per write
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Subscribers; limited by the file descriptors of one process
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) subscribers: usize,
    /// Publishes measured in each run
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) events: u64,
    /// Events in each publish; the next publish is sent when every subscriber has received all of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) burst: usize,
    /// Threads that hold subscribers; use more than one only if the server has cores of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) generators: usize,
    /// Publishes in progress at once, each on its own keep-alive connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) outstanding: usize,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// The result of one run.
struct Figures {
    /// Resources used by the measured part.
    used: IntervalUsage,
    /// First deliveries.
    deliveries: u64,
    /// Deliveries per write.
    depth: Option<f64>,
    delivery_faults: DeliveryFaults,
    /// Time from each publish to its last receipt, in nanoseconds.
    whole: Histogram<u64>,
    /// Deliveries in each second.
    per_second: Vec<f64>,
    /// The error, if the run was stopped.
    stalled: Option<BenchError>,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.subscribers
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(args)?;
    let common = &args.common;
    let mut report = Report::new("fanout", about(args), settings_json(args), &common.bars);
    // Events in one write of the floor. Until the daemon's depth is known, this is the number of events in a
    // publish.
    let mut limit = args.burst as u64;
    for run in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, Some(limit))?;
            let figures = measure(args, &target, progress)?;
            report_run(&mut report, server, run, &figures, args.outstanding == 1);
            if server == Server::Daemon && common.floor {
                limit = match figures.depth {
                    Some(depth) => same_depth(args, depth, limit, progress)?,
                    None => (args.burst * args.outstanding) as u64,
                };
            }
        }
    }
    if common.floor && args.outstanding > 1 {
        let note = "before each run the floor's limit on events in one write is set so that it reaches the daemon's depth, where that is known";
        report.notes.push(note.into());
    }
    Ok(report)
}

/// Finds the floor's limit at which its writes hold as many events as the daemon's, by short runs that start
/// at `limit`.
///
/// The depth under a limit depends on the relative speed of both sides, so it must be tried. Otherwise the
/// floor would be compared at a different depth, which alone halves or doubles the cost of a delivery.
fn same_depth(args: &Args, depth: f64, limit: u64, progress: &mut dyn Progress) -> Result<u64, BenchError> {
    let most = args.outstanding as u64 * args.burst as u64;
    if args.outstanding == 1 {
        return Ok((depth.round() as u64).clamp(1, most));
    }
    let trial = Args { events: (args.events / TRIAL).max(100), ..args.clone() };
    let mut limit = limit.max(depth.round() as u64).clamp(1, most);
    for _ in 0..TRIALS {
        let target = args.common.start(Server::Floor, Some(limit))?;
        let Some(reached) = measure(&trial, &target, progress)?.depth else { break };
        let next = ((limit as f64 * depth / reached).round() as u64).clamp(1, most);
        if next == limit || (reached / depth - 1.0).abs() < SAME_DEPTH {
            break;
        }
        limit = next;
    }
    Ok(limit)
}

fn check(args: &Args) -> Result<(), BenchError> {
    let refuse = |what: String| Err(BenchError::Usage(what));
    if args.generators == 0 || args.subscribers == 0 || args.events == 0 || args.common.runs == 0 {
        return refuse("subscribers, generators, events and runs are at least 1".into());
    }
    if !(1..=EVENTS_PER_PUBLISH).contains(&args.burst) {
        return refuse(format!("a burst is 1 to {EVENTS_PER_PUBLISH} events"));
    }
    if args.outstanding == 0 || args.outstanding as u64 > AHEAD || args.outstanding * args.burst > WINDOW {
        return refuse(format!("1 to {AHEAD} publishes may be outstanding, of {WINDOW} events together"));
    }
    if args.outstanding > 1 && args.burst > 1 {
        return refuse(
            "either a burst or several outstanding: events of two bursts overtake each other".into(),
        );
    }
    Ok(())
}

fn about(args: &Args) -> String {
    let pace = match (args.burst, args.outstanding) {
        (1, 1) => "one event at a time".to_owned(),
        (burst, 1) => format!("bursts of {burst} in lockstep"),
        (_, outstanding) => format!("up to {outstanding} outstanding"),
    };
    let wire = args.transport.name();
    let Args { subscribers, events, size, .. } = args;
    format!("{subscribers} subscribers over {wire}, {pace}, {events} publishes, events of {size} bytes")
}

fn settings_json(args: &Args) -> serde_json::Value {
    json!({
        "transport": args.transport.label(),
        "subscribers": args.subscribers, "events": args.events, "burst": args.burst,
        "outstanding": args.outstanding, "generators": args.generators, "size": args.size, "runs": args.common.runs,
    })
}

fn report_run(report: &mut Report, server: Server, run: usize, figures: &Figures, ordered: bool) {
    let deliveries = figures.deliveries.max(1) as f64;
    if let Some(cpu) = figures.used.cpu {
        let each = 1e6 / deliveries;
        report.add(server, "cpu", "CPU per delivery", "µs", cpu.total * each);
        report.add(server, "user", "of it in user space", "µs", cpu.user * each);
    }
    if let Some(depth) = figures.depth {
        report.add(server, "depth", "deliveries per write", "", depth);
    }
    report.add(server, "rate", "deliveries", "1/s", deliveries / figures.used.elapsed);
    report.add(
        server,
        "generator",
        "CPU of the bench per delivery",
        "µs",
        figures.used.own * 1e6 / deliveries,
    );
    report.count(server, run, figures.delivery_faults, ordered);
    report.latency(server, "publish to the last receipt", &figures.whole);
    report.rates.push(Rate { server, name: "deliveries", run, per_second: figures.per_second.clone() });
    if let Some(stalled) = &figures.stalled {
        report.fault(server, run, stalled);
    }
}

fn measure(args: &Args, target: &Target, progress: &mut dyn Progress) -> Result<Figures, BenchError> {
    let mut engine = Engine::new()?;
    let (access, patience) = (&target.access, args.common.patience);
    let size = Size { subscribers: args.subscribers, threads: args.generators };
    let mut threads = SubscriberThreads::join(&mut engine, access, args.transport, size, patience, progress)?;
    let mut lanes = Lanes::open(args, target, &mut engine)?;
    progress.begin("warming up", 0);
    let warm_up = (args.events / 10).clamp(5, 100);
    let warmed = lanes.publish(warm_up, &mut engine, &mut threads, patience, &mut |_| {});
    let mut stalled = BenchError::or_stalled(warmed)?;
    progress.begin("publishing", args.events);
    let had = threads.deliveries();
    lanes.whole.reset();
    lanes.per_second.clear();
    let meter = Meter::with_writes(target);
    if stalled.is_none() {
        let at = &mut |done| progress.at(done);
        let load = lanes.publish(args.events, &mut engine, &mut threads, patience, at);
        stalled = BenchError::or_stalled(load)?;
    }
    let used = meter.used(target);
    let deliveries = threads.deliveries() - had;
    if stalled.is_none() {
        until_quiet(|wait| threads.turn(&mut engine, wait))?;
    }
    Ok(Figures {
        used,
        deliveries,
        depth: used.depth(deliveries),
        delivery_faults: DeliveryFaults { deliveries, ..threads.delivery_faults(lanes.published) },
        whole: lanes.whole,
        per_second: lanes.per_second,
        stalled,
    })
}

/// The publishers.
struct Lanes {
    keys: Vec<Key>,
    /// Receipts that each lane still misses, including its response.
    missing: Vec<usize>,
    /// When each lane published, in nanoseconds.
    began: Vec<u64>,
    /// Time from publish to the last receipt, in nanoseconds.
    whole: Histogram<u64>,
    /// Deliveries in each whole second.
    per_second: Vec<f64>,
    /// The lane that published event n, at n modulo [`WINDOW`].
    of_event: Box<[u32]>,
    burst: u64,
    publish: HttpPublish,
    template: Template,
    /// Events published so far.
    published: u64,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl Lanes {
    fn open(args: &Args, target: &Target, engine: &mut Engine) -> Result<Lanes, BenchError> {
        let keys = (0..args.outstanding)
            .map(|lane| engine.open(target.access.addr, Wire::Http, PUBLISHERS + lane, b""))
            .collect::<Result<Vec<Key>, BenchError>>()?;
        Ok(Lanes {
            missing: vec![0; keys.len()],
            began: vec![0; keys.len()],
            whole: histogram()?,
            per_second: Vec::new(),
            keys,
            of_event: vec![0; WINDOW].into_boxed_slice(),
            burst: args.burst as u64,
            publish: HttpPublish::new(&target.access, false),
            template: Template::custom(0, args.size),
            published: 0,
            body: Vec::new(),
            request: Vec::new(),
        })
    }

    /// Publishes `count` times and waits until every subscriber has received everything.
    fn publish(
        &mut self,
        count: u64,
        engine: &mut Engine,
        threads: &mut SubscriberThreads,
        patience: Duration,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let mut free: Vec<usize> = (0..self.keys.len()).collect();
        let (mut sent, mut done) = (0, 0);
        let mut stall = StallDetector::new(patience);
        let (started, mut before) = (Instant::now(), threads.deliveries());
        while done < count {
            while sent < count
                && let Some(lane) = free.pop()
            {
                self.send(lane, engine);
                sent += 1;
            }
            threads.turn(engine, TICK)?;
            let mut settled = |lane: usize| {
                let missing = &mut self.missing[lane];
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    self.whole.saturating_record(now_ns().saturating_sub(self.began[lane]));
                    free.push(lane);
                    done += 1;
                }
            };
            for n in threads.completed() {
                settled(self.of_event[n as usize % WINDOW] as usize);
            }
            threads.answered().for_each(&mut settled);
            at(done);
            if self.per_second.len() < started.elapsed().as_secs() as usize {
                self.per_second.push((threads.deliveries() - before) as f64);
                before = threads.deliveries();
            }
            stall.check(threads.deliveries() + done, || {
                format!("{done} of {count} publishes have reached all {} subscribers", threads.len())
            })?;
        }
        Ok(())
    }

    fn send(&mut self, lane: usize, engine: &mut Engine) {
        let (first, t) = (self.published, now_ns());
        self.published += self.burst;
        self.missing[lane] = self.burst as usize + 1;
        self.began[lane] = t;
        for n in first..self.published {
            self.of_event[n as usize % WINDOW] = lane as u32;
        }
        self.request.clear();
        if self.burst == 1 {
            self.publish.request(self.template.stamped(Stamp { n: first, t }), &mut self.request);
        } else {
            self.template.array(first, self.burst, t, &mut self.body);
            self.publish.request(&self.body, &mut self.request);
        }
        engine.send(self.keys[lane], &self.request);
    }
}
