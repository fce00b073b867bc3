//! `nervewire stream` against the real daemon: standard input becomes a stream byte for byte, every stream
//! ends, and exit codes say how.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::process::Stdio;

use common::{Daemon, command, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A running `nervewire stream`.
struct Running {
    child: Child,
    /// `None` once the input has ended.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

/// A `nervewire stream` that has ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    /// What was not read before.
    stdout: String,
    stderr: String,
}

fn stream(daemon: &Daemon, arguments: &[&str]) -> Running {
    let mut command = command(daemon.data_dir());
    command
        .arg("stream")
        .args(arguments)
        .env("NERVEWIRE_URL", daemon.url())
        .env("NERVEWIRE_KEY", &daemon.key);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
    Running { child, stdin, stdout }
}

impl Running {
    /// Writes to the input, which the command reads at once.
    async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Reads as many bytes of the output as `text` has, and compares them.
    async fn prints(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        within("the text", self.stdout.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Ends the input and waits for the command's end.
    async fn end(mut self) -> Ended {
        self.stdin = None;
        self.ended().await
    }

    /// Waits for the command's end, with its input left open.
    async fn ended(mut self) -> Ended {
        let mut stderr = self.child.stderr.take().unwrap();
        let (mut printed, mut errors) = (String::new(), String::new());
        let (stdout, stderr, status) = within("the end of the command", async {
            tokio::join!(
                self.stdout.read_to_string(&mut printed),
                stderr.read_to_string(&mut errors),
                self.child.wait()
            )
        })
        .await;
        stdout.unwrap();
        stderr.unwrap();
        Ended { code: status.unwrap().code(), stdout: printed, stderr: errors }
    }
}

/// The stream as `GET` returns it.
async fn get(daemon: &Daemon, request_id: &str) -> Value {
    let reply = daemon.get(&format!("/api/v1/streams/{request_id}")).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["data"].take()
}

/// Waits until the stream is open and has this text.
async fn has_text(daemon: &Daemon, request_id: &str, text: &str) {
    until(&format!("{text:?} in {request_id}"), async || {
        let reply = daemon.get(&format!("/api/v1/streams/{request_id}")).send().await;
        (reply.status == 200 && reply.json()["data"]["text"] == text).then_some(())
    })
    .await;
}

async fn cancel(daemon: &Daemon, request_id: &str, body: Value) {
    let reply = daemon.post(&format!("/api/v1/streams/{request_id}/cancel")).json(&body).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// The input is cut inside characters, and has bytes that are no text.
#[tokio::test]
async fn a_pipe_becomes_a_stream() {
    let daemon = Daemon::start().await;
    let arguments = [
        "--request-id",
        "r/1",
        "--agent-id",
        "ada",
        "--user-id",
        "u1",
        "--metadata",
        r#"{"k":1}"#,
        "--lease-seconds",
        "30",
        "--finish-reason",
        "length",
    ];
    let mut writer = stream(&daemon, &arguments);
    for byte in "wört €uro 😀\tend\n".bytes() {
        writer.write(&[byte]).await;
    }
    has_text(&daemon, "r%2F1", "wört €uro 😀\tend\n").await;
    writer.write(b"\xf0\x9f\x98x\xe2\x82").await;
    let written = writer.end().await;
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""), "{}", written.stderr);
    assert!(written.stderr.contains("writing to stream r/1"), "{}", written.stderr);
    let info = get(&daemon, "r%2F1").await;
    for (field, expected) in [
        ("text", json!("wört €uro 😀\tend\n\u{fffd}x\u{fffd}")),
        ("state", json!("completed")),
        ("finish_reason", json!("length")),
        ("agent_id", json!("ada")),
        ("user_id", json!("u1")),
        ("metadata", json!({"k": 1})),
        ("lease_seconds", json!(30)),
    ] {
        assert_eq!(info[field], expected, "{field}");
    }
}

#[tokio::test]
async fn the_daemon_names_a_stream_that_has_no_id() {
    let daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--json", "--part", "reasoning:r1"]);
    writer.write(b"thinking").await;
    let written = writer.end().await;
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let opened: Value = serde_json::from_str(&written.stdout).unwrap();
    let id = opened["request_id"].as_str().unwrap();
    assert!(id.starts_with("stream-"), "{id}");
    let info = get(&daemon, &format!("{id}?parts=all")).await;
    let part = json!({"type": "reasoning", "id": "r1"});
    assert_eq!((&info["text"], &info["parts"]), (&json!(""), &json!([{"part": part, "text": "thinking"}])));
}

/// The daemon is killed three times while the command writes.
#[tokio::test]
async fn text_is_exact_although_the_daemon_is_killed() {
    let mut daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1"]);
    let mut whole = String::new();
    for life in 0..3 {
        let (before, during) = (format!("life {life}: before €, "), format!("during 😀 {life}\n"));
        whole += &before;
        writer.write(before.as_bytes()).await;
        has_text(&daemon, "r1", &whole).await;
        // These bytes reach the daemon before its end, or not, or only their response is lost.
        whole += &during;
        writer.write(during.as_bytes()).await;
        daemon.restart().await;
        has_text(&daemon, "r1", &whole).await;
    }
    let written = writer.end().await;
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let info = get(&daemon, "r1").await;
    assert_eq!((&info["text"], &info["state"]), (&json!(whole), &json!("completed")));
}

#[tokio::test]
async fn ctrl_c_cancels_the_stream() {
    let daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1"]);
    writer.write(b"half an ans").await;
    has_text(&daemon, "r1", "half an ans").await;
    writer.signal(Signal::INT);
    let written = writer.ended().await;
    assert_eq!(written.code, Some(130), "{}", written.stderr);
    assert!(written.stderr.contains("interrupted: the stream was cancelled"), "{}", written.stderr);
    let info = get(&daemon, "r1").await;
    assert_eq!((&info["state"], &info["text"]), (&json!("cancelled"), &json!("half an ans")));
    assert_eq!(info["error"], json!({"code": "CANCELLED", "message": "interrupted"}));
}

/// Ctrl-C ends the program before this one in the pipe too, and the end of input may come first.
#[tokio::test]
async fn ctrl_c_right_after_the_end_of_input_cancels_the_stream() {
    let daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1"]);
    writer.write(b"x").await;
    has_text(&daemon, "r1", "x").await;
    writer.stdin = None;
    writer.signal(Signal::INT);
    assert_eq!(writer.ended().await.code, Some(130));
    assert_eq!(get(&daemon, "r1").await["state"], "cancelled");
}

/// The writer's input is silent, before its first byte or after it, and the command ends all the same.
#[tokio::test]
async fn a_cancellation_from_elsewhere_ends_the_command() {
    let daemon = Daemon::start().await;
    let silent = stream(&daemon, &["--request-id", "r1"]);
    has_text(&daemon, "r1", "").await;
    cancel(&daemon, "r1", json!({"reason": "the user pressed stop"})).await;
    let ended = silent.ended().await;
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("the stream was cancelled: the user pressed stop"), "{}", ended.stderr);

    let mut writer = stream(&daemon, &["--request-id", "r2"]);
    writer.write(b"x").await;
    has_text(&daemon, "r2", "x").await;
    cancel(&daemon, "r2", json!({})).await;
    let ended = writer.ended().await;
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("nervewire: the stream was cancelled\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_second_command_takes_the_stream_over() {
    let daemon = Daemon::start().await;
    let mut first = stream(&daemon, &["--request-id", "r1"]);
    first.write(b"one, ").await;
    has_text(&daemon, "r1", "one, ").await;
    let refused = stream(&daemon, &["--request-id", "r1"]).end().await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("409 CONFLICT"), "{}", refused.stderr);
    let mut second = stream(&daemon, &["--request-id", "r1", "--takeover"]);
    second.write(b"two").await;
    has_text(&daemon, "r1", "one, two").await;
    let fenced = first.ended().await;
    assert_eq!(fenced.code, Some(6), "{}", fenced.stderr);
    assert!(fenced.stderr.contains("another producer has taken the stream over"), "{}", fenced.stderr);
    assert_eq!(second.end().await.code, Some(0));
    assert_eq!(get(&daemon, "r1").await["text"], "one, two");
}

/// One reader waits for the stream to be opened, and one comes after its end.
#[tokio::test]
async fn readers_get_the_exact_text_early_and_late() {
    let daemon = Daemon::start().await;
    let mut early = stream(&daemon, &["--read", "r/1"]);
    let mut writer = stream(&daemon, &["--request-id", "r/1"]);
    let text = "wört €uro 😀\tend\n";
    for byte in text.bytes() {
        writer.write(&[byte]).await;
    }
    early.prints(text).await;
    writer.write(b"x\xff").await;
    assert_eq!(writer.end().await.code, Some(0));
    let read = early.end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(0), "x\u{fffd}"), "{}", read.stderr);
    let late = stream(&daemon, &["--read", "r/1", "--json"]).end().await;
    let lines: Vec<Value> = late.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, pieces) = lines.split_last().unwrap();
    let whole: String = pieces.iter().map(|piece| piece["text"].as_str().unwrap()).collect();
    assert_eq!(whole, format!("{text}x\u{fffd}"));
    assert_eq!(*end, json!({"state": "completed", "finish_reason": "stop"}));
}

#[tokio::test]
async fn a_reader_gets_the_answer_unless_it_asks_for_all_parts() {
    let daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1", "--part", "reasoning:p1"]);
    writer.write(b"thinking").await;
    assert_eq!(writer.end().await.code, Some(0));
    let text = stream(&daemon, &["--read", "r1"]).end().await;
    assert_eq!((text.code, text.stdout.as_str()), (Some(0), ""), "{text:?}");
    let all = stream(&daemon, &["--read", "r1", "--all-parts", "--json"]).end().await;
    let first: Value = serde_json::from_str(all.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({"text": "thinking", "part": {"type": "reasoning", "id": "p1"}}));
}

/// The daemon is killed while writer and reader are at work.
#[tokio::test]
async fn a_reader_gets_the_exact_text_although_the_daemon_is_killed() {
    let mut daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1"]);
    let mut reader = stream(&daemon, &["--read", "r1"]);
    for life in 0..3 {
        let (before, during) = (format!("life {life}: before €, "), format!("during 😀 {life}\n"));
        writer.write(before.as_bytes()).await;
        reader.prints(&before).await;
        writer.write(during.as_bytes()).await;
        daemon.restart().await;
        reader.prints(&during).await;
    }
    assert_eq!(writer.end().await.code, Some(0));
    let read = reader.end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(0), ""), "{}", read.stderr);
}

#[tokio::test]
async fn a_reader_learns_that_the_stream_was_cancelled() {
    let daemon = Daemon::start().await;
    let mut writer = stream(&daemon, &["--request-id", "r1"]);
    let mut reader = stream(&daemon, &["--read", "r1"]);
    writer.write(b"half").await;
    reader.prints("half").await;
    writer.signal(Signal::INT);
    assert_eq!(writer.ended().await.code, Some(130));
    let read = reader.end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(4), ""), "{}", read.stderr);
    assert!(read.stderr.contains("the stream was cancelled: interrupted"), "{}", read.stderr);
}

#[tokio::test]
async fn a_reader_learns_that_the_stream_failed_or_was_abandoned() {
    let daemon = Daemon::start().await;
    let mut killed = stream(&daemon, &["--request-id", "r1", "--lease-seconds", "5"]);
    killed.write(b"x").await;
    has_text(&daemon, "r1", "x").await;
    killed.signal(Signal::KILL);
    let abandoned = stream(&daemon, &["--read", "r1"]);

    let opened = daemon.post("/api/v1/streams").json(&json!({"request_id": "r2"})).send().await.json();
    let token = opened["data"]["producer_token"].as_str().unwrap();
    let fail = daemon.post("/api/v1/streams/r2/fail").header("x-producer-token", token);
    let failed = fail.json(&json!({"code": "OVERLOADED", "message": "try later"})).send().await;
    assert_eq!(failed.status, 200, "{failed:?}");
    let read = stream(&daemon, &["--read", "r2"]).end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(3), ""), "{}", read.stderr);
    assert!(read.stderr.contains("the stream failed: OVERLOADED: try later"), "{}", read.stderr);

    let read = abandoned.end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(5), "x"), "{}", read.stderr);
    assert!(read.stderr.contains("the stream was abandoned"), "{}", read.stderr);
}

#[tokio::test]
async fn a_stream_that_nobody_opens_is_an_error() {
    let daemon = Daemon::with().env("STREAMS__UNKNOWN_WAIT_SECONDS", 1).start().await;
    let read = stream(&daemon, &["--read", "nowhere"]).end().await;
    assert_eq!((read.code, read.stdout.as_str()), (Some(1), ""), "{}", read.stderr);
    assert!(read.stderr.contains("NOT_FOUND"), "{}", read.stderr);
}
