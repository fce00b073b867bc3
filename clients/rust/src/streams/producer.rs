//! The task behind a [`StreamWriter`](super::StreamWriter): it sends chunks, repeats what was not
//! acknowledged, renews the lease, and ends the stream.
//!
//! * One request is under way at a time. What is appended meanwhile goes into the next one, so a request
//!   carries more chunks the longer the daemon takes.
//! * A request whose response was lost is sent again with the same indices and token: the daemon ignores
//!   chunks that it has. So a producer that was replaced is refused, and never takes its stream back.
//! * Only if the daemon does not know the token (401) is the stream taken over; the chunks after the index
//!   that the daemon then reports are sent again.
//! * The first failure that repeating cannot mend is stored in `ended` and is the result of all later calls.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::buffer::{Chunk, ChunkBuffer};
use super::error::StreamError;
use super::info::{StreamInfo, path_of};
use super::state_watch::StateWatch;
use crate::event::Metadata;
use crate::resources::Resource as _;
use crate::retry;
use crate::{Client, ClientError, Credential, Request, Response};

const PRODUCER_TOKEN: HeaderName = HeaderName::from_static("x-producer-token");
/// The lease is renewed after this part of it, so that two renewals may fail.
const RENEWALS_PER_LEASE: u32 = 3;
/// The longest lease that is accepted, in seconds: the protocol's maximum.
const LEASE_SECONDS_MAX: u64 = 600;

/// The answer to an opening or a takeover.
#[derive(Deserialize)]
pub(super) struct Opened {
    pub(super) request_id: String,
    pub(super) producer_token: Credential,
    pub(super) generation: u64,
    pub(super) next_index: u64,
    pub(super) lease_seconds: u64,
}

/// The last word of a producer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Ending {
    Finish {
        #[serde(skip_serializing_if = "Option::is_none")]
        finish_reason: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<Metadata>,
    },
    Fail {
        code: String,
        message: String,
    },
}

/// What a writer tells its task. A reply that is dropped means that `ended` has the reason.
pub(super) enum Command {
    Append(Chunk),
    /// Reply once the daemon has stored everything.
    Flush(oneshot::Sender<()>),
    Renew(oneshot::Sender<()>),
    End(Ending, oneshot::Sender<()>),
}

/// A request of the producer.
#[derive(Clone, Copy)]
enum Word<'a> {
    Chunks,
    Renew,
    End(&'a Ending),
    TakeOver,
}

pub(super) struct Producer {
    client: Client,
    request_id: String,
    token: Credential,
    generation: u64,
    lease: Duration,
    give_up_after: Duration,
    buffer: ChunkBuffer,
    commands: mpsc::UnboundedReceiver<Command>,
    /// A command other than `Append`, which waits until the buffer is empty.
    pending: Option<Command>,
    /// What the buffer may still count; the writer takes from it. Closed once nothing can be appended.
    room: Arc<Semaphore>,
    ended: Arc<watch::Sender<Option<StreamError>>>,
    watch: StateWatch,
    /// When the daemon last answered.
    last_answer: Instant,
    /// Failures in a row, and when the first of them was.
    failures: Option<(u32, Instant)>,
    /// Whether the daemon refused the token (401).
    token_refused: bool,
    /// Whether the token is from a takeover and no request has succeeded with it: if it is refused as well,
    /// the stream is not taken over again, to avoid an endless loop.
    token_untested: bool,
}

impl Producer {
    pub(super) fn new(
        client: Client,
        opened: Opened,
        give_up_after: Duration,
        commands: mpsc::UnboundedReceiver<Command>,
        room: Arc<Semaphore>,
        ended: Arc<watch::Sender<Option<StreamError>>>,
    ) -> Self {
        Self {
            watch: StateWatch::new(client.clone(), opened.request_id.clone()),
            client,
            request_id: opened.request_id,
            token: opened.producer_token,
            generation: opened.generation,
            lease: Duration::from_secs(opened.lease_seconds.clamp(1, LEASE_SECONDS_MAX)),
            give_up_after,
            buffer: ChunkBuffer::new(opened.next_index),
            commands,
            pending: None,
            room,
            ended,
            last_answer: Instant::now(),
            failures: None,
            token_refused: false,
            token_untested: false,
        }
    }

    /// Runs until the stream has ended or the writer is dropped.
    pub(super) async fn run(mut self) {
        let mut end = self.serve().await.err().unwrap_or(StreamError::Ended);
        self.ended.send_replace(Some(end.clone()));
        self.room.close();
        self.buffer.clear();
        // Only now, because the writer looks for the reason in `ended`.
        self.pending = None;
        if !end.is_final() {
            end = self.serve_failed().await.err().unwrap_or(StreamError::Ended);
            self.ended.send_replace(Some(end));
        }
    }

    /// Serves until the stream has ended.
    async fn serve(&mut self) -> Result<(), StreamError> {
        loop {
            while self.pending.is_none()
                && let Ok(command) = self.commands.try_recv()
            {
                self.take(command);
            }
            if !self.buffer.is_empty() {
                self.send_chunks().await?;
                continue;
            }
            match self.pending.take() {
                Some(Command::Append(_)) => {}
                // The writer may have stopped waiting for a reply.
                Some(Command::Flush(reply)) => _ = reply.send(()),
                Some(Command::Renew(reply)) => {
                    self.renew().await?;
                    _ = reply.send(());
                }
                Some(Command::End(ending, reply)) => {
                    self.end(&ending).await?;
                    _ = reply.send(());
                    return Ok(());
                }
                None => {
                    let renewal = self.last_answer + self.lease / RENEWALS_PER_LEASE;
                    tokio::select! {
                        command = self.commands.recv() => match command {
                            Some(command) => self.take(command),
                            None => return Ok(()),
                        },
                        () = sleep_until(renewal) => self.renew().await?,
                        end = self.watch.ended(self.generation, self.buffer.next_index()) => return Err(end),
                    }
                }
            }
        }
    }

    /// Serves after a failure that may have left the stream open: it can still be failed. The lease is no
    /// longer renewed, so it ends in any case.
    async fn serve_failed(&mut self) -> Result<(), StreamError> {
        self.failures = None;
        while let Some(command) = self.commands.recv().await {
            if let Command::End(ending @ Ending::Fail { .. }, reply) = command {
                self.end(&ending).await?;
                _ = reply.send(());
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(chunk) => self.buffer.push(chunk),
            other => self.pending = Some(other),
        }
    }

    async fn send_chunks(&mut self) -> Result<(), StreamError> {
        #[derive(Deserialize)]
        struct Appended {
            next_index: u64,
        }
        match self.attempt(Word::Chunks).await? {
            Some(response) => {
                let appended: Appended = response.decode_data().map_err(StreamError::of)?;
                self.acknowledge(appended.next_index)
            }
            None => Ok(()),
        }
    }

    async fn renew(&mut self) -> Result<(), StreamError> {
        while self.attempt(Word::Renew).await?.is_none() {}
        Ok(())
    }

    async fn end(&mut self, ending: &Ending) -> Result<(), StreamError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(Word::End(ending)).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {}
                // Nobody else holds the token, so an earlier attempt ended the stream and its response was
                // lost.
                Err(StreamError::Ended) if attempts > 1 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request of the producer once. Returns `None` if it must be sent again, after it has waited.
    async fn attempt(&mut self, word: Word<'_>) -> Result<Option<Response>, StreamError> {
        if self.token_refused {
            if let Some(response) = self.send(Word::TakeOver).await? {
                let opened: Opened = response.decode_data().map_err(StreamError::of)?;
                self.token = opened.producer_token;
                self.generation = opened.generation;
                self.token_refused = false;
                self.token_untested = true;
                self.acknowledge(opened.next_index)?;
            }
            return Ok(None);
        }
        let response = self.send(word).await?;
        if response.is_some() {
            self.token_untested = false;
        }
        Ok(response)
    }

    async fn send(&mut self, word: Word<'_>) -> Result<Option<Response>, StreamError> {
        let request = self.request(word).map_err(StreamError::of)?;
        let error = match self.client.send(&request).await.and_then(Response::error_for_status) {
            Ok(response) => {
                self.failures = None;
                self.last_answer = Instant::now();
                return Ok(Some(response));
            }
            Err(error) => error,
        };
        if error.is_unauthorized() && !matches!(word, Word::TakeOver) && !self.token_untested {
            self.token_refused = true;
            return Ok(None);
        }
        if let Some(expected) = expected_index(&error) {
            self.acknowledge(expected)?;
        }
        let (failures, since) = self.failures.map_or((1, Instant::now()), |(n, since)| (n + 1, since));
        let requested = retry::request_delay(&error).filter(|_| since.elapsed() < self.give_up_after);
        let Some(requested) = requested else { return Err(StreamError::of(error)) };
        self.failures = Some((failures, since));
        sleep(self.client.inner.backoff.wait(failures, requested)).await;
        Ok(None)
    }

    fn request(&self, word: Word<'_>) -> Result<Request, ClientError> {
        let post = |path: String| Request::new(Method::POST, path);
        let of_stream = |name: &str| {
            post(format!("{}/{name}", path_of(&self.request_id))).header(PRODUCER_TOKEN, self.token.expose())
        };
        match word {
            Word::Chunks => Ok(of_stream("chunks").body("application/json", self.buffer.batch()?)),
            Word::Renew => Ok(of_stream("renew")),
            Word::End(ending @ Ending::Finish { .. }) => of_stream("finish").json(ending),
            Word::End(ending @ Ending::Fail { .. }) => of_stream("fail").json(ending),
            Word::TakeOver => post(StreamInfo::PATH.to_owned())
                .json(&json!({ "request_id": self.request_id, "takeover": true })),
        }
    }

    /// Removes the chunks that the daemon has stored and gives their room back.
    fn acknowledge(&mut self, next_index: u64) -> Result<(), StreamError> {
        let freed = self.buffer.acknowledge(next_index)?;
        self.room.add_permits(freed);
        Ok(())
    }
}

/// Returns the index that the daemon expects, if it refused one as too high.
fn expected_index(error: &ClientError) -> Option<u64> {
    error.api_error()?.details.get("expected_index")?.as_u64()
}
