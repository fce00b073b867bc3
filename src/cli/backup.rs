//! `backup`: backs up a running daemon through its admin listener, or the data directory of a stopped one.
//!
//! A running daemon makes the backup inside its data directory and returns the path. This command links or
//! copies the files to the target. Then the daemon releases its own copy, also if the command fails or is
//! interrupted.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressDrawTarget, ProgressStyle};
use nervewire_client::{ClientError, Request, encode};
use serde_json::{Value, json};

use super::archive::UnpackedBackup;
use super::args::BackupArgs;
use super::exit::{CliError, Exit, Listener};
use super::rest::Rest;
use super::{non_empty, offline, output};
use crate::config::{Config, ListenAddr};
use crate::store::{self, BackupError, BackupSummary, Manifest, OpenError};
use crate::time::{SystemClock, rfc3339};

/// How often a running daemon is polled for its progress.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Redraws of a progress bar per second.
const DRAWS_PER_SECOND: u8 = 5;

/// A progress bar for the store's progress reports, on standard error if that is a terminal.
pub(super) struct ProgressBar {
    bar: indicatif::ProgressBar,
    what: String,
    of: u64,
}

impl Default for ProgressBar {
    fn default() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = indicatif::ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:50} {wide_bar} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, what: String::new(), of: 0 }
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl ProgressBar {
    fn draw(&mut self, what: &str, done: u64, of: u64) {
        if self.what != what || self.of != of {
            self.bar.set_length(of);
            self.bar.set_message(what.to_owned());
            (self.what, self.of) = (what.to_owned(), of);
        }
        self.bar.set_position(done);
    }
}

impl store::ProgressSink for ProgressBar {
    fn report(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError> {
        self.draw(what, done, of);
        Ok(())
    }
}

/// Converts an error and adds a hint.
pub(super) fn failed(error: BackupError) -> CliError {
    let exit = match &error {
        BackupError::Open(OpenError::InUse { .. }) => Exit::DataDirInUse,
        BackupError::OutOfRange { .. } => Exit::Usage,
        BackupError::Busy | BackupError::Full => Exit::Unavailable,
        _ => Exit::Failed,
    };
    CliError::new(exit, error.to_string(), "")
}

pub(super) fn run(args: &BackupArgs) -> Result<(), CliError> {
    let config = Config::load(&super::sources(&args.config, None)?)?;
    store::must_be_outside(&config.data_dir, &args.to).map_err(failed)?;
    let mut bar = ProgressBar::default();
    let target = UnpackedBackup::open(&args.to)?;
    let to = target.dir();
    let made = match (&args.admin_url, non_empty(&args.key)) {
        (Some(_), key) => running(args, to, &config, key, &mut bar)?,
        (None, key) => {
            let hint = "--data-dir names another directory; for a running daemon give --admin-url and --key";
            offline::require_data_dir(&config, hint)?;
            match (store::backup(&config.data_dir, to, &SystemClock, &mut bar), key) {
                (Err(BackupError::Open(OpenError::InUse { .. })), key @ Some(_)) => {
                    running(args, to, &config, key, &mut bar)?
                }
                (Err(BackupError::Open(error @ OpenError::InUse { .. })), None) => {
                    let hint = "give an operator key with NERVEWIRE_KEY or --key, so that the running daemon makes the backup";
                    return Err(CliError::new(Exit::DataDirInUse, error.to_string(), hint));
                }
                (made, _) => made.map_err(failed)?,
            }
        }
    };
    drop(bar);
    target.pack()?;
    output::line(&summary(&made, args.json))?;
    match made.damaged.first() {
        None => Ok(()),
        Some(first) => {
            let damaged = output::counted(made.damaged.len() as u64, "segment");
            let what = format!("the backup is made, and damaged in {damaged}: {first}");
            let hint = "keep your earlier backups; `nervewire verify` lists what is damaged. Check the disk of the data directory";
            Err(CliError::new(Exit::Failed, what, hint))
        }
    }
}

fn summary(made: &BackupSummary, as_json: bool) -> String {
    let Manifest { first, last, first_ms, last_ms, rows, .. } = made.manifest;
    let (bytes, added) = (made.manifest.journal_bytes(), made.added_bytes);
    if as_json {
        return json!({
            "first": first, "last": last, "first_time": rfc3339(first_ms), "last_time": rfc3339(last_ms),
            "rows": rows, "journal_bytes": bytes, "added_bytes": added, "damaged": made.damaged,
        })
        .to_string();
    }
    let what = if made.was_there { "added to the backup" } else { "a new backup" };
    format!(
        "{what}: {}, {} of the journal, {added} of them new\n\
         can be restored as of positions {first} to {last}, {} to {}",
        output::counted(rows, "row"),
        output::counted(bytes, "byte"),
        rfc3339(first_ms),
        rfc3339(last_ms)
    )
}

/// Makes the running daemon release its copy of the backup when dropped.
struct DropBackupGuard<'r>(&'r mut Rest);

impl Drop for DropBackupGuard<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.call(&Request::new(Method::DELETE, "/backup")) {
            output::print_note(&format!("the daemon keeps its copy of the backup for an hour: {error}"));
        }
    }
}

fn running(
    args: &BackupArgs,
    to: &Path,
    config: &Config,
    key: Option<&str>,
    bar: &mut ProgressBar,
) -> Result<BackupSummary, CliError> {
    let url = match non_empty(&args.admin_url) {
        Some(url) => url.to_owned(),
        None => admin_url(config)?,
    };
    let since = match to.join("manifest").exists() {
        true => Some(Manifest::read(to).map_err(failed)?),
        false => None,
    };
    let path = since.map_or_else(
        || "/backup".to_owned(),
        |it| format!("/backup?journal={}&position={}", encode(&it.journal), it.last),
    );
    let mut rest = Rest::of_admin(&url, key)?;
    rest.data(&Request::new(Method::POST, path)).map_err(not_asked)?;
    let own = DropBackupGuard(&mut rest);
    let stage = wait(own.0, bar)?;
    if Manifest::read(&stage).is_err() {
        let what = format!("the daemon made the backup in {}, which cannot be read here", stage.display());
        let hint = "run this on the daemon's machine, as the daemon's user or root";
        return Err(CliError::new(Exit::Failed, what, hint));
    }
    store::copy_stage(&stage, to, bar).map_err(failed)
}

/// Returns the error for a request that the daemon's admin listener did not carry out.
fn not_asked(error: ClientError) -> CliError {
    CliError::of(&error, Listener::Admin)
}

/// Waits until the daemon has made the backup, and returns the backup's path.
fn wait(rest: &mut Rest, bar: &mut ProgressBar) -> Result<PathBuf, CliError> {
    loop {
        let status = rest.data(&Request::new(Method::GET, "/backup")).map_err(not_asked)?;
        let text = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or_default();
        match text("state") {
            "running" => bar.draw(&output::plain(text("what")), number("done"), number("of")),
            "ready" => return Ok(Path::new(text("dir")).to_owned()),
            "failed" => return Err(CliError::new(Exit::Failed, text("why"), "")),
            _ => {
                let hint =
                    "another command may have cancelled it, or the daemon was stopped: run the backup again";
                return Err(CliError::new(Exit::Failed, "the daemon no longer has the backup", hint));
            }
        }
        thread::sleep(ASKED_EVERY);
    }
}

/// Returns the address of the configured admin listener.
fn admin_url(config: &Config) -> Result<String, CliError> {
    match &config.admin_listen {
        None => {
            let hint = "set `admin_listen` and restart the daemon, or stop the daemon and back up its data directory";
            Err(CliError::new(Exit::Usage, "the configuration has no admin listener", hint))
        }
        Some(ListenAddr::Unix(path)) => Ok(format!("unix:{}", path.display())),
        Some(other) => Ok(format!("http://{other}")),
    }
}
