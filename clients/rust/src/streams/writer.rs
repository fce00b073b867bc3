//! What a producer of a stream holds: it opens the stream, appends text, and ends it.
//!
//! * Text goes to a task through a channel; a semaphore limits what the daemon has not acknowledged.
//! * The task hangs on the writer: dropping the writer stops it, and the stream is abandoned after its lease.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::buffer::{Chunk, pieces};
use super::error::StreamError;
use super::info::StreamInfo;
use super::part::StreamPart;
use super::producer::{Command, Ending, Opened, Producer};
use crate::event::Metadata;
use crate::resources::Resource as _;
use crate::retry;
use crate::{Client, ClientError, Request, Response};

/// Maximum bytes of text that wait for their acknowledgement. Beyond it, appending waits.
const UNACKNOWLEDGED_BYTES_MAX: usize = 1 << 20;
/// How long a producer tries to reach the daemon unless [`OpenStream::give_up_after`] says otherwise: longer
/// than a restart takes.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

/// Options of [`Client::open_stream`]. All of them may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpenStream {
    /// The id of the stream, 1–256 bytes, unique in the organization. Whoever knows it may ask for the
    /// stream, so choose one that cannot be guessed. Absent: the daemon makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The agent that produces the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The user who may read the stream; absent: everyone in the organization. A user's own credential does
    /// not need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Free data, at most 8 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Seconds of silence after which the daemon abandons the stream, 5–600; absent: 60. The writer renews
    /// the lease by itself, so this is how soon readers learn of the producer's death.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// Publish `agent_update` events of `agent_id`: `thinking` with the opening and `idle` with the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub agent_status: bool,
    /// Continue a stream that is open, such as after a crash of its producer. Its older producer is refused
    /// from then on. Append the text from [`StreamWriter::first_index`] on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub takeover: bool,
    /// Fail if the daemon cannot be reached at the first attempt, instead of trying again.
    #[serde(skip)]
    pub fail_if_unreachable: bool,
    /// How long to try to reach the daemon before a call fails; absent: 5 minutes.
    #[serde(skip)]
    pub give_up_after: Option<Duration>,
}

/// The producer's side of a stream; see [`Client::open_stream`].
///
/// Its methods return [`StreamError`]: once one has failed, all later ones fail with the same reason. End the
/// stream with [`finish`](Self::finish), [`fail`](Self::fail) or [`cancel`](Self::cancel). If the writer is
/// dropped before, the daemon abandons the stream after its lease.
pub struct StreamWriter {
    client: Client,
    request_id: String,
    first_index: u64,
    commands: mpsc::UnboundedSender<Command>,
    room: Arc<Semaphore>,
    ended: Arc<watch::Sender<Option<StreamError>>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamWriter({:?})", self.request_id)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Opens a stream and returns its writer.
    ///
    /// After a lost response, the request is sent again as a takeover if it names a `request_id`, because the
    /// stream may be open already. So do not use one id for two streams at once.
    ///
    /// ```no_run
    /// use nervewire_client::{Client, OpenStream, StreamError};
    ///
    /// # fn tokens() -> [&'static str; 2] { ["Once ", "upon a time"] }
    /// async fn answer(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    ///     let open = OpenStream { request_id: Some("run-17".into()), ..OpenStream::default() };
    ///     let mut writer = client.open_stream(open).await?;
    ///     for token in tokens() {
    ///         match writer.append(token).await {
    ///             Err(StreamError::Cancelled) => return Ok(()), // the user pressed stop
    ///             done => done?,
    ///         }
    ///     }
    ///     writer.finish(Some("stop"), None).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`]; 403 for another user's stream, 409 if the id is taken or its stream has ended, 429 if
    /// too many streams are open.
    pub async fn open_stream(&self, mut open: OpenStream) -> Result<StreamWriter, ClientError> {
        let backoff = &self.inner.backoff;
        let mut failures = 0;
        let opened: Opened = loop {
            let request = Request::new(Method::POST, StreamInfo::PATH).json(&open)?;
            let error = match self.send(&request).await.and_then(Response::error_for_status) {
                Ok(response) => break response.decode_data()?,
                Err(error) => error,
            };
            failures += 1;
            let unreachable = matches!(error, ClientError::Connect { .. });
            let gives_up = failures >= backoff.max_attempts || unreachable && open.fail_if_unreachable;
            let requested = retry::request_delay(&error).filter(|_| !gives_up);
            let Some(requested) = requested else { return Err(error) };
            open.takeover |= open.request_id.is_some() && may_have_been_done(&error);
            sleep(backoff.wait(failures, requested)).await;
        };
        let (commands, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(UNACKNOWLEDGED_BYTES_MAX));
        let ended = Arc::new(watch::Sender::new(None));
        let (request_id, first_index) = (opened.request_id.clone(), opened.next_index);
        let give_up_after = open.give_up_after.unwrap_or(GIVE_UP_AFTER);
        let producer =
            Producer::new(self.clone(), opened, give_up_after, receiver, room.clone(), ended.clone());
        let task = tokio::spawn(producer.run());
        Ok(StreamWriter { client: self.clone(), request_id, first_index, commands, room, ended, task })
    }
}

impl StreamWriter {
    /// The id of the stream, for its readers.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The index of this writer's first chunk: 0, or after a takeover the number of chunks that the stream
    /// had.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Appends text. It returns once the text has a place in the writer's buffer (1 MiB), and waits while the
    /// buffer is full. The text is sent in the background; [`flush`](Self::flush) waits until it is stored.
    ///
    /// A text of more than 8 KiB becomes several chunks. If the call is cancelled, the first of them may have
    /// been appended; a shorter text has been appended completely or not at all.
    ///
    /// # Errors
    /// [`StreamError`], also for a failure of text that was appended before.
    pub async fn append(&mut self, text: &str) -> Result<(), StreamError> {
        self.append_chunks(text, None).await
    }

    /// Appends text to a part of the stream, such as the model's reasoning. Readers get parts other than text
    /// only if they ask for all parts.
    ///
    /// ```no_run
    /// # use nervewire_client::{PartType, StreamError, StreamPart, StreamWriter};
    /// # async fn example(mut writer: StreamWriter) -> Result<(), StreamError> {
    /// let reasoning = StreamPart::new(PartType::Reasoning, "r1");
    /// writer.append_part("The user wants ", &reasoning).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The same as [`append`](Self::append).
    pub async fn append_part(&mut self, text: &str, part: &StreamPart) -> Result<(), StreamError> {
        self.append_chunks(text, Some(part)).await
    }

    async fn append_chunks(&mut self, text: &str, part: Option<&StreamPart>) -> Result<(), StreamError> {
        for piece in pieces(text) {
            let chunk = Chunk { text: piece.to_owned(), part: part.cloned() };
            let cost = u32::try_from(chunk.cost()).unwrap_or(u32::MAX);
            let Ok(room) = self.room.acquire_many(cost).await else { return Err(self.closed().await) };
            room.forget();
            if self.commands.send(Command::Append(chunk)).is_err() {
                return Err(self.closed().await);
            }
        }
        Ok(())
    }

    /// Waits until the daemon has stored everything that was appended.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        self.call(Command::Flush).await
    }

    /// Renews the lease now. The writer does so by itself while nothing is appended; this shows whether the
    /// stream is still open.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn renew(&mut self) -> Result<(), StreamError> {
        self.call(Command::Renew).await
    }

    /// Finishes the stream after everything that was appended: it is `completed`. `finish_reason` is at most
    /// 64 bytes, e.g. `stop` or `length`; `usage` is at most 8 KiB.
    ///
    /// # Errors
    /// [`StreamError`]. After [`StreamError::Client`] text is missing; end the stream with
    /// [`fail`](Self::fail) or [`cancel`](Self::cancel).
    pub async fn finish(
        &mut self,
        finish_reason: Option<&str>,
        usage: Option<Metadata>,
    ) -> Result<(), StreamError> {
        let ending = Ending::Finish { finish_reason: finish_reason.map(str::to_owned), usage };
        self.call(|reply| Command::End(ending, reply)).await
    }

    /// Ends the stream with an error, after everything that was appended: it is `failed`. Readers keep the
    /// text and get `code` (at most 64 bytes, e.g. `UPSTREAM_ERROR`) and `message` (at most 8 KiB).
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn fail(&mut self, code: &str, message: &str) -> Result<(), StreamError> {
        let ending = Ending::Fail { code: code.to_owned(), message: message.to_owned() };
        self.call(|reply| Command::End(ending, reply)).await
    }

    /// Cancels the stream at once. Text that is not stored yet is dropped. `reason` is at most 1 KiB. A stream
    /// that has ended stays as it is.
    ///
    /// # Errors
    /// [`ClientError`]; the same as [`Client::cancel_stream`].
    pub async fn cancel(&mut self, reason: Option<&str>) -> Result<(), ClientError> {
        let stream = self.client.cancel_stream(&self.request_id, reason).await?;
        self.task.abort();
        self.room.close();
        let end = StreamError::of_state(&stream.state).unwrap_or(StreamError::Cancelled);
        self.ended.send_replace(Some(end));
        Ok(())
    }

    /// Waits until nothing can be appended any more, such as after somebody cancelled the stream. Use it in
    /// `select!` to stop a model that has not produced anything yet. It notices within about a second if the
    /// credential may read the stream (`subscribe`), else when the lease is renewed.
    ///
    /// ```no_run
    /// # use nervewire_client::{StreamError, StreamWriter};
    /// # async fn next_token() -> Option<String> { None }
    /// # async fn example(mut writer: StreamWriter) -> Result<(), StreamError> {
    /// loop {
    ///     let token = tokio::select! {
    ///         end = writer.closed() => return Err(end), // dropping `next_token()` stops the model
    ///         token = next_token() => token,
    ///     };
    ///     let Some(token) = token else { break };
    ///     writer.append(&token).await?;
    /// }
    /// # writer.finish(None, None).await
    /// # }
    /// ```
    pub async fn closed(&self) -> StreamError {
        let mut ended = self.ended.subscribe();
        // This writer holds the sender, so waiting cannot fail.
        ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()).unwrap_or(StreamError::Ended)
    }

    async fn call(
        &mut self,
        command: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<(), StreamError> {
        let (reply, replied) = oneshot::channel();
        if self.commands.send(command(reply)).is_ok() && replied.await.is_ok() {
            return Ok(());
        }
        Err(self.closed().await)
    }
}

/// Returns true if the daemon may have carried out the request that failed with this error.
fn may_have_been_done(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } => false,
        ClientError::Refused(refusal) => match refusal.status {
            429 => false,
            503 => refusal.details.get("outcome").is_some(),
            _ => true,
        },
        _ => true,
    }
}
