//! Tests of the journal on a sound disk, and helpers for its other tests.

mod crash;
mod damage;
mod faults;
mod format;
mod sim;

use std::path::Path;

use super::*;
use crate::store::disk::{Disk, Io};

/// A disk that does not sync, for tests that open many journals and cut no power.
#[derive(Default)]
pub(super) struct Unsynced;

impl Io for Unsynced {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
    fn sync_all(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A directory in memory, if possible: most of these tests simulate the disk.
fn temporary() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn options(dir: &Path, segment_bytes: u64) -> Options {
    Options { dir: dir.join("journal"), segment_bytes, end: None, id: None, io: Arc::new(Unsynced) }
}

fn open_from(dir: &Path, segment_bytes: u64, from: Position) -> Result<Journal, JournalError> {
    Journal::open(options(dir, segment_bytes), from, &mut |_| Ok(()))
}

fn open(dir: &Path, segment_bytes: u64) -> Journal {
    open_from(dir, segment_bytes, Position(0)).expect("it opens")
}

/// Appends a record of one piece of `len` bytes `fill`.
fn append(journal: &Journal, fill: u8, len: usize) -> PieceLocation {
    let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
    let piece = record.add_piece(vec![fill; len]);
    record.put(b"piece", &[fill]);
    let end = journal.append(&record).expect("appended");
    assert_eq!((end.0 - record.at().0, journal.end()), (record.len(), end));
    piece
}

/// Every record's position and the first byte of its piece.
fn replayed(dir: &Path, segment_bytes: u64, from: Position) -> Result<Vec<(Position, u8)>, JournalError> {
    let mut seen = Vec::new();
    Journal::open(options(dir, segment_bytes), from, &mut |record| {
        for change in record.changes() {
            if let Change::Put { value, .. } = change? {
                seen.push((record.position, value[0]));
            }
        }
        Ok(())
    })?;
    Ok(seen)
}

/// The files of the journal in `dir`, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("journal")).expect("a directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

#[test]
fn synced_records_are_read_and_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = || Options { io: Arc::new(Disk), ..options(dir.path(), 1 << 16) };
    let journal = Journal::open(options(), Position(0), &mut |_| Ok(())).expect("it opens");
    let mut record = NewRecord::new(RecordKind::Maintenance, 3, journal.end());
    let piece = record.add_piece(b"events".to_vec());
    record.put(b"key", b"value");
    record.delete(b"gone");
    record.free(piece);
    let end = journal.append(&record).expect("appended");
    assert_eq!((journal.durable(), journal.sync(), journal.durable()), (Position(0), Ok(end), end));
    assert_eq!(journal.read(piece).expect("there"), b"events");
    let id = journal.id();
    drop(journal);

    let mut seen = 0;
    let journal = Journal::open(options(), Position(0), &mut |record| {
        seen += 1;
        let changes: Vec<_> = record.changes().collect::<Result<_, _>>()?;
        let expected = [
            Change::Piece(piece),
            Change::Put { key: b"key", value: b"value" },
            Change::Delete { key: b"gone" },
            Change::Free(piece),
        ];
        assert_eq!((changes, record.epoch, record.kind), (expected.to_vec(), 3, RecordKind::Maintenance));
        assert_eq!(record.bytes(piece), Some(&b"events"[..]));
        Ok(())
    })
    .expect("it opens");
    assert_eq!((seen, journal.end(), journal.durable(), journal.id()), (1, end, end, id));
    assert_eq!(journal.read(piece).expect("there"), b"events");
}

#[test]
fn records_continue_in_new_segments() {
    let dir = temporary();
    let journal = open(dir.path(), 1 << 16);
    let pieces: Vec<_> = (0..20).map(|n| append(&journal, n, 20_000)).collect();
    assert_eq!(journal.durable(), journal.segments()[6].first, "all segments but the last are on the disk");
    journal.sync().expect("synced");
    let check = |journal: &Journal| {
        let segments = journal.segments();
        assert_eq!(segments.len(), 7);
        for two in segments.windows(2) {
            assert_eq!((two[0].end, two[0].is_sealed), (two[1].first, true));
            assert_eq!(two[0].bytes, 64 + two[0].end.0 - two[0].first.0);
        }
        assert_eq!((segments[6].end, segments[6].is_sealed), (journal.end(), false));
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(journal.read(*piece).expect("there"), vec![n as u8; 20_000]);
            assert_eq!(journal.segment_of(piece.position), Some(segments[n / 3].first));
        }
        assert_eq!(journal.segment_of(journal.end()), None);
        let (mut records, mut count) = (journal.records(segments[1].first, segments[5].end), 0);
        while let Some(record) = records.next() {
            record.expect("sound");
            count += 1;
        }
        assert_eq!(count, 15);
    };
    check(&journal);
    drop(journal);
    check(&open(dir.path(), 1 << 16));
}

#[test]
fn a_record_longer_than_a_segment_gets_one_of_its_own() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    let pieces = [(1, 100_000), (2, 10), (3, 200_000), (4, 300_000), (5, 10)];
    let pieces = pieces.map(|(fill, len)| (fill, len, append(&journal, fill, len)));
    assert_eq!(journal.segments().len(), 5);
    drop(journal);
    let journal = open(dir.path(), 4096);
    for (fill, len, piece) in pieces {
        assert_eq!(journal.read(piece).expect("there"), vec![fill; len]);
    }
}

#[test]
fn a_record_has_a_limit() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
    let bytes = bytes::Bytes::from(vec![0; 1 << 20]);
    for _ in 0..64 {
        record.add_piece(bytes.clone());
    }
    assert_eq!(journal.append(&record), Err(JournalError::TooLong(record.len())));
    record.reset(RecordKind::Commit, 1, journal.end());
    assert_eq!(record.len(), 48);
    record.put(&[0; 1 << 16], b"");
    assert_eq!(journal.append(&record), Err(JournalError::KeyTooLong(1 << 16)));
    record.reset(RecordKind::Commit, 1, journal.end());
    let room = MAX_RECORD - record.len() - 17; // the row of a piece
    let longest = record.add_piece(vec![9; room as usize]);
    assert_eq!(record.len(), MAX_RECORD);
    journal.append(&record).expect("appended");
    assert_eq!(journal.read(longest).expect("there").len() as u64, room);
    drop(journal);
    assert_eq!(open(dir.path(), 4096).end(), Position(MAX_RECORD));
}

#[test]
fn a_record_of_very_many_pieces_is_written_whole() {
    let dir = temporary();
    let journal = open(dir.path(), 1 << 20);
    let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
    let pieces: Vec<_> = (0..3000u32).map(|n| record.add_piece(n.to_le_bytes().to_vec())).collect();
    journal.append(&record).expect("appended");
    for (n, piece) in (0u32..).zip(&pieces) {
        assert_eq!(journal.read(*piece).expect("there"), n.to_le_bytes());
    }
    drop(journal);
    assert_eq!(open(dir.path(), 1 << 20).end().0, record.len());
}

#[test]
fn a_record_is_appended_only_at_the_position_it_was_built_for() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    let early = NewRecord::new(RecordKind::Commit, 2, journal.end());
    let end = journal.append(&early).expect("appended");
    assert_eq!(journal.append(&early), Err(JournalError::Moved { built_for: Position(0), end }));
    let old = NewRecord::new(RecordKind::Commit, 1, end);
    assert_eq!(journal.append(&old), Err(JournalError::OldEpoch { epoch: 1, last: 2 }));
    drop(journal);
    let journal = open(dir.path(), 4096);
    assert_eq!(journal.append(&old), Err(JournalError::OldEpoch { epoch: 1, last: 2 }));
    journal.append(&NewRecord::new(RecordKind::Commit, 2, end)).expect("appended");
}

#[test]
fn nothing_is_read_beyond_the_end() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
    let piece = record.add_piece(vec![7; 100]);
    let beyond = JournalError::Beyond { position: piece.end(), end: Position(0) };
    assert_eq!(journal.read(piece), Err(beyond), "built, but not appended");
    journal.append(&record).expect("appended");
    assert_eq!(journal.read(piece).expect("there"), [7; 100]);
    let longer = PieceLocation { len: u32::MAX, ..piece };
    assert!(matches!(journal.read(longer), Err(JournalError::Beyond { .. })));
    let other = PieceLocation { crc: piece.crc ^ 1, ..piece };
    assert!(matches!(journal.read(other), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_removed_segment_is_readable_only_through_open_files() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    let pieces: Vec<_> = (0..8).map(|n| append(&journal, n, 3000)).collect();
    let segments = journal.segments();
    let (_, file, at) = journal.locate(pieces[3]).expect("there");
    journal.remove(segments[3].first).expect("removed");
    journal.remove(segments[3].first).expect("again");
    assert_eq!(journal.remove(segments[7].first), Err(JournalError::NotSealed(segments[7].first)));
    let mut bytes = vec![0; 3000];
    assert_eq!(std::os::unix::fs::FileExt::read_at(&*file, &mut bytes, at).expect("still open"), 3000);
    assert_eq!(bytes, [3; 3000]);
    let check = |journal: &Journal| {
        assert!(matches!(journal.read(pieces[3]), Err(JournalError::Missing { .. })));
        assert_eq!(journal.segment_of(pieces[3].position), None);
        assert_eq!(journal.read(pieces[2]).expect("there"), [2; 3000]);
        let mut records = journal.records(segments[3].first, journal.end());
        assert!(matches!(records.next(), Some(Err(JournalError::Missing { .. }))));
        assert!(records.next().is_none());
    };
    check(&journal);
    drop(journal);
    // Segments before the state's position may be missing; later ones may not.
    check(&open_from(dir.path(), 4096, segments[4].first).expect("it opens"));
    for from in [segments[0].first, segments[3].first] {
        let error = open_from(dir.path(), 4096, from).err();
        let (from, to) = (segments[3].first, segments[4].first);
        assert_eq!(error, Some(JournalError::Missing { from, to, dir: dir.path().join("journal") }));
    }
}

#[test]
fn the_number_of_files_open_for_readers_is_limited() {
    let dir = temporary();
    let journal = open(dir.path(), 512);
    let count = handles::MAX_OPEN + 20;
    let pieces: Vec<_> = (0..count).map(|n| append(&journal, n as u8, 400)).collect();
    for _ in 0..2 {
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(journal.read(*piece).expect("there"), [n as u8; 400]);
        }
    }
    assert_eq!(journal.handles.len(), handles::MAX_OPEN);
}

#[test]
fn readers_and_syncs_go_on_while_records_are_appended() {
    let dir = temporary();
    let journal = open(dir.path(), 8192);
    let (pieces, done) = (Mutex::new(Vec::new()), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut at = 0;
                while !done.load(Acquire) || at < pieces.lock().len() {
                    let Some((fill, piece)) = pieces.lock().get(at).copied() else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(journal.read(piece).expect("there"), [fill; 1000]);
                    at += 1;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Acquire) {
                let before = journal.end();
                assert!(journal.sync().expect("synced") >= before);
            }
        });
        for n in 0..200u8 {
            let piece = append(&journal, n, 1000);
            pieces.lock().push((n, piece));
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    journal.sync().expect("synced");
    assert_eq!(journal.durable(), journal.end());
}
