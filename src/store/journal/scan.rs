//! Reads and checks the records of one segment, one after the other.
//!
//! * Invalid bytes are returned with the reason. [`super::recover`] decides whether that is the end, a torn
//!   tail or damage.
//! * It holds one stretch of the file in memory: [`CHUNK`] bytes, or one record if that is longer.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::JournalError;
use super::layout::Position;
use super::record::{self, ALIGN, HEADER, HeaderCrc, MAGIC, Record};
use super::segment::{self, offset, read_full};
use crate::store::disk::Io;

/// Bytes read at once if whole records are needed.
pub(super) const CHUNK: usize = 1 << 20;
/// Bytes read at once if only headers are needed: several pages of small records, and little waste before a
/// long one.
pub(super) const HEADERS_CHUNK: usize = 16 << 10;

/// Size of a page of the kernel's cache in bytes, or a multiple.
const PAGE: u64 = 4096;

/// A sound header, or why the bytes are no header.
pub(super) type Checked = Result<record::RecordHeader, &'static str>;

/// What comes after the last record.
pub(super) struct Tail {
    /// The largest `synced` of all sound headers.
    pub(super) synced: Option<Position>,
    /// Whether every byte is zero.
    pub(super) is_blank: bool,
}

/// Reads one segment.
pub(super) struct Scan {
    io: Arc<dyn Io>,
    file: Arc<File>,
    path: PathBuf,
    first: Position,
    /// Upper bound of the segment's end.
    limit: Position,
    check: HeaderCrc,
    /// The bytes from position `at` on.
    buf: Vec<u8>,
    at: Position,
    /// Bytes that are read at once.
    pub(super) chunk: usize,
}

impl Scan {
    pub(super) fn new(
        io: Arc<dyn Io>,
        file: Arc<File>,
        path: PathBuf,
        check: HeaderCrc,
        (first, limit): (Position, Position),
    ) -> Scan {
        Scan { io, file, path, first, limit, check, buf: Vec::new(), at: first, chunk: CHUNK }
    }

    /// The bytes from `at` on: at least `need` of them, or fewer at the end of the segment.
    fn bytes(&mut self, at: Position, need: usize) -> Result<&[u8], JournalError> {
        let need = need.min(usize::try_from(self.limit.0.saturating_sub(at.0)).unwrap_or(usize::MAX));
        let known = at.0.checked_sub(self.at.0).and_then(|skip| usize::try_from(skip).ok());
        let known = known.filter(|skip| *skip <= self.buf.len());
        if known.is_none_or(|skip| self.buf.len() - skip < need) {
            match known {
                Some(skip) => drop(self.buf.drain(..skip)),
                None => self.buf.clear(),
            }
            self.at = at;
            let have = self.buf.len();
            let most = usize::try_from(self.limit.0.saturating_sub(at.0)).unwrap_or(usize::MAX);
            let from = offset(self.first, Position(at.0 + have as u64));
            // Read whole pages: the kernel reads these anyway, and `lseek` then reports them as data.
            let begin = offset(self.first, at);
            let wanted = begin.saturating_add(need.max(self.chunk) as u64).next_multiple_of(PAGE) - begin;
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            self.buf.resize(wanted.min(most).max(have), 0);
            let room = self.buf.get_mut(have..).unwrap_or_default();
            let read = match read_full(&*self.io, &self.file, room, from) {
                Ok(read) => read,
                Err(error) => {
                    self.buf.clear();
                    return Err(JournalError::io(&error));
                }
            };
            self.buf.truncate(have + read);
        }
        let skip = usize::try_from(at.0 - self.at.0).unwrap_or(usize::MAX);
        Ok(self.buf.get(skip..).unwrap_or_default())
    }

    /// The header of the record at `at`.
    pub(super) fn header(&mut self, at: Position) -> Result<Checked, JournalError> {
        let (check, limit) = (self.check, self.limit);
        let header = record::RecordHeader::decode(self.bytes(at, HEADER)?, at, check);
        Ok(header.and_then(|header| match header.end() <= limit {
            true => Ok(header),
            false => Err("the record goes beyond the end of its segment"),
        }))
    }

    /// The record at `at`; an invalid one is [`JournalError::Damaged`].
    pub(super) fn record(&mut self, at: Position) -> Result<Record<'_>, JournalError> {
        let header = match self.header(at)? {
            Ok(header) => header,
            Err(what) => return Err(JournalError::damaged(at, what, &self.path)),
        };
        self.bytes(at, header.total as usize)?;
        let skip = usize::try_from(at.0 - self.at.0).unwrap_or(usize::MAX).saturating_add(HEADER);
        Record::decode(&header, self.buf.get(skip..).unwrap_or_default(), &self.path)
    }

    /// Examines everything from `from` on, where no record starts.
    pub(super) fn tail(&mut self, from: Position) -> Result<Tail, JournalError> {
        let finder = memchr::memmem::Finder::new(&MAGIC);
        let (mut at, mut tail) = (from, Tail { synced: None, is_blank: true });
        while let Some(data) = self.next_data(at)? {
            // A header may cross the end of the previous stretch.
            let across = Position(at.0.saturating_sub(HEADER as u64 - 1)).max(from);
            let start = if data == at { across } else { data };
            let check = self.check;
            let bytes = self.bytes(start, CHUNK)?;
            let end = Position(start.0 + bytes.len() as u64);
            tail.is_blank &= bytes.iter().all(|byte| *byte == 0);
            for found in finder.find_iter(bytes) {
                let position = Position(start.0 + found as u64);
                let rest = bytes.get(found..).unwrap_or_default();
                let is_aligned = position > from && position.0.is_multiple_of(ALIGN);
                if let Some(Ok(header)) =
                    is_aligned.then(|| record::RecordHeader::decode(rest, position, check))
                {
                    tail.synced = tail.synced.max(Some(header.synced));
                }
            }
            if end <= at {
                break; // the end of the file
            }
            at = end;
        }
        Ok(tail)
    }

    /// The first position from `at` on that the file system does not know to be zero; `None` at the end of
    /// the segment.
    fn next_data(&self, at: Position) -> Result<Option<Position>, JournalError> {
        if at >= self.limit {
            return Ok(None);
        }
        let from = offset(self.first, at);
        let data = self.io.next_data(&self.file, from).map_err(|error| JournalError::io(&error))?;
        let position = |data: u64| Position(at.0.saturating_add(data.saturating_sub(from)));
        Ok(data.map(position).filter(|position| *position < self.limit))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Returns true if `file` has only zero bytes.
pub(super) fn is_blank(io: &dyn Io, file: &File) -> Result<bool, JournalError> {
    let (mut buf, mut at) = (vec![0; CHUNK], 0);
    loop {
        let read = read_full(io, file, &mut buf, at).map_err(|error| JournalError::io(&error))?;
        if buf.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
        at += read as u64;
    }
}

/// The header of the segment in `file`.
pub(super) fn header_of(
    io: &dyn Io,
    file: &File,
    first: Position,
    path: &std::path::Path,
) -> Result<segment::SegmentHeader, JournalError> {
    let mut bytes = [0; segment::HEADER as usize];
    let read = read_full(io, file, &mut bytes, 0).map_err(|error| JournalError::io(&error))?;
    segment::SegmentHeader::decode(bytes.get(..read).unwrap_or_default(), first, path)
}
