//! The journal on a sound disk.

use super::*;
use crate::store::disk::Disk;

fn options(dir: &std::path::Path, segment_bytes: u64) -> Options {
    Options { dir: dir.join("journal"), segment_bytes, io: Arc::new(Disk) }
}

fn open(dir: &std::path::Path) -> Journal {
    Journal::open(options(dir, 1 << 16), Position(0), &mut |_| Ok(())).expect("it opens")
}

#[test]
fn what_was_synced_is_read_and_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let mut record = NewRecord::new(RecordKind::Commit, 3, journal.end());
    let piece = record.add_piece(b"events".to_vec());
    record.put(b"key", b"value");
    record.delete(b"gone");
    record.free(piece);
    let end = journal.append(&record).expect("appended");
    assert_eq!(journal.sync(), Ok(end));
    assert_eq!(journal.read(piece).expect("there"), b"events");
    drop(journal);
    let mut seen = 0;
    let journal = Journal::open(options(dir.path(), 1 << 16), Position(0), &mut |record| {
        seen += 1;
        let changes: Vec<_> = record.changes().collect::<Result<_, _>>()?;
        let expected = [
            Change::Piece(piece),
            Change::Put { key: b"key", value: b"value" },
            Change::Delete { key: b"gone" },
            Change::Free(piece),
        ];
        assert_eq!((changes, record.epoch), (expected.to_vec(), 3));
        assert_eq!(record.bytes(piece), Some(&b"events"[..]));
        Ok(())
    })
    .expect("it opens");
    assert_eq!((seen, journal.end(), journal.durable()), (1, end, end));
    assert_eq!(journal.read(piece).expect("there"), b"events");
}

#[test]
fn records_go_on_in_new_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let mut pieces = Vec::new();
    for n in 0..20u8 {
        let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
        pieces.push(record.add_piece(vec![n; 20_000]));
        journal.append(&record).expect("appended");
    }
    journal.sync().expect("synced");
    assert_eq!(journal.segments().len(), 7);
    let check = |journal: &Journal| {
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(journal.read(*piece).expect("there"), vec![n as u8; 20_000]);
        }
        let mut records = journal.records(Position(0), journal.end());
        let mut count = 0;
        while let Some(record) = records.next() {
            record.expect("sound");
            count += 1;
        }
        assert_eq!(count, 20);
    };
    check(&journal);
    drop(journal);
    check(&open(dir.path()));
}
