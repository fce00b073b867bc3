//! A word of a stream's producer, of who cancels it, or of its lease: chunks, an end, or both in one commit.
//!
//! * The word is planned under the tenant's lock, encoded without it, and checked again under the lock in the
//!   append. A word that came in between makes it start again.
//! * A chunk whose index is known already is a retry and is ignored. Its answer still waits until everything
//!   before it is on disk.

use std::borrow::Cow;
use std::sync::Arc;

use crate::auth::{Actor, PublishDenied};
use crate::cursor::Cursor;
use crate::event::{Event, EventKind};
use crate::frame::Frame;
use crate::frame::batch::Batch;
use crate::store::{CHUNK_WEIGHT, CommitCallback, Growth, Rows, StreamExpiry};
use crate::tenant::publish::{CommitWaiter, PublishError, Receipt};
use crate::tenant::streams::page::EventIds;
use crate::tenant::streams::state::{CHUNK_BYTES, Stream, StreamEnd, StreamState};
use crate::tenant::streams::table::{OpenStream, Producer, ProducerNotice, StreamTable, TAIL_BYTES};
use crate::tenant::streams::{StreamError, token};
use crate::tenant::{Tenant, Tenants};

use super::Admitted;
use super::stream::{StreamEffect, checkpoint_rows, segment_rows};

/// How many times its usual size a tail may have while its checkpoint is being committed.
const TAILS_IN_FLIGHT: usize = 16;

/// A chunk to be appended.
#[derive(Clone, Debug)]
pub struct ChunkInput<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// The part that it belongs to, as compact JSON; `None` for text.
    pub part: Option<Cow<'a, str>>,
}

impl ChunkInput<'_> {
    /// Returns the chunk with texts of its own.
    #[must_use]
    pub fn into_owned(self) -> ChunkInput<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        ChunkInput { text: own(self.text), part: self.part.map(own) }
    }
}

/// On whose authority a word is said.
#[derive(Clone, Copy, Debug)]
pub enum StreamAuthority<'a> {
    /// The producer, with its token.
    Producer(&'a str),
    /// Somebody who was found to have the right to end it.
    Canceller,
    /// The daemon, if the lease has ended.
    Lease,
}

/// A word about an open stream.
#[derive(Clone, Debug)]
pub struct StreamWord<'a> {
    /// On whose authority it commits.
    pub actor: Actor<'a>,
    /// The stream's id.
    pub id: &'a str,
    /// Who says it.
    pub authority: StreamAuthority<'a>,
    /// The index of the first chunk; `None` for the next one.
    pub index: Option<u64>,
    /// The chunks.
    pub chunks: &'a [ChunkInput<'a>],
    /// How the stream ends after them.
    pub end: Option<StreamEnd>,
    /// Is notified if the stream ends without its doing.
    pub producer: Option<&'a Producer>,
}

/// The answer to a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamAnswer {
    /// The index that the next chunk has.
    pub next_index: u64,
    /// The ids of the chunks that were appended, without ignored retries.
    pub ids: Vec<Cursor>,
}

/// The answer to [`Tenants::stream_word_now`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamWordNow {
    /// The chunks are in the commit queue.
    Queued {
        /// The index that the next chunk has.
        next_index: u64,
        /// The events.
        receipt: Receipt,
    },
    /// The word has to wait, and nothing was done. [`Tenants::stream_word`] continues it.
    MustWait,
}

/// What was decided under the lock before the events are encoded.
struct Plan {
    generation: u32,
    /// How many chunks are retries.
    known: usize,
    /// The index of the first new chunk.
    first_index: u64,
    agent_id: Option<Arc<str>>,
    user_id: Option<Arc<str>>,
    agent_status: bool,
}

/// What became of a word that was queued.
struct Applied {
    /// The index that the next chunk has.
    next_index: u64,
    /// The producer of a stream that has ended.
    ended: Option<Producer>,
}

impl<'a> StreamWord<'a> {
    /// An end, or with none a sign of life. It does not come from a producer that is notified.
    #[must_use]
    pub fn without_chunks(
        actor: Actor<'a>,
        id: &'a str,
        authority: StreamAuthority<'a>,
        end: Option<StreamEnd>,
    ) -> StreamWord<'a> {
        StreamWord { actor, id, authority, index: None, chunks: &[], end, producer: None }
    }

    /// Finds the stream and checks the authority.
    fn find<'t>(&self, streams: &'t mut StreamTable, now_s: u64) -> Result<&'t mut OpenStream, StreamError> {
        if let StreamAuthority::Producer(token) = self.authority {
            let stream = streams.producer(self.id, token)?;
            return match permits(self.actor, stream) {
                true => Ok(stream),
                false => Err(PublishDenied::Narrowed.into()),
            };
        }
        let stream = streams.open(self.id)?;
        if let Some(state) = stream.ending {
            return Err(StreamError::Ended(state));
        }
        match self.authority {
            StreamAuthority::Lease if stream.lease_ends_s() > now_s => Err(StreamError::InUse),
            _ => Ok(stream),
        }
    }

    /// Finds the stream whose authority was checked for a plan. While the generation is the same, the token is
    /// still the newest one, so its digest is not made again under the lock.
    fn find_again<'t>(
        &self,
        streams: &'t mut StreamTable,
        plan: &Plan,
        now_s: u64,
    ) -> Result<&'t mut OpenStream, StreamError> {
        if let StreamAuthority::Producer(_) = self.authority {
            let stream = streams.open(self.id)?;
            return match stream.ending {
                _ if stream.row.generation != plan.generation => Err(StreamError::Changed),
                Some(state) => Err(StreamError::Ended(state)),
                None => Ok(stream),
            };
        }
        self.find(streams, now_s)
    }

    fn plan(&self, streams: &mut StreamTable, most: u64, now_s: u64) -> Result<Plan, StreamError> {
        let stream = self.find(streams, now_s)?;
        let first = self.index.unwrap_or(stream.next_index);
        if first > stream.next_index {
            return Err(StreamError::IndexTooHigh { expected: stream.next_index });
        }
        let known = (stream.next_index - first).min(self.chunks.len() as u64) as usize;
        let bytes: usize = self.chunks[known..].iter().map(|chunk| chunk.text.len()).sum();
        if stream.text_bytes + bytes as u64 > most && bytes > 0 {
            return Err(StreamError::TooMuchText { max: most });
        }
        if stream.in_flight.is_some() && stream.tail.weight() > TAILS_IN_FLIGHT * TAIL_BYTES {
            return Err(StreamError::TailFull);
        }
        Ok(Plan {
            generation: stream.row.generation,
            known,
            first_index: stream.next_index,
            agent_id: stream.row.agent_id.clone(),
            user_id: stream.row.user_id.clone(),
            agent_status: stream.row.agent_status,
        })
    }

    /// The chunks that are no retries.
    fn new_chunks(&self, plan: &Plan) -> &[ChunkInput<'_>] {
        &self.chunks[plan.known..]
    }
}

impl Tenants {
    /// Says a word about an open stream, and waits for its commit if there is a `waiter`.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn stream_word(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        word: StreamWord<'_>,
        waiter: Option<&impl CommitWaiter>,
    ) -> Result<StreamAnswer, StreamError> {
        self.check_word(&word)?;
        loop {
            let error = match self.try_word(tenant, &word, waiter).await {
                Err(StreamError::NotOpen) => return self.word_after_end(tenant, &word).await,
                // The checkpoint is among what is queued.
                Err(StreamError::TailFull) if let Some(waiter) = waiter => {
                    self.stream_barrier(waiter).await?;
                    continue;
                }
                // The end of the stream may still be in the queue. A repeated end is answered when it is done.
                Err(StreamError::Ended(_))
                    if word.end.is_some()
                        && let Some(waiter) = waiter =>
                {
                    self.stream_barrier(waiter).await?;
                    return self.word_after_end(tenant, &word).await;
                }
                Err(error) => error,
                Ok(answer) => return Ok(answer),
            };
            self.load_for(tenant, error).await?;
        }
    }

    /// Says a word without an end, without waiting. What `done` makes is notified of the commit, on another
    /// thread.
    ///
    /// # Errors
    /// [`StreamError`]; `done` is not called then.
    pub fn stream_word_now(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        word: &StreamWord<'_>,
        done: impl FnOnce(u64, Receipt) -> CommitCallback,
    ) -> Result<StreamWordNow, StreamError> {
        if word.end.is_some() || word.chunks.is_empty() {
            return Ok(StreamWordNow::MustWait);
        }
        self.check_writable()?;
        let plan = match self.plan_word(tenant, word) {
            Err(StreamError::NotLoaded | StreamError::NotOpen | StreamError::TailFull) => {
                return Ok(StreamWordNow::MustWait);
            }
            plan => plan?,
        };
        if plan.known == word.chunks.len() {
            return Ok(StreamWordNow::MustWait);
        }
        let batch = self.encode_word(word, &plan, None)?;
        let Some(room) = tenant.log().try_reserve(batch.len(), batch.size()) else {
            return Ok(StreamWordNow::MustWait);
        };
        self.check_word(word)?;
        let admitted = Admitted { actor: word.actor, tenant, batch, room };
        let appended = self.append_stream(
            admitted,
            |streams, receipt, frames| self.apply_word(streams, tenant, word, &plan, None, receipt, frames),
            |applied, receipt| done(applied.next_index, receipt),
        );
        match appended {
            Ok((receipt, _, Applied { next_index, .. })) => Ok(StreamWordNow::Queued { next_index, receipt }),
            Err(StreamError::Changed | StreamError::NotLoaded | StreamError::NotOpen) => {
                Ok(StreamWordNow::MustWait)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks sizes, and charges the rate.
    fn check_word(&self, word: &StreamWord<'_>) -> Result<(), StreamError> {
        if let Some(at) = word.chunks.iter().position(|chunk| chunk.text.len() > CHUNK_BYTES) {
            let field = if word.chunks.len() == 1 { "chunk".to_owned() } else { format!("[{at}].chunk") };
            return Err(StreamError::invalid(field, format!("is longer than {CHUNK_BYTES} bytes")));
        }
        if let Some(end) = &word.end {
            end.check()?;
        }
        if let Some(principal) = word.actor.principal() {
            let charge = self.rates.publish(principal, word.chunks.len().max(1), self.clock.now_ms());
            charge.map_err(PublishError::from)?;
        }
        Ok(())
    }

    fn plan_word(&self, tenant: &Tenant, word: &StreamWord<'_>) -> Result<Plan, StreamError> {
        let most = self.limits.streams.bytes;
        word.plan(&mut tenant.write.lock().streams, most, self.now_s())
    }

    async fn try_word(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        word: &StreamWord<'_>,
        waiter: Option<&impl CommitWaiter>,
    ) -> Result<StreamAnswer, StreamError> {
        self.check_writable()?;
        let plan = self.plan_word(tenant, word)?;
        let new = word.chunks.len() - plan.known;
        if new == 0 && word.end.is_none() {
            self.hear(tenant, word)?;
            if let Some(waiter) = waiter {
                self.stream_barrier(waiter).await?;
            }
            word.actor.confirm().map_err(PublishError::from)?;
            return Ok(StreamAnswer { next_index: plan.first_index, ids: Vec::new() });
        }
        let record = match &word.end {
            None => None,
            // Where it is missing, the opening is not on disk yet.
            Some(_) => match self.stored_stream(tenant, word.id).await? {
                None => return Err(StreamError::NotFound),
                record => record,
            },
        };
        let ending = record.as_ref().zip(word.end.as_ref());
        let batch = self.encode_word(word, &plan, word.end.as_ref())?;
        let weight = record.as_ref().map_or(0, |_| 4 * TAIL_BYTES);
        let room = self.room(tenant, &batch, weight).await?;
        let (done, commit) = match waiter.map(CommitWaiter::register) {
            Some((done, commit)) => (done, Some(commit)),
            None => (CommitCallback::None, None),
        };
        let (_, mut ids, Applied { next_index, ended }) = self.append_stream(
            Admitted { actor: word.actor, tenant, batch, room },
            |streams, receipt, frames| self.apply_word(streams, tenant, word, &plan, ending, receipt, frames),
            |_, _| done,
        )?;
        if let Some(producer) = ended {
            notify_producer(&producer, word);
        }
        if let Some(commit) = commit {
            commit.await.map_err(PublishError::from)?;
        }
        ids.truncate(new);
        Ok(StreamAnswer { next_index, ids })
    }

    /// Returns true if a producer may still append, as far as memory knows. Its lease is not renewed.
    pub fn is_producer(&self, tenant: &Tenant, actor: Actor<'_>, id: &str, token: &str) -> bool {
        let of_producer = tenant.write.lock().streams.producer(id, token).map(|_| ());
        actor.confirm().is_ok() && matches!(of_producer, Ok(()) | Err(StreamError::NotLoaded))
    }

    /// Renews the lease of a producer that said nothing new.
    fn hear(&self, tenant: &Tenant, word: &StreamWord<'_>) -> Result<(), StreamError> {
        word.actor.confirm().map_err(PublishError::from)?;
        let now_s = self.now_s();
        let side = &mut *tenant.write.lock();
        let stream = word.find(&mut side.streams, now_s)?;
        stream.heard_s = now_s;
        // It is notified of the end even if it has appended nothing yet.
        stream.note_producer(word.producer);
        Ok(())
    }

    /// Encodes the events of a word: its new chunks, and those of its end.
    fn encode_word(
        &self,
        word: &StreamWord<'_>,
        plan: &Plan,
        end: Option<&StreamEnd>,
    ) -> Result<Batch, PublishError> {
        let chunks = word.new_chunks(plan);
        let bytes = chunks.iter().map(|chunk| chunk.text.len()).sum();
        let origin = word.producer.map_or(0, |producer| producer.origin);
        let mut batch = Batch::new(self.clock.now_ms(), origin, bytes);
        let ids = EventIds {
            request_id: word.id,
            agent_id: plan.agent_id.as_deref(),
            user_id: plan.user_id.as_deref(),
        };
        let mut event = ids.chunk();
        for (place, chunk) in chunks.iter().enumerate() {
            event.index = Some(plan.first_index + place as u64);
            event.chunk = Some(Cow::Borrowed(&chunk.text));
            event.part = chunk.part.as_deref().map(Cow::Borrowed);
            self.encode_stream_events(&mut batch, std::slice::from_ref(&event))?;
        }
        if let Some(end) = end {
            let next_index = plan.first_index + chunks.len() as u64;
            self.encode_stream_events(&mut batch, &ids.end(next_index, end.error.as_ref()))?;
            if let (true, Some(agent)) = (plan.agent_status, plan.agent_id.as_deref()) {
                self.encode_stream_events(&mut batch, &[agent_status_event(agent, "idle")])?;
            }
        }
        batch.close();
        Ok(batch)
    }

    /// Changes the stream when its word is about to be queued.
    #[allow(clippy::too_many_arguments, reason = "the word, its plan and its place in the log")]
    fn apply_word(
        &self,
        streams: &mut StreamTable,
        tenant: &Tenant,
        word: &StreamWord<'_>,
        plan: &Plan,
        ending: Option<(&Stream, &StreamEnd)>,
        receipt: Receipt,
        frames: &[Arc<Frame>],
    ) -> Result<(Rows, StreamEffect, Applied), StreamError> {
        let now_s = self.now_s();
        let stream = word.find_again(streams, plan, now_s)?;
        if stream.next_index != plan.first_index {
            return Err(StreamError::Changed);
        }
        let chunks = word.new_chunks(plan);
        let weigh = |chunk: &ChunkInput<'_>| {
            chunk.text.len()
                + CHUNK_WEIGHT
                + chunk.part.as_deref().map_or(0, |part| part.len() + CHUNK_WEIGHT)
        };
        let weight = stream.tail.weight() + chunks.iter().map(weigh).sum::<usize>();
        let is_due = ending.is_none() && weight >= TAIL_BYTES && stream.in_flight.is_none();
        let mut rows = Rows::new();
        if is_due {
            let growth = Growth { rows: 0, bytes: weight as i64 };
            rows.hold_reservation(self.store.reserve(tenant.id, growth).map_err(PublishError::from)?);
        }
        // Nothing fails from here on but rows that are too long, which their limits exclude.
        let had_tail = !stream.tail.is_empty();
        let received_ms = frames.first().map_or(0, |frame| frame.received_ms());
        for (chunk, sequence) in chunks.iter().zip(receipt.sequences()) {
            stream.push(sequence, received_ms, &chunk.text, chunk.part.as_deref());
        }
        if let StreamAuthority::Producer(_) = word.authority {
            stream.heard_s = now_s;
        }
        stream.note_producer(word.producer);
        if !had_tail {
            stream.tail_since_s = now_s;
        }
        if !chunks.is_empty()
            && let Some(opened_us) = stream.awaits_first_us.take()
        {
            self.metrics.streams.first_chunk.record(self.clock.monotonic_us().saturating_sub(opened_us), 1);
        }
        let bytes: usize = chunks.iter().map(|chunk| chunk.text.len()).sum();
        self.metrics.streams.chunks.add(chunks.len() as u64);
        self.metrics.streams.text_bytes.add(bytes as u64);
        let effect = match ending {
            Some((record, end)) => {
                self.end_rows(tenant, word.id, stream, (record, end), receipt, received_ms, &mut rows)?;
                stream.ending = Some(end.state);
                let id: Arc<str> = word.id.into();
                StreamEffect::End(id, end.state)
            }
            None if is_due => {
                let checkpoint = checkpoint_rows(tenant, word.id, stream, &mut rows)?;
                StreamEffect::Checkpoint(word.id.into(), checkpoint)
            }
            None => StreamEffect::None,
        };
        let ended = stream.producer.take_if(|_| ending.is_some());
        let applied = Applied { next_index: stream.next_index, ended };
        if !had_tail && !chunks.is_empty() {
            streams.note_tail(word.id);
            if tenant.log.kept_after().is_none() {
                tenant.log.keep_after(receipt.first.0.checked_sub(1).map(crate::ids::Sequence));
            }
        }
        Ok((rows, effect, applied))
    }

    /// The rows of a stream's end: its last segments, its record, and when they expire.
    #[allow(clippy::too_many_arguments, reason = "the stream, its end and its place in the log")]
    fn end_rows(
        &self,
        tenant: &Tenant,
        id: &str,
        stream: &OpenStream,
        (record, end): (&Stream, &StreamEnd),
        receipt: Receipt,
        received_ms: u64,
        rows: &mut Rows,
    ) -> Result<(), StreamError> {
        let checkpoint = segment_rows(tenant, id, stream, rows)?;
        let with_status = stream.row.agent_status && stream.row.agent_id.is_some();
        let last = receipt.first.0 + u64::from(receipt.count) - 1 - u64::from(with_status);
        let end = end.clone();
        // Not after the time of receipt, which stays ahead when the clock was ahead once.
        let keep_ms = self.limits.streams.keep_seconds.saturating_mul(1_000);
        let due_ms = self.clock.now_ms().saturating_add(keep_ms);
        let ended = Stream {
            state: end.state,
            generation: stream.row.generation,
            next_index: stream.next_index,
            text_bytes: stream.text_bytes,
            segments: checkpoint.segments,
            expires_ms: Some(due_ms),
            ended_ms: Some(received_ms),
            end_sequence: Some(last),
            finish_reason: end.finish_reason,
            usage: end.usage,
            error: end.error,
            token_digest: token::to_hex(&stream.row.token_digest),
            ..record.clone()
        };
        ended.put(rows, tenant.id, Some(record))?;
        rows.delete_open_stream(tenant.id, id);
        rows.put_expiry(&StreamExpiry { due_ms, tenant: tenant.id, id: id.to_owned() })?;
        Ok(())
    }

    /// Ends a stream that has a producer on the authority of somebody else. `may` decides whether this caller
    /// may do it, with what is known of the stream. A stream that has ended stays as it is.
    ///
    /// # Errors
    /// [`StreamError`], or that of `may`.
    pub async fn cancel_stream<E: From<StreamError>>(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        actor: Actor<'_>,
        id: &str,
        reason: Option<String>,
        may: impl FnOnce(&Stream) -> Result<(), E>,
        waiter: &impl CommitWaiter,
    ) -> Result<(), E> {
        let found = self.stored_stream(tenant, id).await.map_err(StreamError::from)?;
        let stream = found.ok_or(StreamError::NotFound)?;
        may(&stream)?;
        let end = Some(StreamEnd::cancelled(reason));
        let word = StreamWord::without_chunks(actor, id, StreamAuthority::Canceller, end);
        self.stream_word(tenant, word, Some(waiter)).await?;
        Ok(())
    }

    /// Answers a word about a stream that is not open: a repeated end succeeds again.
    async fn word_after_end(
        &self,
        tenant: &Arc<Tenant>,
        word: &StreamWord<'_>,
    ) -> Result<StreamAnswer, StreamError> {
        let stream = match word.authority {
            StreamAuthority::Producer(token) => self.ended_stream(tenant, word.id, token).await?,
            _ => self.stored_stream(tenant, word.id).await?.ok_or(StreamError::NotFound)?,
        };
        let is_repeated = match (&word.end, word.authority) {
            (Some(_), StreamAuthority::Canceller) => stream.state != StreamState::Open,
            (Some(end), _) => {
                // Chunks without an index are new ones.
                let first = word.index.unwrap_or(stream.next_index);
                let after = first.saturating_add(word.chunks.len() as u64);
                end.is_that_of(&stream) && after <= stream.next_index
            }
            (None, _) => false,
        };
        word.actor.confirm().map_err(PublishError::from)?;
        match is_repeated {
            true => Ok(StreamAnswer { next_index: stream.next_index, ids: Vec::new() }),
            false => Err(StreamError::Ended(stream.state)),
        }
    }
}

/// Notifies the producer of a stream that ended without its doing.
fn notify_producer(producer: &Producer, word: &StreamWord<'_>) {
    let notice = match word.authority {
        StreamAuthority::Canceller => ProducerNotice::Cancelled,
        // A producer may end the stream by another connection than the one over which it appends.
        StreamAuthority::Producer(_) | StreamAuthority::Lease => ProducerNotice::Lost,
    };
    if word.producer.is_none_or(|it| it.origin != producer.origin) {
        (producer.notify)(word.id, notice);
    }
}

/// Returns true if the credential covers the chunks of this stream.
pub(super) fn permits(actor: Actor<'_>, stream: &OpenStream) -> bool {
    let agent_id = stream.row.agent_id.as_deref();
    actor.principal().is_none_or(|it| it.narrowing.permits(EventKind::StreamChunk, agent_id, None))
}

/// The event that an agent of a stream has another status.
pub(super) fn agent_status_event<'a>(agent: &'a str, status: &'static str) -> Event<'a> {
    let mut event = Event::empty(EventKind::AgentUpdate);
    event.agent_id = Some(Cow::Borrowed(agent));
    event.status = Some(Cow::Borrowed(status));
    event
}
