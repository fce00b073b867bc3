//! Notices that somebody ended a stream while its producer has nothing to send: a cancellation must stop a
//! model that is still thinking. Otherwise the producer would notice at its next request.
//!
//! * It is a long poll of the stream's state. It begins after a pause, so a busy producer makes none.
//! * A poll that is under way is kept when the producer becomes busy, because dropping it would close its
//!   connection.
//! * It is an extra: without the right to read the stream, or a place in the daemon's limits of connections,
//!   the producer notices at its next request.

use std::future::pending;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::error::StreamError;
use super::info::{GetStream, StreamInfo};
use crate::retry;
use crate::{Client, ClientError};

/// How long the daemon may wait before it responds that nothing has changed.
const POLL_WAIT: Duration = Duration::from_secs(20);

pub(super) struct StateWatch {
    client: Client,
    request_id: String,
    /// The poll that is under way.
    poll: Option<BoxFuture<'static, Result<StreamInfo, ClientError>>>,
    /// Failed polls in a row.
    failures: u32,
    /// Whether the daemon refuses polls for good.
    refused: bool,
}

impl StateWatch {
    pub(super) fn new(client: Client, request_id: String) -> Self {
        Self { client, request_id, poll: None, failures: 0, refused: false }
    }

    /// Waits until the stream has ended or has another producer than that of `generation`. May be cancelled
    /// and called again.
    pub(super) async fn ended(&mut self, generation: u64, next_index: u64) -> StreamError {
        while !self.refused {
            let poll = match &mut self.poll {
                Some(poll) => poll,
                none => {
                    // The first wait is also the pause after which a producer counts as silent.
                    sleep(self.client.inner.backoff.wait(self.failures + 1, Duration::ZERO)).await;
                    none.insert(start(self.client.clone(), self.request_id.clone(), next_index))
                }
            };
            let answer = poll.await;
            self.poll = None;
            match answer {
                Ok(stream) => {
                    self.failures = 0;
                    if let Some(end) = StreamError::of_state(&stream.state) {
                        return end;
                    }
                    if stream.generation > generation {
                        return StreamError::Fenced;
                    }
                }
                Err(error) if retry::request_delay(&error).is_some() => {
                    self.failures = self.failures.saturating_add(1);
                }
                Err(_) => self.refused = true,
            }
        }
        pending().await
    }
}

fn start(
    client: Client,
    request_id: String,
    known: u64,
) -> BoxFuture<'static, Result<StreamInfo, ClientError>> {
    Box::pin(async move {
        let options =
            GetStream { without_text: true, wait: Some((POLL_WAIT, known)), ..GetStream::default() };
        client.get_stream(&request_id, &options).await
    })
}
