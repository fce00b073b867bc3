//! Tests of the engine with disk failures and with crashes between two writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::ids::{Sequence, TenantId};
use crate::store::disk::{Disk, Io};
use crate::store::engine::{
    Batch, Engine, EngineError, EngineOptions, SegmentCounts, State, Value, position_key,
};
use crate::store::format::piece::Head;
use crate::store::format::{LogEntry, keys};
use crate::store::journal::Position;
use crate::store::retention::reclaim::Reclaimer;

const HEAD: Head = Head { count: 1, min_ms: 1, max_ms: 1 };

fn options(dir: &Path) -> EngineOptions {
    EngineOptions { segment_bytes: 64 << 10, ..EngineOptions::new(dir, Arc::new(Disk)) }
}

fn key(n: u64) -> Vec<u8> {
    keys::log(TenantId(1), Sequence(n))
}

fn put(engine: &Engine, n: u64, len: usize) {
    let mut batch = Batch::default();
    batch.put_piece(key(n), vec![n as u8; len], HEAD);
    engine.commit(batch).expect("committed");
}

fn entry(engine: &Engine, n: u64) -> LogEntry {
    LogEntry::read(&engine.get(&key(n)).expect("read").expect("there")).expect("an entry")
}

fn delete(engine: &Engine, n: u64) {
    let mut batch = Batch::default();
    batch.delete_piece(&key(n), &entry(engine, n));
    engine.commit(batch).expect("committed");
}

fn live(engine: &Engine) -> Vec<SegmentCounts> {
    engine.segments().iter().map(|(_, counts)| *counts).collect()
}

/// A crash left the rows of an applied table on disk, but not the position, which is written after them. If
/// the removals were counted twice, the removal of two of three pieces would leave a count of zero, and the
/// segment would be unlinked with the third piece.
#[test]
fn a_crash_before_the_position_is_written_counts_nothing_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let engine = Engine::open(&options).expect("opened");
    (1..=3).for_each(|n| put(&engine, n, 100));
    let before = engine.check_point().expect("made");
    delete(&engine, 1);
    delete(&engine, 2);
    engine.check_point().expect("made");
    let counted = live(&engine);
    assert_eq!(counted, [SegmentCounts { bytes: 100, pieces: 1 }]);
    drop(engine);
    for position in [before, Position(0)] {
        let state = State::open(&options.state, 8 << 20, options.io.clone()).expect("opened");
        let row = [&[1], position.0.to_be_bytes().as_slice()].concat();
        state.write(&position_key(), Some(&Value::from(row))).expect("written");
        state.sync().expect("synced");
        drop(state);
        let engine = Engine::open(&options).expect("opened");
        assert_eq!(live(&engine), counted, "from position {position}");
        engine.check_point().expect("made");
        assert_eq!(engine.piece(&entry(&engine, 3).piece).expect("there"), vec![3; 100]);
    }
}

/// Fails its syncs on demand.
#[derive(Default)]
struct Failing(AtomicBool);

impl Io for Failing {
    fn sync(&self, file: &File) -> io::Result<()> {
        match self.0.load(SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => file.sync_data(),
        }
    }
}

/// Trimming and erasing do not wait for a sync. A piece that they rewrite does: a failed sync would lose it
/// while the row that points at it was visible.
#[test]
fn a_piece_is_not_shown_before_it_is_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let io = Arc::new(Failing::default());
    let options = EngineOptions { io: io.clone(), ..options(dir.path()) };
    let engine = Engine::open(&options).expect("opened");
    put(&engine, 1, 100);
    let old = entry(&engine, 1);
    io.0.store(true, SeqCst);
    let mut batch = Batch::default();
    batch.replace_piece(key(1), &old, vec![9; 50], HEAD);
    assert!(matches!(engine.apply(batch), Err(EngineError::Disk(_))));
    assert_eq!(entry(&engine, 1).piece, old.piece);
    assert_eq!(engine.piece(&old.piece).expect("still there"), vec![1; 100]);
}

/// The journal holds a sound record of a commit that was never acknowledged, because the journal could not be
/// cut back.
#[test]
fn records_after_the_acknowledged_end_are_cut_at_a_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let engine = Engine::open(&options).expect("opened");
    put(&engine, 1, 100);
    let acknowledged = engine.journal().end();
    let lost = tempfile::tempdir().expect("a directory");
    put(&engine, 2, 100);
    // The state is from before both commits, as after a kill.
    for part in ["journal", "log"] {
        std::fs::create_dir(lost.path().join(part)).expect("made");
        for file in std::fs::read_dir(dir.path().join(part)).expect("read") {
            let file = file.expect("read");
            if file.file_type().expect("read").is_file() {
                std::fs::copy(file.path(), lost.path().join(part).join(file.file_name())).expect("copied");
            }
        }
    }
    let of_lost = EngineOptions::new(lost.path(), Arc::new(Disk));
    let copied = EngineOptions { state: of_lost.state, journal: of_lost.journal, ..options };
    let again = Engine::open(&EngineOptions { end: Some(acknowledged), ..copied.clone() }).expect("opened");
    assert_eq!(again.journal().end(), acknowledged);
    assert!(again.get(&key(1)).expect("read").is_some() && again.get(&key(2)).expect("read").is_none());
    put(&again, 3, 10);
    assert!(again.close() > acknowledged);
    let again = Engine::open(&copied).expect("opened");
    assert!(again.get(&key(3)).expect("read").is_some() && again.get(&key(2)).expect("read").is_none());
}

/// One segment has a damaged record. It stays, and the store does not fail on it again and again.
#[test]
fn a_damaged_segment_is_not_reclaimed_and_the_others_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let engine = Engine::open(&options).expect("opened");
    for n in 0..60 {
        put(&engine, n, 8 << 10);
    }
    (0..60).filter(|n| n % 6 != 0).for_each(|n| delete(&engine, n));
    engine.check_point().expect("made");
    let (first, _) = engine.segments()[0];
    let path = std::fs::read_dir(options.journal.as_path())
        .expect("read")
        .map(|entry| entry.expect("read").path())
        .min()
        .expect("a segment");
    let file = File::options().write(true).open(path).expect("opened");
    file.write_all_at(&[0xee; 64], 64 + 20_000).expect("written");
    let mut reclaimer = Reclaimer::default();
    let mut steps = 0;
    while reclaimer.step(&engine).expect("the store continues") {
        steps += 1;
        assert!(steps < 1_000, "reclaiming does not end");
    }
    assert!(steps > 1);
    engine.check_point().expect("made");
    assert_eq!(engine.segments()[0].0.first, first.first, "the damaged one stays");
    assert!(engine.segments().len() < 6, "the others are removed");
    put(&engine, 100, 10);
}

/// A process was killed while sled wrote a snapshot under a temporary name. sled itself would take it for a
/// complete one.
#[test]
fn the_state_opens_beside_an_unfinished_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let engine = Engine::open(&options).expect("opened");
    put(&engine, 1, 100);
    drop(engine);
    let unfinished = options.state.join("snap.FFFFFFFFFFFFFFF0.generating");
    std::fs::write(&unfinished, [7; 100]).expect("written");
    let engine = Engine::open(&options).expect("opened");
    assert!(engine.get(&key(1)).expect("read").is_some());
    assert!(!unfinished.exists());
}

/// Small pieces take more room in the journal than their bytes. That is no garbage, and copying would not
/// reduce it.
#[test]
fn small_pieces_that_all_live_are_not_copied_again_and_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(&EngineOptions { fsync: false, ..options(dir.path()) }).expect("opened");
    (1..=3_000).for_each(|n| put(&engine, n, 60));
    engine.check_point().expect("made");
    assert!(engine.segments().len() > 5);
    let written = engine.journal().end().0;
    let mut reclaimer = Reclaimer::default();
    while reclaimer.step(&engine).expect("copied") {
        let end = engine.journal().end().0;
        assert!(end < 3 * written, "{end} bytes written to reclaim some of {written}");
    }
    assert_eq!(engine.segments().iter().map(|(_, live)| live.pieces).sum::<u64>(), 3_000);
}

/// The journal of another store may have a record that ends exactly at the state's position.
#[test]
fn the_journal_of_another_store_is_refused() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let options = [&dirs[0], &dirs[1]].map(|dir| options(dir.path()));
    for options in &options {
        let engine = Engine::open(options).expect("opened");
        put(&engine, 1, 100);
        engine.check_point().expect("made");
    }
    let mixed = EngineOptions { journal: options[1].journal.clone(), ..options[0].clone() };
    let error = Engine::open(&mixed).err().expect("refused").to_string();
    assert!(error.contains("of another store"), "{error}");
    for options in &options {
        let engine = Engine::open(options).expect("both are unchanged");
        assert_eq!(engine.piece(&entry(&engine, 1).piece).expect("there"), vec![1; 100]);
    }
}

#[test]
fn a_store_does_not_open_without_a_segment_that_holds_events() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(dir.path());
    let engine = Engine::open(&options).expect("opened");
    (0..60).for_each(|n| put(&engine, n, 8 << 10));
    engine.check_point().expect("made");
    drop(engine);
    let mut segments: Vec<_> =
        std::fs::read_dir(&options.journal).expect("read").map(|entry| entry.expect("read").path()).collect();
    segments.sort();
    let moved = dir.path().join("moved");
    std::fs::rename(&segments[2], &moved).expect("moved");
    let error = Engine::open(&options).err().expect("refused").to_string();
    assert!(error.contains(&segments[2].display().to_string()) && error.contains("missing"), "{error}");
    std::fs::rename(&moved, &segments[2]).expect("moved back");
    Engine::open(&options).expect("opened");
}

/// Regression: segments without live pieces waited for the next checkpoint, five seconds later, however many
/// there were.
#[test]
fn segments_are_removed_as_soon_as_the_journal_exceeds_its_bound() {
    const CHECKPOINT_AGE: Duration = Duration::from_secs(5);
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(&EngineOptions { fsync: false, ..options(dir.path()) }).expect("opened");
    let begun = Instant::now();
    for n in 1.. {
        put(&engine, n, 8 << 10);
        delete(&engine, n);
        if n >= 200 && engine.segments().len() <= 4 {
            break;
        }
        assert!(begun.elapsed() < CHECKPOINT_AGE, "{} segments after {n} pieces", engine.segments().len());
    }
}
