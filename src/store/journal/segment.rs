//! Segment files: names, headers, creation, and listing them.
//!
//! * A segment gets its name only after its header is durable, and nothing is written into it before its name
//!   is durable too.
//! * So a file with a segment's name and an unreadable header is damage; a file with a temporary name holds
//!   nothing.
//! * SegmentHeader bytes do not count as positions: the record at the segment's first position starts at byte
//!   [`HEADER`].

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::layout::{Position, VERSION};
use super::record::{self, take};
use crate::store::disk::Io;

/// Length of a segment's header in bytes.
pub(super) const HEADER: u64 = 64;
/// A segment's first bytes.
const MAGIC: [u8; 8] = *b"\xffNWJSEG\n";
/// The suffix of a segment's name.
const SUFFIX: &str = ".seg";
/// The name of a segment that is being created.
const TEMPORARY: &str = "next.new";

/// One segment, as [`Journal::segments`](super::Journal::segments) lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentInfo {
    /// Position of its first record.
    pub(crate) first: Position,
    /// Where the segment ends; for the last one, where the journal ends.
    pub(crate) end: Position,
    /// Whether nothing will be appended to it.
    pub(crate) is_sealed: bool,
    /// Bytes that it takes on disk.
    pub(crate) bytes: u64,
}

/// What is known about a segment.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// `None` for the last segment, which ends where the journal does.
    pub(super) end: Option<Position>,
    /// Bytes on disk.
    pub(super) bytes: u64,
}

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// The id of its journal: random, the same in all its segments.
    pub(super) id: [u8; 16],
    /// Position of its first record.
    pub(super) first: Position,
    /// The epoch of its first record.
    pub(super) epoch: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        let fields: [(usize, &[u8]); 5] = [
            (0, &MAGIC),
            (8, &u32::from(VERSION).to_le_bytes()),
            (12, &self.epoch.to_le_bytes()),
            (16, &self.id),
            (32, &self.first.0.to_le_bytes()),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        let crc = record::crc(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header in `bytes`, which are those of `file`. The file's name says `first`.
    pub(super) fn decode(bytes: &[u8], first: Position, file: &Path) -> Result<SegmentHeader, JournalError> {
        let damaged = |what| JournalError::damaged(first, what, file);
        let fields = |mut rest: &[u8]| {
            let magic = take::<8>(&mut rest)?;
            let version = u32::from_le_bytes(take(&mut rest)?);
            let epoch = u32::from_le_bytes(take(&mut rest)?);
            let id = take::<16>(&mut rest)?;
            let first = Position(u64::from_le_bytes(take(&mut rest)?));
            let unused = take::<20>(&mut rest)?;
            let crc = u32::from_le_bytes(take(&mut rest)?);
            Some((magic, version, SegmentHeader { id, first, epoch }, unused, crc))
        };
        let Some((magic, version, header, unused, crc)) = fields(bytes) else {
            return Err(damaged("the segment's header is cut off"));
        };
        if magic != MAGIC {
            return Err(damaged("the file is not a segment"));
        }
        if bytes.get(..60).map(record::crc) != Some(crc) {
            return Err(damaged("the checksum of the segment's header does not match"));
        }
        if version != u32::from(VERSION) || unused != [0; 20] {
            return Err(JournalError::Newer(version.max(u32::from(VERSION) + 1)));
        }
        if header.first != first {
            return Err(damaged("the segment has the name of another"));
        }
        Ok(header)
    }
}

/// The path of the segment that starts at `first`.
pub(super) fn path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{:016x}{SUFFIX}", first.0))
}

/// The first position of the segment with the file name `name`; `None` if it is not a segment's name.
pub(super) fn first_of(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(Position)
}

/// The path of a segment before it gets its name.
pub(super) fn temporary(dir: &Path) -> PathBuf {
    dir.join(TEMPORARY)
}

/// The offset of `position` in the file of a segment that starts at `first`.
pub(super) fn offset(first: Position, position: Position) -> u64 {
    position.0.saturating_sub(first.0).saturating_add(HEADER)
}

/// Creates the file of a segment under the temporary name, with `wanted` bytes reserved, or `needed` if there
/// is not enough space, and with its header. All of it is durable. Returns the file, and the number of
/// reserved bytes, as [`allocate`] does.
pub(super) fn make(
    io: &dyn Io,
    dir: &Path,
    header: &SegmentHeader,
    needed: u64,
    wanted: u64,
) -> Result<(File, u64), JournalError> {
    let path = temporary(dir);
    let made = (|| {
        let file = io.create(&path).map_err(|error| JournalError::io(&error))?;
        io.read_ahead(&file, false); // until it is sealed
        let allocated = allocate(io, &file, HEADER, needed, wanted)?;
        write_all(io, &file, &mut [IoSlice::new(&header.encode())], 0)
            .map_err(|error| JournalError::io(&error))?;
        io.sync_all(&file).map_err(|error| JournalError::sync(&error))?;
        Ok((file, allocated))
    })();
    if made.is_err() {
        // It may hold the last free bytes; if this fails, the next attempt replaces it.
        let _ = io.remove(&path);
    }
    made
}

/// Gives the segment made by [`make`] its name, durably.
pub(super) fn publish(io: &dyn Io, dir: &Path, first: Position) -> Result<(), JournalError> {
    io.rename(&temporary(dir), &path(dir, first)).map_err(|error| JournalError::io(&error))?;
    io.sync_dir(dir).map_err(|error| JournalError::sync(&error))
}

/// Reserves space for the first `wanted` bytes of `file`, or for the first `needed` if there is not enough
/// space. The first `used` bytes are not changed. Returns the number of reserved bytes; 0 if the file system
/// cannot reserve space.
pub(super) fn allocate(
    io: &dyn Io,
    file: &File,
    used: u64,
    needed: u64,
    wanted: u64,
) -> Result<u64, JournalError> {
    let wanted = wanted.max(needed);
    let failed = match io.allocate(file, wanted) {
        Ok(()) => return Ok(wanted),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(0),
        Err(error) => JournalError::io(&error),
    };
    // A part of the space may have been reserved.
    io.truncate(file, used).map_err(|error| JournalError::io(&error))?;
    if failed != JournalError::Space || needed >= wanted {
        return Err(failed);
    }
    io.allocate(file, needed).map_err(|error| JournalError::io(&error))?;
    Ok(needed)
}

/// Limit of the buffers of one call, as in Linux.
const IOV_MAX: usize = 1024;

/// Writes all of `parts` from byte `at` on.
pub(super) fn write_all(
    io: &dyn Io,
    file: &File,
    mut parts: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    while !parts.is_empty() {
        let now = parts.len().min(IOV_MAX);
        match io.write_at(file, parts.get(..now).unwrap_or_default(), at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut parts, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads into all of `buf` from byte `at` on, or up to the end of the file. Returns the number of bytes read.
pub(super) fn read_full(io: &dyn Io, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match io.read_at(file, rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first position of every segment in `dir`, in order; empty if there is no such directory.
///
/// # Errors
/// The error of reading the directory.
pub(crate) fn first_positions(dir: &Path) -> io::Result<Vec<Position>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(first_of));
    }
    found.sort_unstable();
    Ok(found)
}
