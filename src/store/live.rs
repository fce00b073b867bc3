//! How much of each segment of the journal is live: pieces that a row of the log points at.
//!
//! * The state holds a row for each segment that has live pieces, as of the state's position. What came since is in the memtable.
//! * A segment before the checkpoint without live pieces can go.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::engine::EngineError;
use super::journal::Position;
use super::keys::{self, Kind};
use super::memtable::Change;
use super::state::{State, Value};
use crate::ids::TenantId;

const VERSION: u8 = 1;
const LEN: usize = 1 + 2 * 8;

/// What is live in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Bytes of live pieces.
    pub(super) bytes: u64,
    /// How many they are.
    pub(super) pieces: u64,
}

impl Counts {
    /// These counts after a change.
    pub(super) fn after(self, change: Change) -> Counts {
        Counts {
            bytes: self.bytes.saturating_add_signed(change.bytes),
            pieces: self.pieces.saturating_add_signed(change.pieces),
        }
    }

    fn write(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(LEN);
        value.push(VERSION);
        value.extend_from_slice(&self.bytes.to_be_bytes());
        value.extend_from_slice(&self.pieces.to_be_bytes());
        value
    }

    pub(super) fn read(value: &[u8]) -> Option<Counts> {
        let (&[VERSION], rest) = value.split_first_chunk()? else { return None };
        match rest.as_chunks::<8>() {
            (&[bytes, pieces], []) => {
                Some(Counts { bytes: u64::from_be_bytes(bytes), pieces: u64::from_be_bytes(pieces) })
            }
            _ => None,
        }
    }
}

/// What is live in every segment, by the segment's first position.
#[derive(Default, Debug)]
pub(super) struct Live {
    segments: BTreeMap<Position, Counts>,
}

fn key(segment: Position) -> Vec<u8> {
    keys::key(Kind::Segment, TenantId(0), &segment.0.to_be_bytes())
}

impl Live {
    /// Reads what the state says.
    pub(super) fn load(state: &State) -> Result<Live, EngineError> {
        let (from, to) = ([Kind::Segment as u8], [Kind::Segment as u8 + 1]);
        let mut live = Live::default();
        for row in state.between((Bound::Included(&from), Bound::Excluded(&to)))? {
            let (key, value) = row?;
            let tail = keys::parse(&key).ok().and_then(|(_, _, tail)| tail.first_chunk().copied());
            match (tail, Counts::read(&value)) {
                (Some(first), Some(counts)) => {
                    live.segments.insert(Position(u64::from_be_bytes(first)), counts);
                }
                _ => return Err(EngineError::Engine("the row of a segment is damaged".into())),
            }
        }
        Ok(live)
    }

    /// What is live in one segment.
    pub(super) fn of(&self, segment: Position) -> Counts {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    /// Takes changes over; the rows that say so.
    pub(super) fn apply<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Position, &'a Change)>,
    ) -> Vec<(Vec<u8>, Option<Value>)> {
        changes
            .map(|(segment, change)| {
                let counts = self.of(*segment).after(*change);
                let value = (counts != Counts::default()).then(|| Value::from(counts.write()));
                match value {
                    Some(_) => self.segments.insert(*segment, counts),
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
    fn counts_come_back_and_a_segment_without_live_pieces_has_no_row() {
        let mut live = Live::default();
        let segment = Position(64);
        let change = Change { bytes: 100, pieces: 2 };
        let rows = live.apply([(&segment, &change)].into_iter());
        assert_eq!(Counts::read(rows[0].1.as_ref().expect("a row")), Some(Counts { bytes: 100, pieces: 2 }));
        assert_eq!(live.of(segment), Counts { bytes: 100, pieces: 2 });
        let gone = Change { bytes: -100, pieces: -2 };
        assert_eq!(live.apply([(&segment, &gone)].into_iter()), [(key(segment), None)]);
        assert_eq!(live.of(segment), Counts::default());
        assert_eq!(Counts::read(&[1; LEN - 1]), None);
    }
}
