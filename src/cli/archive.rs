//! A backup as one file: a tar archive of its directory.
//!
//! * The commands know directories alone: an archive is unpacked beside itself before they run, and packed again afterwards.
//! * An archive gets its name only when all of it is on the disk; what is there under the name stays until then.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::outcome::{CliError, Exit};

/// Bytes written at once.
const BUFFER: usize = 1 << 20;

/// A backup's directory for as long as a command works on it.
pub(super) struct Unpacked {
    dir: PathBuf,
    /// `None`: the backup is a directory.
    archive: Option<PathBuf>,
}

/// Returns true if a backup of this name is a file.
fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar") && !path.is_dir()
}

/// A new path beside `path`: two commands on one archive must not get into each other's files.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}-{}", std::process::id()));
    PathBuf::from(name)
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{}: {error}", path.display()), "")
}

impl Unpacked {
    /// The backup at `path`: the directory itself, or a private one beside the archive with what is in it, if it exists.
    ///
    /// # Errors
    /// The archive cannot be read, or there is no room for it.
    pub(super) fn open(path: &Path) -> Result<Unpacked, CliError> {
        if !is_archive(path) {
            return Ok(Unpacked { dir: path.to_owned(), archive: None });
        }
        let dir = beside(path, "unpacked");
        let unpack = || -> io::Result<Unpacked> {
            DirBuilder::new().mode(0o700).create(&dir)?;
            let unpacked = Unpacked { dir: dir.clone(), archive: Some(path.to_owned()) };
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => tar::Archive::new(file?).unpack(&dir)?,
            }
            Ok(unpacked)
        };
        unpack().map_err(|error| failed(path, &error))
    }

    /// Where the backup's files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the archive, if the backup is one, and returns when it is on the disk.
    ///
    /// # Errors
    /// As the disk gives them; an archive that was there before is as it was.
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
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        pack().map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(archive, &error)
        })
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if self.archive.is_some() {
            let _ = fs::remove_dir_all(&self.dir); // the name says what it is, where it stays
        }
    }
}

/// The backup or data directory at `path`, which must exist.
///
/// # Errors
/// As [`Unpacked::open`], and where nothing is there.
pub(super) fn existing(path: &Path) -> Result<Unpacked, CliError> {
    if is_archive(path) && !path.exists() {
        let what = format!("{} does not exist", path.display());
        return Err(CliError::new(Exit::Failed, what, "name a backup that `nervewire backup` has made"));
    }
    Unpacked::open(path)
}
