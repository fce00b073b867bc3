//! A daemon under test: the real binary on ports that the kernel chose, with its own data directory.
//!
//! * Every wait has a limit ([`PATIENCE`]), so a missing event fails the test and does not hang it.
//! * The process ends with its [`Daemon`]. A failing test prints the daemon's log.
//! * The clients in `http`, `sse` and `ws` share no parser with the daemon.

#![allow(dead_code, reason = "each test program uses its part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failing helper fails its test"
)]

pub(crate) mod h2;
pub(crate) mod http;
pub(crate) mod raw;
pub(crate) mod rest;
pub(crate) mod sse;
pub(crate) mod streams;
pub(crate) mod ws;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nervewire::ids::TenantId;
use nervewire::store::{Organization, Visibility};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use http::Call;
use sse::{Sse, SseRequest};
use ws::{Ws, WsRequest};

/// Longest wait for anything before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`. Fails with `what` if it takes too long.
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let (what, at) = (what.to_owned(), std::panic::Location::caller());
    async move {
        match timeout(PATIENCE, future).await {
            Ok(done) => done,
            Err(_) => panic!("{what} did not come within {PATIENCE:?} ({at})"),
        }
    }
}

/// Repeats `probe` until it returns `Some`. For states that nothing announces, such as a metric.
#[track_caller]
pub(crate) fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> impl Future<Output = T> {
    within(what, async move {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
}

/// A builder for a daemon.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    env: Vec<(String, String)>,
    toml: Option<String>,
    flags: Vec<String>,
    dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
}

impl Builder {
    /// Sets `NERVEWIRE_<name>`, e.g. `LIMITS__RING_SLOTS`.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((format!("NERVEWIRE_{name}"), value.to_string()));
        self
    }

    /// Sets the text of the configuration file.
    pub(crate) fn toml(mut self, text: &str) -> Self {
        self.toml = Some(text.to_owned());
        self
    }

    /// Adds flags of `serve`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Uses a data directory that outlives the daemon instead of a temporary one.
    pub(crate) fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) async fn start(self) -> Daemon {
        let temp = tempfile::tempdir().unwrap();
        let data_dir = self.dir.clone().unwrap_or_else(|| temp.path().join("data"));
        let running = self.spawn(temp.path(), &data_dir).await;
        let key = running.first_key.clone().unwrap_or_default();
        Daemon { how: self, temp, data_dir, running: Some(running), key }
    }

    async fn spawn(&self, home: &Path, data_dir: &Path) -> Running {
        let ready = home.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let listen = self.listen.map_or("127.0.0.1:0".into(), |addr| addr.to_string());
        let mut command = command(home);
        command.args(["serve", "--listen", &listen, "--admin-listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir).arg("--ready-file").arg(&ready);
        if let Some(text) = &self.toml {
            let path = home.join("test.toml");
            std::fs::write(&path, text).unwrap();
            command.arg("--config").arg(path);
        }
        command.args(&self.flags).envs(self.env.clone());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().unwrap();
        let kept = log.clone();
        let logging = tokio::spawn(async move {
            let mut piece = vec![0; 8_192];
            while let Ok(n @ 1..) = stderr.read(&mut piece).await {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        let ready_file = within("the ready file", async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&ready) {
                    return text;
                }
                if let Some(status) = child.try_wait().unwrap() {
                    sleep(Duration::from_millis(50)).await; // time for the last of its log
                    panic!("the daemon ended with {status}:\n{}", log.lock().unwrap());
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let ready_file: Value = serde_json::from_str(&ready_file).unwrap();
        let addr = |name: &str| ready_file[name].as_str().unwrap().parse().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first_key = within("the first key", async {
            // The first line shows whether a key follows it.
            let _ = lines.next_line().await.unwrap();
            if data_dir.join(".known").exists() {
                return None;
            }
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.trim().starts_with("nwk_") {
                    return Some(line.trim().to_owned());
                }
            }
            None
        })
        .await;
        std::fs::write(data_dir.join(".known"), "").unwrap();
        let saying = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Running {
            child,
            addr: addr("listen"),
            admin: addr("admin_listen"),
            pid: ready_file["pid"].as_u64().unwrap() as i32,
            first_key,
            log,
            tasks: [logging, saying],
        }
    }
}

/// The binary in `home`, without our variables in its environment.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nervewire"));
    command.current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("JOURNAL_STREAM"); // under a journal, the first key goes into a file
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NERVEWIRE_") {
            command.env_remove(name);
        }
    }
    command
}

/// One run of the process.
struct Running {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    pid: i32,
    first_key: Option<String>,
    log: Arc<Mutex<String>>,
    tasks: [JoinHandle<()>; 2],
}

/// A daemon under test.
pub(crate) struct Daemon {
    how: Builder,
    temp: TempDir,
    data_dir: PathBuf,
    running: Option<Running>,
    /// The bootstrap key: `*` and `operator` in the organization `default`.
    pub(crate) key: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() && self.running.is_some() {
            eprintln!("---- the daemon's log\n{}----", self.log());
        }
    }
}

impl Daemon {
    /// Starts a daemon with the default configuration.
    pub(crate) async fn start() -> Daemon {
        Builder::default().start().await
    }

    /// A builder for a daemon with another configuration.
    pub(crate) fn with() -> Builder {
        Builder::default()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the daemon runs")
    }

    /// The address of the public listener.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.running().addr
    }

    /// The address of the admin listener.
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.running().admin
    }

    /// `http://…` of the public listener.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> i32 {
        self.running().pid
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The log of the current run.
    pub(crate) fn log(&self) -> String {
        self.running().log.lock().unwrap().clone()
    }

    /// `kill -9`. Only what is on disk survives.
    pub(crate) async fn kill9(&mut self) {
        let mut running = self.running.take().expect("the daemon runs");
        running.child.start_kill().unwrap();
        within("the end of a killed daemon", running.child.wait()).await.unwrap();
    }

    /// Sends a signal, e.g. [`rustix::process::Signal::TERM`].
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM. Returns the exit code.
    pub(crate) async fn terminate(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await.code().expect("it exits by itself")
    }

    /// Waits until the process ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the daemon runs");
        let status = within("the end of the daemon", running.child.wait()).await.unwrap();
        let [logging, saying] = running.tasks;
        let _ = tokio::join!(logging, saying);
        status
    }

    /// Starts the stopped daemon again on the same data, at a new port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs still");
        self.running = Some(self.how.spawn(self.temp.path(), &self.data_dir).await);
    }

    /// `kill -9`, then a start on the same data and the same port.
    pub(crate) async fn restart(&mut self) {
        self.how.listen = Some(self.addr());
        self.kill9().await;
        self.start_again().await;
    }

    /// Changes the configuration for the next start: `NERVEWIRE_<name>`.
    pub(crate) fn reconfigure(&mut self, name: &str, value: impl ToString) {
        self.how = std::mem::take(&mut self.how).env(name, value);
    }

    /// Runs the binary as a command beside the daemon and waits for its end.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = command(self.temp.path());
        command.args(arguments).env("NERVEWIRE_URL", self.url()).env("NERVEWIRE_KEY", &self.key);
        within("the command line", command.output()).await.unwrap()
    }

    /// A request to the public listener. It uses the bootstrap key unless another is set.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.addr(), method, path).key(&self.key)
    }

    /// `GET`.
    pub(crate) fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    /// `POST`.
    pub(crate) fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    /// An SSE stream. It uses the bootstrap key unless another is set.
    pub(crate) fn sse(&self, path: &str) -> SseRequest {
        SseRequest::new(self.addr(), path).key(&self.key)
    }

    /// A WebSocket. It uses the bootstrap key unless another is set.
    pub(crate) fn ws(&self, path: &str) -> WsRequest {
        WsRequest::new(self.addr(), path).key(&self.key)
    }

    /// A WebSocket whose `ready` has been read.
    pub(crate) async fn live_ws(&self, path: &str) -> Ws {
        let mut ws = self.ws(path).open().await;
        let ready = ws.next_json().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        ws
    }

    /// An SSE stream whose `ready` has been read.
    pub(crate) async fn live_sse(&self, path: &str) -> Sse {
        let mut sse = self.sse(path).open().await;
        let ready = sse.next().await;
        assert_eq!(ready.name.as_deref(), Some("ready"), "{ready:?}");
        sse
    }

    /// A connection with the smallest receive buffer that the kernel allows, so it blocks its peer soon.
    pub(crate) async fn small_buffer_connection(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        within("a connection", socket.connect(self.addr())).await.unwrap()
    }

    /// Publishes one event, an array, or any other JSON. Returns the ids.
    pub(crate) async fn publish(&self, body: Value) -> Vec<String> {
        self.publish_as(&self.key, body).await
    }

    /// As `publish`, with another credential.
    pub(crate) async fn publish_as(&self, key: &str, body: Value) -> Vec<String> {
        let reply = self.post("/api/v1/events").key(key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.ids()
    }

    /// Publishes messages of `agent-1` to `user-1` in one batch. Returns their ids.
    pub(crate) async fn publish_messages(&self, contents: &[&str]) -> Vec<String> {
        self.publish(contents.iter().map(|content| message(content)).collect()).await
    }

    /// Creates an organization. Returns an API key in it with all scopes (`*`).
    pub(crate) async fn create_org(&self, id: &str) -> String {
        let made = self.post("/api/v1/organizations").json(&json!({"id": id})).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        self.create_key(json!({"org_id": id, "name": "test", "scopes": ["*"]})).await
    }

    /// Creates an API key. `body` has the fields of `POST /api-keys`.
    pub(crate) async fn create_key(&self, body: Value) -> String {
        let made = self.post("/api/v1/api-keys").json(&body).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["data"]["api_key"].as_str().unwrap().to_owned()
    }

    /// Creates a JWT for `sub` in the organization of `key`. `more` has further fields of `POST /tokens`
    /// (`roles`, `scopes`, …).
    pub(crate) async fn mint_token(&self, key: &str, sub: &str, more: Value) -> String {
        let mut body = json!({"sub": sub, "expires_in_seconds": 3_600});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let minted = self.post("/api/v1/tokens").key(key).json(&body).send().await;
        assert_eq!(minted.status, 201, "{minted:?}");
        minted.json()["data"]["token"].as_str().unwrap().to_owned()
    }

    /// Creates a JWT of a user in the organization `default`.
    pub(crate) async fn user_token(&self, sub: &str) -> String {
        self.mint_token(&self.key, sub, json!({"roles": ["user"]})).await
    }

    /// A metric: the series with exactly this name, or the sum over all series if no labels are given.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = Call::new(self.admin_addr(), "GET", "/metrics").send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let text = page.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut found = None;
        for line in samples {
            let (series, value) = line.rsplit_once(' ').unwrap();
            if series == name || series.split('{').next().unwrap() == name {
                *found.get_or_insert(0.0) += value.parse::<f64>().unwrap();
            }
        }
        found.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }
}

/// The row of an organization.
pub(crate) fn organization(tenant: u64, id: &str) -> Organization {
    Organization {
        tenant: TenantId(tenant),
        org_id: id.into(),
        name: String::new(),
        visibility: Visibility::Private,
        presence: false,
        created_ms: 1,
        deleted: false,
    }
}

/// A message of `agent-1` to `user-1`.
pub(crate) fn message(content: &str) -> Value {
    json!({"type": "message", "agent_id": "agent-1", "user_id": "user-1", "content": content})
}

/// A `custom` event on a channel.
pub(crate) fn custom(channel: &str, data: Value) -> Value {
    json!({"type": "custom", "channel": channel, "data": data})
}

/// A chunk of a stream that is not the last one.
pub(crate) fn chunk(request_id: &str, text: &str, index: u64) -> Value {
    json!({"type": "stream_chunk", "request_id": request_id, "chunk": text, "is_final": false, "index": index})
}

/// Whether this is an RFC 3339 time in UTC with milliseconds, as the daemon writes it.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}
