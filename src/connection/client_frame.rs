//! Frames that a WebSocket client sends: one JSON object per text message, tagged by `type`.
//!
//! * A frame is accepted or refused as a whole; the refusal names an unknown type or field.
//! * Published events stay raw JSON: only [`crate::event::Event::parse`] decides what an event is.
//! * Only syntax and limits are checked here, never rights. Nothing prints a token, not even `Debug`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::cursor::StartPosition;
use crate::filter::{Filter, FilterBuilder, Values};
use crate::frame::control::Ref;
use crate::tenant::admission::AckMode;
use crate::tenant::admission::stream_word::ChunkInput;
use crate::tenant::streams::state::{CHUNKS_AT_ONCE, StreamEnd};
use crate::time;

/// The most events of one `publish`.
pub const PUBLISH_EVENTS: usize = crate::tenant::body_reader::BATCH_EVENTS;
/// The most bytes of a `token`. A longer one could not be sent in a header either.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// The most fields that are read of a frame; this stops a frame with a million keys.
const MAX_FIELDS: usize = 16;

/// The frames that a client may send, each with its fields besides `type` and `ref`.
pub const FRAMES: [(&str, &[&str]); 9] = [
    ("ping", &["timestamp", "cursor"]),
    ("pong", &["timestamp", "cursor"]),
    (
        "subscribe",
        &[
            "last_event_id",
            "since",
            "earliest",
            "types",
            "agent_id",
            "user_id",
            "request_id",
            "channel",
            "parts",
            "from_start",
        ],
    ),
    ("auth", &["token"]),
    ("publish", &["event", "events", "ack"]),
    ("append", &["request_id", "producer_token", "index", "chunk", "chunks", "part", "is_final"]),
    ("finish", &["request_id", "producer_token", "finish_reason", "usage"]),
    ("fail", &["request_id", "producer_token", "code", "message"]),
    ("cancel", &["request_id", "reason"]),
];

/// A frame from a client.
#[derive(Debug)]
pub enum ClientFrame<'a> {
    /// A ping, which is answered by `pong`.
    Ping,
    /// The answer to the server's `ping`.
    Pong,
    /// Replaces the filter, and the position if one is given; answered by `ready`.
    Subscribe(Subscribe),
    /// Renews the credential of this connection.
    Auth {
        /// The new credential.
        token: RawCredential<'a>,
        /// Echoed in `ack`.
        reference: Option<Ref>,
    },
    /// Publishes events.
    Publish {
        /// The events, 1 to [`PUBLISH_EVENTS`], still raw.
        events: Vec<&'a RawValue>,
        /// `events` was given, so an error also names the item: `[3].content`.
        batch: bool,
        /// When the ack is sent.
        ack: AckMode,
        /// Echoed in `ack` or `error`.
        reference: Option<Ref>,
    },
    /// Appends chunks to a stream.
    Append(AppendFrame<'a>),
    /// Ends a stream on behalf of its producer.
    End(EndFrame<'a>),
    /// Cancels a stream.
    Cancel {
        /// The stream to cancel.
        request_id: Cow<'a, str>,
        /// The reason for people.
        reason: Option<Cow<'a, str>>,
        /// Echoed in the response.
        reference: Option<Ref>,
    },
}

/// A client's `append`.
#[derive(Debug)]
pub struct AppendFrame<'a> {
    /// The stream.
    pub request_id: Cow<'a, str>,
    /// The producer's token.
    pub token: RawCredential<'a>,
    /// The index of the first chunk; `None` for the next one.
    pub index: Option<u64>,
    /// The chunks, 1 to [`CHUNKS_AT_ONCE`].
    pub chunks: Vec<ChunkInput<'a>>,
    /// Whether the stream is complete after them.
    pub is_final: bool,
    /// Echoed in `ack` or `error`.
    pub reference: Option<Ref>,
}

/// A client's `finish` or `fail`.
#[derive(Debug)]
pub struct EndFrame<'a> {
    /// The stream.
    pub request_id: Cow<'a, str>,
    /// The producer's token.
    pub token: RawCredential<'a>,
    /// How the stream ends.
    pub end: StreamEnd,
    /// Echoed in `ack` or `error`.
    pub reference: Option<Ref>,
}

/// A client's `subscribe`.
#[derive(Debug)]
pub struct Subscribe {
    /// The filter to apply.
    pub filter: Filter,
    /// Where the subscription starts; `None` keeps the present position.
    pub from: Option<StartPosition>,
    /// Whether the streams that the filter names are read from their first chunk.
    pub from_start: bool,
    /// Echoed in `ready`.
    pub reference: Option<Ref>,
}

/// A credential as the client sent it.
pub struct RawCredential<'a>(pub Cow<'a, str>);

impl AsRef<str> for RawCredential<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RawCredential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why a frame was refused: `error{BAD_REQUEST,message,ref?}`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadFrame {
    /// What is wrong, in words; names the field.
    pub reason: String,
    /// The frame's `ref`, if it could be read.
    pub reference: Option<Ref>,
}

impl<'a> ClientFrame<'a> {
    /// Parses one frame.
    ///
    /// # Errors
    /// [`BadFrame`]: the text is not one JSON object, or a field is unknown, missing, repeated or of a wrong
    /// type.
    pub fn parse(text: &'a str) -> Result<ClientFrame<'a>, BadFrame> {
        let mut fields = Fields::default();
        let result = fields.read(text).and_then(|()| fields.frame());
        result.map_err(|reason| BadFrame { reason, reference: fields.reference.take() })
    }
}

/// The fields of a frame, in order. The fields that could be read are kept even if the rest is broken.
#[derive(Default)]
struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    reference: Option<Ref>,
}

type Refused = String;

impl<'a> Fields<'a> {
    fn read(&mut self, text: &'a str) -> Result<(), Refused> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = reader.deserialize_map(FieldsVisitor(&mut self.fields)).and_then(|()| reader.end());
        // The reference is read first, so that an error of any other field can carry it.
        let mut references = self.fields.iter().filter(|(name, _)| name == "ref");
        let reference = references.next().map(|(_, raw)| serde_json::from_str::<Option<Ref>>(raw.get()));
        if let Some(Ok(reference)) = &reference {
            self.reference.clone_from(reference);
        }
        read.map_err(|error| format!("is not a JSON object: {error}"))?;
        if matches!(reference, Some(Err(_))) {
            return Err("ref: must be a whole number or a string of at most 64 bytes".into());
        }
        for (at, (name, _)) in self.fields.iter().enumerate() {
            if self.fields[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("{}: is given twice", shown(name)));
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<ClientFrame<'a>, Refused> {
        let kind = text("type", self.get("type").ok_or("type: is required")?)?;
        if let Some((_, names)) = FRAMES.iter().find(|(name, _)| *name == kind) {
            self.known(&kind, names)?;
        }
        match kind.as_ref() {
            "ping" => Ok(ClientFrame::Ping),
            "pong" => Ok(ClientFrame::Pong),
            "subscribe" => self.subscribe(),
            "auth" => {
                let token = self.required("token")?;
                match token.len() {
                    1..=TOKEN_BYTES => Ok(ClientFrame::Auth {
                        token: RawCredential(token),
                        reference: self.reference.take(),
                    }),
                    _ => Err(format!("token: must be 1 to {TOKEN_BYTES} bytes")),
                }
            }
            "publish" => self.publish(),
            "append" => self.append(),
            "finish" => {
                let usage = self.get("usage").filter(|usage| usage.get() != "null").map(RawValue::to_owned);
                let reason = self.optional("finish_reason")?.map(Cow::into_owned);
                self.end(StreamEnd::completed(reason, usage))
            }
            "fail" => {
                let (code, message) = (self.required("code")?, self.required("message")?);
                self.end(StreamEnd::failed(code.into_owned(), message.into_owned()))
            }
            "cancel" => {
                let request_id = self.required("request_id")?;
                let reason = self.optional("reason")?;
                Ok(ClientFrame::Cancel { request_id, reason, reference: self.reference.take() })
            }
            other => {
                let names = FRAMES.map(|(name, _)| name).join(", ");
                Err(format!("type: {} is none of {names}", shown(other)))
            }
        }
    }

    fn subscribe(&mut self) -> Result<ClientFrame<'a>, Refused> {
        let mut filter = FilterBuilder::default();
        let (mut cursor, mut since, mut earliest, mut from_start) = (None, None, false, false);
        for (name, raw) in &self.fields {
            match name.as_ref() {
                "type" | "ref" => {}
                "last_event_id" => cursor = present(name, raw)?,
                "since" => {
                    if let Some(text) = present(name, raw)? {
                        since = Some(time::parse_rfc3339(&text).ok_or("since: must be RFC 3339")?);
                    }
                }
                "earliest" => earliest = flag(name, raw)?,
                "from_start" => from_start = flag(name, raw)?,
                field if Filter::PARAMETERS.contains(&field) => {
                    let values: Values<'_> = serde_json::from_str(raw.get())
                        .map_err(|_| format!("{field}: must be a comma list or an array of strings"))?;
                    filter.values(field, &values).map_err(|error| error.to_string())?;
                }
                Filter::PARTS => {
                    let parts = present(name, raw)?.unwrap_or_default();
                    filter.parts(&parts).map_err(|error| error.to_string())?;
                }
                other => return Err(unknown(other, "subscribe")),
            }
        }
        let filter = filter.build().map_err(|error| error.to_string())?;
        let from = match (cursor, since) {
            (Some(cursor), _) => Some(StartPosition::Cursor(cursor.into())),
            (None, Some(since_ms)) => Some(StartPosition::Since(since_ms)),
            (None, None) => earliest.then_some(StartPosition::Earliest),
        };
        if from_start && filter.requests().is_empty() {
            return Err("request_id: is required with from_start".into());
        }
        let reference = self.reference.take();
        Ok(ClientFrame::Subscribe(Subscribe { filter, from, from_start, reference }))
    }

    fn append(&mut self) -> Result<ClientFrame<'a>, Refused> {
        let (request_id, token) = (self.required("request_id")?, self.producer_token()?);
        let index = match self.get("index").map(RawValue::get) {
            None | Some("null") => None,
            Some(raw) => {
                Some(crate::json_integer::from_json(raw).ok_or("index: must be a whole number, 0 or more")?)
            }
        };
        let part = self.get("part").map(part_of).transpose()?.flatten();
        let chunk = |text| ChunkInput { text, part: part.clone() };
        let chunks = match (self.get("chunk"), self.get("chunks")) {
            (Some(one), None) => vec![chunk(text("chunk", one)?)],
            (None, Some(several)) => {
                let RawEvents(items) = serde_json::from_str(several.get())
                    .map_err(|_| format!("chunks: must be an array of 1 to {CHUNKS_AT_ONCE} chunks"))?;
                let one = |raw: &'a RawValue| match raw.get().starts_with('{') {
                    false => Ok(chunk(text("chunks", raw)?)),
                    true => {
                        let given: PartChunk<'a> =
                            serde_json::from_str(raw.get()).map_err(|error| format!("chunks: {error}"))?;
                        let own = given.part.map(part_of).transpose()?.flatten();
                        Ok(ChunkInput { text: given.chunk, part: own.or_else(|| part.clone()) })
                    }
                };
                items.into_iter().map(one).collect::<Result<Vec<_>, Refused>>()?
            }
            _ => return Err("append: takes either chunk or chunks".into()),
        };
        let is_final = self.get("is_final").map_or(Ok(false), |raw| flag("is_final", raw))?;
        let reference = self.reference.take();
        Ok(ClientFrame::Append(AppendFrame { request_id, token, index, chunks, is_final, reference }))
    }

    fn end(&mut self, end: StreamEnd) -> Result<ClientFrame<'a>, Refused> {
        let (request_id, token) = (self.required("request_id")?, self.producer_token()?);
        Ok(ClientFrame::End(EndFrame { request_id, token, end, reference: self.reference.take() }))
    }

    fn producer_token(&self) -> Result<RawCredential<'a>, Refused> {
        self.required("producer_token").map(RawCredential)
    }

    /// The text of a field that may be absent or `null`.
    fn optional(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refused> {
        Ok(self.get(name).map(|raw| present(name, raw)).transpose()?.flatten())
    }

    fn publish(&mut self) -> Result<ClientFrame<'a>, Refused> {
        let ack = match self.get("ack").map(|raw| present("ack", raw)).transpose()?.flatten() {
            None => AckMode::Durable,
            Some(ack) if ack == "durable" => AckMode::Durable,
            Some(ack) if ack == "memory" => AckMode::Memory,
            Some(_) => return Err("ack: must be memory or durable".into()),
        };
        let (events, batch) = match (self.get("event"), self.get("events")) {
            (Some(event), None) => (vec![event], false),
            (None, Some(events)) => {
                let batch: RawEvents<'_> = serde_json::from_str(events.get())
                    .map_err(|_| format!("events: must be an array of 1 to {PUBLISH_EVENTS} events"))?;
                (batch.0, true)
            }
            _ => return Err("publish: takes either event or events".into()),
        };
        Ok(ClientFrame::Publish { events, batch, ack, reference: self.reference.take() })
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    fn required(&self, name: &str) -> Result<Cow<'a, str>, Refused> {
        text(name, self.get(name).ok_or_else(|| format!("{name}: is required"))?)
    }

    fn known(&self, kind: &str, names: &[&str]) -> Result<(), Refused> {
        let stray = |name: &str| !matches!(name, "type" | "ref") && !names.contains(&name);
        match self.fields.iter().find(|(name, _)| stray(name)) {
            Some((name, _)) => Err(unknown(name, kind)),
            None => Ok(()),
        }
    }
}

fn unknown(name: &str, kind: &str) -> Refused {
    format!("{}: is not a field of {kind}", shown(name))
}

/// A client's own text for an error message, shortened.
fn shown(word: &str) -> String {
    word.chars().take(64).collect()
}

fn text<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, Refused> {
    let CowStr(text) = serde_json::from_str(raw.get()).map_err(|_| format!("{name}: must be a string"))?;
    Ok(text)
}

/// Returns the text of a field; `null` and `""` count as absent.
fn present<'a>(name: &str, raw: &'a RawValue) -> Result<Option<Cow<'a, str>>, Refused> {
    match raw.get() {
        "null" => Ok(None),
        _ => text(name, raw).map(|text| (!text.is_empty()).then_some(text)),
    }
}

fn flag(name: &str, raw: &RawValue) -> Result<bool, Refused> {
    let value: Result<Option<bool>, _> = serde_json::from_str(raw.get());
    Ok(value.map_err(|_| format!("{name}: must be true or false"))?.unwrap_or_default())
}

/// Reads the part of a chunk; `null` counts as absent.
fn part_of(raw: &RawValue) -> Result<Option<Cow<'_, str>>, Refused> {
    match raw.get() {
        "null" => Ok(None),
        _ => crate::event::parse_part(raw).map(Some).map_err(|error| error.to_string()),
    }
}

/// A chunk with its part.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartChunk<'a> {
    #[serde(borrow)]
    chunk: Cow<'a, str>,
    #[serde(borrow)]
    part: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CowStr<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor<'f, 'a>(&'f mut Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Visitor<'de> for FieldsVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(CowStr(name)) = map.next_key()? {
            if self.0.len() == MAX_FIELDS {
                return Err(serde::de::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
            }
            self.0.push((name, map.next_value()?));
        }
        Ok(())
    }
}

/// 1 to [`PUBLISH_EVENTS`] raw values. Of a longer array the rest is not kept.
struct RawEvents<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for RawEvents<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BatchVisitor;
        impl<'de> Visitor<'de> for BatchVisitor {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut events = Vec::new();
                while let Some(event) = seq.next_element()? {
                    if events.len() == PUBLISH_EVENTS {
                        return Err(serde::de::Error::invalid_length(PUBLISH_EVENTS + 1, &self));
                    }
                    events.push(event);
                }
                match events.is_empty() {
                    true => Err(serde::de::Error::invalid_length(0, &self)),
                    false => Ok(events),
                }
            }
        }
        deserializer.deserialize_seq(BatchVisitor).map(RawEvents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> BadFrame {
        ClientFrame::parse(text).expect_err(text)
    }

    #[test]
    fn each_kind_of_frame_is_parsed() {
        let parse = |text| ClientFrame::parse(text).expect(text);
        assert!(matches!(parse(r#"{"type":"ping","timestamp":"x"}"#), ClientFrame::Ping));
        assert!(matches!(parse(r#"{"type":"pong"}"#), ClientFrame::Pong));
        let subscribe = |text: &str| match ClientFrame::parse(text).expect(text) {
            ClientFrame::Subscribe(subscribe) => subscribe,
            other => panic!("{other:?}"),
        };
        let parsed = subscribe(
            r#"{"type":"subscribe","ref":7,"types":"message,error","agent_id":["a","b"],"user_id":"","earliest":true,
                "since":"1970-01-01T00:00:01Z","last_event_id":"abc"}"#,
        );
        assert_eq!((parsed.filter.agents().len(), parsed.filter.users().len()), (2, 0));
        assert_eq!(
            (parsed.reference, parsed.from),
            (Some(Ref::Number(7)), Some(StartPosition::Cursor("abc".into())))
        );
        for (json, from) in [
            (r#"{"type":"subscribe","last_event_id":"","since":null,"earliest":false}"#, None),
            (
                r#"{"type":"subscribe","since":"1970-01-01T00:00:01Z","earliest":true}"#,
                Some(StartPosition::Since(1000)),
            ),
            (r#"{"type":"subscribe","earliest":true}"#, Some(StartPosition::Earliest)),
        ] {
            assert_eq!(subscribe(json).from, from, "{json}");
        }
        for (parts, all) in [(r#""all""#, true), (r#""text""#, false), ("null", false), (r#""""#, false)] {
            let json = format!(r#"{{"type":"subscribe","parts":{parts}}}"#);
            assert_eq!(subscribe(&json).filter.all_parts(), all, "{parts}");
        }
        let auth = parse(r#"{"type":"auth","token":"se\u0063ret","ref":"r"}"#);
        assert!(!format!("{auth:?}").contains("secret"));
        assert!(
            matches!(auth, ClientFrame::Auth { token, reference: Some(Ref::Text(_)) } if token.0 == "secret")
        );
        let ClientFrame::Publish { events, batch, ack, .. } =
            parse(r#"{"type":"publish","events":[{"a": 1},2],"ack":"memory"}"#)
        else {
            panic!("a publish")
        };
        assert_eq!((events[0].get(), events.len(), batch, ack), (r#"{"a": 1}"#, 2, true, AckMode::Memory));
        let ClientFrame::Publish { events, batch, ack, .. } = parse(r#"{"type":"publish","event":{}}"#)
        else {
            panic!("a publish")
        };
        assert_eq!((events.len(), batch, ack), (1, false, AckMode::Durable));
        assert!(matches!(parse(r#"{"type":"cancel","request_id":"r"}"#), ClientFrame::Cancel { .. }));
    }

    #[test]
    fn an_error_names_the_wrong_field() {
        for (text, named) in [
            ("", "is not a JSON object"),
            ("[]", "is not a JSON object"),
            ("7", "is not a JSON object"),
            (r#"{"type":"ping"} x"#, "is not a JSON object"),
            ("{}", "type: is required"),
            (r#"{"type":7}"#, "type: must be a string"),
            (r#"{"type":"dance"}"#, "type: dance"),
            (r#"{"type":"ping","colour":1}"#, "colour: is not a field of ping"),
            (r#"{"type":"subscribe","colour":1}"#, "colour: is not a field of subscribe"),
            (r#"{"type":"subscribe","types":"nope"}"#, "types: unknown type \"nope\""),
            (r#"{"type":"subscribe","agent_id":7}"#, "agent_id: must be"),
            (r#"{"type":"subscribe","since":"now"}"#, "since: must be RFC 3339"),
            (r#"{"type":"subscribe","parts":"source"}"#, "parts: must be text or all"),
            (r#"{"type":"subscribe","parts":["all"]}"#, "parts: must be a string"),
            (r#"{"type":"subscribe","earliest":"yes"}"#, "earliest: must be"),
            (r#"{"type":"ping","type":"pong"}"#, "type: is given twice"),
            (r#"{"type":"publish"}"#, "publish: takes either"),
            (r#"{"type":"publish","event":{},"events":[]}"#, "publish: takes either"),
            (r#"{"type":"publish","events":[]}"#, "events: must be"),
            (r#"{"type":"publish","event":{},"ack":"never"}"#, "ack: must be"),
            (r#"{"type":"auth"}"#, "token: is required"),
            (r#"{"type":"auth","token":""}"#, "token: must be"),
            (r#"{"type":"ping","ref":-1}"#, "ref: must be"),
        ] {
            let reason = refused(text).reason;
            assert!(reason.contains(named), "{text}: {reason}");
        }
        let long = format!(r#"{{"type":"publish","events":[{}1]}}"#, "1,".repeat(PUBLISH_EVENTS));
        assert!(refused(&long).reason.starts_with("events: must be"));
    }

    #[test]
    fn an_error_has_the_ref_wherever_it_is_in_the_frame() {
        let reference = Some(Ref::Number(9));
        assert_eq!(refused(r#"{"type":"dance","ref":9}"#).reference, reference);
        assert_eq!(refused(r#"{"ref":9,"type":"publish","events":[}"#).reference, reference);
        assert_eq!(refused(r#"{"ref":9"#).reference, reference);
        assert_eq!(refused(r#"{"type":"dance","ref":[]}"#).reference, None);
    }

    #[test]
    fn deep_json_is_an_error_not_a_stack_overflow() {
        let deep = format!(r#"{{"ref":1,"type":"publish","event":{}"#, "[".repeat(200_000));
        assert_eq!(refused(&deep).reference, Some(Ref::Number(1)));
        let deep = format!("{}{}", r#"{"type":"subscribe","agent_id":"#, "[".repeat(200_000));
        assert!(!refused(&deep).reason.is_empty());
    }
}
