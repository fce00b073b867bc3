//! A backup as one file: a tar archive of the backup directory.
//!
//! * The commands work on directories only. An archive is unpacked beside itself before a command runs, and
//!   packed again afterwards.
//! * An archive gets its final name only after all of it is on disk. Until then, an earlier file of that name
//!   is kept.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::exit::{CliError, Exit};
use crate::store;

/// Bytes per write.
const BUFFER: usize = 1 << 20;

/// The directory of a backup while a command works on it.
pub(super) struct UnpackedBackup {
    dir: PathBuf,
    /// `None` if the backup is a directory.
    archive: Option<PathBuf>,
}

/// Returns true if a backup of this name is a file.
fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar") && !path.is_dir()
}

/// Returns a new path beside `path`. It is unique, so that two commands on one archive do not use the same
/// files.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}-{}", std::process::id()));
    PathBuf::from(name)
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{}: {error}", path.display()), "")
}

/// Unpacks the archive into `dir`; `at` is the entry that it is at.
fn unpack(archive: File, dir: &Path, at: &mut String) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        *at = entry.path()?.display().to_string();
        entry.unpack_in(dir)?;
    }
    Ok(())
}

impl UnpackedBackup {
    /// Opens the backup at `path`: the directory itself, or a private directory beside the archive with the
    /// unpacked files, if the archive exists.
    ///
    /// # Errors
    /// The archive cannot be read, or there is no space for its files.
    pub(super) fn open(path: &Path) -> Result<UnpackedBackup, CliError> {
        if !is_archive(path) {
            return Ok(UnpackedBackup { dir: path.to_owned(), archive: None });
        }
        let dir = beside(path, "unpacked");
        let mut at = String::new();
        let mut open = || -> io::Result<UnpackedBackup> {
            DirBuilder::new().mode(0o700).create(&dir)?;
            let unpacked = UnpackedBackup { dir: dir.clone(), archive: Some(path.to_owned()) };
            match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                file => unpack(file?, &dir, &mut at)?,
            }
            Ok(unpacked)
        };
        open().map_err(|error| {
            let archive = path.display();
            let (what, hint) = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
                    format!("{archive} cannot be unpacked: {}", error.kind()),
                    "it is unpacked beside itself, where there must be as much room again",
                ),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound => {
                    return failed(path, &error);
                }
                _ if at.is_empty() => (format!("{archive} is damaged or no archive"), "use another backup"),
                _ => (format!("{archive} is cut off or damaged, in or after {at}"), "use another backup"),
            };
            CliError::new(Exit::Failed, what, hint)
        })
    }

    /// The error with the archive's name in the place of the directory that it was unpacked into.
    pub(super) fn named(&self, error: CliError) -> CliError {
        match (error, &self.archive) {
            (CliError::Reported { exit, message, hint }, Some(_)) => {
                CliError::Reported { exit, message: self.renamed(&message), hint }
            }
            (error, _) => error,
        }
    }

    /// A text with the archive's name in the place of the directory that it was unpacked into.
    pub(super) fn renamed(&self, text: &str) -> String {
        match &self.archive {
            Some(archive) => text.replace(&*self.dir.to_string_lossy(), &archive.to_string_lossy()),
            None => text.to_owned(),
        }
    }

    /// Returns the directory that holds the backup's files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the archive, if the backup is one. Returns after it is on disk.
    ///
    /// # Errors
    /// I/O errors. An archive that existed before is unchanged.
    pub(super) fn pack(self) -> Result<(), CliError> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let new = beside(archive, "new");
        let pack = || -> io::Result<()> {
            let file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            let mut builder = tar::Builder::new(BufWriter::with_capacity(BUFFER, file));
            builder.append_dir_all(".", &self.dir)?;
            let mut writer = builder.into_inner()?;
            writer.flush()?;
            writer.get_ref().sync_all()?;
            fs::rename(&new, archive)?;
            let parent = archive.parent().filter(|parent| !parent.as_os_str().is_empty());
            store::sync_dir(parent.unwrap_or(Path::new(".")))
        };
        pack().map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(archive, &error)
        })
    }
}

impl Drop for UnpackedBackup {
    fn drop(&mut self) {
        if self.archive.is_some() {
            let _ = fs::remove_dir_all(&self.dir); // if this fails, its name shows what it is
        }
    }
}

/// Opens the backup or data directory at `path`, which must exist.
///
/// # Errors
/// As [`UnpackedBackup::open`], or `path` does not exist.
pub(super) fn existing(path: &Path) -> Result<UnpackedBackup, CliError> {
    if is_archive(path) && !path.exists() {
        let what = format!("{} does not exist", path.display());
        return Err(CliError::new(
            Exit::Failed,
            what,
            "give the path of a backup made by `nervewire backup`",
        ));
    }
    UnpackedBackup::open(path)
}
