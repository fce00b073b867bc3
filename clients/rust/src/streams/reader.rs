//! Reads a stream from its first chunk to its end, over SSE (`/sse/llm?request_id=`).
//!
//! * It is a [`Subscription`] to one stream: the same reconnects, waits, renewals and cancel safety. Its
//!   cursor makes the text exact: each piece once, in order.
//! * The end comes from `done`. If only the cursor says that everything was read (204), or if `done` lacks
//!   the error, the state is asked for.
//! * Missing text (`gap`) is an error, because text that was returned cannot be taken back.

use std::fmt;

use super::info::{GetStream, StreamText};
use crate::event::{ErrorEvent, StreamChunkEvent};
use crate::stream_end::{StreamEnd, StreamFailure, StreamState};
use crate::{Client, ClientError, Event, Filter, Gap, Item, Position, ReceivedEvent, Status, Subscription};

/// What a [`StreamReader`] returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamItem {
    /// The next piece of text; never empty. Pieces are cut anywhere between two characters.
    Text(StreamText),
    /// The end: nothing follows.
    End(StreamEnd),
    /// A change in the state of the connection.
    Status(Status),
}

/// Reads one stream; see [`Client::read_stream`].
pub struct StreamReader {
    client: Client,
    request_id: String,
    subscription: Subscription,
    /// The `error` event that precedes the end.
    failure: Option<StreamFailure>,
    state: State,
}

enum State {
    Reading,
    /// The stream has ended, and its state must be asked for.
    Ended,
    /// The end or an error was returned.
    Done,
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamReader({:?})", self.request_id)
    }
}

impl Client {
    /// Reads a stream from its first chunk, whether it is open or has ended. Nothing is sent before the first
    /// [`StreamReader::next`].
    ///
    /// ```no_run
    /// use nervewire_client::{Client, ClientError, StreamItem};
    ///
    /// async fn show(client: &Client) -> Result<(), ClientError> {
    ///     let mut reader = client.read_stream("run-17");
    ///     while let Some(item) = reader.next().await {
    ///         match item? {
    ///             StreamItem::Text(piece) => print!("{}", piece.text),
    ///             StreamItem::End(end) => println!("\n{:?} {:?}", end.state, end.error),
    ///             _ => {}
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn read_stream(&self, request_id: impl Into<String>) -> StreamReader {
        let request_id = request_id.into();
        let filter = Filter::new().requests([request_id.as_str()]);
        let subscription = self.subscribe(filter).of_streams();
        StreamReader { client: self.clone(), request_id, subscription, failure: None, state: State::Reading }
    }
}

impl StreamReader {
    /// Starts after this cursor, from [`cursor`](Self::cursor) of an earlier reader of the same stream.
    #[must_use]
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.subscription = self.subscription.position(Position::After(cursor.into()));
        self
    }

    /// Returns the text of all parts. Without it, only text that a reader of plain text wants: chunks without
    /// a part and parts of type [`PartType::Text`](crate::PartType::Text).
    #[must_use]
    pub fn all_parts(mut self) -> Self {
        self.subscription = self.subscription.all_parts();
        self
    }

    /// Ends with an error if the daemon cannot be reached at the first attempt, instead of waiting for it.
    #[must_use]
    pub fn fail_if_unreachable(mut self) -> Self {
        self.subscription = self.subscription.fail_if_unreachable();
        self
    }

    /// The cursor after the last item that was returned, with which a later reader continues; `None` if
    /// nothing has arrived yet.
    pub fn cursor(&self) -> Option<&str> {
        self.subscription.cursor()
    }

    /// Returns the next item; `None` after [`StreamItem::End`] and after an error. After a lost connection it
    /// reconnects with its cursor, so each piece of text comes once. A call that is cancelled (`select!`)
    /// loses nothing.
    ///
    /// # Errors
    /// [`ClientError`]: a refusal, [`ClientError::Closing`] with `NOT_FOUND` for a stream that was not opened
    /// within the daemon's `streams.unknown_wait_seconds`, or [`ClientError::TextMissing`].
    pub async fn next(&mut self) -> Option<Result<StreamItem, ClientError>> {
        loop {
            let next = match self.state {
                State::Done => return None,
                State::Reading => match self.subscription.next().await {
                    Some(Ok(item)) => self.handle(item),
                    // The subscription's last item is an error, so it does not end without one.
                    Some(Err(ClientError::ReadToEnd)) | None => {
                        self.state = State::Ended;
                        None
                    }
                    Some(Err(error)) => Some(Err(error)),
                },
                State::Ended => Some(self.ask_for_end().await.map(StreamItem::End)),
            };
            if let Some(next) = next {
                if matches!(next, Ok(StreamItem::End(_)) | Err(_)) {
                    self.state = State::Done;
                }
                return Some(next);
            }
        }
    }

    fn handle(&mut self, item: Item) -> Option<Result<StreamItem, ClientError>> {
        match item {
            // The event that ends a stream has no text.
            Item::Event(ReceivedEvent { event: Event::StreamChunk(chunk), .. }) => {
                let StreamChunkEvent { chunk: text, part, .. } = chunk;
                (!text.is_empty()).then_some(Ok(StreamItem::Text(StreamText { text, part })))
            }
            Item::Event(ReceivedEvent { event: Event::Other(fields), .. })
                if fields.get("type").is_some_and(|kind| kind == "stream_chunk") =>
            {
                Some(Err(ClientError::UnexpectedResponse("a chunk with another shape".into())))
            }
            Item::Event(ReceivedEvent { event: Event::Error(ErrorEvent { code, message, .. }), .. }) => {
                self.failure = Some(StreamFailure { code, message });
                None
            }
            Item::Gap(Gap { reason, .. }) => Some(Err(ClientError::TextMissing { reason })),
            Item::Status(status) => Some(Ok(StreamItem::Status(status))),
            Item::Done(done) => {
                let end = StreamEnd { error: self.failure.take(), ..done.end };
                if end.error.is_none() && end.state != StreamState::Completed {
                    // The connection was lost between the `error` event and `done`.
                    self.state = State::Ended;
                    return None;
                }
                Some(Ok(StreamItem::End(end)))
            }
            Item::Event(_) => None,
        }
    }

    async fn ask_for_end(&mut self) -> Result<StreamEnd, ClientError> {
        let options = GetStream { without_text: true, ..GetStream::default() };
        let stream = self.client.get_stream(&self.request_id, &options).await?;
        if stream.state == StreamState::Open {
            return Err(ClientError::UnexpectedResponse("the stream is read to its end and open".into()));
        }
        let (state, error) = (stream.state, stream.error);
        Ok(StreamEnd { state, finish_reason: stream.finish_reason, usage: stream.usage, error })
    }
}
