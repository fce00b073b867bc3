//! What the fuzzer and the benchmark outside of the crate may do with a journal; nothing else uses it.
//!
//! * [`Recorder`] makes files byte by byte, with sound checksums around whatever it is given.
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

/// What a record says about itself; lengths, position and checksums are filled in.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// How far before its own position it says that everything was on the disk, bytes.
    pub unsynced: u64,
    /// Never less than that of the record before.
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
    /// A segment that begins at position `first`, with nothing but its header.
    #[must_use]
    pub fn new(first: u64, epoch: u32) -> Recorder {
        let header = segment::Header { id: ID, first: Position(first), epoch };
        Recorder { first, bytes: header.encode().to_vec() }
    }

    /// The position at which the next byte lies.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.first + (self.bytes.len() as u64).saturating_sub(segment::HEADER)
    }

    /// Adds a record with sound checksums around `body`.
    pub fn record(&mut self, fields: Fields, body: &[u8]) {
        let mut body = body.to_vec();
        let rows_len = (body.len() as u32).saturating_sub(fields.pieces_len);
        body.resize(body.len().next_multiple_of(record::ALIGN as usize), 0);
        let position = self.position();
        let header = record::Header {
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

/// A record as it was read: where it lies, and what it says, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where it begins.
    pub position: u64,
    /// Where the next begins.
    pub end: u64,
    /// What it is about.
    pub kind: u8,
    /// Its changes; `None` where they end in an error.
    pub changes: Vec<Option<String>>,
}

/// The disk without its syncs.
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

/// Opens the journal in `dir` from position `from`: its records and its end.
///
/// # Errors
/// Why it was refused, for a person.
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

/// Where the segment that begins at `first` lies in `dir`.
#[must_use]
pub fn path(dir: &Path, first: u64) -> std::path::PathBuf {
    segment::path(dir, Position(first))
}

/// A journal that records of one piece are appended to.
pub struct Appender {
    journal: Journal,
    record: NewRecord,
}

impl Appender {
    /// A journal in `dir`, on the real disk.
    ///
    /// # Errors
    /// As the disk gives them.
    pub fn open(dir: &Path, segment_bytes: u64) -> io::Result<Appender> {
        let options = Options { dir: dir.to_owned(), segment_bytes, end: None, id: None, io: Arc::new(Disk) };
        let journal = Journal::open(options, Position(0), &mut |_| Ok(())).map_err(other)?;
        let record = NewRecord::new(RecordKind::Commit, 1, journal.end());
        Ok(Appender { journal, record })
    }

    /// Appends a record with `piece` and a row of 64 bytes. Segments that are full are removed.
    ///
    /// # Errors
    /// As the disk gives them.
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

    /// Brings what was appended to the disk.
    ///
    /// # Errors
    /// As the disk gives them.
    pub fn sync(&self) -> io::Result<()> {
        self.journal.sync().map(|_| ()).map_err(other)
    }
}

fn other(error: JournalError) -> io::Error {
    io::Error::other(error)
}
