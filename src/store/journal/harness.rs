//! What the fuzzer and the benchmark outside of the crate may do with a journal. Nothing else uses it.
//!
//! * [`Recorder`] makes files byte by byte, with valid checksums around any content.
//! * [`read`] opens such files as the store does, on a disk that does not sync.
//! * [`Appender`] appends to the real disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, HeaderCrc};
use super::{Change, Journal, JournalError, NewRecord, Options, Position, RecordKind, segment};
use crate::store::disk::{Disk, Io};

/// The id of every journal that is made here.
const ID: [u8; 16] = [7; 16];

/// Bytes of a segment file, built from parts.
#[derive(Debug, Clone)]
pub struct Recorder {
    first: u64,
    bytes: Vec<u8>,
}

/// The header fields of a record. Lengths, position and checksums are filled in.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// How far before its own position everything was durable, in bytes.
    pub unsynced: u64,
    /// Never less than that of the previous record.
    pub epoch: u32,
    /// 1 and 2 are known.
    pub kind: u8,
    /// 1 is known.
    pub version: u8,
    /// 0 is known.
    pub flags: u16,
    /// How many bytes of the body are pieces; the rest are rows.
    pub pieces_len: u32,
}

impl Recorder {
    /// An empty segment that starts at position `first`.
    #[must_use]
    pub fn new(first: u64, epoch: u32) -> Recorder {
        let header = segment::SegmentHeader { id: ID, first: Position(first), epoch };
        Recorder { first, bytes: header.encode().to_vec() }
    }

    /// The position of the next byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.first + (self.bytes.len() as u64).saturating_sub(segment::HEADER)
    }

    /// Adds a record with valid checksums around `body`.
    pub fn record(&mut self, fields: Fields, body: &[u8]) {
        let mut body = body.to_vec();
        let rows_len = (body.len() as u32).saturating_sub(fields.pieces_len);
        body.resize(body.len().next_multiple_of(record::ALIGN as usize), 0);
        let position = self.position();
        let header = record::RecordHeader {
            total: (record::HEADER + body.len()) as u32,
            position: Position(position),
            synced: Position(position.saturating_sub(fields.unsynced)),
            epoch: fields.epoch,
            kind: fields.kind,
            version: fields.version,
            flags: fields.flags,
            pieces_len: fields.pieces_len,
            rows_len,
            body_crc: record::crc(&body),
        };
        self.bytes.extend(header.encode(HeaderCrc::new(&ID)));
        self.bytes.append(&mut body);
    }

    /// The file so far.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where it starts.
    pub position: u64,
    /// Where the next one starts.
    pub end: u64,
    /// Its kind.
    pub kind: u8,
    /// Its changes, one line each; `None` for an error, which is the last.
    pub changes: Vec<Option<String>>,
}

/// A disk that does not sync.
struct Unsynced;

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

/// Opens the journal in `dir` from position `from`. Returns its records and its end.
///
/// # Errors
/// Why it was refused, for a person to read.
pub fn read(dir: &Path, from: u64) -> Result<(Vec<ReadRecord>, u64), String> {
    let options =
        Options { dir: dir.to_owned(), segment_bytes: 1 << 16, end: None, id: None, io: Arc::new(Unsynced) };
    let mut records = Vec::new();
    let journal = Journal::open(options, Position(from), &mut |record| {
        let say = |change: Change<'_>| match change {
            Change::Piece(piece) => format!("{piece:?} {:?}", record.bytes(piece)),
            other => format!("{other:?}"),
        };
        let changes = record.changes().map(|change| change.ok().map(say)).collect();
        let (position, end) = (record.position.0, record.end.0);
        records.push(ReadRecord { position, end, kind: record.kind as u8, changes });
        Ok(())
    });
    let journal = journal.map_err(|error| error.to_string())?;
    let mut again = journal.records(Position(from), journal.end());
    while let Some(record) = again.next() {
        record.map_err(|error| format!("read again: {error}"))?;
    }
    Ok((records, journal.end().0))
}

/// The path of the segment that starts at `first` in `dir`.
#[must_use]
pub fn path(dir: &Path, first: u64) -> std::path::PathBuf {
    segment::path(dir, Position(first))
}

/// A journal to which records of one piece are appended.
pub struct Appender {
    journal: Journal,
    record: NewRecord,
}

impl Appender {
    /// Opens a journal in `dir` on the real disk.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn open(dir: &Path, segment_bytes: u64) -> io::Result<Appender> {
        let options = Options { dir: dir.to_owned(), segment_bytes, end: None, id: None, io: Arc::new(Disk) };
        let journal = Journal::open(options, Position(0), &mut |_| Ok(())).map_err(other)?;
        let record = NewRecord::new(RecordKind::Commit, 1, journal.end());
        Ok(Appender { journal, record })
    }

    /// Appends a record with `piece` and a row of 64 bytes. Full segments are removed.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn append(&mut self, piece: Bytes) -> io::Result<()> {
        self.record.reset(RecordKind::Commit, 1, self.journal.end());
        self.record.add_piece(piece);
        self.record.put(&[1; 17], &[2; 47]);
        self.journal.append(&self.record).map_err(other)?;
        for segment in self.journal.segments().iter().filter(|segment| segment.is_sealed) {
            self.journal.remove(segment.first).map_err(other)?;
        }
        Ok(())
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.journal.sync().map(|_| ()).map_err(other)
    }
}

fn other(error: JournalError) -> io::Error {
    io::Error::other(error)
}
