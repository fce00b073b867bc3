//! A stretch of a quiet tenant's time: what was published, how long it took, what went astray; and how reports tell two of them.
//!
//! * `alone` is the tenant by itself, `during` the same under another's load. The keys of the rows are the same in every mode.
//! * It knows no connections: [`super::bystander`] makes stretches.

use hdrhistogram::Histogram;

use super::probes::Taken;
use super::report::{Astray, Report};
use super::target::Server;
use super::tenants::Buckets;

/// What `live` and `sent` in the rows' keys mean.
pub const NOTE: &str =
    "live: from stamp to receipt, this process's own delays in it; sent: in the daemon, from publish to send";

/// What one stretch of time found.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Events published in it.
    pub published: u64,
    /// Of them, refused.
    pub refused: u64,
    /// From stamp to receipt, nanoseconds.
    pub live: Histogram<u64>,
    /// From stamp to the publisher's ack, nanoseconds.
    pub acked: Histogram<u64>,
    /// In the daemon, from publish to send.
    pub sent: Buckets,
    /// What went astray, of this and all stretches before it; deliveries are of this one alone.
    pub astray: Astray,
    /// What else was asked.
    pub probes: Taken,
}

impl Stretch {
    /// The daemon's 99th percentile from publish to send, microseconds; 0 without deliveries.
    #[must_use]
    pub fn sent_p99(&self) -> f64 {
        self.sent.quantile_us(0.99).unwrap_or_default()
    }

    /// The 99th percentile from stamp to receipt, microseconds.
    #[must_use]
    pub fn live_p99(&self) -> f64 {
        self.live.value_at_quantile(0.99) as f64 / 1e3
    }
}

/// Adds one run's rows: alone, and during a load. What was lost or repeated since the start, or refused, is a fault.
pub fn tell(report: &mut Report, run: usize, alone: &Stretch, during: &Stretch) {
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
    // The stretches' own deliveries, and what went astray in all of them.
    let deliveries = alone.astray.deliveries + during.astray.deliveries;
    report.count(daemon, run, Astray { deliveries, ..during.astray }, true);
    let refused = alone.refused + during.refused;
    if refused > 0 {
        report.fault(daemon, run, format_args!("{refused} of B's publishes were refused"));
    }
}
