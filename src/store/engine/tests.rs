//! Tests of the engine against a model: whatever is committed, frozen and applied, reads return the current
//! rows.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;

use crate::ids::TenantId;
use crate::store::disk::Disk;
use crate::store::engine::{Batch, Engine, EngineOptions};
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::Head;

/// Opens an engine with the defaults, for tests of what stands above it.
pub(in crate::store) fn engine(dir: &std::path::Path) -> Engine {
    Engine::open(&EngineOptions::new(dir, Arc::new(Disk))).expect("the engine opens")
}

fn open(dir: &std::path::Path) -> Engine {
    let options = EngineOptions { segment_bytes: 1 << 20, ..EngineOptions::new(dir, Arc::new(Disk)) };
    Engine::open(&options).expect("the engine opens")
}

fn batch(rows: &[(&[u8], Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, row) in rows {
        match row {
            Some(row) => batch.put(key.to_vec(), row.as_bytes().to_vec()),
            None => batch.delete(key),
        }
    }
    batch
}

#[test]
fn cached_rows_equal_those_of_the_engine() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path()).keeping_rows(1 << 20);
    let [a, b] = [b"a", b"b"].map(|tail| keys::key(KeyKind::Row, TenantId(3), tail));
    let other = keys::key(KeyKind::Secret, TenantId(3), b"a");
    let commits: &[&[(&[u8], Option<&str>)]] = &[
        &[(&a, Some("1"))],
        &[(&a, Some("2")), (&b, Some("1")), (&other, Some("1"))],
        &[(&b, None)],
        &[(&a, None), (&a, Some("3")), (&b, Some("2")), (&b, None)],
        &[(&a, None), (&b, Some("3"))],
    ];
    for (at, rows) in commits.iter().enumerate() {
        engine.commit(batch(rows)).expect("committed");
        for key in [&a, &b, &other] {
            assert_eq!(engine.row(key).expect("read"), engine.get(key).expect("read"), "after commit {at}");
        }
    }
    let stats = engine.row_cache();
    assert_eq!(
        (stats.hits, stats.misses),
        (6, 4),
        "every row that was there came from memory, and no other kind did"
    );
}

#[derive(Clone, Debug)]
enum Step {
    /// Puts (with a value) or removes rows of a few keys in one commit.
    Commit(Vec<(u8, Option<u8>)>),
    /// Writes everything into the state.
    Apply,
    /// Ends without closing, as with `kill -9`, and opens again.
    Kill,
    /// Closes and opens again.
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0u8..40, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        6 => prop::collection::vec(row, 1..12).prop_map(Step::Commit),
        2 => Just(Step::Apply),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

fn key(n: u8) -> Vec<u8> {
    keys::key(KeyKind::Secret, TenantId(u64::from(n) % 3), &[n])
}

/// Checks that every range equals the model's, read from either end and from both in turn.
fn check(engine: &Engine, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let (low, high) = (vec![KeyKind::Secret as u8], vec![KeyKind::Secret as u8 + 1]);
    let of_model = |bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>)| -> Vec<(Vec<u8>, Vec<u8>)> {
        model.range(bounds).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    for n in 0..40 {
        let found = engine.get(&key(n)).expect("read").map(|value| value.to_vec());
        assert_eq!(found.as_ref(), model.get(&key(n)));
        for bounds in [
            (Bound::Included(key(n)), Bound::Excluded(high.clone())),
            (Bound::Excluded(key(n)), Bound::Excluded(high.clone())),
            (Bound::Included(low.clone()), Bound::Excluded(key(n))),
        ] {
            let expected = of_model(bounds.clone());
            let pair = |row: Result<_, _>| {
                let (key, value): (crate::store::engine::Value, crate::store::engine::Value) =
                    Result::expect(row.map_err(drop), "read");
                (key.to_vec(), value.to_vec())
            };
            let forward: Vec<_> = engine.between(bounds.clone()).map(pair).collect();
            assert_eq!(forward, expected);
            let mut backward: Vec<_> = engine.between(bounds.clone()).rev().map(pair).collect();
            backward.reverse();
            assert_eq!(backward, expected);
            let (mut both, mut from_front, mut from_back) = (engine.between(bounds), Vec::new(), Vec::new());
            loop {
                let Some(row) = both.next() else { break };
                from_front.push(pair(row));
                let Some(row) = both.next_back() else { break };
                from_back.push(pair(row));
            }
            from_front.extend(from_back.into_iter().rev());
            assert_eq!(from_front, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn reads_return_committed_rows_of_memtable_and_state(steps in prop::collection::vec(step(), 1..20)) {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut engine, mut model) = (Some(open(dir.path())), BTreeMap::new());
        for step in steps {
            let Some(running) = &engine else { unreachable!() };
            match step {
                Step::Commit(rows) => {
                    let mut batch = Batch::default();
                    for (n, value) in rows {
                        match value {
                            Some(value) => {
                                batch.put(key(n), vec![value; 3]);
                                model.insert(key(n), vec![value; 3]);
                            }
                            None => {
                                batch.delete(&key(n));
                                model.remove(&key(n));
                            }
                        }
                    }
                    running.commit(batch).expect("committed");
                }
                Step::Apply => drop(running.check_point().expect("applied")),
                Step::Kill => {
                    // What the disk holds now, without what closing would add.
                    let copy = tempfile::tempdir().expect("a directory");
                    for part in ["journal", "log"] {
                        std::fs::create_dir(copy.path().join(part)).expect("made");
                        for entry in std::fs::read_dir(dir.path().join(part)).expect("read") {
                            let entry = entry.expect("read");
                            if entry.file_type().expect("read").is_file() {
                                let to = copy.path().join(part).join(entry.file_name());
                                std::fs::copy(entry.path(), to).expect("copied");
                            }
                        }
                    }
                    let copied = open(copy.path());
                    check(&copied, &model);
                }
                Step::Close => {
                    drop(engine.take());
                    engine = Some(open(dir.path()));
                }
            }
            check(engine.as_ref().expect("open"), &model);
        }
    }
}

/// Segments fill with pieces that die. Live pieces are copied forward, and the disk space is returned.
#[test]
fn dead_segments_are_removed_and_mostly_dead_ones_are_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = EngineOptions { segment_bytes: 1 << 20, ..EngineOptions::new(dir.path(), Arc::new(Disk)) };
    let engine = Engine::open(&options).expect("opened");
    let head = Head { count: 1, min_ms: 1, max_ms: 1 };
    let bytes = |n: u64| vec![n as u8; 32 << 10];
    let pieces = 400;
    for n in 0..pieces {
        let mut batch = Batch::default();
        batch.put_piece(keys::log(TenantId(1), crate::ids::Sequence(n)), bytes(n), head);
        engine.commit(batch).expect("committed");
    }
    // Every tenth piece stays.
    for n in (0..pieces).filter(|n| n % 10 != 0) {
        let key = keys::log(TenantId(1), crate::ids::Sequence(n));
        let entry = engine.get(&key).expect("read").expect("there");
        let mut batch = Batch::default();
        batch.delete_piece(&key, &crate::store::format::LogEntry::read(&entry).expect("an entry"));
        engine.commit(batch).expect("committed");
    }
    let mut reclaimer = crate::store::retention::reclaim::Reclaimer::default();
    while reclaimer.step(&engine).expect("copied") {}
    engine.check_point().expect("made");
    let taken: u64 = engine.segments().iter().map(|(segment, _)| segment.end.0 - segment.first.0).sum();
    let live: u64 = engine.segments().iter().map(|(_, live)| live.bytes).sum();
    assert_eq!(live, pieces / 10 * (32 << 10));
    assert!(taken <= live * 13 / 10 + (2 << 20), "{taken} bytes for {live} live ones");
    drop(engine);
    let engine = Engine::open(&options).expect("opened");
    for n in (0..pieces).filter(|n| n % 10 == 0) {
        let entry =
            engine.get(&keys::log(TenantId(1), crate::ids::Sequence(n))).expect("read").expect("there");
        let entry = crate::store::format::LogEntry::read(&entry).expect("an entry");
        assert_eq!(engine.piece(&entry.piece).expect("read"), bytes(n));
    }
}
