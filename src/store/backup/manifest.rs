//! The manifest: what a backup holds. It is written last, so a directory without a manifest is no backup.
//!
//! * It is one line of JSON, and a line with the CRC-32C of the first in hexadecimal. Unknown fields are
//!   ignored; another `format` is refused.
//! * This module knows the names of a backup's files, but not their contents.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{BackupError, FORMAT};
use super::files::private_file;
use crate::store::disk::sync_dir;
use crate::store::journal::{self, Position};

/// The manifest's file name.
pub(super) const NAME: &str = "manifest";
/// The file of rows.
pub(super) const ROWS: &str = "state.rows";
/// The directory of segments.
pub(super) const JOURNAL: &str = "journal";
/// Largest size of a manifest in bytes: some hundred thousand segments.
const MOST_BYTES: u64 = 64 << 20;

/// The part of the journal to add to an existing backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupStart {
    /// The journal's id, hexadecimal.
    pub(crate) journal: String,
    /// Where the existing backup ends.
    pub(crate) position: Position,
}

/// The contents of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the backup.
    pub format: u32,
    /// Layout of the rows.
    pub layout: u32,
    /// The journal's id, hexadecimal.
    pub journal: String,
    /// The position from which the journal is replayed over the rows.
    pub from: u64,
    /// From this position on, the replayed rows are those of one moment: the earliest that can be restored.
    pub first: u64,
    /// The time of `first`, Unix milliseconds.
    pub first_ms: u64,
    /// The end of the journal: the latest position that can be restored.
    pub last: u64,
    /// The time of `last`, Unix milliseconds.
    pub last_ms: u64,
    /// Number of rows in their file.
    pub rows: u64,
    /// First position and end of each segment, in order.
    pub segments: Vec<(u64, u64)>,
}

impl Manifest {
    /// Bytes of the segments.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.segments.iter().map(|(first, end)| end.saturating_sub(*first)).sum()
    }

    /// Reads the manifest of the backup in `dir`.
    ///
    /// # Errors
    /// [`BackupError::NotABackup`], or [`BackupError::Damaged`] if the manifest is damaged.
    pub fn read(dir: &Path) -> Result<Manifest, BackupError> {
        let path = dir.join(NAME);
        let long = fs::metadata(&path).map_err(|_| BackupError::NotABackup { path: dir.to_owned() })?.len();
        let damaged = |what: &str| BackupError::Damaged { file: path.clone(), what: what.into() };
        if long > MOST_BYTES {
            return Err(damaged("it is too long"));
        }
        let text = fs::read_to_string(&path).map_err(|_| damaged("it cannot be read"))?;
        let (line, crc) = text.split_once('\n').ok_or_else(|| damaged("it is cut off"))?;
        if crc != format!("{:08x}\n", journal::crc(line.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let manifest: Manifest = serde_json::from_str(line).map_err(|_| damaged("it lacks fields"))?;
        match manifest.format {
            FORMAT => Ok(manifest),
            format => Err(BackupError::Newer { format }),
        }
    }

    /// Writes the manifest of the backup in `dir`, completely or not at all. It is durable on return.
    pub(super) fn write(&self, dir: &Path) -> Result<(), BackupError> {
        let failed = |error| BackupError::io(dir, &error);
        let line = serde_json::to_string(self).unwrap_or_default(); // numbers and texts cannot fail
        let new = dir.join("manifest.new");
        let mut file = private_file(&new).map_err(failed)?;
        file.write_all(format!("{line}\n{:08x}\n", journal::crc(line.as_bytes())).as_bytes())
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, dir.join(NAME)).map_err(failed)?;
        sync_dir(dir).map_err(failed)
    }

    /// The journal's id.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] if it is not an id.
    pub(super) fn journal_id(&self) -> Result<[u8; 16], BackupError> {
        let damaged =
            || BackupError::Damaged { file: NAME.into(), what: "the journal id is not valid".into() };
        u128::from_str_radix(&self.journal, 16).map(u128::to_be_bytes).map_err(|_| damaged())
    }

    pub(super) fn from(&self) -> Position {
        Position(self.from)
    }

    /// The end of the last segment; 0 if there is none. It is before [`Manifest::last`] if nothing was
    /// committed after `from`.
    pub(super) fn journal_end(&self) -> Position {
        Position(self.segments.last().map_or(0, |(_, end)| *end))
    }

    pub(super) fn last(&self) -> Position {
        Position(self.last)
    }
}

/// The directory of a backup's journal.
pub(super) fn journal_of(dir: &Path) -> PathBuf {
    dir.join(JOURNAL)
}
