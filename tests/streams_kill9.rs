//! `kill -9` while producers stream: at the end every stream has exactly the text that was produced, and
//! exactly one end.
//!
//! * A producer whose request dies takes its stream over and continues at the index that it is told.
//! * Some streams are finished, some cancelled by others, and some left by their producers.
//! * `NERVEWIRE_STREAM_KILLS` sets the number of kills, `NERVEWIRE_STREAM_SEED` their moments. The seed is
//!   printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::http::{Call, Reply};
use common::{Daemon, until, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Producers, each of which writes one stream after the other.
const PRODUCERS: u64 = 6;
/// Chunks of a stream, at most.
const CHUNKS: u64 = 400;
/// The lease of streams whose producers leave them, in seconds: the shortest.
const LEASE: u64 = 5;

/// How a stream is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    Finish,
    Cancel,
    Leave,
}

impl Plan {
    fn state(self) -> &'static str {
        match self {
            Plan::Finish => "completed",
            Plan::Cancel => "cancelled",
            Plan::Leave => "abandoned",
        }
    }
}

/// What is known of a stream outside of the daemon.
struct Produced {
    id: String,
    plan: Plan,
    /// Chunks that were sent, acknowledged or not.
    sent: u64,
    /// Chunks that were acknowledged.
    acknowledged: u64,
}

/// State that all producers share.
#[derive(Clone)]
struct World {
    addr: watch::Receiver<SocketAddr>,
    key: String,
    stop: Arc<AtomicBool>,
    /// Chunks that were sent and requests that were answered, which the kills wait for.
    steps: Arc<AtomicU64>,
    produced: Arc<Mutex<Vec<Produced>>>,
}

/// Numbers that look random, from a seed.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The text of a chunk. Most are short, as tokens are; some fill a tail or a segment at once.
fn text(id: &str, index: u64) -> String {
    let length = match (index * 31 + id.len() as u64) % 97 {
        0 => 20_000,
        1..4 => 3_000,
        other => other as usize % 12,
    };
    format!("{id}.{index}ü;{}", "x".repeat(length))
}

fn whole(id: &str, chunks: u64) -> String {
    (0..chunks).map(|index| text(id, index)).collect()
}

/// A pause between two attempts to reach a daemon that is down.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

impl World {
    fn step(&self) {
        self.steps.fetch_add(1, SeqCst);
    }

    /// `POST`. Returns nothing if the daemon is killed before it answers, or refuses for a moment.
    async fn post(&self, path: &str, token: &str, body: &Value) -> Option<Reply> {
        let call = Call::new(*self.addr.borrow(), "POST", path).key(&self.key).json(body);
        let reply = call.header("x-producer-token", token).try_send().await.ok();
        self.step();
        reply.filter(|reply| !matches!(reply.status.as_u16(), 429 | 503))
    }

    /// Opens a stream or takes it over. Returns its token and its next index; `None` if it has ended.
    async fn take(&self, id: &str, plan: Plan) -> Option<(String, u64)> {
        let lease = if plan == Plan::Leave { LEASE } else { 600 };
        let body = json!({"request_id": id, "takeover": true, "lease_seconds": lease});
        loop {
            if let Some(reply) = self.post("/api/v1/streams", "", &body).await {
                if reply.status == 409 {
                    return None;
                }
                let data = common::rest::data(&reply, reply.status.as_u16());
                assert!(matches!(reply.status.as_u16(), 200 | 201), "{reply:?}");
                let token = data["producer_token"].as_str().unwrap().to_owned();
                return Some((token, data["next_index"].as_u64().unwrap()));
            }
            pause().await;
        }
    }

    /// Notes chunks as sent before they are.
    fn note(&self, at: usize, sent: u64, acknowledged: u64) {
        let stream = &mut self.produced.lock().unwrap()[at];
        stream.sent = stream.sent.max(sent);
        stream.acknowledged = stream.acknowledged.max(acknowledged);
    }

    /// Sends chunks from `from` to `to` as lines of one open body. Returns true if all were acknowledged.
    async fn lines(&self, at: usize, id: &str, token: &str, from: u64, to: u64) -> bool {
        let sent = async {
            let addr = *self.addr.borrow();
            let mut stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let head = format!(
                "POST /api/v1/streams/{id}/chunks HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {}\r\n\
                 x-producer-token: {token}\r\ncontent-type: application/x-ndjson\r\n\
                 transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
                self.key
            );
            stream.write_all(head.as_bytes()).await?;
            for index in from..to {
                let line = format!("{}\n", json!({"index": index, "chunk": text(id, index)}));
                self.note(at, index + 1, 0);
                stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
                self.step();
                if index.is_multiple_of(7) {
                    tokio::task::yield_now().await;
                }
            }
            stream.write_all(b"0\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let Ok(answer) = sent.await else { return false };
        self.step();
        let Some((_, body)) = answer.split_once("\r\n\r\n") else { return false };
        let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
        if !answer.starts_with("HTTP/1.1 200") {
            return false; // it has ended, or the daemon is about to start
        }
        assert_eq!(body["data"]["next_index"], to, "{body}");
        self.note(at, to, to);
        true
    }

    /// Sends chunks from `from` to `to` as one array. Returns true if they were acknowledged.
    async fn array(&self, at: usize, id: &str, token: &str, from: u64, to: u64) -> bool {
        let chunks: Value =
            (from..to).map(|index| json!({"index": index, "chunk": text(id, index)})).collect();
        self.note(at, to, 0);
        let reply = self.post(&format!("/api/v1/streams/{id}/chunks"), token, &chunks).await;
        let Some(reply) = reply.filter(|reply| reply.status == 200) else { return false };
        assert_eq!(reply.json()["data"]["next_index"], to, "{reply:?}");
        self.note(at, to, to);
        true
    }

    /// Writes one stream to its planned end.
    async fn produce(&self, id: &str, plan: Plan, random: &mut Random) {
        let at = {
            let mut produced = self.produced.lock().unwrap();
            produced.push(Produced { id: id.to_owned(), plan, sent: 0, acknowledged: 0 });
            produced.len() - 1
        };
        let chunks = 1 + random.below(CHUNKS);
        'taken: loop {
            let Some((token, mut next)) = self.take(id, plan).await else { return };
            {
                let known = &self.produced.lock().unwrap()[at];
                assert!(
                    (known.acknowledged..=known.sent).contains(&next),
                    "{id} is at {next}, {} were acknowledged and {} sent",
                    known.acknowledged,
                    known.sent
                );
            }
            while next < chunks {
                let to = chunks.min(next + 1 + random.below(60));
                let sent = match random.below(2) {
                    0 => self.lines(at, id, &token, next, to).await,
                    _ => self.array(at, id, &token, next, to).await,
                };
                if !sent {
                    pause().await;
                    continue 'taken;
                }
                next = to;
            }
            let verb = match plan {
                Plan::Finish => "finish",
                Plan::Cancel => "cancel",
                Plan::Leave => return,
            };
            let path = format!("/api/v1/streams/{id}/{verb}");
            match self.post(&path, &token, &json!({})).await {
                // A repeated end is answered like the first one.
                Some(reply) if reply.status == 200 => return,
                Some(reply) => assert_eq!(reply.status, 409, "{reply:?}"),
                None => pause().await,
            }
        }
    }

    /// Writes one stream after the other.
    async fn run(self, producer: u64, seed: u64) {
        let mut random = Random(seed.wrapping_add(producer.wrapping_mul(0x9e37_79b9)));
        let mut number = 0;
        while !self.stop.load(SeqCst) {
            let plan = match random.below(8) {
                0 => Plan::Cancel,
                1 if number < 20 => Plan::Leave, // they stay open until the end of the test
                _ => Plan::Finish,
            };
            self.produce(&format!("s{producer}-{number}"), plan, &mut random).await;
            number += 1;
        }
    }
}

/// What the log has of a stream.
#[derive(Default)]
struct Logged {
    text: String,
    chunks: u64,
    ends: u64,
    errors: Vec<String>,
}

/// Reads the whole log.
async fn read_log(daemon: &Daemon) -> HashMap<String, Logged> {
    let mut found: HashMap<String, Logged> = HashMap::new();
    let mut path = "/api/v1/events?earliest=true&limit=1000".to_owned();
    loop {
        let page = daemon.get(&path).send().await.json();
        assert_eq!(page["gap"], Value::Null, "{page}");
        for event in page["data"].as_array().unwrap() {
            let stream = found.entry(event["request_id"].as_str().unwrap().to_owned()).or_default();
            assert_eq!(stream.ends, 0, "after the end: {event}");
            if event["type"] == "error" {
                stream.errors.push(event["code"].as_str().unwrap().to_owned());
                continue;
            }
            // History merges neighbouring chunks.
            let first = event["first_index"].as_u64().or(event["index"].as_u64()).unwrap();
            assert_eq!(first, stream.chunks, "{event}");
            stream.text.push_str(event["chunk"].as_str().unwrap());
            match event["is_final"].as_bool().unwrap() {
                true => stream.ends += 1,
                false => stream.chunks = event["index"].as_u64().unwrap() + 1,
            }
        }
        if page["caught_up"] == true {
            return found;
        }
        path = format!("/api/v1/events?after={}&limit=1000", page["next_cursor"].as_str().unwrap());
    }
}

#[tokio::test]
async fn streams_survive_kill_9_with_their_whole_text_and_end_once() {
    let kills: u64 = std::env::var("NERVEWIRE_STREAM_KILLS").map_or(20, |text| text.parse().unwrap());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed =
        std::env::var("NERVEWIRE_STREAM_SEED").map_or(clock.as_nanos() as u64, |text| text.parse().unwrap());
    println!("NERVEWIRE_STREAM_SEED={seed}");
    let mut random = Random(seed);
    let mut daemon = Daemon::start().await;
    let (addr, addr_seen) = watch::channel(daemon.addr());
    let world = World {
        addr: addr_seen,
        key: daemon.key.clone(),
        stop: Arc::default(),
        steps: Arc::default(),
        produced: Arc::default(),
    };
    let producers: Vec<_> = (0..PRODUCERS).map(|at| tokio::spawn(world.clone().run(at, seed))).collect();
    for _ in 0..kills {
        let steps = world.steps.load(SeqCst) + 1 + random.below(300);
        until("the next moment to kill", async || (world.steps.load(SeqCst) >= steps).then_some(())).await;
        daemon.kill9().await;
        daemon.start_again().await;
        addr.send_replace(daemon.addr());
    }
    world.stop.store(true, SeqCst);
    for producer in producers {
        within("the end of a producer", producer).await.unwrap();
    }

    let produced = std::mem::take(&mut *world.produced.lock().unwrap());
    let mut ended: HashMap<&str, u64> = HashMap::new();
    let (mut chunks, mut bytes) = (0, 0);
    for stream in &produced {
        let Produced { id, plan, .. } = stream;
        // Those that were left are open until their lease ends, which began anew with the last start.
        let found = until("the end of a stream", async || {
            let found = daemon.get(&format!("/api/v1/streams/{id}")).send().await.json()["data"].clone();
            (found["state"] != "open").then_some(found)
        })
        .await;
        let next_index = found["next_index"].as_u64().unwrap();
        assert_eq!(found["state"], plan.state(), "{id}");
        assert!((stream.acknowledged..=stream.sent).contains(&next_index), "{id}: {next_index}");
        let expected = whole(id, next_index);
        assert!(found["text"] == expected, "{id} has another text");
        assert_eq!(found["text_bytes"], expected.len(), "{id}");
        *ended.entry(plan.state()).or_default() += 1;
        (chunks, bytes) = (chunks + next_index, bytes + expected.len());
    }
    let mut logged = read_log(&daemon).await;
    for Produced { id, plan, .. } in &produced {
        let stream = logged.remove(id).unwrap_or_default();
        assert!(stream.text == whole(id, stream.chunks), "{id} has another text in the log");
        let errors: &[&str] = match plan {
            Plan::Finish => &[],
            Plan::Cancel => &["CANCELLED"],
            Plan::Leave => &["ABANDONED"],
        };
        assert_eq!(stream.ends, 1, "{id}");
        assert_eq!(stream.errors, errors, "{id}");
    }
    assert!(logged.is_empty(), "streams that nobody opened");
    assert!(!ended.is_empty());
    println!("{kills} kills, {} streams: {ended:?}; {chunks} chunks, {bytes} bytes", produced.len());
}
