//! Streams as the daemon lists and returns them, and cancelling.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::part::StreamPart;
use crate::event::Metadata;
use crate::macros::protocol_struct;
use crate::resources::{ListFilter, Resource};
use crate::stream_end::{StreamFailure, StreamState};
use crate::url::{encode, path_with_query};
use crate::{Client, ClientError, ListOptions, Page, Request};

protocol_struct! {
    /// A stream, without or with its text.
    StreamInfo {
        /// The id that its chunks carry.
        request_id: String,
        /// Whether it is open, or how it ended.
        state: StreamState,
        /// 1 for the producer that opened it; every takeover adds 1.
        generation: u64,
        /// The index of the next chunk, which is the number of chunks so far.
        next_index: u64,
        /// Bytes of all chunks so far.
        text_bytes: u64,
        /// Time of the opening, RFC 3339.
        opened_at: String,
    } optional {
        /// The agent that produces it.
        agent_id: String,
        /// The user who may see it; absent: everyone in the organization.
        user_id: String,
        /// Free data of the producer.
        metadata: Metadata,
        /// Time of the end, RFC 3339; absent while it is open.
        ended_at: String,
        /// Why the producer finished it, e.g. `stop`.
        finish_reason: String,
        /// What the producer reported at the end.
        usage: Metadata,
        /// Why it did not complete.
        error: StreamFailure,
        /// Seconds of silence after which the stream is abandoned.
        lease_seconds: u64,
        /// The text so far, from `offset` on. Only [`Client::get_stream`] returns it; absent also after its
        /// retention.
        text: String,
        /// The byte of the stream's text at which `text` begins.
        offset: u64,
        /// All text in order, by part, from the beginning. Only with [`GetStream::all_parts`].
        parts: Vec<StreamText>,
    }
}

protocol_struct! {
    /// A piece of a stream's text.
    StreamText {
        /// The text.
        text: String,
    } optional {
        /// The part that it belongs to; absent for plain text.
        part: StreamPart,
    }
}

impl Resource for StreamInfo {
    const PATH: &'static str = "/api/v1/streams";
    type Filter = StreamFilter;
}

/// Selects the streams of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// Only streams in this state.
    pub state: Option<StreamState>,
    /// Only streams of this agent.
    pub agent_id: Option<String>,
    /// Only streams of this user.
    pub user_id: Option<String>,
}

impl ListFilter for StreamFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let state = self.state.as_ref().and_then(|state| serde_json::to_value(state).ok());
        let state = state.and_then(|state| state.as_str().map(str::to_owned));
        let fields =
            [("state", state), ("agent_id", self.agent_id.clone()), ("user_id", self.user_id.clone())];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// What [`Client::get_stream`] returns of a stream, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetStream {
    /// Leave out the text.
    pub without_text: bool,
    /// Leave out this many bytes of the text. An offset inside a character moves back to its start.
    pub offset: Option<u64>,
    /// Return the text of all parts, in [`StreamInfo::parts`].
    pub all_parts: bool,
    /// Wait up to this long (at most 60 s, in whole seconds) for another `next_index` than this one, or for
    /// the end of the stream.
    pub wait: Option<(Duration, u64)>,
}

impl Client {
    /// Gets a stream: its state and, unless `options` says otherwise, its text so far.
    ///
    /// ```no_run
    /// # async fn example(client: &nervewire_client::Client) -> Result<(), nervewire_client::ClientError> {
    /// let stream = client.get_stream("run-17", &Default::default()).await?;
    /// println!("{:?}: {}", stream.state, stream.text.unwrap_or_default());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`]; 404 also for a stream that the caller may not see.
    pub async fn get_stream(&self, request_id: &str, options: &GetStream) -> Result<StreamInfo, ClientError> {
        let mut pairs = Vec::new();
        pairs.extend(options.without_text.then(|| ("text", "false".to_owned())));
        pairs.extend(options.offset.map(|offset| ("offset", offset.to_string())));
        pairs.extend(options.all_parts.then(|| ("parts", "all".to_owned())));
        let mut wait = Duration::ZERO;
        if let Some((limit, known)) = options.wait {
            wait = Duration::from_secs(limit.as_secs());
            pairs.extend([("wait", wait.as_secs().to_string()), ("known", known.to_string())]);
        }
        let request = Request::new(Method::GET, path_with_query(&path_of(request_id), pairs)).wait(wait);
        self.send_with_retries(&request, |_, _| ()).await?.decode_data()
    }

    /// Gets a page of the streams that the caller may see, newest first, without their texts.
    ///
    /// ```no_run
    /// # use nervewire_client::{Client, ClientError, ListOptions, StreamFilter, StreamState};
    /// # async fn example(client: &Client) -> Result<(), ClientError> {
    /// let filter = StreamFilter { state: Some(StreamState::Open), ..StreamFilter::default() };
    /// let page = client.list_streams(&ListOptions { filter, ..ListOptions::default() }).await?;
    /// println!("{} open streams on the first page", page.data.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_streams(
        &self,
        list: &ListOptions<StreamFilter>,
    ) -> Result<Page<StreamInfo>, ClientError> {
        self.resource::<StreamInfo>().list(list).await
    }

    /// Cancels a stream, with a reason (at most 1 KiB) that its readers get, and returns it. The producer is
    /// refused at its next request. A stream that has ended stays as it is. Cancelling a stream twice does no
    /// harm, so the request is sent again after a lost connection.
    ///
    /// ```no_run
    /// # async fn example(client: &nervewire_client::Client) -> Result<(), nervewire_client::ClientError> {
    /// client.cancel_stream("run-17", Some("the user pressed stop")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`]; 403 for a stream of another user, 404 also for one that the caller may not see.
    pub async fn cancel_stream(
        &self,
        request_id: &str,
        reason: Option<&str>,
    ) -> Result<StreamInfo, ClientError> {
        let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        let path = format!("{}/cancel", path_of(request_id));
        let request = Request::new(Method::POST, path).json(&body)?.idempotent();
        self.send_with_retries(&request, |_, _| ()).await?.decode_data()
    }
}

/// Returns the path of a stream.
pub(super) fn path_of(request_id: &str) -> String {
    format!("{}/{}", StreamInfo::PATH, encode(request_id))
}
