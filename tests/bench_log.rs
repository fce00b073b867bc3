//! `nervewire bench publish`, `messages`, `catchup` and `open`, and `--before`, as a black box: they do what
//! they promise and count everything.
//!
//! These tests check no times: figures need a release build and a quiet machine (`docs/benchmarks.md`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

#[path = "common/report.rs"]
mod common;

use common::{bench, report, row};
use serde_json::Value;

/// The median of one figure of a server.
fn of(report: &Value, key: &str, server: &str) -> f64 {
    let servers = row(report, key)["servers"].as_array().unwrap();
    let it = servers.iter().find(|it| it["server"] == server);
    it.and_then(|it| it["median"].as_f64()).unwrap_or_else(|| panic!("no {key} of {server} in {report}"))
}

/// Runs a benchmark that must succeed without a fault.
fn clean(line: &str) -> Value {
    let output = bench(line);
    let report = report(&output);
    assert_eq!(report["faults"], Value::Array(vec![]), "{line}: {report}");
    assert!(output.status.success(), "{line}: {report}");
    report
}

#[test]
fn every_shape_of_publishing_is_acknowledged_and_its_footprint_reported() {
    for shape in [
        "--batch 1",
        "--batch 10 --body ndjson",
        "--batch 10 --protocol ws --organizations 3",
        "--batch 10 --organizations 20 --rest 1",
    ] {
        let report = clean(&format!("publish --clients 8 --seconds 1 --json {shape}"));
        for key in ["rate", "p50", "p99", "cpu", "generator", "written", "data", "live"] {
            assert!(of(&report, key, "daemon") > 0.0, "{shape} {key}: {report}");
        }
        for key in ["user", "generator_share", "peak", "pss", "written_read", "disk", "disk_live"] {
            assert!(row(&report, key)["servers"][0]["median"].is_f64(), "{shape} {key}: {report}");
        }
        assert!(report["deliveries"].as_u64().unwrap() > 0, "{shape}: {report}");
    }
}

/// The compared programs are examples. `cargo test` builds them; before `cargo test --test bench_log`, run
/// `cargo build --examples`.
#[test]
fn baselines_are_measured_beside_the_daemon() {
    let report = clean(
        "publish --clients 4 --batch 5 --seconds 1 --floor --json --bar rate>=0x:parse --bar p50>=0x:append",
    );
    for (server, keys) in [
        ("floor", &["p50", "p99"][..]),
        ("append", &["p50", "p99", "rate", "cpu"]),
        ("parse", &["p50", "p99", "rate", "cpu", "pss"]),
    ] {
        for key in keys {
            assert!(of(&report, key, server) > 0.0, "{server} {key}: {report}");
        }
    }
    let bars = &row(&report, "rate")["bars"][0];
    assert_eq!((bars["to"].as_str(), bars["ok"].as_bool()), (Some("parse"), Some(true)), "{report}");
}

#[test]
fn messages_are_created_for_many_agents() {
    let report = clean("messages --clients 8 --agents 20 --users 30 --seconds 1 --json");
    for key in ["rate", "p50", "cpu", "written", "live"] {
        assert!(of(&report, key, "daemon") > 0.0, "{key}: {report}");
    }
}

#[test]
fn every_reader_reads_the_whole_log_by_every_transport() {
    for way in ["sse", "ws", "pages"] {
        // 3,906 events are more than three pages. A small ring holds only the last of them.
        let report = clean(&format!(
            "catchup --by {way} --readers 3 --megabytes 1 --set limits.ring_slots=1024 \
             --set limits.uncommitted_events=1000 --json"
        ));
        assert_eq!(report["deliveries"], 3 * report["settings"]["events"].as_u64().unwrap(), "{report}");
        assert_eq!(report["settings"]["events"], 3_906);
        for key in ["rate", "per_cpu", "cpu"] {
            assert!(of(&report, key, "daemon") > 0.0, "{way} {key}: {report}");
        }
        // At least the published bytes, plus ids and times.
        let read = of(&report, "per_cpu", "daemon") * of(&report, "cpu", "daemon") * 3_906.0 * 3.0 / 1e6;
        assert!(read > 3.0, "{way}: {read} MB: {report}");
        let timed = report["latencies"][0]["count"].as_u64().unwrap();
        assert!(if way == "pages" { timed >= 3 * 4 } else { timed == 3 }, "{way}: {report}");
    }
}

#[test]
fn a_killed_daemon_opens_with_everything_acknowledged() {
    for cache in ["", "--cold"] {
        let report = clean(&format!("open --gigabytes 0.002 --json {cache}"));
        for key in ["killed", "stop", "clean", "data", "pss"] {
            assert!(of(&report, key, "daemon") > 0.0, "{cache} {key}: {report}");
        }
        // Both openings had 79 publishes of 100 events, and possibly more.
        assert!(report["deliveries"].as_u64().unwrap() >= 2 * 7_800, "{cache}: {report}");
    }
}

#[test]
fn an_older_executable_is_measured_alternately_and_reported_as_before() {
    let before = env!("CARGO_BIN_EXE_nervewire");
    let line = format!(
        "fanout --subscribers 5 --events 4 --runs 2 --json --before {before} --bar cpu<=1000x:before --bar rate>=1e9x:before"
    );
    let output = bench(&line);
    let report = report(&output);
    assert_eq!(report["deliveries"], 2 * 2 * 5 * 4, "{report}");
    let cpu = row(&report, "cpu");
    assert_eq!(
        (&cpu["servers"][0]["server"], &cpu["servers"][1]["server"]),
        (&"daemon".into(), &"before".into())
    );
    assert!(cpu["servers"].as_array().unwrap().iter().all(|it| it["runs"].as_array().unwrap().len() == 2));
    assert_eq!(
        (&cpu["bars"][0]["ok"], &row(&report, "rate")["bars"][0]["ok"]),
        (&true.into(), &false.into())
    );
    assert_eq!(output.status.code(), Some(1), "a bar was missed");
}

#[test]
fn contradictory_flags_are_refused_before_a_server_is_started() {
    for (line, says) in [
        ("publish --naive", "no log"),
        ("publish --organizations 0", "at least 1"),
        ("publish --body ndjson --protocol ws", "NDJSON"),
        ("publish --protocol ws --clients 2 --organizations 3", "one organization"),
        ("publish --bar p50<=1x:append", "--floor"),
        ("publish --bar p50<=1x:before", "--before"),
        ("publish --bar p50<=1x:nobody", "before"),
        ("publish --before x --url http://127.0.0.1:1", "--url"),
        ("messages --agents 0", "at least 1"),
        ("messages --floor", "baselines"),
        ("catchup --readers 0", "at least 1"),
        ("catchup --megabytes nan", "at least 1"),
        ("open --url http://127.0.0.1:1", "--url"),
    ] {
        let output = bench(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {error}");
        assert!(error.contains(says), "{line}: {error}");
    }
}
