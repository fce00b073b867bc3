//! Reads a journal without a writer from its first segment to its last and changes nothing. Verification and
//! restore use it.
//!
//! * Everything that is wrong is passed to the caller, and reading continues with the next segment.
//! * The end is judged as an opening judges it (`recover.rs`): a torn tail is not part of the journal's
//!   records and is no damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::JournalError;
use super::layout::Position;
use super::record::{HeaderCrc, Record};
use super::scan::{self, Scan};
use super::segment::{self, SegmentInfo, first_positions, offset};
use crate::store::disk::Io;

/// What the reader finds.
pub(crate) enum Visit<'a> {
    /// A segment, before its records; the last one with the length of its file.
    Segment(SegmentInfo),
    /// A sound record.
    Record(&'a Record<'a>),
    /// The journal ends at this position, and bytes that are no record follow.
    Torn(Position),
    /// Bytes that fail their check, or a missing segment.
    Damaged(JournalError),
}

/// The callback for what is found.
pub(crate) type Visitor<'v> = dyn FnMut(Visit<'_>) -> Result<(), JournalError> + 'v;

/// The part of a journal to read.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// From this position on every segment must exist, unless reading ends before.
    pub(crate) from: Position,
    /// Where reading ends; `None` for the journal's end.
    pub(crate) until: Option<Position>,
    /// Whether existing segments before `from` are read, too.
    pub(crate) is_whole: bool,
}

/// Reads the records of the journal in `dir`. Returns the journal's id and where it ends.
///
/// # Errors
/// Errors of the disk and of `visit`. Damage is passed to `visit` instead.
pub(crate) fn check(
    dir: &Path,
    io: &Arc<dyn Io>,
    Extent { from, until, is_whole }: Extent,
    visit: &mut Visitor<'_>,
) -> Result<([u8; 16], Position), JournalError> {
    let firsts = first_positions(dir).map_err(|error| JournalError::io(&error))?;
    let missing = |from, to| JournalError::Missing { from, to, dir: dir.to_owned() };
    let (mut id, mut end, mut epoch) = (None, Position(0), 0);
    let needed = firsts.partition_point(|first| *first <= from);
    if needed == 0 && until.is_none_or(|until| until > from) {
        let to = firsts.first().copied().unwrap_or(from);
        visit(Visit::Damaged(missing(from, to)))?;
    }
    let skipped = if is_whole { 0 } else { needed.saturating_sub(1) };
    for (at, first) in firsts.iter().copied().enumerate().skip(skipped) {
        if until.is_some_and(|until| first >= until) && at > 0 {
            break;
        }
        let path = segment::path(dir, first);
        let file = Arc::new(io.open(&path, false).map_err(|error| JournalError::io(&error))?);
        let len = file.metadata().map_err(|error| JournalError::io(&error))?.len();
        let file_end = Position(first.0.saturating_add(len.saturating_sub(segment::HEADER)));
        let next = firsts.get(at + 1).copied();
        let header = match scan::header_of(&**io, &file, first, &path) {
            Ok(header) => header,
            // A power cut leaves this on a disk that does not keep the order of writes. An opening removes
            // it.
            Err(JournalError::Damaged { .. }) if next.is_none() && scan::is_blank(&**io, &file)? => break,
            Err(error @ JournalError::Damaged { .. }) => {
                visit(Visit::Damaged(error))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if header.id != *id.get_or_insert(header.id) {
            let what = "the segment is of another journal";
            visit(Visit::Damaged(JournalError::damaged(first, what, &path)))?;
            continue;
        }
        let mut limit = next.map_or(file_end, |next| next.min(file_end));
        if let Some(next) = next.filter(|next| limit < *next && *next > from) {
            visit(Visit::Damaged(missing(limit, next)))?;
        }
        limit = until.map_or(limit, |until| until.min(limit));
        let is_sealed = next.is_some() || until.is_some();
        visit(Visit::Segment(SegmentInfo { first, end: limit, is_sealed, bytes: len }))?;
        let scan = Scan::new(io.clone(), file, path, HeaderCrc::new(&header.id), (first, limit));
        epoch = header.epoch.max(epoch);
        end = records(scan, (first, limit), is_sealed, &mut epoch, visit)?;
    }
    if let Some(until) = until.filter(|until| end < *until) {
        visit(Visit::Damaged(missing(end, until)))?;
    }
    // What the state holds was durable, so this is no torn tail.
    if until.is_none() && end < from {
        visit(Visit::Damaged(JournalError::Beyond { position: from, end }))?;
    }
    Ok((id.unwrap_or_default(), end))
}

/// Reads the records of one segment. Returns where they end.
fn records(
    mut scan: Scan,
    (first, limit): (Position, Position),
    is_sealed: bool,
    epoch: &mut u32,
    visit: &mut Visitor<'_>,
) -> Result<Position, JournalError> {
    let (mut at, mut synced) = (first, first);
    let path = scan.path().to_owned();
    while at < limit {
        let error = match scan.record(at) {
            Ok(record) if record.epoch < *epoch => {
                JournalError::damaged(at, "the record's epoch is older than the one before", &path)
            }
            Ok(record) => {
                *epoch = record.epoch;
                synced = synced.max(record.synced);
                visit(Visit::Record(&record))?;
                at = record.end;
                continue;
            }
            Err(error @ JournalError::Damaged { .. }) => error,
            Err(error) => return Err(error),
        };
        let tail = scan.tail(at)?;
        if !is_sealed && tail.is_blank {
            break;
        }
        if is_sealed || synced > at || tail.synced.is_some_and(|later| later > at) {
            visit(Visit::Damaged(error))?;
            // Its segment ends where the next one starts, whatever it contains.
            return Ok(if is_sealed { limit } else { at });
        }
        visit(Visit::Torn(at))?;
        break;
    }
    Ok(at)
}

/// The path of the segment in `dir` that starts at `first`, and the number of its bytes up to position `end`.
pub(crate) fn file_of(dir: &Path, first: Position, end: Position) -> (PathBuf, u64) {
    (segment::path(dir, first), offset(first, end))
}

/// Creates an empty journal with the id `id` in the directory `dir` that continues at `first`. It is durable
/// on return.
///
/// # Errors
/// Errors of the disk.
pub(crate) fn begin(dir: &Path, io: &dyn Io, id: [u8; 16], first: Position) -> Result<(), JournalError> {
    let header = segment::SegmentHeader { id, first, epoch: 0 };
    segment::make(io, dir, &header, segment::HEADER, segment::HEADER)?;
    segment::publish(io, dir, first)
}

/// Makes the closed journal in `dir` end at `end`, the end of a record. This is durable on return.
///
/// # Errors
/// Errors of the disk.
pub(crate) fn cut(dir: &Path, io: &dyn Io, end: Position) -> Result<(), JournalError> {
    let firsts = first_positions(dir).map_err(|error| JournalError::io(&error))?;
    // The last segments are removed first, so that the rest is a valid journal at any moment.
    for first in firsts.iter().rev().copied() {
        let path = segment::path(dir, first);
        if first >= end && firsts.first() != Some(&first) {
            io.remove(&path).map_err(|error| JournalError::io(&error))?;
            continue;
        }
        let file = io.open(&path, true).map_err(|error| JournalError::io(&error))?;
        io.truncate(&file, offset(first, end)).map_err(|error| JournalError::io(&error))?;
        io.sync_all(&file).map_err(|error| JournalError::sync(&error))?;
        break;
    }
    io.sync_dir(dir).map_err(|error| JournalError::sync(&error))
}
