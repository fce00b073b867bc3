//! Measures merging the chunks of a slow reader, per batch of 64 frames.
//!
//! * `one stream`: all chunks become one.
//! * `four streams in turn`: neighbours differ, so nothing is merged.
//! * `runs of 8`: eight streams, one after another.
//! * `messages`: nothing can be merged.
//!
//! Baseline: the same through serde_json: decoded, joined and encoded again.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::frame::Frame;
use nervewire::frame::merge::coalesce;
use nervewire::ids::{Sequence, TenantId};
use serde_json::Value;

const KEY: CursorKey = CursorKey { store_id: *b"benc", key: [1; 16] };
const FRAMES: u64 = 64;

fn sealed(json: &str, sequence: u64) -> Arc<Frame> {
    let mut frame = Frame::encode(&Event::parse(json).expect("event"), 0, 0);
    frame.seal(Sequence(sequence), 0, &KEY.encode(TenantId(1), Sequence(sequence)));
    Arc::new(frame)
}

fn chunk(stream: u64, index: u64) -> String {
    format!(
        r#"{{"type":"stream_chunk","request_id":"request-{stream}","chunk":" quick brown","is_final":false,"index":{index},"agent_id":"agent-1","user_id":"user-7"}}"#
    )
}

/// Applies the same rule to decoded JSON.
fn with_serde_json(frames: &[Arc<Frame>]) -> Vec<Vec<u8>> {
    let mut out: Vec<Value> = Vec::new();
    for frame in frames {
        let mut next: Value = serde_json::from_slice(frame.json()).expect("json");
        let same = |a: &Value, b: &Value, name: &str| a.get(name) == b.get(name);
        match out.last_mut() {
            Some(last)
                if last["is_final"] == false
                    && ["type", "request_id", "agent_id", "user_id", "metadata"]
                        .iter()
                        .all(|name| same(last, &next, name))
                    && next["chunk"].is_string() =>
            {
                let text = format!(
                    "{}{}",
                    last["chunk"].as_str().expect("text"),
                    next["chunk"].as_str().expect("text")
                );
                next["first_index"] = last.get("first_index").unwrap_or(&last["index"]).clone();
                next["chunk"] = text.into();
                *last = next;
            }
            _ => out.push(next),
        }
    }
    out.iter().map(|value| serde_json::to_vec(value).expect("json")).collect()
}

fn merging(c: &mut Criterion) {
    let message = r#"{"type":"message","agent_id":"agent-1","user_id":"user-7","content":"hello"}"#;
    let cases: [(&str, Vec<Arc<Frame>>, usize); 4] = [
        ("one stream", (0..FRAMES).map(|n| sealed(&chunk(7, n), n)).collect(), 1),
        ("runs of 8", (0..FRAMES).map(|n| sealed(&chunk(n / 8, n), n)).collect(), 8),
        ("four streams in turn", (0..FRAMES).map(|n| sealed(&chunk(n % 4, n), n)).collect(), 64),
        ("messages", (0..FRAMES).map(|n| sealed(message, n)).collect(), 64),
    ];
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, frames, left) in cases {
        let mut merged = frames.clone();
        coalesce(&mut merged);
        assert_eq!((merged.len(), with_serde_json(&frames).len()), (left, left), "{name}");
        group.bench_function(BenchmarkId::new("coalesce", name), |b| {
            b.iter_batched_ref(|| frames.clone(), coalesce, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("serde_json", name), |b| {
            b.iter(|| with_serde_json(&frames));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = merging
}
criterion_main!(benches);
