//! The process of a daemon: started in its own directory, and started again on the same data after it has
//! ended.
//!
//! * The executable is this one or the given one. It has the default settings, except for [`LIFTED_LIMITS`] and
//!   `--set`. The caller's environment and `nervewire.toml` do not affect it.
//! * The daemon is ready when its ready file appears. It writes the file after its listeners are open.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cleanup;
use super::settings::{DaemonSettings, LIFTED_LIMITS};
use super::token;
use crate::error::BenchError;

/// How often the ready file is looked for. This is the precision of a measured start.
const LOOK: Duration = Duration::from_millis(1);

/// How a daemon is started, any number of times.
#[derive(Debug)]
pub(super) struct Launch {
    exe: PathBuf,
    /// The directory with the data directory, the ready file and the log.
    pub(super) dir: PathBuf,
    /// The secret that signs tokens for the organization `default`.
    pub(super) secret: String,
    environment: Vec<(String, String)>,
}

/// The addresses of a started daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Launch {
    /// Creates a new directory for the daemon of these settings.
    pub(super) fn prepare(settings: &DaemonSettings) -> Result<Launch, BenchError> {
        let exe = match &settings.exe {
            Some(exe) => fs::canonicalize(exe).map_err(BenchError::io(format!("find {}", exe.display())))?,
            None => std::env::current_exe().map_err(BenchError::io("find this executable"))?,
        };
        let secret = token::secret();
        let keys = format!(r#"[{{"secret":"{secret}","default":true,"organizations":["default"]}}]"#);
        let lifted = LIFTED_LIMITS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let overrides = settings.set.iter().filter_map(|pair| pair.split_once('='));
        let mut environment = vec![("NERVEWIRE_AUTH__JWT_KEYS".to_owned(), keys)];
        for (key, value) in lifted.chain(overrides.map(|(key, value)| (key.to_owned(), value.to_owned()))) {
            environment.push((format!("NERVEWIRE_{}", key.to_ascii_uppercase().replace('.', "__")), value));
        }
        Ok(Launch { exe, dir: fresh_dir()?, secret, environment })
    }

    /// Returns the data directory.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts the daemon. It ends when this process ends.
    pub(super) fn spawn(&self) -> Result<Child, BenchError> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.map_err(BenchError::io("make a log file"))?;
        let _ = fs::remove_file(self.ready_file()); // it does not exist before the first start
        let mut command = Command::new(&self.exe);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"])
            .arg("--ready-file")
            .arg(self.ready_file())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("NERVEWIRE_") || text == "JOURNAL_STREAM" {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        cleanup::dies_with_us(&mut command);
        let child = command.spawn().map_err(|error| self.failed(error.to_string()))?;
        cleanup::register(Some(child.id()), &self.dir);
        Ok(child)
    }

    /// Waits until the daemon is ready.
    pub(super) fn wait(&self, child: &mut Child, patience: Duration) -> Result<Ready, BenchError> {
        let reported = self.ready(child, patience).map_err(|why| {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            self.failed(format!("{why}: {}", log.trim()))
        })?;
        let address = |name: &str| {
            let text = reported[name].as_str().unwrap_or_default();
            text.parse::<SocketAddr>().map_err(|_| self.failed(format!("{name} is {text:?}")))
        };
        Ok(Ready { listen: address("listen")?, admin: address("admin_listen")? })
    }

    fn ready(&self, child: &mut Child, patience: Duration) -> Result<Value, String> {
        let deadline = Instant::now() + patience;
        loop {
            // The file appears complete, because it is renamed into place.
            if let Ok(text) = fs::read_to_string(self.ready_file()) {
                return serde_json::from_str(&text).map_err(|error| error.to_string());
            }
            if !matches!(child.try_wait(), Ok(None)) {
                return Err("it ended".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready after {} s", patience.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn ready_file(&self) -> PathBuf {
        self.dir.join("ready.json")
    }

    pub(super) fn failed(&self, why: String) -> BenchError {
        BenchError::Start { server: "daemon", why }
    }
}

/// Returns the key that a daemon prints at its first start, after it writes the ready file.
pub(super) fn first_key(child: &mut Child) -> Option<String> {
    let out = child.stdout.as_mut()?;
    BufReader::new(out)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_whitespace().find(|word| word.starts_with("nwk_")).map(str::to_owned))
}

/// Removes the directory of the daemon.
pub(super) fn clear(dir: &Path) {
    let _ = fs::remove_dir_all(dir); // leftovers are in the system's temporary directory
    cleanup::forget(dir);
}

/// Creates a private directory below the system's temporary directory.
fn fresh_dir() -> Result<PathBuf, BenchError> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("nervewire-bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).map_err(BenchError::io(format!("make {}", dir.display())))?;
    cleanup::register(None, &dir);
    Ok(dir)
}
