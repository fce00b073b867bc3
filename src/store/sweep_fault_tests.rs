//! Erasures and openings on a disk that fails: what is erased, what is kept for later, and what is not believed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Batch, Engine, EngineError, EngineOptions};
use crate::store::keys::{self, Kind};
use crate::store::pack::Head;
use crate::store::space::Io;
use crate::store::sweep::{Sweep, Swept};

const TENANT: TenantId = TenantId(1);

/// Fails reads of the journal, or syncs of the state, on demand.
#[derive(Default)]
struct Failing {
    reads: AtomicBool,
    state_syncs: AtomicBool,
    /// How often pages were dropped.
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

/// Sweeps until nothing is left to do; how many erasures are left for the next opening.
fn sweep(engine: &Engine) -> Result<usize, EngineError> {
    let mut sweep = Sweep::load(engine)?;
    while sweep.is_busy() {
        let swept = sweep.step(engine, |_, _| Ok(None))?;
        assert!(!matches!(swept, Swept::Tenant(_)));
    }
    Ok(sweep.entries())
}

/// An unreadable piece used to make the store read-only, and after each restart again.
#[test]
fn a_piece_that_cannot_be_read_keeps_the_erasure_for_the_next_start_and_hurts_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let io = Arc::new(Failing::default());
    let engine = Engine::open(&EngineOptions::new(dir.path(), io.clone())).expect("opened");
    let erased = keys::key(Kind::EraseUser, TENANT, b"u");
    let mut batch = Batch::default();
    batch.put_piece(keys::log(TENANT, Sequence(1)), vec![7; 100], Head { count: 1, min_ms: 1, max_ms: 1 });
    batch.put(erased.clone(), vec![1]);
    engine.commit(batch).expect("committed");

    io.reads.store(true, SeqCst);
    assert_eq!(sweep(&engine).expect("the sweep ends without an error"), 1);
    assert!(engine.get(&erased).expect("read").is_some(), "it is still to be done");
    io.reads.store(false, SeqCst);
    assert_eq!(sweep(&engine).expect("swept"), 0);
    assert!(engine.get(&erased).expect("read").is_none());
}

/// After a failed sync the kernel may call pages clean that the disk never got.
#[test]
fn after_a_failed_sync_the_state_is_read_from_the_disk_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let io = Arc::new(Failing::default());
    let options = EngineOptions::new(dir.path(), io.clone());
    let put = |engine: &Engine, value: u8| {
        let mut batch = Batch::default();
        batch.put(keys::key(Kind::EraseUser, TENANT, b"u"), vec![value]);
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
        let row = engine.get(&keys::key(Kind::EraseUser, TENANT, b"u")).expect("read");
        assert_eq!(row.as_deref(), Some(&[1][..]), "the journal has it");
        engine.check_point().expect("made");
    }
}
