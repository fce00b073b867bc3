//! Idempotent publishing: `Idempotency-Key`, and `message_id`s that clients give.
//!
//! * The lock of a key is held from the lookup until the commit is over, even if the request is cancelled
//!   meanwhile. A repeat waits and then finds the result.
//! * Key and events are one commit, so after any crash both exist or neither does.
//! * Keys are stored for a day ([`crate::store`] drops them). This module only has the keys of publishes in
//!   progress.

use std::sync::Arc;

use dashmap::DashMap;
use ring::digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::auth::Actor;
use crate::event::{Event, EventError, EventKind};
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::store::{IdempotencyRecord, MessageIdRecord, Rows, StoredResponse, key_digest};

use super::publish::{PublishError, Receipt};
use super::{Tenant, Tenants};

const OTHER_BODY: &str = "the Idempotency-Key was used with another body";

/// The key of a request that may be repeated, and a digest of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DedupKey {
    /// Digest of the key and of whose it is.
    pub digest: [u8; 32],
    /// Digest of the body.
    pub body: [u8; 32],
}

impl DedupKey {
    /// Returns the key of a request. It is the same for the same subject, method, path and key; the store
    /// separates organizations. `body` is the SHA-256 of the request's body.
    #[must_use]
    pub fn of_request(subject: &str, method: &str, path: &str, key: &str, body: [u8; 32]) -> DedupKey {
        let parts = [subject, method, path, key].map(str::as_bytes);
        DedupKey { digest: key_digest(&parts), body }
    }

    /// Returns the key of a message whose publisher gave a `message_id`; `None` for other events.
    pub(super) fn of_message(event: &Event<'_>) -> Option<DedupKey> {
        let id = event.message_id.as_deref().filter(|_| event.kind == EventKind::Message)?;
        let user = event.user_id.as_deref().unwrap_or_default();
        let parts = [b"message_id".as_slice(), user.as_bytes(), id.as_bytes()];
        // Encoded without sequence and time of receipt, equal events have equal bytes.
        Some(DedupKey { digest: key_digest(&parts), body: Digest::of(Frame::encode(event, 0, 0).json()) })
    }
}

/// Keys in progress, by tenant and digest. An entry exists while its lock is held or waited for.
#[derive(Default)]
pub(super) struct KeyLocks(Arc<DashMap<LockKey, Arc<Mutex<()>>>>);

/// A tenant and the digest of one of its keys.
type LockKey = (TenantId, [u8; 32]);

/// The locks of one publish or change. A commit that is made under them must hold them ([`Rows::hold_until_commit`]).
pub struct KeyGuards {
    inflight: Arc<DashMap<LockKey, Arc<Mutex<()>>>>,
    /// The entry of each key, with its lock once it is acquired. A waiter that is dropped also releases the
    /// entry that it was waiting for.
    guards: Vec<(LockKey, Option<OwnedMutexGuard<()>>)>,
}

impl KeyLocks {
    /// Number of entries, including those that are waited for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Acquires all `keys`. They are sorted, so that two publishes cannot deadlock.
    async fn lock(&self, tenant: TenantId, mut keys: Vec<[u8; 32]>) -> Arc<KeyGuards> {
        keys.sort_unstable();
        keys.dedup();
        let mut guards = KeyGuards { inflight: self.0.clone(), guards: Vec::with_capacity(keys.len()) };
        for key in keys {
            let lock = self.0.entry((tenant, key)).or_default().clone();
            guards.guards.push(((tenant, key), None));
            let guard = lock.lock_owned().await;
            if let Some((_, guards)) = guards.guards.last_mut() {
                *guards = Some(guard);
            }
        }
        Arc::new(guards)
    }
}

impl Drop for KeyGuards {
    fn drop(&mut self) {
        for (key, guard) in self.guards.drain(..) {
            drop(guard);
            self.inflight.remove_if(&key, |_, lock| Arc::strong_count(lock) == 1);
        }
    }
}

/// The right to do what a key stands for, once. A repeat waits until this is dropped and the change is
/// committed.
pub struct IdempotencyGuard {
    guards: Arc<KeyGuards>,
    tenant: TenantId,
    key: DedupKey,
    created_ms: u64,
}

impl IdempotencyGuard {
    /// Returns the row that makes the response repeatable. It must be part of the commit of the change.
    #[must_use]
    pub fn rows(&self, answer: StoredResponse) -> Rows {
        let mut rows = Rows::new();
        let row = IdempotencyRecord { body: self.key.body, answer, created_ms: self.created_ms };
        // a response of the administration is short
        let _ = rows.put_idempotency(self.tenant, &self.key.digest, &row);
        rows.hold_until_commit(self.guards.clone());
        rows
    }
}

impl Tenants {
    /// Waits for requests with the same key. Returns the response of the first one, or else the right to be
    /// the first.
    ///
    /// # Errors
    /// [`PublishError::Conflict`] if the key was used with another body, [`PublishError::Read`],
    /// [`PublishError::Ended`].
    pub async fn begin_keyed(
        &self,
        actor: Actor<'_>,
        tenant: TenantId,
        key: DedupKey,
    ) -> Result<Result<IdempotencyGuard, StoredResponse>, PublishError> {
        let guards = self.key_locks.lock(tenant, vec![key.digest]).await;
        let found = self.store().idempotency(tenant, key.digest).await?;
        actor.confirm()?; // an earlier response is not sent if the credential ended during the wait
        match found {
            None => Ok(Ok(IdempotencyGuard { guards, tenant, key, created_ms: self.clock().now_ms() })),
            Some(row) if row.body != key.body => Err(PublishError::Conflict(OTHER_BODY)),
            Some(row) => Ok(Err(row.answer)),
        }
    }

    /// Acquires the locks of keys with these digests (see [`key_digest`]). They are held until the result is dropped and
    /// every commit that holds them is over.
    pub async fn lock_keys(&self, tenant: TenantId, digests: Vec<[u8; 32]>) -> Arc<KeyGuards> {
        self.key_locks.lock(tenant, digests).await
    }

    /// Returns the ids with which an earlier request with `key` was answered.
    pub(super) async fn earlier_ids(
        &self,
        tenant: &Tenant,
        key: &DedupKey,
    ) -> Result<Option<Vec<Sequence>>, PublishError> {
        match self.store().idempotency(tenant.id, key.digest).await? {
            None => Ok(None),
            Some(row) if row.body != key.body => Err(PublishError::Conflict(OTHER_BODY)),
            Some(row) => match row.answer {
                StoredResponse::Published { first, count } => {
                    Ok(Some(Receipt { first, count }.sequences().collect()))
                }
                StoredResponse::Stored { body, .. } => {
                    let ids = body
                        .chunks_exact(8)
                        .map(|id| Sequence(u64::from_be_bytes(id.try_into().unwrap_or_default())));
                    Ok(Some(ids.collect()))
                }
                StoredResponse::Withheld { .. } => {
                    Err(PublishError::Conflict("the Idempotency-Key was used for another request"))
                }
            },
        }
    }

    /// Returns the existing sequence of each message whose id is known.
    pub(super) async fn known_messages(
        &self,
        tenant: &Tenant,
        messages: &[Option<DedupKey>],
    ) -> Result<Vec<Option<Sequence>>, PublishError> {
        let mut ids = vec![None; messages.len()];
        for (id, keyed) in ids.iter_mut().zip(messages) {
            let Some(keyed) = keyed else { continue };
            match self.store().message_id(tenant.id, keyed.digest).await? {
                Some(row) if row.body == keyed.body => *id = Some(row.sequence),
                Some(_) => return Err(PublishError::Conflict("the message_id was used for another message")),
                None => {}
            }
        }
        Ok(ids)
    }

    /// Returns the rows that make this publish repeatable.
    pub(super) fn dedup_rows(
        &self,
        tenant: &Tenant,
        messages: &[Option<DedupKey>],
        ids: &[Option<Sequence>],
        key: Option<DedupKey>,
        created_ms: u64,
    ) -> Rows {
        let mut rows = Rows::new();
        for (keyed, sequence) in messages.iter().zip(ids) {
            if let (Some(keyed), Some(sequence)) = (keyed, sequence) {
                let row = MessageIdRecord { body: keyed.body, sequence: *sequence, created_ms };
                let _ = rows.put_message_id(tenant.id, &keyed.digest, &row); // a row of fixed size fits
            }
        }
        if let Some(key) = key {
            let answer = answer(ids);
            let row = IdempotencyRecord { body: key.body, answer, created_ms };
            let _ = rows.put_idempotency(tenant.id, &key.digest, &row); // at most 1,000 ids of 8 bytes fit
        }
        rows
    }
}

/// Encodes ids: first and count if they are consecutive, otherwise each id as 8 bytes, big endian.
fn answer(ids: &[Option<Sequence>]) -> StoredResponse {
    let ids: Vec<Sequence> = ids.iter().copied().flatten().collect();
    let first = ids.first().copied().unwrap_or_default();
    if ids.iter().enumerate().all(|(at, id)| id.0 == first.0 + at as u64) {
        return StoredResponse::Published { first, count: ids.len() as u32 };
    }
    StoredResponse::Stored {
        status: 201,
        version: None,
        body: ids.iter().flat_map(|id| id.0.to_be_bytes()).collect(),
    }
}

/// Checks that no `message_id` is given twice.
pub(super) fn refuse_duplicates(messages: &[Option<DedupKey>]) -> Result<(), EventError> {
    let mut seen = std::collections::HashSet::new();
    for (at, keyed) in messages.iter().enumerate() {
        if keyed.is_some_and(|keyed| !seen.insert(keyed.digest)) {
            return Err(EventError::new("message_id", "is given twice in one batch").at(at));
        }
    }
    Ok(())
}

/// SHA-256 of a body, which may arrive in parts.
pub struct Digest(digest::Context);

impl Default for Digest {
    fn default() -> Digest {
        Digest(digest::Context::new(&digest::SHA256))
    }
}

impl Digest {
    /// Starts a digest.
    #[must_use]
    pub fn new() -> Digest {
        Digest::default()
    }
    /// Returns the digest of a complete body.
    #[must_use]
    pub fn of(body: &[u8]) -> [u8; 32] {
        let mut digest = Digest::new();
        digest.update(body);
        digest.finish()
    }
    /// Adds a part of the body.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }
    /// Returns the digest of all parts.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}
