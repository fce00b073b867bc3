//! `publish`: publishes one event from flags or an argument, or many from standard input.
//!
//! * Lines that are available are sent together, so the lines of a slow producer are sent at once and those
//!   of a fast one fill batches. With an idempotency key from the user, batches are always filled: the same
//!   input makes the same batches, and a repeated run publishes nothing twice.
//! * A batch is atomic and carries an idempotency key. Only because of that key may it be sent again.

use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use http::Method;
use nervewire_client::{ClientError, Request};
use serde_json::{Map, Value, json};

use super::args::PublishArgs;
use super::exit::{CliError, Exit};
use super::output;
use super::rest::Rest;

/// Maximum lines of one batch, as the protocol allows (§8).
const BATCH_LINES_MAX: usize = 1_000;
/// Bytes after which a batch is closed. This is well below the default `limits.body_bytes`.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Maximum bytes of a line from standard input. The daemon's own limit for an event is far lower.
const LINE_BYTES_MAX: usize = 1 << 20;

pub(super) fn run(args: PublishArgs) -> Result<(), CliError> {
    let mut rest = Rest::of(&args.remote)?;
    if args.event.as_deref() == Some("-") {
        return lines(&mut rest, &args);
    }
    let event = event(&args)?;
    let mut request = request(&args).body("application/json", event);
    if let Some(key) = &args.idempotency_key {
        request = request.idempotency_key(key);
    }
    let body = rest.call(&request)?;
    report(&args, &body)
}

fn request(args: &PublishArgs) -> Request {
    let ack = args.ack.as_ref().filter(|ack| *ack == "memory").map_or("", |_| "?ack=memory");
    Request::new(Method::POST, format!("/api/v1/events{ack}"))
}

/// Returns the event's JSON: the argument unchanged, or built from flags.
fn event(args: &PublishArgs) -> Result<String, CliError> {
    if let Some(text) = &args.event {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            let hint = "for example: nervewire publish --channel chat --data '{\"text\":\"hello\"}'";
            return Err(CliError::new(Exit::Usage, format!("the event is not valid JSON: {error}"), hint));
        }
        return Ok(text.clone());
    }
    let mut event = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            event.insert(name.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::from);
    let kind = match (&args.channel, &args.content, &args.status) {
        (Some(_), ..) => "custom",
        (_, Some(_), _) => "message",
        (.., Some(_)) => "agent_update",
        _ => "stream_chunk",
    };
    set("type", Some(json!(kind)));
    set("channel", text(&args.channel));
    set("data", args.data.clone());
    set("content", text(&args.content));
    set("role", text(&args.role));
    set("status", text(&args.status));
    set("chunk", text(&args.chunk));
    set("request_id", text(&args.request));
    set("is_final", args.chunk.as_ref().map(|_| json!(args.is_final)));
    set("agent_id", text(&args.agent));
    set("user_id", text(&args.user));
    set("metadata", args.metadata.clone());
    Ok(Value::Object(event).to_string())
}

/// Prints the ids of a response.
fn report(args: &PublishArgs, body: &Value) -> Result<(), CliError> {
    let ids = body.pointer("/data/ids").and_then(Value::as_array);
    let ids = ids.ok_or_else(|| ClientError::UnexpectedResponse("no `data.ids`".into()))?;
    if args.quiet || ids.is_empty() {
        Ok(())
    } else if args.remote.json {
        output::line(&json!({ "ids": ids }).to_string())
    } else {
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        output::line(&ids.join("\n"))
    }
}

/// Publishes standard input in batches.
fn lines(rest: &mut Rest, args: &PublishArgs) -> Result<(), CliError> {
    // One batch may wait while another is in progress. More would only delay the report of a failure.
    let (sender, receiver) = sync_channel(BATCH_LINES_MAX);
    // The thread ends with standard input or with the process, because a blocked read cannot be cancelled.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let line = read_line(&mut stdin);
            let last = !matches!(line, Ok(Some(_)));
            if sender.send(line).is_err() || last {
                return;
            }
        }
    });
    let unique = uuid::Uuid::now_v7().to_string();
    let prefix = args.idempotency_key.clone().unwrap_or(unique);
    let mut published = 0;
    for number in 0.. {
        let (batch, count, end) = next_batch(&receiver, args.idempotency_key.is_some());
        if count > 0 {
            let request = request(args)
                .body("application/x-ndjson", batch)
                .idempotency_key(format!("{prefix}-{number}"));
            let again = |error: &ClientError, wait: Duration| {
                output::print_note(&output::plain(&format!(
                    "{error}; retrying in {:.1} s",
                    wait.as_secs_f64()
                )));
            };
            let body =
                rest.call_until_answered(&request, again).map_err(|error| at(error.into(), published))?;
            report(args, &body)?;
            published += count;
        }
        match end {
            None => {}
            Some(Ok(())) => break,
            Some(Err(error)) => {
                let error = CliError::new(Exit::Failed, format!("cannot read standard input: {error}"), "");
                return Err(at(error, published));
            }
        }
    }
    Ok(())
}

type Line = std::io::Result<Option<Vec<u8>>>;

/// Reads a line with its newline; `None` at the end of input.
fn read_line(stdin: &mut impl std::io::BufRead) -> Line {
    let mut line = Vec::new();
    let read = std::io::Read::take(&mut *stdin, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if read == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        return Err(std::io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
    }
    if !line.is_empty() && !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    Ok((!line.is_empty()).then_some(line))
}

/// Waits for a line, adds the lines that are available after it, and returns whether input has ended. With
/// `fill` it waits until the batch is full.
fn next_batch(receiver: &Receiver<Line>, fill: bool) -> (Vec<u8>, usize, Option<std::io::Result<()>>) {
    let (mut batch, mut count) = (Vec::new(), 0);
    let mut next = receiver.recv().unwrap_or(Ok(None));
    loop {
        match next {
            Ok(None) => return (batch, count, Some(Ok(()))),
            Err(error) => return (batch, count, Some(Err(error))),
            Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(Some(line)) => {
                batch.extend_from_slice(&line);
                count += 1;
            }
        }
        if count >= BATCH_LINES_MAX || batch.len() >= BATCH_BYTES_MAX {
            return (batch, count, None);
        }
        match receiver.try_recv() {
            Ok(line) => next = line,
            // No line is available, so the batch is sent. The next `recv` reports a disconnected sender.
            Err(_) if count > 0 && !fill => return (batch, count, None),
            Err(_) => next = receiver.recv().unwrap_or(Ok(None)),
        }
    }
}

/// Returns the same error with the number of events published before it.
fn at(error: CliError, published: usize) -> CliError {
    match error {
        CliError::Reported { exit, message, hint } => {
            CliError::Reported { exit, message: format!("after {published} events: {message}"), hint }
        }
        CliError::StdoutClosed => CliError::StdoutClosed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn event_from(flags: &[&str]) -> Value {
        let arguments = ["nervewire", "publish"].iter().chain(flags);
        match Cli::try_parse_from(arguments).unwrap().command {
            Some(Command::Publish(args)) => serde_json::from_str(&event(&args).unwrap()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_make_events() {
        assert_eq!(
            event_from(&["--channel", "chat", "--data", "{\"a\":1}", "--user", "u"]),
            json!({"type": "custom", "channel": "chat", "data": {"a": 1}, "user_id": "u"})
        );
        assert_eq!(
            event_from(&[
                "--agent",
                "a",
                "--user",
                "u",
                "--content",
                "hi",
                "--role",
                "tool",
                "--metadata",
                "{\"k\":2}"
            ]),
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "hi", "role": "tool", "metadata": {"k": 2}})
        );
        assert_eq!(
            event_from(&["--agent", "a", "--status", "idle"]),
            json!({"type": "agent_update", "agent_id": "a", "status": "idle"})
        );
        assert_eq!(
            event_from(&["--request", "r", "--chunk", "", "--final"]),
            json!({"type": "stream_chunk", "request_id": "r", "chunk": "", "is_final": true})
        );
        assert_eq!(event_from(&["{\"type\":\"x\"}"]), json!({"type": "x"}));
    }

    fn batches(input: &[&str]) -> Vec<(String, usize)> {
        let (sender, receiver) = sync_channel(10_000);
        for line in input {
            sender.send(Ok(Some(line.as_bytes().to_vec()))).unwrap();
        }
        sender.send(Ok(None)).unwrap();
        let mut batches = Vec::new();
        loop {
            let (batch, count, end) = next_batch(&receiver, false);
            batches.push((String::from_utf8(batch).unwrap(), count));
            if end.is_some() {
                return batches;
            }
        }
    }

    #[test]
    fn lines_at_hand_leave_together_up_to_the_limit() {
        assert_eq!(batches(&["a\n", "\n", "b\n"]), [("a\nb\n".to_owned(), 2)]);
        assert_eq!(batches(&[]), [(String::new(), 0)]);
        let counts: Vec<_> = batches(&["x\n"; 2_500]).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1_000, 1_000, 500]);
        let wide = format!("{}\n", "y".repeat(400_000));
        let counts: Vec<_> = batches(&[wide.as_str(); 4]).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [3, 1]);
    }

    /// Whether batches are filled decides whether a run can be repeated. With `fill` they are, at any speed
    /// of the producer.
    #[test]
    fn a_filled_batch_waits_for_the_end_of_input() {
        for (fill, expected) in [(false, 1), (true, 2)] {
            let (sender, receiver) = sync_channel(0);
            let (go, wait) = sync_channel::<()>(0);
            let producer = std::thread::spawn(move || {
                sender.send(Ok(Some(b"a\n".to_vec()))).unwrap();
                // Without `fill` the second line is sent only after the first batch was taken.
                if !fill {
                    wait.recv().unwrap();
                }
                let _ = sender.send(Ok(Some(b"b\n".to_vec())));
            });
            assert_eq!(next_batch(&receiver, fill).1, expected);
            if !fill {
                go.send(()).unwrap();
            }
            drop(receiver);
            producer.join().unwrap();
        }
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let mut input = std::io::Cursor::new(b"a\nb".to_vec());
        assert_eq!(read_line(&mut input).unwrap(), Some(b"a\n".to_vec()));
        assert_eq!(read_line(&mut input).unwrap(), Some(b"b\n".to_vec()));
        assert_eq!(read_line(&mut input).unwrap(), None);
        let mut endless = std::io::Cursor::new(vec![b'x'; LINE_BYTES_MAX + 1]);
        assert!(read_line(&mut endless).is_err());
    }
}
