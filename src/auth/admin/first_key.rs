//! The first operator key of a new store, kept in a file until it has been shown to somebody.
//!
//! * The file is on disk before the key is committed to the store, so a failure between the two cannot lose
//!   the only operator key.
//! * After the key has been shown, the caller calls [`FirstKey::remove_file`], which removes the file. Otherwise
//!   the file stays, readable by its owner only, and [`pending_file`] finds it at the next start.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::actor::Actor;
use super::api_keys::IssuedKey;
use super::organizations::NewOrganization;
use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::records::rows::{Organization, RecordChange};
use crate::auth::rights::scope::ScopeSet;
use crate::store::Rows;

/// The file's name in the data directory.
const FILE: &str = "first-key";

/// The first key of a new store.
#[derive(Debug)]
pub struct FirstKey {
    /// The organization that was created with it.
    pub organization: Organization,
    /// The key, with scopes `*` and `operator`.
    pub key: IssuedKey,
    /// The file that holds the key until it has been shown.
    pub file: PathBuf,
}

/// Why a new store did not get a first key.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// The key could not be written to the file, so it was not created.
    #[error("cannot write {path}: {source}")]
    Keep {
        /// The file's path.
        path: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The organization or the key could not be created.
    #[error("the first organization could not be created: {0}")]
    Admin(#[from] AdminError),
}

impl Auth {
    /// If the store has no organizations, creates `default` and its bootstrap key (`*` and `operator`), which
    /// is shown once.
    ///
    /// # Errors
    /// [`AdminError::Records`], [`AdminError::Random`].
    pub async fn bootstrap(&self) -> Result<Option<(Organization, IssuedKey)>, AdminError> {
        self.bootstrap_after(|_| true).await
    }

    /// Like [`Auth::bootstrap`], but calls `ready` before the commit. If `ready` returns false, nothing is
    /// created.
    async fn bootstrap_after(
        &self,
        ready: impl FnOnce(&IssuedKey) -> bool,
    ) -> Result<Option<(Organization, IssuedKey)>, AdminError> {
        let _changing = self.changing.lock().await;
        if !self.directory.read(|table| table.by_tenant.is_empty()) {
            return Ok(None);
        }
        let organization = self.new_row("default".into(), NewOrganization::default());
        let key = self.new_key(&organization, "bootstrap".into(), ScopeSet::OPERATOR)?;
        if !ready(&key) {
            return Ok(None);
        }
        let writes =
            vec![RecordChange::PutOrganization(organization.clone()), RecordChange::PutKey(key.row.clone())];
        self.commit(Actor::daemon(), writes, Rows::new(), &[]).await?;
        Ok(Some((organization, key)))
    }

    /// If the store has no organizations, creates `default` and its first key, which is kept in `data_dir`
    /// until it has been shown.
    ///
    /// # Errors
    /// [`FirstKeyError`]. After an error the next call creates another key, or the created key is in the
    /// file.
    pub async fn make_first_key(&self, data_dir: &Path) -> Result<Option<FirstKey>, FirstKeyError> {
        let file = data_dir.join(FILE);
        let mut kept = Ok(());
        let made = self.bootstrap_after(|key| {
            kept = write_file(data_dir, &file, key.api_key.expose());
            kept.is_ok()
        });
        let made = made.await?;
        kept.map_err(|source| FirstKeyError::Keep { path: file.display().to_string(), source })?;
        Ok(made.map(|(organization, key)| FirstKey { organization, key, file }))
    }
}

impl FirstKey {
    /// Removes the file, because the key has been shown.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_file(&self) -> io::Result<()> {
        std::fs::remove_file(&self.file)
    }
}

/// Returns the file of a first key that has not been shown yet, if there is one.
#[must_use]
pub fn pending_file(data_dir: &Path) -> Option<PathBuf> {
    Some(data_dir.join(FILE)).filter(|file| file.is_file())
}

fn write_file(data_dir: &Path, path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?; // an existing file keeps its mode when it is opened
    writeln!(file, "{key}")?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}
