//! `tail`: follows events, across lost connections, from its cursor.
//!
//! * The cursor moves with every event and every control frame that carries one, so a quiet stream's stays young.
//! * The position asked for (`--since`, `--earliest`, `--after`) counts until the first cursor arrives; from then on the cursor.
//! * What is shown is shown once: the contract repeats nothing after a cursor.

mod policy;
mod show;

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use serde_json::Value;

use super::args::TailArgs;
use super::outcome::{CliError, Exit};
use super::{given, output, rest};
use crate::client::{Client, ClientError, SseEvent, WsMessage, encode};
use policy::{Next, after_close, after_closing, after_error, wait};

/// How long a stream may be silent: six default SSE keep-alives, three default heartbeats; more if `ready` tells of longer ones.
const SILENCE: Duration = Duration::from_secs(90);
const HEARTBEATS_MISSED: u32 = 3;
/// The longest heartbeat interval that is believed: the greatest that a daemon can be configured to.
const HEARTBEAT_SECONDS_MAX: u64 = 3_600;

pub(super) fn run(args: &TailArgs) -> Result<(), CliError> {
    let client = rest::client(given(&args.url), given(&args.key))?;
    let mut tail = Tail::new(args);
    let ended = rest::runtime()?.block_on(tail.follow(&client));
    if matches!(&ended, Err(CliError::Told { .. })) && !tail.cursor.is_empty() {
        output::note(&format!("continue with --after {}", output::plain(&tail.cursor)));
    }
    ended
}

struct Tail<'a> {
    args: &'a TailArgs,
    /// Empty until the first one arrives.
    cursor: String,
    /// Events shown so far.
    shown: u64,
    /// Whether any stream was ever greeted: before, an unreachable daemon is an error.
    ever_connected: bool,
    /// Streams lost in a row without an event or greeting.
    failures: u32,
    /// Silence after which a stream counts as lost.
    silence: Duration,
}

/// How one stream ended.
enum End {
    /// As many events were shown as asked for.
    Enough,
    Lost(Next),
}

impl<'a> Tail<'a> {
    fn new(args: &'a TailArgs) -> Self {
        Self { args, cursor: String::new(), shown: 0, ever_connected: false, failures: 0, silence: SILENCE }
    }

    async fn follow(&mut self, client: &Client) -> Result<(), CliError> {
        loop {
            let end = if self.args.ws { self.follow_ws(client).await } else { self.follow_sse(client).await };
            let asked = match end? {
                End::Enough => return Ok(()),
                End::Lost(Next::Stop(error)) => return Err(error),
                End::Lost(Next::Again(asked)) => asked,
            };
            if self.args.no_reconnect {
                let hint = "without --no-reconnect it would come back by itself";
                return Err(CliError::new(Exit::Unavailable, "the stream has ended", hint));
            }
            self.failures = self.failures.saturating_add(1);
            // Fresh random keys are what the standard library's hasher is made with.
            let random = std::hash::RandomState::new().build_hasher().finish();
            let pause = wait(self.failures, asked, random);
            output::note(&format!("the stream has ended; again in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
    }

    /// The path with filter and position.
    fn path(&self, endpoint: &str) -> String {
        let args = self.args;
        let mut query: Vec<String> = [
            ("types", &args.types),
            ("agent_id", &args.agent),
            ("user_id", &args.user),
            ("request_id", &args.request),
            ("channel", &args.channel),
        ]
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", list(value))))
        .collect();
        if !self.cursor.is_empty() {
            query.push(format!("last_event_id={}", encode(&self.cursor)));
        } else if let Some(after) = &args.after {
            query.push(format!("last_event_id={}", encode(after)));
        } else if let Some(since) = &args.since {
            query.push(format!("since={}", encode(since)));
        } else if args.earliest {
            query.push("earliest=true".to_owned());
        }
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/api/v1/{endpoint}{mark}{}", query.join("&"))
    }

    async fn follow_sse(&mut self, client: &Client) -> Result<End, CliError> {
        let mut stream = match client.sse(&self.path("sse"), &self.cursor, self.silence).await {
            Ok(stream) => stream,
            Err(error) => return Ok(self.lost(error)),
        };
        loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    if !event.id.is_empty() {
                        self.cursor.clone_from(&event.id);
                    }
                    if let Some(end) = self.take_sse(&event, stream.retry_ms())? {
                        return Ok(end);
                    }
                    stream.set_silence(self.silence);
                }
                Ok(None) => {
                    let asked = Duration::from_millis(stream.retry_ms().unwrap_or(0)).min(SILENCE);
                    return Ok(End::Lost(Next::Again(asked)));
                }
                Err(error) => return Ok(self.lost(error)),
            }
        }
    }

    fn take_sse(&mut self, event: &SseEvent, retry_ms: Option<u64>) -> Result<Option<End>, CliError> {
        let data = parse(&event.data)?;
        match event.event.as_str() {
            "message" => return self.show(&event.data, &data),
            "closing" => {
                let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
                let next = after_closing(text("code"), text("message"), retry_ms);
                if let Next::Again(_) = next {
                    output::note(&output::plain(&format!("closing: {} {}", text("code"), text("message"))));
                }
                return Ok(Some(End::Lost(next)));
            }
            name => self.control(name, &data),
        }
        Ok(None)
    }

    async fn follow_ws(&mut self, client: &Client) -> Result<End, CliError> {
        let mut socket = match client.ws(&self.path("ws"), self.silence).await {
            Ok(socket) => socket,
            Err(error) => return Ok(self.lost(error)),
        };
        loop {
            let text = match socket.next().await {
                Ok(WsMessage::Text(text)) => text,
                Ok(WsMessage::Closed(close)) => return Ok(End::Lost(after_close(close.as_ref()))),
                Err(error) => return Ok(self.lost(error)),
            };
            let frame = parse(&text)?;
            // Events have an id; control frames, of which `error` shares its name with an event, have none.
            if let Some(id) = frame.get("id").and_then(Value::as_str) {
                id.clone_into(&mut self.cursor);
                if let Some(end) = self.show(&text, &frame)? {
                    socket.close().await;
                    return Ok(end);
                }
                continue;
            }
            let kind = frame.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind == "ping" {
                let pong = serde_json::json!({ "type": "pong", "timestamp": frame.get("timestamp") });
                if let Err(error) = socket.send(pong.to_string()).await {
                    return Ok(self.lost(error));
                }
            }
            self.control(kind, &frame);
            socket.set_silence(self.silence);
        }
    }

    /// Shows an event.
    fn show(&mut self, text: &str, event: &Value) -> Result<Option<End>, CliError> {
        self.failures = 0;
        output::line(&if self.args.json { show::json(text, event) } else { show::pretty(event) })?;
        self.shown += 1;
        Ok(self.args.count.is_some_and(|count| self.shown >= count).then_some(End::Enough))
    }

    /// A control frame: its cursor is kept, and what concerns the reader is told on standard error.
    fn control(&mut self, kind: &str, frame: &Value) {
        let text = |name: &str| frame.get(name).and_then(Value::as_str).unwrap_or_default();
        let told = match kind {
            "ready" => {
                self.failures = 0;
                let heartbeat = frame.get("heartbeat_seconds").and_then(Value::as_u64).unwrap_or(0);
                let heartbeat = Duration::from_secs(heartbeat.min(HEARTBEAT_SECONDS_MAX));
                self.silence = SILENCE.max(heartbeat * HEARTBEATS_MISSED);
                let again = std::mem::replace(&mut self.ever_connected, true);
                again.then(|| "connected again".to_owned())
            }
            "gap" => Some(format!("gap: {}; events after {} are missing", text("reason"), text("after"))),
            "error" => Some(format!("error: {}: {}", text("code"), text("message"))),
            _ => None,
        };
        let cursor = if kind == "gap" { "resumes_at" } else { "cursor" };
        if !text(cursor).is_empty() {
            text(cursor).clone_into(&mut self.cursor);
        }
        if let Some(told) = told {
            output::note(&output::plain(&told));
        }
    }

    fn lost(&mut self, error: ClientError) -> End {
        let told = output::plain(&error.to_string());
        let next = after_error(error, self.ever_connected);
        if let Next::Again(_) = next {
            output::note(&told);
        }
        End::Lost(next)
    }
}

/// A comma list for a query: its commas separate, the rest is escaped.
fn list(values: &str) -> String {
    values.split(',').map(encode).collect::<Vec<_>>().join(",")
}

fn parse(text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text)
        .map_err(|error| ClientError::Shape(format!("an event that is no JSON: {error}")).into())
}

#[cfg(test)]
mod tests;
