//! Measures finding the subscribers of a frame, by number of subscriptions.
//!
//! * `stream`: each subscribes to its own stream; one chunk.
//! * `user`: each is a different user without a filter; one addressed event.
//! * `agent`: each is a different user, and all filter for one agent; one addressed event.
//! * `shared`: all are equal; every subscription matches.
//! * `nobody`: the streams again, with an event that matches no subscription.
//!
//! Baseline: comparing with every subscription in turn.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::event::Event;
use nervewire::filter::{Filter, Rights, Selection};
use nervewire::frame::Frame;
use nervewire::index::Index;

const SIZES: [u32; 3] = [10, 10_000, 100_000];
/// Maximum number of frames to look up in turn.
const FRAMES: u32 = 10_000;

fn selection(query: &str, sub: Option<&str>) -> Selection {
    let pairs = nervewire::query::pairs(query).expect("query");
    let filter = Filter::from_query(&pairs).expect("filter");
    Selection { filter, rights: Rights { sub: sub.map(Into::into), ..Rights::default() } }
}

fn filled(size: u32, selection: impl Fn(u32) -> Selection) -> Index<u32> {
    let mut index = Index::new();
    for id in 0..size {
        index.insert(selection(id), id).expect("room");
    }
    index
}

/// Creates a chunk of stream and user `id`, from agent-1.
fn chunk(id: u32) -> Frame {
    let json = format!(
        r#"{{"type":"stream_chunk","request_id":"request-{id}","chunk":"x","is_final":false,"agent_id":"agent-1","user_id":"user-{id}"}}"#
    );
    Frame::encode(&Event::parse(&json).expect("event"), 0, 0)
}

/// Finds the subscribers of many different frames in turn, so that a large index is not measured in the
/// cache.
fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let user = |id: u32| format!("user-{id}");
        let stream = |id: u32| selection(&format!("request_id=request-{id}"), Some(&user(id)));
        let steps = size.min(FRAMES);
        // The frames are spread over all streams, in an order that the processor cannot predict.
        let each: Vec<Frame> = (0..steps).map(|n| chunk((n * 7_919) % steps * (size / steps))).collect();
        let seven = vec![chunk(7)];
        let other = (0..steps).map(|n| chunk(size + n)).collect();
        let cases: [(&str, &Vec<Frame>, Index<u32>); 5] = [
            ("stream", &each, filled(size, stream)),
            ("user", &each, filled(size, |id| selection("", Some(&user(id))))),
            ("agent", &each, filled(size, |id| selection("agent_id=agent-1", Some(&user(id))))),
            ("shared", &seven, filled(size, |_| selection("agent_id=agent-1,agent-2", Some("user-7")))),
            ("nobody", &other, filled(size, stream)),
        ];
        for (name, frames, mut index) in cases {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let mut at = 0;
                b.iter(|| {
                    at = if at + 1 == frames.len() { 0 } else { at + 1 };
                    let mut found = 0;
                    index.for_each_match(&frames[at], |members| found += members.len());
                    assert_eq!(found > 0, name != "nobody");
                    found
                });
            });
        }
        let all: Vec<Selection> = (0..size).map(stream).collect();
        group.bench_function(BenchmarkId::new("stream, one by one", size), |b| {
            b.iter(|| all.iter().filter(|selection| selection.matches(&each[0])).count());
        });
    }
    group.finish();
}

fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("index churn");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let mut index = filled(size, |id| selection("", Some(&format!("user-{id}"))));
        group.bench_function(BenchmarkId::new("insert and remove", size), |b| {
            b.iter_batched(
                || selection("", Some("newcomer")),
                |selection| {
                    let row = index.insert(selection, u32::MAX).expect("room");
                    index.remove(row).expect("there")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = find, churn
}
criterion_main!(benches);
