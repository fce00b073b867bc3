//! The journal: records in segment files, appended by one thread and made durable by one `fdatasync`.
//!
//! Rules that keep it correct:
//!
//! * A [`Position`] counts the bytes of records since the journal was created. Positions of durable records
//!   are never used again.
//! * A record holds the position up to which everything was durable when it was written (`synced`). That
//!   distinguishes a torn tail, which is cut, from damage, which is refused (`recover.rs`).
//! * Nothing is read beyond the end of what was appended, and nothing that a failed sync left is kept
//!   (`writer.rs`).
//!
//! The bytes are described in `docs/storage.md`; only `record.rs` and `segment.rs` implement them. The
//! journal knows no tenant, event or storage engine: it holds rows and pieces of bytes, and does not know
//! what they mean.

mod check;
mod error;
mod handles;
pub mod harness;
mod layout;
mod newest;
mod options;
mod record;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};

pub(crate) use self::check::{Extent, Visit, begin, check, cut, file_of};
pub(crate) use self::error::JournalError;
pub(crate) use self::layout::{PieceLocation, Position};
pub(crate) use self::options::Options;
pub(crate) use self::record::{Change, NewRecord, Record, RecordKind, crc};
pub(crate) use self::segment::{SegmentInfo, first_positions};

use self::handles::Handles;
use self::layout::MAX_RECORD;
use self::record::HeaderCrc;
use self::scan::Scan;
use self::segment::{Segment, offset};
use self::writer::Writer;
use crate::sync::{Mutex, RwLock};

/// An open journal, shared by one writer and any number of readers.
pub(crate) struct Journal {
    options: Options,
    id: [u8; 16],
    check: HeaderCrc,
    /// Where the next record starts. Written under `writer`.
    end: AtomicU64,
    /// Everything before this position survives power loss. Written under `syncing`.
    durable: AtomicU64,
    /// The segments by first position.
    segments: RwLock<BTreeMap<Position, Segment>>,
    handles: Handles,
    /// Held while the disk is synced. Acquired before `writer`.
    syncing: Mutex<()>,
    writer: Mutex<Writer>,
}

impl Journal {
    /// Opens or creates the journal in `options.dir`. Passes every record from `from` on to `replay`, in
    /// order; `from` must be the end of a record. A torn tail is cut. What was replayed is durable on return.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Missing`], [`JournalError::Newer`] and
    /// [`JournalError::Beyond`] leave the files unchanged. Also errors of the disk, and of `replay`.
    pub(crate) fn open(
        options: Options,
        from: Position,
        replay: &mut dyn FnMut(&Record<'_>) -> Result<(), JournalError>,
    ) -> Result<Journal, JournalError> {
        let found = recover::recover(&options, from, replay)?;
        let Some((&first, _)) = found.segments.last_key_value() else {
            return Err(JournalError::Missing { from, to: from, dir: options.dir });
        };
        let (handles, check) = (Handles::default(), HeaderCrc::new(&found.id));
        handles.insert(first, found.file.clone());
        let writer = Writer {
            file: found.file,
            first,
            allocated: found.allocated,
            can_allocate: true,
            epoch: found.epoch,
            is_sealed: false,
            failed: None,
            is_uncut: false,
        };
        Ok(Journal {
            options,
            id: found.id,
            check,
            end: AtomicU64::new(found.end.0),
            durable: AtomicU64::new(found.end.0),
            segments: RwLock::new(found.segments),
            handles,
            syncing: Mutex::default(),
            writer: Mutex::new(writer),
        })
    }

    /// The journal's id: random, generated when the journal was created.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The path of the segment that starts at `first`.
    pub(crate) fn path_of(&self, first: Position) -> PathBuf {
        segment::path(&self.options.dir, first)
    }

    /// Where the next record starts. A new segment does not change it.
    pub(crate) fn end(&self) -> Position {
        Position(self.end.load(Acquire)) // pairs with the writer's Release: bytes before the end are written
    }

    /// Everything before this position survives power loss.
    pub(crate) fn durable(&self) -> Position {
        Position(self.durable.load(Acquire)) // pairs with the Release after a sync
    }

    /// The bytes of `piece`.
    ///
    /// # Errors
    /// [`JournalError::Beyond`] if it was not appended; [`JournalError::Missing`] if its segment was removed;
    /// [`JournalError::Damaged`] if its checksum does not match or its file is missing; errors of the disk.
    pub(crate) fn read(&self, piece: PieceLocation) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::new();
        self.read_into(piece, &mut bytes)?;
        Ok(bytes)
    }

    /// [`Journal::read`] into `bytes`, whose old contents are replaced, for readers of many pieces. After an
    /// error its contents are unspecified.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub(crate) fn read_into(&self, piece: PieceLocation, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        let (first, file, at) = self.locate(piece)?;
        let damaged = |what| {
            let path = segment::path(&self.options.dir, first);
            Err(JournalError::damaged(piece.position, what, &path))
        };
        if u64::from(piece.len) > MAX_RECORD {
            return damaged("the piece is longer than any record");
        }
        bytes.resize(piece.len as usize, 0);
        let read = segment::read_full(&*self.options.io, &file, bytes, at);
        if read.map_err(|error| JournalError::io(&error))? < bytes.len() {
            return damaged("the segment is shorter than the piece");
        }
        if record::crc(bytes) != piece.crc {
            return damaged("the checksum of the piece does not match");
        }
        Ok(())
    }

    /// The location of the bytes of `piece`: the first position of the segment, its file, and the offset in
    /// the file. This checks only that the piece was appended.
    ///
    /// # Errors
    /// As [`Journal::read`], except for checksums.
    pub(crate) fn locate(&self, piece: PieceLocation) -> Result<(Position, Arc<File>, u64), JournalError> {
        let end = self.end();
        if piece.end() > end {
            return Err(JournalError::Beyond { position: piece.end(), end });
        }
        let missing = || self.missing(piece.position, piece.end());
        let first = self.segment_of(piece.position).ok_or_else(missing)?;
        let gone = || {
            let path = segment::path(&self.options.dir, first);
            JournalError::damaged(piece.position, "the segment file is missing", &path)
        };
        let file = self.file(first)?.ok_or_else(gone)?;
        Ok((first, file, offset(first, piece.position)))
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.segments.read();
        let info = |(first, segment): (&Position, &Segment)| SegmentInfo {
            first: *first,
            end: segment.end.unwrap_or_else(|| self.end()),
            is_sealed: segment.end.is_some(),
            bytes: segment.bytes.max(offset(*first, segment.end.unwrap_or_else(|| self.end()))),
        };
        segments.iter().map(info).collect()
    }

    /// The first position of the last segment.
    pub(crate) fn last_segment(&self) -> Option<Position> {
        self.segments.read().last_key_value().map(|(first, _)| *first)
    }

    /// The first position of the segment that holds `position`; `None` if it was removed, or the position is
    /// beyond the end.
    pub(crate) fn segment_of(&self, position: Position) -> Option<Position> {
        let segments = self.segments.read();
        let (first, segment) = segments.range(..=position).next_back()?;
        let end = segment.end.unwrap_or_else(|| self.end());
        (position < end).then_some(*first)
    }

    /// Removes the sealed segment that starts at `first`. Readers that have its file open can continue.
    /// Removing it again does nothing.
    ///
    /// # Errors
    /// [`JournalError::NotSealed`] for the last one; errors of the disk, after which the segment may or may
    /// not exist after a restart.
    pub(crate) fn remove(&self, first: Position) -> Result<(), JournalError> {
        match self.segments.read().get(&first) {
            Some(Segment { end: None, .. }) => return Err(JournalError::NotSealed(first)),
            Some(_) => match self.options.io.remove(&segment::path(&self.options.dir, first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError::io(&error));
                }
                _ => {}
            },
            None => {}
        }
        self.segments.write().remove(&first);
        self.handles.forget(first);
        self.options.io.sync_dir(&self.options.dir).map_err(|error| JournalError::sync(&error))
    }

    /// The records from `from`, where one must start, up to `to` or the end of the journal.
    pub(crate) fn records(&self, from: Position, to: Position) -> RecordReader<'_> {
        RecordReader { journal: self, at: from, to: to.min(self.end()), scan: None }
    }

    /// The open file of the segment that starts at `first`; `None` if it was removed.
    fn file(&self, first: Position) -> Result<Option<Arc<File>>, JournalError> {
        if let Some(file) = self.handles.get(first) {
            return Ok(Some(file));
        }
        match self.options.io.open(&segment::path(&self.options.dir, first), false) {
            Ok(file) => {
                let file = Arc::new(file);
                self.handles.insert(first, file.clone());
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::io(&error)),
        }
    }

    fn missing(&self, from: Position, to: Position) -> JournalError {
        JournalError::Missing { from, to, dir: self.options.dir.clone() }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let mut writer = self.writer.lock();
        self.truncate_to_durable(&mut writer);
    }
}

/// Reads records in order. It is not an `Iterator`, because a record borrows the reader's buffer.
pub(crate) struct RecordReader<'a> {
    journal: &'a Journal,
    at: Position,
    to: Position,
    /// The segment being read, and where it ends.
    scan: Option<(Scan, Position)>,
}

impl RecordReader<'_> {
    /// The next record; `None` at the end. Nothing comes after an error.
    pub(crate) fn next(&mut self) -> Option<Result<Record<'_>, JournalError>> {
        if self.at >= self.to {
            return None;
        }
        if self.scan.as_ref().is_none_or(|(_, end)| self.at >= *end) {
            match self.open() {
                Ok(scan) => self.scan = Some(scan),
                Err(error) => {
                    self.at = self.to;
                    return Some(Err(error));
                }
            }
        }
        let at = std::mem::replace(&mut self.at, self.to);
        let (scan, _) = self.scan.as_mut()?;
        let record = scan.record(at);
        if let Ok(record) = &record {
            self.at = record.end;
        }
        Some(record)
    }

    fn open(&self) -> Result<(Scan, Position), JournalError> {
        let journal = self.journal;
        let missing = || journal.missing(self.at, self.to);
        let first = journal.segment_of(self.at).ok_or_else(missing)?;
        let end = journal.segments.read().get(&first).ok_or_else(missing)?.end.unwrap_or(self.to);
        let file = journal.file(first)?.ok_or_else(missing)?;
        let path = segment::path(&journal.options.dir, first);
        let scan = Scan::new(journal.options.io.clone(), file, path, journal.check, (first, end));
        Ok((scan, end))
    }
}
