//! Checks whether a stored row could have been written by the store: its key, its version, its length and
//! everything that can be parsed.
//!
//! It checks one row at a time; `verify.rs` checks whether rows agree with each other.

use crate::store::dedup::{read_idempotency, read_message_id};
use crate::store::engine::SegmentCounts;
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::format::{LogCounters, LogEntry};
use crate::store::lists::index;
use crate::store::quota::usage::Usage;
use crate::store::rows::records::{self, ApiKey, DisabledUser, Organization, RevokedToken, TokensValidSince};
use crate::store::rows::stream_rows::{self, OpenStreamRow};
use crate::store::rows::stream_text::StreamText;
use crate::store::search::PostingPayload;

/// Version byte of the values that have nothing else in common.
const VERSION: u8 = 1;

/// Returns the kind of a sound row, or what is wrong with the row.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<KeyKind, &'static str> {
    let (kind, _, tail) = keys::parse(key).map_err(|_| "its key is of no known kind")?;
    let is_sound = match kind {
        KeyKind::Meta => is_meta(tail, value),
        KeyKind::Log => LogEntry::read(value).is_ok(),
        KeyKind::Counters => LogCounters::read(value).is_some(),
        KeyKind::Organization => records::read::<Organization>(key, value).is_ok(),
        KeyKind::ApiKey => records::read::<ApiKey>(key, value).is_ok(),
        KeyKind::Revoked => records::read::<RevokedToken>(key, value).is_ok(),
        KeyKind::DisabledUser => records::read::<DisabledUser>(key, value).is_ok(),
        KeyKind::UserSince => records::read::<TokensValidSince>(key, value).is_ok(),
        KeyKind::Idempotency => read_idempotency(value).is_some(),
        KeyKind::MessageId => read_message_id(value).is_some(),
        KeyKind::Expiry | KeyKind::Secret | KeyKind::Row => value.first() == Some(&VERSION),
        KeyKind::ListEntry | KeyKind::Erase | KeyKind::EraseUser => {
            value.is_empty() || value.first() == Some(&VERSION)
        }
        KeyKind::ListRun => index::decode(key, value, |_, _| false, &mut Vec::new()).is_ok(),
        KeyKind::Term => value.len() == PostingPayload::LEN,
        KeyKind::Usage => Usage::read(value).is_some(),
        KeyKind::Segment => SegmentCounts::read(value).is_some(),
        KeyKind::OpenStream => OpenStreamRow::read(value).is_some(),
        KeyKind::StreamText => StreamText::read(value).is_some(),
        KeyKind::StreamFloor => stream_rows::read_floor(value).is_some(),
        KeyKind::StreamExpiry => value == [VERSION],
    };
    if is_sound { Ok(kind) } else { Err("its value cannot be read") }
}

fn is_meta(tail: &[u8], value: &[u8]) -> bool {
    let is = |row: MetaKey| tail == [row as u8];
    let len = match () {
        () if is(MetaKey::Schema) => return value.len() == 4,
        () if is(MetaKey::Identity) => 1 + 20,
        () if is(MetaKey::Epoch) => 1 + 4,
        () if is(MetaKey::Scopes) => 1 + 1,
        () if is(MetaKey::Usage) => 1,
        () if is(MetaKey::Position) => 1 + 8,
        () if is(MetaKey::Journal) => 1 + 16,
        () => return false,
    };
    value.len() == len && value.first() == Some(&VERSION)
}
