//! Producer and reader against a small daemon that keeps streams as protocol §8 says, and fails on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::timeout;

use crate::sync::lock;
use crate::{
    Backoff, Client, ClientError, ListOptions, OpenStream, PartType, StreamEnd, StreamError, StreamFailure,
    StreamFilter, StreamItem, StreamPart, StreamState, StreamText, StreamWriter,
};

/// Longest wait for anything before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Waits of milliseconds: these tests check what happens, not when.
const SOON: Backoff = Backoff {
    initial: Duration::from_millis(2),
    max: Duration::from_millis(5),
    max_requested: Duration::from_millis(5),
    max_attempts: 6,
    random: || 0,
};

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    None,
    /// The connection is lost before the daemon has the request.
    LoseRequest,
    /// The connection is lost after the daemon has carried out the request.
    LoseResponse,
    /// The daemon refuses with this status and code.
    Refuse(u16, &'static str),
    /// The daemon restarts before the request, and no longer knows the producer's token.
    ForgetToken,
    /// The daemon never answers.
    Hang,
}

/// The daemon's only stream.
#[derive(Default)]
struct State {
    request_id: String,
    generation: u64,
    token: String,
    lease_seconds: u64,
    state: String,
    /// Text and part of each chunk.
    chunks: Vec<(String, Value)>,
    end: Value,
    /// Faults of the next requests that change something, in order; `None` beyond them.
    faults: VecDeque<Fault>,
    /// Method and path of all requests.
    requests: Vec<String>,
    /// The bodies of `POST /streams`.
    openings: Vec<Value>,
    /// Whole responses of the next SSE requests, and the cursors that those presented.
    sse: VecDeque<Vec<u8>>,
    cursors: Vec<String>,
}

impl State {
    fn text(&self) -> String {
        self.chunks.iter().map(|(text, _)| text.as_str()).collect()
    }

    fn info(&self) -> Value {
        let error = self.end.get("code").map(|_| self.end.clone());
        json!({"request_id": self.request_id, "agent_id": null, "user_id": null, "metadata": null,
            "state": self.state, "generation": self.generation, "next_index": self.chunks.len(),
            "text_bytes": self.text().len(), "opened_at": "t", "ended_at": null,
            "finish_reason": self.end.get("finish_reason"), "usage": self.end.get("usage"), "error": error,
            "lease_seconds": self.lease_seconds, "text": self.text(), "offset": 0})
    }

    fn count(&self, name: &str) -> usize {
        self.requests.iter().filter(|request| request.contains(name)).count()
    }

    /// Carries out a request that changes something.
    fn carry_out(&mut self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        if path == "/api/v1/streams" {
            return self.open(body);
        }
        let (_, verb) = path.rsplit_once('/').unwrap();
        if verb != "cancel" {
            if token != self.token {
                // The fake daemon's tokens begin with their generation.
                let older = token.split('.').next().unwrap().parse().is_ok_and(|n: u64| n < self.generation);
                return if older { refusal(409, "STREAM_FENCED") } else { refusal(401, "UNAUTHORIZED") };
            }
            match self.state.as_str() {
                "open" => {}
                "cancelled" => return refusal(409, "STREAM_CANCELLED"),
                "abandoned" => return refusal(409, "STREAM_ABANDONED"),
                _ => return refusal(409, "STREAM_ENDED"),
            }
        }
        match verb {
            "chunks" => {
                for chunk in body.as_array().unwrap() {
                    let (index, next) = (chunk["index"].as_u64().unwrap(), self.chunks.len() as u64);
                    if index > next {
                        let mut refusal = refusal(409, "CONFLICT");
                        refusal.1["details"] = json!({ "expected_index": next });
                        return refusal;
                    }
                    if index == next {
                        let text = chunk["chunk"].as_str().unwrap().to_owned();
                        self.chunks.push((text, chunk.get("part").cloned().unwrap_or_default()));
                    }
                }
                let next_index = self.chunks.len();
                return (200, json!({"data": {"next_index": next_index, "ids": [], "durable": true}}));
            }
            "finish" => (self.state, self.end) = ("completed".into(), body.clone()),
            "fail" => (self.state, self.end) = ("failed".into(), body.clone()),
            "cancel" => {
                self.state = "cancelled".into();
                let reason = body["reason"].as_str().unwrap_or("the stream was cancelled");
                self.end = json!({"code": "CANCELLED", "message": reason});
            }
            _ => {}
        }
        (200, json!({ "data": self.info() }))
    }

    fn open(&mut self, body: &Value) -> (u16, Value) {
        self.openings.push(body.clone());
        let takeover = body["takeover"] == true;
        if self.generation > 0 && !takeover {
            return refusal(409, "CONFLICT");
        }
        self.generation += 1;
        self.request_id = body["request_id"].as_str().unwrap_or("stream-1").to_owned();
        self.state = "open".into();
        self.token = format!("{}.token", self.generation);
        let opened = json!({"request_id": self.request_id, "producer_token": self.token,
            "generation": self.generation, "next_index": self.chunks.len(),
            "lease_seconds": self.lease_seconds});
        (if self.generation == 1 { 201 } else { 200 }, json!({"data": opened, "success": true}))
    }
}

fn refusal(status: u16, code: &str) -> (u16, Value) {
    (status, json!({"code": code, "message": "no", "details": null, "timestamp": "t"}))
}

struct Daemon {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Daemon {
    async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { lease_seconds: 60, faults: faults.into_iter().collect(), ..State::default() };
        let (state, changed) = (Arc::new(Mutex::new(state)), Arc::new(Notify::new()));
        let shared = (state.clone(), changed.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, changed) = shared.clone();
                tokio::spawn(serve(stream, state, changed));
            }
        });
        Self { addr, state, changed, serving }
    }

    fn client(&self) -> Client {
        let endpoint = format!("http://{}", self.addr).parse().unwrap();
        Client::builder(endpoint).credential("key").backoff(SOON).build()
    }

    async fn writer(&self) -> StreamWriter {
        let open = OpenStream { request_id: Some("r/1".into()), ..OpenStream::default() };
        within(self.client().open_stream(open)).await.unwrap()
    }

    /// Changes the state, as requests of others or a restart do.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut lock(&self.state));
        self.changed.notify_waiters();
        changed
    }

    /// Waits until `condition` holds.
    async fn until(&self, condition: impl Fn(&State) -> bool) {
        within(async {
            loop {
                let changed = self.changed.notified();
                if condition(&lock(&self.state)) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

/// Serves the requests of a connection.
async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(n, _)| *n == name).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
        };
        let length: usize = header("content-length").parse().unwrap_or(0);
        while bytes.len() < length {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        let body: Vec<u8> = bytes.drain(..length).collect();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        lock(&state).requests.push(format!("{method} {path}"));
        changed.notify_waiters();
        if path.starts_with("/api/v1/sse") {
            let response = {
                let mut state = lock(&state);
                state.cursors.push(header("last-event-id"));
                state.sse.pop_front()
            };
            // A daemon without another response is down.
            if let Some(response) = response {
                let _ = stream.write_all(&response).await; // the reader may be gone
            }
            return;
        }
        let (status, body) = if method == "GET" {
            poll(&state, &changed, &path).await
        } else {
            let fault = lock(&state).faults.pop_front().unwrap_or(Fault::None);
            match fault {
                Fault::LoseRequest => return,
                Fault::Hang => return std::future::pending().await,
                Fault::Refuse(status, code) => refusal(status, code),
                Fault::None | Fault::LoseResponse | Fault::ForgetToken => {
                    let token = header("x-producer-token");
                    let answer = {
                        let mut state = lock(&state);
                        if fault == Fault::ForgetToken {
                            state.token.clear();
                        }
                        state.carry_out(&path, &token, &body)
                    };
                    changed.notify_waiters();
                    if fault == Fault::LoseResponse {
                        return;
                    }
                    answer
                }
            }
        };
        let body = body.to_string();
        let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// `GET` of a list or of the stream, with its long poll.
async fn poll(state: &Mutex<State>, changed: &Notify, path: &str) -> (u16, Value) {
    if path.split('?').next().unwrap().ends_with("/streams") {
        return (200, json!({"data": [lock(state).info()], "next_cursor": null, "success": true}));
    }
    let known = path.split_once("known=").map(|(_, known)| known.parse::<usize>().unwrap());
    loop {
        let notified = changed.notified();
        {
            let state = lock(state);
            if known != Some(state.chunks.len()) || state.state != "open" {
                return (200, json!({"data": state.info(), "success": true}));
            }
        }
        notified.await;
    }
}

/// Words of several bytes a character, so that no cut of the text is harmless.
fn words() -> Vec<String> {
    (0..200).map(|n| format!("wört{n}€😀 ")).collect()
}

#[tokio::test]
async fn text_is_exact_although_requests_and_responses_are_lost() {
    let all = [
        Fault::LoseResponse,
        Fault::None,
        Fault::LoseRequest,
        Fault::Refuse(503, "UNAVAILABLE"),
        Fault::LoseResponse,
        Fault::LoseResponse,
        Fault::Refuse(429, "QUOTA_EXCEEDED"),
        Fault::ForgetToken,
        Fault::None,
        Fault::LoseRequest,
    ];
    let daemon = Daemon::start([]).await;
    let mut writer = daemon.writer().await;
    daemon.change(|state| state.faults = all.iter().cycle().take(400).cloned().collect());
    let reasoning = StreamPart::new(PartType::Reasoning, "r");
    for (n, word) in words().iter().enumerate() {
        if n % 3 == 0 {
            within(writer.append_part(word, &reasoning)).await.unwrap();
        } else {
            within(writer.append(word)).await.unwrap();
        }
        if n % 10 == 0 {
            within(writer.flush()).await.unwrap();
            assert_eq!(daemon.change(|state| state.chunks.len()), n + 1, "flush waits for the daemon");
        }
    }
    let usage = json!({"output_tokens": 200}).as_object().unwrap().clone();
    within(writer.finish(Some("stop"), Some(usage))).await.unwrap();
    daemon.change(|state| {
        assert_eq!(state.chunks.len(), 200);
        for (n, (word, (text, part))) in words().iter().zip(&state.chunks).enumerate() {
            assert_eq!(word, text);
            assert_eq!(*part, if n % 3 == 0 { json!({"type": "reasoning", "id": "r"}) } else { Value::Null });
        }
        assert_eq!(state.state, "completed");
        assert_eq!(state.end, json!({"finish_reason": "stop", "usage": {"output_tokens": 200}}));
        assert!(state.count("/chunks") > 40 && state.generation > 1, "the faults happened");
        assert!(state.requests.contains(&"POST /api/v1/streams/r%2F1/finish".into()), "{:?}", state.requests);
    });
}

/// The restarted daemon has all acknowledged chunks and some of the others, and does not know the token.
#[tokio::test]
async fn after_a_restart_a_producer_takes_over_and_sends_what_is_missing() {
    let daemon = Daemon::start([]).await;
    let mut writer = daemon.writer().await;
    within(writer.append("a")).await.unwrap();
    within(writer.flush()).await.unwrap();
    daemon.change(|state| state.faults = [Fault::LoseResponse, Fault::ForgetToken].into());
    for text in ["b", "c", "d"] {
        within(writer.append(text)).await.unwrap();
    }
    within(writer.finish(None, None)).await.unwrap();
    daemon.change(|state| {
        assert_eq!((state.text().as_str(), state.chunks.len(), state.generation), ("abcd", 4, 2));
        let takeover = json!({"request_id": "r/1", "takeover": true});
        assert_eq!(state.openings, [json!({"request_id": "r/1"}), takeover]);
        assert_eq!((state.state.as_str(), &state.end), ("completed", &json!({})));
    });
}

#[tokio::test]
async fn a_producer_learns_who_ended_its_stream_and_stays_ended() {
    for (code, name) in [
        ("STREAM_FENCED", "Fenced"),
        ("STREAM_CANCELLED", "Cancelled"),
        ("STREAM_ABANDONED", "Abandoned"),
        ("STREAM_ENDED", "Ended"),
    ] {
        let daemon = Daemon::start([Fault::None, Fault::Refuse(409, code)]).await;
        let mut writer = daemon.writer().await;
        within(writer.append("a")).await.unwrap();
        for error in [
            within(writer.flush()).await.unwrap_err(),
            within(writer.append("b")).await.unwrap_err(),
            within(writer.renew()).await.unwrap_err(),
            within(writer.finish(None, None)).await.unwrap_err(),
            within(writer.fail("C", "m")).await.unwrap_err(),
            within(writer.closed()).await,
        ] {
            assert_eq!(format!("{error:?}"), name);
        }
        daemon.change(|state| {
            assert_eq!(
                state.requests.len(),
                2,
                "nothing follows, least of all a takeover: {:?}",
                state.requests
            );
        });
    }
}

#[tokio::test]
async fn a_producer_that_was_replaced_does_not_take_its_stream_back() {
    let daemon = Daemon::start([]).await;
    let mut stale = daemon.writer().await;
    within(stale.append("a")).await.unwrap();
    within(stale.flush()).await.unwrap();
    let open = OpenStream { request_id: Some("r/1".into()), takeover: true, ..OpenStream::default() };
    let mut successor = within(daemon.client().open_stream(open)).await.unwrap();
    assert_eq!((stale.first_index(), successor.first_index()), (0, 1));
    let _ = stale.append("x").await; // its task may have noticed already
    assert!(matches!(within(stale.finish(None, None)).await, Err(StreamError::Fenced)));
    within(successor.append("b")).await.unwrap();
    within(successor.finish(None, None)).await.unwrap();
    daemon.change(|state| assert_eq!((state.text().as_str(), state.generation), ("ab", 2)));
}

/// A daemon that was restored from a backup lacks text that was acknowledged. Nobody has it any more.
#[tokio::test]
async fn lost_text_is_an_error_and_no_gap() {
    for forget in [Fault::None, Fault::ForgetToken] {
        let daemon = Daemon::start([]).await;
        let mut writer = daemon.writer().await;
        for text in ["a", "b"] {
            within(writer.append(text)).await.unwrap();
            within(writer.flush()).await.unwrap();
        }
        daemon.change(|state| {
            state.chunks.truncate(1);
            state.faults = [forget].into();
        });
        within(writer.append("c")).await.unwrap();
        let error = within(writer.flush()).await.unwrap_err();
        assert!(matches!(error, StreamError::OutOfStep { expected: 1, first: 2, next: 3 }), "{error}");
        daemon.change(|state| assert_eq!(state.text(), "a"));
    }
}

#[tokio::test]
async fn appending_waits_while_the_buffer_is_full() {
    let daemon = Daemon::start([Fault::None, Fault::Hang]).await;
    let mut writer = daemon.writer().await;
    let mut appended = 0;
    // Unconstrained, so that the runtime does not interrupt a call that need not wait.
    while unconstrained(writer.append(&"x".repeat(1_000))).now_or_never().is_some() {
        appended += 1_000;
    }
    assert!((900_000..=1 << 20).contains(&appended), "{appended} bytes");

    let daemon = Daemon::start([]).await;
    let mut writer = daemon.writer().await;
    let mebibyte = "é".repeat(1 << 19);
    for _ in 0..3 {
        within(writer.append(&mebibyte)).await.unwrap();
    }
    within(writer.finish(None, None)).await.unwrap();
    daemon.change(|state| assert!(state.text() == mebibyte.repeat(3), "{} bytes", state.text().len()));
}

#[tokio::test]
async fn the_lease_of_a_silent_producer_is_renewed() {
    let daemon = Daemon::start([]).await;
    daemon.change(|state| state.lease_seconds = 1);
    let mut writer = daemon.writer().await;
    daemon.until(|state| state.count("/renew") >= 2).await;
    within(writer.renew()).await.unwrap();
    drop(writer);
}

#[tokio::test]
async fn a_silent_producer_learns_of_a_cancellation() {
    let daemon = Daemon::start([]).await;
    let mut writer = daemon.writer().await;
    daemon.until(|state| state.count("known=0") > 0).await;
    let cancelled = within(daemon.client().cancel_stream("r/1", Some("stop"))).await.unwrap();
    let failure = StreamFailure { code: "CANCELLED".into(), message: "stop".into() };
    assert_eq!((cancelled.state, cancelled.error), (StreamState::Cancelled, Some(failure)));
    assert!(matches!(within(writer.closed()).await, StreamError::Cancelled));
    assert!(matches!(within(writer.append("x")).await, Err(StreamError::Cancelled)));
}

/// The producer cancels its own stream while the daemon does not answer its chunks.
#[tokio::test]
async fn a_producer_can_cancel_at_once() {
    let daemon = Daemon::start([Fault::None, Fault::Hang, Fault::LoseResponse]).await;
    let mut writer = daemon.writer().await;
    within(writer.append("x")).await.unwrap();
    daemon.until(|state| state.count("/chunks") == 1).await;
    within(writer.cancel(None)).await.unwrap();
    assert!(matches!(within(writer.append("y")).await, Err(StreamError::Cancelled)));
    assert!(matches!(within(writer.finish(None, None)).await, Err(StreamError::Cancelled)));
    daemon.change(|state| assert_eq!((state.state.as_str(), state.count("/cancel")), ("cancelled", 2)));
}

#[tokio::test]
async fn a_stream_whose_text_was_refused_can_still_be_failed() {
    let daemon = Daemon::start([Fault::None, Fault::Refuse(413, "PAYLOAD_TOO_LARGE")]).await;
    let mut writer = daemon.writer().await;
    within(writer.append("x")).await.unwrap();
    for error in [
        within(writer.closed()).await,
        within(writer.append("y")).await.unwrap_err(),
        within(writer.finish(None, None)).await.unwrap_err(),
    ] {
        let StreamError::Client(error) = error else { panic!("{error}") };
        assert_eq!(error.api_error().unwrap().status, 413);
    }
    within(writer.fail("TOO_LONG", "the answer is too long")).await.unwrap();
    daemon.change(|state| {
        let failure = json!({"code": "TOO_LONG", "message": "the answer is too long"});
        assert_eq!((state.state.as_str(), &state.end), ("failed", &failure));
    });
}

#[tokio::test]
async fn a_producer_gives_up_on_a_daemon_that_is_gone() {
    let daemon = Daemon::start([]).await;
    let give_up_after = Some(Duration::from_millis(20));
    let mut writer =
        within(daemon.client().open_stream(OpenStream { give_up_after, ..OpenStream::default() }))
            .await
            .unwrap();
    assert_eq!(writer.request_id(), "stream-1");
    daemon.change(|state| state.faults = vec![Fault::LoseRequest; 10_000].into());
    within(writer.append("x")).await.unwrap();
    let StreamError::Client(error) = within(writer.flush()).await.unwrap_err() else {
        panic!("not the loss")
    };
    assert!(matches!(*error, ClientError::Http(_)), "{error}");
}

/// Only if the stream may be open already is the opening repeated as a takeover.
#[tokio::test]
async fn an_opening_whose_response_was_lost_is_repeated() {
    let daemon = Daemon::start([Fault::Refuse(429, "QUOTA_EXCEEDED"), Fault::LoseResponse]).await;
    let mut writer = daemon.writer().await;
    within(writer.append("a")).await.unwrap();
    within(writer.finish(None, None)).await.unwrap();
    daemon.change(|state| {
        let plain = json!({"request_id": "r/1"});
        assert_eq!(state.openings, [plain, json!({"request_id": "r/1", "takeover": true})]);
        assert_eq!(state.text(), "a");
    });
    let refused = within(daemon.client().open_stream(OpenStream::default())).await.unwrap_err();
    assert_eq!(refused.api_error().unwrap().status, 409);
}

#[tokio::test]
async fn an_end_whose_response_was_lost_is_no_error() {
    let daemon = Daemon::start([Fault::None, Fault::LoseResponse]).await;
    within(daemon.writer().await.fail("C", "m")).await.unwrap();
    daemon.change(|state| assert_eq!((state.state.as_str(), state.count("/fail")), ("failed", 2)));
}

#[tokio::test]
async fn streams_are_listed_and_read_at_once() {
    let daemon = Daemon::start([]).await;
    let mut writer = daemon.writer().await;
    within(writer.append("text")).await.unwrap();
    within(writer.flush()).await.unwrap();
    let client = daemon.client();
    let stream = within(client.get_stream("r/1", &Default::default())).await.unwrap();
    assert_eq!(
        (stream.state, stream.text.as_deref(), stream.next_index),
        (StreamState::Open, Some("text"), 1)
    );
    let filter = StreamFilter { state: Some(StreamState::Open), agent_id: Some("a".into()), user_id: None };
    let page = within(client.list_streams(&ListOptions { filter, ..ListOptions::default() })).await.unwrap();
    assert_eq!(page.data[0].request_id, "r/1");
    daemon.change(|state| {
        assert!(state.requests.contains(&"GET /api/v1/streams?state=open&agent_id=a".into()));
    });
}

/// An SSE response with these events.
fn sse(events: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 1\n{events}").into_bytes()
}

fn chunk(id: u64, text: &str, is_final: bool) -> String {
    let event = json!({"type": "stream_chunk", "id": format!("C{id}"), "request_id": "r/1", "chunk": text,
        "index": id, "is_final": is_final});
    format!("id: C{id}\ndata: {event}\n\n")
}

fn done(end: Value) -> String {
    let mut done = json!({"type": "done", "request_id": "r/1"});
    done.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
    format!("event: done\ndata: {done}\n\n")
}

/// Reads to the end. Returns the text and the end.
async fn read(daemon: &Daemon) -> Result<(String, StreamEnd), ClientError> {
    let mut reader = daemon.client().read_stream("r/1");
    let mut text = String::new();
    loop {
        match within(reader.next()).await.expect("an end or an error comes first")? {
            StreamItem::Text(piece) => text.push_str(&piece.text),
            StreamItem::End(end) => {
                assert!(within(reader.next()).await.is_none());
                return Ok((text, end));
            }
            StreamItem::Status(_) => {}
        }
    }
}

/// Wherever a connection is cut, even inside a character, the next one continues after the cursor.
#[tokio::test]
async fn text_is_exact_wherever_the_connection_is_cut() {
    let pieces = ["é€", "😀 a", "ß", ""];
    let mut events: Vec<String> =
        pieces.iter().zip(1..).map(|(text, n)| chunk(n, text, n == pieces.len() as u64)).collect();
    let usage = json!({"output_tokens": 3});
    events.push(done(json!({"state": "completed", "finish_reason": "stop", "usage": usage})));
    let ready =
        "event: ready\nid: C0\ndata: {\"type\":\"ready\",\"cursor\":\"C0\",\"heartbeat_seconds\":30}\n\n";
    let whole = sse(&format!("{ready}{}", events.concat()));
    for cut in 0..=whole.len() {
        let handled = String::from_utf8_lossy(&whole[..cut]).matches("\n\n").count().saturating_sub(1);
        let rest = events.iter().skip(handled).cloned().collect::<String>();
        // After the last chunk the daemon says 204.
        let no_content = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
        let next = if handled >= pieces.len() { no_content } else { sse(&rest) };
        let daemon = Daemon::start([]).await;
        daemon.change(|state| {
            state.state = "completed".into();
            state.end = json!({"finish_reason": "stop", "usage": usage});
            state.sse = [whole[..cut].to_vec(), next].into();
        });
        let (text, end) = read(&daemon).await.unwrap();
        assert_eq!(text, pieces.concat(), "cut at {cut}");
        assert_eq!((end.state, end.finish_reason.as_deref()), (StreamState::Completed, Some("stop")));
        assert_eq!(end.usage, usage.as_object().cloned());
        daemon.change(|state| {
            let expected = if handled == 0 { String::new() } else { format!("C{}", handled.min(4)) };
            if let Some(cursor) = state.cursors.get(1) {
                assert!(*cursor == expected || handled == 0 && cursor == "C0", "{cursor} cut at {cut}");
            }
        });
    }
}

#[tokio::test]
async fn a_reader_gets_the_error_of_a_stream_that_did_not_complete() {
    let error = r#"{"type":"error","id":"C2","code":"CANCELLED","message":"stop","request_id":"r/1"}"#;
    let events = [chunk(1, "a", false), format!("id: C2\ndata: {error}\n\n"), chunk(3, "", true)].concat();
    let expected = StreamEnd {
        state: StreamState::Cancelled,
        error: Some(StreamFailure { code: "CANCELLED".into(), message: "stop".into() }),
        ..StreamEnd::default()
    };
    let daemon = Daemon::start([]).await;
    daemon.change(|state| {
        state.sse.push_back(sse(&format!("{events}{}", done(json!({"state": "cancelled"})))))
    });
    assert_eq!(read(&daemon).await.unwrap(), ("a".into(), expected.clone()));
    daemon.change(|state| assert_eq!(state.count("/streams/"), 0, "the event has the error"));

    // The reader continues after the error event, so it asks for the error.
    daemon.change(|state| {
        state.state = "cancelled".into();
        state.end = json!({"code": "CANCELLED", "message": "stop"});
        let rest = format!("{}{}", chunk(3, "", true), done(json!({"state": "cancelled"})));
        state.sse.push_back(sse(&rest));
    });
    assert_eq!(read(&daemon).await.unwrap(), (String::new(), expected.clone()));

    // A reader that has read everything gets 204.
    daemon.change(|state| state.sse.push_back(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    let mut reader = daemon.client().read_stream("r/1").after("C3").all_parts();
    let Some(Ok(StreamItem::End(end))) = within(reader.next()).await else { panic!("no end") };
    assert_eq!(end, expected);
    daemon.change(|state| {
        assert_eq!(state.cursors.last().map(String::as_str), Some(""));
        let path = "GET /api/v1/sse/llm?request_id=r%2F1&parts=all&last_event_id=C3";
        assert!(state.requests.contains(&path.into()), "{:?}", state.requests);
    });
}

#[tokio::test]
async fn parts_are_returned_with_their_text() {
    let part = json!({"type": "tool_input", "id": "t1", "name": "search"});
    let event = json!({"type": "stream_chunk", "id": "C1", "request_id": "r/1", "chunk": "{}", "is_final": false,
        "index": 0, "part": part});
    let daemon = Daemon::start([]).await;
    daemon.change(|state| state.sse.push_back(sse(&format!("id: C1\ndata: {event}\n\n"))));
    let mut reader = daemon.client().read_stream("r/1").all_parts();
    let Some(Ok(StreamItem::Text(text))) = within(reader.next()).await else { panic!("no text") };
    let part = StreamPart { kind: PartType::ToolInput, id: "t1".into(), name: Some("search".into()) };
    assert_eq!(text, StreamText { text: "{}".into(), part: Some(part) });
    assert_eq!(reader.cursor(), Some("C1"));
}

#[tokio::test]
async fn an_unknown_stream_and_missing_text_are_errors() {
    let closing = r#"event: closing
data: {"type":"error","code":"NOT_FOUND","message":"no such stream"}

"#;
    let daemon = Daemon::start([]).await;
    daemon.change(|state| state.sse.push_back(sse(closing)));
    let error = read(&daemon).await.unwrap_err();
    assert!(matches!(&error, ClientError::Closing { code, .. } if code == "NOT_FOUND"), "{error}");

    let gap = r#"event: gap
id: G
data: {"type":"gap","after":"C1","resumes_at":"G","reason":"unknown_cursor"}

"#;
    daemon.change(|state| state.sse.push_back(sse(gap)));
    let error = read(&daemon).await.unwrap_err();
    assert!(matches!(&error, ClientError::TextMissing { reason } if reason == "unknown_cursor"), "{error}");

    // A chunk that this version cannot read is not left out.
    let other = "id: C1\ndata: {\"type\":\"stream_chunk\",\"request_id\":\"r/1\",\"chunk\":[\"x\"]}\n\n";
    daemon.change(|state| state.sse.push_back(sse(other)));
    let error = read(&daemon).await.unwrap_err();
    assert!(matches!(error, ClientError::UnexpectedResponse(_)), "{error}");
}
