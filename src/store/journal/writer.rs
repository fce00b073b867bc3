//! Appending, syncing, and continuing in a new segment.
//!
//! * A record that could not be written leaves the end unchanged. The next record is written over its
//!   remains.
//! * A segment is sealed (cut at its end, durably) before the next one gets its name, and takes no record
//!   after that.
//! * After a failed sync, the kernel may have dropped what it could not write, and report no error the next
//!   time. So the journal is cut back to what is durable, and refuses everything until it is opened again.
//! * Lock order: `syncing` before `writer`, never the other way round.

use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use super::Journal;
use super::error::JournalError;
use super::layout::Position;
use super::newest;
use super::record::{NewRecord, RecordKind};
use super::segment::{self, Segment, offset};

/// Where the next record goes.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    /// First position of the segment.
    pub(super) first: Position,
    /// Bytes of the file that are reserved on disk.
    pub(super) allocated: u64,
    /// Whether the file system can reserve space for bytes that are not written yet.
    pub(super) can_allocate: bool,
    /// The newest epoch of the journal.
    pub(super) epoch: u32,
    /// Whether the segment was sealed and the next one could not be created.
    pub(super) is_sealed: bool,
    /// The error of a failed sync. After it nothing is accepted.
    pub(super) failed: Option<JournalError>,
    /// Whether the journal could not be cut back after that error.
    pub(super) is_uncut: bool,
}

impl Journal {
    /// Writes `record` at the end. Returns where it ends; it is not durable before the next
    /// [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError::Space`], [`JournalError::Disk`], [`JournalError::Io`]: the journal is unchanged, and
    /// the same record may be tried again. `TooLong`, `KeyTooLong`, `Moved`, `OldEpoch`: the record can never
    /// be appended. After a failed sync, its error.
    pub(crate) fn append(&self, record: &NewRecord) -> Result<Position, JournalError> {
        record.check()?;
        let mut writer = self.writer.lock();
        if self.is_full(&writer, record) {
            drop(writer);
            let _syncing = self.syncing.lock();
            writer = self.writer.lock();
            self.check(&mut writer)?;
            if self.is_full(&writer, record) {
                self.roll(&mut writer, record)?;
            }
        }
        self.append_to(&mut writer, record)
    }

    fn append_to(&self, writer: &mut Writer, record: &NewRecord) -> Result<Position, JournalError> {
        self.check(writer)?;
        let end = self.end();
        if record.at() != end {
            return Err(JournalError::Moved { built_for: record.at(), end });
        }
        if record.epoch() < writer.epoch {
            return Err(JournalError::OldEpoch { epoch: record.epoch(), last: writer.epoch });
        }
        let (io, at) = (&*self.options.io, offset(writer.first, end));
        let needed = at.saturating_add(record.len());
        if writer.allocated < needed && writer.can_allocate {
            let wanted = self.options.segment_bytes;
            writer.allocated = at; // space beyond it may be released
            writer.allocated = segment::allocate(io, &writer.file, at, needed, wanted)?;
            writer.can_allocate = writer.allocated > 0;
            self.note_allocated(writer);
        }
        let header = record.header(self.durable()).encode(self.check);
        let mut parts = Vec::with_capacity(1 + record.parts());
        parts.push(IoSlice::new(&header));
        parts.extend(record.body().map(IoSlice::new));
        if let Err(error) = segment::write_all(io, &writer.file, &mut parts, at) {
            self.cut(writer, end);
            return Err(JournalError::io(&error));
        }
        writer.epoch = record.epoch();
        let end = Position(end.0.saturating_add(record.len()));
        self.end.store(end.0, Release); // a reader that loads it finds the bytes written
        Ok(end)
    }

    /// Returns true if `record` must go into a new segment. An empty segment takes a record of any length.
    fn is_full(&self, writer: &Writer, record: &NewRecord) -> bool {
        let end = self.end();
        let needed = offset(writer.first, end).saturating_add(record.len());
        writer.is_sealed || (end != writer.first && needed > self.options.segment_bytes)
    }

    /// Seals the last segment and creates the next one for `record`. The caller holds `syncing`.
    fn roll(&self, writer: &mut Writer, record: &NewRecord) -> Result<(), JournalError> {
        let (io, dir, end) = (&*self.options.io, &self.options.dir, self.end());
        let header =
            segment::SegmentHeader { id: self.id, first: end, epoch: record.epoch().max(writer.epoch) };
        let needed = segment::HEADER.saturating_add(record.len());
        let (file, allocated) = segment::make(io, dir, &header, needed, self.options.segment_bytes)?;
        let len = offset(writer.first, end);
        io.truncate(&writer.file, len).map_err(|error| JournalError::io(&error))?;
        (writer.is_sealed, writer.allocated) = (true, len);
        self.note_allocated(writer);
        if let Err(error) = io.sync_all(&writer.file) {
            return Err(self.fail(writer, JournalError::sync(&error)));
        }
        self.durable.fetch_max(end.0, Release);
        segment::publish(io, dir, end)?;
        io.read_ahead(&writer.file, true);
        let file = Arc::new(file);
        let mut segments = self.segments.write();
        segments.insert(writer.first, Segment { end: Some(end), bytes: len });
        segments.insert(end, Segment { end: None, bytes: allocated });
        drop(segments);
        self.handles.insert(end, file.clone());
        (writer.file, writer.first, writer.allocated, writer.is_sealed) = (file, end, allocated, false);
        newest::note(io, dir, &self.id, end);
        Ok(())
    }

    /// Ends the last segment, so that everything appended is in sealed segments.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub(crate) fn seal(&self) -> Result<(), JournalError> {
        let _syncing = self.syncing.lock();
        let mut writer = self.writer.lock();
        self.check(&mut writer)?;
        if self.end() == writer.first {
            return Ok(());
        }
        let next = NewRecord::new(RecordKind::Maintenance, writer.epoch, self.end());
        self.roll(&mut writer, &next)
    }

    /// The newest epoch of a record.
    pub(crate) fn epoch(&self) -> u32 {
        self.writer.lock().epoch
    }

    /// Releases the reserved space of the last segment beyond its end, if the disk allows it, when the
    /// journal is closed.
    pub(crate) fn release_preallocated(&self) {
        let mut writer = self.writer.lock();
        if writer.failed.is_none() && !writer.is_sealed {
            self.cut(&mut writer, self.end());
        }
    }

    /// Makes everything that was appended before the call durable. Returns the position up to which the
    /// journal is durable.
    ///
    /// # Errors
    /// [`JournalError::Disk`] or [`JournalError::Space`]: the journal was cut back to what is durable, and
    /// everything but reading returns the same error until it is opened again.
    pub(crate) fn sync(&self) -> Result<Position, JournalError> {
        let _syncing = self.syncing.lock();
        let (file, end) = {
            let mut writer = self.writer.lock();
            self.check(&mut writer)?;
            (writer.file.clone(), self.end())
        };
        if self.durable() < end {
            // `writer` is not held, so that the next record may be appended meanwhile.
            if let Err(error) = self.options.io.sync(&file) {
                return Err(self.fail(&mut self.writer.lock(), JournalError::sync(&error)));
            }
            self.durable.fetch_max(end.0, Release);
        }
        Ok(self.durable())
    }

    /// Checks whether the disk accepts data for the last segment after it failed. First cuts off what is not
    /// durable, if that is still to be done.
    ///
    /// # Errors
    /// [`JournalError::Disk`] or [`JournalError::Space`].
    pub(crate) fn probe(&self) -> Result<(), JournalError> {
        let _syncing = self.syncing.lock();
        let mut writer = self.writer.lock();
        self.truncate_to_durable(&mut writer);
        match writer.failed.clone().filter(|_| writer.is_uncut) {
            Some(error) => Err(error),
            None => self.options.io.sync_all(&writer.file).map_err(|error| JournalError::sync(&error)),
        }
    }

    /// Returns the error of the failed sync, if there was one.
    fn check(&self, writer: &mut Writer) -> Result<(), JournalError> {
        let Some(error) = writer.failed.clone() else { return Ok(()) };
        self.truncate_to_durable(writer);
        Err(error)
    }

    /// Records a failed sync. The caller holds `syncing`.
    fn fail(&self, writer: &mut Writer, error: JournalError) -> JournalError {
        self.end.store(self.durable().0, Release); // before the cut, so that readers refuse what is cut off
        (writer.failed, writer.is_uncut) = (Some(error.clone()), true);
        self.truncate_to_durable(writer);
        error
    }

    /// Cuts the journal back to what is durable after a failed sync, so that nothing else is there when it is
    /// opened again. It is tried until it succeeds: with every call that is refused, and last when the
    /// journal is dropped.
    pub(super) fn truncate_to_durable(&self, writer: &mut Writer) {
        if writer.is_uncut {
            let is_cut = self.cut(writer, self.durable()) && self.options.io.sync_all(&writer.file).is_ok();
            writer.is_uncut = !is_cut;
        }
    }

    /// Makes the segment's file end at position `end`, if the disk allows it. Bytes that stay behind it are
    /// no record: the next record is written over them, and a torn tail is cut when the journal is opened.
    fn cut(&self, writer: &mut Writer, end: Position) -> bool {
        let len = offset(writer.first, end);
        let cut = self.options.io.truncate(&writer.file, len);
        match &cut {
            Ok(()) => writer.allocated = writer.allocated.min(len),
            Err(error) => tracing::warn!(%error, "the journal could not be cut back"),
        }
        self.note_allocated(writer);
        cut.is_ok()
    }

    fn note_allocated(&self, writer: &Writer) {
        if let Some(segment) = self.segments.write().get_mut(&writer.first) {
            segment.bytes = writer.allocated;
        }
    }
}
