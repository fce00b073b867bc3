//! What is measured: a daemon started for the run and gone after it, a baseline, or a server somebody else runs.
//!
//! * The daemon is this very executable (or `--daemon`), in a fresh data directory, with defaults but for what [`LIFTED`] says
//!   and what `--set` asks for. Nothing of the caller's environment or `nervewire.toml` reaches it.
//! * Whatever was started ends with its [`Target`], and its files go.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::BenchError;
use super::leftovers;
use super::process::Cpu;
use super::subscriber::{self, Message, Phase, Wire};
use super::token;

/// Settings in which a measured daemon differs from the defaults: what would refuse a load test, and nothing that speeds it up.
pub const LIFTED: &[(&str, &str)] = &[
    ("limits.connections_per_user", "0"), // all subscribers of a run by JWT are one user
    ("log.level", "warn"),
];
/// How long a server may take to come up.
const START: Duration = Duration::from_secs(20);
/// Bytes of an admin or statistics page.
const PAGE_MAX: usize = 1 << 20;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Nervewire, started here or reached by `--url`.
    Daemon,
    /// The bare epoll floor.
    Floor,
    /// The broadcast-channel baseline.
    Naive,
}

impl Server {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Server::Daemon => "daemon",
            Server::Floor => "floor",
            Server::Naive => "naive",
        }
    }
}

/// How to reach a server and speak for somebody there.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where.
    pub addr: SocketAddr,
    /// `Host`.
    pub host: String,
    /// The credential's header line with its line end; empty for none.
    pub credential: String,
}

impl Access {
    /// The same place with another API key or token.
    #[must_use]
    pub fn with_credential(&self, credential: &str) -> Access {
        Access { credential: header(credential), ..self.clone() }
    }
}

fn header(credential: &str) -> String {
    match credential {
        "" => String::new(),
        key if key.starts_with("nwk_") => format!("X-API-Key: {key}\r\n"),
        token => format!("Authorization: Bearer {token}\r\n"),
    }
}

/// Which daemon to measure.
#[derive(Clone, Debug, Default)]
pub struct DaemonSettings {
    /// `http://host:port` of a running one; else one is started for each run.
    pub url: Option<String>,
    /// API key or token for it.
    pub key: Option<String>,
    /// Its process, for CPU and memory.
    pub pid: Option<u32>,
    /// `host:port` of its admin listener, for its counters.
    pub admin: Option<String>,
    /// The executable to start; `None`: this one.
    pub exe: Option<PathBuf>,
    /// `key=value` settings of the one started here.
    pub set: Vec<String>,
}

/// A server to be measured.
#[derive(Debug)]
pub struct Target {
    /// Which.
    pub server: Server,
    /// Publishes and subscribes for everybody.
    pub access: Access,
    /// Its process, where known.
    pub pid: Option<u32>,
    /// Signs tokens it accepts for the organization `default`; only of a daemon started here.
    pub secret: Option<String>,
    /// Where its counters are: the daemon's admin listener, a baseline itself.
    counters: Option<SocketAddr>,
    child: Option<Child>,
    dir: Option<PathBuf>,
}

impl Target {
    /// Starts the daemon these settings ask for, or names the running one.
    ///
    /// # Errors
    /// It does not come up, or the address is none.
    pub fn daemon(settings: &DaemonSettings) -> Result<Target, BenchError> {
        match &settings.url {
            Some(url) => running(url, settings),
            None => start_daemon(settings),
        }
    }

    /// A program that prints `{"listen":"…"}` once it serves, as the baselines do.
    ///
    /// # Errors
    /// It does not come up.
    pub fn baseline(server: Server, program: &Path, arguments: &[OsString]) -> Result<Target, BenchError> {
        let failed = |why: String| BenchError::Start { server: server.name(), why };
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::piped()) // it ends when this closes, however we end
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            let _ = BufReader::new(out).read_line(&mut line); // an empty line says that it ended
        }
        let addr = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|said| said["listen"].as_str().and_then(|addr| addr.parse::<SocketAddr>().ok()));
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("it said {line:?} instead of where it listens")));
        };
        let access = Access { addr, host: addr.to_string(), credential: String::new() };
        let pid = Some(child.id());
        let counters = Some(addr);
        Ok(Target { server, access, pid, secret: None, counters, child: Some(child), dir: None })
    }

    /// A token of user `sub` in the organization `default`, valid for a day.
    ///
    /// # Errors
    /// The daemon was not started here, so its keys are unknown.
    pub fn token(&self, sub: &str, scopes: &[&str]) -> Result<String, BenchError> {
        self.token_for("default", sub, scopes)
    }

    /// The same for another organization, which has to be there.
    ///
    /// # Errors
    /// As [`Target::token`].
    pub fn token_for(&self, org: &str, sub: &str, scopes: &[&str]) -> Result<String, BenchError> {
        match &self.secret {
            Some(secret) => Ok(token::mint(secret, org, sub, scopes)),
            None if self.server != Server::Daemon => Ok("none".to_owned()),
            None => Err(BenchError::Usage(
                "this mode mints tokens itself: it works with a daemon it starts, or give --key a token"
                    .into(),
            )),
        }
    }

    /// CPU so far; `None` where the process is not known or has gone.
    #[must_use]
    pub fn cpu(&self) -> Option<Cpu> {
        self.pid.and_then(Cpu::of)
    }

    /// System calls so far that wrote events to subscribers, where the server tells them.
    #[must_use]
    pub fn writes(&self) -> Option<u64> {
        if self.server == Server::Daemon {
            return self.metric("nervewire_writes_total").map(|writes| writes as u64);
        }
        let said: Value = serde_json::from_str(&get(self.counters?, "/stats").ok()?).ok()?;
        said["sends"].as_u64()
    }

    /// One number of the daemon's `/metrics`: the line that starts with `name` (labels included) and a space.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.metrics()?;
        let line =
            page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The daemon's `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> Option<String> {
        get(self.counters?, "/metrics").ok()
    }

    /// Whether a process that was started here has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended already
            let _ = child.wait();
        }
        if let Some(dir) = &self.dir {
            let _ = fs::remove_dir_all(dir);
            leftovers::forget(dir);
        }
    }
}

fn running(url: &str, settings: &DaemonSettings) -> Result<Target, BenchError> {
    let resolve = |host: &str| {
        let found = host.to_socket_addrs().ok().and_then(|mut addrs| addrs.next());
        found.ok_or_else(|| BenchError::Usage(format!("{host}: no such host:port")))
    };
    if let Some((scheme, _)) = url.split_once("://").filter(|(scheme, _)| *scheme != "http") {
        return Err(BenchError::Usage(format!("{scheme}://: only http:// URLs are measured, without TLS")));
    }
    let host = url.trim_end_matches('/').strip_prefix("http://").unwrap_or(url);
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let credential = header(settings.key.as_deref().unwrap_or_default());
    let access = Access { addr: resolve(&host)?, host, credential };
    let counters = settings.admin.as_deref().map(resolve).transpose()?;
    Ok(Target {
        server: Server::Daemon,
        access,
        pid: settings.pid,
        secret: None,
        counters,
        child: None,
        dir: None,
    })
}

/// A directory of our own below the system's temporary one.
fn fresh_dir() -> Result<PathBuf, BenchError> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("nervewire-bench-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).map_err(BenchError::io(format!("make {}", dir.display())))?;
    leftovers::note(None, &dir);
    Ok(dir)
}

fn start_daemon(settings: &DaemonSettings) -> Result<Target, BenchError> {
    let exe = match &settings.exe {
        Some(exe) => fs::canonicalize(exe).map_err(BenchError::io(format!("find {}", exe.display())))?,
        None => std::env::current_exe().map_err(BenchError::io("find this executable"))?,
    };
    let dir = fresh_dir()?;
    let ready = dir.join("ready.json");
    let log = fs::File::create(dir.join("log")).map_err(BenchError::io("make a log file"))?;
    let secret = token::secret();
    let mut command = Command::new(exe);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"])
        .arg("--ready-file")
        .arg(&ready)
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("NERVEWIRE_") || text == "JOURNAL_STREAM" {
            command.env_remove(&name);
        }
    }
    let keys = format!(
        r#"[{{"secret":"{secret}","default":true,"organizations":["default","bench-a","bench-b"]}}]"#
    );
    command.env("NERVEWIRE_AUTH__JWT_KEYS", keys);
    let lifted = LIFTED.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let asked = settings.set.iter().filter_map(|pair| pair.split_once('='));
    for (key, value) in lifted.chain(asked.map(|(key, value)| (key.to_owned(), value.to_owned()))) {
        command.env(format!("NERVEWIRE_{}", key.to_ascii_uppercase().replace('.', "__")), value);
    }
    let failed = |why: String| BenchError::Start { server: "daemon", why };
    leftovers::dies_with_us(&mut command);
    let child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let pid = Some(child.id());
    leftovers::note(pid, &dir);
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let access = Access { addr: nowhere, host: String::new(), credential: String::new() };
    let mut target = Target {
        server: Server::Daemon,
        access,
        pid,
        secret: Some(secret),
        counters: None,
        child: Some(child),
        dir: Some(dir.clone()),
    };
    let said = wait_for(&ready, &mut target).map_err(|why| {
        failed(format!("{why}: {}", fs::read_to_string(dir.join("log")).unwrap_or_default().trim()))
    })?;
    let address = |name: &str| {
        let text = said[name].as_str().unwrap_or_default();
        text.parse::<SocketAddr>().map_err(|_| failed(format!("{name} is {text:?}")))
    };
    let key = first_key(&mut target).ok_or_else(|| failed("it printed no key".into()))?;
    let addr = address("listen")?;
    target.access = Access { addr, host: addr.to_string(), credential: header(&key) };
    target.counters = Some(address("admin_listen")?);
    Ok(target)
}

/// The ready file, once it is there.
fn wait_for(ready: &Path, target: &mut Target) -> Result<Value, String> {
    let deadline = Instant::now() + START;
    loop {
        // It appears whole, by a rename.
        if let Ok(text) = fs::read_to_string(ready) {
            return serde_json::from_str(&text).map_err(|error| error.to_string());
        }
        if target.has_ended() {
            return Err("it ended".to_owned());
        }
        if Instant::now() > deadline {
            return Err(format!("not ready after {} s", START.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The key a daemon prints at its first start, after the ready file.
fn first_key(target: &mut Target) -> Option<String> {
    let out = target.child.as_mut()?.stdout.as_mut()?;
    BufReader::new(out)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_whitespace().find(|word| word.starts_with("nwk_")).map(str::to_owned))
}

/// The body of a small page.
fn get(from: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(START))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let (mut held, mut piece) = (Vec::new(), [0; 16 * 1_024]);
    while held.len() < PAGE_MAX {
        let read = stream.read(&mut piece)?;
        held.extend_from_slice(&piece[..read]);
        match subscriber::next(&mut Phase::Head(Wire::Http), &held) {
            Ok(Some((_, Message::Answer { status: 200, body }))) => {
                return Ok(String::from_utf8_lossy(body).into_owned());
            }
            Ok(None) if read > 0 => {}
            _ => break,
        }
    }
    Err(std::io::ErrorKind::InvalidData.into())
}
