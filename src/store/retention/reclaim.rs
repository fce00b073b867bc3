//! Reclaiming the space of dead pieces: the live pieces of a mostly dead segment are copied to the journal's
//! end, so that the segment can be removed at the next checkpoint.
//!
//! * A segment whose pieces all die, as in a log with retention, is never copied.
//! * A step copies a bounded number of bytes, between commits. So the rate of copying follows the rate of
//!   commits.
//! * A copy is durable before its row points at it.
//! * A segment that cannot be read stays, and is not tried again in this run: it costs disk space, but the
//!   store continues.

use std::collections::BTreeSet;

use crate::store::engine::{Batch, Engine, EngineError, SegmentCounts};
use crate::store::format::{LogEntry, piece_of};
use crate::store::journal::{Change, Position, SegmentInfo};

/// Bytes of records that one step reads, and the limit of what it copies. It is a part of a small segment, so
/// that records fill the segment.
const STEP_BYTES: u64 = 256 << 10;
/// Estimated overhead of a piece in the journal, in bytes: the row that points at it, and the release of its
/// old location. Copying does not save it. Without it small pieces would look like garbage and be copied
/// forever.
const PIECE_OVERHEAD: u64 = 96;
/// Segments are copied while the journal exceeds this percentage of its live bytes plus two segments.
const BOUND_PERCENT: u64 = 125;
/// A segment is worth copying only if at most this percentage of it is live.
const WORTH_PERCENT: u64 = 80;

/// The copying of one segment. Owned by the committer.
#[derive(Default)]
pub(crate) struct Reclaimer {
    /// The position from which the segment is still to be read, and its end; `None` if no segment is being
    /// copied.
    under_way: Option<(Position, Position)>,
    /// The first positions of segments that could not be read. There are at most as many as segments.
    unreadable: BTreeSet<Position>,
}

impl Reclaimer {
    /// Copies a little if that reclaims space. Returns true if there is more to do at once.
    pub(crate) fn step(&mut self, engine: &Engine) -> Result<bool, EngineError> {
        let (from, end) = match self.under_way {
            Some(under_way) => under_way,
            None => match candidate(engine, &self.unreadable) {
                Some(found) => found,
                None => return Ok(false),
            },
        };
        let until = Position(end.0.min(from.0.saturating_add(STEP_BYTES)));
        match read(engine, from, until) {
            Ok((batch, next)) => {
                if !batch.is_empty() {
                    engine.apply(batch)?;
                }
                self.under_way = (next < end).then_some((next, end));
            }
            Err(error) => {
                tracing::error!(%error, position = from.0, "a segment of the journal cannot be read; its space is not reclaimed");
                self.unreadable.extend(engine.journal().segment_of(from));
                self.under_way = None;
            }
        }
        Ok(true)
    }
}

/// Copies everything live to the journal's end, so that nothing else is left at the next checkpoint. For a
/// store without a daemon.
pub(crate) fn all(engine: &Engine) -> Result<(), EngineError> {
    engine.journal().seal()?;
    for (segment, _) in engine.segments().iter().filter(|(segment, _)| segment.is_sealed) {
        let mut from = segment.first;
        while from < segment.end {
            let until = Position(segment.end.0.min(from.0.saturating_add(STEP_BYTES)));
            let (batch, next) = read(engine, from, until)?;
            if !batch.is_empty() {
                engine.apply(batch)?;
            }
            from = next;
        }
    }
    engine.commit(Batch::default())
}

/// Returns the segment that reclaims the most space for the bytes to copy, if the journal exceeds
/// [`BOUND_PERCENT`] of its live bytes: its first position and its end.
fn candidate(engine: &Engine, unreadable: &BTreeSet<Position>) -> Option<(Position, Position)> {
    let mut segments = engine.segments();
    segments.retain(|(segment, _)| !unreadable.contains(&segment.first));
    let needed = |live: &SegmentCounts| live.bytes.saturating_add(live.pieces.saturating_mul(PIECE_OVERHEAD));
    let live: u64 = segments.iter().map(|(_, live)| needed(live)).sum();
    let size = |first: Position, end: Position| end.0 - first.0;
    // Segments without live pieces are removed anyway, and those at the end are still being written.
    let kept: Vec<_> =
        segments.iter().filter(|(segment, live)| segment.is_sealed && live.pieces > 0).collect();
    let taken: u64 = kept.iter().map(|(segment, _)| size(segment.first, segment.end)).sum();
    if taken <= live.saturating_mul(BOUND_PERCENT) / 100 {
        return None;
    }
    let part = |(segment, live): &&&(SegmentInfo, SegmentCounts)| {
        needed(live).saturating_mul(100) / size(segment.first, segment.end).max(1)
    };
    let best = kept.iter().min_by_key(part)?;
    (part(&best) <= WORTH_PERCENT).then_some((best.0.first, best.0.end))
}

/// Builds a batch that copies the live pieces of the records from `from` to `until`. Also returns where to
/// continue.
fn read(engine: &Engine, from: Position, until: Position) -> Result<(Batch, Position), EngineError> {
    let (mut batch, mut next) = (Batch::default(), from);
    let mut entries = Vec::new();
    let mut records = engine.journal().records(from, until);
    while let Some(record) = records.next() {
        let record = record?;
        for change in record.changes() {
            if let Change::Put { key, value } = change?
                && piece_of(key, value).is_some()
            {
                entries.push((key.to_vec(), value.to_vec()));
            }
        }
        next = record.end;
    }
    for (key, value) in entries {
        // A piece is live only if the log still points at it.
        if engine.get(&key)?.is_some_and(|row| row.as_ref() == value.as_slice())
            && let Ok(entry) = LogEntry::read(&value)
        {
            let bytes = engine.piece(&entry.piece)?;
            batch.replace_piece(key, &entry, bytes, entry.head);
        }
    }
    Ok((batch, if next == from { until } else { next }))
}
