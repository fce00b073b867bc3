//! What `docs/operations.md` and the README promise, tried: metric names, exit codes, the invariant of delivery.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

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

/// The series a document names in backquotes.
fn named_series() -> BTreeSet<&'static str> {
    let words = DOCUMENTS.iter().flat_map(|text| text.split('`'));
    words.filter(|word| word.starts_with("nervewire_")).collect()
}

#[tokio::test]
async fn every_metric_a_document_names_is_there() {
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

/// Without it `histogram_quantile` knows no total and answers nothing.
#[tokio::test]
async fn a_histogram_ends_with_the_bucket_of_infinity() {
    let daemon = Daemon::start().await;
    let page = metrics(&daemon).await;
    let buckets: Vec<&str> = page.lines().filter(|line| line.contains("commit_seconds_bucket")).collect();
    assert!(buckets.last().is_some_and(|last| last.contains("le=\"+Inf\"")), "{buckets:?}");
}

#[tokio::test]
async fn matched_is_delivered_coalesced_pending_and_dropped() {
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

/// Each row of the table, but 71, which needs a system that refuses threads.
#[tokio::test]
async fn serve_ends_with_the_codes_of_the_table() {
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
    // A subscriber makes the drain last, so that the second signal comes into it.
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

/// What is accepted is what counts: more workers than a wake-up word has bits would silently be fewer.
#[tokio::test]
async fn worker_threads_are_as_many_as_there_may_be() {
    let home = tempfile::tempdir().unwrap();
    let most = nervewire::wake::MAX_WORKERS;
    for (threads, code) in [(most, 0), (most + 1, 64)] {
        let mut command = command(home.path());
        command.arg("check-config").env("NERVEWIRE_WORKER_THREADS", threads.to_string());
        let output = within("its end", command.output()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{threads}: {output:?}");
    }
}

/// A load balancer goes elsewhere at once; a connection left in the kernel's queue would wait for the whole drain.
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
