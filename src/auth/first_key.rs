//! The first operator key of a new store, kept in a file until somebody has seen it.
//!
//! * The file is on disk before the store knows the key, so no failure between the two loses the only operator key.
//! * Whoever showed the key to its reader calls [`FirstKey::shown`], which removes the file. Otherwise the file stays, readable by
//!   its owner alone, and [`unseen`] finds it at the next start.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::admin::AdminError;
use super::issue::IssuedKey;
use super::{Auth, Organization};

/// The file's name in the data directory.
const FILE: &str = "first-key";

/// A key that was made for a new store.
#[derive(Debug)]
pub struct FirstKey {
    /// The organization that was made with it.
    pub organization: Organization,
    /// The key: `*` and `operator`.
    pub key: IssuedKey,
    /// Where it is kept until it has been shown.
    pub file: PathBuf,
}

/// Why a new store got no first key.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// The key could not be kept, so it was not made.
    #[error("cannot write {path}: {source}")]
    Keep {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The organization or the key could not be made.
    #[error("the first organization could not be made: {0}")]
    Admin(#[from] AdminError),
}

impl Auth {
    /// On a store without organizations: makes `default` and its first key, which is kept in `data_dir` until it was shown.
    ///
    /// # Errors
    /// [`FirstKeyError`]. After one the next call makes another key, or the key that was made is in the file.
    pub async fn make_first_key(&self, data_dir: &Path) -> Result<Option<FirstKey>, FirstKeyError> {
        let file = data_dir.join(FILE);
        let mut kept = Ok(());
        let made = self.bootstrap_after(|key| {
            kept = keep(data_dir, &file, key.api_key.expose());
            kept.is_ok()
        });
        let made = made.await?;
        kept.map_err(|source| FirstKeyError::Keep { path: file.display().to_string(), source })?;
        Ok(made.map(|(organization, key)| FirstKey { organization, key, file }))
    }
}

impl FirstKey {
    /// Removes the file: the key has reached its reader.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn shown(&self) -> io::Result<()> {
        std::fs::remove_file(&self.file)
    }
}

/// The file of a first key that nobody has been shown, if there is one.
#[must_use]
pub fn unseen(data_dir: &Path) -> Option<PathBuf> {
    Some(data_dir.join(FILE)).filter(|file| file.is_file())
}

fn keep(data_dir: &Path, path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?; // a file from before keeps its mode when it is opened
    writeln!(file, "{key}")?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}
