//! The server under measurement: a daemon started for the run, a baseline, or a server that is already
//! running.
//!
//! * [`launch`] starts the process of a daemon.
//! * A started process ends with its [`Target`], and its files are removed.

pub(crate) mod baseline;
pub(crate) mod cleanup;
mod launch;
pub(crate) mod process;
mod server;
mod settings;
pub(crate) mod tenants;
mod token;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::error::BenchError;
use crate::wire::http_connection::HttpConnection;
use crate::wire::{Access, credential_header};
use launch::Launch;
use process::Cpu;

pub(crate) use server::Server;
pub use settings::DaemonSettings;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// How often to check whether a process has ended.
const END_LOOK: Duration = Duration::from_millis(1);

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
        match &self.secret {
            Some(secret) => Ok(token::mint(secret, sub, scopes)),
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
        let reply: Value = serde_json::from_str(&self.counters_page("/stats")?).ok()?;
        reply["sends"].as_u64()
    }

    /// Returns one value of the daemon's `/metrics`: the line that starts with `name` (including labels) and
    /// a space.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.counters_page("/metrics")?;
        let line =
            page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Reads a page of counters from the server; `None` if the server has none.
    fn counters_page(&self, path: &str) -> Option<String> {
        let addr = self.counters?;
        let access = Access { addr, host: addr.to_string(), credential: String::new() };
        let mut connection = HttpConnection::new(&access, START).ok()?;
        let (status, body) = connection.get(path).ok()?;
        (status == 200).then(|| String::from_utf8_lossy(body).into_owned())
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
    let credential = credential_header(settings.key.as_deref().unwrap_or_default());
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
    target.access.credential = credential_header(&key);
    Ok(target)
}
