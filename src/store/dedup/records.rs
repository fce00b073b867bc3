//! Rows that expire after a day: responses to an `Idempotency-Key`, and client-given `message_id`s.
//!
//! Callers compare bodies; this module stores only digests.

use crate::ids::{Sequence, TenantId};
use crate::store::engine::Value;
use crate::store::format::keys::{ExpiryLane, KeyKind};
use crate::store::rows::{Rows, TooLong};

/// How long such a row is kept, in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

pub(super) const VERSION: u8 = 1;
pub(super) const LANE_IDEMPOTENCY: u8 = ExpiryLane::Idempotency as u8;
pub(super) const LANE_MESSAGE_ID: u8 = ExpiryLane::MessageId as u8;

/// The stored row of a request with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// SHA-256 of the request body.
    pub body: [u8; 32],
    /// The response.
    pub answer: StoredResponse,
    /// Creation time in Unix milliseconds by the store's [`DayClock`](super::day_clock::DayClock). The commit sets it; a value set before
    /// is ignored.
    pub created_ms: u64,
}

/// A response in its shortest stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredResponse {
    /// A publish of `count` events that start at `first`.
    Published {
        /// Sequence of the first event.
        first: Sequence,
        /// Number of events.
        count: u32,
    },
    /// Status, version and body of a response, which is repeated as it is.
    Stored {
        /// HTTP status.
        status: u16,
        /// The version of the resource in the body, if it has one.
        version: Option<u64>,
        /// The body.
        body: Vec<u8>,
    },
    /// The response held a secret and was not stored. Only the id of the created resource is.
    Withheld {
        /// The id of the created resource.
        id: String,
    },
}

/// The stored row of a client-given `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageIdRecord {
    /// SHA-256 of the published event.
    pub body: [u8; 32],
    /// Sequence of the first event with this id.
    pub sequence: Sequence,
    /// Creation time, as in [`IdempotencyRecord::created_ms`].
    pub created_ms: u64,
}

impl Rows {
    /// Stores a response under the digest of its key (see [`key_digest`](crate::store::key_digest)) for a day.
    ///
    /// # Errors
    /// [`TooLong`] if the response does not fit into a row.
    pub fn put_idempotency(
        &mut self,
        tenant: TenantId,
        digest: &[u8; 32],
        row: &IdempotencyRecord,
    ) -> Result<(), TooLong> {
        let mut value = head(row.created_ms, &row.body);
        match &row.answer {
            StoredResponse::Published { first, count } => {
                value.push(0);
                value.extend_from_slice(&first.0.to_be_bytes());
                value.extend_from_slice(&count.to_be_bytes());
            }
            StoredResponse::Stored { status, version, body } => {
                value.push(if version.is_some() { 3 } else { 1 });
                value.extend_from_slice(&status.to_be_bytes());
                value.extend(version.iter().flat_map(|version| version.to_be_bytes()));
                value.extend_from_slice(body);
            }
            StoredResponse::Withheld { id } => {
                value.push(2);
                value.extend_from_slice(id.as_bytes());
            }
        }
        self.put_dedup(LANE_IDEMPOTENCY, KeyKind::Idempotency, tenant, digest, value)
    }

    /// Stores a `message_id` under the digest of user and id for a day.
    ///
    /// # Errors
    /// Never in practice: the row is small.
    pub fn put_message_id(
        &mut self,
        tenant: TenantId,
        digest: &[u8; 32],
        row: &MessageIdRecord,
    ) -> Result<(), TooLong> {
        let mut value = head(row.created_ms, &row.body);
        value.extend_from_slice(&row.sequence.0.to_be_bytes());
        self.put_dedup(LANE_MESSAGE_ID, KeyKind::MessageId, tenant, digest, value)
    }
}

/// Encodes `version ‖ created u64 BE ‖ body digest`.
fn head(created_ms: u64, body: &[u8; 32]) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    value.push(VERSION);
    value.extend_from_slice(&created_ms.to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// The bytes of [`head`] that hold the creation time.
pub(super) const CREATED: std::ops::Range<usize> = 1..9;

pub(super) fn created(value: &[u8]) -> Option<u64> {
    match value.split_first() {
        Some((&VERSION, rest)) => rest.first_chunk().map(|ms| u64::from_be_bytes(*ms)),
        _ => None,
    }
}

fn split_head(value: &[u8]) -> Option<(u64, [u8; 32], &[u8])> {
    let created_ms = created(value)?;
    let (body, rest) = value.get(9..)?.split_first_chunk()?;
    Some((created_ms, *body, rest))
}

pub(crate) fn read_idempotency(value: &[u8]) -> Option<IdempotencyRecord> {
    let (created_ms, body, rest) = split_head(value)?;
    let (&tag, rest) = rest.split_first()?;
    let answer = match tag {
        0 => {
            let (first, count) = rest.split_first_chunk()?;
            let count = u32::from_be_bytes(count.try_into().ok()?);
            StoredResponse::Published { first: Sequence(u64::from_be_bytes(*first)), count }
        }
        1 => {
            let (status, body) = rest.split_first_chunk()?;
            StoredResponse::Stored { status: u16::from_be_bytes(*status), version: None, body: body.to_vec() }
        }
        3 => {
            let (status, rest) = rest.split_first_chunk()?;
            let (version, body) = rest.split_first_chunk()?;
            let version = Some(u64::from_be_bytes(*version));
            StoredResponse::Stored { status: u16::from_be_bytes(*status), version, body: body.to_vec() }
        }
        2 => StoredResponse::Withheld { id: std::str::from_utf8(rest).ok()?.to_owned() },
        _ => return None,
    };
    Some(IdempotencyRecord { body, answer, created_ms })
}

pub(crate) fn read_message_id(value: &[u8]) -> Option<MessageIdRecord> {
    let (created_ms, body, rest) = split_head(value)?;
    let sequence = Sequence(u64::from_be_bytes(rest.try_into().ok()?));
    Some(MessageIdRecord { body, sequence, created_ms })
}

/// Returns a row's value unless it is over a day old by the [`DayClock`](super::day_clock::DayClock).
pub(crate) fn fresh(value: Option<Value>, now_ms: u64) -> Option<Value> {
    value.filter(|value| created(value).is_some_and(|ms| now_ms < ms.saturating_add(DAY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_round_trip_and_refuse_other_lengths() {
        let answers = [
            StoredResponse::Published { first: Sequence(9), count: 3 },
            StoredResponse::Stored { status: 201, version: None, body: b"{}".to_vec() },
            StoredResponse::Stored { status: 201, version: Some(7), body: b"{}".to_vec() },
            StoredResponse::Withheld { id: "key-1".into() },
        ];
        for answer in answers {
            let row = IdempotencyRecord { body: [3; 32], answer, created_ms: 77 };
            let mut rows = Rows::new();
            rows.put_idempotency(TenantId(1), &[1; 32], &row).expect("small");
            let Some(crate::store::rows::PendingChange::Dedup { value, .. }) = rows.into_changes().pop()
            else {
                panic!("a daily row");
            };
            assert_eq!(read_idempotency(&value), Some(row));
            assert!((0..42).all(|len| read_idempotency(&value[..len]).is_none()));
        }
        assert_eq!(read_message_id(&[1; 48]), None);
    }
}
