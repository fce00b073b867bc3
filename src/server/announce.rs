//! Announces that the daemon serves: ready file, systemd, log, and example commands on standard output.
//!
//! The first key is shown once, on standard output. Until then it is in a file of the data directory. It
//! stays in that file if standard output is the journal, which would keep it for ever, or `/dev/null`, where
//! nobody would see it.

use std::io::{self, Write};
use std::path::Path;

use sd_notify::NotifyState;
use serde_json::json;

use super::ServeError;
use crate::auth::{FirstKey, unseen_first_key};
use crate::{descriptors, lifecycle};

/// systemd sets this variable if standard output or standard error is the journal.
const JOURNAL: &str = "JOURNAL_STREAM";

/// The facts to announce.
#[derive(Debug)]
pub(super) struct Announcement<'a> {
    /// Public addresses, at least one.
    pub(super) public: Vec<&'a str>,
    /// The address of the admin listener.
    pub(super) admin: Option<&'a str>,
    /// The file to which `{"listen","admin_listen","pid"}` is written.
    pub(super) ready_file: Option<&'a Path>,
    /// The data directory.
    pub(super) data_dir: &'a Path,
}

impl Announcement<'_> {
    /// Announces them. `first_key` is the key of a store that was just created.
    ///
    /// # Errors
    /// The ready file cannot be written.
    pub(super) fn announce(&self, first_key: Option<FirstKey>) -> Result<(), ServeError> {
        if let Some(path) = self.ready_file {
            self.write_ready_file(path)
                .map_err(|source| ServeError::ReadyFile { path: path.display().to_string(), source })?;
        }
        lifecycle::notify(&[NotifyState::Ready]);
        tracing::info!(listen = ?self.public, admin = self.admin, "serving");
        let program = std::env::args().next().unwrap_or("nervewire".into());
        let url = url(self.public.first().copied().unwrap_or_default());
        let shown = first_key.filter(|_| stdout_may_show_a_key());
        let (text, unseen) = match &shown {
            Some(first) => (welcome(&program, &url, first.key.api_key.expose()), None),
            None => match unseen_first_key(self.data_dir) {
                Some(path) => (in_file(&url, &path), Some(path)),
                None => (known(&program, &url, self.data_dir), None),
            },
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // If standard output is closed, the daemon still serves.
        let unseen = match (&shown, written) {
            (Some(first), Ok(())) => {
                if let Err(error) = first.remove_file() {
                    tracing::warn!(%error, "the file of the first key could not be removed: {}", first.file.display());
                }
                None
            }
            (Some(first), Err(_)) => Some(first.file.clone()),
            (None, _) => unseen,
        };
        if let Some(path) = unseen {
            tracing::warn!(
                "the first key is in {}: copy it to a safe place and delete the file",
                path.display()
            );
        }
        Ok(())
    }

    fn write_ready_file(&self, path: &Path) -> io::Result<()> {
        let first = self.public.first().copied().unwrap_or_default();
        let body = json!({"listen": first, "admin_listen": self.admin, "pid": std::process::id()});
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{body}\n"))?;
        std::fs::rename(&new, path)
    }
}

/// Whether standard output is suitable for a key that is shown only once.
fn stdout_may_show_a_key() -> bool {
    std::env::var_os(JOURNAL).is_none() && !descriptors::stdout_is_discarded()
}

fn in_file(url: &str, path: &Path) -> String {
    format!("nervewire serves on {url}; the first key of this store is in {}\n", path.display())
}

fn known(program: &str, url: &str, data_dir: &Path) -> String {
    format!(
        "nervewire serves on {url}\n\nWith your key in NERVEWIRE_KEY:\n\n  {program} tail --url {url}\n  \
         {program} publish --url {url} --channel hello --data '{{\"text\":\"hi\"}}'\n\n\
         No key? Stop the daemon and run: {program} key create --operator --data-dir {}\n",
        data_dir.display()
    )
}

fn welcome(program: &str, url: &str, key: &str) -> String {
    format!(
        "nervewire serves on {url}\n\n\
         This is a new store. Its organization is `default`. This is its first key; it is shown only once:\n\n  {key}\n\n\
         To follow events, run in a second terminal:\n\n  \
         {program} tail --url {url} --key {key}\n\n\
         To publish an event, run in a third terminal:\n\n  \
         {program} publish --url {url} --key {key} --channel hello --data '{{\"text\":\"hi\"}}'\n\n"
    )
}

fn url(listen: &str) -> String {
    match listen.starts_with("unix:") {
        true => listen.to_owned(),
        false => format!("http://{}", listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")),
    }
}
