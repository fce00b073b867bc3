//! An open SSE stream: it parses the response body, with a read timeout.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderName, Method, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::connection::Driver;
use crate::read_timeout::ReadTimeout;
use crate::sse_parser::{SseEvent, SseParser};
use crate::{Client, ClientError, Request};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An SSE stream, from its head to its end.
pub struct SseStream {
    body: Incoming,
    parser: SseParser,
    /// The events of the last read that are not returned yet.
    pending: VecDeque<SseEvent>,
    /// How long the stream may be without a byte before it counts as dead.
    read_timeout: ReadTimeout,
    _driver: Driver,
}

impl Client {
    /// Opens an SSE stream at `path`, after `last_event_id` if that is not empty.
    ///
    /// # Errors
    /// [`ClientError`]; among them [`ClientError::Refused`], [`ClientError::ReadToEnd`] for 204, and
    /// [`ClientError::UnexpectedResponse`] for a response that is not a stream.
    pub async fn sse(
        &self,
        path: &str,
        last_event_id: &str,
        read_timeout: Duration,
    ) -> Result<SseStream, ClientError> {
        let mut request = Request::new(Method::GET, path).header(header::ACCEPT, "text/event-stream");
        if !last_event_id.is_empty() {
            request = request.header(LAST_EVENT_ID, last_event_id);
        }
        let (response, driver) = self.stream(&request).await?;
        if response.status() == http::StatusCode::NO_CONTENT {
            return Err(ClientError::ReadToEnd);
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_event_stream = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        if response.status() != http::StatusCode::OK || !is_event_stream {
            let got = content_type.unwrap_or("no content type");
            return Err(ClientError::UnexpectedResponse(format!(
                "{} with {got} instead of an event stream",
                response.status()
            )));
        }
        let parser = SseParser::new(last_event_id);
        let body = response.into_body();
        Ok(SseStream {
            body,
            parser,
            pending: VecDeque::new(),
            read_timeout: ReadTimeout::new(read_timeout),
            _driver: driver,
        })
    }
}

impl SseStream {
    /// Sets how long the stream may be without a byte.
    pub fn set_read_timeout(&mut self, read_timeout: Duration) {
        self.read_timeout.set(read_timeout);
    }

    /// Returns the next event; `None` if the peer has ended the stream.
    ///
    /// # Errors
    /// A lost connection, the read timeout, or an event that is too large.
    pub async fn next(&mut self) -> Result<Option<SseEvent>, ClientError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.read_timeout.wait("the next byte", self.body.frame()).await? else {
                return Ok(None);
            };
            if let Some(bytes) = frame?.data_ref() {
                let mut events = Vec::new();
                self.parser.push(bytes, &mut events)?;
                self.pending.extend(events);
            }
        }
    }

    /// The cursor to reconnect with.
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// The time that the peer wants a client to wait before it reconnects, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.parser.retry_ms()
    }
}
