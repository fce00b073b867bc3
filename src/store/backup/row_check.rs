//! Checks whether a stored row could have been written by the store: its key, its version, its length and
//! everything that can be parsed.
//!
//! It checks one row at a time; `verify.rs` checks whether rows agree with each other.

use crate::store::daily;
use crate::store::keys::{self, Kind, Meta};
use crate::store::live::Counts;
use crate::store::log_entry::LogEntry;
use crate::store::places;
use crate::store::records::{self, ApiKey, DisabledUser, Organization, Revoked, UserSince};
use crate::store::recover::Recovered;
use crate::store::terms::Mark;
use crate::store::usage::Usage;

/// Version byte of the values that have nothing else in common.
const VERSION: u8 = 1;

/// Returns the kind of a sound row, or what is wrong with the row.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<Kind, &'static str> {
    let (kind, _, tail) = keys::parse(key).map_err(|_| "its key is of no known kind")?;
    let is_sound = match kind {
        Kind::Meta => is_meta(tail, value),
        Kind::Log => LogEntry::read(value).is_ok(),
        Kind::Counters => Recovered::read(value).is_some(),
        Kind::Organization => records::read::<Organization>(key, value).is_ok(),
        Kind::ApiKey => records::read::<ApiKey>(key, value).is_ok(),
        Kind::Revoked => records::read::<Revoked>(key, value).is_ok(),
        Kind::DisabledUser => records::read::<DisabledUser>(key, value).is_ok(),
        Kind::UserSince => records::read::<UserSince>(key, value).is_ok(),
        Kind::Idempotency => daily::read_idempotency(value).is_some(),
        Kind::MessageId => daily::read_message_id(value).is_some(),
        Kind::Expiry | Kind::Secret | Kind::Row => value.first() == Some(&VERSION),
        Kind::Place | Kind::Erase | Kind::EraseUser => value.is_empty() || value.first() == Some(&VERSION),
        Kind::Run => places::decode(key, value, |_, _| false, &mut Vec::new()).is_ok(),
        Kind::Term => value.len() == Mark::LEN,
        Kind::Usage => Usage::read(value).is_some(),
        Kind::Segment => Counts::read(value).is_some(),
    };
    if is_sound { Ok(kind) } else { Err("its value cannot be read") }
}

fn is_meta(tail: &[u8], value: &[u8]) -> bool {
    let is = |row: Meta| tail == [row as u8];
    let len = match () {
        () if is(Meta::Schema) => return value.len() == 4,
        () if is(Meta::Identity) => 1 + 20,
        () if is(Meta::Epoch) => 1 + 4,
        () if is(Meta::Scopes) => 1 + 1,
        () if is(Meta::Usage) => 1,
        () if is(Meta::Position) => 1 + 8,
        () if is(Meta::Journal) => 1 + 16,
        () => return false,
    };
    value.len() == len && value.first() == Some(&VERSION)
}
