//! What is said once it serves: the ready file, systemd, the log, and to a newcomer what to paste next.
//!
//! The first key is shown once. Where standard output goes to a journal it would be kept there for ever, so then it goes into a
//! file that only the owner reads.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use serde_json::json;

use crate::lifecycle;

/// Set by systemd where standard output or error is the journal.
const JOURNAL: &str = "JOURNAL_STREAM";
/// File of the first key in the data directory, where standard output is no place for it.
const KEY_FILE: &str = "first-key";

/// What there is to say.
#[derive(Debug)]
pub(super) struct Serving<'a> {
    /// Public addresses, at least one.
    pub(super) public: Vec<&'a str>,
    /// The admin listener's.
    pub(super) admin: Option<&'a str>,
    /// Where to write `{"listen","admin_listen","pid"}`.
    pub(super) ready_file: Option<&'a Path>,
    /// The data directory.
    pub(super) data_dir: &'a Path,
}

impl Serving<'_> {
    /// Says it. `first_key` is the key of a store made just now.
    ///
    /// # Errors
    /// The ready file or the key file cannot be written.
    pub(super) fn announce(&self, first_key: Option<&str>) -> io::Result<()> {
        let first = self.public.first().copied().unwrap_or_default();
        let kept = match first_key.filter(|_| std::env::var_os(JOURNAL).is_some()) {
            Some(key) => Some(self.keep(key)?),
            None => None,
        };
        if let Some(path) = self.ready_file {
            let body = json!({"listen": first, "admin_listen": self.admin, "pid": std::process::id()});
            let new = path.with_extension("new");
            std::fs::write(&new, format!("{body}\n"))?;
            std::fs::rename(&new, path)?;
        }
        lifecycle::notify(&[NotifyState::Ready]);
        tracing::info!(listen = ?self.public, admin = self.admin, "serving");
        let mut out = io::stdout().lock();
        let (program, url) = (std::env::args().next().unwrap_or("nervewire".into()), url(first));
        // A closed standard output is no reason not to serve.
        let _ = match (first_key, kept) {
            (Some(_), Some(path)) => {
                writeln!(
                    out,
                    "nervewire serves on {url}; the first key of its new store is in {}",
                    path.display()
                )
            }
            (Some(key), None) => welcome(&mut out, &program, &url, key),
            (None, _) => writeln!(
                out,
                "nervewire serves on {url}\n\nWith your key in NERVEWIRE_KEY:\n\n  {program} tail --url {url}\n  \
                 {program} publish --url {url} --channel hello --data '{{\"text\":\"hi\"}}'\n\n\
                 No key at hand? Stop the daemon and run: {program} key create --org default --data-dir {}",
                self.data_dir.display()
            ),
        };
        let _ = out.flush(); // as above
        Ok(())
    }

    /// Puts the first key into a file of mode 0600.
    fn keep(&self, key: &str) -> io::Result<PathBuf> {
        let path = self.data_dir.join(KEY_FILE);
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{key}")?;
        file.sync_all()?;
        Ok(path)
    }
}

fn welcome(out: &mut impl Write, program: &str, url: &str, key: &str) -> io::Result<()> {
    writeln!(
        out,
        "nervewire serves on {url}\n\n\
         This is a new store. Its organization is `default`, and this is its first key, shown only now:\n\n  {key}\n\n\
         Paste this in a second terminal, to follow what is published:\n\n  \
         {program} tail --url {url} --key {key}\n\n\
         and this in a third, to publish:\n\n  \
         {program} publish --url {url} --key {key} --channel hello --data '{{\"text\":\"hi\"}}'\n"
    )
}

fn url(listen: &str) -> String {
    match listen.starts_with("unix:") {
        true => listen.to_owned(),
        false => format!("http://{}", listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")),
    }
}
