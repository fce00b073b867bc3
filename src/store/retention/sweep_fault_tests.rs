//! Tests of erasures and openings on a disk that fails: what is erased, what is postponed, and what is not
//! trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::sweep::{SweepOutcome, Sweeper};
use crate::ids::{Sequence, TenantId};
use crate::store::disk::{Disk, Io};
use crate::store::engine::{Batch, Engine, EngineError, EngineOptions};
use crate::store::format::LogEntry;
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::Packed;
use crate::store::journal::Position;
use crate::store::log::page::tests::pieces;
use crate::store::stats::Stats;

const TENANT: TenantId = TenantId(1);

/// Fails reads of the journal, or syncs of the state, on demand.
#[derive(Default)]
struct Failing {
    reads: AtomicBool,
    state_syncs: AtomicBool,
    /// Number of times that pages were dropped.
    dropped: AtomicUsize,
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Io for Failing {
    fn read_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        if self.reads.load(SeqCst) { Err(eio()) } else { file.read_at(buf, at) }
    }
    fn sync_state(&self, file: &File) -> io::Result<()> {
        if self.state_syncs.load(SeqCst) { Err(eio()) } else { file.sync_data() }
    }
    fn drop_pages(&self, _: &File) -> io::Result<()> {
        self.dropped.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// Runs steps at `now_ms` until nothing is left to do at that time.
fn step_all(sweep: &mut Sweeper, engine: &Engine, stats: &Stats, now_ms: u64) {
    loop {
        let outcome = sweep.step(engine, stats, now_ms, |_, _| Ok(None)).expect("no error");
        assert!(!matches!(outcome, SweepOutcome::Tenant(_)));
        if !sweep.is_busy() {
            return;
        }
    }
}

/// An engine with a log of one sound piece and the row of a deleted user. Also returns that row's key.
fn with_erasure(dir: &Path, io: Arc<dyn Io>) -> (Engine, Vec<u8>) {
    let engine = Engine::open(&EngineOptions::new(dir, io)).expect("opened");
    let erased = keys::key(KeyKind::EraseUser, TENANT, b"u");
    let mut batch = Batch::default();
    let Packed { first, value, head, .. } = pieces(1..=3, 100).remove(0);
    batch.put_piece(keys::log(TENANT, first), value, head);
    batch.put(erased.clone(), vec![1]);
    engine.commit(batch).expect("committed");
    (engine, erased)
}

/// Regression: an unreadable piece made the store read-only, and again after each restart.
#[test]
fn a_piece_that_cannot_be_read_postpones_only_its_own_erasure() {
    const MINUTE: u64 = 60_000;
    let dir = tempfile::tempdir().expect("a directory");
    let (io, stats) = (Arc::new(Failing::default()), Stats::default());
    let (engine, erased) = with_erasure(dir.path(), io.clone());
    let mut sweep = Sweeper::load(&engine).expect("loaded");

    io.reads.store(true, SeqCst);
    step_all(&mut sweep, &engine, &stats, 0);
    assert_eq!((sweep.entries(), sweep.postponed()), (1, 1));
    assert_eq!(sweep.erasing_users(), [(TENANT, "u".to_owned())], "the user's writes are still refused");
    assert!(engine.get(&erased).expect("read").is_some(), "the erasure is still pending");
    // The second pause is twice the first.
    step_all(&mut sweep, &engine, &stats, MINUTE);
    io.reads.store(false, SeqCst);
    step_all(&mut sweep, &engine, &stats, 3 * MINUTE - 1);
    assert_eq!((sweep.entries(), sweep.postponed()), (1, 1));
    step_all(&mut sweep, &engine, &stats, 3 * MINUTE);
    assert_eq!((sweep.entries(), stats.damaged_pieces()), (0, 0));
    assert!(engine.get(&erased).expect("read").is_none());
}

/// Regression: the row of a deleted user was removed although a piece that may hold their events was damaged.
#[test]
fn an_erasure_stays_until_its_damaged_piece_is_removed() {
    const HOUR: u64 = 60 * 60_000;
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, erased) = with_erasure(dir.path(), Arc::new(Disk));
    let (stats, mut sweep) = (Stats::default(), Sweeper::load(&engine).expect("loaded"));
    let key = keys::log(TENANT, Sequence(1));
    let entry = LogEntry::read(&engine.get(&key).expect("read").expect("there")).expect("an entry");
    let (_, file, at) = engine.journal().locate(entry.piece).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 20).expect("read");
    let path = engine.journal().path_of(Position(0));
    let write = File::options().write(true).open(path).expect("opened");
    write.write_all_at(&[byte[0] ^ 1], at + 20).expect("flipped");

    for attempt in 0..3 {
        step_all(&mut sweep, &engine, &stats, attempt * HOUR);
        assert_eq!((sweep.postponed(), stats.damaged_pieces()), (1, 1), "attempt {attempt}");
        assert!(engine.get(&erased).expect("read").is_some());
    }
    let mut batch = Batch::default();
    batch.delete_piece(&key, &entry);
    engine.commit(batch).expect("trimmed");
    step_all(&mut sweep, &engine, &stats, 3 * HOUR);
    assert_eq!(sweep.entries(), 0);
    assert!(engine.get(&erased).expect("read").is_none());
}

/// After a failed sync the kernel may mark pages clean that the disk never got.
#[test]
fn after_a_failed_sync_the_state_is_read_from_the_disk_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let io = Arc::new(Failing::default());
    let options = EngineOptions::new(dir.path(), io.clone());
    let put = |engine: &Engine, value: u8| {
        let mut batch = Batch::default();
        batch.put(keys::key(KeyKind::EraseUser, TENANT, b"u"), vec![value]);
        engine.commit(batch).expect("committed");
    };
    let engine = Engine::open(&options).expect("opened");
    put(&engine, 1);
    io.state_syncs.store(true, SeqCst);
    assert!(matches!(engine.check_point(), Err(EngineError::Disk(_))));
    drop(engine);
    assert_eq!(io.dropped.load(SeqCst), 0);

    assert!(matches!(Engine::open(&options), Err(EngineError::Disk(_))), "the disk still fails");
    io.state_syncs.store(false, SeqCst);
    for dropped in [1, 1] {
        let engine = Engine::open(&options).expect("opened");
        assert_eq!(io.dropped.load(SeqCst), dropped, "dropped once, and not again");
        let row = engine.get(&keys::key(KeyKind::EraseUser, TENANT, b"u")).expect("read");
        assert_eq!(row.as_deref(), Some(&[1][..]), "the journal has it");
        engine.check_point().expect("made");
    }
}
