//! The life of LLM streams over single HTTP requests: who may open, write, take over, end, cancel, see and
//! clear them. Bodies that stay open are in `streams_ndjson.rs`, ends without a request in `streams_end.rs`,
//! readers in `streams_read.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::rest::{all, data};
use common::streams::{Producer, cancel, get, open, path, sequence};
use common::{Daemon, chunk, is_timestamp};
use serde_json::{Value, json};

const KIB: usize = 1024;

/// A token of a user with further fields of `POST /tokens`.
async fn token(daemon: &Daemon, sub: &str, more: Value) -> String {
    daemon.mint_token(&daemon.key, sub, more).await
}

/// An API key of the organization `default`.
async fn key(daemon: &Daemon, scopes: &[&str]) -> String {
    daemon.create_key(json!({"name": "test", "scopes": scopes})).await
}

#[tokio::test]
async fn an_opened_stream_shows_what_it_was_given_and_no_token() {
    let daemon = Daemon::start().await;
    let body = json!({
        "request_id": "r/1", "agent_id": "a", "user_id": "u", "metadata": {"k": [1]}, "lease_seconds": 600,
    });
    let opened = data(&open(&daemon, &daemon.key, body).await, 201);
    let token = opened["producer_token"].as_str().unwrap();
    assert!(token.starts_with("nws_1_") && token.len() == 6 + 43, "{token}");
    let expected = json!({
        "request_id": "r/1", "producer_token": token, "generation": 1, "next_index": 0, "lease_seconds": 600,
    });
    assert_eq!(opened, expected);

    let mut shown = data(&get(&daemon, &daemon.key, "r/1").await, 200);
    assert!(is_timestamp(shown["opened_at"].as_str().unwrap()), "{shown}");
    shown["opened_at"] = Value::Null;
    let expected = json!({
        "request_id": "r/1", "agent_id": "a", "user_id": "u", "metadata": {"k": [1]}, "state": "open",
        "generation": 1, "next_index": 0, "text_bytes": 0, "lease_seconds": 600, "opened_at": null,
        "ended_at": null, "finish_reason": null, "usage": null, "error": null, "text": "", "offset": 0,
        "parts": null,
    });
    assert_eq!(shown, expected);

    let made = data(&open(&daemon, &daemon.key, json!({})).await, 201);
    assert!(made["request_id"].as_str().unwrap().starts_with("stream-"), "{made}");
    assert_eq!(made["lease_seconds"], 60);
}

#[tokio::test]
async fn only_publish_org_opens_streams_for_others_and_for_all() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let viewer = token(&daemon, "v", json!({"roles": ["viewer"]})).await;
    let sender = key(&daemon, &["publish", "subscribe"]).await;
    let organization = key(&daemon, &["publish:org"]).await;

    let cases = [
        (&user, json!({"request_id": "1"}), Ok(json!("u"))),
        (&user, json!({"request_id": "2", "user_id": "u"}), Ok(json!("u"))),
        (&user, json!({"request_id": "3", "user_id": "other"}), Err(403)),
        // An agent's status is an event without a user.
        (&user, json!({"request_id": "4", "agent_id": "a", "agent_status": true}), Err(403)),
        (&viewer, json!({"request_id": "5"}), Err(403)),
        // It has no sub in whose name it could publish.
        (&sender, json!({"request_id": "6"}), Err(403)),
        (&organization, json!({"request_id": "7"}), Ok(Value::Null)),
        (&organization, json!({"request_id": "8", "user_id": "other"}), Ok(json!("other"))),
    ];
    for (key, body, expected) in cases {
        let reply = open(&daemon, key, body.clone()).await;
        match expected {
            Ok(user) => {
                data(&reply, 201);
                let shown = data(&get(&daemon, &daemon.key, body["request_id"].as_str().unwrap()).await, 200);
                assert_eq!(shown["user_id"], user, "{body}");
            }
            Err(status) => drop(reply.refused(status, "FORBIDDEN")),
        }
    }
    let anonymous = daemon.post("/api/v1/streams").anonymous().json(&json!({})).send().await;
    anonymous.refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn narrowing_binds_opening_taking_over_cancelling_and_reading() {
    let daemon = Daemon::start().await;
    let wide = daemon.user_token("u").await;
    let narrow = token(&daemon, "u", json!({"agents": ["a"]})).await;
    let messages = token(&daemon, "u", json!({"types": ["message"]})).await;

    let of_agent = |id: &str, agent: &str| json!({"request_id": id, "agent_id": agent});
    data(&open(&daemon, &narrow, of_agent("1", "a")).await, 201);
    open(&daemon, &narrow, of_agent("2", "b")).await.refused(403, "FORBIDDEN");
    open(&daemon, &narrow, json!({"request_id": "3"})).await.refused(403, "FORBIDDEN");
    open(&daemon, &messages, of_agent("4", "a")).await.refused(403, "FORBIDDEN");

    let b = Producer::open_as(&daemon, &wide, of_agent("5", "b")).await;
    get(&daemon, &narrow, "5").await.refused(404, "NOT_FOUND");
    get(&daemon, &messages, "5").await.refused(404, "NOT_FOUND");
    // The same principal, but a credential that may not publish for this agent.
    for narrowed in [&narrow, &messages] {
        let body = json!({"request_id": "5", "takeover": true});
        open(&daemon, narrowed, body).await.refused(409, "CONFLICT");
        cancel(&daemon, narrowed, "5").await.refused(404, "NOT_FOUND");
        let listed = daemon.get("/api/v1/streams?agent_id=b").key(narrowed).send().await;
        assert!(listed.status != 200 || data(&listed, 200) == json!([]), "{listed:?}");
        // The producer's token adds nothing to a credential that may not publish for this agent.
        let with_token = Producer { key: narrowed.clone(), ..b.clone() };
        let reply = with_token.append(&daemon, &json!({"chunk": "x"})).await;
        reply.refused(403, "FORBIDDEN");
        with_token.call(&daemon, "finish").json(&json!({})).send().await.refused(403, "FORBIDDEN");
    }
    b.say(&daemon, &["still", " mine"]).await;
    assert_eq!(b.get(&daemon).await["text"], "still mine");
}

#[tokio::test]
async fn an_invalid_opening_names_the_field() {
    let daemon = Daemon::start().await;
    let cases = [
        (json!({"lease_seconds": 4}), "lease_seconds"),
        (json!({"lease_seconds": 601}), "lease_seconds"),
        (json!({"request_id": ""}), "request_id"),
        (json!({"request_id": "x".repeat(10_000)}), "request_id"),
        (json!({"request_id": "a\nb"}), "request_id"),
        (json!({"user_id": ""}), "user_id"),
        (json!({"metadata": [1]}), "metadata"),
        (json!({"metadata": {"k": "x".repeat(8 * KIB)}}), "metadata"),
        (json!({"agent_status": true}), "agent_id"),
        (json!({"generation": 7}), "generation"),
    ];
    for (body, field) in cases {
        let refused = open(&daemon, &daemon.key, body.clone()).await.refused(400, "VALIDATION_ERROR");
        assert_eq!(refused["details"]["field"], field, "{body} {refused}");
    }
    assert_eq!(data(&daemon.get("/api/v1/streams").send().await, 200), json!([]));
}

#[tokio::test]
async fn an_id_is_opened_once_in_an_organization_while_its_state_is_kept() {
    let daemon = Daemon::start().await;
    let first = Producer::open(&daemon, "r").await;
    let again = || open(&daemon, &daemon.key, json!({"request_id": "r"}));
    assert_eq!(again().await.refused(409, "CONFLICT")["details"], Value::Null);
    // Ids are the organization's: one that the caller may not see is in use all the same.
    let hidden = json!({"request_id": "hidden", "user_id": "u"});
    Producer::open_as(&daemon, &daemon.key, hidden).await;
    let other = daemon.user_token("other").await;
    get(&daemon, &other, "hidden").await.refused(404, "NOT_FOUND");
    let seen = open(&daemon, &other, json!({"request_id": "hidden"})).await.refused(409, "CONFLICT");
    assert_eq!(seen["details"], Value::Null);

    first.say(&daemon, &["text"]).await;
    first.finish(&daemon).await;
    again().await.refused(409, "CONFLICT");
    let take_over = json!({"request_id": "r", "takeover": true});
    open(&daemon, &daemon.key, take_over).await.refused(409, "CONFLICT");

    // Another organization has its own ids, and sees nothing of these.
    let foreign = daemon.create_org("foreign").await;
    get(&daemon, &foreign, "r").await.refused(404, "NOT_FOUND");
    let own = Producer::open_as(&daemon, &foreign, json!({"request_id": "r"})).await;
    assert_eq!(own.get(&daemon).await["text"], "");
    assert_eq!(first.get(&daemon).await["text"], "text");
    let stranger = Producer { key: foreign.clone(), ..first.clone() };
    stranger.append(&daemon, &json!({"chunk": "x"})).await.refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_opener_and_manage_take_over_and_nobody_else() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let same_user = daemon.user_token("u").await;
    let other = daemon.user_token("other").await;
    let organization = key(&daemon, &["publish:org", "publish", "subscribe"]).await;
    let manager = key(&daemon, &["manage", "publish"]).await;
    let take_over = json!({"request_id": "r", "takeover": true});

    let first = Producer::open_as(&daemon, &user, json!({"request_id": "r", "lease_seconds": 100})).await;
    first.say(&daemon, &["a", "b"]).await;
    for key in [&other, &organization] {
        let refused = open(&daemon, key, take_over.clone()).await.refused(409, "CONFLICT");
        assert_eq!(refused["details"], Value::Null);
    }
    let second = data(&open(&daemon, &same_user, take_over.clone()).await, 200);
    let known = (&second["generation"], &second["next_index"], &second["lease_seconds"]);
    assert_eq!(known, (&json!(2), &json!(2), &json!(100)));
    let third = Producer::take_over(&daemon, &manager, "r").await;
    assert!(third.token.starts_with("nws_3_"), "{}", third.token);
    third.say(&daemon, &["c"]).await;
    let shown = data(&get(&daemon, &user, "r").await, 200);
    assert_eq!((&shown["text"], &shown["generation"]), (&json!("abc"), &json!(3)));

    // One that does not exist is opened.
    let new = json!({"request_id": "new", "takeover": true});
    assert_eq!(data(&open(&daemon, &user, new).await, 201)["generation"], 1);
}

/// Reports assistant-ui#7220 and #7435: a producer that was replaced must be refused, also when it says that it
/// has finished.
#[tokio::test]
async fn a_producer_that_was_replaced_is_fenced_in_every_word() {
    let daemon = Daemon::start().await;
    let old = Producer::open(&daemon, "r").await;
    old.say(&daemon, &["a"]).await;
    let new = Producer::take_over(&daemon, &daemon.key, "r").await;
    assert_eq!(new.next_index, 1);

    let failure = json!({"code": "X", "message": "m"});
    let words = [
        ("chunks", json!({"chunk": "b"})),
        // A retry of what it did append is not confirmed either.
        ("chunks", json!({"chunk": "a", "index": 0})),
        ("chunks", json!({"chunk": "", "is_final": true})),
        ("finish", json!({})),
        ("fail", failure),
        ("renew", json!({})),
    ];
    for (verb, body) in &words {
        let refused = old.call(&daemon, verb).json(body).send().await.refused(409, "STREAM_FENCED");
        assert_eq!(refused["details"], Value::Null);
    }
    old.lines(&daemon).await.answer().await.refused(409, "STREAM_FENCED");
    assert_eq!(new.get(&daemon).await["state"], "open");
    new.say(&daemon, &["b"]).await;
    new.finish(&daemon).await;
    for (verb, body) in &words {
        old.call(&daemon, verb).json(body).send().await.refused(409, "STREAM_FENCED");
    }
    let shown = new.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("ab"), &json!("completed")));
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_refused_before_and_after_the_end() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let other = Producer::open(&daemon, "other").await;
    let flipped = match producer.token.strip_suffix('A') {
        Some(rest) => format!("{rest}E"),
        None => format!("{}A", &producer.token[..producer.token.len() - 1]),
    };
    let newer = producer.token.replacen("nws_1_", "nws_2_", 1);
    let wrong = [String::new(), "x".into(), other.token.clone(), flipped, newer, "x".repeat(5_000)];
    for end in [false, true] {
        for token in &wrong {
            let liar = Producer { token: token.clone(), ..producer.clone() };
            for (verb, body) in
                [("chunks", json!({"chunk": "x"})), ("finish", json!({})), ("renew", json!({}))]
            {
                liar.call(&daemon, verb).json(&body).send().await.refused(401, "UNAUTHORIZED");
            }
            liar.lines(&daemon).await.answer().await.refused(401, "UNAUTHORIZED");
        }
        let bare = daemon.post("/api/v1/streams/r/chunks").json(&json!({"chunk": "x"})).send().await;
        bare.refused(401, "UNAUTHORIZED");
        if !end {
            producer.finish(&daemon).await;
        }
    }
    let unknown = Producer { id: "unknown".into(), ..producer.clone() };
    unknown.append(&daemon, &json!({"chunk": "x"})).await.refused(404, "NOT_FOUND");
    assert_eq!(producer.get(&daemon).await["text"], "");
}

#[tokio::test]
async fn a_retry_by_index_is_ignored_and_a_gap_is_refused() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let append = async |body: Value| producer.append(&daemon, &body).await;
    let appended = data(&append(json!({"chunk": "a", "index": 0})).await, 200);
    assert_eq!((&appended["next_index"], &appended["durable"]), (&json!(1), &json!(true)));
    assert_eq!(appended["ids"].as_array().unwrap().len(), 1);

    // The first text of an index is the one that counts.
    let retried = data(&append(json!({"chunk": "other", "index": 0})).await, 200);
    assert_eq!(retried, json!({"next_index": 1, "ids": [], "durable": true}));
    for body in [json!({"chunk": "c", "index": 2}), json!([{"chunk": "c", "index": 2}])] {
        assert_eq!(append(body).await.refused(409, "CONFLICT")["details"], json!({"expected_index": 1}));
    }
    let highest = json!({"chunk": "c", "index": u64::MAX});
    assert_eq!(append(highest.clone()).await.refused(409, "CONFLICT")["details"]["expected_index"], 1);
    let twice = append(json!([highest, {"chunk": "d"}])).await;
    assert!(matches!(twice.status.as_u16(), 400 | 409), "{twice:?}");

    // Of an array that is partly known, the rest is appended.
    let rest = json!([{"chunk": "a", "index": 0}, {"chunk": "b"}, {"chunk": "c", "index": 2}]);
    let appended = data(&append(rest).await, 200);
    assert_eq!((&appended["next_index"], appended["ids"].as_array().unwrap().len()), (&json!(3), 2));
    let end = data(&append(json!({"chunk": "d", "index": 3, "is_final": true})).await, 200);
    assert_eq!(end["next_index"], 4);
    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["next_index"]), (&json!("abcd"), &json!(4)));
}

#[tokio::test]
async fn an_array_is_appended_whole_or_not_at_all() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let cases = [
        (json!([]), ""),
        (json!([{"chunk": "a"}, {"chunk": 1}]), "[1].chunk"),
        (json!([{"chunk": "a"}, {"text": "b"}]), "[1].text"),
        (json!([{"chunk": "a"}, {}]), "[1].chunk"),
        (json!([{"chunk": "a"}, "b"]), "[1]"),
        (json!([{"chunk": "a", "index": 0}, {"chunk": "b", "index": 2}]), "[1].index"),
        (json!([{"chunk": "a"}, {"chunk": "x".repeat(64 * KIB + 1)}]), "[1].chunk"),
        (json!({"chunk": "x".repeat(64 * KIB + 1)}), "chunk"),
        (json!({"chunk": null}), "chunk"),
        (json!("text"), ""),
        ((0..1_001).map(|_| json!({"chunk": "a"})).collect(), ""),
    ];
    for (body, field) in cases {
        let refused = producer.append(&daemon, &body).await.refused(400, "VALIDATION_ERROR");
        assert_eq!(refused["details"]["field"], field, "{refused}");
    }
    // Nothing can follow the last chunk.
    let after_end = json!([{"chunk": "a", "is_final": true}, {"chunk": "b"}]);
    producer.append(&daemon, &after_end).await.refused(400, "VALIDATION_ERROR");
    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["next_index"], &shown["state"]), (&json!(0), &json!("open")));

    let most: Value = (0..1_000).map(|_| json!({"chunk": "ab"})).collect();
    let reply = producer.append(&daemon, &most).await;
    assert_eq!(data(&reply, 200)["next_index"], 1_000);
    let ids = reply.ids();
    assert!(ids.windows(2).all(|pair| sequence(&pair[0]) < sequence(&pair[1])) && ids.len() == 1_000);
    assert_eq!(producer.get(&daemon).await["text"], "ab".repeat(1_000));
}

/// Report eliza#30904: a surrogate pair that is cut between two deltas must not end up as other text.
#[tokio::test]
async fn text_is_unicode_or_refused() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let send = async |body: &[u8]| {
        producer.call(&daemon, "chunks").body("application/json", body.to_vec()).send().await
    };
    let bad: [&[u8]; 6] = [
        br#"{"chunk":"\ud83d"}"#,
        br#"{"chunk":"\ude00"}"#,
        br#"[{"chunk":"\ud83d"},{"chunk":"\ude00"}]"#,
        b"{\"chunk\":\"\xf0\x9f\x98\"}",
        b"{\"chunk\":\"\xed\xa0\xbd\"}",
        b"{\"chunk\":\"\xff\"}",
    ];
    for body in bad {
        send(body).await.refused(400, "VALIDATION_ERROR");
    }
    let good: [&[u8]; 3] =
        [br#"{"chunk":"\ud83d\ude00"}"#, "{\"chunk\":\"😀\"}".as_bytes(), br#"{"chunk":"\u0000"}"#];
    for body in good {
        assert_eq!(send(body).await.status, 200);
    }
    assert_eq!(producer.get(&daemon).await["text"], "😀😀\u{0}");
}

#[tokio::test]
async fn a_stream_that_is_full_is_refused_by_name_and_stays_open() {
    let daemon = Daemon::with().env("STREAMS__BYTES", 100 * KIB).start().await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &[&"x".repeat(64 * KIB)]).await;
    let more = json!([{"chunk": "x"}, {"chunk": "x".repeat(36 * KIB)}]);
    let refused = producer.append(&daemon, &more).await.refused(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(refused["details"], json!({"limit": "streams.bytes", "max": 100 * KIB}));
    let mut lines = producer.lines(&daemon).await;
    lines.chunk(&"y".repeat(30 * KIB)).await;
    lines.chunk(&"z".repeat(10 * KIB)).await;
    let refused = lines.answer().await.refused(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(refused["details"]["limit"], "streams.bytes");

    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["state"], &shown["text_bytes"]), (&json!("open"), &json!(94 * KIB)));
    producer.say(&daemon, &[&"w".repeat(6 * KIB)]).await;
    let ended = producer.finish(&daemon).await;
    assert_eq!((&ended["state"], &ended["text_bytes"]), (&json!("completed"), &json!(100 * KIB)));
}

#[tokio::test]
async fn open_streams_are_limited_by_name_and_an_end_makes_room() {
    let daemon =
        Daemon::with().env("STREAMS__OPEN_PER_ORGANIZATION", 2).env("STREAMS__OPEN", 3).start().await;
    let first = Producer::open(&daemon, "1").await;
    Producer::open(&daemon, "2").await;
    let third = async |key: &str| open(&daemon, key, json!({"request_id": "3"})).await;
    let refused = third(&daemon.key).await;
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let refused = refused.refused(429, "QUOTA_EXCEEDED");
    assert_eq!(refused["details"], json!({"limit": "streams.open_per_organization", "max": 2}));
    assert!(refused["message"].as_str().unwrap().contains("streams.open_per_organization"), "{refused}");
    // An open one can still be taken over.
    let first = Producer::take_over(&daemon, &daemon.key, &first.id).await;

    let other = daemon.create_org("other").await;
    Producer::open_as(&daemon, &other, json!({"request_id": "1"})).await;
    let refused = open(&daemon, &other, json!({"request_id": "2"})).await.refused(429, "QUOTA_EXCEEDED");
    assert_eq!(refused["details"], json!({"limit": "streams.open", "max": 3}));
    first.finish(&daemon).await;
    data(&third(&daemon.key).await, 201);
    assert_eq!(daemon.metric("nervewire_streams_open").await, 3.0);
}

#[tokio::test]
async fn text_counts_as_the_organizations_bytes() {
    let daemon = Daemon::with().env("LIMITS__BYTES_PER_ORGANIZATION", 1 << 20).start().await;
    let loud = daemon.create_org("loud").await;
    let producer = Producer::open_as(&daemon, &loud, json!({"request_id": "r"})).await;
    let text = "x".repeat(60 * KIB);
    let mut appended = 0;
    let refused = loop {
        let reply = producer.append(&daemon, &json!({"chunk": text})).await;
        if reply.status != 200 {
            break reply.refused(429, "QUOTA_EXCEEDED");
        }
        appended += 1;
        assert!(appended < 100, "nothing is ever refused");
    };
    assert_eq!(refused["details"]["limit"], "limits.bytes_per_organization", "{refused}");
    assert!((12..=17).contains(&appended), "{appended} chunks of 60 KiB in 1 MiB");
    // The stream can still end, another organization is not affected, and removed text makes room.
    assert_eq!(producer.finish(&daemon).await["state"], "completed");
    Producer::open(&daemon, "r").await.say(&daemon, &[&text]).await;
    let removed = daemon.call("DELETE", &path("r")).key(&loud).send().await;
    assert_eq!(removed.status, 204, "{removed:?}");
    let next = Producer::open_as(&daemon, &loud, json!({"request_id": "r2"})).await;
    next.say(&daemon, &[text.as_str(); 10]).await;
}

#[tokio::test]
async fn an_end_is_for_ever_and_only_the_same_end_succeeds_again() {
    let daemon = Daemon::start().await;
    let finish = json!({"finish_reason": "stop", "usage": {"tokens": 7}});
    let failure = json!({"code": "UPSTREAM", "message": "it broke"});

    let producer = Producer::open(&daemon, "finished").await;
    producer.say(&daemon, &["text"]).await;
    let word = async |verb: &str, body: &Value| producer.call(&daemon, verb).json(body).send().await;
    let ended = data(&word("finish", &finish).await, 200);
    assert_eq!(ended["finish_reason"], "stop");
    assert_eq!(ended["usage"], json!({"tokens": 7}));
    assert_eq!((&ended["state"], &ended["next_index"]), (&json!("completed"), &json!(1)));
    assert!(is_timestamp(ended["ended_at"].as_str().unwrap()), "{ended}");
    assert_eq!(data(&word("finish", &finish).await, 200), ended);
    for (verb, body) in [
        ("finish", json!({})),
        ("finish", json!({"finish_reason": "length", "usage": {"tokens": 7}})),
        ("fail", failure.clone()),
        ("renew", json!({})),
        ("chunks", json!({"chunk": "more"})),
        ("chunks", json!({"chunk": "text", "index": 0})),
    ] {
        word(verb, &body).await.refused(409, "STREAM_ENDED");
    }
    assert_eq!(data(&cancel(&daemon, &daemon.key, "finished").await, 200), ended);
    assert_eq!(producer.get(&daemon).await["text"], "text");

    let producer = Producer::open(&daemon, "failed").await;
    let word = async |verb: &str, body: &Value| producer.call(&daemon, verb).json(body).send().await;
    let ended = data(&word("fail", &failure).await, 200);
    assert_eq!((&ended["state"], &ended["error"]), (&json!("failed"), &failure));
    assert_eq!(data(&word("fail", &failure).await, 200), ended);
    word("fail", &json!({"code": "OTHER", "message": "it broke"})).await.refused(409, "STREAM_ENDED");
    word("finish", &json!({})).await.refused(409, "STREAM_ENDED");

    let producer = Producer::open(&daemon, "cancelled").await;
    let word = async |verb: &str, body: &Value| producer.call(&daemon, verb).json(body).send().await;
    let with_reason = daemon.post("/api/v1/streams/cancelled/cancel").json(&json!({"reason": "enough"}));
    let ended = data(&with_reason.send().await, 200);
    assert_eq!(ended["error"], json!({"code": "CANCELLED", "message": "enough"}));
    assert_eq!(data(&cancel(&daemon, &daemon.key, "cancelled").await, 200), ended);
    for (verb, body) in [("finish", json!({})), ("chunks", json!({"chunk": "x"})), ("renew", json!({}))] {
        word(verb, &body).await.refused(409, "STREAM_CANCELLED");
    }
}

/// A producer that lost the answer to its last request repeats it. What it says anew is not confirmed, because it
/// was not stored.
#[tokio::test]
async fn a_repeated_last_chunk_is_confirmed_by_its_index_only() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["a"]).await;
    let last = json!({"chunk": "b", "index": 1, "is_final": true});
    assert_eq!(data(&producer.append(&daemon, &last).await, 200)["next_index"], 2);
    let repeated = data(&producer.append(&daemon, &last).await, 200);
    assert_eq!(repeated, json!({"next_index": 2, "ids": [], "durable": true}));
    let all = json!([{"chunk": "a", "index": 0}, {"chunk": "b", "is_final": true}]);
    assert_eq!(data(&producer.append(&daemon, &all).await, 200)["next_index"], 2);
    assert_eq!(producer.finish(&daemon).await["state"], "completed");

    for new in [
        json!({"chunk": "c", "is_final": true}),
        json!({"chunk": "c", "index": 2, "is_final": true}),
        json!({"chunk": "c", "index": u64::MAX, "is_final": true}),
    ] {
        producer.append(&daemon, &new).await.refused(409, "STREAM_ENDED");
    }
    assert_eq!(producer.get(&daemon).await["text"], "ab");
}

#[tokio::test]
async fn an_invalid_end_names_the_field_and_ends_nothing() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let cases = [
        ("finish", json!({"finish_reason": ""}), "finish_reason"),
        ("finish", json!({"finish_reason": "x".repeat(65)}), "finish_reason"),
        ("finish", json!({"usage": 7}), "usage"),
        ("finish", json!({"usage": {"x": "x".repeat(8 * KIB)}}), "usage"),
        ("finish", json!({"state": "failed"}), "state"),
        ("fail", json!({"message": "m"}), "code"),
        ("fail", json!({"code": "C"}), "message"),
        ("fail", json!({"code": "x".repeat(65), "message": "m"}), "code"),
        ("fail", json!({"code": "C", "message": "x".repeat(8 * KIB + 1)}), "message"),
        ("cancel", json!({"reason": "x".repeat(KIB + 1)}), "reason"),
    ];
    for (verb, body, field) in cases {
        let refused = producer.call(&daemon, verb).json(&body).send().await.refused(400, "VALIDATION_ERROR");
        assert_eq!(refused["details"]["field"], field, "{refused}");
    }
    assert_eq!(producer.get(&daemon).await["state"], "open");
    // The end fits where its parts are as long as they may be.
    let longest = json!({"code": "x".repeat(64), "message": "\u{1}".repeat(8 * KIB)});
    let ended = data(&producer.call(&daemon, "fail").json(&longest).send().await, 200);
    assert_eq!(ended["error"], longest);
}

/// Reports vercel/ai#6502, #8390, #7665 and #18458: the stop button works after a reload and from a second device.
#[tokio::test]
async fn a_stream_is_cancelled_by_its_user_by_publish_org_and_by_manage_only() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let second_device = daemon.user_token("u").await;
    let other = daemon.user_token("other").await;
    let viewer = token(&daemon, "v", json!({"roles": ["viewer"]})).await;
    let reader = key(&daemon, &["subscribe", "read:all"]).await;
    let organization = key(&daemon, &["publish:org"]).await;
    let manager = key(&daemon, &["manage"]).await;
    let foreign = daemon.create_org("foreign").await;

    // Of a user.
    let mut open_streams = 0;
    let mut of_user = async || {
        open_streams += 1;
        let id = format!("u{open_streams}");
        Producer::open_as(&daemon, &user, json!({"request_id": id})).await
    };
    for (key, expected) in [
        (&second_device, 200),
        (&organization, 200),
        (&manager, 200),
        (&other, 404),
        (&viewer, 404),
        (&foreign, 404),
        (&reader, 403),
    ] {
        let producer = of_user().await;
        let reply = cancel(&daemon, key, &producer.id).await;
        assert_eq!(reply.status, expected, "{reply:?}");
        let state = producer.get(&daemon).await["state"].clone();
        assert_eq!(state, if expected == 200 { "cancelled" } else { "open" });
        if expected == 200 {
            // It says the same when it is repeated, and the producer is refused.
            assert_eq!(cancel(&daemon, key, &producer.id).await.body, reply.body);
            let refused = producer.append(&daemon, &json!({"chunk": "x"})).await;
            refused.refused(409, "STREAM_CANCELLED");
        }
    }
    // Of everybody: all see it, and only those who may publish for all may cancel it.
    for (key, expected) in
        [(&user, 403), (&viewer, 403), (&reader, 403), (&foreign, 404), (&organization, 200)]
    {
        let id = format!("all-{expected}-{}", key.len());
        let producer = match get(&daemon, &daemon.key, &id).await.status.as_u16() {
            404 => Producer::open(&daemon, &id).await.id,
            _ => id,
        };
        let reply = cancel(&daemon, key, &producer).await;
        assert_eq!(reply.status, expected, "{reply:?}");
    }
    cancel(&daemon, &daemon.key, "unknown").await.refused(404, "NOT_FOUND");
}

/// A ticket is in URLs, so it reads only.
#[tokio::test]
async fn a_ticket_reads_streams_and_changes_none() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let producer = Producer::open_as(&daemon, &user, json!({"request_id": "r"})).await;
    let ticket = async |body: Value| {
        let made = daemon.post("/api/v1/tickets").key(&user).json(&body).send().await;
        data(&made, 201)["ticket"].as_str().unwrap().to_owned()
    };
    for body in [json!({}), json!({"reconnect": true})] {
        for (method, rest) in [("POST", "/cancel"), ("POST", "/finish"), ("DELETE", "")] {
            let target = format!("{}{rest}?ticket={}", path("r"), ticket(body.clone()).await);
            let call = daemon.call(method, &target).anonymous().json(&json!({}));
            let reply = call.header("x-producer-token", producer.token.as_str()).send().await;
            assert!(matches!(reply.status.as_u16(), 401 | 403), "{reply:?}");
        }
    }
    assert_eq!(producer.get(&daemon).await["state"], "open");
}

#[tokio::test]
async fn lists_show_what_one_may_see_by_state_agent_and_user_page_by_page() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let other = daemon.user_token("other").await;
    let narrow = token(&daemon, "u", json!({"agents": ["a"]})).await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let agent = ["a", "b"][number % 2];
        let mut body = json!({"request_id": format!("r{number}"), "agent_id": agent});
        if let Some(user) = ["u", "other"].get(number % 3) {
            body["user_id"] = json!(user);
        }
        let producer = Producer::open_as(&daemon, &daemon.key, body).await;
        producer.say(&daemon, &["ab"]).await;
        if number % 4 == 3 {
            producer.finish(&daemon).await;
        }
        ids.push(producer.id);
    }
    let wanted = |keep: &dyn Fn(usize) -> bool| -> Vec<String> {
        (0..12).rev().filter(|number| keep(*number)).map(|number| ids[number].clone()).collect()
    };
    let listed = async |key: &str, query: &str| -> Vec<String> {
        let rows = all(&daemon, key, &format!("/api/v1/streams?limit=5{query}")).await;
        rows.iter().map(|row| row["request_id"].as_str().unwrap().to_owned()).collect()
    };
    let visible = |sub: usize| move |number: usize| number % 3 == sub || number % 3 == 2;
    assert_eq!(listed(&daemon.key, "").await, wanted(&|_| true));
    assert_eq!(listed(&user, "").await, wanted(&visible(0)));
    assert_eq!(listed(&other, "").await, wanted(&visible(1)));
    assert_eq!(listed(&daemon.key, "&state=open").await, wanted(&|number| number % 4 != 3));
    assert_eq!(listed(&daemon.key, "&state=completed").await, wanted(&|number| number % 4 == 3));
    assert_eq!(listed(&daemon.key, "&state=failed").await, [""; 0]);
    assert_eq!(listed(&daemon.key, "&agent_id=b").await, wanted(&|number| number % 2 == 1));
    assert_eq!(listed(&daemon.key, "&user_id=u").await, wanted(&|number| number % 3 == 0));
    let both = |number: usize| number % 4 == 3 && number % 2 == 1 && visible(1)(number);
    assert_eq!(listed(&other, "&state=completed&agent_id=b").await, wanted(&both));
    assert_eq!(listed(&narrow, "&agent_id=a").await, wanted(&|number| number % 2 == 0 && visible(0)(number)));
    // Another user's are silence, not a refusal.
    assert_eq!(listed(&user, "&user_id=other").await, [""; 0]);

    let page = daemon.get("/api/v1/streams?limit=1&offset=1").send().await;
    let row = &data(&page, 200)[0];
    assert_eq!(
        (&row["request_id"], &row["next_index"], &row["text_bytes"]),
        (&json!("r10"), &json!(1), &json!(2))
    );
    assert!(row.get("text").is_none() && row.get("producer_token").is_none(), "{row}");
    for query in ["state=done", "status=open", "limit=101"] {
        let refused = daemon.get(&format!("/api/v1/streams?{query}")).send().await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
}

#[tokio::test]
async fn text_is_read_by_offset_and_without() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["ab", "", "€uro", "!"]).await;
    let read = async |query: &str| {
        let shown = data(&daemon.get(&format!("/api/v1/streams/r?{query}")).send().await, 200);
        (shown["text"].clone(), shown["offset"].as_u64().unwrap())
    };
    for ended in [false, true] {
        assert_eq!(read("").await, (json!("ab€uro!"), 0));
        assert_eq!(read("offset=2").await, (json!("€uro!"), 2));
        // Inside a character it moves back to its start.
        assert_eq!(read("offset=3").await, (json!("€uro!"), 2));
        assert_eq!(read("offset=4").await, (json!("€uro!"), 2));
        assert_eq!(read("offset=5").await, (json!("uro!"), 5));
        assert_eq!(read("offset=9").await, (json!(""), 9));
        assert_eq!(read("offset=1000").await, (json!(""), 9));
        assert_eq!(read("text=false").await.0, Value::Null);
        if !ended {
            producer.finish(&daemon).await;
        }
    }
    for query in ["offset=-1", "offset=x", "text=maybe", "wait=61", "known=x", "parts=some", "x=1"] {
        let refused = daemon.get(&format!("/api/v1/streams/r?{query}")).send().await;
        assert_eq!(refused.status, 400, "{query} {refused:?}");
    }
}

#[tokio::test]
async fn deleting_removes_the_text_of_an_ended_stream_and_keeps_its_state() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let other = daemon.user_token("other").await;
    let delete = async |key: &str| daemon.call("DELETE", &path("r")).key(key).send().await;
    let producer = Producer::open_as(&daemon, &user, json!({"request_id": "r"})).await;
    producer.say(&daemon, &["secret"]).await;
    delete(&user).await.refused(409, "CONFLICT");
    producer.finish(&daemon).await;
    delete(&other).await.refused(404, "NOT_FOUND");
    for _ in 0..2 {
        assert_eq!(delete(&user).await.status, 204);
    }
    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["state"]), (&Value::Null, &json!("completed")));
    assert_eq!((&shown["text_bytes"], &shown["next_index"]), (&json!(6), &json!(1)));
    open(&daemon, &user, json!({"request_id": "r"})).await.refused(409, "CONFLICT");
    assert_eq!(producer.finish(&daemon).await["state"], "completed");
}

#[tokio::test]
async fn plain_events_cannot_speak_in_the_name_of_an_opened_stream() {
    let mut daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    // Before the opening the id is anybody's.
    daemon.publish(chunk("r", "plain", 0)).await;
    let producer = Producer::open(&daemon, "r").await;
    let error = json!({"type": "error", "request_id": "r", "code": "X", "message": "m"});
    let forged = [
        chunk("r", "x", 1),
        json!([chunk("plain", "x", 0), chunk("r", "x", 1)]),
        json!({"type": "stream_chunk", "request_id": "r", "chunk": "", "is_final": true}),
        error,
    ];
    for round in ["open", "ended", "restarted"] {
        for body in &forged {
            let reply = daemon.post("/api/v1/events").json(body).send().await;
            reply.refused(409, "CONFLICT");
        }
        let refused = ws.ask(&json!({"type": "publish", "ref": 1, "event": chunk("r", "x", 1)})).await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("CONFLICT")), "{round}");
        daemon.publish(chunk("other", "fine", 0)).await;
        match round {
            "open" => drop(producer.finish(&daemon).await),
            "ended" => {
                daemon.restart().await;
                ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
            }
            _ => {}
        }
    }
    let events = daemon.get("/api/v1/events?earliest=true&request_id=r").send().await.json();
    let texts: Vec<&str> =
        events["data"].as_array().unwrap().iter().filter_map(|event| event["chunk"].as_str()).collect();
    assert_eq!(texts, ["plain", ""]);
    assert_eq!(producer.get(&daemon).await["text"], "");
}

#[tokio::test]
async fn an_agents_status_follows_its_stream() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse?types=agent_update").await;
    let body = json!({"request_id": "r", "agent_id": "a", "agent_status": true});
    let producer = Producer::open_as(&daemon, &daemon.key, body.clone()).await;
    let status = |event: &Value| (event["agent_id"].clone(), event["status"].clone());
    assert_eq!(status(&sse.next_event().await), (json!("a"), json!("thinking")));
    producer.say(&daemon, &["x"]).await;
    cancel(&daemon, &daemon.key, "r").await;
    assert_eq!(status(&sse.next_event().await), (json!("a"), json!("idle")));
}

/// A long-poll holds no text back: it is answered with the first chunk after what the reader knows, and with the
/// end.
#[tokio::test]
async fn a_waiting_read_wakes_for_text_and_for_the_end() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let wait = |known: u64| {
        let call = daemon.get(&format!("/api/v1/streams/r?wait=60&known={known}"));
        tokio::spawn(call.send())
    };
    let first = wait(0);
    for _ in 0..20 {
        daemon.publish_messages(&["other traffic does not answer it"]).await;
    }
    producer.say(&daemon, &["a"]).await;
    let shown = data(&first.await.unwrap(), 200);
    assert_eq!((&shown["text"], &shown["next_index"]), (&json!("a"), &json!(1)));
    // What is already there is answered at once.
    assert_eq!(data(&wait(0).await.unwrap(), 200)["text"], "a");
    let second = wait(1);
    for _ in 0..20 {
        daemon.publish_messages(&["other traffic does not answer it"]).await;
    }
    producer.finish(&daemon).await;
    assert_eq!(data(&second.await.unwrap(), 200)["state"], "completed");
    assert_eq!(data(&wait(1).await.unwrap(), 200)["state"], "completed");
    // A time out answers with what there is.
    Producer::open(&daemon, "idle").await;
    let shown = data(&daemon.get("/api/v1/streams/idle?wait=1&known=0").send().await, 200);
    assert_eq!((&shown["state"], &shown["text"]), (&json!("open"), &json!("")));
    daemon.get("/api/v1/streams/unknown?wait=60").send().await.refused(404, "NOT_FOUND");
}
