//! An interval of a quiet tenant's run: what was published, the latencies, losses and repeats; and the report
//! of two intervals.
//!
//! * `alone` is the tenant without other load, `during` the same tenant under the load of another. The row
//!   keys are the same in every mode.
//! * This file does not know connections: `quiet_tenant` makes intervals.

use hdrhistogram::Histogram;

use super::probes::ProbeTimes;
use crate::report::{DeliveryFaults, Report};
use crate::target::Server;
use crate::target::tenants::Buckets;

/// Explains `live` and `sent` in the keys of the rows.
pub(crate) const NOTE: &str = "live: from stamp to receipt, including delays of this process; sent: in the daemon, from publish to send";

/// The result of one interval.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Publishes of the interval that were refused.
    pub refused: u64,
    /// Time from stamp to receipt, in nanoseconds.
    pub live: Histogram<u64>,
    /// Time from stamp to the publisher's ack, in nanoseconds.
    pub acked: Histogram<u64>,
    /// Time in the daemon from publish to send.
    pub sent: Buckets,
    /// Losses, repeats and reorderings of this and all earlier intervals. The deliveries are only of this
    /// one.
    pub delivery_faults: DeliveryFaults,
    /// The results of other requests.
    pub probes: ProbeTimes,
}

impl Interval {
    /// Returns the daemon's 99th percentile from publish to send, in microseconds; 0 without deliveries.
    pub(crate) fn sent_p99(&self) -> f64 {
        self.sent.quantile_us(0.99).unwrap_or_default()
    }

    /// Returns the 99th percentile from stamp to receipt, in microseconds.
    pub(crate) fn live_p99(&self) -> f64 {
        self.live.value_at_quantile(0.99) as f64 / 1e3
    }
}

/// Adds the rows of one run: alone, and under load. Events lost or repeated since the start, or refused, are
/// faults.
pub(crate) fn report(report: &mut Report, run: usize, alone: &Interval, during: &Interval) {
    let daemon = Server::Daemon;
    let over = |during: f64, alone: f64| if alone > 0.0 { during / alone } else { 0.0 };
    report.add(daemon, "live_p99_alone", "B: receipt p99 alone", "µs", alone.live_p99());
    report.add(daemon, "live_p99", "B: receipt p99 during", "µs", during.live_p99());
    report.add(
        daemon,
        "live_ratio",
        "B: receipt p99, during over alone",
        "",
        over(during.live_p99(), alone.live_p99()),
    );
    report.add(daemon, "sent_p99_alone", "B: publish to send p99 alone", "µs", alone.sent_p99());
    report.add(daemon, "sent_p99", "B: publish to send p99 during", "µs", during.sent_p99());
    report.add(
        daemon,
        "sent_ratio",
        "B: publish to send, during over alone",
        "",
        over(during.sent_p99(), alone.sent_p99()),
    );
    report.latency(daemon, "B alone: receipt", &alone.live);
    report.latency(daemon, "B during: receipt", &during.live);
    report.latency(daemon, "B alone: durable ack", &alone.acked);
    report.latency(daemon, "B during: durable ack", &during.acked);
    // The deliveries of the two intervals; losses and repeats of all intervals.
    let deliveries = alone.delivery_faults.deliveries + during.delivery_faults.deliveries;
    report.count(daemon, run, DeliveryFaults { deliveries, ..during.delivery_faults }, true);
    let refused = alone.refused + during.refused;
    if refused > 0 {
        report.fault(daemon, run, format_args!("{refused} of B's publishes were refused"));
    }
}
