//! Measures an incoming event: parsing, one by one and in arrays of 100, encoding, and numbering.
//!
//! Baselines for parsing: serde_json, into a `Value` (which checks nothing) and into a struct of the same
//! fields (which checks types, but no lengths, names or repeats). Baseline for encoding: serde_json from that
//! struct.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::borrow::Cow;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::frame::Frame;
use nervewire::frame::batch::{Batch, Numbering};
use nervewire::ids::{Sequence, TenantId};
use nervewire::tenant::body_reader::{BodyFormat, BodyReader};
use serde_json::value::RawValue;

const KEY: CursorKey = CursorKey { store_id: *b"benc", key: [1; 16] };
const CHUNK: &str = r#"{"type":"stream_chunk","request_id":"request-7","chunk":" quick brown","is_final":false,"index":12,"agent_id":"agent-1","user_id":"user-7"}"#;
const MESSAGE: &str = r#"{"type":"message","agent_id":"agent-1","user_id":"user-7","role":"assistant","content":"The quick brown fox jumps over the lazy dog, \"again\" and\nagain.","metadata":{"model":"m-1","tokens":17}}"#;
/// An event of 128 bytes, as the load tester sends it.
const CUSTOM: &str = r#"{"type":"custom","channel":"bench/1","data":{"n":"000000000001","t":"0000001234567890123","pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#;
const EVENTS: [(&str, &str); 3] = [("chunk", CHUNK), ("message", MESSAGE), ("custom", CUSTOM)];

/// The same fields, deserialized by serde.
#[derive(serde::Serialize, serde::Deserialize)]
struct Plain<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    agent_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    chunk: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, json) in EVENTS {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("event", name), |b| {
            b.iter(|| Event::parse(json).expect("event"))
        });
        group.bench_function(BenchmarkId::new("serde_json struct", name), |b| {
            b.iter(|| serde_json::from_str::<Plain<'_>>(json).expect("event"))
        });
        group.bench_function(BenchmarkId::new("serde_json value", name), |b| {
            b.iter(|| serde_json::from_str::<serde_json::Value>(json).expect("event"))
        });
        let array = format!("[{}]", vec![json; 100].join(","));
        group.throughput(Throughput::Elements(100));
        group
            .bench_function(BenchmarkId::new("array of 100", name), |b| b.iter(|| read(&array, &mut |_| {})));
        group.bench_function(BenchmarkId::new("serde_json struct, array of 100", name), |b| {
            b.iter(|| serde_json::from_str::<Vec<Plain<'_>>>(&array).expect("events"))
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for (name, json) in EVENTS {
        let event = Event::parse(json).expect("event");
        group.bench_function(BenchmarkId::new("frame", name), |b| b.iter(|| Frame::encode(&event, 0, 0)));
        let plain: Plain<'_> = serde_json::from_str(json).expect("event");
        group.bench_function(BenchmarkId::new("serde_json", name), |b| {
            b.iter(|| serde_json::to_vec(&plain).expect("json"))
        });
    }
    let mut frame = Frame::encode(&Event::parse(CHUNK).expect("event"), 0, 0);
    group.bench_function("number", |b| {
        b.iter(|| frame.seal(Sequence(2), 0, &KEY.encode(TenantId(1), Sequence(2))));
    });
    group.finish();
}

/// An event as `nervewire bench publish --size 256` sends it; if `spaced`, as Python's `json.dumps` would
/// write it.
fn padded(spaced: bool) -> String {
    let pad = "x".repeat(156);
    let compact = format!(
        r#"{{"type":"custom","channel":"bench/1","data":{{"n":"000000000001","t":"0000001234567890123","pad":"{pad}"}}}}"#
    );
    assert_eq!(compact.len(), 256);
    if spaced { compact.replace(':', ": ").replace(',', ", ") } else { compact }
}

/// Parses a body that arrives in one part.
fn read(body: &str, each: &mut impl FnMut(Event<'_>)) -> usize {
    let mut reader = BodyReader::new(BodyFormat::Json);
    reader.read(body.as_bytes(), true, each);
    reader.finish().expect("events")
}

/// Measures the stages of a publish before the store: an array of 100 events of 256 bytes.
fn intake(c: &mut Criterion) {
    let mut group = c.benchmark_group("intake");
    group.throughput(Throughput::Elements(100));
    for (name, spaced) in [("compact", false), ("spaced", true)] {
        let array = format!("[{}]", vec![padded(spaced); 100].join(if spaced { ", " } else { "," }));
        group.bench_function(BenchmarkId::new("parse", name), |b| b.iter(|| read(&array, &mut |_| {})));
        let event = padded(spaced);
        let event = Event::parse(&event).expect("an event");
        let encode = || {
            let mut batch = Batch::new(1_700_000_000_000, 0, array.len());
            (0..100).for_each(|_| {
                batch.push(&event);
            });
            batch.close();
            batch
        };
        let seal = |batch: Batch| {
            let numbering = Numbering { first: Sequence(1), received_ms: 1_700_000_000_000, published_us: 1 };
            batch.seal(numbering, |sequence| KEY.encode(TenantId(1), sequence))
        };
        group.bench_function(BenchmarkId::new("encode", name), |b| b.iter(encode));
        group.bench_function(BenchmarkId::new("seal", name), |b| {
            b.iter_batched(encode, seal, BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("whole", name), |b| {
            b.iter(|| {
                let mut batch = Batch::new(1_700_000_000_000, 0, array.len());
                read(&array, &mut |event| {
                    batch.push(&event);
                });
                batch.close();
                seal(batch)
            })
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = parse, encode, intake
}
criterion_main!(benches);
