//! `resume`: all subscribers reconnect at once, each far behind. It measures the time until all have caught
//! up, and the effect on another tenant.
//!
//! * The subscribers of one organization receive one event, keep its cursor and disconnect. Then `behind`
//!   durable events are published in arrays. Then all subscribers connect at once. Each has *caught up* when
//!   it has read the last event.
//! * The time is from the first connect of all to each subscriber's last event, so it includes waiting for
//!   other subscribers.
//! * Every event is counted by number at every subscriber. A lost or repeated event fails the run.
//! * Another organization has live subscribers meanwhile ([`crate::generator::quiet_tenant`]). Its 99th percentile is
//!   measured alone, then during the run.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;

use crate::common::{Common, help, seconds};
use crate::error::BenchError;
use crate::generator::delivery_check::{self, Tally};
use crate::generator::engine::{ConnEvent, Engine, Handler, Key, TICK, is_type, until_quiet};
use crate::generator::interval;
use crate::generator::quiet_tenant::{self, QuietTenant};
use crate::generator::stall_detector::StallDetector;
use crate::generator::subscribers::{PUBLISHERS, check_trouble, record_trouble};
use crate::generator::wave::{JoinWatcher, Wave};
use crate::progress::Progress;
use crate::report::histogram;
use crate::report::meter::Meter;
use crate::report::{DeliveryFaults, Report};
use crate::target::process;
use crate::target::tenants::Tenant;
use crate::target::{Server, Target};
use crate::wire::event_id::{EventId, add_last_event_id, event_id};
use crate::wire::request::{HttpPublish, subscribe};
use crate::wire::stamp::{Template, now_ns};
use crate::wire::{Access, Wire};

const EXAMPLES: &str = "\
Examples:
  nervewire bench resume                                   # 5,000 reconnect, 2,000 events behind
  nervewire bench resume --transport sse --subscribers 1000 --behind 10000
  nervewire bench resume --runs 5 --bar 'spread<=2' --bar 'sent_ratio<=2' --bar 'live_ratio<=2'

A new organization is created for each part; with --url the key must be an operator key. Lost and
repeated events are counted and fail the run.";

/// Measure how soon all subscribers catch up when all reconnect at once, and the effect on another tenant
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Subscribers that disconnect and all reconnect at once
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) subscribers: usize,
    /// Events published while the subscribers are away
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) behind: u64,
    /// Events in each of those publishes
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) array: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    /// Live subscribers of another tenant during the run
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) live: usize,
    /// Publishes per second of that tenant
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Seconds to measure that tenant alone first
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) alone: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.subscribers
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(args)?;
    let Args { subscribers, behind, array, size, live, rate, .. } = args;
    let wire = args.transport.name();
    let about = format!(
        "tenant A: {subscribers} subscribers over {wire} come back at once, each {behind} events of {size} bytes behind; \
         tenant B: {live} live subscribers, {rate} publishes a second"
    );
    let parameters = json!({
        "transport": args.transport.label(), "subscribers": subscribers,
        "behind": behind, "array": array, "size": size, "live": live, "rate": rate,
        "alone_seconds": args.alone.as_secs_f64(), "runs": args.common.runs,
    });
    let mut report = Report::new("resume", about, parameters, &args.common.bars);
    for run in 0..args.common.runs {
        let target = args.common.start(Server::Daemon, None)?;
        measure(args, run, &target, &mut report, progress)?;
    }
    report.notes.push(interval::NOTE.into());
    Ok(report)
}

fn check(args: &Args) -> Result<(), BenchError> {
    args.common.daemon_alone()?;
    let refuse = |what: &str| Err(BenchError::Usage(what.to_owned()));
    if args.subscribers == 0 || args.behind == 0 || args.live == 0 {
        return refuse("subscribers, behind and live are at least 1");
    }
    quiet_tenant::check(args.array, args.rate)
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let patience = args.common.patience;
    let (tenant, quiet) = (Tenant::make(target, "resuming")?, Tenant::make(target, "quiet")?);
    let quiet_tenant = QuietTenant::start(
        &quiet,
        quiet_tenant::Settings {
            wire: args.transport,
            subscribers: args.live,
            rate: args.rate,
            size: args.size,
            probes: false,
            patience,
        },
    )?;
    let mut resuming = ResumingSubscribers::new(args.subscribers)?;
    let mut engine = Engine::new()?;
    engine.in_bursts();
    prepare(args, &tenant, &mut engine, &mut resuming, progress)?;
    progress.begin("the other tenant alone", 0);
    let alone = quiet_tenant.measure_alone(args.alone)?;
    let requests = resuming.requests(&tenant.access, args.transport)?;
    progress.begin("coming back", args.subscribers as u64);
    let pss = target.pid.and_then(process::pss);
    let meter = Meter::start(target);
    resuming.reconnect(args.behind);
    let back = reconnect(args, &tenant.access, &requests, &mut engine, &mut resuming, progress);
    let used = meter.used(target);
    let grown = pss.zip(target.pid.and_then(process::pss));
    let stalled = BenchError::or_stalled(back)?;
    let during = quiet_tenant.cut()?;
    until_quiet(|wait| engine.turn(wait, &mut resuming))?;
    let daemon = Server::Daemon;
    let ms = |quantile| resuming.caught_up.value_at_quantile(quantile) as f64 / 1e6;
    report.add(daemon, "median", "caught up, median", "ms", ms(0.5));
    report.add(daemon, "p99", "caught up, p99", "ms", ms(0.99));
    report.add(daemon, "max", "caught up, last", "ms", resuming.caught_up.max() as f64 / 1e6);
    report.add(daemon, "spread", "p99 over median", "", ms(0.99) / ms(0.5).max(f64::MIN_POSITIVE));
    report.add(daemon, "ready", "ready, p99", "ms", resuming.ready.value_at_quantile(0.99) as f64 / 1e6);
    let deliveries = resuming.deliveries.max(1) as f64;
    report.add(daemon, "rate", "events caught up", "1/s", deliveries / used.elapsed);
    if let Some(spent) = used.cpu {
        report.add(daemon, "cpu", "CPU per event caught up", "µs", spent.total * 1e6 / deliveries);
    }
    report.add(daemon, "generator", "CPU of the bench per event", "µs", used.own * 1e6 / deliveries);
    if let Some((before, after)) = grown {
        report.add(
            daemon,
            "pss",
            "PSS, more than before",
            "MiB",
            (after as f64 - before as f64) / 1_048_576.0,
        );
    }
    report.latency(daemon, "A: first connect to caught up", &resuming.caught_up);
    interval::report(report, run, &alone, &during);
    report.count(daemon, run, resuming.delivery_faults(args.behind), true);
    if let Some(stalled) = stalled {
        report.fault(daemon, run, stalled);
    }
    Ok(())
}

/// Lets all subscribers receive one event and disconnect, and waits until the daemon has noticed. Then
/// publishes the events that they miss.
fn prepare(
    args: &Args,
    tenant: &Tenant,
    engine: &mut Engine,
    resuming: &mut ResumingSubscribers,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let Args { subscribers, behind, .. } = *args;
    let request = subscribe(&tenant.access, args.transport, "");
    progress.begin("connecting", subscribers as u64);
    let patience = args.common.patience;
    let wave = Wave { access: &tenant.access, wire: args.transport, first: 0, count: subscribers, patience };
    let mut keys = wave.join(engine, resuming, |_| Cow::Borrowed(&request), progress)?;
    let mut stall = StallDetector::new(patience);
    let key = engine.open(tenant.access.addr, Wire::Http, PUBLISHERS, b"")?;
    let mut publisher = Publisher {
        key,
        publish: HttpPublish::new(&tenant.access, true),
        template: Template::custom(0, args.size),
    };
    publisher.publish(0, 1, engine, resuming, patience)?;
    while resuming.finished < subscribers {
        engine.turn(TICK, resuming)?;
        resuming.check()?;
        stall.check(resuming.finished as u64, || {
            format!("{} of {subscribers} saw the first event", resuming.finished)
        })?;
    }
    keys.drain(..).for_each(|key| engine.close(key));
    while tenant.stats()?.connections > 0 {
        stall.check(0, || "the daemon still counts subscribers that left".into())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    progress.begin("publishing what they miss", behind);
    let mut first = 1;
    while first <= behind {
        let count = args.array.min(behind + 1 - first);
        publisher.publish(first, count, engine, resuming, patience)?;
        first += count;
        progress.at(first - 1);
    }
    engine.close(key);
    Ok(())
}

/// A publisher that waits for each response.
struct Publisher {
    key: Key,
    publish: HttpPublish,
    template: Template,
}

impl Publisher {
    fn publish(
        &mut self,
        first: u64,
        count: u64,
        engine: &mut Engine,
        resuming: &mut ResumingSubscribers,
        patience: Duration,
    ) -> Result<(), BenchError> {
        let (mut body, mut request) = (Vec::new(), Vec::new());
        self.template.array(first, count, now_ns(), &mut body);
        self.publish.request(&body, &mut request);
        engine.send(self.key, &request);
        let (wanted, mut stall) = (resuming.answers + 1, StallDetector::new(patience));
        while resuming.answers < wanted {
            engine.turn(TICK, resuming)?;
            resuming.check()?;
            stall.check(resuming.answers, || "a publish has no response".into())?;
        }
        Ok(())
    }
}

fn reconnect(
    args: &Args,
    access: &Access,
    requests: &[Vec<u8>],
    engine: &mut Engine,
    resuming: &mut ResumingSubscribers,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    // Nothing is read meanwhile. Otherwise the last subscribers would wait while this process handles the
    // events of the first ones.
    for (tag, request) in requests.iter().enumerate() {
        engine.open(access.addr, args.transport, tag, request)?;
    }
    let mut stall = StallDetector::new(args.common.patience);
    while resuming.finished < requests.len() {
        engine.turn(TICK, resuming)?;
        resuming.check()?;
        progress.at(resuming.finished as u64);
        stall.check(resuming.deliveries, || {
            format!("{} of {} have caught up", resuming.finished, requests.len())
        })?;
    }
    Ok(())
}

/// The subscribers that disconnect and reconnect.
struct ResumingSubscribers {
    tallies: Vec<Tally>,
    /// The id of the last event that each subscriber received before it disconnected.
    cursors: Vec<Option<EventId>>,
    joined: usize,
    /// The number of the last event.
    last: u64,
    /// Subscribers that have read the last event.
    finished: usize,
    deliveries: u64,
    /// Publishes that got a response.
    answers: u64,
    /// When the subscribers began to reconnect, in nanoseconds; 0 before that.
    began: u64,
    /// Times since then, in nanoseconds: until `ready`, and until the last event of each subscriber.
    ready: hdrhistogram::Histogram<u64>,
    caught_up: hdrhistogram::Histogram<u64>,
    trouble: Option<String>,
}

impl ResumingSubscribers {
    fn new(subscribers: usize) -> Result<ResumingSubscribers, BenchError> {
        Ok(ResumingSubscribers {
            tallies: vec![Tally::default(); subscribers],
            cursors: vec![None; subscribers],
            joined: 0,
            last: 0,
            finished: 0,
            deliveries: 0,
            answers: 0,
            began: 0,
            ready: histogram()?,
            caught_up: histogram()?,
            trouble: None,
        })
    }

    /// Returns the request of each subscriber for reconnecting.
    fn requests(&self, access: &Access, wire: Wire) -> Result<Vec<Vec<u8>>, BenchError> {
        let failed = || BenchError::Server("an event came without an id".into());
        let cursors = self.cursors.iter().map(|it| it.as_ref().and_then(|it| std::str::from_utf8(it).ok()));
        cursors.map(|cursor| Ok(resume(access, wire, cursor.ok_or_else(failed)?))).collect()
    }

    /// From now on, events 1 to `behind` are expected.
    fn reconnect(&mut self, behind: u64) {
        self.tallies.fill(Tally::from(1));
        (self.joined, self.finished, self.deliveries) = (0, 0, 0);
        (self.last, self.began) = (behind, now_ns());
    }

    fn delivery_faults(&self, behind: u64) -> DeliveryFaults {
        DeliveryFaults {
            deliveries: self.deliveries,
            ..delivery_check::delivery_faults(&self.tallies, behind + 1)
        }
    }

    fn event(&mut self, tag: usize, n: u64, text: &[u8]) {
        let Some(tally) = self.tallies.get_mut(tag) else { return };
        if !tally.take(n) {
            return;
        }
        self.deliveries += 1;
        if n != self.last {
            return;
        }
        self.finished += 1;
        if self.began == 0 {
            self.cursors[tag] = event_id(text);
        } else {
            self.caught_up.saturating_record(now_ns().saturating_sub(self.began));
        }
    }
}

/// Returns the request for a subscription that resumes after `cursor`: as a browser's EventSource sends it,
/// or in the WebSocket's URL.
fn resume(access: &Access, wire: Wire, cursor: &str) -> Vec<u8> {
    if wire == Wire::Ws {
        return subscribe(access, wire, &format!("?last_event_id={cursor}"));
    }
    let mut request = subscribe(access, wire, "");
    add_last_event_id(&mut request, cursor);
    request
}

impl JoinWatcher for ResumingSubscribers {
    fn joined(&self) -> usize {
        self.joined
    }
    fn check(&self) -> Result<(), BenchError> {
        check_trouble(self.trouble.as_ref())
    }
}

impl Handler for ResumingSubscribers {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Event(stamp, text) => self.event(tag, stamp.n, text),
            ConnEvent::Text(text) if is_type(text, "ready") => {
                self.joined += 1;
                if self.began > 0 {
                    self.ready.saturating_record(now_ns().saturating_sub(self.began));
                }
            }
            ConnEvent::Answer { status: 200..=299, .. } if tag == PUBLISHERS => self.answers += 1,
            seen => record_trouble(&mut self.trouble, tag, &seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stamp::Stamp;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAB1";

    #[test]
    fn a_subscriber_resumes_after_its_cursor() {
        let access = Access {
            addr: ([127, 0, 0, 1], 1).into(),
            host: "h".into(),
            credential: "X-API-Key: k\r\n".into(),
        };
        let request_text = |wire| String::from_utf8(resume(&access, wire, ID)).unwrap();
        assert!(
            request_text(Wire::Ws).starts_with(&format!("GET /api/v1/ws?last_event_id={ID} HTTP/1.1\r\n"))
        );
        assert!(
            request_text(Wire::Sse).ends_with(&format!("\r\nLast-Event-ID: {ID}\r\n\r\n")),
            "{}",
            request_text(Wire::Sse)
        );
    }

    #[test]
    fn a_resuming_subscriber_must_get_exactly_what_it_missed() {
        let mut resuming = ResumingSubscribers::new(3).unwrap();
        for tag in 0..3 {
            resuming.on_event(
                0,
                tag,
                ConnEvent::Event(Stamp { n: 0, t: 0 }, format!("id: {ID}\ndata: ").as_bytes()),
            );
        }
        assert_eq!(resuming.finished, 3);
        resuming.reconnect(4);
        for n in 1..=4 {
            resuming.event(0, n, b"");
        }
        for n in [1, 1, 2, 4] {
            resuming.event(1, n, b"");
        }
        resuming.event(2, 0, b"");
        assert_eq!(resuming.finished, 2);
        assert_eq!(resuming.caught_up.len(), 2);
        let expected = DeliveryFaults { deliveries: 7, losses: 1 + 4, repeats: 1 + 1, reordered: 0 };
        assert_eq!(resuming.delivery_faults(4), expected);
    }
}
