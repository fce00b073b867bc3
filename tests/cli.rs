//! The command line as a black box: the real binary against scripted daemons, its exit codes and its output.
//!
//! The responses of these daemons are written out byte by byte, so the client is tested against the contract
//! and not against our own server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

use std::process::{Output, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// The binary in an empty directory and without our environment variables.
struct Nervewire {
    command: Command,
    _dir: tempfile::TempDir,
}

fn nervewire(arguments: &[&str]) -> Nervewire {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nervewire"));
    command.args(arguments).current_dir(dir.path()).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NERVEWIRE_") {
            command.env_remove(name);
        }
    }
    Nervewire { command, _dir: dir }
}

impl Nervewire {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    async fn run(mut self) -> Done {
        Done::from(self.command.output().await.unwrap())
    }
}

#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A daemon that answers one connection after another with these bytes and reports the requests it got.
struct Scripted {
    url: String,
    requests: tokio::task::JoinHandle<Vec<String>>,
}

async fn scripted(answers: Vec<String>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.push(read_request(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await; // a client that has its answer may have closed already
        }
        requests
    });
    Scripted { url, requests }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request broke off");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        if body.len() >= length {
            return text.into_owned();
        }
    }
}

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn refusal(status: &str, code: &str, headers: &str) -> String {
    let body = format!(
        r#"{{"code":"{code}","message":"no","details":null,"timestamp":"2026-11-22T10:00:00.000Z"}}"#
    );
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}")
}

fn sse(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
}

const MESSAGE: &str =
    r#"{"type":"message","id":"C1","agent_id":"a","content":"hi","timestamp":"2026-11-22T10:00:00.123Z"}"#;

#[tokio::test]
async fn help_goes_to_stdout_and_wrong_usage_is_64_on_stderr() {
    let help = nervewire(&["tail", "--help"]).run().await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("--earliest"));
    let wrong = nervewire(&["tail", "--erliest"]).run().await;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(64), ""));
    assert!(wrong.stderr.contains("--earliest"), "{}", wrong.stderr);
}

#[tokio::test]
async fn a_wrong_configuration_is_64_before_anything_is_opened() {
    let run = nervewire(&["--listen", "nowhere"]).env("NERVEWIRE_LIMITS__RING_SLOT", "1").run().await;
    assert_eq!(run.code, Some(64));
    assert!(run.stderr.contains("--listen: listen: \"nowhere\""), "{}", run.stderr);
    assert!(run.stderr.contains("did you mean NERVEWIRE_LIMITS__RING_SLOTS?"), "{}", run.stderr);

    let run = nervewire(&["check-config", "--json"]).env("NERVEWIRE_HEARTBEAT_SECONDS", "x").run().await;
    assert_eq!(run.code, Some(64));
    let said: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(said["ok"], false);
    assert_eq!(said["problems"][0]["key"], "heartbeat_seconds");
    assert_eq!(said["problems"][0]["source"], "NERVEWIRE_HEARTBEAT_SECONDS");

    let run = nervewire(&["check-config", "--config", "missing.toml"]).run().await;
    assert_eq!(run.code, Some(64));
    assert!(run.stderr.contains("missing.toml"), "{}", run.stderr);
}

#[tokio::test]
async fn check_config_reads_what_it_prints() {
    let printed = nervewire(&["check-config", "--print", "--listen", "[::1]:0"]).run().await;
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(printed.stdout.contains("listen = [\"[::1]:0\"] # --listen\n"), "{}", printed.stdout);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.toml");
    std::fs::write(&path, &printed.stdout).unwrap();
    let again = nervewire(&["check-config", "--config", path.to_str().unwrap()]).run().await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
}

#[tokio::test]
async fn a_closed_stdout_ends_quietly() {
    for arguments in [["completions", "bash"], ["check-config", "--print"], ["help", "tail"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut run = nervewire(&arguments);
        run.command.stdout(writer).stderr(Stdio::piped());
        let done = Done::from(run.command.spawn().unwrap().wait_with_output().await.unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let done = nervewire(&["completions", shell]).run().await;
        assert_eq!(done.code, Some(0));
        assert!(done.stdout.contains("check-config"), "{shell}");
    }
}

#[tokio::test]
async fn an_unreachable_daemon_is_69_and_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in [
        &["stats"][..],
        &["tail"],
        &["tail", "--ws"],
        &["publish", "{}"],
        &["org", "list"],
        &["stream"],
        &["stream", "--read", "r1"],
    ] {
        let done = nervewire(arguments).env("NERVEWIRE_URL", &url).run().await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(69), ""), "{arguments:?}");
        assert!(done.stderr.contains("Start it with `nervewire`"), "{}", done.stderr);
    }
}

#[tokio::test]
async fn a_refused_credential_is_77_and_is_never_printed() {
    for (status, code) in [("401 Unauthorized", "UNAUTHORIZED"), ("403 Forbidden", "FORBIDDEN")] {
        for arguments in [
            &["key", "list"][..],
            &["tail"],
            &["tail", "--ws"],
            &["publish", "{}"],
            &["stream"],
            &["stream", "--read", "r1"],
        ] {
            let daemon = scripted(vec![refusal(status, code, "")]).await;
            let run =
                nervewire(arguments).env("NERVEWIRE_URL", &daemon.url).env("NERVEWIRE_KEY", "nwk_a_hidden");
            let done = run.run().await;
            assert_eq!((done.code, done.stdout.as_str()), (Some(77), ""), "{arguments:?} {}", done.stderr);
            assert!(done.stderr.contains(code) && !done.stderr.contains("hidden"), "{}", done.stderr);
            let requests = daemon.requests.await.unwrap();
            assert!(requests[0].contains("Bearer nwk_a_hidden"), "{}", requests[0]);
        }
    }
}

#[tokio::test]
async fn administration_prints_stable_json() {
    let created = r#"{"data":{"key_id":"k1","api_key":"nwk_k1_s","org_id":"o","scopes":["publish"],"expires_at":null,"created_at":"t"},"success":true}"#;
    let daemon = scripted(vec![json("201 Created", created)]).await;
    let arguments =
        ["key", "create", "--scope", "publish,subscribe", "--expires", "1h", "--agent", "", "--json"];
    let done = nervewire(&arguments).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(0), "{\"api_key\":\"nwk_k1_s\",\"key_id\":\"k1\"}\n")
    );
    let request = daemon.requests.await.unwrap().remove(0);
    assert!(request.starts_with("POST /api/v1/api-keys HTTP/1.1\r\n"), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected =
        serde_json::json!({"scopes": ["publish", "subscribe"], "expires_in_seconds": 3600, "agents": []});
    assert_eq!(body, expected);

    let minted = r#"{"data":{"token":"a.b.c","jti":"j","expires_at":"t"},"success":true}"#;
    let daemon = scripted(vec![json("201 Created", minted)]).await;
    let arguments = ["token", "--org", "acme", "--user", "al", "--role", "viewer", "--json"];
    let done = nervewire(&arguments).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(done.stdout, "{\"expires_at\":\"t\",\"jti\":\"j\",\"token\":\"a.b.c\"}\n");
    assert!(
        daemon.requests.await.unwrap()[0].ends_with(r#"{"org_id":"acme","sub":"al","roles":["viewer"]}"#)
    );
}

#[tokio::test]
async fn lists_follow_their_pages_and_ids_are_escaped() {
    let daemon = scripted(vec![
        json("200 OK", r#"{"data":[{"id":"a"}],"next_cursor":"n/1","success":true}"#),
        json("200 OK", r#"{"data":[{"id":"b","name":"B"}],"next_cursor":null,"success":true}"#),
    ])
    .await;
    let done = nervewire(&["org", "list"]).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(
        done.stdout,
        "ID  NAME  VISIBILITY  PRESENCE  CREATED_AT\na   -     -           false     -\nb   B     -           false     -\n"
    );
    assert!(
        daemon.requests.await.unwrap()[1].starts_with("GET /api/v1/organizations?limit=100&cursor=n%2F1 ")
    );

    let daemon = scripted(vec!["HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into()]).await;
    let done =
        nervewire(&["token", "revoke", "a/b?c", "--json"]).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(done.stdout, "{\"revoked\":\"a/b?c\"}\n");
    assert!(daemon.requests.await.unwrap()[0].starts_with("DELETE /api/v1/tokens/a%2Fb%3Fc "));
}

#[tokio::test]
async fn publish_sends_what_the_flags_say_and_prints_ids() {
    let daemon = scripted(vec![json("201 Created", r#"{"data":{"ids":["I1"]},"success":true}"#)]).await;
    let arguments =
        ["publish", "--channel", "chat", "--data", "{}", "--ack", "memory", "--idempotency-key", "k"];
    let done = nervewire(&arguments).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "I1\n"));
    let request = daemon.requests.await.unwrap().remove(0);
    assert!(request.starts_with("POST /api/v1/events?ack=memory "), "{request}");
    assert!(request.contains("idempotency-key: k\r\n"), "{request}");
    assert!(request.ends_with(r#"{"channel":"chat","data":{},"type":"custom"}"#), "{request}");
}

/// A batch that got a 503 is sent again, unchanged and with the same idempotency key, so it is published once
/// whatever happened to the first attempt. With a key of the user's own, batches are filled however slowly
/// the lines arrive.
#[tokio::test]
async fn publish_from_stdin_retries_a_batch_with_its_idempotency_key() {
    let ids = json("201 Created", r#"{"data":{"ids":["I1","I2"]},"success":true}"#);
    let daemon = scripted(vec![refusal("503 Unavailable", "UNAVAILABLE", "retry-after: 0\r\n"), ids]).await;
    let mut run =
        nervewire(&["publish", "-", "--json", "--idempotency-key", "mine"]).env("NERVEWIRE_URL", &daemon.url);
    let mut child =
        run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"n\":1}\n\n{\"n\":2}").await.unwrap();
    let done = Done::from(child.wait_with_output().await.unwrap());
    let requests = daemon.requests.await.unwrap();
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(0), "{\"ids\":[\"I1\",\"I2\"]}\n"),
        "{}",
        done.stderr
    );
    assert!(requests[0].ends_with("\r\n\r\n{\"n\":1}\n{\"n\":2}\n"), "{}", requests[0]);
    let key = |request: &str| {
        request.lines().find(|line| line.starts_with("idempotency-key: ")).unwrap().to_owned()
    };
    assert_eq!(key(&requests[0]), key(&requests[1]));
    assert_eq!(requests[0].split("\r\n\r\n").nth(1), requests[1].split("\r\n\r\n").nth(1));
}

/// A subscriber that saw C1 and got a gap to G reconnects with G. Control events are not printed as events.
#[tokio::test]
async fn tail_over_sse_reconnects_with_its_cursor() {
    let first = format!(
        "retry: 0\nevent: ready\nid: C0\ndata: {{\"type\":\"ready\",\"cursor\":\"C0\"}}\n\nid: C1\ndata: {MESSAGE}\n\n\
         : heartbeat\nevent: gap\nid: G\ndata: {{\"type\":\"gap\",\"after\":\"C1\",\"resumes_at\":\"G\",\"reason\":\"lagged\"}}\n\n"
    );
    let second = "id: C9\ndata: {\"type\":\"custom\",\"id\":\"C9\"}\n\n".to_owned();
    let daemon = scripted(vec![sse(&first), sse(&second)]).await;
    let arguments = ["tail", "--json", "--earliest", "--agent", "a", "--count", "2"];
    let done = nervewire(&arguments).env("NERVEWIRE_URL", &daemon.url).run().await;
    let requests = daemon.requests.await.unwrap();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout, format!("{MESSAGE}\n{{\"type\":\"custom\",\"id\":\"C9\"}}\n"));
    assert!(done.stderr.contains("gap: lagged; events after C1 are missing"), "{}", done.stderr);
    assert!(requests[0].starts_with("GET /api/v1/sse?agent_id=a&earliest=true "), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /api/v1/sse?agent_id=a&last_event_id=G "), "{}", requests[1]);
    assert!(requests[1].contains("last-event-id: G\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn tail_ends_when_its_credential_is_revoked() {
    let closing = format!(
        "id: C1\ndata: {MESSAGE}\n\nevent: closing\ndata: {{\"type\":\"error\",\"code\":\"UNAUTHORIZED\",\"message\":\"expired\"}}\n\n"
    );
    let daemon = scripted(vec![sse(&closing)]).await;
    let done = nervewire(&["tail"]).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(77), "10:00:00.123 message a: hi\n"));
    assert!(done.stderr.contains("expired") && done.stderr.contains("--after C1"), "{}", done.stderr);
}

#[tokio::test]
async fn tail_without_reconnect_ends_with_the_stream() {
    let daemon = scripted(vec![sse("")]).await;
    let done = nervewire(&["tail", "--no-reconnect"]).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(done.code, Some(69), "{}", done.stderr);
    let daemon = scripted(vec![json("200 OK", "{}")]).await;
    let done = nervewire(&["tail"]).env("NERVEWIRE_URL", &daemon.url).run().await;
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("instead of an event stream"), "{}", done.stderr);
}

/// Over WebSocket, pings are answered, `error` frames are reported and not printed, 1012 reconnects with the
/// cursor, and 4403 does not reconnect.
#[tokio::test]
async fn tail_over_websocket_follows_close_codes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let daemon = tokio::spawn(async move {
        let mut paths = Vec::new();
        for code in [1012, 4403] {
            let (stream, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
            let keep_path = |request: &Request, response: Response| {
                paths.push(request.uri().to_string());
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, keep_path).await.unwrap();
            for frame in [
                r#"{"type":"ready","cursor":"C0"}"#,
                MESSAGE,
                r#"{"type":"error","code":"BAD_REQUEST","message":"what?"}"#,
                r#"{"type":"ping","timestamp":"t","cursor":"C5"}"#,
            ] {
                socket.send(Message::text(frame)).await.unwrap();
            }
            let pong = socket.next().await.unwrap().unwrap();
            assert_eq!(pong, Message::text(r#"{"timestamp":"t","type":"pong"}"#));
            let close = CloseFrame { code: CloseCode::from(code), reason: "said".into() };
            socket.close(Some(close)).await.unwrap();
            while socket.next().await.is_some_and(|frame| frame.is_ok()) {}
        }
        paths
    });
    let done =
        nervewire(&["tail", "--ws", "--json", "--type", "message"]).env("NERVEWIRE_URL", &url).run().await;
    assert_eq!(
        daemon.await.unwrap(),
        ["/api/v1/ws?types=message", "/api/v1/ws?types=message&last_event_id=C5"]
    );
    assert_eq!((done.code, done.stdout), (Some(77), format!("{MESSAGE}\n{MESSAGE}\n")), "{}", done.stderr);
    assert!(done.stderr.contains("closed with 4403: said"), "{}", done.stderr);
    assert!(done.stderr.contains("error: BAD_REQUEST: what?"), "{}", done.stderr);
}

#[tokio::test]
async fn connections_are_kicked_by_id_user_or_key() {
    for (arguments, path) in [
        (&["connections", "kick", "c1"][..], "/api/v1/connections/c1"),
        (&["connections", "kick", "--user", "a b"], "/api/v1/connections?user=a%20b"),
        (&["connections", "kick", "--key-id", "k"], "/api/v1/connections?key=k"),
    ] {
        let daemon = scripted(vec!["HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into()]).await;
        let done = nervewire(arguments).env("NERVEWIRE_URL", &daemon.url).run().await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), "kicked\n"), "{}", done.stderr);
        assert!(daemon.requests.await.unwrap()[0].starts_with(&format!("DELETE {path} ")));
    }
}

/// With a credential but without `--url` the client uses the default address. A daemon on a unix socket is
/// reached as well.
#[tokio::test]
async fn a_unix_socket_is_accepted_as_url() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let daemon = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        stream
            .write_all(json("200 OK", r#"{"data":{"a":{"b":1}},"success":true}"#).as_bytes())
            .await
            .unwrap();
    });
    let done = nervewire(&["stats", "--url", &format!("unix:{}", path.display())]).run().await;
    daemon.await.unwrap();
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "a.b  1\n"), "{}", done.stderr);
}
