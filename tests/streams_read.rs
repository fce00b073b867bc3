//! Readers of LLM streams: from the first chunk, over any cuts, to the end, with the exact text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::rest::data;
use common::sse::{Block, Sse};
use common::streams::{Producer, cancel, path, sequence};
use common::ws::Ws;
use common::{Builder, Daemon, chunk, custom, until};
use serde_json::{Value, json};

const KIB: usize = 1024;

/// What a reader has of one stream. It refuses what a client could not put together: an index that does not
/// follow, an id that is not greater, an event after the end.
#[derive(Clone, Debug, Default)]
struct Copy {
    text: String,
    next_index: u64,
    last_id: String,
    error: Option<Value>,
    is_final: bool,
    events: usize,
}

impl Copy {
    #[track_caller]
    fn take(&mut self, event: &Value) {
        assert!(!self.is_final, "an event after the end: {event}");
        let id = event["id"].as_str().unwrap();
        let follows = self.last_id.is_empty() || sequence(id) > sequence(&self.last_id);
        assert!(follows, "{event} after {}", self.last_id);
        id.clone_into(&mut self.last_id);
        self.events += 1;
        if event["type"] == "error" {
            assert!(self.error.is_none(), "{event}");
            self.error = Some(event.clone());
            return;
        }
        assert_eq!(event["type"], "stream_chunk", "{event}");
        let index = event["index"].as_u64().unwrap();
        let first = event["first_index"].as_u64().unwrap_or(index);
        assert_eq!(first, self.next_index, "{event}");
        self.is_final = event["is_final"] == true;
        // The final chunk has no text, but what comes before it may be merged with it.
        self.next_index = index + u64::from(!self.is_final);
        self.text.push_str(event["chunk"].as_str().unwrap());
    }
}

/// A daemon that may be sent many events at once, and has few of them in memory.
fn many_events() -> Builder {
    Daemon::with()
        .env("LIMITS__PUBLISH_PER_SECOND", 1_000_000)
        .env("LIMITS__RING_SLOTS", 1_024)
        .env("LIMITS__UNCOMMITTED_EVENTS", 1_024)
}

/// Opens `/sse/llm` for some streams, after a cursor if it is not empty.
async fn ask(daemon: &Daemon, key: &str, ids: &str, after: &str) -> Sse {
    let request = daemon.sse(&format!("/api/v1/sse/llm?request_id={ids}")).key(key);
    let request = if after.is_empty() { request } else { request.last_event_id(after) };
    request.ask().await
}

/// Like [`ask`], which must be granted. `ready` is read.
async fn read(daemon: &Daemon, ids: &str, after: &str) -> Sse {
    let mut sse = ask(daemon, &daemon.key, ids, after).await;
    assert_eq!(sse.status, 200, "{}", sse.head);
    sse.next().await.named("ready");
    sse
}

/// The next block that is an event, or `done`, or `closing`.
async fn next(sse: &mut Sse) -> Block {
    loop {
        let block = sse.next().await;
        if !matches!(block.name.as_deref(), Some("caught_up" | "ready")) {
            return block;
        }
    }
}

/// Reads one stream to its end. Returns its copy and `done`.
async fn read_all(sse: &mut Sse) -> (Copy, Value) {
    let mut copy = Copy::default();
    let done = read_on(sse, &mut copy).await;
    (copy, done)
}

async fn read_on(sse: &mut Sse, copy: &mut Copy) -> Value {
    loop {
        let block = next(sse).await;
        if block.name.is_some() {
            let done = block.named("done");
            assert!(copy.is_final, "{done} before the final chunk");
            assert!(block.id.is_none(), "{block:?}");
            assert_eq!(sse.rest().await, "", "nothing follows");
            return done;
        }
        copy.take(&block.event());
    }
}

#[tokio::test]
async fn a_reader_gets_the_text_so_far_then_live_chunks_then_done_and_the_end() {
    let daemon = Daemon::start().await;
    daemon.publish(chunk("other", "x", 0)).await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["Hel", "lo"]).await;
    let mut sse = read(&daemon, "r", "").await;
    let mut copy = Copy::default();
    let first = next(&mut sse).await.event();
    assert_eq!(
        (&first["chunk"], &first["first_index"], &first["index"]),
        (&json!("Hello"), &json!(0), &json!(1))
    );
    copy.take(&first);
    producer.say(&daemon, &[", world"]).await;
    let live = next(&mut sse).await.event();
    assert_eq!((&live["chunk"], &live["index"]), (&json!(", world"), &json!(2)));
    copy.take(&live);
    let finish = json!({"finish_reason": "stop", "usage": {"tokens": 3}});
    data(&producer.call(&daemon, "finish").json(&finish).send().await, 200);
    let done = read_on(&mut sse, &mut copy).await;
    let expected = json!({
        "type": "done", "request_id": "r", "state": "completed", "finish_reason": "stop", "usage": {"tokens": 3},
    });
    assert_eq!(done, expected);
    assert_eq!((copy.text.as_str(), copy.next_index), ("Hello, world", 3));
    assert!(sse.ended_whole(), "a reader can tell the end from a broken connection");

    // Whoever has read it all is told to stop; whoever has not gets the rest.
    let again = ask(&daemon, &daemon.key, "r", &copy.last_id).await;
    assert_eq!(again.status, 204, "{}", again.head);
    let live_id = live["id"].as_str().unwrap();
    let mut rest = Copy { next_index: 3, last_id: live_id.into(), ..Copy::default() };
    assert_eq!(read_on(&mut read(&daemon, "r", live_id).await, &mut rest).await, expected);
    assert_eq!(rest.events, 1);
    // Without a position an ended stream is read from its start.
    let (late, done) = read_all(&mut read(&daemon, "r", "").await).await;
    assert_eq!((late.text.as_str(), done), ("Hello, world", expected));
}

/// Reports open-webui#29596 and LibreChat#12901: a refresh shows the earlier text; cloudflare/agents#1733: and shows
/// none of it twice; resumable-stream#47 and #50: a reader that was away when the final chunk came still ends.
#[tokio::test]
async fn a_reader_that_is_cut_after_every_event_has_the_exact_text() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut copy = Copy::default();
    let mut expected = String::new();
    let mut after = String::new();
    for number in 0..40 {
        let text = format!("{number}€");
        if number < 30 {
            producer.say(&daemon, &[&text, "", "|"]).await;
            expected.push_str(&text);
            expected.push('|');
        }
        if number == 30 {
            let failure = json!({"code": "C", "message": "m"});
            data(&producer.call(&daemon, "fail").json(&failure).send().await, 200);
        }
        // One that is cut before any event keeps its place too.
        let mut cut = ask(&daemon, &daemon.key, "r", &after).await;
        if cut.status == 204 {
            break;
        }
        cut.next().await.named("ready");
        after.clone_from(&cut.last_event_id);
        drop(cut);
        let mut sse = read(&daemon, "r", &after).await;
        let block = next(&mut sse).await;
        copy.take(&block.event());
        after.clone_from(&sse.last_event_id);
        assert_eq!(after, copy.last_id);
    }
    assert!(copy.is_final, "{copy:?}");
    assert_eq!(copy.text, expected);
    assert_eq!(copy.error.unwrap()["code"], "C");
    assert_eq!(ask(&daemon, &daemon.key, "r", &after).await.status, 204);
}

/// Reports LibreChat#14402, #11372 and cloudflare/agents#1951: a late reader sees the error, and the text before it.
#[tokio::test]
async fn an_error_is_read_late_and_after_the_text() {
    let mut daemon = Daemon::start().await;
    for (id, code, state) in [("failed", "UPSTREAM", "failed"), ("stopped", "CANCELLED", "cancelled")] {
        let producer = Producer::open(&daemon, id).await;
        producer.say(&daemon, &["half an ", "answer"]).await;
        match id {
            "failed" => {
                let failure = json!({"code": code, "message": "it broke"});
                data(&producer.call(&daemon, "fail").json(&failure).send().await, 200);
            }
            _ => drop(data(&cancel(&daemon, &daemon.key, id).await, 200)),
        }
        for round in 0..2 {
            let (copy, done) = read_all(&mut read(&daemon, id, "").await).await;
            assert_eq!(copy.text, "half an answer", "{id} {round}");
            let error = copy.error.unwrap();
            assert_eq!((&error["code"], &error["request_id"]), (&json!(code), &json!(id)));
            assert_eq!(done, json!({"type": "done", "request_id": id, "state": state}));
            daemon.restart().await;
        }
    }
}

#[tokio::test]
async fn several_streams_come_in_log_order_and_end_together() {
    let daemon = Daemon::start().await;
    let a = Producer::open(&daemon, "a").await;
    let b = Producer::open(&daemon, "b").await;
    a.say(&daemon, &["a0", "a1"]).await;
    b.say(&daemon, &["b0"]).await;
    a.say(&daemon, &["a2"]).await;
    let mut sse = read(&daemon, "b,a", "").await;
    let (mut of_a, mut of_b) = (Copy::default(), Copy::default());
    let mut order = Vec::new();
    let mut take = |event: &Value| {
        let copy = if event["request_id"] == "a" { &mut of_a } else { &mut of_b };
        copy.take(event);
        order.push(event["chunk"].as_str().unwrap().to_owned());
        of_a.is_final && of_b.is_final
    };
    for _ in 0..3 {
        take(&next(&mut sse).await.event());
    }
    a.finish(&daemon).await;
    take(&next(&mut sse).await.event());
    b.say(&daemon, &["b1"]).await;
    take(&next(&mut sse).await.event());
    let last_of_a_is_read = sse.last_event_id.clone();
    b.finish(&daemon).await;
    assert!(take(&next(&mut sse).await.event()));
    let done = [next(&mut sse).await.named("done"), next(&mut sse).await.named("done")];
    let finished = |id: &str| json!({"type": "done", "request_id": id, "state": "completed"});
    assert!(done.contains(&finished("a")) && done.contains(&finished("b")), "{done:?}");
    assert_eq!(sse.rest().await, "");
    // No merge spans an event of the other stream.
    assert_eq!(order, ["a0a1", "b0", "a2", "", "b1", ""]);

    let last = sse.last_event_id.clone();
    assert_eq!(ask(&daemon, &daemon.key, "a,b", &last).await.status, 204);
    // One of the two has been read.
    assert_eq!(ask(&daemon, &daemon.key, "a", &last_of_a_is_read).await.status, 204);
    let mut rest = read(&daemon, "a,b,a", &last_of_a_is_read).await;
    let end = next(&mut rest).await.event();
    assert_eq!((&end["request_id"], &end["is_final"]), (&json!("b"), &json!(true)));
    assert_eq!(next(&mut rest).await.named("done")["request_id"], "a");
    assert_eq!(next(&mut rest).await.named("done")["request_id"], "b");
    assert_eq!(rest.rest().await, "");
}

#[tokio::test]
async fn many_streams_that_end_in_one_moment_end_their_reader_at_once() {
    let daemon = Daemon::start().await;
    for round in 0..10 {
        let mut producers = Vec::new();
        for number in 0..20 {
            producers.push(Producer::open(&daemon, &format!("{round}-{number}")).await);
        }
        let ids: Vec<&str> = producers.iter().map(|producer| producer.id.as_str()).collect();
        let mut sse = read(&daemon, &ids.join(","), "").await;
        let ends = producers.iter().map(|producer| producer.finish(&daemon));
        futures_util::future::join_all(ends).await;
        for _ in 0..20 {
            assert_eq!(next(&mut sse).await.event()["is_final"], true);
        }
        let mut done = Vec::new();
        for _ in &ids {
            done.push(next(&mut sse).await.named("done")["request_id"].as_str().unwrap().to_owned());
        }
        done.sort_unstable();
        let mut expected = ids.clone();
        expected.sort_unstable();
        assert_eq!(done, expected);
        assert_eq!(sse.rest().await, "");
    }
}

/// Reports resumable-stream#44 and #41: a reader joins while the stream is opened, or while it is finished.
#[tokio::test]
async fn a_reader_that_joins_at_any_moment_gets_everything() {
    let daemon = Daemon::start().await;
    for round in 0..60 {
        let id = format!("r{round}");
        let produce = async {
            let producer = Producer::open(&daemon, &id).await;
            producer.say(&daemon, &["a"]).await;
            producer.say(&daemon, &["b", "c"]).await;
            producer.finish(&daemon).await;
        };
        let reader = async {
            // Joins a little later in each round.
            for _ in 0..round % 10 {
                daemon.get("/health/live").send().await;
            }
            read_all(&mut read(&daemon, &id, "").await).await
        };
        let ((), (copy, done)) = tokio::join!(produce, reader);
        assert_eq!((copy.text.as_str(), copy.next_index), ("abc", 3), "round {round}");
        assert_eq!(done["state"], "completed");
    }
}

#[tokio::test]
async fn an_unknown_id_waits_for_its_stream() {
    let daemon = Daemon::start().await;
    let mut sse = read(&daemon, "later", "").await;
    daemon.publish_messages(&["x"]).await;
    let producer = Producer::open(&daemon, "later").await;
    producer.say(&daemon, &["first"]).await;
    assert_eq!(next(&mut sse).await.event()["chunk"], "first");
    producer.finish(&daemon).await;
    assert_eq!(next(&mut sse).await.event()["is_final"], true);
    assert_eq!(next(&mut sse).await.named("done")["state"], "completed");
    assert_eq!(sse.rest().await, "");
}

#[tokio::test]
async fn unknown_and_invisible_streams_end_alike_after_the_wait() {
    let daemon = Daemon::with().env("STREAMS__UNKNOWN_WAIT_SECONDS", 1).start().await;
    let reader = daemon.user_token("reader").await;
    let foreign = daemon.create_org("foreign").await;
    let of_user = json!({"request_id": "invisible", "user_id": "u"});
    let hidden = Producer::open_as(&daemon, &daemon.key, of_user.clone()).await;
    hidden.say(&daemon, &["secret"]).await;
    let ended = json!({"request_id": "invisible-ended", "user_id": "u"});
    Producer::open_as(&daemon, &daemon.key, ended).await.finish(&daemon).await;
    Producer::open_as(&daemon, &foreign, json!({"request_id": "foreign"})).await;
    let cursor = daemon.publish_messages(&["x"]).await.remove(0);

    let mut seen = Vec::new();
    for id in ["unknown", "invisible", "invisible-ended", "foreign"] {
        for after in ["", cursor.as_str()] {
            let mut sse = ask(&daemon, &reader, id, after).await;
            assert_eq!(sse.status, 200, "{id} {}", sse.head);
            let mut blocks = Vec::new();
            let mut words = Vec::new();
            while let Some(block) = sse.next_block().await {
                if block.comment.is_some() || block.name.as_deref() == Some("heartbeat") {
                    continue;
                }
                words.push(block.name.clone());
                if block.name.as_deref() == Some("closing") {
                    blocks.push(block.lines.clone());
                }
            }
            seen.push((after.is_empty(), words, blocks));
        }
    }
    for (first, other) in [(0, [2, 4, 6]), (1, [3, 5, 7])] {
        for other in other {
            assert_eq!(seen[first], seen[other]);
        }
    }
    assert_eq!(seen[0].1.last().unwrap().as_deref(), Some("closing"), "{seen:?}");
    // One that is known does not wait on while another is not.
    let producer = Producer::open(&daemon, "known").await;
    producer.say(&daemon, &["text"]).await;
    let mut sse = read(&daemon, "known,unknown", "").await;
    assert_eq!(next(&mut sse).await.event()["chunk"], "text");
    assert_eq!(next(&mut sse).await.named("closing")["code"], "NOT_FOUND");
    assert_eq!(sse.rest().await, "");
    // An open stream that one may see is waited for as long as it takes.
    let mut sse = read(&daemon, "known", "").await;
    assert_eq!(next(&mut sse).await.event()["chunk"], "text");
    let polled = daemon.get(&format!("{}?wait=3&known=1", path("known"))).send().await;
    assert_eq!(data(&polled, 200)["state"], "open");
    producer.finish(&daemon).await;
    assert_eq!(next(&mut sse).await.event()["is_final"], true);
    assert_eq!(next(&mut sse).await.named("done")["state"], "completed");
}

/// A late joiner reads stored text: neither the other traffic nor the number of chunks makes its answer long.
#[tokio::test]
async fn a_late_joiner_reads_a_long_stream_in_few_events() {
    let mut daemon = many_events().start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut expected = String::new();
    for round in 0..10 {
        let texts: Vec<String> = (0..1_000).map(|number| format!("{round}.{number} ")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        producer.say(&daemon, &texts).await;
        expected.push_str(&texts.concat());
        daemon.publish((0..1_000).map(|n| custom("noise", json!(n))).collect()).await;
    }
    for round in 0..3 {
        let mut sse = read(&daemon, "r", "").await;
        let mut copy = Copy::default();
        while copy.next_index < 10_000 {
            copy.take(&next(&mut sse).await.event());
        }
        assert_eq!(copy.text, expected, "round {round}");
        assert!(copy.events <= 4, "{} events for {} bytes", copy.events, expected.len());
        // From its place it goes on live.
        producer.say(&daemon, &["live"]).await;
        assert_eq!(next(&mut sse).await.event()["chunk"], "live");
        drop(sse);
        expected.push_str("live");
        // The text moves from memory to segments, and over a restart.
        if round == 1 {
            daemon.restart().await;
        }
        if round < 2 {
            let mut again = Copy::default();
            let mut sse = read(&daemon, "r", "").await;
            while again.next_index < 10_001 + round {
                again.take(&next(&mut sse).await.event());
            }
            assert_eq!(again.text, expected);
        }
    }
    producer.finish(&daemon).await;
    let (copy, _) = read_all(&mut read(&daemon, "r", "").await).await;
    assert_eq!(copy.text, expected);
}

#[tokio::test]
async fn a_slow_reader_gets_fewer_and_larger_chunks() {
    let daemon = many_events().start().await;
    let producer = Producer::open(&daemon, "r").await;
    let socket = daemon.small_buffer_connection().await;
    let mut sse = daemon.sse("/api/v1/sse/llm?request_id=r").ask_on(socket).await;
    let mut expected = String::new();
    const CHUNKS: usize = 40_000;
    for some in 0..CHUNKS / 1_000 {
        let texts: Vec<String> = (0..1_000).map(|number| format!("{:08}-{number:08}-", some)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        producer.say(&daemon, &texts).await;
        expected.push_str(&texts.concat());
    }
    producer.finish(&daemon).await;
    let (copy, done) = read_all(&mut sse).await;
    assert_eq!(copy.text, expected);
    assert_eq!((copy.next_index as usize, &done["state"]), (CHUNKS, &json!("completed")));
    assert!(copy.events < CHUNKS / 2, "{} events", copy.events);
}

/// A reader's place outlives the daemon, and what it has of a stream is never taken back.
#[tokio::test]
async fn a_reader_goes_on_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start().await;
    let mut producer = Producer::open(&daemon, "r").await;
    let mut copy = Copy::default();
    for round in 0..6 {
        let mut lines = producer.lines(&daemon).await;
        let next_index = producer.next_index;
        for index in next_index..next_index + 200 {
            lines.line(&json!({"chunk": format!("{index} "), "index": index})).await;
        }
        let mut sse = read(&daemon, "r", &copy.last_id.clone()).await;
        while copy.next_index < next_index + 50 {
            copy.take(&next(&mut sse).await.event());
        }
        daemon.restart().await;
        // Another producer goes on from where the daemon is.
        producer = Producer::take_over(&daemon, &daemon.key, "r").await;
        assert!(producer.next_index >= copy.next_index, "round {round}: a reader has more than is stored");
    }
    producer.finish(&daemon).await;
    let mut sse = read(&daemon, "r", &copy.last_id.clone()).await;
    read_on(&mut sse, &mut copy).await;
    let expected: String = (0..copy.next_index).map(|index| format!("{index} ")).collect();
    assert_eq!(copy.text, expected);
    assert_eq!(producer.get(&daemon).await["text"], expected);
}

/// Report vercel/ai#18457, #13863 and cloudflare/agents#1737: two readers resume at once, beside another stream.
#[tokio::test]
async fn readers_do_not_disturb_each_other() {
    let daemon = Daemon::start().await;
    let earlier = Producer::open(&daemon, "earlier").await;
    earlier.say(&daemon, &["not this"]).await;
    earlier.finish(&daemon).await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["a"]).await;
    let mut first = read(&daemon, "r", "").await;
    let a = next(&mut first).await.event();
    let cursor = a["id"].as_str().unwrap();
    let mut readers = Vec::new();
    for number in 0..20 {
        // Half of them resume, with the same cursor; the others come anew.
        let after = if number % 2 == 0 { cursor } else { "" };
        readers.push((number % 2 == 0, read(&daemon, "r", after).await));
    }
    producer.say(&daemon, &["b"]).await;
    producer.finish(&daemon).await;
    for (resumed, mut sse) in readers {
        let mut copy = Copy::default();
        if resumed {
            copy.take(&a);
        }
        read_on(&mut sse, &mut copy).await;
        assert_eq!(copy.text, "ab");
    }
}

/// Report sockudo#56: when all readers go at once, others still come.
#[tokio::test]
async fn a_mass_disconnect_blocks_nobody() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["a"]).await;
    for _ in 0..3 {
        let many = (0..200).map(|_| read(&daemon, "r", ""));
        let many = futures_util::future::join_all(many).await;
        drop(many);
        let mut sse = read(&daemon, "r", "").await;
        assert_eq!(next(&mut sse).await.event()["chunk"], "a");
    }
    producer.finish(&daemon).await;
    until("the end of all connections", async || {
        (daemon.metric("nervewire_connections").await == 0.0).then_some(())
    })
    .await;
}

/// Report CopilotKit#6980: proxies cut a quiet stream, so it has keep-alive comments.
#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments() {
    let daemon = Daemon::with().env("SSE_KEEPALIVE_SECONDS", 1).start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut sse = read(&daemon, "r", "").await;
    let mut comments = 0;
    while comments < 2 {
        let block = sse.next_block().await.unwrap();
        comments += usize::from(block.comment.as_deref() == Some("heartbeat"));
    }
    producer.finish(&daemon).await;
    assert_eq!(next(&mut sse).await.event()["is_final"], true);
}

#[tokio::test]
async fn without_an_id_all_visible_streams_are_read_live_and_without_end() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("u").await;
    let earlier = Producer::open(&daemon, "earlier").await;
    earlier.say(&daemon, &["before"]).await;
    let mut sse = daemon.sse("/api/v1/sse/llm").key(&user).open().await;
    sse.next().await.named("ready");
    let other = json!({"request_id": "other", "user_id": "other"});
    Producer::open_as(&daemon, &daemon.key, other).await.say(&daemon, &["secret"]).await;
    daemon.publish_messages(&["not a stream"]).await;
    let own = Producer::open_as(&daemon, &user, json!({"request_id": "own"})).await;
    own.say(&daemon, &["mine"]).await;
    own.finish(&daemon).await;
    earlier.say(&daemon, &["after"]).await;
    let texts: Vec<Value> = sse.events(3).await.iter().map(|event| event["chunk"].clone()).collect();
    assert_eq!(texts, ["mine", "", "after"]);
}

/// Who is cut off from an organization's cursor by a new store, or presents a forged one, starts anew and is told so.
#[tokio::test]
async fn an_unknown_cursor_is_a_gap_and_a_new_start() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    producer.say(&daemon, &["a", "b"]).await;
    let mut sse = read(&daemon, "r", "forged").await;
    let gap = sse.next().await.named("gap");
    assert_eq!((&gap["reason"], &gap["after"]), (&json!("unknown_cursor"), &json!("forged")));
    assert_eq!(next(&mut sse).await.event()["chunk"], "ab");
    producer.finish(&daemon).await;
    let ended = ask(&daemon, &daemon.key, "r", "forged").await;
    assert_eq!(ended.status, 200, "{}", ended.head);
}

/// The state outlives the text: who has read it all is still told to stop, and who has not gets the end.
#[tokio::test]
async fn an_ended_stream_without_text_still_ends_its_readers() {
    let mut daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let ids = producer.say(&daemon, &["a", "b"]).await;
    data(&producer.call(&daemon, "fail").json(&json!({"code": "C", "message": "m"})).send().await, 200);
    let (copy, _) = read_all(&mut read(&daemon, "r", "").await).await;
    assert_eq!(daemon.call("DELETE", &path("r")).send().await.status, 204);
    daemon.restart().await; // the events that were live are not in memory any more
    assert_eq!(ask(&daemon, &daemon.key, "r", &copy.last_id).await.status, 204);
    for after in ["", ids[0].as_str()] {
        let mut sse = read(&daemon, "r", after).await;
        let error = next(&mut sse).await.event();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("C")));
        let last = next(&mut sse).await.event();
        assert_eq!((&last["is_final"], &last["index"]), (&json!(true), &json!(2)));
        assert_eq!(next(&mut sse).await.named("done")["state"], "failed");
        assert_eq!(sse.rest().await, "");
    }
}

/// A reader that fell behind while its stream ended and was cleared is not left waiting.
#[tokio::test]
async fn a_blocked_reader_of_a_cleared_stream_ends() {
    let daemon = many_events().start().await;
    let producer = Producer::open(&daemon, "r").await;
    let socket = daemon.small_buffer_connection().await;
    let mut sse = daemon.sse("/api/v1/sse/llm?request_id=r").ask_on(socket).await;
    let text = "x".repeat(32 * KIB);
    for _ in 0..25 {
        producer.say(&daemon, &[text.as_str(); 10]).await;
    }
    producer.finish(&daemon).await;
    assert_eq!(daemon.call("DELETE", &path("r")).send().await.status, 204);
    let mut last = Value::Null;
    loop {
        let block = next(&mut sse).await;
        if block.name.is_some() {
            assert_eq!(block.named("done")["state"], "completed");
            break;
        }
        last = block.event();
    }
    assert_eq!((&last["is_final"], &last["index"]), (&json!(true), &json!(250)));
}

/// Reads one stream over a WebSocket up to `done`.
async fn read_ws(ws: &mut Ws, copy: &mut Copy) -> Value {
    loop {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "done" => return frame,
            "caught_up" => {}
            _ => copy.take(&frame),
        }
    }
}

#[tokio::test]
async fn a_websocket_reads_one_stream_after_the_other_from_their_starts() {
    let daemon = Daemon::start().await;
    let first = Producer::open(&daemon, "1").await;
    first.say(&daemon, &["a", "b"]).await;
    let mut ws = daemon.live_ws("/api/v1/ws?types=message").await;
    let subscribe = |id: &str, after: Option<&str>| {
        let mut frame = json!({"type": "subscribe", "request_id": [id], "from_start": true, "ref": id});
        if let Some(after) = after {
            frame["last_event_id"] = json!(after);
        }
        frame
    };
    let ready = ws.ask(&subscribe("1", None)).await;
    assert_eq!((&ready["type"], &ready["ref"]), (&json!("ready"), &json!("1")));
    let mut copy = Copy::default();
    while copy.next_index < 2 {
        let frame = ws.next_json().await;
        if frame["type"] != "caught_up" {
            copy.take(&frame);
        }
    }
    assert_eq!((copy.text.as_str(), copy.events), ("ab", 1));
    let cursor = copy.last_id.clone();
    first.say(&daemon, &["c"]).await;
    data(&first.call(&daemon, "finish").json(&json!({"finish_reason": "stop"})).send().await, 200);
    let done = read_ws(&mut ws, &mut copy).await;
    let expected = json!({"type": "done", "request_id": "1", "state": "completed", "finish_reason": "stop"});
    assert_eq!(done, expected);
    assert_eq!(copy.text, "abc");

    // Again from a cursor, and from the end, where nothing but `done` is left.
    let mut rest = Copy { next_index: 2, last_id: cursor.clone(), ..Copy::default() };
    ws.ask(&subscribe("1", Some(&cursor))).await;
    assert_eq!(read_ws(&mut ws, &mut rest).await, expected);
    assert_eq!(rest.text, "c");
    ws.ask(&subscribe("1", Some(&copy.last_id))).await;
    assert_eq!(read_ws(&mut ws, &mut Copy::default()).await, expected);

    // Another stream on the same socket, which nobody has opened yet.
    ws.ask(&subscribe("2", None)).await;
    let second = Producer::open(&daemon, "2").await;
    second.say(&daemon, &["x"]).await;
    cancel(&daemon, &daemon.key, "2").await;
    let mut copy = Copy::default();
    assert_eq!(read_ws(&mut ws, &mut copy).await["state"], "cancelled");
    assert_eq!((copy.text.as_str(), &copy.error.unwrap()["code"]), ("x", &json!("CANCELLED")));
    // The socket serves plain subscriptions as before.
    let ready = ws.ask(&json!({"type": "subscribe", "types": ["message"], "ref": 9})).await;
    assert_eq!(ready["ref"], 9);
    daemon.publish_messages(&["hello"]).await;
    assert_eq!(ws.expect("message").await["content"], "hello");
}

#[tokio::test]
async fn a_websocket_that_waits_in_vain_for_a_stream_gets_an_error_and_stays_open() {
    let daemon = Daemon::with().env("STREAMS__UNKNOWN_WAIT_SECONDS", 1).start().await;
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let bare = ws.ask(&json!({"type": "subscribe", "from_start": true, "ref": 1})).await;
    assert_eq!((&bare["type"], &bare["ref"]), (&json!("error"), &json!(1)));
    let unknown = json!({"type": "subscribe", "request_id": ["unknown"], "from_start": true, "ref": 2});
    assert_eq!(ws.ask(&unknown).await["type"], "ready");
    let refused = loop {
        let frame = ws.next_json().await;
        if frame["type"] != "caught_up" {
            break frame;
        }
    };
    assert_eq!(
        (&refused["type"], &refused["code"], &refused["ref"]),
        (&json!("error"), &json!("NOT_FOUND"), &json!(2))
    );
    assert_eq!(ws.ask(&json!({"type": "ping"})).await["type"], "pong");
}

/// The later subscription counts: a stream that was read before sends no `done` into the next one.
#[tokio::test]
async fn a_websocket_that_changes_its_mind_reads_the_new_streams_alone() {
    let daemon = Daemon::start().await;
    let old = Producer::open(&daemon, "old").await;
    let new = Producer::open(&daemon, "new").await;
    old.say(&daemon, &["of the old one"]).await;
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    for id in ["old", "new"] {
        ws.send(&json!({"type": "subscribe", "request_id": [id], "from_start": true, "ref": id})).await;
    }
    while ws.next_json().await["ref"] != "new" {}
    old.finish(&daemon).await;
    new.say(&daemon, &["x"]).await;
    new.finish(&daemon).await;
    let mut copy = Copy::default();
    assert_eq!(read_ws(&mut ws, &mut copy).await["request_id"], "new");
    assert_eq!(copy.text, "x");
}
