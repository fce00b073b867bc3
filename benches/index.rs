//! What finding a frame's subscribers costs, by number of subscriptions.
//!
//! `stream`: each subscribes to its own stream; one chunk. `user`: each is another user without a filter; one addressed
//! event. `agent`: each another user, all on one agent; one addressed event. `shared`: all equal; everyone matches.
//! `nobody`: the streams again, an event no one asked for. Baseline: comparing with every subscription in turn.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::event::Event;
use nervewire::filter::{Filter, Rights, Selection};
use nervewire::frame::Frame;
use nervewire::index::Index;

const SIZES: [u32; 3] = [10, 10_000, 100_000];

fn selection(query: &str, sub: Option<&str>) -> Selection {
    let pairs = nervewire::query::pairs(query).expect("query");
    let filter = Filter::from_query(&pairs).expect("filter");
    Selection { filter, rights: Rights { sub: sub.map(Into::into), ..Rights::default() } }
}

fn frame(json: &str) -> Frame {
    Frame::encode(&Event::parse(json).expect("event"), 0, 0)
}

fn filled(size: u32, selection: impl Fn(u32) -> Selection) -> Index<u32> {
    let mut index = Index::new();
    for id in 0..size {
        index.insert(selection(id), id).expect("room");
    }
    index
}

fn find(c: &mut Criterion) {
    let chunk = frame(
        r#"{"type":"stream_chunk","request_id":"request-7","chunk":"x","is_final":false,"agent_id":"agent-1","user_id":"user-7"}"#,
    );
    let other = frame(
        r#"{"type":"stream_chunk","request_id":"request-x","chunk":"x","is_final":false,"agent_id":"agent-1","user_id":"user-7"}"#,
    );
    let mut group = c.benchmark_group("index");
    for size in SIZES {
        let user = |id: u32| format!("user-{id}");
        let cases: [(&str, &Frame, Index<u32>); 5] = [
            (
                "stream",
                &chunk,
                filled(size, |id| selection(&format!("request_id=request-{id}"), Some(&user(id)))),
            ),
            ("user", &chunk, filled(size, |id| selection("", Some(&user(id))))),
            ("agent", &chunk, filled(size, |id| selection("agent_id=agent-1", Some(&user(id))))),
            ("shared", &chunk, filled(size, |_| selection("agent_id=agent-1,agent-2", Some("user-7")))),
            (
                "nobody",
                &other,
                filled(size, |id| selection(&format!("request_id=request-{id}"), Some(&user(id)))),
            ),
        ];
        for (name, frame, mut index) in cases {
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    let mut found = 0;
                    index.for_each_match(frame, |members| found += members.len());
                    assert_eq!(found > 0, name != "nobody");
                    found
                });
            });
        }
        let all: Vec<Selection> =
            (0..size).map(|id| selection(&format!("request_id=request-{id}"), Some(&user(id)))).collect();
        group.bench_function(BenchmarkId::new("stream, one by one", size), |b| {
            b.iter(|| all.iter().filter(|selection| selection.matches(&chunk)).count());
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
