//! Opening a journal: finds its segments and its end, and replays what came after the state's position.
//!
//! * What comes before the end of a synced record must be sound: a segment that has a successor, everything
//!   before `from`, and everything before the `synced` of a later record. Otherwise it is
//!   [`JournalError::Damaged`], and nothing is changed.
//! * A process that opens its journal again knows what it acknowledged ([`Options::end`]). What follows is
//!   cut, so that a failed commit does not come back. If something acknowledged is missing, this is an error.
//!   The end is read from the disk itself, not from the kernel's cache.
//! * The newest segment must exist ([`newest`]). Without this check, the end of the segment before it would
//!   be taken for the journal's end.
//! * Anything else that is invalid is a torn tail, which the crash of a machine leaves. None of it was
//!   acknowledged, so it is cut.
//! * What a process left unsynced may be only in the kernel's memory, and the kernel may have failed to write
//!   it and forgotten that. So the last records are written again and synced before the journal is open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::error::JournalError;
use super::layout::Position;
use super::newest;
use super::options::Options;
use super::record::{HeaderCrc, Record};
use super::scan::{self, HEADERS_CHUNK, Scan};
use super::segment::{self, Segment, offset};

/// Bytes that are rewritten at once.
const REWRITE: usize = 1 << 20;

/// The result of an opening.
pub(super) struct RecoveredJournal {
    pub(super) id: [u8; 16],
    pub(super) segments: BTreeMap<Position, Segment>,
    pub(super) end: Position,
    /// The newest epoch found.
    pub(super) epoch: u32,
    /// The last segment, open for writing.
    pub(super) file: Arc<File>,
    /// Bytes of it that are reserved on disk.
    pub(super) allocated: u64,
}

/// One segment file of the directory.
struct SegmentFile {
    header: segment::SegmentHeader,
    file: Arc<File>,
    /// Length of the file in bytes.
    len: u64,
}

impl SegmentFile {
    /// The position at which its file ends.
    fn file_end(&self) -> Position {
        Position(self.header.first.0.saturating_add(self.len.saturating_sub(segment::HEADER)))
    }
}

/// Finds the segments of `options.dir`, creates the first if there is none, and passes each record from
/// `from` on to `replay`.
pub(super) fn recover(
    options: &Options,
    from: Position,
    replay: &mut dyn FnMut(&Record<'_>) -> Result<(), JournalError>,
) -> Result<RecoveredJournal, JournalError> {
    prepare(options)?;
    let mut files = list(options)?;
    if files.is_empty() {
        let noted = options.id.and_then(|id| newest::read(&*options.io, &options.dir, &id));
        if from != Position(0) || noted.is_some() {
            return Err(JournalError::Missing { from: Position(0), to: from, dir: options.dir.clone() });
        }
        files.push(first_segment(options)?);
    }
    let segments = extents(&files);
    let missing = |from, to| JournalError::Missing { from, to, dir: options.dir.clone() };
    let begin = files.partition_point(|one| one.header.first <= from);
    let (Some(needed), Some(oldest)) = (begin.checked_sub(1).and_then(|at| files.get(at..)), files.first())
    else {
        let to = files.first().map_or(from, |oldest| oldest.header.first);
        return Err(missing(from, to));
    };
    let id = oldest.header.id;
    let last = files.last().map_or(from, |last| last.header.first);
    let noted = newest::read(&*options.io, &options.dir, &id);
    if let Some(gone) = noted.filter(|noted| *noted > last) {
        return Err(missing(gone, gone));
    }
    if options.end.is_some()
        && let Some(last) = needed.last()
    {
        forget_pages(options, last)?;
    }
    let mut state = SegmentWalk { from, id, epoch: 0, end: from, synced: from, is_torn: false };
    for (one, next) in needed.iter().zip(needed.iter().skip(1).map(Some).chain([None])) {
        state.segment(options, one, next, replay)?;
    }
    // Acknowledged records are missing: the disk has lost them, so this is no torn tail.
    if let Some(end) = options.end.filter(|end| state.end < *end) {
        return Err(JournalError::Beyond { position: end, end: state.end });
    }
    let Some(last) = needed.last() else { return Err(missing(from, from)) };
    let allocated = settle(options, last, &state)?;
    if noted != Some(last.header.first) {
        newest::note(&*options.io, &options.dir, &id, last.header.first);
    }
    Ok(RecoveredJournal {
        id,
        segments,
        end: state.end,
        epoch: state.epoch,
        file: last.file.clone(),
        allocated,
    })
}

/// Drops the kernel's cached pages of the last segment: after a failed sync it may mark pages clean that the
/// disk does not have. Earlier segments were synced completely before this one was created.
fn forget_pages(options: &Options, last: &SegmentFile) -> Result<(), JournalError> {
    // Pages that are still dirty cannot be dropped.
    options.io.sync_all(&last.file).map_err(|error| JournalError::sync(&error))?;
    options.io.drop_pages(&last.file).map_err(|error| JournalError::io(&error))
}

/// Creates the directory, and removes what a crash left of a segment that had no name yet.
fn prepare(options: &Options) -> Result<(), JournalError> {
    let (io, dir) = (&*options.io, &*options.dir);
    let made = fs::DirBuilder::new().mode(0o700).create(dir);
    match made {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            io.sync_dir(parent.unwrap_or(Path::new("."))).map_err(|error| JournalError::sync(&error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(JournalError::io(&error)),
    }
    match io.remove(&segment::temporary(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JournalError::io(&error)),
        _ => Ok(()),
    }
}

/// All segments, in the order of their positions; they must be of one journal. Files without a segment's name
/// are left alone.
fn list(options: &Options) -> Result<Vec<SegmentFile>, JournalError> {
    let io = &*options.io;
    let mut firsts = Vec::new();
    for entry in fs::read_dir(&options.dir).map_err(|error| JournalError::io(&error))? {
        let entry = entry.map_err(|error| JournalError::io(&error))?;
        firsts.extend(entry.file_name().to_str().and_then(segment::first_of));
    }
    firsts.sort_unstable();
    let mut files: Vec<SegmentFile> = Vec::with_capacity(firsts.len());
    for (at, first) in firsts.iter().enumerate() {
        let is_last = at + 1 == firsts.len();
        let path = segment::path(&options.dir, *first);
        let file = io.open(&path, is_last).map_err(|error| JournalError::io(&error))?;
        io.read_ahead(&file, !is_last);
        let len = file.metadata().map_err(|error| JournalError::io(&error))?.len();
        let header = match scan::header_of(io, &file, *first, &path) {
            // The name survived, but not the file's contents, on a disk that does not keep the order of
            // writes. Nothing had been written into the segment.
            Err(JournalError::Damaged { .. }) if is_last && scan::is_blank(io, &file)? => {
                tracing::warn!(file = %path.display(), "removed an empty segment of the journal");
                io.remove(&path).map_err(|error| JournalError::io(&error))?;
                io.sync_dir(&options.dir).map_err(|error| JournalError::sync(&error))?;
                return reopen_last(options, files);
            }
            other => other?,
        };
        if options.id.is_some_and(|id| header.id != id) {
            return Err(JournalError::damaged(*first, "it is of another store than the state", &path));
        }
        if files.last().is_some_and(|before| before.header.id != header.id) {
            return Err(JournalError::damaged(*first, "the segment is of another journal", &path));
        }
        if files.last().is_some_and(|before| before.header.epoch > header.epoch) {
            return Err(JournalError::damaged(
                *first,
                "the segment's epoch is older than the one before",
                &path,
            ));
        }
        files.push(SegmentFile { header, file: Arc::new(file), len });
    }
    Ok(files)
}

/// Opens the last of `listed` for writing.
fn reopen_last(options: &Options, mut files: Vec<SegmentFile>) -> Result<Vec<SegmentFile>, JournalError> {
    if let Some(last) = files.last_mut() {
        let path = segment::path(&options.dir, last.header.first);
        last.file = Arc::new(options.io.open(&path, true).map_err(|error| JournalError::io(&error))?);
        options.io.read_ahead(&last.file, false);
    }
    Ok(files)
}

/// Creates the first segment of a new journal.
fn first_segment(options: &Options) -> Result<SegmentFile, JournalError> {
    let id = match options.id {
        Some(id) => id,
        None => {
            let mut id = [0; 16];
            SystemRandom::new().fill(&mut id).map_err(|_| JournalError::Io("no random bytes".into()))?;
            id
        }
    };
    let header = segment::SegmentHeader { id, first: Position(0), epoch: 0 };
    let io = &*options.io;
    let (file, _) = segment::make(io, &options.dir, &header, segment::HEADER, options.segment_bytes)?;
    segment::publish(io, &options.dir, header.first)?;
    let len = file.metadata().map_err(|error| JournalError::io(&error))?.len();
    Ok(SegmentFile { header, file: Arc::new(file), len })
}

/// The positions that each segment holds. If the next segment is missing (before `from` they may be removed
/// in any order), a segment ends with its file.
fn extents(files: &[SegmentFile]) -> BTreeMap<Position, Segment> {
    let next = files.iter().skip(1).map(|next| Some(next.header.first)).chain([None]);
    let extent = |(one, next): (&SegmentFile, Option<Position>)| {
        let end = next.map(|next| next.min(one.file_end()));
        (one.header.first, Segment { end, bytes: one.len })
    };
    files.iter().zip(next).map(extent).collect()
}

/// The state of reading the segments from `from` on.
struct SegmentWalk {
    from: Position,
    id: [u8; 16],
    /// The newest epoch so far.
    epoch: u32,
    /// The end of the last sound record.
    end: Position,
    /// Everything before this is certainly on disk.
    synced: Position,
    /// Whether bytes that are no record come after the end.
    is_torn: bool,
}

impl SegmentWalk {
    /// Reads one segment; `next` is the one that follows it.
    fn segment(
        &mut self,
        options: &Options,
        one: &SegmentFile,
        next: Option<&SegmentFile>,
        replay: &mut dyn FnMut(&Record<'_>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let first = one.header.first;
        let limit = one.file_end();
        // A sealed segment ends where the next one starts.
        if let Some(to) = next.map(|next| next.header.first).filter(|next| *next > limit) {
            return Err(JournalError::Missing { from: limit, to, dir: options.dir.clone() });
        }
        let limit = next.map_or(limit, |next| next.header.first);
        let path = segment::path(&options.dir, first);
        let check = HeaderCrc::new(&self.id);
        let mut scan = Scan::new(options.io.clone(), one.file.clone(), path, check, (first, limit));
        self.grow(one.header.epoch, first, scan.path())?;
        let mut at = first;
        if first < self.from {
            at = self.skip(&mut scan, first)?;
        }
        scan.chunk = scan::CHUNK;
        let until = options.end.unwrap_or(Position(u64::MAX));
        while next.is_none() || at < limit {
            if next.is_none() && at >= until {
                break;
            }
            match self.record(&mut scan, at, replay)? {
                Ok(end) => at = end,
                Err(error) if next.is_some() => return Err(error),
                Err(error) => {
                    self.judge_tail(&mut scan, at, error)?;
                    break;
                }
            }
        }
        self.end = at;
        if next.is_some() {
            self.synced = self.synced.max(at);
        }
        Ok(())
    }

    /// Follows the headers from `first` to `from`, which must be the end of a record. Otherwise journal and
    /// state do not belong together, or the disk has lost what it confirmed.
    fn skip(&mut self, scan: &mut Scan, first: Position) -> Result<Position, JournalError> {
        scan.chunk = HEADERS_CHUNK;
        let mut at = first;
        while at < self.from {
            let header = match scan.header(at)? {
                Ok(header) => header,
                Err(_) if scan.tail(at)?.is_blank => {
                    return Err(JournalError::Beyond { position: self.from, end: at });
                }
                Err(what) => return Err(JournalError::damaged(at, what, scan.path())),
            };
            header.known()?;
            self.grow(header.epoch, at, scan.path())?;
            at = header.end();
        }
        match at == self.from {
            true => Ok(at),
            false => {
                Err(JournalError::damaged(self.from, "no record begins at the state's position", scan.path()))
            }
        }
    }

    fn grow(&mut self, epoch: u32, at: Position, path: &Path) -> Result<(), JournalError> {
        if epoch < self.epoch {
            return Err(JournalError::damaged(at, "the record's epoch is older than the one before", path));
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Passes the record at `at` to `replay`. Returns its end, or why the bytes there are no record.
    fn record(
        &mut self,
        scan: &mut Scan,
        at: Position,
        replay: &mut dyn FnMut(&Record<'_>) -> Result<(), JournalError>,
    ) -> Result<Result<Position, JournalError>, JournalError> {
        let path = scan.path().to_owned();
        let record = match scan.record(at) {
            Ok(record) => record,
            Err(error @ JournalError::Damaged { .. }) => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        self.grow(record.epoch, at, &path)?;
        self.synced = self.synced.max(record.synced);
        replay(&record)?;
        Ok(Ok(record.end))
    }

    /// Decides whether the journal ends at `at`, where `error` was found. It does, unless a later record was
    /// written when these bytes were already durable.
    fn judge_tail(&mut self, scan: &mut Scan, at: Position, error: JournalError) -> Result<(), JournalError> {
        let tail = scan.tail(at)?;
        self.is_torn = !tail.is_blank;
        match tail.synced {
            Some(synced) if synced > at => Err(error),
            _ => Ok(()),
        }
    }
}

/// Cuts what comes after the end, reserves more space, and makes the last records durable. Returns how many
/// bytes are reserved.
fn settle(options: &Options, last: &SegmentFile, state: &SegmentWalk) -> Result<u64, JournalError> {
    let io = &*options.io;
    let first = last.header.first;
    let path = segment::path(&options.dir, first);
    let end = offset(first, state.end);
    let mut allocated = last.len;
    if state.is_torn {
        let bytes = last.len.saturating_sub(end);
        tracing::warn!(file = %path.display(), at = state.end.0, bytes, "cut a torn tail off the journal");
        io.truncate(&last.file, end).map_err(|error| JournalError::io(&error))?;
        io.sync_all(&last.file).map_err(|error| JournalError::sync(&error))?;
        allocated = end;
    }
    let mut at = offset(first, state.synced.max(first));
    let mut buf = vec![0; REWRITE];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(REWRITE).min(REWRITE);
        let part = buf.get_mut(..len).unwrap_or_default();
        let read = segment::read_full(io, &last.file, part, at).map_err(|error| JournalError::io(&error))?;
        if read < len {
            return Err(JournalError::Io("the last segment became shorter while it was read".into()));
        }
        segment::write_all(io, &last.file, &mut [IoSlice::new(part)], at)
            .map_err(|error| JournalError::io(&error))?;
        at += len as u64;
    }
    io.sync_all(&last.file).map_err(|error| JournalError::sync(&error))?;
    io.sync_dir(&options.dir).map_err(|error| JournalError::sync(&error))?;
    Ok(allocated)
}
