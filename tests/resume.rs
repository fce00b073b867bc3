//! Resuming (protocol §7): by cursor, by time, from the beginning; from ring and log; over every transport;
//! after `kill -9`; with declared gaps; and slow readers, which get every event at their own pace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use common::{Daemon, chunk, custom, message, until};
use serde_json::{Value, json};

/// The events of a subscription between `ready` and `caught_up`, and both frames.
#[derive(Debug)]
struct Replay {
    ready: Value,
    gap: Option<Value>,
    events: Vec<Value>,
}

impl Replay {
    fn ids(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["id"].as_str().unwrap()).collect()
    }

    fn check(&self) {
        let replaying = self.ready["replaying"].as_u64().unwrap();
        assert!(self.events.len() as u64 <= replaying, "replaying is a bound: {self:?}");
        assert!(
            !self.events.is_empty() || self.gap.is_some() || replaying == 0,
            "0 if nothing comes: {self:?}"
        );
        assert!(self.ready["resumed"] != true || self.gap.is_none(), "{self:?}");
    }
}

async fn replay_ws(daemon: &Daemon, query: &str) -> Replay {
    let mut ws = daemon.ws(&format!("/api/v1/ws?{query}")).open().await;
    let ready = ws.expect("ready").await;
    let (mut gap, mut events) = (None, Vec::new());
    loop {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "caught_up" => return Replay { ready, gap, events },
            "gap" => gap = Some(frame),
            _ => events.push(frame),
        }
    }
}

async fn replay_sse(daemon: &Daemon, query: &str) -> Replay {
    let mut sse = daemon.sse(&format!("/api/v1/sse?{query}")).open().await;
    let ready = sse.next().await.named("ready");
    let (mut gap, mut events) = (None, Vec::new());
    loop {
        let block = sse.next().await;
        match block.name.as_deref() {
            Some("caught_up") => return Replay { ready, gap, events },
            Some("gap") => gap = Some(block.json()),
            _ => events.push(block.event()),
        }
    }
}

/// Reads page after page until the end, and returns them in the form of the other transports.
async fn replay_pages(daemon: &Daemon, query: &str, limit: usize) -> Replay {
    let (mut gap, mut events) = (None, Vec::new());
    let mut at = query.to_owned();
    let filter = query.split('&').filter(|part| part.starts_with("types") || part.starts_with("channel"));
    let filter = filter.collect::<Vec<_>>().join("&");
    loop {
        let page = daemon.get(&format!("/api/v1/events?{at}&limit={limit}")).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit);
        events.extend(data.iter().cloned());
        if gap.is_none() && !page["gap"].is_null() {
            gap = Some(page["gap"].clone());
        }
        if page["caught_up"] == true {
            let ready = json!({"replaying": events.len()});
            return Replay { ready, gap, events };
        }
        at = format!("after={}&{filter}", page["next_cursor"].as_str().unwrap());
    }
}

/// The replay over each transport. All must be equal.
async fn replay(daemon: &Daemon, query: &str) -> Replay {
    let ws = replay_ws(daemon, query).await;
    let sse = replay_sse(daemon, query).await;
    let pages = replay_pages(daemon, query, 1_000).await;
    for one in [&ws, &sse] {
        one.check();
    }
    assert_eq!((ws.ids(), ws.ids()), (sse.ids(), pages.ids()), "{query}");
    let reason = |gap: &Option<Value>| {
        gap.as_ref().map(|gap| [&gap["reason"], &gap["after"], &gap["resumes_at"]].map(Value::clone))
    };
    assert_eq!(reason(&ws.gap), reason(&sse.gap), "{query}");
    assert_eq!(reason(&ws.gap), reason(&pages.gap), "{query}");
    ws
}

/// A small ring that is soon overwritten.
fn small_ring() -> common::Builder {
    Daemon::with().env("LIMITS__RING_SLOTS", 1_024).env("LIMITS__UNCOMMITTED_EVENTS", 1_000)
}

async fn publish_numbers(daemon: &Daemon, from: usize, count: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for start in (from..from + count).step_by(1_000) {
        let end = (start + 1_000).min(from + count);
        ids.extend(
            daemon.publish((start..end).map(|n| custom(&format!("n/{}", n % 3), json!(n))).collect()).await,
        );
    }
    ids
}

#[tokio::test]
async fn a_subscriber_gets_the_events_after_its_cursor_from_ring_and_log() {
    let mut daemon = small_ring().start().await;
    let mut ids = publish_numbers(&daemon, 0, 200).await;
    // All of it is in the ring.
    for at in [0, 100, 198] {
        let found = replay(&daemon, &format!("after={}", ids[at])).await;
        assert_eq!(
            (found.ids(), &found.ready["resumed"]),
            (ids[at + 1..].iter().map(String::as_str).collect(), &json!(true))
        );
    }
    assert_eq!(replay(&daemon, "earliest=true").await.ids(), ids);
    // The ring has been overwritten: the log is read first, then the ring.
    ids.extend(publish_numbers(&daemon, 200, 3_000).await);
    for at in [0, 150, 2_000, 2_500, 3_199] {
        let found = replay(&daemon, &format!("after={}", ids[at])).await;
        assert_eq!(found.ids(), ids[at + 1..]);
        assert!(found.events.iter().enumerate().all(|(n, event)| event["data"] == at + 1 + n));
    }
    // With a filter at the same position, the result is a subsequence.
    let found = replay(&daemon, &format!("after={}&channel=n/1", ids[10])).await;
    assert!(
        found
            .events
            .iter()
            .map(|event| event["data"].as_u64().unwrap())
            .eq((11..3_200).filter(|n| n % 3 == 1))
    );
    // After a restart the ring is empty: first only the log is read, then the log and the ring of the new
    // epoch.
    daemon.restart().await;
    for at in [0, 2_500, 3_199] {
        let found = replay(&daemon, &format!("after={}", ids[at])).await;
        assert_eq!(
            (found.ids(), &found.ready["resumed"]),
            (ids[at + 1..].iter().map(String::as_str).collect(), &json!(true))
        );
    }
    ids.extend(publish_numbers(&daemon, 3_200, 50).await);
    for at in [3_000, 3_199, 3_200, 3_249] {
        assert_eq!(replay(&daemon, &format!("after={}", ids[at])).await.ids(), ids[at + 1..]);
    }
    assert_eq!(replay(&daemon, "earliest=true").await.ids(), ids);
}

#[tokio::test]
async fn a_cursor_works_on_every_transport_with_every_filter() {
    let daemon = Daemon::start().await;
    let ids = publish_numbers(&daemon, 0, 12).await;
    let mut ws = daemon.ws(&format!("/api/v1/ws?after={}&channel=n/0", ids[1])).open().await;
    ws.expect("ready").await;
    let seen = ws.expect("custom").await;
    assert_eq!(seen["data"], 3);
    let mut sse = daemon.sse("/api/v1/sse").last_event_id(seen["id"].as_str().unwrap()).open().await;
    sse.next().await.named("ready");
    assert_eq!(sse.next_event().await["data"], 4);
    let page = daemon.get(&format!("/api/v1/events?after={}&limit=2", sse.last_event_id)).send().await.json();
    assert_eq!((&page["data"][0]["data"], &page["data"][1]["data"]), (&json!(5), &json!(6)));
    let mut ws = daemon
        .ws(&format!("/api/v1/ws?last_event_id={}", page["next_cursor"].as_str().unwrap()))
        .open()
        .await;
    let ready = ws.expect("ready").await;
    assert_eq!(ws.expect("custom").await["data"], 7);
    // Cursors of control frames can be used like those of events.
    let mut sse = daemon.sse("/api/v1/sse").last_event_id(ready["cursor"].as_str().unwrap()).open().await;
    sse.next().await.named("ready");
    assert_eq!(sse.next_event().await["data"], 7);
}

#[tokio::test]
async fn since_compares_with_the_servers_receive_time() {
    let daemon = Daemon::start().await;
    // The publisher's own timestamp is ignored.
    let mut early = custom("n/0", json!("early"));
    early["timestamp"] = "2099-01-01T00:00:00Z".into();
    let mut late = custom("n/0", json!("late"));
    late["timestamp"] = "2001-01-01T00:00:00Z".into();
    let first = daemon.publish(early).await;
    tokio::time::sleep(Duration::from_millis(3)).await; // so that the receive time is another millisecond
    let between = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond()).unwrap();
    let second = daemon.publish(late).await;
    assert_eq!(replay(&daemon, "since=2020-01-01T00:00:00Z").await.ids(), [&*first[0], &second[0]]);
    assert_eq!(replay(&daemon, &format!("since={between}")).await.ids(), [&*second[0]]);
    assert!(replay(&daemon, "since=2098-01-01T00:00:00Z").await.events.is_empty());
    assert!(replay(&daemon, "since=2020-01-01T00:00:00Z").await.gap.is_none(), "nothing was ever trimmed");
}

#[tokio::test]
async fn events_removed_by_retention_are_a_declared_gap() {
    let daemon = Daemon::with().env("RETENTION__MAX_EVENTS", 5).start().await;
    let begin = daemon.get("/api/v1/events").send().await.json()["next_cursor"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.extend(daemon.publish(custom("n/0", json!(n))).await); // one stored value for each event
    }
    let kept = until("the trim", async || {
        let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
        let kept = page["data"].as_array().unwrap().clone();
        // Exactly the limit: from here on nothing is trimmed between two readings.
        (kept.len() <= 5).then_some(kept)
    })
    .await;
    assert!(kept.len() >= 5, "at least the limit is kept: {kept:?}");
    for presented in [&begin, &ids[0], &ids[10]] {
        let found = replay(&daemon, &format!("after={presented}")).await;
        let gap = found.gap.as_ref().unwrap();
        assert_eq!((&gap["reason"], &gap["after"]), (&json!("trimmed"), &json!(presented)));
        assert_eq!(found.ready["resumed"], false);
        assert_eq!(found.ready["cursor"], gap["resumes_at"]);
        assert!(found.events.len() >= 5, "goes on from the oldest retained event: {found:?}");
        // Resuming at `resumes_at` is a resumption without a gap.
        let again = replay(&daemon, &format!("after={}", gap["resumes_at"].as_str().unwrap())).await;
        assert_eq!((again.ids(), &again.gap), (found.ids(), &None));
    }
    let found = replay(&daemon, "since=2020-01-01T00:00:00Z").await;
    assert_eq!(found.gap.as_ref().unwrap()["reason"], "trimmed");
    assert!(
        replay(&daemon, "earliest=true").await.gap.is_none(),
        "who asks for what is there misses nothing"
    );
}

#[tokio::test]
async fn an_invalid_cursor_is_a_gap_and_continues_live() {
    let daemon = Daemon::start().await;
    let other = daemon.create_org("other").await;
    let foreign = daemon.publish_as(&other, message("abroad")).await.remove(0);
    let ids = daemon.publish_messages(&["a", "b"]).await;
    let mut forged = ids[0].clone().into_bytes();
    forged[12] = if forged[12] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let long = "x".repeat(300);
    for presented in
        [&foreign, &forged, "x", "0", "-1", "latest", &ids[0][1..], &format!("{}A", ids[0]), &long]
    {
        let found = replay(&daemon, &format!("after={presented}")).await;
        assert!(found.events.is_empty());
        let gap = found.gap.unwrap();
        assert_eq!(
            (&gap["reason"], &gap["resumes_at"]),
            (&json!("unknown_cursor"), &json!(ids[1])),
            "{presented}"
        );
        assert_eq!(gap["after"], presented[..presented.len().min(64)]);
    }
    let mut sse = daemon.sse("/api/v1/sse").last_event_id("nonsense").open().await;
    sse.next().await.named("ready");
    sse.next().await.named("gap");
    sse.next().await.named("caught_up");
    daemon.publish_messages(&["live"]).await;
    assert_eq!(sse.next_event().await["content"], "live");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// After an older copy of the data is restored, cursors of later events are beyond its end.
#[tokio::test]
async fn a_cursor_ahead_of_the_end_is_unknown() {
    let mut daemon = Daemon::start().await;
    let old = daemon.publish_messages(&["a", "b", "c"]).await;
    daemon.terminate().await;
    let home = tempfile::tempdir().unwrap();
    let copy = home.path().join("copy");
    copy_dir(daemon.data_dir(), &copy);
    daemon.start_again().await;
    let same_epoch = daemon.publish_messages(&["d", "e"]).await;
    daemon.restart().await;
    let newer_epoch = daemon.publish_messages(&["f"]).await;
    daemon.terminate().await;

    let mut restored = Daemon::with().data_dir(&copy).start().await;
    restored.key.clone_from(&daemon.key);
    assert_eq!(replay(&restored, &format!("after={}", old[0])).await.ids(), old[1..], "an old one is good");
    for ahead in [&same_epoch[1], &newer_epoch[0]] {
        let found = replay(&restored, &format!("after={ahead}")).await;
        assert_eq!(found.gap.unwrap()["reason"], "unknown_cursor");
        assert!(found.events.is_empty());
    }
}

#[tokio::test]
async fn a_cursor_of_an_earlier_epoch_resumes_and_sequences_never_repeat() {
    let mut daemon = Daemon::start().await;
    let mut ids = Vec::new();
    for life in 0..4 {
        ids.extend(publish_numbers(&daemon, life * 10, 10).await);
        daemon.restart().await;
        for at in [0, ids.len() - 5, ids.len() - 1] {
            let found = replay(&daemon, &format!("after={}", ids[at])).await;
            assert_eq!(
                (found.ids(), &found.gap),
                (ids[at + 1..].iter().map(String::as_str).collect(), &None)
            );
            assert!(
                at + 1 < ids.len() || found.ready["replaying"] == 0,
                "nothing is to come: {}",
                found.ready
            );
        }
    }
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 40);
}

#[tokio::test]
async fn chunks_are_merged_only_for_subscribers_that_are_behind() {
    let daemon = Daemon::start().await;
    let mut live = daemon.live_sse("/api/v1/sse/llm").await;
    let with = |mut chunk: Value, field: &str, value: Value| {
        chunk[field] = value;
        chunk
    };
    let events = [
        message("before"),
        chunk("r", "a", 0),
        chunk("r", "b\n", 1),
        chunk("r", "", 2),
        chunk("r", "\"é", 3),
        chunk("s", "x", 0),
        chunk("s", "y", 1),
        chunk("r", "c", 4),
        with(chunk("r", "d", 5), "agent_id", json!("other")),
        with(chunk("r", "e", 6), "user_id", json!("u")),
        with(chunk("r", "f", 7), "metadata", json!({"k": 1})),
        with(chunk("r", "g", 8), "metadata", json!({"k": 1})),
        with(with(chunk("r", "h", 9), "metadata", json!({"k": 1})), "is_final", json!(true)),
        with(chunk("r", "i", 10), "metadata", json!({"k": 1})),
        message("after"),
    ];
    let ids = daemon.publish(events.to_vec().into()).await;
    assert_eq!(live.events(13).await.len(), 13, "each chunk by itself");

    // (chunk, first_index, index, is_final, which id)
    let merged = |found: &Replay| {
        let chunks = found.events.iter().filter(|event| event["type"] == "stream_chunk");
        let at = |event: &Value| ids.iter().position(|id| event["id"] == id.as_str()).unwrap();
        chunks
            .map(|event| {
                let number = |name: &str| event.get(name).map(|value| value.as_u64().unwrap());
                let text = event["chunk"].as_str().unwrap().to_owned();
                (
                    text,
                    number("first_index"),
                    number("index"),
                    event["is_final"].as_bool().unwrap(),
                    at(event),
                )
            })
            .collect::<Vec<_>>()
    };
    let t = |text: &str, first, index, is_final, at| (text.to_owned(), first, Some(index), is_final, at);
    let tail = [
        t("xy", Some(0), 1, false, 6),
        t("c", None, 4, false, 7),
        t("d", None, 5, false, 8),
        t("e", None, 6, false, 9),
        t("fgh", Some(7), 9, true, 12),
        t("i", None, 10, false, 13),
    ];
    for query in ["earliest=true", &format!("after={}", ids[0])] {
        for found in [replay_ws(&daemon, query).await, replay_sse(&daemon, query).await] {
            let all = [&[t("ab\n\"é", Some(0), 3, false, 4)][..], &tail].concat();
            assert_eq!(merged(&found), all, "{query}");
            found.check();
        }
    }
    // A merged chunk begins after the given cursor.
    let found = replay_ws(&daemon, &format!("after={}", ids[2])).await;
    assert_eq!(merged(&found), [&[t("\"é", Some(2), 3, false, 4)][..], &tail].concat());
    // Neighbours are determined after filtering: a filter brings chunks of one stream together.
    let found = replay_sse(&daemon, "earliest=true&request_id=r&types=stream_chunk").await;
    assert_eq!(merged(&found)[0], t("ab\n\"éc", Some(0), 4, false, 7));
    // A client that resumes from the id of a merged chunk gets the next text and no text twice.
    let found = replay_ws(&daemon, &format!("after={}&request_id=s", ids[6])).await;
    assert!(found.events.is_empty());
}

#[tokio::test]
async fn a_merged_chunk_has_at_most_64_kib() {
    let daemon = Daemon::start().await;
    let text = "x".repeat(20 * 1024);
    daemon.publish((0..10).map(|n| chunk("r", &text, n)).collect()).await;
    let found = replay_ws(&daemon, "earliest=true").await;
    let lengths: Vec<usize> =
        found.events.iter().map(|event| event["chunk"].as_str().unwrap().len()).collect();
    assert!(lengths.iter().all(|len| *len <= 64 * 1024) && lengths.len() < 10, "{lengths:?}");
    assert_eq!(lengths.iter().sum::<usize>(), 200 * 1024);
}

/// A generator of pseudo-random numbers that are the same in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A client that connects and disconnects at random, over any transport, sees each event once and in order.
#[tokio::test]
async fn random_disconnects_lose_nothing_and_repeat_nothing() {
    let daemon = small_ring().start().await;
    let begin = daemon.get("/api/v1/events").send().await.json()["next_cursor"].as_str().unwrap().to_owned();
    let publishing = {
        let call = daemon.post("/api/v1/events?ack=memory");
        tokio::spawn(async move {
            let (mut ids, mut random) = (Vec::new(), Lcg(7));
            while ids.len() < 6_000 {
                let count = 1 + random.below(40) as usize;
                let batch =
                    (0..count).map(|n| custom(&format!("n/{}", (ids.len() + n) % 3), json!(ids.len() + n)));
                ids.extend(call.clone().json(&batch.collect()).send().await.ids());
            }
            ids
        })
    };
    let wander = async |seed: u64, filter: &str, last: u64| {
        let last = |event: &Value| event["data"].as_u64().unwrap() >= last;
        let (mut random, mut cursor, mut seen) = (Lcg(seed), begin.clone(), Vec::<Value>::new());
        while !seen.last().is_some_and(&last) {
            let many = 1 + random.below(300) as usize;
            let query = format!("after={cursor}{filter}");
            let before = seen.len();
            match random.below(4) {
                0 => {
                    let page = daemon
                        .get(&format!("/api/v1/events?{query}&limit={many}&wait=5"))
                        .send()
                        .await
                        .json();
                    assert_eq!(page["gap"], Value::Null);
                    seen.extend(page["data"].as_array().unwrap().iter().cloned());
                    cursor = page["next_cursor"].as_str().unwrap().to_owned();
                    continue;
                }
                1 => {
                    let mut sse = daemon.sse(&format!("/api/v1/sse?{query}")).open().await;
                    while seen.len() < before + many && !seen.last().is_some_and(&last) {
                        let block = sse.next().await;
                        match block.name.as_deref() {
                            None => seen.push(block.event()),
                            Some("ready" | "caught_up") => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
                _ => {
                    let mut ws = daemon.ws(&format!("/api/v1/ws?{query}")).open().await;
                    while seen.len() < before + many && !seen.last().is_some_and(&last) {
                        let frame = ws.next_json().await;
                        match frame["type"].as_str().unwrap() {
                            "custom" => seen.push(frame),
                            "ready" | "caught_up" => {}
                            other => panic!("{other}"),
                        }
                    }
                }
            }
            if let Some(event) = seen.last().filter(|_| seen.len() > before) {
                cursor = event["id"].as_str().unwrap().to_owned();
            }
        }
        seen
    };
    let (all, some) = tokio::join!(wander(1, "", 5_999), wander(2, "&channel=n/2", 5_998));
    let ids = publishing.await.unwrap();
    let expected: Vec<&str> = ids.iter().take(all.len()).map(String::as_str).collect();
    assert_eq!(all.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert!(all.len() >= 6_000);
    let seen = some.iter().map(|event| event["id"].as_str().unwrap());
    assert!(seen.eq(ids.iter().skip(2).step_by(3).take(some.len()).map(String::as_str)), "each third once");
}

#[tokio::test]
async fn slow_readers_get_every_event_once() {
    let daemon = small_ring().start().await;
    let mut slow_ws =
        daemon.ws("/api/v1/ws").ask_on(daemon.small_buffer_connection().await).await.ok().unwrap();
    let mut slow_sse = daemon.sse("/api/v1/sse").ask_on(daemon.small_buffer_connection().await).await;
    let mut slow_few = daemon
        .ws("/api/v1/ws?channel=n/1")
        .ask_on(daemon.small_buffer_connection().await)
        .await
        .ok()
        .unwrap();
    slow_ws.expect("ready").await;
    slow_sse.next().await.named("ready");
    slow_few.expect("ready").await;
    let mut live = daemon.live_ws("/api/v1/ws").await;

    let text = "x".repeat(1_000);
    let mut ids = Vec::new();
    for round in 0..20 {
        let batch = (0..250).map(|n| custom(&format!("n/{}", (round * 250 + n) % 3), json!(text)));
        let new = daemon.publish(batch.collect()).await;
        for id in &new {
            assert_eq!(live.expect("custom").await["id"], id.as_str(), "nobody waits for the slow ones");
        }
        ids.extend(new);
    }
    assert!(daemon.metric("nervewire_behind").await >= 3.0, "the others are behind");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(slow_ws.expect("custom").await["id"], id.as_str());
        assert_eq!(slow_sse.next_event().await["id"], id.as_str());
        if n % 3 == 1 {
            assert_eq!(slow_few.expect("custom").await["id"], id.as_str());
        }
    }
    // There is no gap and no second caught_up, and the subscription is live again.
    let id = daemon.publish(custom("n/1", json!("end"))).await.remove(0);
    assert_eq!(slow_ws.next_json().await["id"], id.as_str());
    assert_eq!(slow_sse.next_event().await["id"], id.as_str());
    assert_eq!(slow_few.next_json().await["id"], id.as_str());
    until("all to be live", async || (daemon.metric("nervewire_behind").await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn a_reader_overtaken_by_retention_gets_a_gap_and_continues() {
    let daemon = small_ring().env("RETENTION__MAX_EVENTS", 100).start().await;
    let mut slow = daemon.ws("/api/v1/ws").ask_on(daemon.small_buffer_connection().await).await.ok().unwrap();
    slow.expect("ready").await;
    let text = "x".repeat(1_000);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(daemon.publish((0..1_000).map(|_| custom("c", json!(text))).collect()).await);
    }
    until("the trim", async || {
        (daemon.metric("nervewire_trimmed_events_total").await > 5_000.0).then_some(())
    })
    .await;
    let last = daemon.publish(custom("c", json!("end"))).await.remove(0);
    ids.push(last.clone());
    let (mut next, mut gaps) = (0, 0);
    while next < ids.len() {
        let frame = slow.next_json().await;
        if frame["type"] == "gap" {
            gaps += 1;
            assert_eq!(frame["reason"], "lagged");
            assert_eq!(frame["after"], ids[next - 1].as_str(), "after what it got last");
            let resumes = ids.iter().position(|id| frame["resumes_at"] == id.as_str()).unwrap();
            assert!(resumes >= next);
            next = resumes + 1;
            continue;
        }
        assert_eq!(frame["id"], ids[next].as_str());
        next += 1;
    }
    assert!(gaps >= 1);
    assert!(daemon.metric("nervewire_gap_skipped_total").await >= 1.0);
}

#[tokio::test]
async fn a_long_poll_pages_waits_and_advances_past_filtered_events() {
    let daemon = Daemon::start().await;
    let ids = publish_numbers(&daemon, 0, 250).await;
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["caught_up"]),
        (100, &json!(false)),
        "100 unless asked"
    );
    assert_eq!(page["next_cursor"], ids[99].as_str());
    assert_eq!((&page["gap"], &page["success"]), (&Value::Null, &json!(true)));
    for limit in [1, 7, 249, 250, 1_000] {
        let found = replay_pages(&daemon, "earliest=true", limit).await;
        assert_eq!(found.ids(), ids, "{limit}");
    }
    let found = replay_pages(&daemon, "earliest=true&channel=n/1", 10).await;
    assert!(
        found.events.iter().map(|event| event["data"].as_u64().unwrap()).eq((0..250).filter(|n| n % 3 == 1))
    );
    // Nothing matches: the page is empty, but its cursor moves on.
    let page = daemon.get("/api/v1/events?earliest=true&channel=none").send().await.json();
    assert_eq!((&page["data"], &page["next_cursor"]), (&json!([]), &json!(ids[249])));
    for bad in ["limit=0", "limit=1001", "limit=x", "wait=61", "wait=-1"] {
        daemon.get(&format!("/api/v1/events?{bad}")).send().await.refused(400, "BAD_REQUEST");
    }

    // A wait ends with the first matching event, not with one that is filtered out.
    let poll = daemon.get(&format!("/api/v1/events?after={}&channel=mine&wait=30", ids[249]));
    let waiting = tokio::spawn(poll.send());
    until("the poll to wait", async || {
        let stats = daemon.get("/api/v1/stats").send().await.json();
        (stats["data"]["connections"] == 1).then_some(())
    })
    .await;
    daemon.publish(custom("others", json!(1))).await;
    let mine = daemon.publish(custom("mine", json!(2))).await;
    let page = waiting.await.unwrap().json();
    assert_eq!((&page["data"][0]["id"], &page["next_cursor"]), (&json!(mine[0]), &json!(mine[0])));
    // A wait that times out is empty. Its cursor is after the events that arrived meanwhile.
    let waiting = tokio::spawn(daemon.get("/api/v1/events?channel=mine&wait=1").send());
    let page = waiting.await.unwrap().json();
    assert_eq!(
        (&page["data"], &page["caught_up"], &page["next_cursor"]),
        (&json!([]), &json!(true), &json!(mine[0]))
    );
    let stats = daemon.get("/api/v1/stats").send().await.json();
    assert_eq!(stats["data"]["connections"], 0, "its place is free again");
}

/// Merged or not, the text of each stream, its indexes and its end are as published.
#[tokio::test]
async fn a_slow_reader_of_streams_gets_all_text_once() {
    let daemon = small_ring().start().await;
    let mut slow = daemon.sse("/api/v1/sse/llm").ask_on(daemon.small_buffer_connection().await).await;
    slow.next().await.named("ready");
    let mut random = Lcg(3);
    let mut texts = vec![String::new(); 3];
    let mut next = [0; 3];
    for _ in 0..40 {
        let batch = (0..200).map(|_| {
            // Mostly the third, so that its chunks have neighbours.
            let stream = random.below(9).min(2) as usize;
            let text = format!("<{}é\n{}>", next[stream], "x".repeat(random.below(300) as usize));
            texts[stream].push_str(&text);
            next[stream] += 1;
            chunk(&format!("r{stream}"), &text, next[stream] - 1)
        });
        let batch = batch.collect();
        daemon.publish(batch).await;
    }
    daemon.publish((0..3).map(|n| json!({"type": "stream_chunk", "request_id": format!("r{n}"), "chunk": "", "is_final": true, "index": next[n]})).collect()).await;
    let mut got = vec![String::new(); 3];
    let (mut expected, mut ended, mut frames) = ([0; 3], 0, 0);
    while ended < 3 {
        let event = slow.next_event().await;
        frames += 1;
        let stream = event["request_id"].as_str().unwrap()[1..].parse::<usize>().unwrap();
        let index = event["index"].as_u64().unwrap();
        let first = event.get("first_index").map_or(index, |first| first.as_u64().unwrap());
        assert_eq!(first, expected[stream], "no index missing, none twice: {event:.200}");
        expected[stream] = index + 1;
        got[stream].push_str(event["chunk"].as_str().unwrap());
        ended += usize::from(event["is_final"] == true);
    }
    assert_eq!(got, texts);
    assert!(frames < 8_000, "some were merged: {frames}");
}

#[tokio::test]
async fn events_older_than_the_retention_are_removed() {
    let daemon = Daemon::with().env("RETENTION__MAX_AGE_SECONDS", 1).start().await;
    let old = daemon.publish(custom("n/0", json!("old"))).await.remove(0);
    let found = until("the old event to go", async || {
        daemon.publish(custom("nudge", json!(0))).await;
        let found = replay_ws(&daemon, "since=2020-01-01T00:00:00Z").await;
        (!found.ids().contains(&old.as_str())).then_some(found)
    })
    .await;
    assert_eq!(found.gap.unwrap()["reason"], "trimmed");
    let before = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(before["gap"], Value::Null);
}

/// Publishes small batches until it is stopped. Returns all ids in order.
fn flood(
    daemon: &Daemon,
    stop: &std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> tokio::task::JoinHandle<Vec<String>> {
    let (call, stop) = (daemon.post("/api/v1/events?ack=memory"), stop.clone());
    tokio::spawn(async move {
        let mut ids = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let batch = (0..10).map(|n| custom(&format!("n/{}", n % 3), json!(ids.len() + n))).collect();
            ids.extend(call.clone().json(&batch).send().await.ids());
        }
        ids
    })
}

/// A client that joins during a flood gets the next event after the position in its `ready`.
#[tokio::test]
async fn between_ready_and_the_first_live_event_nothing_is_lost() {
    let daemon = Daemon::start().await;
    let stop = std::sync::Arc::default();
    let flooding = flood(&daemon, &stop);
    let mut joined = Vec::new();
    for n in 0..40 {
        let (ready, first) = match n % 2 {
            0 => {
                let mut ws = daemon.ws("/api/v1/ws").open().await;
                (ws.expect("ready").await, ws.expect("custom").await)
            }
            _ => {
                let mut sse = daemon.sse("/api/v1/sse").open().await;
                (sse.next().await.named("ready"), sse.next_event().await)
            }
        };
        joined.push((ready["cursor"].as_str().unwrap().to_owned(), first["id"].as_str().unwrap().to_owned()));
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let ids = flooding.await.unwrap();
    for (cursor, first) in joined {
        let at = ids.iter().position(|id| *id == first).unwrap();
        assert!(at == 0 || ids[at - 1] == cursor, "announced {cursor}, then {first}, which is number {at}");
    }
}

/// The sequence inside a cursor (protocol §1).
fn sequence(cursor: &Value) -> u64 {
    let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(cursor.as_str().unwrap()).unwrap();
    u64::from_be_bytes(raw[4..12].try_into().unwrap())
}

/// A cursor is a promise: everything up to it was delivered, and nothing after it.
#[tokio::test]
async fn no_heartbeat_carries_a_cursor_past_an_undelivered_event() {
    let daemon = small_ring().env("HEARTBEAT_SECONDS", 1).start().await;
    let stop = std::sync::Arc::default();
    let flooding = flood(&daemon, &stop);
    let watch = async |path: &str, narrow: bool| {
        let ask = daemon.ws(path);
        let mut ws = match narrow {
            true => ask.ask_on(daemon.small_buffer_connection().await).await.ok().unwrap(),
            false => ask.open().await,
        };
        let (mut last, mut announced, mut pings) = (0, 0, 0);
        while pings < 3 {
            let frame = ws.next_frame().await;
            match frame["type"].as_str().unwrap() {
                "ping" => {
                    announced = sequence(&frame["cursor"]);
                    assert!(last <= announced, "{path}: behind what was delivered");
                    pings += 1;
                }
                "custom" => {
                    last = sequence(&frame["id"]);
                    assert!(last > announced, "{path}: past an undelivered event");
                }
                "ready" | "caught_up" => announced = announced.max(sequence(&frame["cursor"])),
                other => panic!("{other}"),
            }
        }
    };
    tokio::join!(
        watch("/api/v1/ws", false),
        watch("/api/v1/ws?channel=n/1", false),
        watch("/api/v1/ws?channel=none", false),
        watch("/api/v1/ws?earliest=true", false),
        watch("/api/v1/ws?channel=n/2", true),
        watch("/api/v1/ws", true),
    );
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    flooding.await.unwrap();
}
