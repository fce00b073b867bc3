//! `noisy`: one tenant publishes as fast as possible to subscribers that partly never read. The mode measures
//! the effect on another tenant.
//!
//! * Half of A's publishers send arrays, the other half single events. Each publishes the next as soon as it
//!   gets a response, also after a refusal. Stalled subscribers are not read once they are ready, so their
//!   sockets stay full.
//! * B is the quiet tenant ([`crate::generator::quiet_tenant`]). It is measured alone first, with no other connections,
//!   then under the load. Its interval under load ends only when it has received everything, and A continues
//!   until then. Besides its events, REST requests, new subscribers and pings are measured.
//! * Losses of A's own readers are reported but not judged: they may be cut off (`gap`) as the protocol says.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Common, help, seconds};
use crate::error::BenchError;
use crate::generator::engine::{ConnEvent, Engine, Handler, Key, is_type};
use crate::generator::interval::{self, Interval};
use crate::generator::quiet_tenant::{self, QuietTenant};
use crate::generator::subscribers::{PUBLISHERS, check_trouble, record_trouble};
use crate::generator::wave::{JoinWatcher, Wave};
use crate::progress::Progress;
use crate::report::meter::{IntervalUsage, Meter};
use crate::report::{Rate, Report};
use crate::target::process;
use crate::target::tenants::Tenant;
use crate::target::{Server, Target};
use crate::wire::Wire;
use crate::wire::request::{HttpPublish, subscribe};
use crate::wire::stamp::{Stamp, Template, now_ns};

/// The longest wait for a descriptor to become ready.
const TICK: Duration = Duration::from_millis(10);
/// How often memory is read.
const SAMPLE: Duration = Duration::from_millis(100);
/// Latency from publish to send that the quiet tenant may always have, in microseconds. A ratio of smaller
/// values says nothing.
const GRACE_US: f64 = 2_000.0;
const MIB: f64 = 1_048_576.0;

const EXAMPLES: &str = "\
Examples:
  nervewire bench noisy                                    # 5,000 subscribers, half of them stalled
  nervewire bench noisy --stalled 0.9 --publishers 64 --seconds 30
  nervewire bench noisy --runs 5 --bar 'sent_share<=1'     # p99 <= max(2 x alone, 2 ms)

The sends of tenant B are timed in the daemon, and its receipts in this process. With --url the key
must be an operator key. An event lost by B fails the run; events lost by A are reported.";

/// Measure the effect of a busy tenant, whose subscribers do not read, on a quiet tenant
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Subscribers of the busy tenant, A
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) subscribers: usize,
    /// Share of these subscribers that never reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(crate) stalled: f64,
    /// Publishers of A; each publishes again as soon as it gets a response
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) publishers: usize,
    /// Events in each publish of every second publisher; the others publish single events
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) array: u64,
    /// Publishers of A wait for the disk, instead of using `ack=memory`
    #[arg(long)]
    pub(crate) durable: bool,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// Subscribers of the quiet tenant, B
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) live: usize,
    /// Publishes per second of B
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Seconds to measure B alone, and again under A's load
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.subscribers
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(args)?;
    let Args { subscribers, stalled, publishers, array, size, live, rate, durable, .. } = args;
    let wire = args.transport.name();
    let about = format!(
        "tenant A: {publishers} publishers as fast as they can, {subscribers} subscribers over {wire}, {:.0} % of them not \
         reading; tenant B: {live} subscribers, {rate} publishes a second",
        stalled * 100.0
    );
    let parameters = json!({
        "transport": args.transport.label(), "subscribers": subscribers,
        "stalled": stalled, "publishers": publishers, "array": array, "durable": durable, "size": size,
        "live": live, "rate": rate, "seconds": args.seconds.as_secs_f64(), "runs": args.common.runs,
    });
    let mut report = Report::new("noisy", about, parameters, &args.common.bars);
    for run in 0..args.common.runs {
        let target = args.common.start(Server::Daemon, None)?;
        measure(args, run, &target, &mut report, progress)?;
    }
    report.notes.push(interval::NOTE.into());
    report.notes.push("TCP memory is that of the whole machine, this process's sockets included".into());
    Ok(report)
}

fn check(args: &Args) -> Result<(), BenchError> {
    args.common.daemon_alone()?;
    let refuse = |what: &str| Err(BenchError::Usage(what.to_owned()));
    if args.subscribers == 0 || args.publishers == 0 || args.live == 0 {
        return refuse("subscribers, publishers and live are at least 1");
    }
    if !(0.0..=1.0).contains(&args.stalled) || args.seconds.is_zero() {
        return refuse("stalled is a share from 0 to 1, and the run lasts some time");
    }
    quiet_tenant::check(args.array, args.rate)
}

/// Returns true if subscriber `tag` stalls. Every range of tags contains about the given share.
fn stalls(tag: usize, share: f64) -> bool {
    let up_to = |count: usize| (count as f64 * share).floor();
    up_to(tag + 1) > up_to(tag)
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let (busy_org, quiet) = (Tenant::make(target, "busy")?, Tenant::make(target, "quiet")?);
    let quiet_tenant = QuietTenant::start(
        &quiet,
        quiet_tenant::Settings {
            wire: args.transport,
            subscribers: args.live,
            rate: args.rate,
            size: args.size,
            probes: true,
            patience: args.common.patience,
        },
    )?;
    progress.begin("the quiet tenant alone", 0);
    let alone = quiet_tenant.measure_alone(args.seconds)?;
    let mut engine = Engine::new()?;
    engine.in_bursts();
    let mut busy = BusyTenant::default();
    join(args, &busy_org, &mut engine, &mut busy, progress)?;
    let mut publishers = Publishers::open(args, &busy_org)?;
    engine.watch(&publishers.engine)?;
    // The effect of connecting A's subscribers on B is in neither interval.
    quiet_tenant.cut()?;
    progress.begin("under load", args.seconds.as_millis() as u64);
    let mut memory = Memory::now(target);
    let (meter, began) = (Meter::start(target), Instant::now());
    let mut end_requested = false;
    let during = loop {
        publishers.turn(&mut busy)?;
        engine.turn(TICK, &mut busy)?;
        busy.check()?;
        memory.sample(target);
        progress.at(began.elapsed().as_millis() as u64);
        if !end_requested && began.elapsed() >= args.seconds {
            end_requested = true;
            quiet_tenant.request_end();
        }
        if let Some(interval) = quiet_tenant.poll()? {
            break interval;
        }
        busy.second(began.elapsed());
    };
    let used = meter.used(target);
    report_quiet(report, run, &alone, &during);
    report_busy(report, run, &busy, &used);
    memory.report(target, report);
    Ok(())
}

fn report_quiet(report: &mut Report, run: usize, alone: &Interval, during: &Interval) {
    interval::report(report, run, alone, during);
    let daemon = Server::Daemon;
    let allowed = GRACE_US.max(2.0 * alone.sent_p99());
    report.add(
        daemon,
        "sent_share",
        "B: the same over max(2 × alone, 2 ms)",
        "",
        during.sent_p99() / allowed,
    );
    for (times, key, name) in [
        (&during.probes.health, "health_p99", "GET /health/live p99"),
        (&during.probes.stats, "stats_p99", "GET /api/v1/stats p99"),
        (&during.probes.connect, "connect_p99", "new subscriber to ready p99"),
        (&during.probes.pong, "pong_p99", "ping to pong p99"),
    ] {
        report.add(daemon, key, name, "µs", times.value_at_quantile(0.99) as f64 / 1e3);
    }
    report.latency(daemon, "B alone: GET /health/live", &alone.probes.health);
    report.latency(daemon, "B during: GET /health/live", &during.probes.health);
    report.latency(daemon, "B alone: new subscriber to ready", &alone.probes.connect);
    report.latency(daemon, "B during: new subscriber to ready", &during.probes.connect);
    let failed = during.probes.failed + alone.probes.failed;
    report.add(daemon, "probes_failed", "of these refused or broken off", "", failed as f64);
}

fn report_busy(report: &mut Report, run: usize, busy: &BusyTenant, used: &IntervalUsage) {
    let (daemon, elapsed) = (Server::Daemon, used.elapsed);
    report.add(daemon, "a_rate", "A: events accepted", "1/s", busy.accepted as f64 / elapsed);
    report.add(daemon, "a_refused", "A: publishes refused (503, 429)", "", busy.refused as f64);
    report.add(daemon, "a_deliveries", "A: deliveries read", "1/s", busy.deliveries as f64 / elapsed);
    report.add(daemon, "a_gaps", "A: gaps sent to its readers", "", busy.gaps as f64);
    report.add(daemon, "a_ended", "A: subscribers that were closed", "", busy.ended as f64);
    if let Some(spent) = used.cpu {
        report.add(daemon, "cores", "cores used by the daemon", "", spent.total / elapsed);
    }
    let per_second = busy.seconds.iter().map(|it| *it as f64).collect();
    report.rates.push(Rate { server: daemon, name: "A: events accepted", run, per_second });
}

fn join(
    args: &Args,
    busy_org: &Tenant,
    engine: &mut Engine,
    busy: &mut BusyTenant,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let request = subscribe(&busy_org.access, args.transport, "");
    progress.begin("connecting the busy tenant", args.subscribers as u64);
    let Args { transport: wire, subscribers: count, .. } = *args;
    let wave = Wave { access: &busy_org.access, wire, first: 0, count, patience: args.common.patience };
    let keys = wave.join(engine, busy, |_| Cow::Borrowed(&request), progress)?;
    for (tag, key) in keys.into_iter().enumerate() {
        if stalls(tag, args.stalled) {
            engine.set_paused(key, true, busy);
        }
    }
    Ok(())
}

/// A's publishers. They have their own epoll set, because in that of their readers they would wait behind
/// thousands.
struct Publishers {
    engine: Engine,
    keys: Vec<Key>,
    publish: HttpPublish,
    template: Template,
    array: u64,
    /// Events sent so far.
    offered: u64,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl Publishers {
    fn open(args: &Args, busy_org: &Tenant) -> Result<Publishers, BenchError> {
        let mut engine = Engine::new()?;
        let open = |lane| engine.open(busy_org.access.addr, Wire::Http, PUBLISHERS + lane, b"");
        let keys = (0..args.publishers).map(open).collect::<Result<Vec<Key>, BenchError>>()?;
        Ok(Publishers {
            engine,
            keys,
            publish: HttpPublish::new(&busy_org.access, args.durable),
            template: Template::custom(0, args.size),
            array: args.array,
            offered: 0,
            body: Vec::new(),
            request: Vec::new(),
        })
    }

    /// Handles the responses, and publishes the next events for every publisher that got one.
    fn turn(&mut self, busy: &mut BusyTenant) -> Result<(), BenchError> {
        self.engine.turn(Duration::ZERO, busy)?;
        if busy.in_progress.is_empty() {
            busy.in_progress = vec![0; self.keys.len()];
            busy.free = (0..self.keys.len()).collect();
        }
        for lane in busy.free.drain(..) {
            // Every second publisher sends arrays.
            let count = if lane % 2 == 0 { self.array } else { 1 };
            self.request.clear();
            if lane % 2 == 0 {
                self.template.array(self.offered, count, now_ns(), &mut self.body);
                self.publish.request(&self.body, &mut self.request);
            } else {
                let event = self.template.stamped(Stamp { n: self.offered, t: now_ns() });
                self.publish.request(event, &mut self.request);
            }
            self.offered += count;
            busy.in_progress[lane] = count;
            self.engine.send(self.keys[lane], &self.request);
        }
        Ok(())
    }
}

/// What A receives.
#[derive(Default)]
struct BusyTenant {
    joined: usize,
    /// Publishers that may publish again.
    free: Vec<usize>,
    /// Events of the publish that each publisher has in progress.
    in_progress: Vec<u64>,
    /// Events accepted, in total and in each second.
    accepted: u64,
    seconds: Vec<u64>,
    /// Events accepted before the current second.
    before: u64,
    /// Publishes with a 503 or 429 response.
    refused: u64,
    /// Events read by subscribers.
    deliveries: u64,
    gaps: u64,
    /// Subscribers that have ended.
    ended: u64,
    trouble: Option<String>,
}

impl BusyTenant {
    fn check(&self) -> Result<(), BenchError> {
        check_trouble(self.trouble.as_ref())
    }

    /// Records the events accepted in each whole second.
    fn second(&mut self, elapsed: Duration) {
        if self.seconds.len() < elapsed.as_secs() as usize {
            self.seconds.push(self.accepted - self.before);
            self.before = self.accepted;
        }
    }
}

impl JoinWatcher for BusyTenant {
    fn joined(&self) -> usize {
        self.joined
    }
    /// Checks that no subscriber was refused. This holds only while they connect; later they may be cut off.
    fn check(&self) -> Result<(), BenchError> {
        match self.ended {
            0 => BusyTenant::check(self),
            _ => Err(BenchError::Server("a subscriber of the busy tenant was refused".into())),
        }
    }
}

impl Handler for BusyTenant {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match (tag.checked_sub(PUBLISHERS), seen) {
            (None, ConnEvent::Event(..)) => self.deliveries += 1,
            (None, ConnEvent::Text(text)) if is_type(text, "ready") => self.joined += 1,
            (None, ConnEvent::Text(text)) if is_type(text, "gap") => self.gaps += 1,
            (None, ConnEvent::Answer { .. } | ConnEvent::Ended(_)) => self.ended += 1,
            (Some(lane), ConnEvent::Answer { status: 200..=299, .. }) => {
                self.accepted += self.in_progress.get(lane).copied().unwrap_or_default();
                self.free.push(lane);
            }
            (Some(lane), ConnEvent::Answer { status: 503 | 429, .. }) => {
                self.refused += 1;
                self.free.push(lane);
            }
            (Some(_), seen) => record_trouble(&mut self.trouble, tag, &seen),
            _ => {}
        }
    }
}

/// Memory of the daemon and of TCP: before the load, and at its peak.
struct Memory {
    pss: Option<u64>,
    rss: Option<u64>,
    rss_peak: u64,
    tcp: u64,
    tcp_peak: u64,
    looked: Instant,
}

impl Memory {
    fn now(target: &Target) -> Memory {
        let tcp = process::tcp_memory().unwrap_or_default().bytes;
        let rss = target.pid.and_then(process::rss);
        let pss = target.pid.and_then(process::pss);
        Memory { pss, rss, rss_peak: rss.unwrap_or_default(), tcp, tcp_peak: tcp, looked: Instant::now() }
    }

    /// Reads the memory if it is time to. PSS is not read under load, because the kernel must walk all memory
    /// of the daemon.
    fn sample(&mut self, target: &Target) {
        if self.looked.elapsed() < SAMPLE {
            return;
        }
        self.looked = Instant::now();
        self.rss_peak = self.rss_peak.max(target.pid.and_then(process::rss).unwrap_or_default());
        self.tcp_peak = self.tcp_peak.max(process::tcp_memory().unwrap_or_default().bytes);
    }

    fn report(&self, target: &Target, report: &mut Report) {
        let daemon = Server::Daemon;
        let mib = |after: u64, before: u64| (after as f64 - before as f64) / MIB;
        if let Some(rss) = self.rss {
            report.add(daemon, "rss", "RSS at most, more than before", "MiB", mib(self.rss_peak, rss));
        }
        if let Some((before, after)) = self.pss.zip(target.pid.and_then(process::pss)) {
            report.add(daemon, "pss", "PSS after, more than before", "MiB", mib(after, before));
        }
        report.add(daemon, "tcp", "TCP memory before", "MiB", self.tcp as f64 / MIB);
        report.add(daemon, "tcp_peak", "TCP memory at most", "MiB", self.tcp_peak as f64 / MIB);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_stalls_is_spread_over_all() {
        for (share, expected) in [(0.0, 0), (0.5, 500), (0.25, 250), (1.0, 1_000)] {
            assert_eq!((0..1_000).filter(|tag| stalls(*tag, share)).count(), expected, "{share}");
            let first = (0..100).filter(|tag| stalls(*tag, share)).count();
            assert_eq!(first * 10, expected, "{share}");
        }
    }

    #[test]
    fn what_is_refused_is_not_accepted_and_is_tried_again() {
        let mut busy = BusyTenant { in_progress: vec![100, 1], ..BusyTenant::default() };
        let answer = |status| ConnEvent::Answer { status, body: b"" };
        busy.on_event(0, PUBLISHERS, answer(201));
        busy.on_event(0, PUBLISHERS + 1, answer(503));
        busy.on_event(0, PUBLISHERS + 1, answer(429));
        assert_eq!((busy.accepted, busy.refused), (100, 2));
        assert_eq!(busy.free, [0, 1, 1]);
        assert!(busy.check().is_ok());
        busy.on_event(0, PUBLISHERS, answer(400));
        assert!(busy.check().is_err());
    }
}
