//! The daemon's numbers as Prometheus text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::close::Close;
use crate::metrics::{LOG_LINES_DROPPED, Snapshot, Transport};
use crate::store::{LATENCY_BOUNDS_US, StoreState};
use crate::worker::Shared;

/// Reads the counters at each scrape.
struct Scrape(Arc<Shared>);

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrape")
    }
}

/// A registry over everything `shared` counts.
#[must_use]
pub fn registry(shared: Arc<Shared>) -> Registry {
    let mut registry = Registry::with_prefix("nervewire");
    registry.register_collector(Box::new(Scrape(shared)));
    registry
}

/// The page.
#[must_use]
pub fn page(registry: &Registry) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let _ = prometheus_client::encoding::text::encode(&mut text, registry); // a String takes every write
    text
}

/// `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
    fn gauge(&mut self, name: &str, help: &str, value: i64) -> std::fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> std::fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
    /// Not cumulative `buckets` of (bound in seconds, count).
    fn histogram(&mut self, name: &str, help: &str, sum_us: u64, buckets: &[(f64, u64)]) -> std::fmt::Result {
        let total = buckets.iter().map(|(_, count)| count).sum();
        let mut histogram = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram.encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, total, buckets, None)
    }
    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, i64)]) -> std::fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in values {
            ConstGauge::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut out = Out(encoder);
        self.connections(&mut out)?;
        self.delivery(&mut out)?;
        self.store(&mut out)
    }
}

impl Scrape {
    fn connections(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let metrics = &self.0.metrics;
        let by_transport =
            Transport::ALL.map(|it| (it.label(), metrics.sum_gauge(|w| w.connections[it as usize].get())));
        out.gauges(
            "connections",
            "Subscribers and publishers connected, by transport",
            "transport",
            &by_transport,
        )?;
        out.gauge(
            "sockets",
            "Sockets accepted and open, whatever they speak",
            metrics.sum_gauge(|w| w.sockets.get()),
        )?;
        out.gauge(
            "behind",
            "Connections that read behind the live position",
            metrics.sum_gauge(|w| w.behind.get()),
        )?;
        let closed = Close::ALL.map(|it| (it.label(), metrics.sum(|w| w.closed[it as usize].get())));
        out.counters("closed", "Connections ended, by reason", "reason", &closed)?;
        out.counter(
            "rechecked_connections",
            "Connections whose rights were looked at anew after a change of credentials or users",
            metrics.sum(|w| w.rechecked.get()),
        )?;
        out.counter("refused", "Connections refused by a limit", metrics.refused.get())?;
        out.gauge(
            "request_body_bytes",
            "Bytes of request bodies and WebSocket messages whose end has not come",
            self.0.incoming.bytes() as i64,
        )?;
        out.gauge(
            "unread_bytes",
            "Bytes of answers and HTTP/2 event streams that wait to be read",
            (self.0.unread_answers.bytes() + self.0.unread_streams.bytes()) as i64,
        )?;
        out.counter("auth_failures", "Requests with a failed credential", metrics.auth_failures.get())?;
        out.counter(
            "log_lines_dropped",
            "Log lines dropped since standard error was not read fast enough",
            LOG_LINES_DROPPED.get(),
        )?;
        out.counter("requests", "HTTP requests answered", metrics.sum(|w| w.requests.get()))
    }

    fn delivery(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let metrics = &self.0.metrics;
        out.counter("published", "Events accepted for publishing", metrics.published.get())?;
        let unavailable = metrics.publish_unavailable.get();
        out.counter(
            "publish_unavailable",
            "Publishes refused for want of room or a healthy store",
            unavailable,
        )?;
        out.counter(
            "matched",
            "Pairs of event and subscriber, counted when evaluated",
            metrics.sum(|w| w.matched.get()),
        )?;
        out.counter(
            "delivered",
            "Pairs written whole, a merged chunk once",
            metrics.sum(|w| w.delivered.get()),
        )?;
        out.counter("coalesced", "Pairs merged into another", metrics.sum(|w| w.coalesced.get()))?;
        out.gauge("pending", "Pairs matched and not yet written", metrics.sum_gauge(|w| w.pending.get()))?;
        out.counter(
            "dropped",
            "Pairs pending when their connection ended or met a gap",
            metrics.sum(|w| w.dropped.get()),
        )?;
        out.counter(
            "gap_skipped",
            "Sequences passed over by declared gaps",
            metrics.sum(|w| w.gap_skipped.get()),
        )?;
        out.counter("sent_bytes", "Bytes written to subscribers", metrics.sum(|w| w.bytes_sent.get()))?;
        out.counter("writes", "System calls that wrote events", metrics.sum(|w| w.writes.get()))?;
        let mut times = Snapshot::default();
        metrics.workers.iter().for_each(|worker| times.add(&worker.times.snapshot()));
        let buckets: Vec<(f64, u64)> = times
            .octaves()
            .into_iter()
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, |us| us as f64 / 1e6), count))
            .collect();
        let help = "Seconds from publishing to the write, per live delivery";
        out.histogram("publish_to_send_seconds", help, times.sum_us, &buckets)?;
        out.gauge("ring_bytes", "Bytes of frames in all rings, about", self.0.tenants.ring_bytes() as i64)?;
        out.gauge("tenants", "Organizations in memory", self.0.tenants.len() as i64)
    }

    fn store(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let store = self.0.tenants.store();
        let stats = store.stats();
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        out.counter("commits", "Group commits", get(&stats.commits))?;
        out.counter("committed_events", "Events committed", get(&stats.committed_events))?;
        out.counter("failed_commits", "Commits that failed", get(&stats.failed_commits))?;
        out.counter(
            "store_reopenings",
            "Times the store was opened anew after an error",
            get(&stats.reopenings),
        )?;
        let buckets = stats.latency.iter().enumerate().map(|(at, count)| {
            let bound = LATENCY_BOUNDS_US.get(at).map_or(f64::INFINITY, |us| *us as f64 / 1e6);
            (bound, get(count))
        });
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let help = "Seconds from taking a batch to its fsync";
        out.histogram("commit_seconds", help, get(&stats.latency_us), &buckets)?;
        out.gauge(
            "commit_queue",
            "Publishes and writes waiting for their commit",
            get(&stats.queued) as i64,
        )?;
        out.gauge("log_bytes", "Bytes of retained events", get(&stats.log_bytes) as i64)?;
        let quotas = store.quota_totals();
        out.gauge("stored_rows", "Resources that are kept", quotas.rows as i64)?;
        out.gauge("row_bytes", "Bytes of what is kept besides events", quotas.bytes as i64)?;
        out.gauge(
            "keeping_organizations",
            "Organizations that keep something besides events",
            quotas.organizations as i64,
        )?;
        out.gauge("full_organizations", "Organizations that may not keep more now", quotas.full as i64)?;
        out.counter("quota_refused", "Changes refused since their organization is full", quotas.refused)?;
        out.counter(
            "rate_refused",
            "Publishes and requests refused for their organization's or subject's rate",
            self.0.rates.refused(),
        )?;
        out.gauge(
            "free_bytes",
            "Free bytes of the data directory's file system",
            get(&stats.free_bytes) as i64,
        )?;
        out.counter("trimmed_events", "Events trimmed by retention", get(&stats.trimmed_events))?;
        let dropped = get(&stats.idempotency_dropped);
        out.counter("idempotency_dropped", "Idempotency rows dropped before their day was over", dropped)?;
        let help = "Deleted organizations and users of whom something is left to erase";
        out.gauge("store_erasures", help, get(&stats.erasures) as i64)?;
        let help = "Entries of the store's housekeeping tables";
        out.gauge("store_entries", help, (get(&stats.committer_entries) + get(&stats.tombstones)) as i64)?;
        let rows = store.row_cache();
        out.gauge("row_cache_bytes", "Bytes of rows of resources kept in memory", rows.bytes as i64)?;
        out.gauge("row_cache_limit_bytes", "Most bytes of them", rows.limit as i64)?;
        out.counter("row_cache_hits", "Rows of resources that were found in memory", rows.hits)?;
        out.counter("row_cache_misses", "Rows of resources that were read from the store", rows.misses)?;
        let ready = i64::from(store.state() == StoreState::Writable && !self.0.is_stopping());
        out.gauge("ready", "1 while publishing is possible", ready)
    }
}
