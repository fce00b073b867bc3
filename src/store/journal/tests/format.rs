//! Tests of the bytes of records: what was built can be read, and nothing else passes for a record.

use std::path::Path;

use proptest::prelude::*;

use super::super::record::{self, HeaderCrc, RecordHeader};
use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Free(u64, u32, u32),
    Piece(Vec<u8>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let op = prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Op::Put(key, value)),
        bytes().prop_map(Op::Delete),
        any::<(u64, u32, u32)>().prop_map(|(position, len, crc)| Op::Free(position, len, crc)),
        bytes().prop_map(Op::Piece),
    ];
    proptest::collection::vec(op, 0..20)
}

fn build(ops: &[Op], at: Position) -> NewRecord {
    let mut record = NewRecord::new(RecordKind::Commit, 7, at);
    for op in ops {
        match op {
            Op::Put(key, value) => record.put(key, value),
            Op::Delete(key) => record.delete(key),
            Op::Free(position, len, crc) => {
                record.free(PieceLocation { position: Position(*position), len: *len, crc: *crc });
            }
            Op::Piece(bytes) => {
                record.add_piece(bytes.clone());
            }
        }
    }
    record
}

fn body(record: &NewRecord) -> Vec<u8> {
    record.body().collect::<Vec<_>>().concat()
}

proptest! {
    #[test]
    fn a_record_round_trips(ops in ops(), at in (0..1u64 << 60).prop_map(|at| at * 8)) {
        let record = build(&ops, Position(at));
        let (check, file) = (HeaderCrc::new(&[1; 16]), Path::new("file"));
        let header = record.header(Position(at / 2));
        let encoded = header.encode(check);
        prop_assert_eq!(RecordHeader::decode(&encoded, Position(at), check), Ok(header));
        let body = body(&record);
        prop_assert_eq!((encoded.len() + body.len()) as u64, record.len());
        let read = Record::decode(&header, &body, file).expect("sound");
        let changes: Vec<_> = read.changes().collect::<Result<_, _>>().expect("sound");
        prop_assert_eq!(changes.len(), ops.len());
        for (change, op) in changes.iter().zip(&ops) {
            match (change, op) {
                (Change::Put { key, value }, Op::Put(k, v)) => prop_assert_eq!((*key, *value), (&k[..], &v[..])),
                (Change::Delete { key }, Op::Delete(k)) => prop_assert_eq!(*key, &k[..]),
                (Change::Free(piece), Op::Free(position, len, crc)) => {
                    prop_assert_eq!(*piece, PieceLocation { position: Position(*position), len: *len, crc: *crc });
                }
                (Change::Piece(piece), Op::Piece(bytes)) => {
                    prop_assert_eq!(read.bytes(*piece), Some(&bytes[..]));
                    prop_assert_eq!(piece.crc, record::crc(bytes));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// Valid checksums around any rows: iteration ends, and never with a panic.
    #[test]
    fn any_bytes_of_rows_are_read_or_refused(rows in proptest::collection::vec(0..6u8, 0..80)) {
        let header = RecordHeader {
            total: (48 + rows.len() as u32).next_multiple_of(8),
            position: Position(64), synced: Position(0), epoch: 1, kind: 1, version: 1, flags: 0,
            pieces_len: 0, rows_len: rows.len() as u32, body_crc: 0,
        };
        let mut body = rows.clone();
        body.resize(header.total as usize - 48, 0);
        let header = RecordHeader { body_crc: record::crc(&body), ..header };
        let record = Record::decode(&header, &body, Path::new("file")).expect("sound");
        let changes: Vec<_> = record.changes().collect();
        prop_assert!(changes.iter().rev().skip(1).all(Result::is_ok), "nothing comes after an error");
    }
}

/// The CRC over parts is that over the whole, and the polynomial is Castagnoli's.
#[test]
fn checksums_are_crc32c() {
    assert_eq!(record::crc(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    let record = build(&[Op::Piece(b"1234".to_vec()), Op::Put(b"a".to_vec(), b"b".to_vec())], Position(8));
    let header = record.header(Position(0));
    assert_eq!(header.body_crc, record::crc(&body(&record)));
    let id = *b"0123456789abcdef";
    let encoded = header.encode(HeaderCrc::new(&id));
    let whole = [&id[..], &encoded[..44]].concat();
    assert_eq!(encoded[44..], record::crc(&whole).to_le_bytes());
}

/// The bytes written equal the example of `docs/storage.md`, except for the checksums.
#[test]
fn the_layout_is_that_of_the_documents() {
    let mut record = NewRecord::new(RecordKind::Commit, 3, Position(0x1000));
    record.add_piece(b"pieces".to_vec());
    record.put(b"k", b"vv");
    let header = record.header(Position(0x800)).encode(HeaderCrc::new(&[0; 16]));
    let bytes = [&header[..], &body(&record)].concat();
    let document = include_str!("../../../../docs/storage.md");
    let example = document.split("```text").nth(1).and_then(|rest| rest.split("```").next());
    let example: Vec<_> = example.expect("an example").split_whitespace().collect();
    assert_eq!(example.len(), bytes.len());
    for (at, (byte, shown)) in bytes.iter().zip(example).enumerate() {
        assert!(shown == ".." || shown == format!("{byte:02x}"), "byte {at}: {byte:02x} is shown as {shown}");
    }
    let crc = record::crc(b"pieces").to_le_bytes();
    assert_eq!(bytes[67..71], crc);
}

/// A peer that can store bytes may try to store a record: in a torn tail it would look like a record of the
/// journal.
#[test]
fn stored_bytes_cannot_pass_for_a_record() {
    let dir = temporary();
    let journal = open(dir.path(), 4096);
    append(&journal, 1, 100);
    let outer = journal.end();
    let forged = NewRecord::new(RecordKind::Commit, 1, Position(outer.0 + 48));
    let header = |id: [u8; 16]| forged.header(forged.at()).encode(HeaderCrc::new(&id)).to_vec();
    let mut cases = vec![(header([0; 16]), false), (header(journal.id()), true)];
    let path = files(dir.path()).remove(0);
    drop(journal);
    let sound = std::fs::read(&path).expect("readable");
    for (bytes, is_damage) in cases.drain(..) {
        std::fs::write(&path, &sound).expect("written");
        let journal = open(dir.path(), 4096);
        let mut record = NewRecord::new(RecordKind::Commit, 1, journal.end());
        record.add_piece(bytes);
        record.put(b"torn", &[0; 100]);
        journal.append(&record).expect("appended");
        drop(journal);
        let mut torn = std::fs::read(&path).expect("readable");
        torn[64 + outer.0 as usize + 150] ^= 1;
        std::fs::write(&path, &torn).expect("written");
        match open_from(dir.path(), 4096, Position(0)) {
            Ok(journal) => assert!(!is_damage && journal.end() == outer),
            Err(error) => assert!(is_damage, "{error}"),
        }
    }
}
