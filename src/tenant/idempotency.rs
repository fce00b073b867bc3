//! Publishing once although asked twice: `Idempotency-Key`, and client-given `message_id`s.
//!
//! * The key's lock is held from the look-up until the commit is over, also where the one who asked has gone meanwhile: a repeat
//!   waits, and then finds the answer.
//! * Key and events commit in one batch: after any crash either both are there or neither.
//! * What is remembered lasts a day ([`crate::store`] drops it); here is only what is under way.

use std::sync::Arc;

use dashmap::DashMap;
use ring::digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::auth::Actor;
use crate::cursor::Cursor;
use crate::event::{Event, EventError, Kind};
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::store::{Answer, Growth, Idempotency, MessageId, Rows, scope};

use super::draft::Draft;
use super::publish::{Notice, PublishError, Receipt};
use super::{Tenant, Tenants};

const OTHER_BODY: &str = "the Idempotency-Key was used with another body";

/// A key a request is repeated under, and what it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keyed {
    /// Digest of the key in its scope.
    pub scope: [u8; 32],
    /// Digest of the body.
    pub body: [u8; 32],
}

impl Keyed {
    /// The key of a request: the same for the same organization (by its store), subject, method, path and key. `body` is the SHA-256 of
    /// its body.
    #[must_use]
    pub fn of_request(subject: &str, method: &str, path: &str, key: &str, body: [u8; 32]) -> Keyed {
        let parts = [subject, method, path, key].map(str::as_bytes);
        Keyed { scope: scope(&parts), body }
    }

    /// The key of a message with a `message_id` given by its publisher; `None` for other events.
    pub(super) fn of_message(event: &Event<'_>) -> Option<Keyed> {
        let id = event.message_id.as_deref().filter(|_| event.kind == Kind::Message)?;
        let user = event.user_id.as_deref().unwrap_or_default();
        let parts = [b"message_id".as_slice(), user.as_bytes(), id.as_bytes()];
        // Encoded without number and time of receipt, equal events are equal bytes.
        Some(Keyed { scope: scope(&parts), body: Digest::of(Frame::encode(event, 0, 0).json()) })
    }
}

/// How events are published.
#[derive(Clone, Copy, Default, Debug)]
pub struct PublishOptions {
    /// Wait for the commit. A publish with a key, or with a `message_id` given by the publisher, always does.
    pub durable: bool,
    /// Publish once for this key.
    pub key: Option<Keyed>,
}

/// What a publish came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The events' ids, in the order they were given.
    pub ids: Vec<Cursor>,
    /// The answer of an earlier request with the same `Idempotency-Key`.
    pub replayed: bool,
}

/// Keys under way, by tenant and scope; an entry lives while someone holds or waits for it.
#[derive(Default)]
pub(super) struct Inflight(Arc<DashMap<Key, Arc<Mutex<()>>>>);

/// A tenant and one of its scopes.
type Key = (TenantId, [u8; 32]);

/// The locks of one publish or change. Whoever commits under them has the commit hold them ([`Rows::hold`]).
pub struct Held {
    inflight: Arc<DashMap<Key, Arc<Mutex<()>>>>,
    /// Each key's entry, and its lock once it is held: a waiter that is dropped gives back the entry it waited for, too.
    guards: Vec<(Key, Option<OwnedMutexGuard<()>>)>,
}

impl Inflight {
    /// Entries, those that are waited for included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits for all `keys`; sorted, so that two publishes never wait for each other.
    async fn hold(&self, tenant: TenantId, mut keys: Vec<[u8; 32]>) -> Arc<Held> {
        keys.sort_unstable();
        keys.dedup();
        let mut held = Held { inflight: self.0.clone(), guards: Vec::with_capacity(keys.len()) };
        for key in keys {
            let lock = self.0.entry((tenant, key)).or_default().clone();
            held.guards.push(((tenant, key), None));
            let guard = lock.lock_owned().await;
            if let Some((_, held)) = held.guards.last_mut() {
                *held = Some(guard);
            }
        }
        Arc::new(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (key, guard) in self.guards.drain(..) {
            drop(guard);
            self.inflight.remove_if(&key, |_, lock| Arc::strong_count(lock) == 1);
        }
    }
}

/// The right to do, once, what a key was given for: whoever repeats it waits until this is dropped and what was done is
/// committed.
pub struct Once {
    held: Arc<Held>,
    tenant: TenantId,
    key: Keyed,
    created_ms: u64,
}

impl Once {
    /// The row that makes the answer repeatable; it belongs into the commit of what was done.
    #[must_use]
    pub fn rows(&self, answer: Answer) -> Rows {
        let mut rows = Rows::new();
        let row = Idempotency { body: self.key.body, answer, created_ms: self.created_ms };
        let _ = rows.put_idempotency(self.tenant, &self.key.scope, &row); // an answer to administration is short
        rows.hold(self.held.clone());
        rows
    }
}

impl Tenants {
    /// Waits for requests under the same key, and answers what the first one was answered with, or else the right to
    /// be the first.
    ///
    /// # Errors
    /// [`PublishError::Conflict`] where the key was used with another body, [`PublishError::Read`], [`PublishError::Ended`].
    pub async fn once(
        &self,
        actor: Actor<'_>,
        tenant: TenantId,
        key: Keyed,
    ) -> Result<Result<Once, Answer>, PublishError> {
        let held = self.inflight.hold(tenant, vec![key.scope]).await;
        let found = self.store().idempotency(tenant, key.scope).await?;
        actor.confirm()?; // an earlier answer is for nobody whose credential ended while waiting
        match found {
            None => Ok(Ok(Once { held, tenant, key, created_ms: self.clock().now_ms() })),
            Some(row) if row.body != key.body => Err(PublishError::Conflict(OTHER_BODY)),
            Some(row) => Ok(Err(row.answer)),
        }
    }

    /// Waits until nobody else changes what `scopes` name (see [`scope`]), and keeps others waiting until the answer is
    /// dropped and every commit that holds it is over.
    pub async fn alone(&self, tenant: TenantId, scopes: Vec<[u8; 32]>) -> Arc<Held> {
        self.inflight.hold(tenant, scopes).await
    }

    /// Publishes checked events, each only once for its `message_id`, all only once for the key of `options`. `notice` tells of
    /// the commit.
    ///
    /// # Errors
    /// [`PublishError`]; [`PublishError::Conflict`] where a key was used for something else.
    pub async fn publish_events(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        mut draft: Draft,
        options: PublishOptions,
        notice: &impl Notice,
    ) -> Result<Published, PublishError> {
        let PublishOptions { durable, key } = options;
        draft.close()?;
        let Draft { mut batch, messages, .. } = draft;
        if key.is_none() && messages.is_empty() {
            let notice = durable.then_some(notice);
            let (_, ids) = self.publish_for_ids(actor, tenant, batch, None, notice).await?;
            return Ok(Published { ids, replayed: false });
        }
        let cursors = |ids: &mut dyn Iterator<Item = Sequence>| -> Vec<Cursor> {
            ids.map(|id| self.cursors().encode(tenant.id, id)).collect()
        };
        self.check_writable()?;
        refuse_twins(&messages)?;
        let scopes = messages.iter().flatten().chain(&key).map(|keyed| keyed.scope).collect();
        let held = self.inflight.hold(tenant.id, scopes).await;
        if let Some(key) = &key
            && let Some(earlier) = self.answered(tenant, key).await?
        {
            actor.confirm()?;
            return Ok(Published { ids: cursors(&mut earlier.into_iter()), replayed: true });
        }
        let mut ids = self.known_messages(tenant, &messages).await?;
        ids.resize(batch.len(), None);
        let places: Vec<usize> = (0..ids.len()).filter(|at| ids[*at].is_none()).collect();
        batch.retain(|at| ids[at].is_none());
        if batch.is_empty() {
            actor.confirm()?;
        } else {
            let growth = Growth::of_publish(messages.iter().flatten().count(), key.map(|_| ids.len()));
            let room = self.store().reserve(tenant.id, growth)?;
            let created_ms = self.clock().now_ms();
            let rows = |receipt: Receipt| {
                for (place, sequence) in places.iter().zip(receipt.sequences()) {
                    ids[*place] = Some(sequence);
                }
                let mut rows = self.rows(tenant, &messages, &ids, key, created_ms);
                rows.hold(held);
                rows.hold_room(room);
                rows
            };
            self.publish(actor, tenant, batch, Some(Box::new(rows)), Some(notice)).await?;
        }
        Ok(Published { ids: cursors(&mut ids.into_iter().flatten()), replayed: false })
    }

    /// The ids an earlier request under `key` was answered with.
    async fn answered(&self, tenant: &Tenant, key: &Keyed) -> Result<Option<Vec<Sequence>>, PublishError> {
        match self.store().idempotency(tenant.id, key.scope).await? {
            None => Ok(None),
            Some(row) if row.body != key.body => Err(PublishError::Conflict(OTHER_BODY)),
            Some(row) => match row.answer {
                Answer::Published { first, count } => {
                    Ok(Some(Receipt { first, count }.sequences().collect()))
                }
                Answer::Stored { body, .. } => {
                    let ids = body
                        .chunks_exact(8)
                        .map(|id| Sequence(u64::from_be_bytes(id.try_into().unwrap_or_default())));
                    Ok(Some(ids.collect()))
                }
                Answer::Withheld { .. } => {
                    Err(PublishError::Conflict("the Idempotency-Key was used for something else"))
                }
            },
        }
    }

    /// For each message whose id is known, the sequence it has already.
    async fn known_messages(
        &self,
        tenant: &Tenant,
        messages: &[Option<Keyed>],
    ) -> Result<Vec<Option<Sequence>>, PublishError> {
        let mut ids = vec![None; messages.len()];
        for (id, keyed) in ids.iter_mut().zip(messages) {
            let Some(keyed) = keyed else { continue };
            match self.store().message_id(tenant.id, keyed.scope).await? {
                Some(row) if row.body == keyed.body => *id = Some(row.sequence),
                Some(_) => return Err(PublishError::Conflict("the message_id was used for another message")),
                None => {}
            }
        }
        Ok(ids)
    }

    /// The rows that make this publish repeatable.
    fn rows(
        &self,
        tenant: &Tenant,
        messages: &[Option<Keyed>],
        ids: &[Option<Sequence>],
        key: Option<Keyed>,
        created_ms: u64,
    ) -> Rows {
        let mut rows = Rows::new();
        for (keyed, sequence) in messages.iter().zip(ids) {
            if let (Some(keyed), Some(sequence)) = (keyed, sequence) {
                let row = MessageId { body: keyed.body, sequence: *sequence, created_ms };
                let _ = rows.put_message_id(tenant.id, &keyed.scope, &row); // a row of fixed size fits
            }
        }
        if let Some(key) = key {
            let answer = answer(ids);
            let row = Idempotency { body: key.body, answer, created_ms };
            let _ = rows.put_idempotency(tenant.id, &key.scope, &row); // at most 1,000 ids of 8 bytes fit
        }
        rows
    }
}

/// First and count where the ids have no hole, else every id as 8 bytes, big endian.
fn answer(ids: &[Option<Sequence>]) -> Answer {
    let ids: Vec<Sequence> = ids.iter().copied().flatten().collect();
    let first = ids.first().copied().unwrap_or_default();
    if ids.iter().enumerate().all(|(at, id)| id.0 == first.0 + at as u64) {
        return Answer::Published { first, count: ids.len() as u32 };
    }
    Answer::Stored {
        status: 201,
        version: None,
        body: ids.iter().flat_map(|id| id.0.to_be_bytes()).collect(),
    }
}

fn refuse_twins(messages: &[Option<Keyed>]) -> Result<(), EventError> {
    let mut seen = std::collections::HashSet::new();
    for (at, keyed) in messages.iter().enumerate() {
        if keyed.is_some_and(|keyed| !seen.insert(keyed.scope)) {
            return Err(EventError::new("message_id", "is given twice in one batch").at(at));
        }
    }
    Ok(())
}

/// SHA-256 of a body, which may come in parts.
pub struct Digest(digest::Context);

impl Default for Digest {
    fn default() -> Digest {
        Digest(digest::Context::new(&digest::SHA256))
    }
}

impl Digest {
    /// The digest of nothing.
    #[must_use]
    pub fn new() -> Digest {
        Digest::default()
    }
    /// The digest of a whole body.
    #[must_use]
    pub fn of(body: &[u8]) -> [u8; 32] {
        let mut digest = Digest::new();
        digest.update(body);
        digest.finish()
    }
    /// Adds a part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }
    /// Of all parts.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}
