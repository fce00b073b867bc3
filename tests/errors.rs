//! Error responses (protocol §10): each status has its code, every body has one format, and every request has
//! an id.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::Call;
use common::sse::Sse;
use common::{Daemon, custom, message, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test]
async fn errors_name_wrong_missing_and_unknown_fields_but_not_values() {
    let daemon = Daemon::start().await;
    for (path, body, field, reason) in [
        ("/api/v1/tokens", r#"{"sub":7}"#, "sub", "must be a string"),
        ("/api/v1/tokens", r#"{"roles":["user"]}"#, "sub", "is required"),
        ("/api/v1/tokens", r#"{"sub":"ann","roles":["user",{"x":1}]}"#, "roles[1]", "must be a string"),
        ("/api/v1/tokens", r#"{"sub":"ann","sub":"bob"}"#, "sub", "is given twice"),
        (
            "/api/v1/tickets",
            r#"{"again":true}"#,
            "again",
            "is not a known field; the fields are sub, reconnect",
        ),
        ("/api/v1/organizations", r#"{"visibility":"sesame"}"#, "visibility", "must be private or org"),
        ("/api/v1/users/login", r#"{"password":["sesame"]}"#, "password", "must be a string"),
        ("/api/v1/users/login", r#""sesame""#, "", "must be an object"),
        ("/api/v1/tokens", r#"{"sub":sesame}"#, "", "is not JSON: expected value at line 1 column 8"),
    ] {
        let reply = daemon.post(path).body("application/json", body).send().await;
        let error = reply.refused(400, "VALIDATION_ERROR");
        assert_eq!(error["details"], json!({"field": field, "reason": reason}), "{body}");
        assert!(!reply.text().contains("sesame"), "{reply:?}");
    }
}

#[tokio::test]
async fn each_refusal_has_its_status_code_and_shape() {
    let daemon = Daemon::start().await;
    let event = custom("c", json!(1));
    let reader = daemon.create_key(json!({"scopes": ["subscribe"]})).await;
    let post = |path: &str| daemon.post(path).json(&event);
    let cases: Vec<(Call, u16, &str)> = vec![
        (daemon.get("/api/v1/events?colour=red"), 400, "BAD_REQUEST"),
        (daemon.get("/api/v1/events?after=%zz"), 400, "BAD_REQUEST"),
        (daemon.post("/api/v1/events").json(&json!({"type": "nope"})), 400, "VALIDATION_ERROR"),
        (daemon.get("/api/v1/events").anonymous(), 401, "UNAUTHORIZED"),
        (daemon.get("/api/v1/events").key("nonsense"), 401, "UNAUTHORIZED"),
        (post("/api/v1/events").key(&reader), 403, "FORBIDDEN"),
        (daemon.get("/api/v1/organizations").key(&reader), 403, "FORBIDDEN"),
        (daemon.get("/"), 404, "NOT_FOUND"),
        (daemon.get("/api/v1/nowhere"), 404, "NOT_FOUND"),
        (daemon.get("/api/v2/events"), 404, "NOT_FOUND"),
        (daemon.get("/api/v1/events/"), 404, "NOT_FOUND"),
        (daemon.get("/api/v1/organizations/nobody"), 404, "NOT_FOUND"),
        (daemon.call("DELETE", "/api/v1/connections/nobody"), 404, "NOT_FOUND"),
        (daemon.call("DELETE", "/api/v1/api-keys/nobody"), 404, "NOT_FOUND"),
        (daemon.post("/api/v1/organizations").json(&json!({"id": "default"})), 409, "CONFLICT"),
        (
            daemon.post("/api/v1/events").body("application/json", vec![b' '; (4 << 20) + 1]),
            413,
            "PAYLOAD_TOO_LARGE",
        ),
    ];
    for (call, status, code) in cases {
        let what = format!("{call:.120?}");
        let reply = call.send().await;
        assert_eq!(reply.status.as_u16(), status, "{what}: {reply:?}");
        let body = reply.refused(status, code);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(code == "VALIDATION_ERROR", !body["details"].is_null(), "{body}");
        assert_eq!(status == 401, reply.header("www-authenticate").is_some(), "{reply:?}");
        assert!(!reply.text().contains("nonsense"), "no credential in an error: {reply:?}");
    }
    // These have no code of their own in the contract, but the same format.
    let cases = [
        (daemon.get("/api/v1/sse").header("accept", "text/html"), 406, None),
        (daemon.post("/api/v1/events").body("text/html", "x"), 415, None),
        (daemon.get("/api/v1/ws"), 426, None),
        (daemon.call("PUT", "/api/v1/events"), 405, Some("GET, HEAD, POST")),
        (daemon.call("PATCH", "/api/v1/tokens"), 405, Some("POST")),
        (daemon.post("/health"), 405, Some("GET, HEAD")),
    ];
    for (call, status, allow) in cases {
        let reply = call.send().await;
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        reply.refused(status, &code);
        assert_eq!(reply.header("allow"), allow, "{reply:?}");
    }
}

/// A request that is refused, as an event and as a change of a resource.
struct Fault<'a> {
    what: &'a str,
    status: u16,
    code: &'a str,
    credential: &'a str,
    event: Value,
    path: &'a str,
    body: Value,
    /// `Idempotency-Key` of the change.
    key: Option<&'a str>,
}

impl Fault<'_> {
    /// Sends the request over HTTP until it is refused: for its rate that takes a few.
    async fn http(&self, daemon: &Daemon, path: &str, content_type: &str, body: &str) {
        let refusal = until(self.what, async || {
            let call = daemon.post(path).key(self.credential).body(content_type, body.to_owned());
            let reply = match self.key.filter(|_| path == self.path) {
                Some(key) => call.header("idempotency-key", key).send().await,
                None => call.send().await,
            };
            (!reply.status.is_success()).then_some(reply)
        })
        .await;
        let answer = (refusal.status.as_u16(), refusal.json()["code"].clone());
        assert_eq!(
            answer,
            (self.status, json!(self.code)),
            "{} {path} {content_type}: {refusal:?}",
            self.what
        );
    }

    async fn websocket(&self, daemon: &Daemon, publish: &Value) {
        let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(self.credential).open().await;
        assert_eq!(ws.next_json().await["type"], "ready");
        let mut answer = ws.ask(publish).await;
        while answer["type"] == "ack" {
            answer = ws.ask(publish).await;
        }
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(self.code)), "{}", self.what);
    }

    async fn every_way(&self, daemon: &Daemon) {
        let (event, events) = (&self.event, json!([self.event]));
        self.http(daemon, "/api/v1/events", "application/json", &event.to_string()).await;
        self.http(daemon, "/api/v1/events", "application/json", &events.to_string()).await;
        self.http(daemon, "/api/v1/events", "application/x-ndjson", &format!("{event}\n")).await;
        self.websocket(daemon, &json!({"type": "publish", "event": event})).await;
        self.websocket(daemon, &json!({"type": "publish", "events": events})).await;
        self.http(daemon, self.path, "application/json", &self.body.to_string()).await;
    }
}

#[tokio::test]
async fn a_fault_has_one_code_over_http_over_websocket_and_in_a_resource() {
    let mut daemon =
        Daemon::with().env("LIMITS__EVENT_BYTES", 1_024).env("LIMITS__PUBLISH_PER_SECOND", 2).start().await;
    let key = daemon.key.clone();
    let bot = common::rest::agent(&daemon, &key, "bot").await;
    let reader = daemon.create_key(json!({"scopes": ["subscribe"]})).await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let says = |more: Value| {
        let mut message = json!({"agent_id": bot, "content": "c"});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let fault = |what, status, code, credential, more: Value| {
        let body = says(more);
        let mut event = body.clone();
        event["type"] = json!("message");
        Fault { what, status, code, credential, event, path: "/api/v1/messages", body, key: None }
    };
    for fault in [
        fault("no scope", 403, "FORBIDDEN", &reader, json!({})),
        fault("another user", 403, "FORBIDDEN", &bob, json!({"user_id": "ann"})),
        fault("over its rate", 429, "QUOTA_EXCEEDED", &ann, json!({})),
        fault("a wrong field", 400, "VALIDATION_ERROR", &key, json!({"content": 7})),
        fault("too large", 413, "PAYLOAD_TOO_LARGE", &key, json!({"content": "x".repeat(1_024)})),
    ] {
        fault.every_way(&daemon).await;
    }

    let first = daemon.post("/api/v1/messages").header("idempotency-key", "m").json(&says(json!({})));
    assert_eq!(first.send().await.status, 201);
    let mut used = fault("a used key", 409, "CONFLICT", &key, json!({"content": "another"}));
    used.key = Some("m");
    used.event["message_id"] = json!("m");
    let mut event = used.event.clone();
    event["content"] = json!("first");
    daemon.publish(event).await;
    used.every_way(&daemon).await;

    daemon.reconfigure("STORE__RESERVE_BYTES", 1_u64 << 50);
    daemon.restart().await;
    fault("no space on the disk", 503, "UNAVAILABLE", &key, json!({})).every_way(&daemon).await;
}

#[tokio::test]
async fn every_response_carries_the_requests_id_or_a_new_one() {
    let daemon = Daemon::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for path in ["/health", "/api/v1/events", "/api/v1/nowhere", "/api/v1/sse?types=nope"] {
        let reply =
            daemon.get(path).header("x-request-id", "my-id.1").header("traceparent", trace).send().await;
        assert_eq!(
            (reply.header("x-request-id"), reply.header("traceparent")),
            (Some("my-id.1"), Some(trace)),
            "{path}"
        );
        let (one, other) = (daemon.get(path).send().await, daemon.get(path).send().await);
        let id = one.header("x-request-id").unwrap();
        assert!(!id.is_empty() && other.header("x-request-id") != Some(id), "{path}");
    }
    let long = "x".repeat(129);
    let reply = daemon.get("/health").header("x-request-id", long.as_str()).send().await;
    assert_ne!(reply.header("x-request-id"), Some(long.as_str()), "not any length");
}

/// Errors that hyper finds before any handler runs have the same format.
#[tokio::test]
async fn invalid_http_is_refused_with_the_same_error_body() {
    let daemon = Daemon::start().await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let huge = format!("x-huge: {}\r\n", "y".repeat(20_000));
    for (bytes, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n".to_owned(), 400),
        (format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        (format!("GET /health HTTP/1.1\r\nhost: x\r\n{huge}\r\n"), 431),
    ] {
        let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
        let _ = stream.write_all(bytes.as_bytes()).await; // it may be refused before everything is written
        let mut answer = Sse::read_head(stream, Vec::new()).await;
        assert_eq!(answer.status, status, "{}", answer.head);
        assert!(answer.header("x-request-id").is_some() && answer.header("connection") == Some("close"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let body: Value = serde_json::from_str(&answer.body().await).unwrap();
        assert!(
            body["code"].is_string() && body["details"].is_null() && body["timestamp"].is_string(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn responses_at_a_limit_say_when_to_retry() {
    let daemon = Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 2).start().await;
    for _ in 0..2 {
        daemon.get("/api/v1/events").key("nonsense").send().await.refused(401, "UNAUTHORIZED");
    }
    let reply = daemon.get("/api/v1/events").key("nonsense").send().await;
    reply.refused(429, "QUOTA_EXCEEDED");
    assert!((1..=60).contains(&reply.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert_eq!(daemon.get("/api/v1/events").send().await.status, 200, "a valid credential always passes");
}

#[tokio::test]
async fn a_daemon_at_capacity_answers_503() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS", 2).start().await;
    let _one = daemon.live_ws("/api/v1/ws").await;
    let _two = daemon.live_sse("/api/v1/sse").await;
    let reply = daemon.ws("/api/v1/ws").refused().await;
    reply.refused(503, "UNAVAILABLE");
    assert!(reply.header("retry-after").is_some());
    daemon.get("/api/v1/sse").header("accept", "*/*").send().await.refused(503, "UNAVAILABLE");
    let mut refusal = daemon.sse("/api/v1/sse").ask().await;
    assert_eq!(refusal.status, 200);
    assert_eq!(refusal.next().await.named("closing")["code"], "UNAVAILABLE");
    daemon.publish(message("REST goes on")).await;
}

#[tokio::test]
async fn a_draining_daemon_refuses_publishes_and_finishes_accepted_ones() {
    let mut daemon = Daemon::with().env("DRAIN_SECONDS", 3).start().await;
    let (addr, key) = (daemon.addr(), daemon.key.clone());
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(daemon.live_ws("/api/v1/ws?subscribe=none").await);
    }
    let ids = daemon.publish_messages(&["kept"]).await;
    daemon.signal(Signal::TERM);
    // Readiness becomes false. Health is still served by the admin listener.
    let admin = daemon.admin_addr();
    until("readiness to turn false", async || {
        (Call::new(admin, "GET", "/health/ready").send().await.status == 503).then_some(())
    })
    .await;
    // Connected clients get an event or frame about it, or are closed with 1012.
    let (mut notified, mut closed) = (0, 0);
    for ws in &mut sockets {
        let publish = json!({"type": "publish", "ref": 1, "event": message("too late")});
        ws.try_send(&publish).await;
        match ws.try_next_json().await {
            Ok(error) => {
                assert_eq!(
                    (&error["type"], &error["code"]),
                    (&json!("error"), &json!("UNAVAILABLE")),
                    "{error}"
                );
                notified += 1;
                assert_eq!(ws.closed().await.0, 1012);
            }
            Err(end) => assert_eq!(end.map(|(code, _)| code), Some(1012)),
        }
        closed += 1;
    }
    assert!(notified >= 1 && closed == 8, "closing is spread over the drain: {notified} were still there");
    let refused = within("a connection", TcpStream::connect(addr)).await;
    drop(refused); // refused, or never served: in both cases accepting has ended
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.start_again().await;
    let page = daemon.get("/api/v1/events?earliest=true").key(&key).send().await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    assert_eq!(page["data"][0]["id"], ids[0].as_str());
}

/// A repeated request with an `Idempotency-Key` (protocol §7) gets the same response, or only the id if the
/// response had a secret.
#[tokio::test]
async fn administration_is_idempotent_with_an_idempotency_key() {
    let mut daemon = Daemon::start().await;
    let call = |daemon: &Daemon, path: &str, body: &Value| {
        daemon.post(path).header("idempotency-key", "k").json(body)
    };
    let organization = json!({"id": "acme", "name": "Acme"});
    let first = call(&daemon, "/api/v1/organizations", &organization).send().await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, None), "{first:?}");
    let (key, token) = (json!({"name": "n", "scopes": ["*"]}), json!({"sub": "ann", "roles": ["user"]}));
    let made = call(&daemon, "/api/v1/api-keys", &key).send().await.json();
    let minted = call(&daemon, "/api/v1/tokens", &token).send().await.json();
    // The same header value on another path is another key. This also holds across a restart.
    for life in 0..2 {
        let again = call(&daemon, "/api/v1/organizations", &organization).send().await;
        assert_eq!(
            (again.status.as_u16(), again.header("idempotent-replayed")),
            (201, Some("true")),
            "{life} {again:?}"
        );
        assert_eq!(again.body, first.body);
        call(&daemon, "/api/v1/organizations", &json!({"id": "other"})).send().await.refused(409, "CONFLICT");
        for (path, body, id) in [
            ("/api/v1/api-keys", &key, &made["data"]["key_id"]),
            ("/api/v1/tokens", &token, &minted["data"]["jti"]),
        ] {
            let reply = call(&daemon, path, body).send().await;
            assert_eq!(reply.refused(409, "CONFLICT")["details"]["id"], *id, "{path}");
            assert!(!reply.text().contains("nwk_") && !reply.text().contains("eyJ"), "no secret: {reply:?}");
        }
        if life == 0 {
            daemon.restart().await;
        }
    }
    let keys = daemon.get("/api/v1/api-keys").send().await.json();
    assert_eq!(keys["data"].as_array().unwrap().len(), 2, "the first key and this one: {keys}");

    // Refusals are not stored, and concurrent repeats create one organization.
    call(&daemon, "/api/v1/api-keys", &json!({"name": 7, "scopes": ["*"]}))
        .send()
        .await
        .refused(400, "VALIDATION_ERROR");
    let race: Vec<_> = (0..8)
        .map(|_| {
            let body = json!({"name": "race"});
            tokio::spawn(
                daemon.post("/api/v1/organizations").header("idempotency-key", "race").json(&body).send(),
            )
        })
        .collect();
    let mut ids = Vec::new();
    for reply in race {
        let reply = within("a racer", reply).await.unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        ids.push(reply.json()["data"]["id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
