//! A reader of the log gets the events that it may see and asked for, and no others, also from cached pages
//! that other readers get unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::{Daemon, chunk, custom};
use serde_json::{Value, json};

/// Events of each mix of users in the log: more than a page of them.
const EVENTS: usize = 200;

/// The part of an event that identifies it here.
fn name(event: &Value) -> String {
    let text = ["content", "chunk", "data"].iter().find_map(|field| event[*field].as_str());
    text.unwrap().chars().take_while(|char| *char != ' ').collect()
}

/// The names of the events that `who` reads from the log with `query`, over each transport.
async fn readings(daemon: &Daemon, who: &str, query: &str) -> [(&'static str, Vec<String>); 4] {
    let mut pages = Vec::new();
    let mut at = "earliest=true".to_owned();
    loop {
        let path = format!("/api/v1/events?limit=1000&{at}{query}");
        let page = daemon.get(&path).key(who).send().await.json();
        pages.extend(page["data"].as_array().unwrap().iter().map(name));
        if page["caught_up"] == true {
            break;
        }
        at = format!("after={}", page["next_cursor"].as_str().unwrap());
    }
    let mut few = Vec::new();
    let page =
        daemon.get(&format!("/api/v1/events?earliest=true&limit=7{query}")).key(who).send().await.json();
    few.extend(page["data"].as_array().unwrap().iter().map(name));
    assert_eq!(few, pages[..few.len()], "a page that ends in the middle begins as all do");
    assert_eq!(few.len(), pages.len().min(7));

    let mut ws = daemon.ws(&format!("/api/v1/ws?earliest=true{query}")).key(who).open().await;
    ws.expect("ready").await;
    let mut messages = Vec::new();
    loop {
        let frame = ws.next_json().await;
        if frame["type"] == "caught_up" {
            break;
        }
        messages.push(name(&frame));
    }
    let mut sse = daemon.sse(&format!("/api/v1/sse?earliest=true{query}")).key(who).open().await;
    sse.next().await.named("ready");
    let mut streamed = Vec::new();
    loop {
        let block = sse.next().await;
        if block.name.as_deref() == Some("caught_up") {
            break;
        }
        streamed.push(name(&block.event()));
    }
    [("pages", pages), ("ws", messages), ("sse", streamed), ("few", few)]
}

async fn check(daemon: &Daemon, who: &str, query: &str, expected: &[String]) {
    for (over, seen) in readings(daemon, who, query).await.into_iter().take(3) {
        assert_eq!(seen, expected, "{over} {query}");
    }
}

#[tokio::test]
async fn readers_of_a_shared_page_see_only_their_events() {
    let mut daemon = Daemon::start().await;
    let key = daemon.create_org("acme").await;
    let token =
        async |sub: &str, scopes: Value| daemon.mint_token(&key, sub, json!({"scopes": scopes})).await;
    let ann = token("ann", json!(["subscribe"])).await;
    let all = token("cat", json!(["subscribe", "read:all"])).await;
    let made = async |body: Value| {
        let made = daemon.post("/api/v1/api-keys").key(&key).json(&body).send().await;
        made.json()["data"]["api_key"].as_str().unwrap().to_owned()
    };
    let plain = made(json!({"scopes": ["subscribe"]})).await;
    let narrowed = made(json!({"scopes": ["subscribe", "read:all"], "agents": ["a"]})).await;

    // Pages that everybody may see, then pages with one event of bob's among shared ones, then pages of ann's
    // and bob's events.
    let text = "x".repeat(1_000);
    let public = |n: usize| custom("c", json!(format!("public-{n} {text}")));
    let of = |user: &str, n: usize| json!({"type": "message", "agent_id": (if n.is_multiple_of(2) { "a" } else { "b" }), "user_id": user, "content": format!("{user}-{n} {text}")});
    let batches: [Vec<Value>; 3] = [
        (0..EVENTS).map(public).collect(),
        (0..EVENTS).map(|n| if n % 90 == 45 { of("bob", n) } else { public(EVENTS + n) }).collect(),
        (0..EVENTS).map(|n| of(["ann", "bob"][n / 2 % 2], 1_000 + n)).collect(),
    ];
    for batch in &batches {
        daemon.publish_as(&key, batch.clone().into()).await;
    }
    let events = batches.concat();
    // After the restart the ring is empty, so everything is read from the log.
    daemon.restart().await;

    let names = |sees: &dyn Fn(&Value) -> bool| {
        events.iter().filter(|event| sees(event)).map(name).collect::<Vec<_>>()
    };
    let anns = names(&|event| event["user_id"] != "bob");
    let everything = names(&|_| true);
    // Alternately, so that each reader meets cached pages that were created for another.
    for _ in 0..2 {
        check(&daemon, &all, "", &everything).await;
        check(&daemon, &ann, "", &anns).await;
        check(&daemon, &plain, "", &names(&|event| event["user_id"].is_null())).await;
        check(&daemon, &narrowed, "", &names(&|event| event["agent_id"] == "a")).await;
        check(&daemon, &all, "&types=message", &names(&|event| event["type"] == "message")).await;
        check(&daemon, &ann, "&channel=c", &names(&|event| event["channel"] == "c")).await;
        check(&daemon, &all, "&user_id=bob", &names(&|event| event["user_id"] == "bob")).await;
    }

    // The current rights count, not those at the time when a page was read.
    let body = json!({"visibility": "org"});
    let changed = daemon.call("PATCH", "/api/v1/organizations/acme").key(&key).json(&body).send().await;
    assert_eq!(changed.status, 200, "{changed:?}");
    check(&daemon, &ann, "", &everything).await;
    let body = json!({"visibility": "private"});
    daemon.call("PATCH", "/api/v1/organizations/acme").key(&key).json(&body).send().await;
    check(&daemon, &ann, "", &anns).await;
}

/// Streams get merged chunks and pages of history get single ones, whether or not a neighbour of the chunk
/// belongs to the same stream.
#[tokio::test]
async fn adjacent_chunks_of_the_log_are_merged() {
    let mut daemon = Daemon::start().await;
    let text = "x".repeat(1_000);
    let mut events: Vec<Value> =
        (0..EVENTS).map(|n| custom("c", json!(format!("plain-{n} {text}")))).collect();
    // Alternating streams: an unfiltered reader can merge nothing, a reader of one stream can merge
    // everything.
    events.extend((0..10).map(|n| chunk(["r", "s"][n % 2], &format!("{n};"), n as u64 / 2)));
    daemon.publish(events.clone().into()).await;
    daemon.publish((5..8).map(|n| chunk("s", &format!("more-{n};"), n)).collect()).await;
    daemon.restart().await;
    let who = daemon.key.clone();
    let plain = events[..EVENTS].iter().map(name);
    let each =
        |more: &[&str]| plain.clone().chain(more.iter().map(|&text| text.to_owned())).collect::<Vec<_>>();
    let [pages, ws, sse, _] = readings(&daemon, &who, "").await;
    let unmerged = ["0;", "1;", "2;", "3;", "4;", "5;", "6;", "7;", "8;"];
    assert_eq!(pages.1, each(&[&unmerged[..], &["9;", "more-5;", "more-6;", "more-7;"]].concat()));
    for (over, seen) in [ws, sse] {
        assert_eq!(seen, each(&[&unmerged[..], &["9;more-5;more-6;more-7;"]].concat()), "{over}");
    }
    let [pages, ws, sse, _] = readings(&daemon, &who, "&request_id=r").await;
    assert_eq!(pages.1, ["0;", "2;", "4;", "6;", "8;"]);
    for (over, seen) in [ws, sse] {
        assert_eq!(seen, ["0;2;4;6;8;"], "{over}");
    }
}
