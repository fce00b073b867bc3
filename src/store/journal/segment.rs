//! One segment file: its name, its header, and how it comes to be.
//!
//! * A segment gets its name only when its header is on the disk, and nothing is written into it before its name is there too.
//! * So a file with a segment's name whose header cannot be read is damage; a file with a temporary name holds nothing.
//! * Header bytes do not count as positions: the record at the segment's first position begins at byte [`HEADER`].

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::record::{self, VERSION, take};
use super::{JournalError, Position};
use crate::store::disk::Io;

/// Bytes of a segment's header.
pub(super) const HEADER: u64 = 64;
/// A segment's first bytes.
const MAGIC: [u8; 8] = *b"\xffNWJSEG\n";
/// What the name of a segment ends with.
const SUFFIX: &str = ".seg";
/// The name of a segment that is being made.
const TEMPORARY: &str = "next.new";

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Which journal it is of: random, the same in all its segments.
    pub(super) id: [u8; 16],
    /// Position of its first record.
    pub(super) first: Position,
    /// The epoch of its first record.
    pub(super) epoch: u32,
}

impl Header {
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

    /// The header in `bytes`, which are those of `file`, whose name says `first`.
    pub(super) fn decode(bytes: &[u8], first: Position, file: &Path) -> Result<Header, JournalError> {
        let damaged = |what| JournalError::damaged(first, what, file);
        let fields = |mut rest: &[u8]| {
            let magic = take::<8>(&mut rest)?;
            let version = u32::from_le_bytes(take(&mut rest)?);
            let epoch = u32::from_le_bytes(take(&mut rest)?);
            let id = take::<16>(&mut rest)?;
            let first = Position(u64::from_le_bytes(take(&mut rest)?));
            let unused = take::<20>(&mut rest)?;
            let crc = u32::from_le_bytes(take(&mut rest)?);
            Some((magic, version, Header { id, first, epoch }, unused, crc))
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

/// Where the segment that begins with `first` lies.
pub(super) fn path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{:016x}{SUFFIX}", first.0))
}

/// The first position of the segment that is called `name`; `None` if it is not a segment's name.
pub(super) fn first_of(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(Position)
}

/// Where a segment is made before it gets its name.
pub(super) fn temporary(dir: &Path) -> PathBuf {
    dir.join(TEMPORARY)
}

/// The byte of a segment beginning with `first` at which `position` lies.
pub(super) fn offset(first: Position, position: Position) -> u64 {
    position.0.saturating_sub(first.0).saturating_add(HEADER)
}

/// Makes the file of a segment under the temporary name: room for `wanted` bytes or, where there is not so much, `needed`; its
/// header; all of it on the disk. Returns the file, and how many of its bytes have room, as [`allocate`] does.
pub(super) fn make(
    io: &dyn Io,
    dir: &Path,
    header: &Header,
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
        let _ = io.remove(&path); // it may hold the last free bytes; the next attempt replaces it otherwise
    }
    made
}

/// Gives the segment made by [`make`] its name, on the disk too.
pub(super) fn publish(io: &dyn Io, dir: &Path, first: Position) -> Result<(), JournalError> {
    io.rename(&temporary(dir), &path(dir, first)).map_err(|error| JournalError::io(&error))?;
    io.sync_dir(dir).map_err(|error| JournalError::sync(&error))
}

/// Takes room for the first `wanted` bytes of `file` or, where there is not so much, the first `needed`. The first `used` bytes are
/// left alone. Returns how many have room; 0 where the file system cannot take room ahead.
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
    // A part of the room may have been taken.
    io.truncate(file, used).map_err(|error| JournalError::io(&error))?;
    if failed != JournalError::Space || needed >= wanted {
        return Err(failed);
    }
    io.allocate(file, needed).map_err(|error| JournalError::io(&error))?;
    Ok(needed)
}

/// Buffers that one call may take at most, as Linux has it.
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

/// Reads into all of `buf` from byte `at` on, or up to the end of the file; returns how many bytes it read.
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
