//! Tests of files that are cut, flipped, mixed up or lost: a torn tail is cut, and everything else is refused
//! with nothing changed.

use std::fs;

use super::super::segment;
use super::*;

/// A journal of records that were synced one by one, and the file of its only segment.
fn synced(dir: &Path, lens: &[usize]) -> (Vec<PieceLocation>, PathBuf) {
    let journal = open(dir, 4096);
    let append = |(n, len): (usize, &usize)| {
        let piece = append(&journal, n as u8, *len);
        journal.sync().expect("synced");
        piece
    };
    let pieces = lens.iter().enumerate().map(append).collect();
    (pieces, files(dir).remove(0))
}

/// The offset of the record of `piece`, its first piece, in the file of the first segment.
fn begin(piece: PieceLocation) -> usize {
    64 + piece.position.0 as usize - 48
}

#[test]
fn a_cut_last_record_is_dropped_and_all_before_it_stay() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50, 70]);
    let whole = fs::read(&path).expect("readable");
    let (from, end) = (begin(pieces[2]), open(dir.path(), 4096).end().0 as usize + 64);
    for len in from..end {
        for zeros in [false, true] {
            let mut bytes = whole[..len].to_vec();
            if zeros {
                bytes.resize(whole.len(), 0); // the reserved space
            }
            fs::write(&path, &bytes).expect("written");
            let seen = replayed(dir.path(), 4096, Position(0)).expect("it opens");
            // Lost padding that was zero makes no difference.
            let kept = 2 + usize::from(zeros && whole[len..end].iter().all(|byte| *byte == 0));
            assert_eq!(seen.iter().map(|seen| seen.1).collect::<Vec<_>>(), [0, 1, 2][..kept], "cut at {len}");
            let journal = open(dir.path(), 4096);
            let piece = append(&journal, 9, 70);
            drop(journal);
            let journal = open(dir.path(), 4096);
            assert_eq!(journal.read(piece).expect("there"), [9; 70]);
            assert_eq!(journal.read(pieces[1]).expect("there"), [1; 50]);
        }
    }
}

#[test]
fn a_flipped_byte_that_later_records_confirm_is_refused() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50, 70]);
    let whole = fs::read(&path).expect("readable");
    for at in 0..begin(pieces[2]) {
        for flip in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).expect("written");
            let error = open_from(dir.path(), 4096, Position(0)).err();
            let is_refused = match error {
                Some(JournalError::Damaged { .. }) => true,
                // A header's version can be damaged into a newer one only if its checksum matches.
                other => panic!("byte {at}: {other:?}"),
            };
            assert!(is_refused);
            assert_eq!(fs::read(&path).expect("readable"), bytes, "the file is unchanged");
        }
    }
    fs::write(&path, &whole).expect("written");
    assert_eq!(replayed(dir.path(), 4096, Position(0)).expect("it opens").len(), 3);
}

/// No later record says that the last one was durable, so a flipped byte in it looks like a torn write.
#[test]
fn a_flipped_byte_in_the_last_record_is_a_torn_tail() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50]);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[begin(pieces[1]) + 60] ^= 1;
    fs::write(&path, &bytes).expect("written");
    assert_eq!(replayed(dir.path(), 4096, Position(0)).expect("it opens").len(), 1);
    // The next record was written over it.
    assert_eq!(fs::metadata(&path).expect("there").len(), begin(pieces[1]) as u64);
}

#[test]
fn every_record_of_a_sealed_segment_must_be_sound() {
    let dir = temporary();
    let journal = open(dir.path(), 1024);
    let pieces: Vec<_> = (0..6).map(|n| append(&journal, n, 400)).collect();
    let segments = journal.segments();
    assert_eq!((segments.len(), journal.segment_of(pieces[1].position)), (3, Some(segments[0].first)));
    drop(journal);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).expect("readable");
    for at in begin(pieces[1])..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).expect("written");
        let error = open_from(dir.path(), 1024, Position(0)).err();
        assert!(
            matches!(&error, Some(JournalError::Damaged { file, .. }) if *file == path),
            "{at}: {error:?}"
        );
        // Damage before the state's position is found when it is read.
        let journal = open_from(dir.path(), 1024, segments[1].first).expect("it opens");
        let mut records = journal.records(Position(0), journal.end());
        assert!(records.next().expect("one").is_ok());
        assert!(matches!(records.next(), Some(Err(JournalError::Damaged { .. }))), "{at}");
        assert!(records.next().is_none());
    }
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).expect("written");
        let error = open_from(dir.path(), 1024, Position(0)).err();
        let expected = matches!(error, Some(JournalError::Damaged { .. } | JournalError::Missing { .. }));
        assert!(expected, "cut to {len}: {error:?}");
    }
}

#[test]
fn a_journal_opens_only_from_the_end_of_a_record() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50, 70]);
    let end = open(dir.path(), 4096).end();
    let open = |from: u64| open_from(dir.path(), 4096, Position(from)).err();
    let bounds: Vec<_> = pieces.iter().map(|piece| piece.position.0 - 48).chain([end.0]).collect();
    for from in 0..end.0 + 100 {
        match open(from) {
            None => assert!(bounds.contains(&from), "{from}"),
            Some(JournalError::Damaged { position, .. }) => {
                assert!(position == Position(from) && from < end.0 && !bounds.contains(&from));
            }
            Some(JournalError::Beyond { position, end: at }) => {
                assert!(position == Position(from) && at == end && from > end.0);
            }
            Some(other) => panic!("{from}: {other}"),
        }
    }
    // Headers before the state's position are followed, so they must be sound.
    let mut bytes = fs::read(&path).expect("readable");
    bytes[begin(pieces[1]) + 4] ^= 8;
    fs::write(&path, &bytes).expect("written");
    assert!(
        matches!(open(bounds[2]), Some(JournalError::Damaged { position, .. }) if position.0 == bounds[1])
    );
    fs::remove_file(&path).expect("removed");
    assert!(matches!(open(bounds[2]), Some(JournalError::Missing { .. })));
}

/// Regression: without the newest segment, the one before looked like the end of the journal, and events were
/// lost silently.
#[test]
fn a_newest_segment_that_was_deleted_is_missed() {
    let dir = temporary();
    let journal = open(dir.path(), 1024);
    let pieces: Vec<_> = (0..4).map(|n| append(&journal, n, 600)).collect();
    journal.sync().expect("synced");
    drop(journal);
    let newest = files(dir.path()).pop().expect("a segment");
    let bytes = fs::read(&newest).expect("readable");
    fs::remove_file(&newest).expect("removed");
    let error = open_from(dir.path(), 1024, Position(0)).err();
    assert!(matches!(&error, Some(JournalError::Missing { .. })), "{error:?}");
    // Incomplete contents are ignored.
    let noted = dir.path().join("journal").join("newest");
    let mut name = fs::read(&noted).expect("readable");
    name[20] ^= 1;
    fs::write(&newest, bytes).expect("written");
    fs::write(&noted, name).expect("written");
    let journal = open(dir.path(), 1024);
    assert_eq!(journal.read(pieces[3]).expect("there"), [3; 600]);
}

#[test]
fn segments_of_two_journals_do_not_mix() {
    let (dir, other) = (temporary(), temporary());
    for (n, dir) in [&dir, &other].into_iter().enumerate() {
        let journal = open(dir.path(), 1024);
        (0..4).for_each(|_| {
            append(&journal, n as u8, 600);
        });
    }
    let (ours, theirs) = (files(dir.path()), files(other.path()));
    fs::copy(&theirs[2], &ours[2]).expect("copied");
    let error = open_from(dir.path(), 1024, Position(0)).err();
    assert!(matches!(&error, Some(JournalError::Damaged { file, .. }) if *file == ours[2]), "{error:?}");
    fs::rename(&ours[1], &ours[2]).expect("renamed");
    let error = open_from(dir.path(), 1024, Position(0)).err();
    assert!(matches!(&error, Some(JournalError::Damaged { file, .. }) if *file == ours[2]), "{error:?}");
}

#[test]
fn an_unfinished_segment_is_removed_after_a_crash() {
    let dir = temporary();
    let journal = open(dir.path(), 1024);
    append(&journal, 1, 600);
    let end = journal.end();
    drop(journal);
    let temporary = segment::temporary(&dir.path().join("journal"));
    let next = segment::path(&dir.path().join("journal"), end);
    for bytes in [vec![], vec![0; 1024], vec![1; 30]] {
        fs::write(&temporary, &bytes).expect("written");
        let is_blank = bytes.iter().all(|byte| *byte == 0);
        if is_blank {
            fs::write(&next, &bytes).expect("written");
        }
        let journal = open(dir.path(), 1024);
        assert_eq!((journal.end(), journal.segments().len()), (end, 1));
        assert!(!temporary.exists() && !next.exists());
    }
    // A file with a segment's name, but without a valid header, is damage.
    fs::write(&next, [1; 30]).expect("written");
    let error = open_from(dir.path(), 1024, Position(0)).err();
    assert!(matches!(&error, Some(JournalError::Damaged { file, .. }) if *file == next), "{error:?}");
    assert!(next.exists());
}

#[test]
fn files_of_a_newer_version_are_refused_and_unchanged() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50]);
    let journal = open(dir.path(), 4096);
    let (id, at) = (journal.id(), Position(pieces[1].position.0 - 48));
    let mut bytes = fs::read(&path).expect("readable");
    let check = record::HeaderCrc::new(&id);
    let header = record::RecordHeader::decode(&bytes[begin(pieces[1])..], at, check).expect("sound");
    for newer in [
        record::RecordHeader { version: 2, pieces_len: 1, ..header },
        record::RecordHeader { flags: 1, ..header },
        record::RecordHeader { kind: 9, ..header },
    ] {
        let from = begin(pieces[1]);
        bytes[from..from + 48].copy_from_slice(&newer.encode(check));
        fs::write(&path, &bytes).expect("written");
        assert_eq!(open_from(dir.path(), 4096, Position(0)).err(), Some(JournalError::Newer(2)));
        assert_eq!(fs::read(&path).expect("readable"), bytes);
    }
    let mut header = segment::SegmentHeader { id, first: Position(0), epoch: 0 }.encode();
    header[8] = 2;
    let crc = record::crc(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    bytes[..64].copy_from_slice(&header);
    fs::write(&path, &bytes).expect("written");
    assert_eq!(open_from(dir.path(), 4096, Position(0)).err(), Some(JournalError::Newer(2)));
}

#[test]
fn a_record_of_an_earlier_epoch_is_damage() {
    let dir = temporary();
    let (pieces, path) = synced(dir.path(), &[30, 50, 70]);
    let journal = open(dir.path(), 4096);
    let (check, at) = (journal.check, Position(pieces[1].position.0 - 48));
    let mut bytes = fs::read(&path).expect("readable");
    let from = begin(pieces[1]);
    let header = record::RecordHeader::decode(&bytes[from..], at, check).expect("sound");
    bytes[from..from + 48].copy_from_slice(&record::RecordHeader { epoch: 0, ..header }.encode(check));
    fs::write(&path, &bytes).expect("written");
    let error = open_from(dir.path(), 4096, Position(0)).err();
    assert!(matches!(error, Some(JournalError::Damaged { position, .. }) if position == at), "{error:?}");
}
