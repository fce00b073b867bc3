//! `kill -9` under load: every acknowledged event reaches every subscriber that reconnects, exactly once and
//! in order.
//!
//! Publishers never repeat an event. So an event whose response was lost may exist once or not at all, but an
//! acknowledged one must exist. The daemon gets a new port in each run, as if clients had resolved its name
//! again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use common::{Daemon, PATIENCE, custom, until};
use nervewire_client::{Client, Request, Timeouts, WsMessage};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Least acknowledged events between two kills.
const ACKS_A_LIFE: usize = 60;
/// Unacknowledged publishes of one WebSocket.
const IN_FLIGHT: u64 = 16;

/// State that all clients share.
#[derive(Clone)]
struct World {
    addr: watch::Receiver<SocketAddr>,
    key: String,
    stop: Arc<AtomicBool>,
    /// Id, publisher and number of each acknowledged event.
    acked: Arc<Mutex<Vec<(String, u64, u64)>>>,
}

impl World {
    fn client(&self) -> Client {
        let endpoint = format!("http://{}", *self.addr.borrow()).parse().unwrap();
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, head: PATIENCE, body: PATIENCE };
        Client::builder(endpoint).credential(self.key.as_str()).timeouts(timeouts).build()
    }

    fn stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    fn ack(&self, ids: &Value, publisher: u64, numbers: &[u64]) {
        let ids = ids.as_array().unwrap();
        assert_eq!(ids.len(), numbers.len());
        let mut acked = self.acked.lock().unwrap();
        acked.extend(ids.iter().zip(numbers).map(|(id, n)| (id.as_str().unwrap().to_owned(), publisher, *n)));
    }
}

/// A pause between two attempts to reach a daemon that is down.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn event(publisher: u64, n: u64) -> Value {
    custom("load", json!({"p": publisher, "n": n, "pad": "x".repeat((n % 700) as usize)}))
}

async fn publish_rest(world: World, publisher: u64, batch: u64) {
    let mut next = 0;
    while !world.stopped() {
        let client = world.client();
        loop {
            let numbers: Vec<u64> = (next..next + 1 + next % batch).collect();
            next += numbers.len() as u64;
            let body: Value = numbers.iter().map(|n| event(publisher, *n)).collect();
            let request =
                Request::new(http::Method::POST, "/api/v1/events").body("application/json", body.to_string());
            match client.send(&request).await.and_then(nervewire_client::Response::json) {
                Ok(reply) => world.ack(&reply["data"]["ids"], publisher, &numbers),
                Err(_) => break,
            }
            if world.stopped() {
                return;
            }
        }
        pause().await;
    }
}

async fn publish_ws(world: World, publisher: u64) {
    let mut next = 0;
    while !world.stopped() {
        if let Ok(mut ws) = world.client().ws("/api/v1/ws?subscribe=none", PATIENCE).await {
            let mut under_way = 0;
            'connected: loop {
                while under_way < IN_FLIGHT && !world.stopped() {
                    let frame = json!({"type": "publish", "ref": next, "event": event(publisher, next)});
                    next += 1;
                    under_way += 1;
                    if ws.send(frame.to_string()).await.is_err() {
                        break 'connected;
                    }
                }
                if under_way == 0 {
                    return;
                }
                let Ok(WsMessage::Text(text)) = ws.next().await else { break };
                let frame: Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str().unwrap() {
                    "ack" => world.ack(&frame["ids"], publisher, &[frame["ref"].as_u64().unwrap()]),
                    "ready" | "ping" => continue,
                    "error" => {}
                    other => panic!("{other}"),
                }
                under_way -= 1;
            }
        }
        pause().await;
    }
}

/// The events that a subscriber has seen, and its position.
struct Seen {
    cursor: String,
    /// Id, publisher, number.
    events: Vec<(String, u64, u64)>,
    ended: bool,
}

impl Seen {
    fn take(&mut self, event: &Value) {
        let id = event["id"].as_str().unwrap().to_owned();
        self.cursor.clone_from(&id);
        match event["data"]["n"].as_u64() {
            Some(n) => self.events.push((id, event["data"]["p"].as_u64().unwrap(), n)),
            None => self.ended = true,
        }
    }
}

async fn subscribe(world: World, how: usize, begin: String) -> Seen {
    let mut seen = Seen { cursor: begin, events: Vec::new(), ended: false };
    while !seen.ended {
        let path = ["/api/v1/sse", "/api/v1/ws", "/api/v1/events"][how % 3];
        let path = format!("{path}?after={}", seen.cursor);
        match how % 3 {
            0 => {
                if let Ok(mut sse) = world.client().sse(&path, "", PATIENCE).await {
                    while let Ok(Some(event)) = sse.next().await {
                        let data = serde_json::from_str(&event.data).unwrap();
                        match event.event.as_str() {
                            "message" => seen.take(&data),
                            "gap" => panic!("{data}"),
                            _ => {}
                        }
                        if seen.ended {
                            break;
                        }
                    }
                }
            }
            1 => {
                if let Ok(mut ws) = world.client().ws(&path, PATIENCE).await {
                    while let Ok(WsMessage::Text(text)) = ws.next().await {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        match frame["type"].as_str().unwrap() {
                            "custom" => seen.take(&frame),
                            "gap" => panic!("{frame}"),
                            _ => {}
                        }
                        if seen.ended {
                            break;
                        }
                    }
                }
            }
            _ => {
                let request = Request::new(http::Method::GET, format!("{path}&limit=1000&wait=5"));
                if let Ok(page) =
                    world.client().send(&request).await.and_then(nervewire_client::Response::json)
                {
                    assert_eq!(page["gap"], Value::Null, "{page}");
                    page["data"].as_array().unwrap().iter().for_each(|event| seen.take(event));
                    seen.cursor = page["next_cursor"].as_str().unwrap().to_owned();
                    continue;
                }
            }
        }
        pause().await;
    }
    seen
}

/// The sequence inside a cursor (protocol §1). The test decodes the documented bytes itself.
fn sequence(id: &str) -> u64 {
    let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(id).unwrap();
    u64::from_be_bytes(raw[4..12].try_into().unwrap())
}

#[tokio::test]
async fn acknowledged_events_survive_kill_9_and_reach_resuming_subscribers_exactly_once() {
    let cycles: usize = std::env::var("NERVEWIRE_KILL9_CYCLES").map_or(10, |text| text.parse().unwrap());
    let mut daemon = Daemon::start().await;
    let (addr, addr_seen) = watch::channel(daemon.addr());
    let world =
        World { addr: addr_seen, key: daemon.key.clone(), stop: Arc::default(), acked: Arc::default() };
    let begin = daemon.get("/api/v1/events").send().await.json()["next_cursor"].as_str().unwrap().to_owned();
    let mut publishers = vec![
        tokio::spawn(publish_rest(world.clone(), 0, 1)),
        tokio::spawn(publish_rest(world.clone(), 1, 7)),
        tokio::spawn(publish_ws(world.clone(), 2)),
        tokio::spawn(publish_ws(world.clone(), 3)),
    ];
    let subscribers: Vec<_> =
        (0..6).map(|how| tokio::spawn(subscribe(world.clone(), how, begin.clone()))).collect();

    let target = AtomicUsize::new(0);
    for cycle in 0..cycles {
        // A little more in each cycle, so that kills happen at different moments of a commit.
        target.store(world.acked.lock().unwrap().len() + ACKS_A_LIFE + cycle % 13, SeqCst);
        until("acks", async || (world.acked.lock().unwrap().len() >= target.load(SeqCst)).then_some(()))
            .await;
        daemon.kill9().await;
        daemon.start_again().await;
        addr.send_replace(daemon.addr());
    }
    world.stop.store(true, SeqCst);
    for publisher in publishers.drain(..) {
        common::within("the end of a publisher", publisher).await.unwrap();
    }
    daemon.publish(custom("load", json!("end"))).await;

    let acked = world.acked.lock().unwrap().clone();
    assert!(acked.len() >= cycles * ACKS_A_LIFE);
    for subscriber in subscribers {
        let seen = common::within("the end of a subscriber", subscriber).await.unwrap();
        let sequences: Vec<u64> = seen.events.iter().map(|(id, ..)| sequence(id)).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b), "strictly increasing, across lives too");
        let mut by_id = HashMap::new();
        let mut last: HashMap<u64, u64> = HashMap::new();
        for (id, publisher, n) in &seen.events {
            by_id.insert(id.as_str(), (*publisher, *n));
            if let Some(before) = last.insert(*publisher, *n) {
                assert!(before < *n, "publisher {publisher}: {n} after {before}");
            }
        }
        for (id, publisher, n) in &acked {
            assert_eq!(by_id.get(id.as_str()), Some(&(*publisher, *n)), "acknowledged and not delivered");
        }
    }
    println!("{cycles} kills, {} events acknowledged, each delivered once to 6 subscribers", acked.len());
}
