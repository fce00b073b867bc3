//! The metrics of the admin listener balance, and clients agree with them: matched = delivered + coalesced +
//! pending + dropped with ended connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::sse::Sse;
use common::ws::Ws;
use common::{Daemon, chunk, custom, until};
use serde_json::{Value, json};

/// The five numbers of the balance.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Balance {
    matched: u64,
    delivered: u64,
    coalesced: u64,
    pending: u64,
    dropped: u64,
}

impl Balance {
    async fn read(daemon: &Daemon) -> Balance {
        let page = common::http::Call::new(daemon.admin_addr(), "GET", "/metrics").send().await.text();
        let get = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse::<f64>().unwrap() as u64
        };
        Balance {
            matched: get("nervewire_matched_total"),
            delivered: get("nervewire_delivered_total"),
            coalesced: get("nervewire_coalesced_total"),
            pending: get("nervewire_pending"),
            dropped: get("nervewire_dropped_total"),
        }
    }

    fn holds(self) -> bool {
        self.matched == self.delivered + self.coalesced + self.pending + self.dropped
    }

    /// The balance once it no longer changes: two equal readings in a row.
    async fn settled(daemon: &Daemon) -> Balance {
        let mut before = Balance::read(daemon).await;
        for _ in 0..200 {
            // One reading is not atomic, but two equal ones are consistent.
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            let now = Balance::read(daemon).await;
            if now == before {
                return now;
            }
            before = now;
        }
        panic!("the numbers never rest: {before:?}");
    }
}

/// What a client counted: events, and how many chunks were merged into them.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    events: u64,
    merged: u64,
}

impl Counted {
    fn take(&mut self, event: &Value) {
        self.events += 1;
        if let Some(first) = event.get("first_index") {
            self.merged += event["index"].as_u64().unwrap() - first.as_u64().unwrap();
        }
    }
}

fn is_end(event: &Value) -> bool {
    event["type"] == "custom" && event["data"] == "end"
}

async fn count_ws(ws: &mut Ws) -> Counted {
    let mut counted = Counted::default();
    loop {
        let frame = ws.next_json().await;
        if matches!(frame["type"].as_str().unwrap(), "ready" | "caught_up") {
            continue;
        }
        counted.take(&frame);
        if is_end(&frame) {
            return counted;
        }
    }
}

async fn count_sse(sse: &mut Sse) -> Counted {
    let mut counted = Counted::default();
    loop {
        let block = sse.next().await;
        if block.name.is_some() {
            continue;
        }
        counted.take(&block.json());
        if is_end(&block.json()) {
            return counted;
        }
    }
}

/// Publishes batches of 100: 40 custom events on two channels, 60 chunks of one stream.
async fn publish(daemon: &Daemon, batches: u64) {
    let pad = "x".repeat(500);
    for batch in 0..batches {
        let events = (0..100).map(|n| match n {
            0..40 => custom(if n % 2 == 0 { "a" } else { "b" }, json!(pad)),
            _ => chunk("r", &pad, batch * 60 + n - 40),
        });
        daemon.publish(events.collect()).await;
    }
}

async fn publish_end(daemon: &Daemon) {
    daemon.publish(json!([custom("a", json!("end"))])).await;
}

fn small_ring() -> common::Builder {
    Daemon::with().env("LIMITS__RING_SLOTS", 1_024).env("LIMITS__UNCOMMITTED_EVENTS", 1_000)
}

#[tokio::test]
async fn metrics_equal_what_clients_counted() {
    let daemon = small_ring().start().await;
    publish(&daemon, 10).await; // events to replay
    let mut fast = daemon.ws("/api/v1/ws").open().await;
    let mut filtered = daemon.sse("/api/v1/sse?channel=a").open().await;
    let mut slow_ws = daemon
        .ws("/api/v1/ws?earliest=true")
        .ask_on(daemon.small_buffer_connection().await)
        .await
        .ok()
        .unwrap();
    let mut slow_sse =
        daemon.sse("/api/v1/sse?earliest=true").ask_on(daemon.small_buffer_connection().await).await;
    let mut slow_few =
        daemon.sse("/api/v1/sse?channel=a").ask_on(daemon.small_buffer_connection().await).await;
    let (mut fast_counted, mut filtered_counted) = (Counted::default(), Counted::default());
    let reading = async { tokio::join!(count_ws(&mut fast), count_sse(&mut filtered)) };
    let publishing = async {
        publish(&daemon, 50).await;
        publish_end(&daemon).await;
    };
    let ((one, other), ()) = tokio::join!(reading, publishing);
    fast_counted.events += one.events;
    fast_counted.merged += one.merged;
    filtered_counted.events += other.events;
    assert_eq!(fast_counted.events + fast_counted.merged, 5_001);
    assert_eq!(filtered_counted.events, 1_001);

    // The slow connections are blocked. Every frame is still counted.
    let blocked = Balance::settled(&daemon).await;
    assert!(blocked.holds(), "{blocked:?}");
    assert!(blocked.pending > 0 && blocked.dropped == 0, "{blocked:?}");

    let ws = count_ws(&mut slow_ws).await;
    let sse = count_sse(&mut slow_sse).await;
    let few = count_sse(&mut slow_few).await;
    for all in [ws, sse] {
        assert_eq!(all.events + all.merged, 6_001, "{all:?}");
        assert!(all.merged > 0, "who is behind gets chunks merged");
    }
    assert_eq!(few.events, 1_001);
    let all = [fast_counted, filtered_counted, ws, sse, few];
    let done = Balance::settled(&daemon).await;
    assert!(done.holds(), "{done:?}");
    let expected = Balance {
        matched: all.iter().map(|it| it.events + it.merged).sum(),
        delivered: all.iter().map(|it| it.events).sum(),
        coalesced: all.iter().map(|it| it.merged).sum(),
        pending: 0,
        dropped: 0,
    };
    assert_eq!(done, expected);
    assert_eq!(daemon.metric("nervewire_published_total").await, 6_001.0);
}

#[tokio::test]
async fn events_pending_for_ended_connections_are_counted_as_dropped() {
    let daemon = small_ring().start().await;
    let mut slow = Vec::new();
    let mut ids = Vec::new();
    for query in ["", "?channel=b", "?request_id=r", "?echo=false"] {
        let mut ws = daemon
            .ws(&format!("/api/v1/ws{query}"))
            .ask_on(daemon.small_buffer_connection().await)
            .await
            .ok()
            .unwrap();
        ids.push(ws.expect("ready").await["connection_id"].as_str().unwrap().to_owned());
        slow.push(ws);
    }
    let gone = daemon.sse("/api/v1/sse").ask_on(daemon.small_buffer_connection().await).await;
    let mut changing =
        daemon.ws("/api/v1/ws").ask_on(daemon.small_buffer_connection().await).await.ok().unwrap();
    changing.expect("ready").await;
    publish(&daemon, 40).await;
    let blocked = Balance::settled(&daemon).await;
    assert!(blocked.holds() && blocked.pending > 0, "{blocked:?}");

    // One connection changes its filter while it is blocked, with frames matched for the old filter. The
    // others end: closed by the daemon or by themselves.
    changing.send(&json!({"type": "subscribe", "ref": 1, "channel": "b"})).await;
    let kicked = daemon.call("DELETE", &format!("/api/v1/connections/{}", ids[0])).send().await;
    assert_eq!(kicked.status, 204);
    drop(gone);
    slow.truncate(2);
    daemon.publish(json!([custom("b", json!("end"))])).await;
    let mut of_b = 0;
    let mut ready = false;
    loop {
        let frame = changing.next_json().await;
        ready |= frame["type"] == "ready";
        assert!(!ready || frame["channel"] == "b" || frame["type"] == "ready", "{frame}");
        of_b += u64::from(frame["channel"] == "b");
        if frame["data"] == "end" {
            break;
        }
    }
    assert_eq!(of_b, 40 * 20 + 1, "of the kept filter's events none is missing");
    drop(slow);
    drop(changing);
    let done = until("all connections to end", async || {
        let left = daemon.metric("nervewire_connections").await;
        let balance = Balance::read(&daemon).await;
        (left == 0.0 && balance.pending == 0).then_some(balance)
    })
    .await;
    assert!(done.holds(), "{done:?}");
    assert!(done.dropped > 0, "{done:?}");
}
