//! Live counts: how much of each segment of the journal is live, that is, pieces that a row of the log points
//! at.
//!
//! * The state has a row for each segment with live pieces. Later changes are in the memtable.
//! * A record changes counts, so it must not be counted twice. A crash may leave a row on disk without the
//!   state's position, which is written after it. So each row holds the position up to which it counts
//!   ([`LiveBytes::counts`]). A row that was removed at zero needs no such mark: counting the same changes from
//!   zero again ends at zero, because counts are never negative.
//! * A segment before the checkpoint without live pieces can be removed.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::error::EngineError;
use super::state::{State, Value};
use crate::ids::TenantId;
use crate::store::format::keys::{self, KeyKind};
use crate::store::journal::{PieceLocation, Position};

const VERSION: u8 = 1;
const LEN: usize = 1 + 3 * 8;

/// A change of a segment's live counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LiveBytesChange {
    pub(crate) bytes: i64,
    pub(crate) pieces: i64,
}

impl std::ops::AddAssign for LiveBytesChange {
    fn add_assign(&mut self, other: LiveBytesChange) {
        self.bytes += other.bytes;
        self.pieces += other.pieces;
    }
}

impl LiveBytesChange {
    /// The change when a piece is added (`sign` 1) or removed (-1).
    pub(crate) fn of(piece: &PieceLocation, sign: i64) -> LiveBytesChange {
        LiveBytesChange { bytes: sign * i64::from(piece.len), pieces: sign }
    }
}

/// The live counts of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentCounts {
    /// Bytes of live pieces.
    pub(crate) bytes: u64,
    /// Number of live pieces.
    pub(crate) pieces: u64,
}

impl SegmentCounts {
    /// These counts after a change.
    pub(crate) fn after(self, change: LiveBytesChange) -> SegmentCounts {
        SegmentCounts {
            bytes: self.bytes.saturating_add_signed(change.bytes),
            pieces: self.pieces.saturating_add_signed(change.pieces),
        }
    }

    /// Decodes the counts of a segment's row.
    pub(crate) fn read(value: &[u8]) -> Option<SegmentCounts> {
        SegmentRow::read(value).map(|row| row.counts)
    }
}

/// The row of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SegmentRow {
    counts: SegmentCounts,
    /// Records that end at or before this position are counted.
    until: Position,
}

impl SegmentRow {
    fn write(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(LEN);
        value.push(VERSION);
        for n in [self.counts.bytes, self.counts.pieces, self.until.0] {
            value.extend_from_slice(&n.to_be_bytes());
        }
        value
    }

    fn read(value: &[u8]) -> Option<SegmentRow> {
        let (&[VERSION], rest) = value.split_first_chunk()? else { return None };
        match rest.as_chunks::<8>() {
            (&[bytes, pieces, until], []) => Some(SegmentRow {
                counts: SegmentCounts {
                    bytes: u64::from_be_bytes(bytes),
                    pieces: u64::from_be_bytes(pieces),
                },
                until: Position(u64::from_be_bytes(until)),
            }),
            _ => None,
        }
    }
}

/// The live counts of every segment, by the segment's first position.
#[derive(Default, Debug)]
pub(crate) struct LiveBytes {
    segments: BTreeMap<Position, SegmentRow>,
}

fn key(segment: Position) -> Vec<u8> {
    keys::key(KeyKind::Segment, TenantId(0), &segment.0.to_be_bytes())
}

impl LiveBytes {
    /// Loads the live counts from the state.
    pub(crate) fn load(state: &State) -> Result<LiveBytes, EngineError> {
        let (from, to) = ([KeyKind::Segment as u8], [KeyKind::Segment as u8 + 1]);
        let mut live = LiveBytes::default();
        for row in state.between((Bound::Included(&from), Bound::Excluded(&to)))? {
            let (key, value) = row?;
            let tail = keys::parse(&key).ok().and_then(|(_, _, tail)| tail.first_chunk().copied());
            match (tail, SegmentRow::read(&value)) {
                (Some(first), Some(row)) => {
                    live.segments.insert(Position(u64::from_be_bytes(first)), row);
                }
                _ => return Err(EngineError::Engine("the row of a segment is damaged".into())),
            }
        }
        Ok(live)
    }

    /// The first positions of segments with live pieces.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Position> {
        self.segments.iter().filter(|(_, row)| row.counts.pieces > 0).map(|(first, _)| *first)
    }

    /// The live counts of one segment.
    pub(crate) fn of(&self, segment: Position) -> SegmentCounts {
        self.segments.get(&segment).map(|row| row.counts).unwrap_or_default()
    }

    /// Returns true if the counts of a segment include the changes of a record that ends at `end`.
    pub(crate) fn counts(&self, segment: Position, end: Position) -> bool {
        self.segments.get(&segment).is_some_and(|row| end <= row.until)
    }

    /// Applies changes of records up to `until`. Returns the rows to write.
    pub(crate) fn apply<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Position, &'a LiveBytesChange)>,
        until: Position,
    ) -> Vec<(Vec<u8>, Option<Value>)> {
        changes
            .map(|(segment, change)| {
                let row = SegmentRow { counts: self.of(*segment).after(*change), until };
                let value = (row.counts != SegmentCounts::default()).then(|| Value::from(row.write()));
                match value {
                    Some(_) => self.segments.insert(*segment, row),
                    None => self.segments.remove(segment),
                };
                (key(*segment), value)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_counts_round_trip_and_a_segment_without_live_pieces_has_no_row() {
        let mut live = LiveBytes::default();
        let segment = Position(64);
        let change = LiveBytesChange { bytes: 100, pieces: 2 };
        let rows = live.apply([(&segment, &change)].into_iter(), Position(500));
        let row = SegmentRow { counts: SegmentCounts { bytes: 100, pieces: 2 }, until: Position(500) };
        assert_eq!(SegmentRow::read(rows[0].1.as_ref().expect("a row")), Some(row));
        assert!(live.counts(segment, Position(500)) && !live.counts(segment, Position(501)));
        assert_eq!(live.of(segment), SegmentCounts { bytes: 100, pieces: 2 });
        let gone = LiveBytesChange { bytes: -100, pieces: -2 };
        assert_eq!(live.apply([(&segment, &gone)].into_iter(), Position(600)), [(key(segment), None)]);
        assert_eq!(live.of(segment), SegmentCounts::default());
        assert_eq!(SegmentRow::read(&[1; LEN - 1]), None);
    }
}
