//! `latency`: the time from an event's publish to its receipt at each subscriber, at a fixed rate.
//!
//! * Events are published on schedule, whether or not earlier ones have arrived. A server that falls behind
//!   shows in the figures instead of slowing the load (no coordinated omission).
//! * The stamp is taken when the request is passed to the kernel, the receipt when the event is read. Both
//!   are in this process, by one clock. The time that this process needs to read a thousand sockets is
//!   included, for the floor as well.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::engine::{Engine, TICK, until_quiet};
use crate::generator::stall_detector::StallDetector;
use crate::generator::subscribers::{PUBLISHERS, Subscribers};
use crate::progress::Progress;
use crate::report::meter::Meter;
use crate::report::{DeliveryFaults, Rate, Report};
use crate::target::Target;
use crate::wire::Wire;
use crate::wire::request::HttpPublish;
use crate::wire::stamp::{Stamp, Template, now_ns};

/// Publishes before the measured ones.
const WARM_UP: u64 = 20;

const EXAMPLES: &str = "\
Examples:
  nervewire bench latency --rate 20 --subscribers 1000 --seconds 20
  nervewire bench latency --floor --runs 5 --bar 'p50<=1.25x' --bar 'p99<=1.25x'";

/// Measure the latency from publish to each subscriber at a fixed publish rate
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Wire::Ws)]
    pub(crate) transport: Wire,
    /// Subscribers
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) subscribers: usize,
    /// Publishes per second
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    pub(crate) rate: f64,
    /// Length of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.subscribers
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, subscribers, rate, seconds, size, .. } = args;
    if *subscribers == 0 || *seconds == 0 || common.runs == 0 || !(0.01..=1e6).contains(rate) {
        return Err(BenchError::Usage("subscribers, seconds, rate and runs are at least 1".into()));
    }
    let wire = args.transport.name();
    let about = format!(
        "{subscribers} subscribers over {wire}, {rate} publishes a second for {seconds} s, events of {size} bytes"
    );
    let parameters = json!({
        "transport": args.transport.label(), "subscribers": subscribers,
        "rate": rate, "seconds": seconds, "size": size, "runs": common.runs,
    });
    let mut report = Report::new("latency", about, parameters, &common.bars);
    for run in 0..common.runs {
        for server in common.servers() {
            let target = common.start(server, None)?;
            measure(args, run, &target, &mut report, progress)?;
        }
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
    let (server, patience) = (target.server, args.common.patience);
    let mut engine = Engine::new()?;
    let mut subscribers = Subscribers::new();
    subscribers.join(&mut engine, &target.access, args.transport, args.subscribers, patience, progress)?;
    let mut publisher = Publisher {
        key: engine.open(target.access.addr, Wire::Http, PUBLISHERS, b"")?,
        publish: HttpPublish::new(&target.access, false),
        template: Template::custom(0, args.size),
        period: Duration::from_secs_f64(1.0 / args.rate),
        patience,
        published: 0,
        request: Vec::new(),
        per_second: Vec::new(),
    };
    publisher.publish(WARM_UP, &mut engine, &mut subscribers, &mut |_| {})?;
    let events = ((args.rate * args.seconds as f64).ceil() as u64).max(1);
    progress.begin("publishing", events);
    let had = subscribers.deliveries();
    subscribers.record()?;
    publisher.per_second.clear();
    let meter = Meter::start(target);
    let published = publisher.publish(events, &mut engine, &mut subscribers, &mut |done| progress.at(done));
    let spent = meter.used(target).cpu;
    let stalled = BenchError::or_stalled(published)?;
    until_quiet(|wait| engine.turn(wait, &mut subscribers))?;
    let deliveries = subscribers.deliveries() - had;
    if let Some(histogram) = subscribers.recorded() {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        report.add(server, "p50", "publish to receipt, p50", "µs", us(0.5));
        report.add(server, "p90", "publish to receipt, p90", "µs", us(0.9));
        report.add(server, "p99", "publish to receipt, p99", "µs", us(0.99));
        report.add(server, "p999", "publish to receipt, p99.9", "µs", us(0.999));
        report.latency(server, "publish to receipt", &histogram);
    }
    if let Some(spent) = spent {
        report.add(server, "cpu", "CPU per delivery", "µs", spent.total * 1e6 / deliveries.max(1) as f64);
    }
    report.rates.push(Rate { server, name: "deliveries", run, per_second: publisher.per_second });
    report.count(
        server,
        run,
        DeliveryFaults { deliveries, ..subscribers.delivery_faults(publisher.published) },
        true,
    );
    if let Some(stalled) = stalled {
        report.fault(server, run, stalled);
    }
    Ok(())
}

/// The publisher and its schedule.
struct Publisher {
    key: usize,
    publish: HttpPublish,
    template: Template,
    period: Duration,
    patience: Duration,
    published: u64,
    request: Vec<u8>,
    per_second: Vec<f64>,
}

impl Publisher {
    /// Publishes `count` times on schedule, and waits until every subscriber has received everything.
    fn publish(
        &mut self,
        count: u64,
        engine: &mut Engine,
        subscribers: &mut Subscribers,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        let (mut sent, mut complete, mut counted) = (0u64, 0u64, subscribers.deliveries());
        let mut stall = StallDetector::new(self.patience);
        while complete < count {
            let due = self.period.mul_f64(sent as f64);
            let now = began.elapsed();
            if sent < count && now >= due {
                self.send(engine);
                sent += 1;
            }
            let wait = if sent < count { self.period.mul_f64(sent as f64).saturating_sub(now) } else { TICK };
            engine.turn(wait.min(TICK), subscribers)?;
            subscribers.check()?;
            complete += subscribers.completed().count() as u64;
            subscribers.answered().for_each(drop);
            if began.elapsed().as_secs() as usize > self.per_second.len() {
                self.per_second.push((subscribers.deliveries() - counted) as f64);
                counted = subscribers.deliveries();
            }
            at(complete);
            // If nothing is outstanding, no progress is required.
            stall.check(if complete == sent { u64::MAX - sent } else { subscribers.deliveries() }, || {
                format!("{complete} of {sent} events have reached all {} subscribers", subscribers.len())
            })?;
        }
        Ok(())
    }

    fn send(&mut self, engine: &mut Engine) {
        self.request.clear();
        let stamp = Stamp { n: self.published, t: now_ns() };
        self.published += 1;
        self.publish.request(self.template.stamped(stamp), &mut self.request);
        engine.send(self.key, &self.request);
    }
}
