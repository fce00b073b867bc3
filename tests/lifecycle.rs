//! The life of the daemon as a black box: how it starts, what it reports, how it ends, and what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod common;

use std::net::ToSocketAddrs as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::http::Call;
use common::{Daemon, command, custom, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Runs `serve` where it cannot start. Returns its result.
async fn serve(home: &Path, arguments: &[&str]) -> Output {
    let mut command = command(home);
    command.arg("serve").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    within("the end of a daemon that cannot start", command.output()).await.unwrap()
}

#[track_caller]
fn failed(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// SIGTERM: every client gets a cursor and is asked to reconnect, nothing acknowledged is lost, and the exit
/// code is 0.
#[tokio::test]
async fn sigterm_starts_the_drain() {
    let mut daemon = Daemon::with().env("DRAIN_SECONDS", 3).start().await;
    let ids = daemon.publish_messages(&["a", "b"]).await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let mut silent = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let poll = tokio::spawn(daemon.get("/api/v1/events?wait=60").send());
    // Many connections, so that the drain takes a while.
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(daemon.live_ws("/api/v1/ws").await);
    }
    // Open connections are still served for a while.
    let mut kept = TcpStream::connect(daemon.addr()).await.unwrap();
    let request = |path: &str, more: &str, body: &str| {
        format!(
            "{path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n{body}",
            daemon.key,
            body.len()
        )
    };
    let event = custom("c", json!(1)).to_string();
    let publish = request("POST /api/v1/events", "", &event);
    let (addr, admin) = (daemon.addr(), daemon.admin_addr());
    // One request is in progress and its body ends only after the signal. Another has not even sent its head.
    let (first, second) = publish.split_at(publish.len() - 5);
    kept.write_all(first.as_bytes()).await.unwrap();
    let mut late = TcpStream::connect(daemon.addr()).await.unwrap();
    let (early, rest) = publish.split_at(30);
    late.write_all(early.as_bytes()).await.unwrap();
    assert_eq!(Call::new(admin, "GET", "/health/ready").send().await.status, 200);

    daemon.signal(Signal::TERM);
    let ready = until("readiness to turn false", async || {
        let reply = Call::new(admin, "GET", "/health/ready").send().await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &json!("stopping")));
    assert_eq!(Call::new(admin, "GET", "/health/live").send().await.status, 200, "it lives until it ends");
    kept.write_all(second.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = within("the answer to what was begun", kept.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("HTTP/1.1 201 "), "what was begun is finished: {said}");
    late.write_all(rest.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = within("an answer while draining", late.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("retry-after: ") && said.contains("\"UNAVAILABLE\""), "{said}");
    assert!(TcpStream::connect(addr).await.is_err() || refuses(addr).await, "it accepts no more");

    assert_eq!(ws.closed().await.0, 1012);
    assert_eq!(silent.closed().await.0, 1012);
    // The event is delivered to connections that are still open. Closed ones find it in the log (below).
    let mut block = sse.next().await;
    if block.name.is_none() {
        assert_eq!(block.event()["data"], 1);
        block = sse.next().await;
    }
    let closing = block.named("closing");
    assert_eq!((&closing["type"], &closing["code"]), (&json!("error"), &json!("UNAVAILABLE")));
    assert_eq!(sse.next_block().await, None);
    for mut one in crowd {
        assert_eq!(one.closed().await.0, 1012);
    }
    let polled = poll.await.unwrap();
    assert!(polled.status == 200 || polled.status == 503, "{polled:?}");
    assert_eq!(daemon.ended().await.code(), Some(0));

    daemon.start_again().await;
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    let found: Vec<_> =
        page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "what was acknowledged, and not what was refused");
    assert_eq!(found[..2], ids);
}

/// Whether a connection that the kernel accepted before the listener closed is not served.
async fn refuses(addr: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return true };
    let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = within("the end of a late connection", stream.read_to_end(&mut said)).await;
    !said.starts_with(b"HTTP/1.1 200")
}

/// During a stream of publishes, each one is either acknowledged and stored, or refused and not stored.
#[tokio::test]
async fn publishes_during_a_drain_are_stored_or_refused() {
    let mut daemon = Daemon::start().await;
    let _stays = daemon.live_ws("/api/v1/ws").await;
    let publisher = {
        let (call, addr) = (daemon.post("/api/v1/events"), daemon.addr());
        tokio::spawn(async move {
            let mut acked = Vec::new();
            for n in 0.. {
                // A refused connection is the end as well.
                if TcpStream::connect(addr).await.is_err() {
                    break;
                }
                let sent = tokio::spawn(call.clone().json(&custom("c", json!(n))).send()).await;
                match sent {
                    Ok(reply) if reply.status == 201 => acked.push(json!(n)),
                    Ok(reply) => {
                        reply.refused(503, "UNAVAILABLE");
                        break;
                    }
                    Err(_) => break,
                }
            }
            acked
        })
    };
    until("some publishes", async || {
        let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
        (page["data"].as_array().unwrap().len() > 5).then_some(())
    })
    .await;
    assert_eq!(daemon.terminate().await, 0);
    let acked = publisher.await.unwrap();
    assert!(acked.len() > 5);
    daemon.start_again().await;
    let page = daemon.get("/api/v1/events?earliest=true&limit=1000").send().await.json();
    let kept: Vec<Value> =
        page["data"].as_array().unwrap().iter().map(|event| event["data"].clone()).collect();
    // The response of the last one may have been lost.
    assert!(
        kept.starts_with(&acked) && kept.len() <= acked.len() + 1,
        "{} acked, {} kept",
        acked.len(),
        kept.len()
    );
}

/// A second signal ends the daemon without waiting. Everything acknowledged is still stored.
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (first, second, code) in [(Signal::TERM, Signal::TERM, 143), (Signal::INT, Signal::INT, 130)] {
        let mut daemon = Daemon::with().env("DRAIN_SECONDS", 60).start().await;
        let mut crowd = Vec::new();
        for _ in 0..3 {
            crowd.push(daemon.live_ws("/api/v1/ws").await);
        }
        let ids = daemon.publish_messages(&["a"]).await;
        // A request that does not end delays the drain.
        let mut open = TcpStream::connect(daemon.addr()).await.unwrap();
        open.write_all(b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-le").await.unwrap();
        let admin = daemon.admin_addr();
        let started = Instant::now();
        daemon.signal(first);
        until("draining", async || {
            let reply = Call::new(admin, "GET", "/health/ready").send().await;
            (reply.status == 503).then_some(())
        })
        .await;
        daemon.signal(second);
        let status = daemon.ended().await;
        assert_eq!(status.code(), Some(code));
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        daemon.start_again().await;
        let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
        assert_eq!(page["data"][0]["id"], ids[0].as_str());
    }
}

#[tokio::test]
async fn a_failed_start_says_why_and_has_its_exit_code() {
    let daemon = Daemon::start().await;
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let taken = daemon.addr().to_string();
    let used = serve(home, &["--listen", &taken, "--admin-listen", "off"]).await;
    failed(&used, 69, &["cannot listen on", &taken, "in use", "--listen"]);
    let used =
        serve(home, &["--listen", "127.0.0.1:0", "--admin-listen", &daemon.admin_addr().to_string()]).await;
    failed(&used, 69, &["cannot listen on", "in use"]);
    let dir = daemon.data_dir().to_str().unwrap();
    let second = serve(home, &["--listen", "127.0.0.1:0", "--admin-listen", "off", "--data-dir", dir]).await;
    failed(&second, 73, &["in use by process", &daemon.pid().to_string()]);
    std::fs::write(home.join("bad.toml"), "[limits]\nring_slot = 7\n").unwrap();
    let wrong = serve(home, &["--config", "bad.toml"]).await;
    failed(&wrong, 64, &["limits.ring_slot", "did you mean limits.ring_slots?"]);
    assert!(!home.join("nervewire-data/log").exists() || used.status.code() == Some(69));
    std::fs::write(home.join("key.toml"), "[[auth.jwt_keys]]\nkid = \"a\"\nalg = \"RS256\"\npublic_key_file = \"missing.pem\"\norganizations = [\"acme\"]\n").unwrap();
    let wrong =
        serve(home, &["--config", "key.toml", "--listen", "127.0.0.1:0", "--admin-listen", "off"]).await;
    failed(&wrong, 64, &["missing.pem"]);
    // The first daemon was not affected.
    assert_eq!(daemon.get("/api/v1/events").send().await.status, 200);
}

/// `localhost` may have two addresses; a client must reach the daemon at both.
#[tokio::test]
async fn a_listen_name_is_bound_at_all_its_addresses() {
    let home = tempfile::tempdir().unwrap();
    let mut command = command(home.path());
    command.args([
        "serve",
        "--listen",
        "localhost:0",
        "--admin-listen",
        "localhost:0",
        "--ready-file",
        "ready",
    ]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ready_file =
        until("the ready file", || async { std::fs::read_to_string(home.path().join("ready")).ok() }).await;
    let ready_file: Value = serde_json::from_str(&ready_file).unwrap();
    for (name, path) in [("listen", "/health"), ("admin_listen", "/metrics")] {
        let first: std::net::SocketAddr = ready_file[name].as_str().unwrap().parse().unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let resolves = ("localhost", 0).to_socket_addrs().unwrap().any(|addr| addr.ip() == ip);
            if resolves && std::net::TcpListener::bind((ip, 0)).is_ok() {
                let reply = Call::new((ip, first.port()).into(), "GET", path).send().await;
                assert_eq!(reply.status, 200, "{name} {ip}");
            }
        }
    }
    child.kill().await.unwrap();
    let unknown = serve(home.path(), &["--listen", "no-such-host.invalid:80"]).await;
    failed(&unknown, 69, &["cannot listen on no-such-host.invalid:80"]);
}

/// A browser does not tell its page the reason, so the operator has to find it in the log.
#[tokio::test]
async fn a_refused_origin_is_logged_once() {
    let daemon = Daemon::start().await;
    let evil = "https://evil.example:444";
    for _ in 0..5 {
        let reply = daemon.get("/api/v1/events").header("origin", evil).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    daemon.get("/api/v1/events").header("origin", "https://user:sesame@x.example").send().await;
    daemon.get("/api/v1/events").header("origin", "http://localhost:3000").send().await;
    let log =
        until("the log", || async { Some(daemon.log()).filter(|log| log.contains("(not an origin)")) }).await;
    assert_eq!(log.matches(evil).count(), 1, "{log}");
    assert!(
        log.contains("allowed_origins") && !log.contains("sesame") && !log.contains("localhost:3000"),
        "{log}"
    );
}

#[tokio::test]
async fn the_ready_file_holds_the_listen_addresses() {
    let daemon = Daemon::start().await;
    let path = daemon.data_dir().parent().unwrap().join("ready.json");
    let ready_file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(
        ready_file,
        json!({"listen": daemon.addr().to_string(), "admin_listen": daemon.admin_addr().to_string(), "pid": daemon.pid()})
    );
}

#[tokio::test]
async fn health_is_served_on_both_listeners() {
    let daemon = Daemon::start().await;
    for addr in [daemon.addr(), daemon.admin_addr()] {
        for path in ["/health", "/health/live", "/health/ready"] {
            let reply = Call::new(addr, "GET", path).send().await;
            assert_eq!(reply.status, 200, "{path} {reply:?}");
            assert!(reply.header("x-request-id").is_some());
            assert_eq!(Call::new(addr, "HEAD", path).send().await.status, 200);
            assert_eq!(
                Call::new(addr, "POST", path).send().await.refused(405, "METHOD_NOT_ALLOWED")["details"],
                json!(null)
            );
        }
        let json = Call::new(addr, "GET", "/health").send().await.json();
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["checks", "status", "timestamp", "version"]);
        assert_eq!(
            (&json["status"], &json["version"]),
            (&json!("healthy"), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert!(common::is_timestamp(json["timestamp"].as_str().unwrap()));
        Call::new(addr, "GET", "/health/else").send().await.refused(404, "NOT_FOUND");
    }
    Call::new(daemon.addr(), "GET", "/metrics").send().await.refused(404, "NOT_FOUND");
}

/// Metrics and health are open. Everything else on the admin listener needs operator rights, and a `Host`
/// that no foreign page can have.
#[tokio::test]
async fn the_admin_listener_is_for_operators_only() {
    let daemon = Daemon::start().await;
    let admin = daemon.admin_addr();
    let star = daemon.create_key(json!({"scopes": ["*"]})).await;
    let metrics = Call::new(admin, "GET", "/metrics").send().await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.header("content-type").unwrap().contains("openmetrics-text")
            || metrics.header("content-type").unwrap().contains("text/plain")
    );
    Call::new(admin, "POST", "/metrics").send().await.refused(405, "METHOD_NOT_ALLOWED");
    for path in ["/", "/api/v1/stats", "/anything"] {
        Call::new(admin, "GET", path).send().await.refused(401, "UNAUTHORIZED");
        Call::new(admin, "GET", path).key("wrong").send().await.refused(401, "UNAUTHORIZED");
        Call::new(admin, "GET", path).key(&star).send().await.refused(403, "FORBIDDEN");
        Call::new(admin, "GET", path).key(&daemon.key).send().await.refused(404, "NOT_FOUND");
        let evil = raw_get(admin, path, "evil.example", &daemon.key).await;
        assert!(evil.starts_with("HTTP/1.1 403 "), "{evil}");
        for host in ["localhost", "localhost:8081", "127.0.0.1:1", "[::1]:8081"] {
            let local = raw_get(admin, path, host, &daemon.key).await;
            assert!(local.starts_with("HTTP/1.1 404 "), "{host}: {local}");
        }
    }
}

async fn raw_get(addr: std::net::SocketAddr, path: &str, host: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    within("an answer", stream.read_to_string(&mut said)).await.unwrap();
    said
}

/// A unix socket serves REST, SSE and WebSocket. The daemon creates and removes its file, and replaces a
/// stale one.
#[tokio::test]
async fn a_unix_socket_is_served() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nw.sock");
    let address = format!("unix:{}", path.display());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // left by a process that died
    let mut daemon = Daemon::with().flags(&["--listen", &address]).start().await;
    let key = daemon.key.clone();
    let ask = async |head: &str| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let head = format!("{head} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n");
        (stream.write_all(head.as_bytes()).await.unwrap(), stream).1
    };
    let read_until = async |stream: &mut UnixStream, words: &str| {
        let mut said = Vec::new();
        within(words, async {
            while !String::from_utf8_lossy(&said).contains(words) {
                assert_ne!(
                    stream.read_buf(&mut said).await.unwrap(),
                    0,
                    "{}",
                    String::from_utf8_lossy(&said)
                );
            }
        })
        .await;
        String::from_utf8_lossy(&said).into_owned()
    };
    let mut rest = ask("GET /api/v1/events").await;
    rest.write_all(b"\r\n").await.unwrap();
    assert!(read_until(&mut rest, "\"success\":true").await.starts_with("HTTP/1.1 200"));
    let mut sse = ask("GET /api/v1/sse").await;
    sse.write_all(b"\r\n").await.unwrap();
    read_until(&mut sse, "event: ready").await;
    let mut ws = ask("GET /api/v1/ws").await;
    ws.write_all(b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut ws, "\"ready\"").await;
    daemon.publish(custom("over-unix", json!(1))).await;
    read_until(&mut sse, "over-unix").await;
    read_until(&mut ws, "over-unix").await;
    let listed = daemon.cli(&["connections", "list", "--url", &address, "--json"]).await;
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed[0]["peer"].is_null());
    assert_eq!(daemon.terminate().await, 0);
    assert!(!path.exists(), "its socket file goes with it");
}

/// A listening socket passed by systemd (`LISTEN_FDS`) replaces the configured one.
#[tokio::test]
async fn a_listener_passed_by_systemd_is_used() {
    let home = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // The shell becomes the daemon, so LISTEN_PID is right. The listener is its descriptor 3.
    let mut command = std::process::Command::new("sh");
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --listen 127.0.0.1:1 --admin-listen off --ready-file ready.json 3<&0 0</dev/null"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_nervewire")]).current_dir(home.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NERVEWIRE_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let ready = home.path().join("ready.json");
    let ready_file = until("the ready file", async || std::fs::read_to_string(&ready).ok()).await;
    let ready_file: Value = serde_json::from_str(&ready_file).unwrap();
    assert_eq!(ready_file["listen"], addr.to_string());
    assert_eq!(Call::new(addr, "GET", "/health/ready").send().await.status, 200);
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(0));
}

/// The soft descriptor limit is raised to the hard one, and the log says how many connections fit.
#[tokio::test]
async fn the_descriptor_limit_is_raised() {
    let home = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let script = r#"ulimit -S -n 300 && exec "$0" serve --listen 127.0.0.1:0 --admin-listen off --ready-file ready.json 2>log"#;
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_nervewire")])
        .current_dir(home.path())
        .env_remove("NERVEWIRE_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let ready = home.path().join("ready.json");
    until("the ready file", async || ready.exists().then_some(())).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line["Max open files".len()..].split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    let said: Value =
        serde_json::from_str(log.lines().find(|line| line.contains("\"capacity\"")).unwrap()).unwrap();
    assert_eq!(said["descriptors"].to_string(), numbers[1]);
    assert!(said["connections"].as_u64().unwrap() > 300);
    child.start_kill().unwrap();
    child.wait().await.unwrap();
}
