//! Producing streams over a WebSocket: `append`, `finish`, `fail`; and `cancel`, for who reads them.
//!
//! * Appending is synchronous up to the commit queue, and the ack returns as mail, like that of a publish
//!   (`ws_publish.rs`). So a producer may send further frames while acks are pending.
//! * What must wait, an end above all, runs as a task while the connection's input is paused, so the order of
//!   one connection's frames is kept.
//! * A connection that appends to a stream gets the control frame `cancel` when somebody cancels the stream.

use std::rc::Rc;
use std::sync::Arc;

use crate::auth::{Authenticated, Authorized, Principal, Publish};
use crate::connection::client_frame::{AppendFrame, EndFrame};
use crate::cursor::Cursor;
use crate::domain::streams::check_cancel;
use crate::error_response::ErrorResponse;
use crate::filter::Filter;
use crate::frame::control::{Control, Ref};
use crate::store::CommitCallback;
use crate::tenant::Tenant;
use crate::tenant::admission::stream_word::{
    ChunkInput, StreamAnswer, StreamAuthority, StreamWord, StreamWordNow,
};
use crate::tenant::publish::{PublishError, Receipt};
use crate::tenant::start::StartPosition;
use crate::tenant::streams::state::StreamEnd;
use crate::tenant::streams::{Producer, ProducerNotice, Stream, StreamError, StreamStart, start_streams};

use super::mail::{CommittedPublish, Mail};
use super::sockets::Token;
use super::stream_readers::StreamSubscription;
use super::{Worker, WorkerLoop};

/// A word about a stream that has to wait.
struct WaitingWord {
    right: Authorized<Publish>,
    request_id: String,
    token: String,
    index: Option<u64>,
    chunks: Vec<ChunkInput<'static>>,
    end: Option<StreamEnd>,
    producer: Producer,
}

/// Returns true if the producer exceeds its rate.
fn is_over_rate<T>(said: &Result<T, StreamError>) -> bool {
    matches!(said, Err(StreamError::Publish(PublishError::OverRate(_))))
}

impl Worker {
    /// Returns the callback that brings the committer's result to this thread.
    fn stream_ack_by_mail(
        &self,
        token: Token,
        reference: Option<Ref>,
        next_index: u64,
        receipt: Receipt,
    ) -> CommitCallback {
        let (shared, worker) = (self.shared.clone(), self.id);
        CommitCallback::call(move |result| {
            let (receipt, next_index) = (result.map(|()| receipt), Some(next_index));
            let committed = CommittedPublish { token, reference, receipt, next_index };
            shared.mail[worker].push(Mail::Committed(committed));
        })
    }

    /// Returns the producer that is this connection.
    fn producer(&self, token: Token, origin: u64) -> Producer {
        let (shared, worker) = (self.shared.clone(), self.id);
        let notify = move |id: &str, notice| {
            if notice == ProducerNotice::Cancelled {
                shared.mail[worker].push(Mail::StreamCancelled(token, id.into()));
            }
        };
        Producer { origin, notify: Arc::new(notify) }
    }
}

impl WorkerLoop<'_> {
    /// Appends chunks to a stream, or sends an error.
    pub(super) fn append_to_stream(&mut self, token: Token, frame: AppendFrame<'_>) {
        let reference = frame.reference.clone();
        if let Err(refusal) = self.try_append(token, frame) {
            self.refuse_publish(token, &refusal, reference);
        }
    }

    fn try_append(&mut self, token: Token, frame: AppendFrame<'_>) -> Result<(), ErrorResponse> {
        let Some((principal, tenant, origin)) = self.producer_of(token) else { return Ok(()) };
        self.worker.shared.serving()?;
        let right = principal.authorize::<Publish>()?;
        let AppendFrame { request_id, token: secret, index, chunks, is_final, reference } = frame;
        let producer = self.worker.producer(token, origin);
        let word = StreamWord {
            actor: self.worker.shared.auth.actor(&right),
            id: &request_id,
            authority: StreamAuthority::Producer(secret.as_ref()),
            index,
            chunks: &chunks,
            end: is_final.then(|| StreamEnd::completed(None, None)),
            producer: Some(&producer),
        };
        let done = |next_index, receipt| {
            self.worker.stream_ack_by_mail(token, reference.clone(), next_index, receipt)
        };
        let said = self.worker.shared.tenants.stream_word_now(&tenant, &word, done);
        if !matches!(said, Ok(StreamWordNow::MustWait)) {
            self.count_refusal(token, is_over_rate(&said));
        }
        match said? {
            StreamWordNow::Queued { .. } => {
                if let Some(connection) = self.state.connection(token) {
                    connection.inflight += 1;
                }
            }
            StreamWordNow::MustWait => {
                let end = word.end;
                let waiting = WaitingWord {
                    request_id: request_id.into(),
                    token: secret.as_ref().to_owned(),
                    index,
                    chunks: chunks.into_iter().map(ChunkInput::into_owned).collect(),
                    end,
                    producer: producer.clone(),
                    right: right.clone(),
                };
                self.defer_word(token, tenant, waiting, reference);
            }
        }
        Ok(())
    }

    /// Ends a stream on behalf of its producer, or sends an error.
    pub(super) fn end_stream(&mut self, token: Token, frame: EndFrame<'_>) {
        let EndFrame { request_id, token: secret, end, reference } = frame;
        let Some((principal, tenant, origin)) = self.producer_of(token) else { return };
        let right = self.worker.shared.serving().and_then(|()| Ok(principal.authorize::<Publish>()?));
        match right {
            Err(refusal) => self.refuse(token, &refusal, reference),
            Ok(right) => {
                let waiting = WaitingWord {
                    right,
                    request_id: request_id.into(),
                    token: secret.as_ref().to_owned(),
                    index: None,
                    chunks: Vec::new(),
                    end: Some(end),
                    producer: self.worker.producer(token, origin),
                };
                self.defer_word(token, tenant, waiting, reference);
            }
        }
    }

    /// Says a word in a task, while the connection's input is paused.
    fn defer_word(
        &mut self,
        token: Token,
        tenant: Arc<Tenant>,
        waiting: WaitingWord,
        reference: Option<Ref>,
    ) {
        self.pause_for(token, reference, async move |worker: &Rc<Worker>| {
            let word = StreamWord {
                actor: worker.shared.auth.actor(&waiting.right),
                id: &waiting.request_id,
                authority: StreamAuthority::Producer(&waiting.token),
                index: waiting.index,
                chunks: &waiting.chunks,
                end: waiting.end,
                producer: Some(&waiting.producer),
            };
            let said = worker.shared.tenants.stream_word(&tenant, word, Some(worker)).await;
            worker.with_state(|it| it.count_refusal(token, is_over_rate(&said)));
            let StreamAnswer { next_index, ids } = said?;
            Ok((ids, Some(next_index)))
        });
    }

    /// Cancels a stream on behalf of a reader.
    pub(super) fn cancel_stream(
        &mut self,
        token: Token,
        request_id: String,
        reason: Option<String>,
        reference: Option<Ref>,
    ) {
        let Some((principal, tenant, _)) = self.producer_of(token) else { return };
        self.pause_for(token, reference, async move |worker: &Rc<Worker>| {
            worker.shared.serving()?;
            let right = principal.authorize::<Authenticated>()?;
            let auth = &worker.shared.auth;
            let may = |stream: &Stream| {
                let rights = auth.still_valid(&principal)?;
                Ok::<_, ErrorResponse>(check_cancel(&principal, &rights, stream)?)
            };
            let tenants = &worker.shared.tenants;
            tenants.cancel_stream(&tenant, auth.actor(&right), &request_id, reason, may, worker).await?;
            Ok((Vec::new(), None))
        });
    }

    /// Runs a task while the connection's input is paused, and sends the ids and the next index that it
    /// returns.
    fn pause_for(
        &mut self,
        token: Token,
        reference: Option<Ref>,
        task: impl AsyncFnOnce(&Rc<Worker>) -> Result<(Vec<Cursor>, Option<u64>), ErrorResponse> + 'static,
    ) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.paused = true;
        let worker = self.worker.clone();
        // The task ends with its word, which waits at most `RESERVE_WAIT` and one commit.
        tokio::task::spawn_local(async move {
            let answer = task(&worker).await;
            worker.with_state(|it| {
                match answer {
                    Ok((ids, next_index)) => {
                        let reference = reference.as_ref();
                        it.control(token, &Control::Ack { reference, ids: &ids, next_index });
                    }
                    Err(refusal) => it.refuse_publish(token, &refusal, reference),
                }
                if let Some(connection) = it.state.connection(token) {
                    connection.flags.paused = false;
                }
                it.resume_reading(token);
            });
            worker.nudge();
        });
    }

    /// Subscribes to streams from their first chunk, or after a cursor.
    pub(super) fn subscribe_to_streams(
        &mut self,
        token: Token,
        tenant: Arc<Tenant>,
        filter: Filter,
        from: Option<StartPosition>,
        reference: Option<Ref>,
    ) {
        let Some((principal, _, _)) = self.producer_of(token) else { return };
        if let Some(connection) = self.state.connection(token) {
            connection.flags.paused = true;
        }
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let ids: Vec<Arc<str>> = filter.requests().iter().map(Arc::from).collect();
            let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
            let from = from.unwrap_or(StartPosition::Now);
            let start = async {
                let rights = worker.shared.auth.still_valid(&principal)?;
                let tenants = &worker.shared.tenants;
                Ok::<_, ErrorResponse>(start_streams(tenants, &tenant, &names, &rights, &from).await?)
            };
            let start = start.await;
            worker.with_state(|it| {
                if let Some(connection) = it.state.connection(token) {
                    connection.flags.paused = false;
                }
                match start {
                    Ok(StreamStart { start, streams, .. }) => {
                        it.subscribe(token, filter.streams_only(), Some(start), reference.clone());
                        it.read_streams(token, StreamSubscription { ids, streams, reference });
                    }
                    Err(refusal) => it.refuse(token, &refusal, reference),
                }
                it.resume_reading(token);
            });
            worker.nudge();
        });
    }

    /// The principal of a connection, its tenant and its id.
    fn producer_of(&mut self, token: Token) -> Option<(Arc<Principal>, Arc<Tenant>, u64)> {
        let connection = self.state.connection(token)?;
        let principal = connection.admitted.as_ref()?.principal().clone();
        let origin = connection.id;
        let tenant = self.worker.shared.tenants.get(principal.tenant)?;
        Some((principal, tenant, origin))
    }
}
