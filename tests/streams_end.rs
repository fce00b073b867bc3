//! What becomes of LLM streams without a request: over restarts, when a producer dies, when a user or an
//! organization is deleted, and when their time is over. Every opened stream ends, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::rest::data;
use common::sse::Sse;
use common::streams::{Producer, cancel, get, open, path};
use common::{Daemon, custom, until};
use serde_json::{Value, json};

const KIB: usize = 1024;
const PASSWORD: &str = "correct horse battery";

/// Text whose bytes tell where they belong.
fn numbered(len: usize) -> String {
    let mut text = String::new();
    while text.len() < len {
        text.push_str(&format!("{:07}|", text.len()));
    }
    text.truncate(len);
    text
}

/// Appends a text in chunks of this many bytes.
async fn say_in_chunks(daemon: &Daemon, producer: &Producer, text: &str, bytes: usize) {
    let chunks: Vec<&str> =
        text.as_bytes().chunks(bytes).map(|part| std::str::from_utf8(part).unwrap()).collect();
    for some in chunks.chunks(1_000) {
        producer.say(daemon, some).await;
    }
}

/// Waits until the stream has ended. Returns it.
async fn ended(daemon: &Daemon, key: &str, id: &str) -> Value {
    until("the end of a stream", async || {
        let path = format!("{}?wait=20&known={}", path(id), u64::MAX);
        let shown = data(&daemon.get(&path).key(key).send().await, 200);
        (shown["state"] != "open").then_some(shown)
    })
    .await
}

/// Waits until this many streams are open. After a start they are read soon.
async fn open_streams(daemon: &Daemon, count: usize) {
    until("the number of open streams", async || {
        (daemon.metric("nervewire_streams_open").await == count as f64).then_some(())
    })
    .await;
}

/// Reads the events of a stream's end: its error, and its final chunk.
async fn end_events(sse: &mut Sse, next_index: u64) -> Value {
    let error = sse.next_event().await;
    assert_eq!(error["type"], "error", "{error}");
    let last = sse.next_event().await;
    assert_eq!((&last["chunk"], &last["is_final"]), (&json!(""), &json!(true)), "{last}");
    assert_eq!(last["index"], next_index, "{last}");
    error
}

/// Reports cloudflare/agents#989 and #1607: after a restart the end comes as if there had been none.
#[tokio::test]
async fn open_streams_go_on_after_a_stop_and_after_a_kill() {
    let mut daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND", 1_000_000).start().await;
    let user = daemon.user_token("u").await;
    let texts = [numbered(0), numbered(1_000), numbered(20 * KIB), numbered(300 * KIB)];
    let mut producers = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let body = json!({"request_id": format!("r{number}"), "metadata": {"n": number}});
        let producer = Producer::open_as(&daemon, &user, body).await;
        say_in_chunks(&daemon, &producer, text, 100).await;
        producers.push(producer);
    }
    let other = Producer::open_as(&daemon, &user, json!({"request_id": "over"})).await;
    other.say(&daemon, &["done"]).await;
    other.finish(&daemon).await;

    let mut expected = texts.to_vec();
    for round in 0..4 {
        if round % 2 == 0 {
            assert_eq!(daemon.terminate().await, 0);
            daemon.start_again().await;
        } else {
            daemon.restart().await;
        }
        open_streams(&daemon, producers.len()).await;
        for ((number, producer), text) in producers.iter().enumerate().zip(&mut expected) {
            let shown = producer.get(&daemon).await;
            assert_eq!(shown["text"].as_str().unwrap(), text, "stream {number} in round {round}");
            assert_eq!((&shown["state"], &shown["metadata"]), (&json!("open"), &json!({"n": number})));
            assert_eq!((&shown["generation"], &shown["user_id"]), (&json!(1), &json!("u")));
            // The producer goes on with the token that it has.
            let next = shown["next_index"].as_u64().unwrap();
            let more = json!([{"chunk": "€", "index": next}, {"chunk": "!"}]);
            assert_eq!(data(&producer.append(&daemon, &more).await, 200)["next_index"], next + 2);
            text.push_str("€!");
        }
        assert_eq!(other.get(&daemon).await["text"], "done");
        other.append(&daemon, &json!({"chunk": "x"})).await.refused(409, "STREAM_ENDED");
        open(&daemon, &user, json!({"request_id": "r0"})).await.refused(409, "CONFLICT");
    }
    for (producer, text) in producers.iter().zip(&expected) {
        let next = Producer::take_over(&daemon, &user, &producer.id).await;
        daemon.restart().await;
        producer.append(&daemon, &json!({"chunk": "x"})).await.refused(409, "STREAM_FENCED");
        assert_eq!(next.finish(&daemon).await["state"], "completed");
        daemon.restart().await;
        assert_eq!(next.get(&daemon).await["text"].as_str().unwrap(), text);
        assert_eq!(next.finish(&daemon).await["generation"], 2);
    }
    open_streams(&daemon, 0).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_nothing_else_is_shown() {
    let mut daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut expected = String::new();
    for round in 0..5 {
        let mut lines = producer.lines(&daemon).await;
        let next = producer.get(&daemon).await["next_index"].as_u64().unwrap();
        for index in next..next + 50 {
            lines.line(&json!({"chunk": format!("{index}."), "index": index})).await;
        }
        let known = next + 9;
        let seen = daemon.get(&format!("{}?wait=60&known={known}", path("r"))).send().await;
        let seen = data(&seen, 200)["text"].as_str().unwrap().to_owned();
        daemon.restart().await;
        // What a reader saw is kept, and all that is kept was written.
        let shown = producer.get(&daemon).await;
        let text = shown["text"].as_str().unwrap();
        assert!(text.starts_with(&seen) && seen.starts_with(&expected), "round {round}: {seen} {text}");
        expected = (0..shown["next_index"].as_u64().unwrap()).map(|index| format!("{index}.")).collect();
        assert_eq!(text, expected);
    }
    producer.finish(&daemon).await;
    assert_eq!(producer.get(&daemon).await["text"], expected);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_open_bodies_and_ends_no_stream() {
    let mut daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut lines = producer.lines(&daemon).await;
    lines.chunk("a").await;
    data(&daemon.get("/api/v1/streams/r?wait=60").send().await, 200);
    let waiting = tokio::spawn(daemon.get("/api/v1/streams/r?wait=60&known=1").send());
    assert_eq!(daemon.terminate().await, 0);
    // A waiting read is answered with what there is, or refused; it is not left alone.
    let _ = waiting.await;
    daemon.start_again().await;
    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("a"), &json!("open")));
    producer.say(&daemon, &["b"]).await;
    assert_eq!(producer.finish(&daemon).await["next_index"], 2);
}

/// Report ably/docs#3390: the producer crashes. Its readers hear of it, and so does a late one.
#[tokio::test]
async fn a_stream_whose_producer_died_is_abandoned_also_after_a_restart() {
    let mut daemon = Daemon::start().await;
    let opened = |id: &str| json!({"request_id": id, "lease_seconds": 5});
    let first = Producer::open_as(&daemon, &daemon.key, opened("1")).await;
    let mut sse = daemon.live_sse("/api/v1/sse?request_id=1").await;
    let mut lines = first.lines(&daemon).await;
    lines.chunk("text").await;
    assert_eq!(sse.next_event().await["chunk"], "text");
    drop(lines);
    let error = end_events(&mut sse, 1).await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("ABANDONED"), &json!("the producer fell silent"))
    );
    let shown = ended(&daemon, &daemon.key, "1").await;
    assert_eq!((&shown["state"], &shown["text"]), (&json!("abandoned"), &json!("text")));
    for verb in ["chunks", "finish", "renew"] {
        let body = if verb == "chunks" { json!({"chunk": "x"}) } else { json!({}) };
        first.call(&daemon, verb).json(&body).send().await.refused(409, "STREAM_ABANDONED");
    }
    assert_eq!(daemon.metric("nervewire_stream_leases_expired_total").await, 1.0);
    assert_eq!(daemon.metric("nervewire_streams_ended_total{state=\"abandoned\"}").await, 1.0);

    // Nobody says anything after the restart, and the stream still ends.
    let second = Producer::open_as(&daemon, &daemon.key, opened("2")).await;
    second.say(&daemon, &["half"]).await;
    daemon.restart().await;
    let mut sse = daemon.live_sse("/api/v1/sse?request_id=2").await;
    assert_eq!(end_events(&mut sse, 1).await["code"], "ABANDONED");
    assert_eq!(ended(&daemon, &daemon.key, "2").await["text"], "half");
}

#[tokio::test]
async fn any_word_of_the_producer_renews_its_lease_and_no_other_word_does() {
    let daemon = Daemon::start().await;
    let mut producers = Vec::new();
    for word in ["nothing", "renew", "retry", "blank body", "get"] {
        let body = json!({"request_id": word, "lease_seconds": 5});
        let producer = Producer::open_as(&daemon, &daemon.key, body).await;
        producer.say(&daemon, &["a"]).await;
        producers.push(producer);
    }
    // The stream of which nothing is heard tells when a lease is over.
    let [nothing, renewed, retried, blank, read] = &producers[..] else { panic!() };
    loop {
        let shown = daemon.get("/api/v1/streams/nothing?wait=1&known=1&text=false").send().await;
        if data(&shown, 200)["state"] != "open" {
            break;
        }
        data(&renewed.call(&daemon, "renew").json(&json!({})).send().await, 200);
        data(&retried.append(&daemon, &json!({"chunk": "a", "index": 0})).await, 200);
        data(&blank.lines(&daemon).await.end().await, 200);
        read.get(&daemon).await;
        let wrong = Producer { token: String::new(), ..read.clone() };
        wrong.append(&daemon, &json!({"chunk": "x"})).await.refused(401, "UNAUTHORIZED");
        read.append(&daemon, &json!({"chunk": "x", "index": 9})).await.refused(409, "CONFLICT");
    }
    assert_eq!(nothing.get(&daemon).await["state"], "abandoned");
    for producer in [renewed, retried, blank] {
        assert_eq!(producer.get(&daemon).await["state"], "open", "{}", producer.id);
    }
    assert_eq!(ended(&daemon, &daemon.key, &read.id).await["state"], "abandoned");
}

async fn register(daemon: &Daemon, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "name": "Somebody"});
    let user = data(&daemon.post("/api/v1/users/register").json(&body).send().await, 201);
    user["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn deleting_a_user_ends_and_removes_their_streams_only() {
    let mut daemon = Daemon::start().await;
    let user = register(&daemon, "u@example.org").await;
    let login = json!({"email": "u@example.org", "password": PASSWORD, "organization_id": "default"});
    let login = daemon.post("/api/v1/users/login").anonymous().json(&login).send().await;
    let token = data(&login, 200)["token"].as_str().unwrap().to_owned();
    let own = Producer::open_as(&daemon, &token, json!({"request_id": "own"})).await;
    let of_user = json!({"request_id": "of user", "user_id": user});
    let of_user = Producer::open_as(&daemon, &daemon.key, of_user).await;
    let done = Producer::open_as(&daemon, &token, json!({"request_id": "done"})).await;
    let others = Producer::open(&daemon, "of all").await;
    for producer in [&own, &of_user, &done, &others] {
        producer.say(&daemon, &["private words"]).await;
    }
    done.finish(&daemon).await;
    let mut sse = daemon.live_sse("/api/v1/sse?request_id=own").await;
    let mut lines = of_user.lines(&daemon).await;
    lines.chunk(" and more").await;
    data(&daemon.get(&format!("{}?wait=60&known=1", path("of user"))).send().await, 200);

    let deleted = daemon.call("DELETE", &format!("/api/v1/users/{user}")).send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let error = end_events(&mut sse, 1).await;
    assert_eq!((&error["code"], &error["message"]), (&json!("CANCELLED"), &json!("the user was deleted")));
    let reply = lines.answer().await;
    assert!(matches!(reply.status.as_u16(), 404 | 409), "{reply:?}");
    // What is stored of them is erased soon, and right after a start.
    daemon.restart().await;
    for id in ["own", "of user", "done"] {
        until("the removal of a stream", async || {
            (get(&daemon, &daemon.key, id).await.status == 404).then_some(())
        })
        .await;
    }
    let listed = data(&daemon.get("/api/v1/streams").send().await, 200);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["request_id"]), (1, &json!("of all")));
    others.say(&daemon, &["!"]).await;
    open_streams(&daemon, 1).await;
    assert_eq!(others.get(&daemon).await["text"], "private words!");
}

#[tokio::test]
async fn deleting_an_organization_ends_its_streams() {
    let mut daemon = Daemon::start().await;
    let key = daemon.create_org("gone").await;
    let kept = Producer::open(&daemon, "r").await;
    let body = json!({"request_id": "r", "lease_seconds": 5});
    let producer = Producer::open_as(&daemon, &key, body).await;
    let mut lines = producer.lines(&daemon).await;
    lines.chunk("a").await;
    data(&daemon.get("/api/v1/streams/r?wait=60").key(&key).send().await, 200);
    open_streams(&daemon, 2).await;
    let deleted = daemon.call("DELETE", "/api/v1/organizations/gone").send().await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    // Its lease ends as that of a producer that died: nobody may write any more.
    let reply = lines.answer().await;
    assert!(matches!(reply.status.as_u16(), 401 | 404 | 409), "{reply:?}");
    open_streams(&daemon, 1).await;
    get(&daemon, &key, "r").await.refused(401, "UNAUTHORIZED");
    kept.say(&daemon, &["b"]).await;
    daemon.restart().await;
    open_streams(&daemon, 1).await;
    assert_eq!(kept.get(&daemon).await["text"], "b");
    // An organization of the same name has nothing of the earlier one.
    let again = daemon.create_org("gone").await;
    get(&daemon, &again, "r").await.refused(404, "NOT_FOUND");
    Producer::open_as(&daemon, &again, json!({"request_id": "r"})).await;
}

#[tokio::test]
async fn text_expires_before_the_state_and_open_streams_never() {
    let mut daemon = Daemon::with().env("STREAMS__KEEP_SECONDS", 1).start().await;
    let open_one = Producer::open(&daemon, "open").await;
    open_one.say(&daemon, &["kept"]).await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["forgotten"]).await;
    producer.call(&daemon, "fail").json(&json!({"code": "C", "message": "m"})).send().await;
    let expired = async |id: &str| {
        let shown = data(&get(&daemon, &daemon.key, id).await, 200);
        shown["text"].is_null().then_some(shown)
    };
    let shown = until("the expiry of a text", || expired("r")).await;
    assert_eq!((&shown["state"], &shown["text_bytes"]), (&json!("failed"), &json!(9)));
    assert_eq!(shown["error"], json!({"code": "C", "message": "m"}));
    producer.append(&daemon, &json!({"chunk": "x"})).await.refused(409, "STREAM_ENDED");
    open(&daemon, &daemon.key, json!({"request_id": "r"})).await.refused(409, "CONFLICT");
    assert_eq!(open_one.get(&daemon).await["text"], "kept");
    // The state is kept ten times as long. Then the id is free.
    daemon.restart().await;
    until("the expiry of a state", async || {
        (get(&daemon, &daemon.key, "r").await.status == 404).then_some(())
    })
    .await;
    let again = Producer::open(&daemon, "r").await;
    assert_eq!(again.get(&daemon).await["text"], "");
    assert_eq!(open_one.get(&daemon).await["text"], "kept");
}

/// Removing a text early does not shorten the time for which its state is kept.
#[tokio::test]
async fn the_state_outlives_a_text_that_was_deleted() {
    let daemon = Daemon::with().env("STREAMS__KEEP_SECONDS", 2).start().await;
    for id in ["deleted", "later"] {
        let producer = Producer::open(&daemon, id).await;
        producer.say(&daemon, &["text"]).await;
        producer.finish(&daemon).await;
        if id == "deleted" {
            assert_eq!(daemon.call("DELETE", &path(id)).send().await.status, 204);
        }
    }
    // The other stream's text expires after the time at which that of the first would have.
    until("the expiry of a text", async || {
        let shown = data(&get(&daemon, &daemon.key, "later").await, 200);
        shown["text"].is_null().then_some(())
    })
    .await;
    let shown = data(&get(&daemon, &daemon.key, "deleted").await, 200);
    assert_eq!((&shown["state"], &shown["text"]), (&json!("completed"), &Value::Null));
    open(&daemon, &daemon.key, json!({"request_id": "deleted"})).await.refused(409, "CONFLICT");
}

/// Report LibreChat#13335: nobody reads, and everything is stored all the same, also when the log of the
/// organization's other traffic is trimmed meanwhile.
#[tokio::test]
async fn text_does_not_depend_on_the_logs_retention() {
    let mut daemon = Daemon::with().env("RETENTION__MAX_EVENTS", 1_000).start().await;
    let producer = Producer::open(&daemon, "r").await;
    let text = numbered(40 * KIB);
    let mut sent = 0;
    for part in text.as_bytes().chunks(8 * KIB) {
        producer.say(&daemon, &[std::str::from_utf8(part).unwrap()]).await;
        sent += 1;
        for _ in 0..3 {
            daemon.publish((0..1_000).map(|n| custom("noise", json!(n))).collect()).await;
        }
    }
    let read = async |daemon: &Daemon| producer.get(daemon).await["text"].as_str().unwrap().to_owned();
    assert_eq!(read(&daemon).await, text);
    daemon.restart().await;
    assert_eq!(read(&daemon).await, text);
    let oldest = daemon.get("/api/v1/events?earliest=true&request_id=r").send().await.json();
    assert!(oldest["data"].as_array().unwrap().len() < sent, "the log has no chunks of that age any more");
    producer.finish(&daemon).await;
    assert_eq!(daemon.terminate().await, 0);
    daemon.start_again().await;
    assert_eq!(read(&daemon).await, text);
}

/// A stream that was cancelled in the moment in which its producer finished it has one end.
#[tokio::test]
async fn racing_ends_leave_one_end() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse?types=stream_chunk,error").await;
    for round in 0..30 {
        let id = format!("r{round}");
        let producer = Producer::open(&daemon, &id).await;
        let (failure, text) = (json!({"code": "FAILED", "message": "m"}), json!({"chunk": "x"}));
        let (finish, fail, cancelled, appended) = tokio::join!(
            producer.call(&daemon, "finish").json(&json!({})).send(),
            producer.call(&daemon, "fail").json(&failure).send(),
            cancel(&daemon, &daemon.key, &id),
            producer.append(&daemon, &text),
        );
        let won = data(&cancelled, 200)["state"].as_str().unwrap().to_owned();
        let shown = producer.get(&daemon).await;
        assert_eq!(shown["state"], won.as_str());
        for (reply, state) in [(&finish, "completed"), (&fail, "failed")] {
            assert_eq!(reply.status == 200, state == won, "{state} {won} {reply:?}");
            assert!(matches!(reply.status.as_u16(), 200 | 409), "{reply:?}");
        }
        let mut events = Vec::new();
        loop {
            let event = sse.next_event().await;
            assert_eq!(event["request_id"], id.as_str());
            let is_last = event["is_final"] == true;
            events.push(event);
            if is_last {
                break;
            }
        }
        let is_stored = appended.status == 200;
        let errors = events.iter().filter(|event| event["type"] == "error").count();
        assert_eq!(errors, usize::from(won != "completed"), "{events:?}");
        assert_eq!(events.len(), 1 + errors + usize::from(is_stored), "{events:?}");
        assert_eq!(shown["text"], if is_stored { "x" } else { "" });
    }
    assert_eq!(daemon.metric("nervewire_streams_ended_total").await, 30.0);
}
