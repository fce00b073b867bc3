//! Measures bringing one subscriber forward by 2,000 events: from the ring, from pages in memory, and from
//! the disk. Also measures packing and unpacking those events.
//!
//! Each case reads as the worker does, matches every frame against the subscription, merges, and joins the
//! bytes of one write. Only the write itself is missing. Baseline: a bare sled range over rows of one encoded
//! event each.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::event_ring::{Pins, RingLimits, RingRead, ring};
use nervewire::filter::{Filter, Rights, Selection};
use nervewire::frame::Frame;
use nervewire::frame::merge::coalesce;
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{
    CommitCallback, LogRead, Page, Rows, Store, StoreOptions, TenantLog, decode_piece, encode_pieces,
};
use nervewire::time::{Clock as _, SystemClock};
use nervewire::transport::WireFormat;

const BEHIND: u64 = 2_000;
const BATCH: usize = 64;
const EVENT: &str = r#"{"type":"custom","channel":"bench/1","data":{"n":"000000000001","t":"0000001234567890123","pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#;

/// Does what the worker does with a batch from the ring. Produces the bytes of one write.
fn serve(selection: &Selection, frames: &[Arc<Frame>], bytes: &mut Vec<u8>) -> u64 {
    let mut seen: Vec<Arc<Frame>> = frames.iter().filter(|frame| selection.matches(frame)).cloned().collect();
    coalesce(&mut seen);
    bytes.clear();
    seen.iter().for_each(|frame| frame.encoded(WireFormat::Ws).append_to(bytes));
    seen.len() as u64
}

/// Does the same with a page of the log, without merging events.
fn serve_page(selection: &Selection, page: &Page, format: WireFormat, bytes: &mut Vec<u8>) -> u64 {
    let frames = page.frames();
    let seen: Vec<&Frame> = frames.iter().filter(|frame| selection.matches(frame)).collect();
    assert!(!seen.windows(2).any(|pair| pair[0].continues_in(pair[1])));
    bytes.clear();
    match format {
        WireFormat::SseChunked => {
            let (whole, places) = page.whole();
            black_box(whole.sse_chunked(places).expect("a slice"));
        }
        _ => seen.iter().for_each(|frame| frame.encoded(format).append_to(bytes)),
    }
    seen.len() as u64
}

fn store(cache: usize) -> (tempfile::TempDir, Store, Arc<TenantLog>, Vec<Arc<Frame>>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = StoreOptions::new(dir.path());
    options.page_cache_bytes = cache;
    let store = Store::open(options).expect("the store opens");
    let log = store.log_blocking(TenantId(1)).expect("a log");
    let mut all = Vec::new();
    // The events are packed as by publishing in arrays of 100.
    for _ in 0..BEHIND / 100 {
        let end = log.end();
        let now = SystemClock.now_ms();
        let frame = |n| {
            let mut frame = Frame::encode(&Event::parse(EVENT).expect("event"), now, 0);
            frame.seal(
                Sequence(end.0 + n),
                now,
                &store.cursor_key().encode(log.tenant(), Sequence(end.0 + n)),
            );
            Arc::new(frame)
        };
        let frames: Vec<_> = (1..=100).map(frame).collect();
        all.extend_from_slice(&frames);
        let (done, commit_result) = CommitCallback::channel();
        store.append(&log, frames, Rows::new(), None, done);
        commit_result.blocking_recv().expect("a result").expect("committed");
    }
    (dir, store, log, all)
}

fn replay(c: &mut Criterion) {
    let pairs = nervewire::query::pairs("channel=bench/1").expect("query");
    let selection =
        Selection { filter: Filter::from_query(&pairs).expect("filter"), rights: Rights::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut bytes = Vec::new();
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(BEHIND));

    let (dir, _store, _log, frames) = store(0);
    let (pins, mut readers) = Pins::new(1);
    let slots = BEHIND.next_power_of_two() as usize;
    let first = frames[0].sequence().0;
    let limits = RingLimits { initial_slots: slots, max_slots: slots, max_bytes: usize::MAX };
    let (mut writer, shared) = ring(&pins, limits, first);
    frames.iter().for_each(|frame| writer.publish(frame.clone(), frame.sequence().0));
    let mut reader = readers.pop().expect("a reader");
    group.bench_function("ring", |b| {
        let mut batch = Vec::with_capacity(BATCH);
        b.iter(|| {
            let (mut at, mut served) = (first, 0);
            while served < BEHIND {
                assert_eq!(shared.read(&mut reader, at, &mut batch, BATCH), RingRead::Frames);
                at += batch.len() as u64;
                served += serve(&selection, &batch, &mut bytes);
                batch.clear();
            }
        });
    });
    drop(dir);

    for (name, cache, format) in [
        ("log, pages in memory, WebSocket", 32 << 20, WireFormat::Ws),
        ("log, pages in memory, SSE", 32 << 20, WireFormat::SseChunked),
        ("log, from the disk, SSE", 0, WireFormat::SseChunked),
    ] {
        let (_dir, store, log, frames) = store(cache);
        let from = Sequence(frames[0].sequence().0 - 1);
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut position, mut served) = (from, 0);
                while served < BEHIND {
                    let read = runtime.block_on(store.read_log(&log, position)).expect("readable");
                    let LogRead::Page(page) = read else { unreachable!("all of it is retained") };
                    position = page.frames().last().expect("a page has events").sequence();
                    served += serve_page(&selection, &page, format, &mut bytes);
                }
            });
        });
    }

    let owned: Vec<Frame> = frames.iter().map(|frame| Frame::clone(frame)).collect();
    group.bench_function("packing a commit", |b| b.iter(|| encode_pieces(&owned)));
    let pieces = encode_pieces(&owned);
    let stored: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
    let published = EVENT.len() * BEHIND as usize;
    eprintln!("{stored} bytes stored of {published} published: {:.2}", stored as f64 / published as f64);
    let key = CursorKey { store_id: *b"test", key: [3; 16] };
    group.bench_function("unpacking pieces", |b| {
        b.iter(|| {
            for (first, piece) in &pieces {
                black_box(decode_piece(piece, *first, TenantId(1), &key).expect("sound"));
            }
        });
    });

    let dir = tempfile::tempdir().expect("a directory");
    let db = sled::Config::new().path(dir.path()).segment_size(8 << 20).open().expect("a database");
    for frame in &frames {
        db.insert(frame.sequence().0.to_be_bytes(), frame.json()).expect("inserted");
    }
    db.flush().expect("flushed");
    group.bench_function("bare sled range, a row each", |b| {
        b.iter(|| {
            bytes.clear();
            let mut served = 0;
            for row in db.range(first.to_be_bytes()..) {
                bytes.extend_from_slice(&row.expect("a row").1);
                served += 1;
            }
            assert_eq!(served, BEHIND);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(2));
    targets = replay
}
criterion_main!(benches);
