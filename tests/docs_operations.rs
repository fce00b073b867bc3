//! Tests what `docs/operations.md` and the README promise: metric names, exit codes, the invariant of
//! delivery.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::BTreeSet;
use std::net::TcpListener;

use common::http::Call;
use common::{Daemon, command, until, within};
use rustix::process::Signal;

const OPERATIONS: &str = include_str!("../docs/operations.md");
const DOCUMENTS: [&str; 4] = [
    OPERATIONS,
    include_str!("../README.md"),
    include_str!("../docs/architecture.md"),
    include_str!("../docs/configuration.md"),
];

async fn metrics(daemon: &Daemon) -> String {
    Call::new(daemon.admin_addr(), "GET", "/metrics").send().await.text()
}

/// The series that a document names in backquotes.
fn named_series() -> BTreeSet<&'static str> {
    let words = DOCUMENTS.iter().flat_map(|text| text.split('`'));
    words.filter(|word| word.starts_with("nervewire_")).collect()
}

#[tokio::test]
async fn every_documented_metric_exists() {
    let daemon = Daemon::start().await;
    let page = metrics(&daemon).await;
    let series: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next())
        .collect();
    let named = named_series();
    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(series.contains(name), "{name} is no series of\n{page}");
    }
}

/// A scraper without an `Accept` header gets the format that all scrapers can read.
#[tokio::test]
async fn metrics_are_served_in_the_requested_format() {
    let daemon = Daemon::start().await;
    let ask = |accept: &'static str| {
        Call::new(daemon.admin_addr(), "GET", "/metrics").header("accept", accept).send()
    };
    let text = Call::new(daemon.admin_addr(), "GET", "/metrics").send().await;
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let (text, open) = (text.text(), ask("application/openmetrics-text; version=1.0.0").await);
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let open = open.text();
    assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"), "{text}");
    let series = |page: &str| -> BTreeSet<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    assert_eq!(series(&text), series(&open), "both name the same");
    assert_eq!(
        ask("text/plain;q=1, application/openmetrics-text;q=0.5").await.text().lines().last(),
        text.lines().last()
    );
    for family in [
        "nervewire_build_info{version=\"",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_virtual_memory_bytes ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(&format!("\n{family}")), "{family}");
    }
}

/// The rules of `promtool check metrics`, and for each family of the text format: help and type once, with
/// its samples together.
#[tokio::test]
async fn every_metric_family_has_help_type_and_a_valid_name() {
    let daemon = Daemon::start().await;
    let page = metrics(&daemon).await;
    let mut families = BTreeSet::new();
    let mut lines = page.lines().peekable();
    while let Some(help) = lines.next() {
        let (family, text) = help.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
        assert!(!text.is_empty(), "{family}");
        assert!(families.insert(family), "{family} comes twice");
        let (typed, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
        assert_eq!(typed, family);
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        let mut samples = 0;
        while lines.peek().is_some_and(|line| !line.starts_with('#')) {
            let name = lines.next().unwrap().split([' ', '{']).next().unwrap();
            let suffix = name.strip_prefix(family).unwrap();
            let fits = if kind == "histogram" {
                ["_bucket", "_sum", "_count"].contains(&suffix)
            } else {
                suffix.is_empty()
            };
            assert!(fits, "{name} is no sample of {family}");
            samples += 1;
        }
        assert!(samples > 0, "{family}");
    }
    if std::process::Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("promtool is not at hand");
        return;
    }
    let mut promtool = std::process::Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut checked = promtool.spawn().unwrap();
    std::io::Write::write_all(&mut checked.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let checked = checked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}");
}

/// Without the `+Inf` bucket, `histogram_quantile` knows no total and returns nothing.
#[tokio::test]
async fn a_histogram_ends_with_the_infinity_bucket() {
    let daemon = Daemon::start().await;
    let page = metrics(&daemon).await;
    let buckets: Vec<&str> = page.lines().filter(|line| line.contains("commit_seconds_bucket")).collect();
    assert!(buckets.last().is_some_and(|last| last.contains("le=\"+Inf\"")), "{buckets:?}");
}

#[tokio::test]
async fn matched_events_are_delivered_coalesced_pending_or_dropped() {
    let daemon = Daemon::start().await;
    let mut live = daemon.live_sse("/api/v1/sse").await;
    let gone = daemon.live_ws("/api/v1/ws").await;
    let chunks = (0..20).map(|n| common::chunk("r", "x", n)).collect();
    daemon.publish(chunks).await;
    live.events(1).await;
    drop(gone);
    let _late = daemon.live_sse("/api/v1/sse?earliest=true").await;
    daemon.publish_messages(&["a", "b"]).await;
    until("an even balance", || async {
        let page = metrics(&daemon).await;
        let of = |name: &str| -> i64 {
            let line = page.lines().find(|line| line.starts_with(&format!("nervewire_{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let matched = of("matched_total");
        let rest = of("delivered_total") + of("coalesced_total") + of("pending") + of("dropped_total");
        (matched >= 42 && matched == rest).then_some(())
    })
    .await;
}

/// Every row of the table except 71, which needs a system that refuses to start threads.
#[tokio::test]
async fn serve_exits_with_the_documented_codes() {
    let mut daemon = Daemon::with().env("DRAIN_SECONDS", 20).start().await;
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let data = daemon.data_dir().to_str().unwrap().to_owned();
    std::fs::write(home.path().join("file"), "").unwrap();
    std::fs::create_dir(home.path().join("bad-key")).unwrap();
    std::fs::write(home.path().join("bad-key/auth.key"), "junk").unwrap();
    let serve = ["serve", "--admin-listen", "off", "--listen"];
    let any = "127.0.0.1:0";
    for (code, arguments) in [
        (64, vec!["127.0.0.1:port", "--data-dir", "d"]),
        (64, vec![any, "--data-dir", "bad-key"]),
        (69, vec![taken.as_str(), "--data-dir", "d"]),
        (73, vec![any, "--data-dir", &data]),
        (74, vec![any, "--data-dir", "file/below"]),
    ] {
        let mut command = command(home.path());
        let output = within("its end", command.args(serve).args(&arguments).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(OPERATIONS.contains(&format!("| {code} |")), "{code} is not in the table");
    }
    // A subscriber makes the drain take a while, so the second signal arrives during it.
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(daemon.live_sse("/api/v1/sse").await);
    }
    daemon.signal(Signal::TERM);
    until("draining", || async { daemon.log().contains("draining").then_some(()) }).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(143));
    assert_eq!(Daemon::start().await.terminate().await, 0);
    assert!(OPERATIONS.contains("| 130, 143 |") && OPERATIONS.contains("| 0 |"));
}

/// A value that is accepted must take effect: workers beyond the bits of a wake-up word would silently be
/// missing.
#[tokio::test]
async fn more_than_the_maximum_of_worker_threads_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let most = nervewire::wake::MAX_WORKERS;
    for (threads, code) in [(most, 0), (most + 1, 64)] {
        let mut command = command(home.path());
        command.arg("check-config").env("NERVEWIRE_WORKER_THREADS", threads.to_string());
        let output = within("its end", command.output()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{threads}: {output:?}");
    }
}

/// A load balancer connects elsewhere at once. A connection in the kernel's queue would wait for the whole
/// drain.
#[tokio::test]
async fn a_draining_daemon_refuses_new_connections_and_is_not_ready() {
    let mut daemon = Daemon::with().env("DRAIN_SECONDS", 20).start().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(daemon.live_sse("/api/v1/sse").await);
    }
    daemon.signal(Signal::TERM);
    until("a refused connection", || async {
        tokio::net::TcpStream::connect(daemon.addr()).await.is_err().then_some(())
    })
    .await;
    let ready = Call::new(daemon.admin_addr(), "GET", "/health/ready").send().await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &"stopping".into()));
    let live = Call::new(daemon.admin_addr(), "GET", "/health/live").send().await;
    assert_eq!(live.status, 200);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(143));
}
