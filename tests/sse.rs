//! Event streams for clients (protocol §6): the head, the fields of each event, keep-alives, positions,
//! refusals, HTTP/1.0, HTTP/1.1 and HTTP/2, and payloads that try to forge a field.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use bytes::Bytes;
use common::sse::{Block, Sse};
use common::{Daemon, chunk, custom, is_timestamp, message, within};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nervewire_client::SseParser;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn retry_and_ready_are_sent_with_the_head() {
    let daemon = Daemon::with().env("SSE_KEEPALIVE_SECONDS", 17).start().await;
    let ids = daemon.publish_messages(&["before"]).await;
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let request = daemon.sse("/api/v1/sse").header("x-request-id", "mine");
    stream.write_all(request.head().as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4_096];
    let n = within("the answer", stream.read(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes[..n].to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let head = head.to_ascii_lowercase();
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "connection: close",
        "transfer-encoding: chunked",
        "x-request-id: mine",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert!(!head.contains("content-length"), "{head}");
    let body = body.strip_prefix("c\r\nretry: 2000\n\r\n").unwrap_or_else(|| panic!("{body:?}"));
    let (length, rest) = body.split_once("\r\n").unwrap();
    let rest = rest.strip_suffix("\r\n").unwrap();
    assert_eq!(length, format!("{:x}", rest.len()));
    let rest = rest
        .strip_prefix(&format!("event: ready\nid: {}\ndata: ", ids[0]))
        .unwrap_or_else(|| panic!("{rest:?}"));
    let ready: Value = serde_json::from_str(rest.strip_suffix("\n\n").unwrap()).unwrap();
    assert_eq!(
        (&ready["type"], &ready["cursor"], &ready["resumed"]),
        (&json!("ready"), &json!(ids[0]), &json!(false))
    );
    assert_eq!((&ready["replaying"], &ready["heartbeat_seconds"]), (&json!(0), &json!(17)));
}

#[tokio::test]
async fn events_are_unnamed_and_control_frames_have_names_and_ids() {
    let daemon = Daemon::start().await;
    let ids = daemon.publish_messages(&["a", "b"]).await;
    let lines = |block: &Block| {
        block.lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };

    let mut sse = daemon.sse("/api/v1/sse?last_event_id=forged").open().await;
    let ready = sse.next_block().await.unwrap();
    assert_eq!(lines(&ready), ["retry:", "event:", "id:", "data:"]);
    assert_eq!(ready.id.as_deref(), Some(ids[1].as_str()));
    let gap = sse.next_block().await.unwrap();
    assert_eq!(lines(&gap), ["event:", "id:", "data:"]);
    let data = gap.named("gap");
    assert_eq!((&data["reason"], &data["resumes_at"]), (&json!("unknown_cursor"), &json!(gap.id.unwrap())));
    let caught_up = sse.next_block().await.unwrap();
    assert_eq!(lines(&caught_up), ["event:", "id:", "data:"]);
    assert_eq!(caught_up.named("caught_up")["cursor"], caught_up.id.unwrap());

    let mut sse = daemon.sse("/api/v1/sse").last_event_id(&ids[0]).open().await;
    sse.next().await.named("ready");
    let event = sse.next_block().await.unwrap();
    assert_eq!(event.lines[0], format!("id: {}", ids[1]));
    assert!(event.lines[1].starts_with("data: {") && event.lines.len() == 2, "{event:?}");
    assert_eq!(event.event()["content"], "b");
    sse.next().await.named("caught_up");
}

#[tokio::test]
async fn a_keep_alive_is_a_comment_without_a_blank_line() {
    let daemon = Daemon::with().env("SSE_KEEPALIVE_SECONDS", 1).start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    for _ in 0..2 {
        let block = sse.next_block().await.unwrap();
        assert_eq!(block.comment.as_deref().map(str::trim), Some("heartbeat"));
        assert_eq!(sse.chunks().last().map(String::as_str), Some(": heartbeat\n"));
    }
    daemon.publish_messages(&["right behind"]).await;
    assert_eq!(sse.next_event().await["content"], "right behind");
}

#[tokio::test]
async fn the_cursor_of_a_selective_subscriber_advances() {
    let daemon = Daemon::with().env("SSE_KEEPALIVE_SECONDS", 1).start().await;
    let mut selective = daemon.live_sse("/api/v1/sse?channel=mine").await;
    let mut always = daemon.live_sse("/api/v1/sse?heartbeat=event&channel=never").await;
    let mut ids = Vec::new();
    for n in 0..2 {
        ids.push(daemon.publish(custom("others", json!(n))).await.remove(0));
        loop {
            let block = selective.next_block().await.unwrap();
            if block.comment.is_some() {
                continue;
            }
            let data = block.named("heartbeat");
            assert_eq!((&data["type"], &data["cursor"]), (&json!("heartbeat"), &json!(block.id)));
            assert!(is_timestamp(data["timestamp"].as_str().unwrap()));
            assert_eq!(block.id.as_deref(), Some(ids[n].as_str()));
            break;
        }
        let quiet = selective.next_block().await.unwrap();
        assert_eq!(quiet.comment.as_deref(), Some("heartbeat"), "nothing moved since");
    }
    for _ in 0..2 {
        always.next_block().await.unwrap().named("heartbeat");
    }
    // The newer cursor resumes without the skipped events and without a gap.
    let mine = daemon.publish(custom("mine", json!(1))).await;
    let mut back =
        daemon.sse("/api/v1/sse?channel=mine").last_event_id(&selective.last_event_id).open().await;
    let ready = back.next().await.named("ready");
    assert_eq!(ready["resumed"], true);
    assert_eq!(back.next_event().await["id"], mine[0].as_str());
    back.next().await.named("caught_up");
}

#[tokio::test]
async fn start_positions_have_a_precedence_and_empty_ones_are_ignored() {
    let daemon = Daemon::start().await;
    let ids = daemon.publish_messages(&["a", "b", "c"]).await;
    let (old, future) = ("since=2020-01-01T00:00:00Z", "since=2090-01-01T00:00:00Z");
    // The header, the query, and the expected events. `None` is a live stream without a position.
    type Case<'a> = (Option<&'a str>, String, Option<&'a [&'a str]>);
    let cases: [Case<'_>; 14] = [
        (None, String::new(), None),
        (Some(""), "last_event_id=&after=&since=&earliest=".into(), None),
        (None, "earliest=false".into(), None),
        (None, "earliest=true".into(), Some(&["a", "b", "c"])),
        (Some(""), "earliest=true&after=&since=".into(), Some(&["a", "b", "c"])),
        (None, format!("earliest=true&{future}"), Some(&[])),
        (None, format!("earliest=false&{old}"), Some(&["a", "b", "c"])),
        (None, format!("{future}&last_event_id={}", ids[0]), Some(&["b", "c"])),
        (None, format!("{old}&earliest=true&after={}", ids[1]), Some(&["c"])),
        (Some(&ids[0]), format!("after={}", ids[1]), Some(&["b", "c"])),
        (Some(&ids[1]), format!("last_event_id={}&{old}&earliest=true", ids[2]), Some(&["c"])),
        (Some(&ids[2]), "earliest=true".into(), Some(&[])),
        (Some(""), format!("after={}", ids[1]), Some(&["c"])),
        (None, format!("since={}", "2020-01-01T01:00:00%2B01:00"), Some(&["a", "b", "c"])),
    ];
    let mut open = Vec::new();
    for (header, query, expected) in &cases {
        let mut request = daemon.sse(&format!("/api/v1/sse?{query}"));
        let mut poll = daemon.get(&format!("/api/v1/events?{query}"));
        if let Some(header) = header {
            (request, poll) = (request.last_event_id(header), poll.header("last-event-id", *header));
        }
        let mut sse = request.open().await;
        sse.next().await.named("ready");
        let page = poll.send().await.json();
        let polled: Vec<&str> =
            page["data"].as_array().unwrap().iter().map(|event| event["content"].as_str().unwrap()).collect();
        assert_eq!(
            (polled.as_slice(), &page["gap"]),
            (expected.unwrap_or_default(), &Value::Null),
            "{header:?} {query}"
        );
        assert_eq!(page["next_cursor"], ids[2].as_str(), "{header:?} {query}");
        for content in expected.unwrap_or_default() {
            assert_eq!(sse.next_event().await["content"], *content, "{header:?} {query}");
        }
        if expected.is_some() {
            sse.next().await.named("caught_up");
        }
        open.push(sse);
    }
    daemon.publish_messages(&["live"]).await;
    for (sse, (header, query, _)) in open.iter_mut().zip(&cases) {
        assert_eq!(sse.next_event().await["content"], "live", "{header:?} {query}");
    }
    for bad in [
        "since=noon",
        "since=2020-13-01T00:00:00Z",
        "since=1700000000",
        "earliest=maybe",
        "types=nope",
        "colour=red",
    ] {
        for path in ["/api/v1/sse", "/api/v1/sse/llm", "/api/v1/events"] {
            daemon.get(&format!("{path}?{bad}")).send().await.refused(400, "BAD_REQUEST");
        }
    }
    daemon.get("/api/v1/sse?heartbeat=loud").send().await.refused(400, "BAD_REQUEST");
}

#[tokio::test]
async fn an_accept_that_excludes_event_streams_is_406() {
    let daemon = Daemon::start().await;
    for no in [
        "application/json",
        "text/html, application/xhtml+xml",
        "text/event-stream;q=0",
        "text/event-stream; q=0.0",
    ] {
        let reply = daemon.get("/api/v1/sse").header("accept", no).send().await;
        assert_eq!(reply.status, 406, "{no}");
        assert!(reply.json()["code"].is_string(), "{reply:?}");
    }
    for yes in [
        "text/event-stream",
        "text/*",
        "*/*",
        "application/json, text/event-stream;q=0.5",
        "TEXT/Event-Stream",
    ] {
        let mut sse = daemon.sse("/api/v1/sse").header("accept", yes).open().await;
        sse.next().await.named("ready");
    }
    daemon.sse("/api/v1/sse").without("accept").open().await.next().await.named("ready");
    let reply = daemon.post("/api/v1/sse").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET")));
}

/// Checks a refusal that makes an `EventSource` reconnect: 200, `retry`, `closing`, the end.
async fn asked_to_reconnect(mut sse: Sse, code: &str) {
    assert_eq!((sse.status, sse.header("content-type")), (200, Some("text/event-stream")), "{}", sse.head);
    let closing = sse.next_block().await.unwrap();
    let wait: u64 = closing.retry.as_deref().unwrap().parse().unwrap();
    assert!((1_000..120_000).contains(&wait), "{wait}");
    let error = closing.named("closing");
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
    assert_eq!(closing.id, None, "the client's own cursor stays");
    assert_eq!(sse.next_block().await, None);
}

#[tokio::test]
async fn a_capacity_refusal_is_an_event_for_clients_that_accept_event_streams() {
    let daemon = Daemon::with()
        .env("LIMITS__CONNECTIONS_PER_USER", 1)
        .env("AUTH__FAILURES_PER_MINUTE", 2)
        .start()
        .await;
    let ann = daemon.user_token("ann").await;
    let mut first = daemon.sse("/api/v1/sse").key(&ann).open().await;
    first.next().await.named("ready");
    asked_to_reconnect(daemon.sse("/api/v1/sse").key(&ann).ask().await, "QUOTA_EXCEEDED").await;
    asked_to_reconnect(daemon.sse("/api/v1/sse/llm").key(&ann).ask().await, "QUOTA_EXCEEDED").await;
    let reply = daemon.get("/api/v1/sse").key(&ann).header("accept", "*/*").send().await;
    reply.refused(429, "QUOTA_EXCEEDED");
    assert!(reply.header("retry-after").is_some());
    daemon.get("/api/v1/events?wait=1").key(&ann).send().await.refused(429, "QUOTA_EXCEEDED");
    let now = daemon.get("/api/v1/events").key(&ann).send().await;
    assert_eq!(now.status, 200, "a poll that does not wait is no connection");
    // A wrong credential, and too many of them, are still answered with a status.
    for status in [401, 401, 429, 429] {
        assert_eq!(daemon.sse("/api/v1/sse").key("nonsense").ask().await.status, status);
    }
}

#[tokio::test]
async fn a_full_daemon_refuses_with_an_event() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS_PER_ORGANIZATION", 2).start().await;
    let _first = daemon.live_sse("/api/v1/sse").await;
    let _second = daemon.live_ws("/api/v1/ws").await;
    asked_to_reconnect(daemon.sse("/api/v1/sse").ask().await, "QUOTA_EXCEEDED").await;
    daemon.ws("/api/v1/ws").refused().await.refused(429, "QUOTA_EXCEEDED");
    // Another organization has its own permits.
    let other = daemon.create_org("other").await;
    daemon.sse("/api/v1/sse").key(&other).open().await.next().await.named("ready");
}

#[tokio::test]
async fn the_llm_stream_carries_only_chunks_and_stream_errors() {
    let daemon = Daemon::start().await;
    let mut all = daemon.live_sse("/api/v1/sse/llm").await;
    let mut one = daemon.live_sse("/api/v1/sse/llm?request_id=r1,r3").await;
    let error = |request: Option<&str>| match request {
        Some(request) => json!({"type": "error", "code": "C", "message": "m", "request_id": request}),
        None => json!({"type": "error", "code": "C", "message": "m"}),
    };
    let ids = daemon
        .publish(json!([
            message("no"),
            chunk("r1", "a", 0),
            custom("no", json!(1)),
            chunk("r2", "b", 0),
            error(None),
            error(Some("r2")),
            error(Some("r1")),
            json!({"type": "stream_chunk", "request_id": "r3", "chunk": "", "is_final": true}),
        ]))
        .await;
    let id = |event: &Value| ids.iter().position(|id| event["id"] == id.as_str()).unwrap();
    assert_eq!(all.events(5).await.iter().map(id).collect::<Vec<_>>(), [1, 3, 5, 6, 7]);
    assert_eq!(one.events(3).await.iter().map(id).collect::<Vec<_>>(), [1, 6, 7]);
    let mut back = daemon.sse("/api/v1/sse/llm?request_id=r1").last_event_id(&ids[1]).open().await;
    back.next().await.named("ready");
    assert_eq!(id(&back.next_event().await), 6);
    back.next().await.named("caught_up");
}

/// Some clients deliver an event when its chunk is complete, so no event may wait for bytes of the next one.
#[tokio::test]
async fn over_http_1_1_each_event_is_whole_chunks_and_the_stream_ends_with_the_last_chunk() {
    let daemon = Daemon::start().await;
    let ids = daemon.publish_messages(&["a", "b"]).await;
    let mut sse = daemon.sse("/api/v1/sse").last_event_id(&ids[0]).open().await;
    assert_eq!(sse.header("transfer-encoding"), Some("chunked"), "{}", sse.head);
    let ready = sse.next().await.named("ready");
    assert_eq!(sse.next_event().await["content"], "b");
    sse.next().await.named("caught_up");
    for content in ["c", "\u{e9}\r\n0\r\n\r\n", &"d".repeat(40_000)] {
        daemon.publish_messages(&[content]).await;
        assert_eq!(sse.next_event().await["content"], content);
        let last = sse.chunks().last().unwrap();
        assert!(last.starts_with("id: ") && last.ends_with("}\n\n"), "{last:?}");
    }
    let connection = ready["connection_id"].as_str().unwrap();
    daemon.call("DELETE", &format!("/api/v1/connections/{connection}")).send().await;
    sse.next().await.named("closing");
    assert_eq!(sse.next_block().await, None);
    assert!(sse.ended_whole(), "the last chunk says that nothing was cut off");
}

/// A slow reader gets every event in whole chunks, however its socket splits them, including merged stream
/// chunks.
#[tokio::test]
async fn a_reader_that_was_blocked_gets_whole_chunks() {
    let daemon = Daemon::with().env("LIMITS__UNSENT_BYTES", 16_384).start().await;
    let mut stream = daemon.small_buffer_connection().await;
    stream.write_all(daemon.sse("/api/v1/sse").head().as_bytes()).await.unwrap();
    let mut sse = Sse::read_head(stream, Vec::new()).await;
    sse.next().await.named("ready");
    let text = "x".repeat(900);
    let mut expected = String::new();
    for batch in 0..40_u64 {
        let events: Vec<Value> = (0..100).map(|n| chunk("r", &text, batch * 100 + n)).collect();
        daemon.publish(json!(events)).await;
        expected.push_str(&text.repeat(100));
    }
    let mut got = String::new();
    while got.len() < expected.len() {
        got.push_str(sse.next_event().await["chunk"].as_str().unwrap());
    }
    assert!(got == expected);
}

#[tokio::test]
async fn http_1_0_gets_plain_bytes() {
    let daemon = Daemon::start().await;
    let ids = daemon.publish_messages(&["a", "b"]).await;
    let mut sse = daemon.sse("/api/v1/sse").last_event_id(&ids[0]).http10().open().await;
    assert_eq!(sse.header("transfer-encoding"), None, "{}", sse.head);
    sse.next().await.named("ready");
    assert_eq!(sse.next_event().await["content"], "b");
    sse.next().await.named("caught_up");
    daemon.publish_messages(&["c"]).await;
    assert_eq!(sse.next_event().await["content"], "c");
}

struct H2 {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    host: String,
    key: String,
}

impl H2 {
    async fn connect(daemon: &Daemon) -> H2 {
        let stream = TcpStream::connect(daemon.addr()).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        H2 { sender, host: daemon.addr().to_string(), key: daemon.key.clone() }
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> http::Response<Incoming> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.host))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        within("an answer over HTTP/2", self.sender.send_request(request)).await.unwrap()
    }
}

#[tokio::test]
async fn http_2_carries_rest_and_many_streams_over_one_connection() {
    let daemon = Daemon::start().await;
    let mut h2 = H2::connect(&daemon).await;
    let json_type = [("content-type", "application/json")];
    let reply = h2.send("POST", "/api/v1/events", &json_type, &json!([message("a"), message("b")])).await;
    assert_eq!((reply.status().as_u16(), reply.version()), (201, http::Version::HTTP_2));
    let body = within("the body", reply.into_body().collect()).await.unwrap().to_bytes();
    let ids: Value = serde_json::from_slice(&body).unwrap();
    let first = ids["data"]["ids"][0].as_str().unwrap().to_owned();

    let mut streams = Vec::new();
    for channel in ["x", "y", "z"] {
        let path = format!("/api/v1/sse?types=message,custom&channel={channel}");
        let reply = h2.send("GET", &path, &[("accept", "text/event-stream")], &Value::Null).await;
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert!(!reply.headers().contains_key("connection"));
        streams.push(H2Stream::new(reply.into_body()));
    }
    let reply = h2.send("GET", "/api/v1/sse", &[("last-event-id", &first)], &Value::Null).await;
    let mut replay = H2Stream::new(reply.into_body());
    assert_eq!(replay.next().await.0, "ready");
    assert_eq!(replay.next().await.1["content"], "b");
    assert_eq!(replay.next().await.0, "caught_up");
    for stream in &mut streams {
        assert_eq!(stream.next().await.0, "ready");
    }
    for (at, channel) in ["x", "y", "z"].iter().enumerate() {
        let id = daemon.publish(custom(channel, json!(at))).await.remove(0);
        let (name, event, last) = streams[at].next().await;
        assert_eq!(
            (name.as_str(), &event["channel"], last.as_str()),
            ("message", &json!(channel), id.as_str())
        );
        assert_eq!(replay.next().await.2, id);
    }
    drop(streams.remove(0)); // a reset stream does not end the connection
    daemon.publish(custom("y", json!("again"))).await;
    assert_eq!(streams[0].next().await.1["data"], "again");
    let reply = h2.send("GET", "/api/v1/nowhere", &[], &Value::Null).await;
    assert_eq!(reply.status(), 404);
    let reply = h2.send("GET", "/api/v1/ws", &[], &Value::Null).await;
    assert_eq!(reply.status(), 426, "a WebSocket needs HTTP/1.1");
}

#[tokio::test]
async fn a_slow_http_2_reader_gets_everything_in_order() {
    let daemon = Daemon::start().await;
    let mut h2 = H2::connect(&daemon).await;
    let reply = h2.send("GET", "/api/v1/sse", &[], &Value::Null).await;
    let mut slow = H2Stream::new(reply.into_body());
    assert_eq!(slow.next().await.0, "ready");
    let text = "x".repeat(2_000);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.extend(daemon.publish((0..200).map(|_| custom("c", json!(text))).collect()).await);
    }
    for id in ids {
        assert_eq!(slow.next().await.2, id);
    }
}

/// An event stream in an HTTP/2 body.
struct H2Stream {
    body: Incoming,
    parser: SseParser,
    events: std::collections::VecDeque<(String, Value, String)>,
}

impl H2Stream {
    fn new(body: Incoming) -> H2Stream {
        H2Stream { body, parser: SseParser::new(""), events: Default::default() }
    }

    /// The name, data and id of the next event.
    async fn next(&mut self) -> (String, Value, String) {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let frame = within("an event over HTTP/2", self.body.frame()).await.expect("more").unwrap();
            let mut events = Vec::new();
            self.parser.push(frame.data_ref().unwrap(), &mut events).unwrap();
            let read =
                events.into_iter().map(|it| (it.event, serde_json::from_str(&it.data).unwrap(), it.id));
            self.events.extend(read.filter(|(name, ..)| name != "heartbeat"));
        }
    }
}

#[tokio::test]
async fn requests_pipelined_before_a_stream_are_answered_first_and_later_ones_are_dropped() {
    let daemon = Daemon::start().await;
    let event = message("pipelined").to_string();
    let post = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{event}",
        daemon.key,
        event.len()
    );
    let get = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let ask = daemon.sse("/api/v1/sse?earliest=true").head();
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.write_all(format!("{get}{post}{get}{ask}{get}").as_bytes()).await.unwrap();
    let mut answer = Sse::read_head(stream, Vec::new()).await;
    for status in [200, 201, 200] {
        assert_eq!(answer.status, status, "{}", answer.head);
        let body = answer.body().await;
        assert!(body.starts_with('{'), "{body}");
        answer = answer.next_answer().await;
    }
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    answer.next().await.named("ready");
    assert_eq!(answer.next_event().await["content"], "pipelined");
    answer.next().await.named("caught_up");
    daemon.publish_messages(&["live"]).await;
    assert_eq!(
        answer.next_event().await["content"],
        "live",
        "the request behind the stream is not answered in it"
    );
}

#[tokio::test]
async fn no_payload_can_forge_an_sse_field() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    for evil in [
        "\n\nid: 9\n\n",
        "\r\rid: 9\r\r",
        "\r\n\r\nevent: ready\r\ndata: {}\r\n\r\n",
        "\ndata: {\"type\":\"message\"}\n\n",
        "\u{2028}id: 9\u{2029}\u{85}id: 9\u{b}\u{c}",
        "\0\u{1}\u{7f}",
        "\u{feff}retry: 1\n",
        "\\n\\nid: 9",
        ": heartbeat",
    ] {
        let events = json!([
            {"type": "message", "agent_id": "a", "user_id": "u", "content": evil, "metadata": {evil: [evil, {evil: evil}]}},
            {"type": "agent_update", "agent_id": "a", "status": "error", "error_message": evil},
            {"type": "stream_chunk", "request_id": "r", "chunk": evil, "is_final": false, "metadata": {"k": evil}},
            {"type": "error", "code": "C", "message": evil, "request_id": "r"},
            {"type": "custom", "channel": "c", "data": {evil: evil}},
            {"type": "custom", "channel": "c", "data": evil},
        ]);
        let ids = daemon.publish(events.clone()).await;
        for (sent, id) in events.as_array().unwrap().iter().zip(&ids) {
            let block = sse.next_block().await.unwrap();
            assert_eq!(block.lines.len(), 2, "{block:?}");
            assert_eq!(block.lines[0], format!("id: {id}"));
            assert!(block.lines[1].starts_with("data: {"));
            let got = block.event();
            for (name, value) in sent.as_object().unwrap() {
                assert_eq!(got[name], *value, "{name} of {sent}");
            }
        }
        // Ids may become part of cursors and indexes, so they contain no control characters.
        if evil.contains(char::is_control) {
            for field in ["agent_id", "user_id", "message_id"] {
                let mut event = message("x");
                event[field] = evil.into();
                daemon.post("/api/v1/events").json(&event).send().await.refused(400, "VALIDATION_ERROR");
            }
        }
    }
    // Insignificant white space in free JSON is removed.
    let spaced = "{\"type\":\"custom\",\"channel\":\"c\",\"data\":{\n\n\"id\":\r\n9\r}\n\n}";
    let reply = daemon.post("/api/v1/events").body("application/json", spaced).send().await;
    assert_eq!(reply.status, 201);
    let block = sse.next_block().await.unwrap();
    assert_eq!((block.lines.len(), &block.event()["data"]), (2, &json!({"id": 9})));
    // The cursor that a client sent is returned in `gap`, truncated and escaped.
    let presented = "%0A%0Aid:%209%0Adata:%20x".to_owned() + &"y".repeat(100);
    let mut sse = daemon.sse(&format!("/api/v1/sse?after={presented}")).open().await;
    sse.next_block().await.unwrap().named("ready");
    let gap = sse.next_block().await.unwrap();
    assert_eq!(gap.lines.len(), 3, "{gap:?}");
    let after = gap.named("gap")["after"].as_str().unwrap().to_owned();
    assert!(after.starts_with("\n\nid: 9\ndata: x") && after.len() == 64, "{after:?}");
}
