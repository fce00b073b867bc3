//! Work that one organization, or an unauthenticated client, causes must not slow down others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod common;

use std::process::Stdio;

use common::http::Call;
use common::{Daemon, custom, until, within};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

const RECHECKED: &str = "nervewire_rechecked_connections_total";

async fn disable(daemon: &Daemon, sub: &str, disabled: bool) {
    let path = format!("/api/v1/users/{sub}/disabled");
    let reply = daemon.call("PUT", &path).json(&json!({ "disabled": disabled })).send().await;
    assert!(reply.status.is_success(), "{reply:?}");
}

/// Each change of a user rechecks only that user's connections. A flood of changes rechecks no other
/// connections, and other users keep receiving.
#[tokio::test]
async fn toggling_a_user_rechecks_only_that_users_connections() {
    let daemon = Daemon::start().await;
    let other = daemon.create_org("other").await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let mut anns = Vec::new();
    for path in ["/api/v1/ws", "/api/v1/ws?subscribe=none", "/api/v1/ws"] {
        let mut ws = daemon.ws(path).key(&ann).open().await;
        ws.expect("ready").await;
        anns.push(ws);
    }
    let mut bobs = daemon.ws("/api/v1/ws").key(&bob).open().await;
    bobs.expect("ready").await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut ws = daemon.ws("/api/v1/ws").key(&other).open().await;
        ws.expect("ready").await;
        others.push(ws);
    }
    let before = daemon.metric(RECHECKED).await;
    disable(&daemon, "ann", true).await;
    for ws in &mut anns {
        assert_eq!(ws.closed().await.0, 4403);
    }
    assert_eq!(daemon.metric(RECHECKED).await - before, 3.0);

    // No user with this name is connected any more, so nothing is rechecked.
    let before = daemon.metric(RECHECKED).await;
    for disabled in [false, true].repeat(10) {
        disable(&daemon, "ann", disabled).await;
    }
    daemon.publish_as(&other, custom("c", json!(1))).await;
    for ws in &mut others {
        assert_eq!(ws.next_json().await["data"], 1);
    }
    daemon.publish(custom("c", json!(2))).await;
    assert_eq!(bobs.next_json().await["data"], 2);
    // Closed connections exist for a moment longer and may be rechecked once more.
    assert!(daemon.metric(RECHECKED).await - before <= 3.0 * 20.0);
}

/// Which connections are rechecked after a change of a key, a token or an organization's `visibility`.
#[tokio::test]
async fn a_revoked_key_ends_only_its_connections() {
    let daemon = Daemon::start().await;
    let key = daemon.create_key(json!({"scopes": ["subscribe", "publish"]})).await;
    let id = key.split('_').nth(1).unwrap().to_owned();
    let mut stays = daemon.live_ws("/api/v1/ws").await;
    let mut publisher = daemon.ws("/api/v1/ws?subscribe=none").key(&key).open().await;
    publisher.expect("ready").await;
    let mut sse = daemon.sse("/api/v1/sse").key(&key).open().await;
    sse.next().await.named("ready");
    let before = daemon.metric(RECHECKED).await;
    let reply = daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).send().await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(publisher.closed().await.0, 4403);
    assert_eq!(sse.next().await.named("closing")["code"], "FORBIDDEN");
    assert_eq!(daemon.metric(RECHECKED).await - before, 2.0);
    daemon.publish(custom("c", json!(1))).await;
    assert_eq!(stays.next_json().await["data"], 1);
}

/// Standard error is a pipe that nobody reads. The daemon keeps working, counts the lines it could not log,
/// reports the number when the pipe is read, and writes its last lines before it ends.
#[tokio::test]
async fn an_unread_log_pipe_blocks_nothing() {
    let home = tempfile::tempdir().unwrap();
    let ready = home.path().join("ready.json");
    let mut command = common::command(home.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"]);
    command.arg("--ready-file").arg(&ready).env("NERVEWIRE_LOG", "debug");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ready_file = until("the ready file", async || std::fs::read_to_string(&ready).ok()).await;
    let ready_file: Value = serde_json::from_str(&ready_file).unwrap();
    let addr = |name: &str| ready_file[name].as_str().unwrap().parse().unwrap();
    // Each of these requests is refused, and the refusal is logged with its path.
    let path = format!("/{}", "x".repeat(12_000));
    let dropped = async || {
        let page = Call::new(addr("admin_listen"), "GET", "/metrics").send().await.text();
        let line = page.lines().find_map(|line| line.strip_prefix("nervewire_log_lines_dropped_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    for _ in 0..150 {
        assert_eq!(Call::new(addr("listen"), "GET", &path).send().await.status, 404);
    }
    assert!(dropped().await > 0.0);
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let mut piece = vec![0; 65_536];
    within("the log to say what it lost", async {
        while !log.contains("log lines were dropped") {
            let n = stderr.read(&mut piece).await.unwrap();
            assert!(n > 0, "the log ended");
            log.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    })
    .await;
    let pid = Pid::from_raw(ready_file["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    within("the rest of the log", stderr.read_to_string(&mut log)).await.unwrap();
    assert!(log.trim_end().lines().last().unwrap().contains("\"ended\""), "the last line is written");
    assert!(within("its end", child.wait()).await.unwrap().success());
}
