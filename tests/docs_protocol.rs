//! Executes every example of `docs/protocol.md` against the real daemon, in the order of the document, on one
//! store.
//!
//! * No block is skipped: a block of an unknown kind fails the test (`docs/document.rs`).
//! * Statuses, the shown headers and JSON are compared exactly, placeholders by form (`docs/pattern.rs`).
//! * The tables of the document are compared with the lists and constants of the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

#[path = "docs/document.rs"]
mod document;
#[path = "docs/pattern.rs"]
mod pattern;

use std::collections::HashMap;

use common::Daemon;
use common::sse::Sse;
use common::ws::Ws;
use document::{Block, Kind, Message, blocks, message, request_line};
use nervewire::close::CloseReason;
use pattern::{Names, fill};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;
use tungstenite::protocol::CloseFrame;

const DOCUMENT: &str = include_str!("../docs/protocol.md");

/// A daemon with one configuration, and the placeholder values of its examples so far.
struct Stage {
    daemon: Daemon,
    names: Names,
}

impl Stage {
    async fn start(config: &[(String, String)]) -> Stage {
        let mut builder = Daemon::with();
        for (name, value) in config {
            builder = builder.env(name, value);
        }
        let daemon = builder.start().await;
        let names = Names::from([("key".to_owned(), daemon.key.clone())]);
        Stage { daemon, names }
    }

    /// A request exactly as written: no credential and no content type that the example does not show.
    fn call(&self, request: &str) -> Result<common::http::Call, String> {
        let request = fill(request.trim_end(), &self.names)?;
        let Message { start, headers, body } = message(&request)?;
        let (method, path) = request_line(start)?;
        let mut call = self.daemon.call(method, path).anonymous();
        for (name, value) in headers {
            call = call.header(name, value);
        }
        Ok(call.bare_body(body.trim_end().to_owned()))
    }

    async fn exchange(&mut self, request: &str, response: &str) -> Result<(), String> {
        let reply = self.call(request)?.send().await;
        let wanted = message(response.trim_end())?;
        let status = wanted.start.split(' ').next().unwrap_or_default();
        let reason = reply.status.canonical_reason().unwrap_or_default();
        if wanted.start != format!("{} {reason}", reply.status.as_u16()) {
            return Err(format!("the document says {status}, the daemon {reply:?}"));
        }
        for (name, value) in &wanted.headers {
            let got = reply.header(name).ok_or_else(|| format!("no header {name} in {reply:?}"))?;
            pattern::text(value, got, &mut self.names).map_err(|error| format!("{name}: {error}"))?;
        }
        match (wanted.body.trim(), reply.body.is_empty()) {
            ("", true) => Ok(()),
            ("", false) | (_, true) => Err(format!("a body on one side only: {reply:?}")),
            (body, false) => pattern::json(&pattern::parse(body)?, &reply.json(), &mut self.names),
        }
    }

    /// Publishes the event and reads it back: as given, with id and timestamp.
    async fn event(&mut self, text: &str) -> Result<(), String> {
        let given: Value = serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
        let published = self.daemon.post("/api/v1/events").json(&given).send().await;
        if published.status != 201 {
            return Err(format!("{given} was refused: {published:?}"));
        }
        let got = self.daemon.get("/api/v1/events?earliest=true&limit=1000").send().await.json();
        let id = &published.ids()[0];
        let found =
            got["data"].as_array().and_then(|events| events.iter().find(|it| it["id"] == id.as_str()));
        let found = found.ok_or_else(|| format!("{given} cannot be read back"))?;
        let mut wanted = json!({"id": "<cursor>", "timestamp": "<timestamp>"});
        if given["type"] == "message" {
            wanted["message_id"] = "<message_id>".into();
        }
        let fields = wanted.as_object_mut().ok_or("no object")?;
        fields.extend(given.as_object().ok_or("no object")?.clone());
        pattern::json(&wanted, found, &mut self.names)
    }

    /// `# METHOD /path {json}` in a dialogue: a request that is sent meanwhile with the first key.
    async fn meanwhile(&mut self, line: &str) -> Result<(), String> {
        let line = fill(line, &self.names)?;
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut call = self.daemon.call(method, path);
        if let Some(body) = parts.next() {
            call = call.body("application/json", body.to_owned());
        }
        let reply = call.send().await;
        match reply.status.is_success() {
            true => Ok(()),
            false => Err(format!("{line:?} was refused: {reply:?}")),
        }
    }

    async fn ws(&mut self, text: &str) -> Result<(), String> {
        let (request, lines) = text.split_once("\n\n").ok_or("no dialogue after the head")?;
        let request = fill(request, &self.names)?;
        let head = message(&request)?;
        let ("GET", path) = request_line(head.start)? else { return Err("an upgrade is a GET".into()) };
        let mut asked = self.daemon.ws(path).without("authorization");
        for (name, value) in head.headers {
            asked = asked.header(&name.to_lowercase(), value);
        }
        let mut ws = asked.ask().await.map_err(|reply| format!("no upgrade: {reply:?}"))?;
        for line in lines.lines() {
            let step = self.ws_line(&mut ws, line).await;
            step.map_err(|error| format!("at {line:?}: {error}"))?;
        }
        Ok(())
    }

    async fn ws_line(&mut self, ws: &mut Ws, line: &str) -> Result<(), String> {
        match (line.get(..2).unwrap_or_default(), line.get(2..).unwrap_or_default()) {
            ("# ", then) => self.meanwhile(then).await,
            ("> ", close) if close.starts_with("close ") => {
                let code: u16 = close["close ".len()..].parse().map_err(|_| "no code")?;
                let frame = CloseFrame { code: code.into(), reason: "".into() };
                ws.send_message(tungstenite::Message::Close(Some(frame))).await;
                Ok(())
            }
            ("> ", frame) => {
                ws.send_text(&fill(frame, &self.names)?).await;
                Ok(())
            }
            ("< ", close) if close.starts_with("close ") => {
                let (code, reason) = ws.closed().await;
                let got = format!("close {code} {reason}");
                pattern::text(close, got.trim_end(), &mut self.names)
            }
            ("< ", frame) => {
                let wanted = pattern::parse(frame)?;
                loop {
                    let got = ws.next_frame().await;
                    // Heartbeats come at any time. The test waits for one only if the example shows it.
                    if got["type"] != "ping" || wanted["type"] == "ping" {
                        return pattern::json(&wanted, &got, &mut self.names);
                    }
                }
            }
            _ => Err("is none of '> ', '< ' and '# '".into()),
        }
    }

    async fn sse(&mut self, text: &str) -> Result<(), String> {
        let (request, rest) = text.split_once("\n\n").ok_or("no answer after the head")?;
        let (response, stream) = rest.split_once("\n\n").ok_or("no stream after the answer's head")?;
        let request = fill(request, &self.names)?;
        let head = message(&request)?;
        let ("GET", path) = request_line(head.start)? else { return Err("a stream is a GET".into()) };
        let mut asked = self.daemon.sse(path).without("authorization").without("accept");
        for (name, value) in head.headers {
            asked = asked.header(&name.to_lowercase(), value);
        }
        let mut sse = asked.ask().await;
        let wanted = message(response)?;
        if !wanted.start.starts_with(&sse.status.to_string()) {
            return Err(format!("the document says {:?}, the daemon {}", wanted.start, sse.head));
        }
        for (name, value) in &wanted.headers {
            let got = sse.header(name).ok_or_else(|| format!("no header {name} in {}", sse.head))?.to_owned();
            pattern::text(value, &got, &mut self.names).map_err(|error| format!("{name}: {error}"))?;
        }
        for piece in stream.trim_end().split("\n\n") {
            let step = self.sse_piece(&mut sse, piece).await;
            step.map_err(|error| format!("at {piece:?}: {error}"))?;
        }
        Ok(())
    }

    /// Handles one event, one comment, one request in between, or the end.
    async fn sse_piece(&mut self, sse: &mut Sse, piece: &str) -> Result<(), String> {
        if piece == "# the end" {
            return match sse.next_block().await {
                None => Ok(()),
                Some(block) => Err(format!("the stream goes on: {block:?}")),
            };
        }
        if let Some(then) = piece.strip_prefix("# ") {
            return self.meanwhile(then).await;
        }
        let keep_alive = piece.starts_with(':') || piece.starts_with("event: heartbeat");
        let block = loop {
            let block = sse.next_block().await.ok_or("the stream ended")?;
            let is_keep_alive = block.comment.is_some() || block.name.as_deref() == Some("heartbeat");
            if keep_alive || !is_keep_alive {
                break block;
            }
        };
        let wanted: Vec<&str> = piece.lines().collect();
        if wanted.len() != block.lines.len() {
            return Err(format!("the daemon sent {:?}", block.lines));
        }
        for (wanted, got) in wanted.into_iter().zip(&block.lines) {
            match (wanted.strip_prefix("data: "), got.strip_prefix("data: ")) {
                (Some(wanted), Some(got)) => {
                    let got = serde_json::from_str(got).map_err(|error| format!("{error} in {got}"))?;
                    pattern::json(&pattern::parse(wanted)?, &got, &mut self.names)?;
                }
                _ => pattern::text(wanted, got, &mut self.names)?,
            }
        }
        Ok(())
    }
}

/// Executes a document. Returns how many blocks were executed.
async fn play(document: &str) -> Result<usize, String> {
    let blocks = blocks(document)?;
    let mut stages: HashMap<Vec<(String, String)>, Stage> = HashMap::new();
    let mut request: Option<&Block> = None;
    for block in &blocks {
        if !stages.contains_key(&block.config) {
            stages.insert(block.config.clone(), Stage::start(&block.config).await);
        }
        let stage = stages.get_mut(&block.config).ok_or("no stage")?;
        let played = match block.kind {
            Kind::Request => {
                request = Some(block);
                Ok(())
            }
            Kind::Response => match request.take() {
                Some(asked) if asked.config == block.config => stage.exchange(&asked.text, &block.text).await,
                _ => Err("request and answer differ in their settings".into()),
            },
            Kind::Event => stage.event(&block.text).await,
            Kind::Ws => stage.ws(&block.text).await,
            Kind::Sse => stage.sse(&block.text).await,
        };
        played.map_err(|error| format!("docs/protocol.md, block at line {}: {error}", block.line))?;
    }
    Ok(blocks.len())
}

#[tokio::test]
async fn every_example_of_the_protocol_document_works() {
    let fences = DOCUMENT.lines().filter(|line| line.trim_start().starts_with("```")).count();
    let played = play(DOCUMENT).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(played * 2, fences, "every fence belongs to an example that was played");
    assert!(played >= 40, "only {played} examples");
}

/// The document has an example of every kind of event, of every implemented control frame, and of every
/// refusal in the tables.
#[test]
fn the_examples_cover_every_frame_and_event_type() {
    let blocks = blocks(DOCUMENT).unwrap();
    let text = |kinds: &[Kind]| -> String {
        blocks.iter().filter(|block| kinds.contains(&block.kind)).map(|block| block.text.as_str()).collect()
    };
    for kind in nervewire::event::EventKind::ALL {
        let shown = text(&[Kind::Event]);
        assert!(shown.contains(&format!("\"type\":\"{}\"", kind.name())), "no example of {}", kind.name());
    }
    let dialogues = text(&[Kind::Ws, Kind::Sse]);
    for name in ["ping", "pong", "heartbeat", "ready", "caught_up", "gap", "ack", "error", "closing"] {
        let shown = dialogues.contains(&format!("\"type\":\"{name}\""))
            || dialogues.contains(&format!("event: {name}"));
        assert!(shown, "no example of {name}");
    }
    let answers = text(&[Kind::Response]);
    for status in [200, 201, 204, 400, 401, 403, 404, 405, 406, 409, 415, 426] {
        assert!(answers.contains(&format!("{status} ")), "no example of {status}");
    }
}

/// Compares the table of close codes with the code.
#[test]
fn the_table_of_close_codes_is_complete() {
    let code = |row: &str| row.strip_prefix("| ")?.split(" |").next()?.parse::<u16>().ok();
    let rows: Vec<&str> =
        DOCUMENT.lines().filter(|row| code(row).is_some_and(|code| code >= 1_000)).collect();
    let codes: Vec<u16> = rows.iter().filter_map(|row| code(row)).collect();
    let mut known: Vec<u16> = CloseReason::ALL.into_iter().filter_map(CloseReason::code).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(codes, known);
    for close in CloseReason::ALL.into_iter().filter(|close| close.code().is_some()) {
        let reason = close.words().1;
        assert!(rows.iter().any(|row| row.contains(reason)), "{reason:?} is not in the table");
    }
}

/// Compares the numbers in the table of limits with the code.
#[test]
fn the_table_of_limits_has_the_numbers_of_the_code() {
    use nervewire::domain::memories;
    use nervewire::{auth, connection, domain, event, filter, frame, http, query, store, tenant, worker};
    let limits = nervewire::config::Config::default().limits;
    for (label, number) in [
        ("one event", limits.event_bytes),
        ("a request body", limits.body_bytes),
        ("a WebSocket message", limits.ws_frame_bytes),
        ("connections of a user", limits.connections_per_user),
        ("connections from an address", limits.connections_per_address),
        ("events a second", limits.publish_per_second as usize),
        ("events in a batch", tenant::body_reader::BATCH_EVENTS),
        ("events in a WebSocket `publish`", connection::client_frame::PUBLISH_EVENTS),
        ("publishes of one WebSocket in flight", usize::from(connection::INFLIGHT_PUBLISHES)),
        ("bytes of an id", event::ID_BYTES),
        ("bytes of a channel", event::CHANNEL_BYTES),
        ("bytes of `metadata`", event::METADATA_BYTES),
        ("bytes of an error event's `code`", event::CODE_BYTES),
        ("values of a filter field", filter::FILTER_VALUES),
        ("values of a narrowing claim", filter::NARROWING_VALUES),
        ("characters of a memory's `content`", memories::CONTENT_CHARS),
        ("versions of a memory", memories::VERSIONS as usize),
        ("words a memory is found by", memories::WORDS),
        ("bytes of a word", store::TERM_BYTES),
        ("items of a batch of memories", memories::batch::ITEMS),
        ("rows one batch of memories writes", memories::batch::ROWS),
        ("characters of a search's `query`", memories::search::QUERY_CHARS),
        ("words of a search", memories::WORDS_ASKED),
        ("words that one with `*` stands for", store::EXPANDED),
        ("words in memories that one search looks at", store::POSTINGS),
        ("searches, and lists of several `tags`, of an organization that wait", store::LONG_WAITING),
        ("other reads of an organization that wait", store::SHORT_WAITING),
        (
            "listings and closings of an organization's connections that wait on a worker",
            worker::connection_list::WAITING,
        ),
        ("hits of a search's answer", memories::search::LIMIT as usize),
        ("hits a search's `offset` passes over", memories::search::OFFSET as usize),
        ("bytes of a `ref`", frame::control::REF_BYTES),
        ("bytes of `gap.after`", frame::control::AFTER_BYTES),
        ("bytes of text in a merged chunk", frame::merge::MERGED_BYTES),
        ("events of one history answer", http::request::parameters::HISTORY_EVENTS),
        ("seconds a poll may wait", http::request::parameters::HISTORY_WAIT_SECONDS as usize),
        ("bytes of a request head", http::HEAD_BYTES),
        ("headers of a request", http::HEADERS),
        ("streams of an HTTP/2 connection", http::connection::h2::STREAMS as usize),
        ("parameters of a query", query::QUERY_PAIRS),
        ("bad frames in a row", usize::from(worker::inbound::BAD_FRAMES)),
        ("refusals for the rate in a row", usize::from(connection::RATE_REFUSALS)),
        ("bytes of a token", auth::TOKEN_BYTES),
        ("seconds a one-shot ticket lives", (auth::ONE_SHOT_MS / 1_000) as usize),
        ("seconds a reconnect ticket lives", (auth::RECONNECT_MS / 1_000) as usize),
        ("unspent tickets of a user or API key", auth::TICKETS_PER_SUBJECT),
        ("unspent tickets of an organization", auth::TICKETS_PER_ORGANIZATION),
        ("seconds a minted token lives at most", (auth::TOKEN_MAX_MS / 1_000) as usize),
        ("API keys of an organization", auth::KEYS_PER_ORGANIZATION),
        ("revoked tokens of an organization", auth::REVOCATIONS_PER_ORGANIZATION),
        ("disabled users of an organization", auth::DISABLED_PER_ORGANIZATION),
        ("users of an organization that are present", connection::presence::PRESENT),
        ("users of an organization whose tokens were ended in 30 days", auth::ENDED_PER_ORGANIZATION),
        ("characters of a password at least", auth::PASSWORD_CHARS),
        ("bytes of a password", auth::PASSWORD_BYTES),
        ("bytes of the body of a login, and of another password", http::LOGIN_BYTES),
        ("bytes of an email", domain::users::EMAIL_BYTES),
        ("wrong passwords of an address for an account", auth::ACCOUNT_FAILURES as usize),
        ("seconds in which those count", (auth::ACCOUNT_WINDOW_MS / 1_000) as usize),
        ("passwords that wait to be verified", auth::LOGINS_WAITING),
        ("logins of an address at once", auth::LOGINS_PER_ADDRESS),
        ("registrations and changes of passwords at once", auth::SETTERS),
        ("registrations and changes of passwords of an organization at once", auth::SETTERS_PER_ORGANIZATION),
        (
            "characters of a core memory block where no limit was given",
            domain::core_memory::BLOCK_CHARS as usize,
        ),
        ("characters of a core memory block at most", domain::core_memory::BLOCK_CHARS_MOST as usize),
    ] {
        let found: Vec<&str> =
            DOCUMENT.lines().filter(|line| line.starts_with(&format!("| {label} |"))).collect();
        assert_eq!(found.len(), 1, "rows of {label:?}");
        let cell = found[0].split('|').nth(2).unwrap().replace([',', ' '], "");
        assert_eq!(cell.parse::<usize>().unwrap(), number, "{label}");
    }
}

/// Compares the table of permissions with the one that token defaults and handlers use.
#[test]
fn the_table_of_permissions_equals_the_code() {
    use nervewire::auth::Role;
    use nervewire::auth::permissions::PERMISSIONS;
    let rows: Vec<Vec<&str>> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| permission |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows[0], ["permission", "scope", "`admin`", "`user`", "`viewer`, `readonly`"]);
    let wanted: Vec<Vec<String>> = PERMISSIONS
        .iter()
        .map(|permission| {
            let has = |role: Role| if permission.roles.contains(&role) { "yes" } else { "–" };
            let scope = format!("`{}`", permission.gives.name());
            let roles = Role::ALL.into_iter().map(|role| has(role).to_owned());
            [permission.what.to_owned(), scope].into_iter().chain(roles).collect()
        })
        .collect();
    assert_eq!(rows[2..], wanted);
}

/// Tests the checker itself: these wrong documents must fail.
#[tokio::test]
async fn a_wrong_document_fails_the_check() {
    for unread in [
        "```js\nfetch('/')\n```\n",
        "```\nanything\n```\n",
        "    indented\n",
        "* a list\n\n  ```ws\n  ```\n",
        "~~~\nx\n~~~\n",
        "```http request\nGET /health\n```\n",
        "```http response\n200 OK\n```\n\n```http request\nGET /health\n```\n",
        "```json event\n{}\n",
    ] {
        assert!(blocks(unread).is_err(), "{unread:?} would go unread");
    }
    let health = "```http request\nGET /health/live\n```\n\n```http response\n";
    let end = "\n```\n";
    let body = "\n\n{\"status\":\"healthy\",\"version\":\"<words>\",\"timestamp\":\"<timestamp>\",\"checks\":{\"store\":\"ok\",\"accepting\":true}}";
    assert_eq!(play(&format!("{health}200 OK{body}{end}")).await, Ok(2));
    for wrong in [
        format!("{health}200 OK{end}"),
        format!("{health}201 Created{body}{end}"),
        format!("{health}200 OK\nX-Nobody: sends{body}{end}"),
        format!("{health}200 OK{}{end}", body.replace("healthy", "ill")),
        format!("{health}200 OK{}{end}", body.replace("<timestamp>", "<cursor>")),
        format!("{health}200 OK{}{end}", body.replace("<words>", "<anything>")),
        format!("{health}200 OK{}{end}", body.replace("\"version\":\"<words>\",", "")),
        "```ws\nGET /api/v1/ws\nAuthorization: Bearer <key>\n\n< {\"type\":\"caught_up\",\"cursor\":\"<cursor>\"}\n```\n".into(),
        "```sse\nGET /api/v1/sse\nAuthorization: Bearer <key>\n\n200 OK\n\nevent: ready\n```\n".into(),
        "```json event\n{\"type\":\"custom\"}\n```\n".into(),
    ] {
        assert!(play(&wrong).await.is_err(), "{wrong} was found right");
    }
}
