//! Stored events whose bytes are damaged: a declared gap on every transport, everything around them, and the operator learns of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{Daemon, message};
use serde_json::{Value, json};

/// Flips one bit inside the stored event that contains `text`; the segment file.
fn damage(dir: &Path, text: &str) -> PathBuf {
    for entry in fs::read_dir(dir.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, text.as_bytes()) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            return path;
        }
    }
    panic!("no segment holds {text}");
}

/// Publishes an event for each of `texts`, each a commit and so a piece of its own; their ids.
async fn publish(daemon: &Daemon, texts: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for text in texts {
        ids.extend(daemon.publish(message(text)).await);
    }
    ids
}

/// A daemon whose log has the events `ids`, of which those at the places 1, 2 and 4 are damaged below the position of the state.
async fn damaged() -> (Daemon, Vec<String>, PathBuf) {
    let mut daemon = Daemon::start().await;
    let texts = ["first-text", "second-text", "third-text", "fourth-text", "fifth-text", "sixth-text"];
    let ids = publish(&daemon, &texts).await;
    assert_eq!(daemon.terminate().await, 0);
    let mut segment = PathBuf::new();
    for at in [1, 2, 4] {
        segment = damage(daemon.data_dir(), texts[at]);
    }
    daemon.start_again().await;
    (daemon, ids, segment)
}

fn assert_gap(gap: &Value, after: &str, resumes_at: &str) {
    assert_eq!(gap["reason"], "trimmed", "{gap}");
    assert_eq!((gap["after"].as_str(), gap["resumes_at"].as_str()), (Some(after), Some(resumes_at)), "{gap}");
}

/// What a stream brings after the event at place 0: damaged pieces that follow each other are one gap.
fn assert_stream(frames: &[Value], ids: &[String]) {
    let id = |frame: &Value| frame["id"].as_str().map(str::to_owned);
    assert_eq!(frames.len(), 4, "{frames:?}");
    assert_gap(&frames[0], &ids[0], &ids[2]);
    assert_eq!(id(&frames[1]).as_ref(), Some(&ids[3]));
    assert_gap(&frames[2], &ids[3], &ids[4]);
    assert_eq!(id(&frames[3]).as_ref(), Some(&ids[5]));
}

/// A subscriber was closed at the damaged piece, came back with its cursor, and was closed again, for ever.
#[tokio::test]
async fn a_damaged_piece_is_a_gap_over_websocket() {
    let (daemon, ids, _) = damaged().await;
    let mut ws = daemon.ws(&format!("/api/v1/ws?after={}", ids[0])).open().await;
    ws.expect("ready").await;
    let mut frames = Vec::new();
    loop {
        let frame = ws.next_json().await;
        if frame["type"] == "caught_up" {
            break;
        }
        frames.push(frame);
    }
    assert_stream(&frames, &ids);
    let [live] = <[String; 1]>::try_from(daemon.publish(message("live")).await).unwrap();
    assert_eq!(ws.next_json().await["id"], json!(live));
}

#[tokio::test]
async fn a_damaged_piece_is_a_gap_over_sse() {
    let (daemon, ids, _) = damaged().await;
    let mut sse = daemon.sse("/api/v1/sse").last_event_id(&ids[0]).open().await;
    sse.next().await.named("ready");
    let mut frames = Vec::new();
    loop {
        let block = sse.next().await;
        match block.name.as_deref() {
            Some("caught_up") => break,
            Some("gap") => frames.push(block.json()),
            _ => frames.push(block.event()),
        }
    }
    assert_stream(&frames, &ids);
    let [live] = <[String; 1]>::try_from(daemon.publish(message("live")).await).unwrap();
    assert_eq!(sse.next_event().await["id"], json!(live));
}

/// An answer has room for one gap, so the second one is in the next answer.
#[tokio::test]
async fn a_damaged_piece_is_a_gap_in_history_and_long_polls() {
    let (daemon, ids, _) = damaged().await;
    for more in ["", "&wait=20", "&types=message", "&types=message&wait=20"] {
        let page = daemon.get(&format!("/api/v1/events?earliest=true{more}")).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let found: Vec<_> =
            page["data"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
        assert_eq!(found, [json!(ids[0]), json!(ids[3])], "{more}: {page}");
        assert_gap(&page["gap"], &ids[0], &ids[2]);
        assert_eq!((&page["caught_up"], &page["next_cursor"]), (&json!(false), &json!(ids[3])));

        let next = page["next_cursor"].as_str().unwrap();
        let page = daemon.get(&format!("/api/v1/events?after={next}{more}")).send().await.json();
        let found: Vec<_> =
            page["data"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
        assert_eq!(found, [json!(ids[5])], "{more}: {page}");
        assert_gap(&page["gap"], &ids[3], &ids[4]);
        assert_eq!(page["caught_up"], true);
    }
}

#[tokio::test]
async fn the_log_names_the_damaged_segment() {
    let (daemon, ids, segment) = damaged().await;
    assert_eq!(daemon.metric("nervewire_store_damaged_pieces_total").await, 0.0);
    for _ in 0..3 {
        let page = daemon.get(&format!("/api/v1/events?after={}", ids[2])).send().await;
        assert_eq!(page.status, 200, "{page:?}");
    }
    assert_eq!(daemon.metric("nervewire_store_damaged_pieces_total").await, 1.0, "each piece counts once");
    daemon.get(&format!("/api/v1/events?after={}", ids[0])).send().await;
    assert_eq!(daemon.metric("nervewire_store_damaged_pieces_total").await, 3.0);
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("stored events are damaged")).collect();
    assert_eq!(lines.len(), 1, "the lines are limited: {log}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    for part in [name, "ERROR", "position", "organization", "backup"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

/// A backup of damaged segments ended as if all were well.
#[tokio::test]
async fn a_backup_of_damaged_segments_is_written_and_exits_with_an_error() {
    let (mut daemon, _, segment) = damaged().await;
    let to = tempfile::tempdir().unwrap();
    let (url, dir) = (format!("http://{}", daemon.admin_addr()), daemon.data_dir().display().to_string());
    let name = segment.file_name().unwrap().to_str().unwrap();
    let running = to.path().join("running");
    let arguments = ["backup", running.to_str().unwrap(), "--admin-url", &url, "--data-dir", &dir, "--json"];
    let output = daemon.cli(&arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["damaged"].as_array().unwrap().len(), 1, "{made}");

    assert_eq!(daemon.terminate().await, 0);
    let stopped = to.path().join("stopped");
    let mut command = common::command(to.path());
    command.args(["backup", stopped.to_str().unwrap(), "--data-dir", &dir]);
    let output = common::within("the backup", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{output:?}");
}
