//! The daemon's metrics as Prometheus text. They are read at each scrape.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::close::CloseReason;
use crate::metrics::{LOG_LINES_DROPPED, Process, Snapshot, StreamMetrics};
use crate::store::{LATENCY_BOUNDS_US, StoreState};
use crate::transport::Transport;
use crate::worker::SharedState;

use super::exposition::{Exposition, Format};

/// Builds the page.
#[must_use]
pub(super) fn page(shared: &SharedState, format: Format) -> String {
    let mut out = Exposition::new(format);
    process(&mut out);
    connections(shared, &mut out);
    delivery(shared, &mut out);
    streams(shared, &mut out);
    store(shared, &mut out);
    out.end()
}

/// Process metrics, under the names that every Prometheus client library uses.
fn process(out: &mut Exposition) {
    out.info("nervewire_build", "Version of the daemon", &[("version", env!("CARGO_PKG_VERSION"))]);
    let Some(process) = Process::read() else { return };
    out.counter("process_cpu_seconds", "CPU time in user and kernel space, seconds", process.cpu_seconds);
    out.gauge("process_resident_memory_bytes", "Resident memory, bytes", process.resident_bytes);
    out.gauge("process_virtual_memory_bytes", "Address space, bytes", process.virtual_bytes);
    out.gauge("process_open_fds", "Open file descriptors", process.open_descriptors);
    out.gauge("process_max_fds", "Maximum of open file descriptors", process.max_descriptors);
    if let Some(started_at) = process.started_at {
        out.gauge("process_start_time_seconds", "Start time of the process, Unix seconds", started_at);
    }
}

fn connections(shared: &SharedState, out: &mut Exposition) {
    let metrics = &shared.metrics;
    let by_transport = Transport::ALL.map(|transport| {
        (transport.label(), metrics.sum_gauge(|worker| worker.connections[transport].get()))
    });
    out.gauges(
        "nervewire_connections",
        "Subscribers and publishers connected, by transport",
        "transport",
        &by_transport,
    );
    out.gauge(
        "nervewire_sockets",
        "Open sockets that were accepted, of any protocol",
        metrics.sum_gauge(|w| w.sockets.get()),
    );
    out.gauge(
        "nervewire_unauthenticated_sockets",
        "Sockets whose peers have not shown a valid credential",
        shared.newcomers.count(),
    );
    out.gauge(
        "nervewire_behind",
        "Connections that read behind the live position",
        metrics.sum_gauge(|w| w.behind.get()),
    );
    let closed = CloseReason::ALL
        .map(|reason| (reason.label(), metrics.sum(|worker| worker.closed[reason as usize].get())));
    out.counters("nervewire_closed", "Connections ended, by reason", "reason", &closed);
    out.counter(
        "nervewire_rechecked_connections",
        "Connections whose rights were checked again after a change of credentials or users",
        metrics.sum(|w| w.rechecked.get()),
    );
    out.counter("nervewire_refused", "Connections refused by a limit", metrics.refused.get());
    out.gauge(
        "nervewire_request_body_bytes",
        "Bytes of incomplete request bodies and WebSocket messages",
        shared.incoming.bytes(),
    );
    out.gauge(
        "nervewire_unread_bytes",
        "Bytes of responses and HTTP/2 event streams that wait to be sent",
        shared.unread_answers.bytes() + shared.unread_streams.bytes(),
    );
    out.counter("nervewire_auth_failures", "Requests with a failed credential", metrics.auth_failures.get());
    out.counter(
        "nervewire_log_lines_dropped",
        "Log lines dropped because standard error was not read fast enough",
        LOG_LINES_DROPPED.get(),
    );
    out.counter("nervewire_requests", "HTTP requests answered", metrics.sum(|w| w.requests.get()));
}

fn delivery(shared: &SharedState, out: &mut Exposition) {
    let metrics = &shared.metrics;
    out.counter("nervewire_published", "Events accepted for publishing", metrics.published.get());
    let unavailable = metrics.publish_unavailable.get();
    out.counter(
        "nervewire_publish_unavailable",
        "Publishes refused because a queue was full or the store was not writable",
        unavailable,
    );
    out.counter(
        "nervewire_matched",
        "Pairs of event and subscriber whose filter was evaluated",
        metrics.sum(|w| w.matched.get()),
    );
    out.counter(
        "nervewire_delivered",
        "Pairs written completely; a merged chunk counts once",
        metrics.sum(|w| w.delivered.get()),
    );
    out.counter("nervewire_coalesced", "Pairs merged into another", metrics.sum(|w| w.coalesced.get()));
    out.gauge(
        "nervewire_pending",
        "Pairs matched and not yet written",
        metrics.sum_gauge(|w| w.pending.get()),
    );
    out.counter(
        "nervewire_dropped",
        "Pairs not written because their connection ended or had a gap",
        metrics.sum(|w| w.dropped.get()),
    );
    out.counter(
        "nervewire_gap_skipped",
        "Sequences skipped by declared gaps",
        metrics.sum(|w| w.gap_skipped.get()),
    );
    out.counter("nervewire_sent_bytes", "Bytes written to subscribers", metrics.sum(|w| w.bytes_sent.get()));
    out.counter("nervewire_writes", "System calls that wrote events", metrics.sum(|w| w.writes.get()));
    let mut times = Snapshot::default();
    metrics.workers.iter().for_each(|worker| times.add(&worker.times.snapshot()));
    let help = "Seconds from publishing to the write, per live delivery";
    out.histogram("nervewire_publish_to_send_seconds", help, times.sum_us, &octaves(&times));
    out.gauge(
        "nervewire_ring_bytes",
        "Bytes of frames in all rings, approximately",
        shared.tenants.ring_bytes() as i64,
    );
    out.gauge("nervewire_tenants", "Organizations in memory", shared.tenants.len() as i64);
}

/// The buckets of a histogram, one for each octave, with their bounds in seconds.
fn octaves(times: &Snapshot) -> Vec<(f64, u64)> {
    let buckets = times.octaves().into_iter();
    buckets.map(|(bound, count)| (bound.map_or(f64::INFINITY, |us| us as f64 / 1e6), count)).collect()
}

/// LLM streams.
fn streams(shared: &SharedState, out: &mut Exposition) {
    let streams = &shared.metrics.streams;
    out.gauge("nervewire_streams_open", "Open LLM streams", shared.tenants.open_streams());
    out.counter("nervewire_streams_opened", "LLM streams opened", streams.opened.get());
    let mut ended = StreamMetrics::STATES.iter().zip(&streams.ended);
    let ended: [(&str, u64); StreamMetrics::STATES.len()] =
        std::array::from_fn(|_| ended.next().map_or(("", 0), |(state, count)| (*state, count.get())));
    out.counters("nervewire_streams_ended", "LLM streams ended, by state", "state", &ended);
    out.counter("nervewire_stream_chunks", "Chunks appended to LLM streams", streams.chunks.get());
    out.counter(
        "nervewire_stream_text_bytes",
        "Bytes of text appended to LLM streams",
        streams.text_bytes.get(),
    );
    out.counter(
        "nervewire_stream_leases_expired",
        "LLM streams whose producers fell silent",
        streams.leases_expired.get(),
    );
    let help = "Time from the opening of an LLM stream to its first chunk, seconds";
    let times = streams.first_chunk.snapshot();
    out.histogram("nervewire_stream_first_chunk_seconds", help, times.sum_us, &octaves(&times));
}

fn store(shared: &SharedState, out: &mut Exposition) {
    let store = shared.tenants.store();
    let stats = store.stats();
    let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
    out.counter("nervewire_commits", "Group commits", get(&stats.commits));
    out.counter("nervewire_committed_events", "Events committed", get(&stats.committed_events));
    out.counter("nervewire_failed_commits", "Commits that failed", get(&stats.failed_commits));
    out.counter(
        "nervewire_store_reopenings",
        "Times the store was reopened after an error",
        get(&stats.reopenings),
    );
    let buckets = stats.latency.iter().enumerate().map(|(at, count)| {
        let bound = LATENCY_BOUNDS_US.get(at).map_or(f64::INFINITY, |us| *us as f64 / 1e6);
        (bound, get(count))
    });
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let help = "Seconds from taking a batch to its fsync";
    out.histogram("nervewire_commit_seconds", help, get(&stats.latency_us), &buckets);
    out.gauge(
        "nervewire_commit_queue",
        "Publishes and writes waiting for their commit",
        get(&stats.queued) as i64,
    );
    out.gauge("nervewire_log_bytes", "Bytes of retained events", get(&stats.log_bytes) as i64);
    let journal = store.journal();
    out.gauge("nervewire_journal_bytes", "Bytes of the journal on disk", journal.bytes as i64);
    out.gauge("nervewire_journal_segments", "Files of the journal", journal.segments as i64);
    let help = "Bytes of retained events in the journal";
    out.gauge("nervewire_journal_live_bytes", help, journal.live_bytes as i64);
    let help = "Bytes of the journal that a start after a crash would replay";
    out.gauge("nervewire_journal_replay_bytes", help, journal.replay_bytes as i64);
    let quotas = store.quota_totals();
    out.gauge("nervewire_stored_rows", "Stored resources", quotas.rows);
    out.gauge("nervewire_row_bytes", "Bytes stored besides events", quotas.bytes);
    out.gauge(
        "nervewire_keeping_organizations",
        "Organizations with stored data besides events",
        quotas.organizations,
    );
    out.gauge("nervewire_full_organizations", "Organizations that have reached their quota", quotas.full);
    out.counter(
        "nervewire_quota_refused",
        "Changes refused because their organization has reached its quota",
        quotas.refused,
    );
    out.counter(
        "nervewire_rate_refused",
        "Publishes and requests refused by the rate limit of their organization or subject",
        shared.tenants.rates().refused(),
    );
    out.gauge(
        "nervewire_free_bytes",
        "Free bytes of the data directory's file system",
        get(&stats.free_bytes) as i64,
    );
    let help = "Reads of the log on disk; readers that wait for the same page share one";
    out.counter("nervewire_log_scans", help, get(&stats.log_scans));
    out.counter("nervewire_trimmed_events", "Events trimmed by retention", get(&stats.trimmed_events));
    let dropped = get(&stats.idempotency_dropped);
    out.counter(
        "nervewire_idempotency_dropped",
        "Idempotency rows dropped before they were a day old",
        dropped,
    );
    let help = "Deleted organizations and users whose data is not completely erased";
    out.gauge("nervewire_store_erasures", help, get(&stats.erasures));
    let help =
        "Deleted users whose erasure waits for another attempt, because stored events could not be read";
    out.gauge("nervewire_store_erasures_postponed", help, get(&stats.erasures_postponed));
    let help =
        "Stored pieces of events that are damaged, each counted once; readers get a gap in their place";
    out.counter("nervewire_store_damaged_pieces", help, stats.damaged_pieces());
    let help = "Entries of the store's housekeeping tables";
    out.gauge("nervewire_store_entries", help, get(&stats.committer_entries) + get(&stats.tombstones));
    let rows = store.row_cache();
    out.gauge("nervewire_row_cache_bytes", "Bytes of rows of resources kept in memory", rows.bytes as i64);
    out.gauge(
        "nervewire_row_cache_limit_bytes",
        "Maximum of bytes of rows of resources kept in memory",
        rows.limit as i64,
    );
    out.counter("nervewire_row_cache_hits", "Rows of resources found in memory", rows.hits);
    out.counter("nervewire_row_cache_misses", "Rows of resources read from the store", rows.misses);
    let ready = i64::from(store.state() == StoreState::Writable && !shared.is_stopping());
    out.gauge("nervewire_ready", "1 while publishing is possible", ready);
}
