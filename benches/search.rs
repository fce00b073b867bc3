//! Measures a search among few and among many memories, for queries with the same number of hits in both. The
//! limit is twice the time.
//!
//! `cargo bench --bench search`; `NERVEWIRE_SEARCH_ROWS` sets how many are many (100,000).

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nervewire::ids::TenantId;
use nervewire::store::{
    Document, Group, Hits, List, PostingPayload, PriorValue, QueryTerm, Rows, SearchQuery, Store,
    StoreOptions, Table, length_of,
};

const TENANT: TenantId = TenantId(1);
const TABLE: Table = Table::Memories;
const FEW: u64 = 1_000;
/// Words of a memory besides those that queries search for.
const WORDS: u64 = 8;
/// Size of the vocabulary.
const VOCABULARY: u64 = 20_000;
/// Memories that contain the rare and the common word, in both tenants.
const RARE: u64 = 20;
const COMMON: u64 = 1_000;

/// Returns the groups of a memory. Its user and agent are some of many.
fn groups(number: u64) -> [Group; 4] {
    let (agent, user) = (format!("agent-{}", number % 50), format!("user-{}", number % 500));
    [
        Group::new(List::AllMemories, &[]),
        Group::new(List::MemoriesOfAgent, &[&agent]),
        Group::new(List::MemoriesOfUser, &[&user]),
        Group::new(List::MemoriesOfAgentAndUser, &[&agent, &user]),
    ]
}

fn document(number: u64) -> Document {
    let mut document = [0; 16];
    document[8..].copy_from_slice(&number.to_be_bytes());
    document
}

fn id(document: &Document) -> String {
    format!("memory-{}", uuid::Uuid::from_bytes(*document))
}

/// Returns the words of one of `all` memories. The words that queries search for are spread evenly over the
/// memories.
fn words(number: u64, all: u64) -> Vec<String> {
    let mut words: Vec<String> = (0..WORDS)
        .map(|n| format!("w{}", (number * WORDS + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) % VOCABULARY))
        .collect();
    if number.is_multiple_of(all / COMMON) {
        words.push("common".into());
    }
    if number.is_multiple_of(all / RARE) {
        words.push(format!("rare{}", number % 7));
        words.push("rare".into());
    }
    words.sort();
    words.dedup();
    words
}

fn store(all: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreOptions::new(dir.path())).expect("the store opens");
    let mark = PostingPayload { kind: 3, count: 1, length: length_of(WORDS as usize), weight: 0.5 };
    for chunk in (0..all).collect::<Vec<_>>().chunks(500) {
        let mut rows = Rows::new();
        for &number in chunk {
            let document = document(number);
            let row = [b'x'; 200];
            rows.put_row(TENANT, TABLE, &id(&document), &row).expect("short");
            for term in words(number, all) {
                for group in groups(number) {
                    rows.put_term(TENANT, group, &term, &document, &mark, PriorValue::Nothing)
                        .expect("short");
                }
            }
        }
        store.write_blocking(rows).expect("written");
    }
    (dir, store)
}

fn sought(words: &[(&str, bool)]) -> SearchQuery {
    let words = words.iter().map(|(term, prefix)| QueryTerm { term: (*term).into(), prefix: *prefix });
    SearchQuery {
        groups: vec![Group::new(List::AllMemories, &[])],
        words: words.collect(),
        since: [0; 16],
        kind: None,
        least_weight: 0.0,
        least_score: 0.0,
        skip: 0,
        limit: 10,
    }
}

/// Runs a search as the daemon does: the best ten hits, with their rows.
async fn search(store: &Store, sought: SearchQuery) -> Hits {
    let hits = store.search(TENANT, sought).await.expect("readable");
    let ids = hits.hits.iter().map(|hit| id(&hit.document)).collect();
    black_box(store.rows(TENANT, TABLE, ids).await.expect("readable"));
    hits
}

fn searches(c: &mut Criterion) {
    let many = std::env::var("NERVEWIRE_SEARCH_ROWS").map_or(100_000, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("search");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let stores = [FEW, many].map(|all| (all, store(all)));
    for (name, total, words) in [
        ("rare", RARE, &[("rare", false)][..]),
        ("rare_beginning", RARE, &[("rar", true)]),
        ("common", COMMON, &[("common", false)]),
        ("three_words", COMMON, &[("rare", false), ("common", false), ("nowhere", false)]),
    ] {
        for (all, (_dir, store)) in &stores {
            let sought = sought(words);
            assert_eq!(runtime.block_on(search(store, sought.clone())).total as u64, total, "equal hits");
            group.bench_function(format!("{name}_among_{all}"), |b| {
                b.iter(|| runtime.block_on(search(store, sought.clone())));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, searches);
criterion_main!(benches);
