//! Tests in which every call to the disk fails once, in every way, or all calls fail from some call on. Then
//! the same work is tried again, and the final contents must be what was confirmed.

use rustix::io::Errno;

use super::sim::{Fault, How, Sim};
use super::*;

const SEGMENT: u64 = 4096;

/// Repeats one sequence of work, and records what the journal returned.
struct Worker {
    dir: tempfile::TempDir,
    sim: Arc<Sim>,
    journal: Option<Journal>,
    /// Every appended record: the first byte of its piece, and the piece.
    appended: Vec<(u8, PieceLocation)>,
    /// How many of them were confirmed.
    confirmed: usize,
    /// Records that the journal took back after a failed sync. They may exist after all, if the disk did not
    /// allow the cut.
    taken_back: Vec<(u8, PieceLocation)>,
}

/// Returns true if an error is one that the disk causes.
fn is_of_disk(error: &JournalError) -> bool {
    matches!(error, JournalError::Space | JournalError::Disk(_) | JournalError::Io(_))
}

impl Worker {
    fn new() -> Worker {
        let dir = temporary();
        let (appended, taken_back) = (Vec::new(), Vec::new());
        Worker { dir, sim: Arc::default(), journal: None, appended, confirmed: 0, taken_back }
    }

    /// Opens the journal. Whatever it replays was appended, in order, and everything confirmed is there.
    fn open(&mut self) -> Result<(), JournalError> {
        self.journal = None;
        let options = Options {
            dir: self.dir.path().join("journal"),
            segment_bytes: SEGMENT,
            id: None,
            end: None,
            io: self.sim.clone(),
        };
        let mut seen = Vec::new();
        let journal = Journal::open(options, Position(0), &mut |record| {
            for change in record.changes() {
                if let Change::Piece(piece) = change? {
                    seen.push((record.bytes(piece).expect("its own")[0], piece));
                }
            }
            Ok(())
        })?;
        assert!(seen.len() >= self.confirmed, "{} of {} are there", seen.len(), self.confirmed);
        let mut expected = self.appended.clone();
        expected.append(&mut self.taken_back);
        assert_eq!(seen[..], expected[..seen.len()]);
        self.appended = seen;
        self.confirmed = self.appended.len();
        self.journal = Some(journal);
        Ok(())
    }

    fn append(&mut self, fill: u8, len: usize) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return self.open() };
        let end = journal.end();
        let mut record = NewRecord::new(RecordKind::Commit, 1, end);
        let piece = record.add_piece(vec![fill; len]);
        match journal.append(&record) {
            Ok(_) => self.appended.push((fill, piece)),
            Err(error) => {
                let at = journal.durable().min(end);
                assert!(journal.end() == end || journal.end() == at, "the end moved");
                return Err(error);
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return self.open() };
        journal.sync()?;
        self.confirmed = self.appended.len();
        Ok(())
    }

    fn read(&mut self) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return self.open() };
        for (fill, piece) in &self.appended {
            assert_eq!(journal.read(*piece)?, vec![*fill; piece.len as usize]);
        }
        Ok(())
    }

    /// Runs `work` until it succeeds, and opens a journal that refuses everything again. Once `heal` is set,
    /// the disk works. Records that the journal took back after a failed sync are not expected any more.
    fn insist(&mut self, heal: bool, mut work: impl FnMut(&mut Worker) -> Result<(), JournalError>) {
        for attempt in 0.. {
            let error = match work(self) {
                Ok(()) => return,
                Err(error) => error,
            };
            assert!(is_of_disk(&error) && attempt < 4, "{error}");
            if let Some(journal) = &self.journal {
                let end = journal.end();
                let kept = self.appended.partition_point(|(_, piece)| piece.position < end);
                let taken_back = self.appended.split_off(kept);
                if heal {
                    self.taken_back.extend(taken_back);
                }
            }
            if attempt == 1 && heal {
                self.sim.set_fault(Fault::None);
            }
            if attempt > 0 {
                while let Err(error) = self.open() {
                    assert!(is_of_disk(&error), "{error}");
                    if heal {
                        self.sim.set_fault(Fault::None);
                    }
                }
            }
        }
    }

    /// All of the work: new segments, long records, syncs, reads, opening again.
    fn work(&mut self, heal: bool) {
        self.insist(heal, Worker::open);
        let mut fill = 0;
        for round in 0..3 {
            for len in [100, 3000, 10, 9000, 700] {
                fill += 1;
                let before = self.appended.len();
                self.insist(heal, |worker| match worker.appended.len() > before {
                    true => Ok(()),
                    false => worker.append(fill, len),
                });
                if len != 10 {
                    self.insist(heal, Worker::sync);
                }
            }
            self.insist(heal, Worker::read);
            if round == 1 {
                self.insist(heal, Worker::open);
            }
        }
        self.insist(heal, Worker::sync);
    }
}

fn fails_at_every_call(heal: bool, how: How, fault: fn(u64, How) -> Fault) {
    for n in 0.. {
        let mut worker = Worker::new();
        worker.sim.set_fault(fault(n, how));
        worker.work(heal);
        worker.sim.set_fault(Fault::None);
        worker.open().unwrap_or_else(|error| panic!("after call {n} failed by {how:?}: {error}"));
        worker.read().expect("readable");
        if worker.sim.failed() == 0 {
            assert!(n > 100, "the work makes {n} calls only");
            return;
        }
    }
}

#[test]
fn an_error_once_at_any_call_loses_nothing_that_was_confirmed() {
    fails_at_every_call(false, How::Errno(Errno::IO), Fault::Once);
}

#[test]
fn a_full_disk_once_at_any_call_loses_nothing_that_was_confirmed() {
    fails_at_every_call(false, How::Errno(Errno::NOSPC), Fault::Once);
}

#[test]
fn half_a_write_at_any_call_loses_nothing_that_was_confirmed() {
    fails_at_every_call(false, How::Half(Errno::NOSPC), Fault::Once);
}

#[test]
fn short_reads_and_writes_are_continued() {
    fails_at_every_call(false, How::Short, Fault::Once);
}

#[test]
fn a_disk_that_fails_for_good_loses_nothing_that_was_confirmed() {
    fails_at_every_call(true, How::Errno(Errno::IO), Fault::From);
}

#[test]
fn a_disk_that_is_full_for_long_loses_nothing_that_was_confirmed() {
    fails_at_every_call(true, How::Half(Errno::NOSPC), Fault::From);
}

/// A sealed segment accepts nothing more, even if the next one could not be created and the record would fit:
/// the next segment may exist already.
#[test]
fn records_after_a_failed_new_segment_are_kept() {
    for n in 0.. {
        let mut worker = Worker::new();
        worker.open().expect("it opens");
        worker.append(1, 3000).expect("appended");
        worker.sync().expect("synced");
        worker.sim.set_fault(Fault::Once(n, How::Errno(Errno::NOSPC)));
        let failed = worker.append(2, 3000).is_err();
        worker.sim.set_fault(Fault::None);
        if worker.append(3, 10).is_err() {
            worker.open().expect("it opens"); // the sync of the sealed segment failed
            worker.append(3, 10).expect("appended");
        }
        worker.sync().expect("synced");
        worker.open().expect("it opens");
        let fills: Vec<_> = worker.appended.iter().map(|(fill, _)| *fill).collect();
        assert_eq!(fills, if failed { vec![1, 3] } else { vec![1, 2, 3] }, "call {n} failed");
        if worker.sim.failed() == 0 {
            assert!(n >= 8, "a new segment takes {n} calls only");
            return;
        }
    }
}

/// Appends a record while the disk syncs.
#[derive(Default)]
struct AppendsInSync(std::sync::OnceLock<std::sync::Weak<Journal>>);

impl Io for AppendsInSync {
    fn sync(&self, _: &File) -> io::Result<()> {
        let journal = self.0.get().and_then(std::sync::Weak::upgrade).expect("open");
        append(&journal, 9, 100);
        Ok(())
    }
}

#[test]
fn a_sync_confirms_nothing_that_was_appended_meanwhile() {
    let dir = temporary();
    let io = Arc::new(AppendsInSync::default());
    let options = Options {
        dir: dir.path().join("journal"),
        segment_bytes: SEGMENT,
        end: None,
        id: None,
        io: io.clone(),
    };
    let journal = Arc::new(Journal::open(options, Position(0), &mut |_| Ok(())).expect("it opens"));
    io.0.set(Arc::downgrade(&journal)).expect("once");
    append(&journal, 1, 100);
    let end = journal.end();
    assert_eq!((journal.sync(), journal.durable()), (Ok(end), end));
    assert!(journal.end() > end);
}
