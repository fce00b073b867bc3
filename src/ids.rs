//! The numbers and names that identify things.
//!
//! A [`Sequence`] orders one tenant's events. It is compared as a plain `u64`, so a later epoch is always
//! later. Nothing here knows where a number is stored.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bits of a [`Sequence`] that count events inside an epoch.
pub const COUNTER_BITS: u32 = 40;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// Position of one event in its tenant's total order: epoch (24 bits) ‖ counter (40 bits). `0` is before the
/// first event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position before every event.
    pub const ZERO: Sequence = Sequence(0);

    /// Joins an epoch (24 bits used) and a counter (40 bits used).
    #[must_use]
    pub const fn new(epoch: u32, counter: u64) -> Self {
        Sequence(((epoch as u64) << COUNTER_BITS) | (counter & COUNTER_MASK))
    }
    /// Returns the epoch, which grows at every start and after a failed commit.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }
    /// Returns the counter of the tenant. It continues across epochs, so a difference is an upper bound of a
    /// number of events.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & COUNTER_MASK
    }
    /// Returns the sequence right after this one, in the same epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Sequence(self.0 + 1)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch(), self.counter())
    }
}

/// The daemon's internal number of an organization. It is never shown to a client and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(pub u64);

/// The most bytes of an organization's id (`[A-Za-z0-9._-]`).
pub const ORG_ID_BYTES: usize = 128;

/// Returns true if `id` may name an organization: 1 to [`ORG_ID_BYTES`] bytes of `[A-Za-z0-9._-]`.
#[must_use]
pub fn is_org_id(id: &str) -> bool {
    (1..=ORG_ID_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Returns a number above all earlier ones, which orders lists: microseconds since 1970, or the next free
/// number.
#[must_use]
pub fn next_number(now_ms: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now_ms.saturating_mul(1_000);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    now.max(last.unwrap_or_default() + 1) // the closure always returns a value
}

/// Returns a new public id: `<prefix>-<uuid v7>`. Ids of one kind sort by their time of creation, to a
/// quarter of a microsecond: the millisecond is followed by twelve bits of the fraction below it (RFC 9562,
/// 6.2, method 3). So rows arrive in the order of their keys and fill page after page of the store instead of
/// returning to earlier pages.
///
/// Every response carries such an id, so its random part needs no system call: it is a counter under a hash
/// with a random key per thread.
#[must_use]
pub fn fresh(prefix: &str) -> String {
    thread_local! {
        static SOURCE: (RandomState, Cell<u64>) = (RandomState::new(), const { Cell::new(0) });
    }
    let (high, low) = SOURCE.with(|(key, count)| {
        let n = count.get().wrapping_add(2);
        count.set(n);
        (key.hash_one(n), key.hash_one(n + 1))
    });
    let mut random = [0; 10];
    random[..8].copy_from_slice(&high.to_le_bytes());
    random[8..].copy_from_slice(&low.to_le_bytes()[..2]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut uuid = uuid::Uuid::encode_buffer();
    let uuid = made_at(now, random).hyphenated().encode_lower(&mut uuid);
    [prefix, "-", uuid].concat()
}

/// Returns the UUID (v7) of a time since 1970, with its first twelve random bits replaced.
fn made_at(now: Duration, mut random: [u8; 10]) -> uuid::Uuid {
    let below_ms = (now.subsec_nanos() % 1_000_000) * (1 << 12) / 1_000_000;
    random[..2].copy_from_slice(&(below_ms as u16).to_be_bytes()); // the upper four bits hold the version
    uuid::Builder::from_unix_timestamp_millis(now.as_millis() as u64, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_numbers_only_grow_and_follow_the_clock() {
        let far_ms = 4_000_000_000_000;
        let first = next_number(far_ms);
        assert!(first >= far_ms * 1_000);
        assert_eq!(next_number(0), first + 1);
        assert!(next_number(far_ms + 1) > first + 1);
    }

    #[test]
    fn a_later_epoch_is_later_whatever_the_counter() {
        assert!(Sequence::new(2, 0) > Sequence::new(1, u64::MAX));
        let sequence = Sequence::new(0xAB_CDEF, 77);
        assert_eq!((sequence.epoch(), sequence.counter()), (0xAB_CDEF, 77));
        assert_eq!(sequence.next().counter(), 78);
    }

    #[test]
    fn fresh_ids_differ_and_tell_their_making() {
        let ids: std::collections::HashSet<String> = (0..10_000).map(|_| fresh("x")).collect();
        assert_eq!(ids.len(), 10_000);
        let id: uuid::Uuid = ids
            .iter()
            .next()
            .and_then(|id| id.strip_prefix("x-"))
            .unwrap_or_default()
            .parse()
            .unwrap_or_default();
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
    }

    #[test]
    fn fresh_ids_sort_by_their_making_within_a_millisecond_too() {
        let began = Duration::from_millis(1_790_000_000_000);
        let ids: Vec<_> = (0..8_192)
            .map(|quarter| {
                let random = [u8::MAX - quarter as u8; 10]; // the random part must not decide the order
                made_at(began + Duration::from_nanos(quarter * 1_000_000 / 4_096 + 1), random)
            })
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let times = ids[4_095].get_timestamp().zip(ids[4_096].get_timestamp());
        let millis = times.map(|(a, b)| (a.to_unix().1 / 1_000_000, b.to_unix().1 / 1_000_000));
        assert_eq!(millis, Some((0, 1)));
    }

    #[test]
    fn organization_ids_are_a_closed_alphabet() {
        assert!(is_org_id("acme-1.eu_x"));
        for bad in ["", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_org_id(bad), "{bad}");
        }
    }
}
