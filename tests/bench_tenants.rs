//! `nervewire bench resume`, `noisy` and `request-ids` as a black box: they do what they promise, count
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

fn count(report: &Value, name: &str) -> u64 {
    let taken = report["latencies"].as_array().unwrap();
    let it = taken.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"));
    it["count"].as_u64().unwrap()
}

#[test]
fn every_resuming_subscriber_gets_each_event_once() {
    for transport in ["ws", "sse"] {
        let line = "resume --subscribers 20 --behind 50 --array 20 --live 3 --alone 0.2 --json";
        let output = bench(&format!("{line} --transport {transport}"));
        let report = report(&output);
        assert_eq!(report["faults"], Value::Array(vec![]), "{report}");
        assert_eq!((&report["losses"], &report["repeats"]), (&0.into(), &0.into()), "{report}");
        // The quiet tenant's own events are counted as well.
        assert!(report["deliveries"].as_u64().unwrap() >= 20 * 50 + 3, "{report}");
        assert_eq!(count(&report, "A: first connect to caught up"), 20);
        assert!(median(&report, "p99") >= median(&report, "median"));
        assert!(median(&report, "spread") >= 1.0);
        assert!(median(&report, "live_p99_alone") > 0.0);
        assert!(median(&report, "sent_p99_alone") > 0.0);
        assert!(output.status.success(), "{transport}");
    }
}

#[test]
fn a_loud_tenant_does_not_slow_a_quiet_one() {
    let line = "noisy --subscribers 20 --stalled 0.5 --publishers 4 --live 3 --seconds 0.5 --json";
    let output = bench(line);
    let report = report(&output);
    assert_eq!(report["faults"], Value::Array(vec![]), "{report}");
    assert_eq!((&report["losses"], &report["repeats"]), (&0.into(), &0.into()), "{report}");
    for key in ["sent_p99_alone", "sent_p99", "live_p99", "a_rate", "a_deliveries", "health_p99", "stats_p99"]
    {
        assert!(median(&report, key) > 0.0, "{key}: {report}");
    }
    for key in ["connect_p99", "pong_p99", "tcp", "tcp_peak", "rss", "sent_share"] {
        assert!(median(&report, key) >= 0.0, "{key}: {report}");
    }
    assert_eq!(median(&report, "probes_failed"), 0.0, "{report}");
    assert!(output.status.success());
}

#[test]
fn every_chunk_reaches_only_its_stream() {
    for transport in ["ws", "sse"] {
        let line = "request-ids --streams 10 --streams 40 --array 10 --chunks 200 --json";
        let output = bench(&format!("{line} --transport {transport}"));
        let report = report(&output);
        assert_eq!(report["faults"], Value::Array(vec![]), "{report}");
        assert_eq!(report["deliveries"], 2 * 200, "{report}");
        // No events share a write, with few tenants or with many; otherwise the two could not be compared.
        assert_eq!((median(&report, "few_depth"), median(&report, "many_depth")), (1.0, 1.0), "{report}");
        assert!(median(&report, "many_over_few") > 0.0);
        assert!(output.status.success(), "{transport}");
    }
}

#[test]
fn contradictory_flags_are_refused_before_a_server_is_started() {
    for (line, says) in [
        ("resume --floor", "baselines"),
        ("resume --subscribers 0", "at least 1"),
        ("noisy --stalled 1.5", "0 to 1"),
        ("request-ids --streams 150 --streams 10000", "multiple of 100"),
        ("request-ids --streams 100", "twice"),
        ("fanout --subscribers 99999999999", "ulimit -n"),
        ("fanout --bar cpu<=1.1x", "--floor"),
        ("fanout --set foo", "key=value"),
        ("fanout --url https://localhost:1", "TLS"),
    ] {
        let output = bench(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {error}");
        assert!(error.contains(says), "{line}: {error}");
    }
}
