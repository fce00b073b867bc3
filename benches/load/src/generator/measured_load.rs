//! Measures an interval of a closed loop: rate, response times, CPU, memory and disk.
//!
//! The loop warms up first. The measurement waits for all outstanding acknowledgements, and compares their
//! number with the events that the daemon has counted as published and committed (`/metrics`).

use std::time::{Duration, Instant};

use super::closed_loop::{Clients, Plan, Requests};
use super::engine::Engine;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::footprint::Footprint;
use crate::report::meter::Meter;
use crate::report::{Rate, Report};
use crate::target::{Server, Target};

/// Duration of the warm-up. After it, the log has its first segment and the ring has its size.
const WARM_UP: Duration = Duration::from_millis(700);

/// The settings of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredLoad {
    /// The settings of the clients.
    pub plan: Plan,
    /// The names of the items in a request, such as `events` or `messages`.
    pub rows: RowNames,
    /// Bytes of the items in one request, as published.
    pub bytes: usize,
    /// Duration of the measurement.
    pub time: Duration,
    /// How long to wait afterwards, before disk and memory are read again.
    pub rest: Duration,
}

/// The names of the rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowNames {
    /// For example `events acknowledged`.
    pub rate: &'static str,
    /// For example `CPU per event`.
    pub cpu: &'static str,
    /// For example `CPU of the bench per event`.
    pub generator: &'static str,
    /// For example `publish to ack`, with its quantiles.
    pub ack: [&'static str; 3],
}

/// Runs one load against one server.
pub(crate) fn measure(
    load: &MeasuredLoad,
    requests: &mut dyn Requests,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let (server, rows, batch) = (target.server, load.rows, load.plan.batch as u64);
    let published_before = published(target);
    let footprint = Footprint::start(target);
    let mut engine = Engine::new()?;
    let mut clients = Clients::open(&load.plan, requests, &mut engine, progress)?;
    progress.begin("warming up", 0);
    clients.run(&mut engine, Instant::now() + WARM_UP, u64::MAX, &mut |_| {})?;
    clients.record();
    progress.begin("publishing", load.time.as_secs());
    let meter = Meter::start(target);
    let until = Instant::now() + load.time;
    clients.run(&mut engine, until, u64::MAX, &mut |second| progress.at(second))?;
    let used = meter.used(target);
    let count = (clients.measured.len() * batch).max(1) as f64;
    report.add(server, "rate", rows.rate, "1/s", count / used.elapsed);
    for (key, name, quantile) in [("p50", rows.ack[1], 0.5), ("p99", rows.ack[2], 0.99)] {
        report.add(server, key, name, "µs", clients.measured.value_at_quantile(quantile) as f64 / 1e3);
    }
    if let Some(spent) = used.cpu {
        report.add(server, "cpu", rows.cpu, "µs", spent.total * 1e6 / count);
        report.add(server, "user", "of it in user space", "µs", spent.user * 1e6 / count);
    }
    report.add(server, "generator", rows.generator, "µs", used.own * 1e6 / count);
    report.add(server, "generator_share", "the bench's share of a core", "", used.own / used.elapsed);
    report.add(server, "busy", "requests answered 503 and sent again", "", clients.busy as f64);
    report.latency(server, rows.ack[0], &clients.measured);
    let per_second = std::mem::take(&mut clients.per_second);
    report.rates.push(Rate { server, name: rows.rate, run, per_second });
    clients.drain(&mut engine)?;
    let acknowledged = clients.acknowledged;
    report.delivery_faults.deliveries += acknowledged * batch;
    if let Some(before) = published_before
        && let Some(fault) = compare(target, before, acknowledged * batch, load.plan.patience)
    {
        report.fault(server, run, fault);
    }
    if load.rest > Duration::ZERO {
        progress.begin("resting", 0);
        std::thread::sleep(load.rest);
    }
    footprint.report_memory(target, report);
    if server == Server::Daemon {
        let read_share = crate::target::tenants::event_as_read(&load.plan.access[0])
            .filter(|_| load.plan.ids)
            .map(|read| (read * load.plan.batch) as f64 / load.bytes as f64);
        footprint.report_disk(target, acknowledged * load.bytes as u64, read_share, report);
    }
    Ok(())
}

/// Returns the events that the daemon has published so far; `None` if its counters are unavailable.
fn published(target: &Target) -> Option<u64> {
    (target.server == Server::Daemon).then(|| target.metric("nervewire_published_total"))?.map(|it| it as u64)
}

/// Compares the acknowledgements with the daemon's counters. Events acknowledged from memory are committed a
/// little later. Returns `None` if they agree, or if the counters are unavailable.
fn compare(target: &Target, before: u64, acknowledged: u64, patience: Duration) -> Option<String> {
    let count = |name: &str| target.metric(name).map(|count| count as u64);
    let published = count("nervewire_published_total")?;
    if published - before != acknowledged {
        return Some(format!("{acknowledged} events were acknowledged, {} published", published - before));
    }
    let deadline = Instant::now() + patience;
    loop {
        let committed = count("nervewire_committed_events_total")?;
        if committed == published {
            return None;
        }
        if Instant::now() > deadline {
            return Some(format!("{published} events were published, {committed} committed"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
