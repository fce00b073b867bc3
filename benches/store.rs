//! Measures the store: group commit with an fsync, packing, and reading a page. Baseline of the commits: sled
//! alone, with a batch of one row per event, a flush and an fdatasync.
//!
//! `cargo bench --bench store`. On a slow disk the first group measures the disk.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nervewire::event::Event;
use nervewire::frame::Frame;
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{CommitCallback, LogRead, Rows, Store, StoreOptions, TenantLog};
use nervewire::time::{Clock, SystemClock};

const EVENT: &str = r#"{"type":"message","agent_id":"agent-1","user_id":"user-1","content":"two hundred bytes or so, which is what a message of a chat usually comes to when nobody is in a hurry"}"#;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreOptions::new(dir.path())).expect("the store opens");
    (dir, store)
}

fn frame(store: &Store, log: &TenantLog, sequence: Sequence) -> Arc<Frame> {
    let now = SystemClock.now_ms();
    let mut frame = Frame::encode(&Event::parse(EVENT).expect("valid"), now, 0);
    frame.seal(sequence, now, &store.cursor_key().encode(log.tenant(), sequence));
    Arc::new(frame)
}

fn append(
    store: &Store,
    log: &Arc<TenantLog>,
    count: u64,
) -> tokio::sync::oneshot::Receiver<Result<(), nervewire::store::CommitError>> {
    let end = log.end();
    let frames: Vec<_> = (1..=count).map(|n| frame(store, log, Sequence(end.0 + n))).collect();
    let (done, commit_result) = CommitCallback::channel();
    store.append(log, frames, Rows::new(), None, done);
    commit_result
}

/// Runs `writers` in `tenants`. Each repeatedly publishes one event and waits for its ack.
fn group_commit(store: &Store, writers: u64, tenants: u64, rounds: u64) -> Duration {
    let log = |writer| store.log_blocking(TenantId(writer % tenants + 1)).expect("a log");
    let logs: Vec<_> = (0..writers).map(log).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let started = Instant::now();
    runtime.block_on(async {
        let writers: Vec<_> = logs
            .into_iter()
            .map(|log| {
                let store = store.clone();
                tokio::spawn(async move {
                    for _ in 0..rounds {
                        append(&store, &log, 1).await.expect("a result").expect("committed");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("joined");
        }
    });
    started.elapsed()
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("group_commit");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for (writers, tenants) in [(1, 1), (32, 32), (512, 512), (32, 1), (512, 1)] {
        let (_dir, store) = open();
        group.throughput(Throughput::Elements(writers));
        group.bench_function(format!("{writers}_writers_{tenants}_tenants"), |b| {
            b.iter_custom(|rounds| group_commit(&store, writers, tenants, rounds));
        });
    }
    let (_dir, store) = open();
    let log = store.log_blocking(TenantId(1)).expect("a log");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000_packed", |b| {
        b.iter(|| runtime.block_on(append(&store, &log, 1000)).expect("a result").expect("committed"));
    });
    // Baseline: sled alone, on the same disk.
    let dir = tempfile::tempdir().expect("a directory");
    let db = sled::Config::new().path(dir.path()).segment_size(8 << 20).open().expect("a database");
    let file = std::fs::File::options().write(true).open(dir.path().join("db")).expect("sled's file");
    let (mut key, value) = (0u64, frame(&store, &log, Sequence(1)).json().to_vec());
    for rows in [1u64, 1000] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(format!("{rows}_rows_bare_sled"), |b| {
            b.iter(|| {
                let mut batch = sled::Batch::default();
                for _ in 0..rows {
                    key += 1;
                    batch.insert(&key.to_be_bytes(), value.as_slice());
                }
                db.apply_batch(batch).expect("applied");
                db.flush().expect("flushed");
                file.sync_data().expect("synced");
            });
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = c.benchmark_group("read_page");
    group.sample_size(20);
    for (name, cache) in [("decoded", 32 << 20), ("from_disk", 0)] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = StoreOptions::new(dir.path());
        options.page_cache_bytes = cache;
        let store = Store::open(options).expect("the store opens");
        let log = store.log_blocking(TenantId(1)).expect("a log");
        for _ in 0..20 {
            runtime.block_on(append(&store, &log, 1000)).expect("a result").expect("committed");
        }
        let first = log.last_event().0 - 20_000;
        let mut at = 0;
        let page = runtime.block_on(store.read_log(&log, Sequence(first))).expect("readable");
        let LogRead::Page(page) = page else { unreachable!("all of it is retained") };
        group.throughput(Throughput::Elements(page.frames().len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                at = (at + 257) % 19_000;
                let read = runtime.block_on(store.read_log(&log, Sequence(first + at))).expect("readable");
                assert!(matches!(black_box(read), LogRead::Page(_)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits, reads);
criterion_main!(benches);
