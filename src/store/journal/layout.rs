//! Positions in the journal, and what every reader and writer of it must agree on.

use std::fmt;

/// Limit of a record's length in bytes, which bounds what a reader holds in memory.
pub(crate) const MAX_RECORD: u64 = 64 << 20;
/// The version of records and segments that this program reads and writes.
pub(crate) const VERSION: u8 = 1;

/// A position in the journal: bytes of records since it was created. Headers of segments do not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub(crate) struct Position(pub(crate) u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The location of stored bytes in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PieceLocation {
    /// Position of the first byte.
    pub(crate) position: Position,
    /// Length in bytes.
    pub(crate) len: u32,
    /// CRC32C of the bytes.
    pub(crate) crc: u32,
}

impl PieceLocation {
    /// The position after its last byte.
    pub(crate) fn end(&self) -> Position {
        Position(self.position.0.saturating_add(u64::from(self.len)))
    }
}
