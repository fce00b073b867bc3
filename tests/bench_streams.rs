//! `nervewire bench streams`, `late-join` and `idle-streams` as a black box: they do what they promise, count
//! everything and check their limits.
//!
//! These tests check no times: figures need a release build and a quiet machine (`docs/benchmarks.md`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

#[path = "common/report.rs"]
mod common;

use serde_json::Value;

use common::{bench, report, row};

fn median(report: &Value, key: &str) -> f64 {
    row(report, key)["servers"][0]["median"].as_f64().unwrap_or_else(|| panic!("no figure {key} in {report}"))
}

/// Runs a mode that must succeed without faults.
fn sound(line: &str) -> Value {
    let output = bench(&format!("{line} --json --quiet"));
    let report = report(&output);
    assert_eq!(report["faults"], Value::Array(vec![]), "{line}: {report}");
    assert_eq!((&report["losses"], &report["repeats"]), (&0.into(), &0.into()), "{line}: {report}");
    assert!(output.status.success(), "{line}");
    report
}

#[test]
fn every_reader_has_the_produced_text_and_one_end() {
    for more in ["", "--transport ws --via ndjson", "--transport ws --producers 2 --array 3", "--via ndjson"]
    {
        let report =
            sound(&format!("streams --streams 6 --readers 2 --rate 40 --seconds 0.5 --alone {more}"));
        assert_eq!((median(&report, "exact"), median(&report, "readers")), (12.0, 12.0), "{report}");
        assert!(median(&report, "durable") > 0.0 && median(&report, "cpu") > 0.0, "{report}");
        // Whatever was acknowledged was read by both readers.
        let each = median(&report, "delivered") / median(&report, "durable");
        assert!((each - 2.0).abs() < 1e-9, "{each}: {report}");
        assert!(median(&report, "read_p99") >= median(&report, "read_p50"), "{report}");
    }
}

#[test]
fn streams_are_compared_with_plain_events() {
    for runs in [1, 2] {
        let line = format!("streams --streams 4 --rate 0 --outstanding 4 --seconds 0.3 --runs {runs}");
        let report = sound(&line);
        assert!(median(&report, "over_plain") > 0.0 && median(&report, "plain_durable") > 0.0, "{report}");
        assert_eq!(row(&report, "over_plain")["servers"][0]["runs"].as_array().unwrap().len(), runs);
        assert_eq!((median(&report, "cut_readers"), median(&report, "takeovers")), (0.0, 0.0), "{report}");
    }
}

#[test]
fn what_is_cut_off_resumes_with_the_exact_text() {
    for more in ["", "--transport ws --via ndjson"] {
        let line = "streams --streams 5 --readers 2 --rate 40 --seconds 1 --cuts 40";
        let report = sound(&format!("{line} {more}"));
        assert_eq!(median(&report, "exact"), 10.0, "{report}");
        assert!(median(&report, "cut_readers") >= 1.0 && median(&report, "takeovers") >= 1.0, "{report}");
    }
}

#[test]
fn a_killed_daemon_loses_no_chunk() {
    for more in ["", "--transport ws --via ndjson"] {
        let line = "streams --streams 5 --readers 2 --rate 40 --seconds 1 --kill";
        let report = sound(&format!("{line} {more}"));
        assert_eq!((median(&report, "exact"), median(&report, "takeovers")), (10.0, 5.0), "{report}");
        assert!(median(&report, "restart") > 0.0, "{report}");
    }
}

#[test]
fn late_readers_have_the_whole_text() {
    let report = sound("late-join --events 3000 --chunks 400 --short 10 --readers 4");
    assert_eq!(report["deliveries"], 4 * (400 + 10), "{report}");
    assert!(median(&report, "long_over_short") > 0.0, "{report}");
}

#[test]
fn idle_streams_are_all_open() {
    let report = sound("idle-streams --streams 200 --rest 0");
    assert_eq!(median(&report, "open"), 201.0, "{report}");
    assert!(median(&report, "rss_after") > 0.0, "{report}");
}

#[test]
fn contradictory_flags_are_refused_before_a_server_is_started() {
    for (line, says) in [
        ("streams --via ndjson --readers 0", "needs readers"),
        ("streams --via ndjson --producers 2", "each stream"),
        ("streams --array 64 --outstanding 32", "outstanding"),
        ("streams --streams 0", "at least 1"),
        ("streams --size 2000", "1,024"),
        ("streams --rate=-1", "at least 0"),
        ("streams --kill --url http://127.0.0.1:1", "--url"),
        ("late-join --short 20 --chunks 10", "as many"),
        ("idle-streams --streams 1", "at least 2"),
    ] {
        let output = bench(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {error}");
        assert!(error.contains(says), "{line}: {error}");
    }
}
