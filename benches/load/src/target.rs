//! The server under measurement: a daemon started for the run, a baseline, or a server that is already
//! running.
//!
//! * [`super::launch`] starts the process of a daemon.
//! * A started process ends with its [`Target`], and its files are removed.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::error::BenchError;
use super::launch::{self, Launch};
use super::process::Cpu;
use super::subscriber::{self, Message, Phase, Wire};
use super::token;

/// Settings of a measured daemon that differ from the defaults. They lift limits that would refuse a load
/// test, and make nothing faster.
pub const LIFTED: &[(&str, &str)] = &[
    ("limits.connections_per_user", "0"), // all subscribers of a run with a JWT are one user
    ("limits.publish_per_second_per_organization", "100000000"), // the default is a million
    ("log.level", "warn"),
];
/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// How often to check whether a process has ended.
const END_LOOK: Duration = Duration::from_millis(1);
/// Maximum bytes of an admin or statistics page.
const PAGE_MAX: usize = 1 << 20;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Nervewire, started here or reached by `--url`.
    Daemon,
    /// The bare epoll floor.
    Floor,
    /// The broadcast-channel baseline.
    Naive,
    /// The bare `pwrite` and `fdatasync`. It is not a server.
    Append,
    /// The bare HTTP server that drops every body.
    Parse,
    /// Another executable of the daemon, measured alternately with it.
    Before,
}

impl Server {
    /// Returns the name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Server::Daemon => "daemon",
            Server::Floor => "floor",
            Server::Naive => "naive",
            Server::Append => "append",
            Server::Parse => "parse",
            Server::Before => "before",
        }
    }

    /// Returns the server of this name, if a ratio to it is possible.
    #[must_use]
    pub fn named(name: &str) -> Option<Server> {
        let all = [Server::Floor, Server::Naive, Server::Append, Server::Parse, Server::Before];
        all.into_iter().find(|it| it.name() == name)
    }
}

/// The address of a server and a credential for it.
#[derive(Clone, Debug)]
pub struct Access {
    /// The address.
    pub addr: SocketAddr,
    /// The value of the `Host` header.
    pub host: String,
    /// The header line of the credential with its line end; empty if there is none.
    pub credential: String,
}

impl Access {
    /// Returns the same address with another API key or token.
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

/// The daemon to measure.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DaemonSettings {
    /// Measure the daemon at this address, `http://host:port`; without it a new daemon is started for each
    /// run, in a new directory
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// API key or token (JWT) for the daemon; prefer the variable, because other users of the machine may see
    /// arguments
    #[arg(long, alias = "token", value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Process id of the daemon, to read CPU and memory
    #[arg(long, value_name = "PID", requires = "url")]
    pub pid: Option<u32>,
    /// Admin listener of the daemon, `host:port`, to read counters
    #[arg(long, value_name = "ADDR", requires = "url")]
    pub admin: Option<String>,
    /// Executable to start as the daemon [default: this one]
    #[arg(long = "daemon", value_name = "PATH", conflicts_with = "url")]
    pub exe: Option<PathBuf>,
    /// Another executable, measured alternately with the daemon and reported as `before`, with ratios
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub before: Option<PathBuf>,
    /// A setting for the started daemon, `key=value` as in docs/configuration.md; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "url", value_parser = setting)]
    pub set: Vec<String>,
}

/// Parses a setting of `--set`.
fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("must be key=value, such as limits.event_bytes=1024".into()),
    }
}

/// A server to be measured.
#[derive(Debug)]
pub struct Target {
    /// The kind of server.
    pub server: Server,
    /// The access of publishers and subscribers.
    pub access: Access,
    /// Process id of the server, if known.
    pub pid: Option<u32>,
    /// The secret that signs tokens for the organization `default`. Only for a daemon started here.
    pub secret: Option<String>,
    /// Where to read counters: the daemon's admin listener, or the baseline itself.
    counters: Option<SocketAddr>,
    child: Option<Child>,
    /// How to start the daemon again. Only for a daemon started here.
    launch: Option<Launch>,
}

impl Target {
    /// Starts the daemon of these settings, or uses the running one.
    ///
    /// # Errors
    /// The daemon does not start, or the address is invalid.
    pub fn daemon(settings: &DaemonSettings) -> Result<Target, BenchError> {
        match &settings.url {
            Some(url) => running(url, settings),
            None => start_daemon(settings),
        }
    }

    /// Starts a program that prints `{"listen":"…"}` once it serves, as the baselines do.
    ///
    /// # Errors
    /// It does not start.
    pub fn baseline(server: Server, program: &Path, arguments: &[OsString]) -> Result<Target, BenchError> {
        let failed = |why: String| BenchError::Start { server: server.name(), why };
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::piped()) // it ends when this closes, even if this process crashes
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            let _ = BufReader::new(out).read_line(&mut line); // an empty line means that it ended
        }
        let addr = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|reply| reply["listen"].as_str().and_then(|addr| addr.parse::<SocketAddr>().ok()));
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("it printed {line:?} instead of its address")));
        };
        let access = Access { addr, host: addr.to_string(), credential: String::new() };
        let pid = Some(child.id());
        let counters = Some(addr);
        Ok(Target { server, access, pid, secret: None, counters, child: Some(child), launch: None })
    }

    /// Creates a token for user `sub` in the organization `default`, valid for a day.
    ///
    /// # Errors
    /// The daemon was not started here, so its keys are unknown.
    pub fn token(&self, sub: &str, scopes: &[&str]) -> Result<String, BenchError> {
        self.token_for("default", sub, scopes)
    }

    /// Creates a token for another organization, which must exist.
    ///
    /// # Errors
    /// Those of [`Target::token`].
    pub fn token_for(&self, org: &str, sub: &str, scopes: &[&str]) -> Result<String, BenchError> {
        match &self.secret {
            Some(secret) => Ok(token::mint(secret, org, sub, scopes)),
            None if self.server != Server::Daemon => Ok("none".to_owned()),
            None => Err(BenchError::Usage(
                "this mode creates tokens: let it start the daemon, or give a token with --key".into(),
            )),
        }
    }

    /// Returns the CPU time so far; `None` if the process is unknown or has ended.
    #[must_use]
    pub fn cpu(&self) -> Option<Cpu> {
        self.pid.and_then(Cpu::of)
    }

    /// Returns the number of system calls that wrote events to subscribers so far, if the server reports it.
    #[must_use]
    pub fn writes(&self) -> Option<u64> {
        if self.server == Server::Daemon {
            return self.metric("nervewire_writes_total").map(|writes| writes as u64);
        }
        let reply: Value = serde_json::from_str(&get(self.counters?, "/stats").ok()?).ok()?;
        reply["sends"].as_u64()
    }

    /// Returns one value of the daemon's `/metrics`: the line that starts with `name` (including labels) and
    /// a space.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.metrics()?;
        let line =
            page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Returns the daemon's `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> Option<String> {
        get(self.counters?, "/metrics").ok()
    }

    /// Returns the data directory. Only for a daemon started here.
    #[must_use]
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.launch.as_ref().map(Launch::data_dir)
    }

    /// Ends the daemon with `signal`. Returns how long it took.
    ///
    /// # Errors
    /// The daemon was not started here, or is still running after `patience`.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> Result<Duration, BenchError> {
        let child = self.child.as_mut().ok_or_else(not_ours)?;
        let began = Instant::now();
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(not_ours)?;
        kill_process(pid, signal).map_err(BenchError::sys("end the daemon"))?;
        while matches!(child.try_wait(), Ok(None)) {
            if began.elapsed() > patience {
                let waiting = "the daemon's end".to_owned();
                return Err(BenchError::Stalled { seconds: patience.as_secs(), waiting });
            }
            std::thread::sleep(END_LOOK);
        }
        (self.child, self.pid, self.counters) = (None, None, None);
        Ok(began.elapsed())
    }

    /// Starts the daemon again on its data. Returns how long it took until the daemon was ready.
    ///
    /// # Errors
    /// The daemon was not started here, ends, or takes longer than `patience`.
    pub fn start_again(&mut self, patience: Duration) -> Result<Duration, BenchError> {
        let began = Instant::now();
        let child = self.launch.as_ref().ok_or_else(not_ours)?.spawn()?;
        self.pid = Some(child.id());
        self.child = Some(child);
        self.serves(patience)?;
        Ok(began.elapsed())
    }

    /// Waits until the child is ready, and stores its addresses.
    fn serves(&mut self, patience: Duration) -> Result<(), BenchError> {
        let (Some(launch), Some(child)) = (&self.launch, &mut self.child) else { return Err(not_ours()) };
        let ready = launch.wait(child, patience)?;
        self.access.addr = ready.listen;
        self.access.host = ready.listen.to_string();
        self.counters = Some(ready.admin);
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended already
            let _ = child.wait();
        }
        if let Some(launch) = &self.launch {
            launch::clear(&launch.dir);
        }
    }
}

fn not_ours() -> BenchError {
    BenchError::Usage("this needs a daemon that the bench starts: leave out --url".into())
}

fn running(url: &str, settings: &DaemonSettings) -> Result<Target, BenchError> {
    let resolve = |host: &str| {
        let found = host.to_socket_addrs().ok().and_then(|mut addrs| addrs.next());
        found.ok_or_else(|| BenchError::Usage(format!("{host}: no such host:port")))
    };
    if let Some((scheme, _)) = url.split_once("://").filter(|(scheme, _)| *scheme != "http") {
        return Err(BenchError::Usage(format!("{scheme}://: only http:// URLs are supported, without TLS")));
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
        launch: None,
    })
}

fn start_daemon(settings: &DaemonSettings) -> Result<Target, BenchError> {
    let launch = Launch::prepare(settings)?;
    let child = launch.spawn()?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut target = Target {
        server: Server::Daemon,
        access: Access { addr: nowhere, host: String::new(), credential: String::new() },
        pid: Some(child.id()),
        secret: Some(launch.secret.clone()),
        counters: None,
        child: Some(child),
        launch: Some(launch),
    };
    target.serves(START)?;
    let key = target.child.as_mut().and_then(launch::first_key);
    let key = key.ok_or_else(|| BenchError::Start { server: "daemon", why: "it printed no key".into() })?;
    target.access.credential = header(&key);
    Ok(target)
}

/// Returns the body of a small page.
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
