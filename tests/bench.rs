//! `nervewire bench` as a black box: it measures what it should, and it detects a server that loses or
//! repeats events.
//!
//! These tests check no times: figures need a release build and a quiet machine (`docs/benchmarks.md`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

#[path = "common/report.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{bench, report, row};
use serde_json::Value;

#[test]
fn fanout_counts_every_delivery() {
    for arguments in ["", "--transport sse", "--burst 4", "--outstanding 8", "--generators 3"] {
        let output = bench(&format!("fanout --subscribers 20 --events 10 --json {arguments}"));
        let report = report(&output);
        let each = if arguments.contains("burst") { 4 } else { 1 };
        assert_eq!(report["deliveries"], 200 * each, "{arguments}: {report}");
        assert_eq!((&report["losses"], &report["repeats"]), (&0.into(), &0.into()), "{arguments}: {report}");
        assert_eq!(report["faults"], Value::Array(vec![]), "{arguments}");
        for key in ["cpu", "user", "depth", "rate", "generator"] {
            let median = row(&report, key)["servers"][0]["median"].as_f64();
            assert!(median.is_some_and(|it| it >= 0.0), "{arguments} {key}: {report}");
        }
        assert!(output.status.success(), "{arguments}");
    }
}

#[test]
fn a_missed_bar_fails_and_a_met_bar_passes() {
    let run = |bar: &str| bench(&format!("fanout --subscribers 2 --events 2 --json --bar {bar}"));
    let (kept, missed) = (run("rate>=1"), run("rate<=1"));
    assert_eq!(row(&report(&kept), "rate")["bars"][0]["ok"], true);
    assert_eq!(row(&report(&missed), "rate")["bars"][0]["ok"], false);
    assert_eq!((kept.status.code(), missed.status.code()), (Some(0), Some(1)));
}

#[test]
fn latency_idle_and_churn_report_figures() {
    let latency = report(&bench("latency --subscribers 5 --rate 50 --seconds 1 --json"));
    assert_eq!((&latency["deliveries"], &latency["losses"]), (&250.into(), &0.into()), "{latency}");
    assert_eq!(latency["latencies"][0]["count"], 250);

    for transport in ["ws", "sse", "h2"] {
        let line = format!(
            "idle --connections 50 --streams-per-connection 20 --rest 0 --transport {transport} --json"
        );
        let idle = report(&bench(&line));
        for key in ["bytes", "second", "left", "tcp"] {
            assert!(row(&idle, key)["servers"][0]["median"].is_f64(), "{transport} {key}: {idle}");
        }
    }

    let churn = report(&bench("churn --connects 60 --concurrent 8 --json"));
    assert!(row(&churn, "rate")["servers"][0]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(churn["latencies"][0]["count"], 60);
}

#[test]
fn a_server_that_loses_or_repeats_an_event_is_caught() {
    for (fault, losses, repeats) in [(Fault::Lose, 1, 0), (Fault::Repeat, 0, 1)] {
        let url = broken_server(fault);
        let line = format!("fanout --url {url} --subscribers 3 --events 10 --patience 1 --json");
        let output = bench(&line);
        let report = report(&output);
        assert_eq!((&report["losses"], &report["repeats"]), (&losses.into(), &repeats.into()), "{report}");
        assert_eq!(output.status.code(), Some(1));
        assert!(!report["faults"].as_array().unwrap().is_empty());
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Lose,
    Repeat,
}

/// Implements just enough SSE to be measured. Event 7 does not reach its second subscriber, or reaches it
/// twice.
fn broken_server(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let subscribers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    // The thread ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let subscribers = subscribers.clone();
            std::thread::spawn(move || serve(stream.unwrap(), fault, &subscribers));
        }
    });
    url
}

fn serve(mut stream: TcpStream, fault: Fault, subscribers: &Mutex<Vec<TcpStream>>) {
    let mut held = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&held).into_owned();
        let Some((head, _)) = text.split_once("\r\n\r\n") else {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(read) => held.extend_from_slice(&piece[..read]),
            }
            continue;
        };
        if head.starts_with("GET") {
            let upgraded = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
            stream.write_all(upgraded.as_bytes()).unwrap();
            send(&mut stream, br#"{"type":"ready"}"#);
            subscribers.lock().unwrap().push(stream);
            return;
        }
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        while held.len() < head.len() + 4 + length {
            let read = stream.read(&mut piece).unwrap();
            held.extend_from_slice(&piece[..read]);
        }
        let event = held.split_off(head.len() + 4);
        held.clear();
        let seventh = String::from_utf8_lossy(&event).contains("\"n\":\"000000000007\"");
        for (at, subscriber) in subscribers.lock().unwrap().iter_mut().enumerate() {
            let times = match (seventh && at == 1, fault) {
                (false, _) => 1,
                (true, Fault::Lose) => 0,
                (true, Fault::Repeat) => 2,
            };
            (0..times).for_each(|_| send(subscriber, &event));
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    }
}

/// Sends one text frame (RFC 6455 §5.2).
fn send(stream: &mut TcpStream, payload: &[u8]) {
    let mut frame = vec![0x81];
    if payload.len() < 126 {
        frame.push(payload.len() as u8);
    } else {
        frame.push(126);
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame).unwrap();
}
