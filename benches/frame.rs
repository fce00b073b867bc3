//! What an event costs on its way in and out: parsing, encoding, merging, and reading WebSocket frames.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::frame::merge::coalesce;
use nervewire::frame::ws_decode::{Decoder, Limits, unmask};
use nervewire::frame::{Frame, ws};
use nervewire::ids::{Sequence, TenantId};

const KEY: CursorKey = CursorKey { store_id: *b"benc", key: [1; 16] };
const CHUNK: &str = r#"{"type":"stream_chunk","request_id":"request-7","chunk":" quick brown","is_final":false,"index":12,"agent_id":"agent-1","user_id":"user-7"}"#;
const MESSAGE: &str = r#"{"type":"message","agent_id":"agent-1","user_id":"user-7","role":"assistant","content":"The quick brown fox jumps over the lazy dog, \"again\" and\nagain.","metadata":{"model":"m-1","tokens":17}}"#;

fn sealed(json: &str, sequence: u64) -> Frame {
    let mut frame = Frame::encode(&Event::parse(json).expect("event"), 0, 0);
    frame.seal(Sequence(sequence), 0, &KEY.encode(TenantId(1), Sequence(sequence)));
    frame
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    for (name, json) in [("chunk", CHUNK), ("message", MESSAGE)] {
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function(BenchmarkId::new("parse", name), |b| {
            b.iter(|| Event::parse(json).expect("event"))
        });
        let event = Event::parse(json).expect("event");
        group.bench_function(BenchmarkId::new("encode", name), |b| b.iter(|| Frame::encode(&event, 0, 0)));
        let mut frame = sealed(json, 1);
        group.bench_function(BenchmarkId::new("number", name), |b| {
            b.iter(|| frame.seal(Sequence(2), 0, &KEY.encode(TenantId(1), Sequence(2))));
        });
    }
    group.finish();
}

fn merging(c: &mut Criterion) {
    let frames: Vec<Arc<Frame>> = (0..64).map(|at| Arc::new(sealed(CHUNK, at))).collect();
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 chunks of one stream", |b| {
        b.iter_batched(|| frames.clone(), |mut frames| coalesce(&mut frames), BatchSize::SmallInput);
    });
    group.finish();
}

/// A client's text frame.
fn masked(len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    ws::text(&"x".repeat(len), &mut wire);
    let head = wire.len() - len;
    wire[1] |= 0x80;
    wire.splice(head..head, [1, 2, 3, 4]);
    unmask(&mut wire[head + 4..], [1, 2, 3, 4]);
    wire
}

fn inbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket");
    for len in [16, 256, 4096, 65_536] {
        group.throughput(Throughput::Bytes(len as u64));
        let wire = masked(len);
        let limits = Limits::client(1 << 20);
        group.bench_function(BenchmarkId::new("decode whole", len), |b| {
            let mut decoder = Decoder::default();
            b.iter_batched_ref(
                || wire.clone(),
                |wire| decoder.next(wire, &limits).expect("valid").used,
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("decode in two reads", len), |b| {
            let mut decoder = Decoder::default();
            b.iter_batched_ref(
                || wire.clone(),
                |wire| {
                    let (first, second) = wire.split_at_mut(len / 2);
                    decoder.next(first, &limits).expect("valid");
                    decoder.next(second, &limits).expect("valid").used
                },
                BatchSize::SmallInput,
            );
        });
        let mut payload = vec![7; len];
        group.bench_function(BenchmarkId::new("unmask", len), |b| {
            b.iter(|| unmask(&mut payload, [1, 2, 3, 4]));
        });
    }
    group.finish();
}

criterion_group!(benches, events, merging, inbound);
criterion_main!(benches);
