//! The figures the README tells, measured on the real binary: `cargo bench --bench figures [-- idle | fanout]`.
//!
//! * idle: growth of the daemon's PSS per idle connection, 5,000 over WebSocket, then 5,000 over SSE.
//! * fanout: CPU of the daemon (user + system, from /proc) per delivery to 1,000 subscribers: one event at a time, and 32
//!   published together; each round waits until every subscriber has everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll;

const IDLE: usize = 5_000;
const SUBSCRIBERS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

struct Daemon {
    child: Child,
    addr: SocketAddr,
    key: String,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_nervewire"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let key = lines.find_map(|line| {
            line.unwrap().split_whitespace().find(|w| w.starts_with("nwk_")).map(str::to_owned)
        });
        let text = std::fs::read_to_string(&ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&text).unwrap();
        let addr = ready["listen"].as_str().unwrap().parse().unwrap();
        Daemon { child, addr, key: key.unwrap(), _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Subscribes and reads up to the end of `ready`.
    fn subscribe(&self, ws: bool) -> TcpStream {
        let mut stream = self.connect();
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (path, extra) = if ws { ("ws", upgrade) } else { ("sse", "Accept: text/event-stream\r\n") };
        let key = &self.key;
        write!(stream, "GET /api/v1/{path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\n{extra}\r\n")
            .unwrap();
        let mut seen = Vec::new();
        let mut buf = [0; 2_048];
        while !seen.windows(19).any(|w| w == b"\"heartbeat_seconds\"") {
            let n = stream.read(&mut buf).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buf[..n]);
        }
        stream
    }

    /// Bytes of memory that are this process's own share.
    fn pss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }

    /// User and system CPU so far.
    fn cpu(&self) -> (Duration, Duration) {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| Duration::from_millis(after[at].parse::<u64>().unwrap() * 10);
        (ticks(11), ticks(12))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A keep-alive publisher.
struct Publisher {
    stream: TcpStream,
    head: String,
}

impl Publisher {
    fn new(daemon: &Daemon) -> Publisher {
        let head = format!(
            "POST /api/v1/events?ack=memory HTTP/1.1\r\nHost: bench\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n",
            daemon.key
        );
        Publisher { stream: daemon.connect(), head }
    }

    fn publish(&mut self, body: &str) {
        write!(self.stream, "{}Content-Length: {}\r\n\r\n{body}", self.head, body.len()).unwrap();
        let mut answer = Vec::new();
        let mut buf = [0; 4_096];
        while !answer.ends_with(b"\"success\":true}") {
            let n = self.stream.read(&mut buf).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buf[..n]);
        }
    }
}

fn idle() {
    for (name, ws) in [("WebSocket", true), ("SSE", false)] {
        let daemon = Daemon::start();
        // What the first connection alone makes the daemon allocate is there before; what 5,000 leave behind in the
        // allocator while they connect is not, and counts.
        drop(daemon.subscribe(ws));
        std::thread::sleep(Duration::from_secs(1));
        let before = daemon.pss();
        let held: Vec<TcpStream> = (0..IDLE).map(|_| daemon.subscribe(ws)).collect();
        std::thread::sleep(Duration::from_secs(1));
        let after = daemon.pss();
        let each = (after as f64 - before as f64) / held.len() as f64;
        println!("idle {name}: {each:.0} bytes of PSS per connection, at {} connections", held.len());
    }
}

fn fanout() {
    let event = format!(r#"{{"type":"custom","channel":"bench","data":"{}"}}"#, "x".repeat(80));
    let batch = format!("[{}]", vec![event.as_str(); 32].join(","));
    for (name, ws) in [("WebSocket", true), ("SSE", false)] {
        for (together, rounds, body) in [(1usize, 300usize, &event), (32, 100, &batch)] {
            let daemon = Daemon::start();
            let mut readers = Readers::new((0..SUBSCRIBERS).map(|_| daemon.subscribe(ws)).collect());
            let mut publisher = Publisher::new(&daemon);
            for _ in 0..20 {
                publisher.publish(body);
                readers.wait_for(together);
            }
            let before = daemon.cpu();
            for _ in 0..rounds {
                publisher.publish(body);
                readers.wait_for(together);
            }
            let after = daemon.cpu();
            let deliveries = (SUBSCRIBERS * rounds * together) as f64;
            let user = (after.0 - before.0).as_secs_f64() * 1e6 / deliveries;
            let system = (after.1 - before.1).as_secs_f64() * 1e6 / deliveries;
            println!(
                "fanout {name}, {together} at a time to {SUBSCRIBERS}: {:.2} µs of CPU per delivery (user {user:.2}, system {system:.2})",
                user + system
            );
        }
    }
}

/// Counts what arrives at every subscriber.
struct Readers {
    streams: Vec<TcpStream>,
    counts: Vec<usize>,
    set: std::os::fd::OwnedFd,
}

impl Readers {
    fn new(streams: Vec<TcpStream>) -> Readers {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        for (at, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true).unwrap();
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&set, stream.as_fd(), data, epoll::EventFlags::IN).unwrap();
        }
        Readers { counts: vec![0; streams.len()], streams, set }
    }

    /// Waits until every subscriber has `events` more.
    fn wait_for(&mut self, events: usize) {
        let mut missing = self.streams.len();
        let deadline = Instant::now() + PATIENCE;
        let mut ready = Vec::with_capacity(1_024);
        let mut buf = vec![0; 256 * 1_024];
        while missing > 0 {
            assert!(Instant::now() < deadline, "{missing} subscribers still miss events");
            ready.clear();
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut ready), Some(&second)).unwrap();
            for event in &ready {
                let at = event.data.u64() as usize;
                let n = self.streams[at].read(&mut buf).unwrap();
                let before = self.counts[at];
                self.counts[at] += buf[..n].windows(14).filter(|w| w == b"\"type\":\"custom").count();
                if before < events && self.counts[at] >= events {
                    missing -= 1;
                }
            }
        }
        self.counts.iter_mut().for_each(|count| *count -= events);
    }
}

/// One event to two subscribers, nothing measured.
fn smoke() {
    let daemon = Daemon::start();
    let mut readers = Readers::new(vec![daemon.subscribe(true), daemon.subscribe(false)]);
    Publisher::new(&daemon).publish(r#"{"type":"custom","channel":"bench","data":1}"#);
    readers.wait_for(1);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    if !std::env::args().any(|arg| arg == "--bench") {
        smoke(); // `cargo test --benches` only wants to know that it works
        return;
    }
    if runs("idle") {
        idle();
    }
    if runs("fanout") {
        fanout();
    }
}
