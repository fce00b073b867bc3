//! The row of a stored piece of a tenant's log: the location of its bytes in the journal, and a summary of
//! the piece.
//!
//! * `version u8 ‖ position u64 BE ‖ CRC32C u32 BE ‖ len ‖ count ‖ min received ‖ max − min received`, the
//!   last four as LEB128. In layouts before the journal the same row held the packed events themselves, with
//!   versions 1 and 2.
//! * This module knows neither journal nor tenant, and reads no clock or disk.

use super::keys::{self, KeyKind};
use super::piece::Head;
use crate::frame::record::{BadRecord, get, put};
use crate::store::journal::{PieceLocation, Position};

const VERSION: u8 = 3;

/// One piece of a tenant's log. Its first sequence is in the row's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEntry {
    pub(crate) piece: PieceLocation,
    pub(crate) head: Head,
}

impl LogEntry {
    /// Encodes the row's value.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(32);
        value.push(VERSION);
        value.extend_from_slice(&self.piece.position.0.to_be_bytes());
        value.extend_from_slice(&self.piece.crc.to_be_bytes());
        put(&mut value, u64::from(self.piece.len));
        put(&mut value, u64::from(self.head.count));
        put(&mut value, self.head.min_ms);
        put(&mut value, self.head.max_ms.saturating_sub(self.head.min_ms));
        value
    }

    /// Decodes a row's value.
    ///
    /// # Errors
    /// [`BadRecord`] for another version, for too few or too many bytes, and for anything that
    /// [`LogEntry::write`] never writes.
    pub(crate) fn read(value: &[u8]) -> Result<LogEntry, BadRecord> {
        let damaged = |_| BadRecord("log entry");
        let Some((&VERSION, rest)) = value.split_first() else { return Err(BadRecord("version")) };
        let (position, rest) = rest.split_first_chunk().ok_or(BadRecord("end"))?;
        let (crc, mut rest) = rest.split_first_chunk().ok_or(BadRecord("end"))?;
        let len = u32::try_from(get(&mut rest)?).map_err(damaged)?;
        let count = u32::try_from(get(&mut rest)?).map_err(damaged)?;
        let min_ms = get(&mut rest)?;
        let max_ms = min_ms.checked_add(get(&mut rest)?).ok_or(BadRecord("time"))?;
        if count == 0 || len == 0 || !rest.is_empty() {
            return Err(BadRecord("log entry"));
        }
        let position = Position(u64::from_be_bytes(*position));
        let piece = PieceLocation { position, len, crc: u32::from_be_bytes(*crc) };
        Ok(LogEntry { piece, head: Head { count, min_ms, max_ms } })
    }

    /// The bytes that the piece and its row under `key` count for.
    pub(crate) fn bytes(&self, key: &[u8]) -> u64 {
        key.len() as u64 + u64::from(self.piece.len)
    }
}

/// The piece that a row points at, if the row is a log entry.
pub(crate) fn piece_of(key: &[u8], value: &[u8]) -> Option<PieceLocation> {
    (keys::kind_of(key) == Some(KeyKind::Log)).then(|| LogEntry::read(value).ok())?.map(|entry| entry.piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: LogEntry = LogEntry {
        piece: PieceLocation { position: Position(0x0102_0304_0506_0708), len: 65_536, crc: 0xdead_beef },
        head: Head { count: 300, min_ms: 1_700_000_000_000, max_ms: 1_700_000_000_250 },
    };

    #[test]
    fn a_log_entry_round_trips() {
        let ends = LogEntry {
            piece: PieceLocation { position: Position(u64::MAX), len: u32::MAX, crc: 0 },
            head: Head { count: 1, min_ms: 0, max_ms: u64::MAX },
        };
        for entry in [ENTRY, ends] {
            assert_eq!(LogEntry::read(&entry.write()), Ok(entry));
            assert_eq!(entry.bytes(b"key"), u64::from(entry.piece.len) + 3);
        }
    }

    #[test]
    fn a_damaged_entry_is_an_error_at_every_length() {
        let value = ENTRY.write();
        for len in 0..value.len() {
            assert!(LogEntry::read(&value[..len]).is_err(), "cut to {len}");
        }
        assert!(LogEntry::read(&[&value[..], &[0]].concat()).is_err());
    }

    /// Packed events of an older layout are distinguished from entries.
    #[test]
    fn another_version_is_refused() {
        for version in [0, 1, 2, 4, u8::MAX] {
            let mut value = ENTRY.write();
            value[0] = version;
            assert_eq!(LogEntry::read(&value), Err(BadRecord("version")));
        }
        let empty = LogEntry { head: Head { count: 0, ..ENTRY.head }, ..ENTRY };
        assert!(LogEntry::read(&empty.write()).is_err());
    }
}
