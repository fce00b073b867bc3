//! A stream as HTTP shows it.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::event::is_text_part;
use crate::store::StreamText;
use crate::tenant::streams::{Stream, StreamState};
use crate::time::rfc3339;

/// The state of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamState)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Its producer may append.
    Open,
    /// Its producer finished it.
    Completed,
    /// Its producer said that it failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its producer fell silent.
    Abandoned,
}

/// Why a stream did not complete.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamFailure)]
struct Failure {
    /// Code for programs: `CANCELLED`, `ABANDONED`, or what the producer said.
    code: String,
    /// Message for people.
    message: String,
}

/// A stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Stream)]
pub(super) struct StreamInfo {
    /// Id of the stream.
    request_id: String,
    /// Agent that speaks.
    agent_id: Option<String>,
    /// User who may read the stream. `null` means everyone in the organization.
    user_id: Option<String>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// State. All but `open` are for ever.
    state: State,
    /// How often the stream was opened or taken over.
    generation: u32,
    /// Index of the next chunk; at the end, the number of chunks.
    next_index: u64,
    /// Bytes of text.
    text_bytes: u64,
    /// Seconds for which the producer may be silent.
    lease_seconds: u32,
    /// Time of the opening.
    #[schema(format = DateTime)]
    opened_at: String,
    /// Time of the end.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Why the model stopped.
    finish_reason: Option<String>,
    /// What the stream cost.
    #[schema(value_type = Option<Object>)]
    usage: Option<Box<RawValue>>,
    /// Why the stream did not complete.
    error: Option<Failure>,
}

impl StreamInfo {
    pub(super) fn of(stream: &Stream) -> StreamInfo {
        let failure = |error: &crate::tenant::streams::StreamFailure| Failure {
            code: error.code.clone(),
            message: error.message.clone(),
        };
        StreamInfo {
            request_id: stream.request_id.clone(),
            agent_id: stream.agent_id.clone(),
            user_id: stream.user_id.clone(),
            metadata: stream.metadata.clone(),
            state: match stream.state {
                StreamState::Open => State::Open,
                StreamState::Completed => State::Completed,
                StreamState::Failed => State::Failed,
                StreamState::Cancelled => State::Cancelled,
                StreamState::Abandoned => State::Abandoned,
            },
            generation: stream.generation,
            next_index: stream.next_index,
            text_bytes: stream.text_bytes,
            lease_seconds: stream.lease_seconds,
            opened_at: rfc3339(stream.opened_ms),
            ended_at: stream.ended_ms.map(rfc3339),
            finish_reason: stream.finish_reason.clone(),
            usage: stream.usage.clone(),
            error: stream.error.as_ref().map(failure),
        }
    }
}

/// A stream and its text so far.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamWithText)]
pub(super) struct StreamBody {
    #[serde(flatten)]
    stream: StreamInfo,
    /// The text from `offset` on. `null` if it was removed or not asked for.
    text: Option<String>,
    /// The byte at which `text` begins: that of the request, or the start of the character there.
    offset: u64,
    /// With `parts=all`: all text in order, by part, from the beginning. Otherwise `null`.
    parts: Option<Vec<PartText>>,
}

/// Text of one part of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamPart)]
struct PartText {
    /// The part. `null` means plain text.
    #[schema(value_type = Option<Object>)]
    part: Option<Box<RawValue>>,
    /// The text.
    text: String,
}

/// Collects the text of a stream.
pub(super) struct PartTexts {
    /// Bytes of text that are still to be skipped.
    skip: u64,
    offset: u64,
    text: String,
    parts: Option<Vec<(Option<Box<str>>, String)>>,
}

impl PartTexts {
    pub(super) fn new(offset: u64, all_parts: bool) -> PartTexts {
        PartTexts { skip: offset, offset: 0, text: String::new(), parts: all_parts.then(Vec::new) }
    }

    /// Takes the next chunks. Returns true, because more is wanted.
    pub(super) fn take(&mut self, text: &StreamText) -> bool {
        for chunk in text.chunks() {
            if chunk.part.is_none_or(is_text_part) {
                self.take_text(chunk.text);
            }
            if let Some(parts) = &mut self.parts {
                match parts.last_mut() {
                    Some((part, joined)) if part.as_deref() == chunk.part => joined.push_str(chunk.text),
                    _ => parts.push((chunk.part.map(Into::into), chunk.text.to_owned())),
                }
            }
        }
        true
    }

    fn take_text(&mut self, text: &str) {
        let skipped = (self.skip as usize).min(text.len());
        let at = text.floor_char_boundary(skipped);
        self.offset += at as u64;
        // An offset inside a character moves back to its start.
        self.skip = if at < skipped { 0 } else { self.skip - skipped as u64 };
        self.text.push_str(&text[at..]);
    }
}

impl StreamBody {
    pub(super) fn of(stream: &Stream, with_text: bool, texts: PartTexts) -> StreamBody {
        let with_text = with_text && !stream.is_expired;
        let raw = |part: Box<str>| RawValue::from_string(part.into()).ok();
        let parts = texts.parts.filter(|_| with_text).map(|parts| {
            let each = parts.into_iter();
            each.map(|(part, text)| PartText { part: part.and_then(raw), text }).collect()
        });
        StreamBody {
            stream: StreamInfo::of(stream),
            text: with_text.then_some(texts.text),
            offset: texts.offset,
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Sequence;

    fn texts(offset: u64, chunks: &[&str]) -> (String, u64) {
        let mut text = StreamText::from_index(0);
        for (at, chunk) in chunks.iter().enumerate() {
            text.push(Sequence(at as u64 + 1), 1, chunk, None);
        }
        let mut texts = PartTexts::new(offset, false);
        texts.take(&text);
        (texts.text, texts.offset)
    }

    #[test]
    fn an_offset_counts_bytes_and_moves_back_to_a_character() {
        let chunks = ["ab", "", "üx", "y"];
        assert_eq!(texts(0, &chunks), ("abüxy".into(), 0));
        assert_eq!(texts(1, &chunks), ("büxy".into(), 1));
        assert_eq!(texts(2, &chunks), ("üxy".into(), 2));
        assert_eq!(texts(3, &chunks), ("üxy".into(), 2));
        assert_eq!(texts(4, &chunks), ("xy".into(), 4));
        assert_eq!(texts(6, &chunks), (String::new(), 6));
        assert_eq!(texts(100, &chunks), (String::new(), 6));
    }
}
