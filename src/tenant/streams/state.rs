//! What a stream is, as it is stored and shown: its state, and what is known of it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::EventKind;
use crate::filter::Rights;
use crate::ids::{Sequence, TenantId};
use crate::store::{Group, List, Rows, Table, TooLong};

use super::error::StreamError;
pub use super::state_name::StreamState;

/// The most bytes of one chunk's text.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// The most bytes of a line of NDJSON with a chunk.
pub const LINE_BYTES: usize = 64 * 1024;
/// The most chunks of one request.
pub const CHUNKS_AT_ONCE: usize = 1_000;
/// The most bytes of a `finish_reason` and of the `code` of a failure.
pub const REASON_BYTES: usize = 64;
/// The most bytes of the `message` of a failure.
pub const MESSAGE_BYTES: usize = 8 * 1024;
/// The most bytes of the `reason` of a cancel.
pub const CANCEL_REASON_BYTES: usize = 1024;
/// The most bytes of `usage` and of `metadata`.
pub const JSON_BYTES: usize = 8 * 1024;
/// How long a producer may be silent, in seconds: the least, the most, and the default.
pub const LEASE_SECONDS: (u32, u32, u32) = (5, 600, 60);

/// Why a stream did not complete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamFailure {
    /// A code for programs.
    pub code: String,
    /// A message for people.
    pub message: String,
}

/// A stream as it is stored in its row. While it is open, the row has what was known at its opening, and
/// memory has the rest ([`super::view`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// The id.
    pub request_id: String,
    /// Orders the stream in lists.
    pub number: u64,
    /// The agent that speaks.
    pub agent_id: Option<String>,
    /// The user who may read it; `None` for everyone in the organization.
    pub user_id: Option<String>,
    /// Free data: a JSON object.
    pub metadata: Option<Box<RawValue>>,
    /// Who opened it ([`Principal::subject`](crate::auth::Principal::subject)).
    pub opener: String,
    /// The state.
    pub state: StreamState,
    /// How often it was opened or taken over.
    pub generation: u32,
    /// The index that the next chunk has, or would have.
    pub next_index: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Number of segments that hold the text; 0 when it has expired.
    pub segments: u32,
    /// True when the text was removed.
    #[serde(default)]
    pub is_expired: bool,
    /// When its text is removed, and after that its state, Unix milliseconds; `None` while it is open.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// How long its producer may be silent, in seconds.
    pub lease_seconds: u32,
    /// When it was opened, Unix milliseconds.
    pub opened_ms: u64,
    /// The log's position when it was opened.
    pub opened_after: u64,
    /// When it ended, Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// The sequence of its last event.
    pub end_sequence: Option<u64>,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What it cost, as a JSON object.
    pub usage: Option<Box<RawValue>>,
    /// Why it did not complete.
    pub error: Option<StreamFailure>,
    /// The digest of the producer's last token, in hexadecimal digits.
    pub token_digest: String,
}

impl Stream {
    /// Returns true if a reader with these rights may see the stream.
    #[must_use]
    pub fn is_visible(&self, rights: &Rights) -> bool {
        rights.permit_resource(EventKind::StreamChunk, self.agent_id.as_deref(), self.user_id.as_deref())
    }

    /// Returns the sequence of its last event; `None` while it is open.
    #[must_use]
    pub fn end(&self) -> Option<Sequence> {
        self.end_sequence.map(Sequence)
    }

    /// The lists that it is in.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = vec![
            Group::new(List::AllStreams, &[]),
            Group::new(List::StreamsOfUser, &[self.user_id.as_deref().unwrap_or_default()]),
            Group::new(List::StreamsInState, &[self.state.name()]),
        ];
        groups.extend(self.agent_id.as_deref().map(|agent| Group::new(List::StreamsOfAgent, &[agent])));
        groups
    }

    /// Adds the rows that change `old` into this.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn put(&self, rows: &mut Rows, tenant: TenantId, old: Option<&Stream>) -> Result<(), TooLong> {
        let json = serde_json::to_vec(self).unwrap_or_default(); // texts and numbers: this cannot fail
        match old {
            None => rows.create_row(tenant, Table::Streams, &self.request_id, &json)?,
            Some(old) => {
                let old = serde_json::to_vec(old).unwrap_or_default().len();
                rows.replace_row(tenant, Table::Streams, &self.request_id, &json, old)?;
            }
        }
        if let Some(user) = &self.user_id {
            rows.in_name_of(tenant, user);
        }
        let before = old.map(Stream::groups).unwrap_or_default();
        rows.change_list_entries(tenant, &self.request_id, self.number, &before, &self.groups())
    }

    /// Adds the rows that delete it completely.
    pub fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        rows.delete_row(tenant, Table::Streams, &self.request_id);
        rows.delete_list_entries(tenant, &self.request_id, self.number, &self.groups());
        rows.delete_open_stream(tenant, &self.request_id);
        rows.delete_segments(tenant, &self.request_id, 0..self.segments);
    }
}

/// How a stream ends.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// A terminal state.
    pub state: StreamState,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// What it cost, as a JSON object.
    pub usage: Option<Box<RawValue>>,
    /// Why it did not complete; set unless the state is `Completed`.
    pub error: Option<StreamFailure>,
}

impl StreamEnd {
    /// The end of a stream that its producer finished.
    #[must_use]
    pub fn completed(finish_reason: Option<String>, usage: Option<Box<RawValue>>) -> StreamEnd {
        StreamEnd { state: StreamState::Completed, finish_reason, usage, error: None }
    }
    /// The end of a stream whose producer failed.
    #[must_use]
    pub fn failed(code: String, message: String) -> StreamEnd {
        let error = Some(StreamFailure { code, message });
        StreamEnd { state: StreamState::Failed, finish_reason: None, usage: None, error }
    }
    /// The end of a stream that somebody cancelled.
    #[must_use]
    pub fn cancelled(reason: Option<String>) -> StreamEnd {
        let message = reason.unwrap_or_else(|| "the stream was cancelled".into());
        let error = Some(StreamFailure { code: "CANCELLED".into(), message });
        StreamEnd { state: StreamState::Cancelled, finish_reason: None, usage: None, error }
    }
    /// The end of a stream whose producer fell silent.
    #[must_use]
    pub fn abandoned() -> StreamEnd {
        let error = StreamFailure { code: "ABANDONED".into(), message: "the producer fell silent".into() };
        StreamEnd { state: StreamState::Abandoned, finish_reason: None, usage: None, error: Some(error) }
    }

    /// Checks the fields that a client gave.
    ///
    /// # Errors
    /// [`StreamError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), StreamError> {
        if let Some(reason) = &self.finish_reason {
            check_code("finish_reason", reason)?;
        }
        check_object("usage", self.usage.as_deref())?;
        match (&self.error, self.state) {
            (Some(error), StreamState::Cancelled) => {
                check_length("reason", &error.message, CANCEL_REASON_BYTES)
            }
            (Some(error), _) => {
                check_code("code", &error.code)?;
                check_length("message", &error.message, MESSAGE_BYTES)
            }
            (None, _) => Ok(()),
        }
    }

    /// Returns true if a stream has ended in just this way.
    #[must_use]
    pub fn is_that_of(&self, stream: &Stream) -> bool {
        let usage = |usage: &Option<Box<RawValue>>| usage.as_ref().map(|usage| usage.get().to_owned());
        self.state == stream.state
            && self.finish_reason == stream.finish_reason
            && usage(&self.usage) == usage(&stream.usage)
            && self.error == stream.error
    }
}

/// Checks free data that a client gave.
///
/// # Errors
/// [`StreamError::Invalid`] names the field.
pub(in crate::tenant) fn check_object(field: &str, value: Option<&RawValue>) -> Result<(), StreamError> {
    match value.map(RawValue::get) {
        Some(json) if !json.starts_with('{') => Err(StreamError::invalid(field, "must be an object")),
        Some(json) => check_length(field, json, JSON_BYTES),
        None => Ok(()),
    }
}

fn check_code(field: &str, text: &str) -> Result<(), StreamError> {
    match text.is_empty() || text.len() > REASON_BYTES || text.chars().any(char::is_control) {
        true => {
            let reason = format!("must be 1 to {REASON_BYTES} bytes without control characters");
            Err(StreamError::invalid(field, reason))
        }
        false => Ok(()),
    }
}

fn check_length(field: &str, text: &str, most: usize) -> Result<(), StreamError> {
    match text.len() > most {
        true => Err(StreamError::invalid(field, format!("is {} bytes, the limit is {most}", text.len()))),
        false => Ok(()),
    }
}
