//! The bytes of a record: building one, and reading one that is in memory.
//!
//! * `docs/storage.md` has the table of bytes; only [`RecordHeader`] and [`Change`] implement it.
//! * The checksum of a header starts with the journal's id, which no peer knows. So neither bytes that a peer
//!   stores nor a record of another journal can pass for a header.
//! * Pieces come before the rows, so the position of a piece is known as soon as it is added.
//! * This module knows no file and makes no system call.

use std::path::Path;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::error::JournalError;
use super::layout::{MAX_RECORD, PieceLocation, Position, VERSION};

/// Length of a record's header in bytes.
pub(super) const HEADER: usize = 48;
/// A record's first bytes. 0xff occurs in no UTF-8 text, so text cannot be taken for the start of a record.
pub(super) const MAGIC: [u8; 4] = *b"\xffNWR";
/// Records start and end at multiples of this.
pub(super) const ALIGN: u64 = 8;

/// Bytes of a row that puts a value, besides its key and the value.
const PUT_HEAD: usize = 1 + 2 + 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const FREE: u8 = 3;
const PIECE: u8 = 4;

/// What wrote a record. The ordinals are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// Changes of requests, committed together.
    Commit = 1,
    /// Changes by the store itself: trimming, collecting, erasing, moving pieces.
    Maintenance = 2,
}

impl RecordKind {
    fn of(ordinal: u8) -> Option<RecordKind> {
        match ordinal {
            1 => Some(RecordKind::Commit),
            2 => Some(RecordKind::Maintenance),
            _ => None,
        }
    }
}

/// CRC32C of `bytes`.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC32C of bytes that come in parts.
struct Crc(Digest);

impl Crc {
    fn new() -> Crc {
        Crc(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u32 {
        self.0.finalize() as u32 // the low half holds a CRC of 32 bits
    }
}

/// Computes the checksums of one journal's record headers.
#[derive(Clone, Copy)]
pub(super) struct HeaderCrc {
    /// The CRC's state after the journal's id.
    state: u64,
}

impl HeaderCrc {
    pub(super) fn new(id: &[u8; 16]) -> HeaderCrc {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(id);
        HeaderCrc { state: digest.get_state() }
    }
    fn of(self, bytes: &[u8]) -> u32 {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.state);
        digest.update(bytes);
        digest.finalize() as u32 // the low half holds a CRC of 32 bits
    }
}

/// Splits the first `N` bytes off `bytes`; `None` if there are fewer.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// A record's header, checked only against itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Length of header, pieces, rows and padding, in bytes.
    pub(super) total: u32,
    pub(super) position: Position,
    /// Everything before this position was durable when the record was written.
    pub(super) synced: Position,
    pub(super) epoch: u32,
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) flags: u16,
    pub(super) pieces_len: u32,
    pub(super) rows_len: u32,
    pub(super) body_crc: u32,
}

impl RecordHeader {
    pub(super) fn end(&self) -> Position {
        Position(self.position.0.saturating_add(u64::from(self.total)))
    }

    pub(super) fn encode(&self, check: HeaderCrc) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = &mut bytes[..];
        let mut put = |field: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        };
        put(&MAGIC);
        put(&self.total.to_le_bytes());
        put(&self.position.0.to_le_bytes());
        put(&self.synced.0.to_le_bytes());
        put(&self.epoch.to_le_bytes());
        put(&[self.kind, self.version]);
        put(&self.flags.to_le_bytes());
        put(&self.pieces_len.to_le_bytes());
        put(&self.rows_len.to_le_bytes());
        put(&self.body_crc.to_le_bytes());
        let crc = check.of(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of `bytes`, if it belongs to the record at `position` of the journal
    /// that `check` is for.
    pub(super) fn decode(
        bytes: &[u8],
        position: Position,
        check: HeaderCrc,
    ) -> Result<RecordHeader, &'static str> {
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err("the record is cut off");
        };
        let fields = |mut rest: &[u8]| {
            let magic = take::<4>(&mut rest)?;
            let header = RecordHeader {
                total: u32::from_le_bytes(take(&mut rest)?),
                position: Position(u64::from_le_bytes(take(&mut rest)?)),
                synced: Position(u64::from_le_bytes(take(&mut rest)?)),
                epoch: u32::from_le_bytes(take(&mut rest)?),
                kind: take::<1>(&mut rest)?[0],
                version: take::<1>(&mut rest)?[0],
                flags: u16::from_le_bytes(take(&mut rest)?),
                pieces_len: u32::from_le_bytes(take(&mut rest)?),
                rows_len: u32::from_le_bytes(take(&mut rest)?),
                body_crc: u32::from_le_bytes(take(&mut rest)?),
            };
            Some((magic, header, u32::from_le_bytes(take(&mut rest)?)))
        };
        let Some((magic, header, crc)) = fields(bytes) else { return Err("the record is cut off") };
        if magic != MAGIC {
            return Err("no record begins here");
        }
        if crc != check.of(&bytes[..HEADER - 4]) {
            return Err("the checksum of the record's header does not match");
        }
        if header.position != position {
            return Err("the record belongs to another position");
        }
        // The length of a newer version's record has the same form; the rest may differ.
        let total = u64::from(header.total);
        if total < HEADER as u64 || total > MAX_RECORD || !total.is_multiple_of(ALIGN) {
            return Err("the record has an impossible length");
        }
        if !position.0.is_multiple_of(ALIGN) {
            return Err("no record can begin at this position");
        }
        if header.version == VERSION && total != total_len(header.pieces_len.into(), header.rows_len.into()) {
            return Err("the record's lengths disagree");
        }
        if header.synced > header.position {
            return Err("the record says that later ones were on the disk");
        }
        Ok(header)
    }

    /// The kind, or the version that this program cannot read.
    pub(super) fn known(&self) -> Result<RecordKind, JournalError> {
        match RecordKind::of(self.kind) {
            Some(kind) if self.version == VERSION && self.flags == 0 => Ok(kind),
            // A kind or a flag that this version does not know is from a later version.
            _ => Err(JournalError::Newer(u32::from(self.version.max(VERSION + 1)))),
        }
    }
}

fn total_len(pieces: u64, rows: u64) -> u64 {
    (HEADER as u64 + pieces + rows).next_multiple_of(ALIGN)
}

/// A record that is being built for the end of the journal.
pub(crate) struct NewRecord {
    kind: RecordKind,
    epoch: u32,
    at: Position,
    pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pieces_len: u64,
    rows: Vec<u8>,
    /// Why the record cannot be appended.
    refused: Option<JournalError>,
}

impl NewRecord {
    /// An empty record that will be appended at `at`, the end of the journal.
    pub(crate) fn new(kind: RecordKind, epoch: u32, at: Position) -> NewRecord {
        NewRecord { kind, epoch, at, pieces: Vec::new(), pieces_len: 0, rows: Vec::new(), refused: None }
    }

    /// Resets it to an empty record and keeps its buffers.
    pub(crate) fn reset(&mut self, kind: RecordKind, epoch: u32, at: Position) {
        self.pieces.clear();
        self.rows.clear();
        (self.kind, self.epoch, self.at, self.pieces_len, self.refused) = (kind, epoch, at, 0, None);
    }

    /// Reserves memory for rows that will be put or deleted.
    pub(crate) fn expect_rows<'r>(&mut self, rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>) {
        let bytes = rows.map(|(key, value)| PUT_HEAD + key.len() + value.map_or(0, <[u8]>::len));
        self.rows.reserve(bytes.sum());
    }

    /// Stores `value` under `key`.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let Some(key_len) = self.key_len(key) else { return };
        let Ok(value_len) = u32::try_from(value.len()) else {
            self.refused = Some(JournalError::TooLong(value.len() as u64));
            return;
        };
        self.rows.push(PUT);
        self.rows.extend(key_len.to_le_bytes());
        self.rows.extend(value_len.to_le_bytes());
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(value);
    }

    /// Removes what is stored under `key`.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        let Some(key_len) = self.key_len(key) else { return };
        self.rows.push(DELETE);
        self.rows.extend(key_len.to_le_bytes());
        self.rows.extend_from_slice(key);
    }

    /// Marks `piece` as no longer live, so that the live count of its segment decreases.
    pub(crate) fn free(&mut self, piece: PieceLocation) {
        self.piece_row(FREE, piece);
    }

    /// Adds `bytes`, which are written without being copied. Returns their location.
    pub(crate) fn add_piece(&mut self, bytes: impl Into<Bytes>) -> PieceLocation {
        let bytes = bytes.into();
        // `append` refuses it: the record is too long.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let position = self.at.0.saturating_add(HEADER as u64 + self.pieces_len);
        let piece = PieceLocation { position: Position(position), len, crc: crc(&bytes) };
        self.pieces_len += bytes.len() as u64;
        self.pieces.push(bytes);
        self.piece_row(PIECE, piece);
        piece
    }

    /// Its length in the journal, in bytes.
    pub(crate) fn len(&self) -> u64 {
        total_len(self.pieces_len, self.rows.len() as u64)
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn at(&self) -> Position {
        self.at
    }

    fn key_len(&mut self, key: &[u8]) -> Option<u16> {
        let len = u16::try_from(key.len()).ok();
        if len.is_none() {
            self.refused = Some(JournalError::KeyTooLong(key.len() as u64));
        }
        len
    }

    fn piece_row(&mut self, op: u8, piece: PieceLocation) {
        self.rows.push(op);
        self.rows.extend(piece.position.0.to_le_bytes());
        self.rows.extend(piece.len.to_le_bytes());
        self.rows.extend(piece.crc.to_le_bytes());
    }

    /// Returns an error if the record can be appended to no journal.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        match &self.refused {
            Some(error) => Err(error.clone()),
            None if self.len() > MAX_RECORD => Err(JournalError::TooLong(self.len())),
            None => Ok(()),
        }
    }

    /// Its header. The record must have passed [`NewRecord::check`].
    pub(super) fn header(&self, synced: Position) -> RecordHeader {
        let mut body = Crc::new();
        self.body().for_each(|part| body.update(part));
        let small = |len: u64| u32::try_from(len).unwrap_or(u32::MAX); // MAX_RECORD is below u32::MAX
        RecordHeader {
            total: small(self.len()),
            position: self.at,
            synced,
            epoch: self.epoch,
            kind: self.kind as u8,
            version: VERSION,
            flags: 0,
            pieces_len: small(self.pieces_len),
            rows_len: small(self.rows.len() as u64),
            body_crc: body.finish(),
        }
    }

    /// Everything after the header, in order.
    pub(super) fn body(&self) -> impl Iterator<Item = &[u8]> {
        const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        let padding = self.len() - HEADER as u64 - self.pieces_len - self.rows.len() as u64;
        let padding = ZEROS.get(..padding as usize).unwrap_or_default();
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        pieces.chain([&self.rows[..], padding]).filter(|part| !part.is_empty())
    }

    /// Upper bound of the buffers that [`NewRecord::body`] returns.
    pub(super) fn parts(&self) -> usize {
        self.pieces.len() + 2
    }
}

/// A record that was read; all its checksums were checked.
pub(crate) struct Record<'a> {
    pub(crate) position: Position,
    /// Where the next record starts.
    pub(crate) end: Position,
    /// Everything before this position was durable when the record was written.
    pub(crate) synced: Position,
    pub(crate) epoch: u32,
    pub(crate) kind: RecordKind,
    pieces: &'a [u8],
    rows: &'a [u8],
    file: &'a Path,
}

/// One change in a record, in the order in which it was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change<'a> {
    /// `value` is stored under `key`.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Nothing is stored under `key`.
    Delete { key: &'a [u8] },
    /// The piece, of an earlier record, is no longer live.
    Free(PieceLocation),
    /// A piece in this record, which is live now.
    Piece(PieceLocation),
}

impl<'a> Record<'a> {
    /// Decodes the record of `header`; `body` starts with the bytes after the header. `file` is for error
    /// messages.
    pub(super) fn decode(
        header: &RecordHeader,
        body: &'a [u8],
        file: &'a Path,
    ) -> Result<Record<'a>, JournalError> {
        let kind = header.known()?;
        let damaged = |what| JournalError::damaged(header.position, what, file);
        let Some(body) = body.get(..(header.total as usize).saturating_sub(HEADER)) else {
            return Err(damaged("the record is cut off"));
        };
        if crc(body) != header.body_crc {
            return Err(damaged("the checksum of the record does not match"));
        }
        let (pieces_len, rows_len) = (header.pieces_len as usize, header.rows_len as usize);
        let split = body.split_at_checked(pieces_len);
        let rows = split.and_then(|(pieces, rest)| Some((pieces, rest.get(..rows_len)?)));
        let Some((pieces, rows)) = rows else { return Err(damaged("the record's lengths disagree")) };
        let RecordHeader { position, synced, epoch, .. } = *header;
        Ok(Record { position, end: header.end(), synced, epoch, kind, pieces, rows, file })
    }

    /// Its changes, in order. An error ends the iteration.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Result<Change<'a>, JournalError>> + use<'a> {
        let (mut rest, mut at) = (self.rows, self.position);
        let (position, pieces, file) = (self.position, self.pieces, self.file);
        at.0 = at.0.saturating_add((HEADER + pieces.len()) as u64);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let before = rest.len();
            let change = change(&mut rest).filter(|change| match change {
                Change::Piece(piece) => slice(position, pieces, *piece).is_some(),
                _ => true,
            });
            let here = at;
            at.0 = at.0.saturating_add((before - rest.len()) as u64);
            Some(change.ok_or_else(|| {
                rest = &[];
                JournalError::damaged(here, "a row cannot be read", file)
            }))
        })
    }

    /// The bytes of a piece in this record; `None` if it does not hold them.
    pub(crate) fn bytes(&self, piece: PieceLocation) -> Option<&'a [u8]> {
        slice(self.position, self.pieces, piece)
    }
}

/// The part of `pieces`, which are those of the record at `position`, that is `piece`.
fn slice(position: Position, pieces: &[u8], piece: PieceLocation) -> Option<&[u8]> {
    let from = piece.position.0.checked_sub(position.0)?.checked_sub(HEADER as u64)?;
    let from = usize::try_from(from).ok()?;
    pieces.get(from..from.checked_add(piece.len as usize)?)
}

fn change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    fn bytes<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (bytes, tail) = rest.split_at_checked(len)?;
        *rest = tail;
        Some(bytes)
    }
    fn piece(rest: &mut &[u8]) -> Option<PieceLocation> {
        Some(PieceLocation {
            position: Position(u64::from_le_bytes(take(rest)?)),
            len: u32::from_le_bytes(take(rest)?),
            crc: u32::from_le_bytes(take(rest)?),
        })
    }
    match take::<1>(rest)?[0] {
        PUT => {
            let key_len = u16::from_le_bytes(take(rest)?);
            let value_len = u32::from_le_bytes(take(rest)?);
            let key = bytes(rest, key_len.into())?;
            Some(Change::Put { key, value: bytes(rest, value_len as usize)? })
        }
        DELETE => {
            let key_len = u16::from_le_bytes(take(rest)?);
            Some(Change::Delete { key: bytes(rest, key_len.into())? })
        }
        FREE => piece(rest).map(Change::Free),
        PIECE => piece(rest).map(Change::Piece),
        _ => None,
    }
}
