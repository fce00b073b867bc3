//! Giving the space of dead pieces back: what is live in a segment that is mostly dead is copied to the journal's end, so that the
//! segment can go at the next checkpoint.
//!
//! * A segment that dies by itself, as those of a log with a retention do, is never copied.
//! * A step copies a bounded number of bytes, between commits: the rate of copying follows that of commits.
//! * What is copied is durable before its row points at the copy.
//! * A segment that cannot be read stays as it is, and is not tried again in this run: it costs space, not the store.

use std::collections::BTreeSet;

use super::engine::{Batch, Engine, EngineError, piece_of};
use super::journal::{Change, Position, SegmentInfo};
use super::live::Counts;
use super::log_entry::LogEntry;

/// Bytes of records that are looked through in one step, and copied at most: a part of a small segment, so that records fill it.
const STEP_BYTES: u64 = 256 << 10;
/// What a piece takes in the journal besides its bytes, about: the row that points at it, and that its old place is free. Copying does
/// not save it, so without it small pieces would look like garbage, and be copied for ever.
const PIECE_OVERHEAD: u64 = 96;
/// Segments are copied while the journal takes more than this part, in percent, of what is live in it, and two segments.
const BOUND_PERCENT: u64 = 125;
/// Only a segment of which at most this part, in percent, is live is worth copying.
const WORTH_PERCENT: u64 = 80;

/// The copying of one segment. Owned by the committer.
#[derive(Default)]
pub(super) struct Reclaimer {
    /// From where on it is still to be looked through, and its end; `None`: none is being copied.
    under_way: Option<(Position, Position)>,
    /// The first positions of segments that could not be read: at most as many as there are segments.
    unreadable: BTreeSet<Position>,
}

impl Reclaimer {
    /// Copies a little, if that gives space back; whether there is more to do at once.
    pub(super) fn step(&mut self, engine: &Engine) -> Result<bool, EngineError> {
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
                tracing::error!(%error, position = from.0, "a segment of the journal cannot be read; its space is not given back");
                self.unreadable.extend(engine.journal().segment_of(from));
                self.under_way = None;
            }
        }
        Ok(true)
    }
}

/// Copies everything that is live to the journal's end, so that nothing else is left at the next checkpoint; for a store without a
/// daemon.
pub(super) fn all(engine: &Engine) -> Result<(), EngineError> {
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

/// The segment that gives most space back for what has to be copied, where the journal takes more than [`BOUND_PERCENT`] of what is
/// live: its first position and its end.
fn candidate(engine: &Engine, unreadable: &BTreeSet<Position>) -> Option<(Position, Position)> {
    let mut segments = engine.segments();
    segments.retain(|(segment, _)| !unreadable.contains(&segment.first));
    let needed = |live: &Counts| live.bytes.saturating_add(live.pieces.saturating_mul(PIECE_OVERHEAD));
    let live: u64 = segments.iter().map(|(_, live)| needed(live)).sum();
    let size = |first: Position, end: Position| end.0 - first.0;
    // Those without live pieces go by themselves, and those of the end are still written to.
    let kept: Vec<_> =
        segments.iter().filter(|(segment, live)| segment.is_sealed && live.pieces > 0).collect();
    let taken: u64 = kept.iter().map(|(segment, _)| size(segment.first, segment.end)).sum();
    if taken <= live.saturating_mul(BOUND_PERCENT) / 100 {
        return None;
    }
    let part = |(segment, live): &&&(SegmentInfo, Counts)| {
        needed(live).saturating_mul(100) / size(segment.first, segment.end).max(1)
    };
    let best = kept.iter().min_by_key(part)?;
    (part(&best) <= WORTH_PERCENT).then_some((best.0.first, best.0.end))
}

/// What copies the live pieces of the records from `from` to `until`; and where to go on.
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
        // Live is only what the log still points at.
        if engine.get(&key)?.is_some_and(|row| row.as_ref() == value.as_slice())
            && let Ok(entry) = LogEntry::read(&value)
        {
            let bytes = engine.piece(&entry.piece)?;
            batch.replace_piece(key, &entry, bytes, entry.head);
        }
    }
    Ok((batch, if next == from { until } else { next }))
}
