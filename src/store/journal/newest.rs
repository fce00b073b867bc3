//! The file that names the newest segment, so that an opening detects that this segment was deleted.
//!
//! * It is written for each new segment after the segment's name is durable. So it names a segment that
//!   existed, and it may be behind if writing it failed. A segment that it does not name is not missed, but
//!   no segment is ever reported missing without reason.
//! * It is overwritten in place, which needs no space on a full disk. Incomplete contents are ignored.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::layout::Position;
use super::record::{self, take};
use super::segment;
use crate::store::disk::Io;

/// Its name in the journal's directory.
const NAME: &str = "newest";
/// Length: the journal's id, the first position of the segment, and the CRC-32C of both.
const LEN: usize = 16 + 8 + 4;

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The first position of the newest segment of the journal `id`; `None` if it is not recorded.
pub(super) fn read(io: &dyn Io, dir: &Path, id: &[u8; 16]) -> Option<Position> {
    let file = io.open(&path(dir), false).ok()?;
    let mut bytes = [0; LEN];
    let read = segment::read_full(io, &file, &mut bytes, 0).ok()?;
    let (mut rest, said) = (bytes.get(..read)?, bytes.get(..LEN - 4)?);
    let (found, first) = (take::<16>(&mut rest)?, take::<8>(&mut rest)?);
    let is_whole = u32::from_le_bytes(take(&mut rest)?) == record::crc(said);
    (is_whole && found == *id).then(|| Position(u64::from_le_bytes(first)))
}

/// Records that the segment at `first` is the newest one of the journal `id`. If that fails, only the loss of
/// this segment will not be detected.
pub(super) fn note(io: &dyn Io, dir: &Path, id: &[u8; 16], first: Position) {
    if let Err(error) = write(io, dir, id, first) {
        tracing::warn!(%error, "the name of the newest segment could not be recorded");
    }
}

fn write(io: &dyn Io, dir: &Path, id: &[u8; 16], first: Position) -> io::Result<()> {
    let mut bytes = [id.as_slice(), &first.0.to_le_bytes()].concat();
    bytes.extend_from_slice(&record::crc(&bytes).to_le_bytes());
    let put = |file: &File| -> io::Result<()> {
        segment::write_all(io, file, &mut [IoSlice::new(&bytes)], 0)?;
        io.sync_all(file)
    };
    match io.open(&path(dir), true) {
        Ok(file) => put(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            put(&io.create(&path(dir))?)?;
            io.sync_dir(dir)
        }
        Err(error) => Err(error),
    }
}
