//! Rates: how many events and requests per second an organization, and one subject of it, may spend over all
//! of its connections.
//!
//! * Each rate is a token bucket over injected time that holds the tokens of two seconds. A charge that is
//!   larger than the whole bucket passes once the bucket is full.
//! * Without a configured rate an organization has a share: the assumed capacity of the machine, divided by
//!   the number of organizations that spent something within the last second. An organization that is alone
//!   is not limited by idle ones.
//! * A full bucket holds no information, so it is removed ([`Rates::sweep`]). Only buckets in use take
//!   memory.
//! * Rates do not know connections: more connections do not mean more tokens.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;

use crate::auth::Principal;
use crate::config;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Events per second and worker that the organizations share. It is more than one worker was measured to
/// publish, since the real division is made by the worker's turns and the commit queue. It bounds many
/// organizations together.
pub const SHARED_EVENTS: u64 = 500_000;
/// Requests per second and worker that the organizations share. It is more than one worker was measured to
/// answer.
pub const SHARED_REQUESTS: u64 = 100_000;
/// The least events per second of one organization, however many others are active.
pub const LEAST_EVENTS: u64 = 1_000;
/// The least requests per second of one organization.
pub const LEAST_REQUESTS: u64 = 200;
/// The size of a bucket, in milliseconds of its rate.
const BURST_MS: u64 = 2_000;

/// The configured rates per second.
#[derive(Clone, Copy, Default, Debug)]
pub struct RateLimits {
    /// Events of one organization; 0 means a share.
    pub organization_events: u64,
    /// Requests of one organization; 0 means a share.
    pub organization_requests: u64,
    /// Events of one subject without `publish:org`; 0 means no limit.
    pub subject_events: u64,
}

impl From<&config::Limits> for RateLimits {
    fn from(limits: &config::Limits) -> RateLimits {
        RateLimits {
            organization_events: limits.publish_per_second_per_organization,
            organization_requests: limits.requests_per_second_per_organization,
            subject_events: limits.publish_per_second,
        }
    }
}

/// A charge was refused because the rate is exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("over {limit}, which allows {per_second} per second now: slow down, or ask the operator to raise it")]
pub struct RateExceeded {
    /// The configuration key of the limit.
    pub limit: &'static str,
    /// The present limit per second.
    pub per_second: u64,
    /// Milliseconds until the same charge would pass.
    pub wait_ms: u64,
}

/// Whether the rate of a request was charged. Only [`Rates::publish`] makes one that is paid.
#[derive(Clone, Copy, Default, Debug)]
pub struct RateCharge {
    paid: bool,
}

impl RateCharge {
    /// The rate was not charged yet.
    pub const DUE: RateCharge = RateCharge { paid: false };

    /// Returns true if the rate was charged.
    #[must_use]
    pub fn is_paid(self) -> bool {
        self.paid
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens missing from a full bucket, in thousandths.
    missing: u64,
    /// Unix milliseconds of the last refill.
    refilled_ms: u64,
}

impl Bucket {
    fn full(now_ms: u64) -> Bucket {
        Bucket { missing: 0, refilled_ms: now_ms }
    }

    fn refill(&mut self, per_second: u64, now_ms: u64) {
        let gained = now_ms.saturating_sub(self.refilled_ms).min(BURST_MS) * per_second;
        self.missing = self.missing.saturating_sub(gained);
        self.refilled_ms = now_ms;
    }

    /// Takes `cost` tokens, or returns the milliseconds until they are available.
    fn take(&mut self, cost: u64, per_second: u64, now_ms: u64) -> Result<(), u64> {
        let holds = per_second * BURST_MS;
        self.refill(per_second, now_ms);
        self.missing = self.missing.min(holds); // the rate may be lower than it was
        let cost = cost.saturating_mul(1_000).min(holds);
        let over = (self.missing + cost).saturating_sub(holds);
        if over > 0 {
            return Err(over.div_ceil(per_second));
        }
        self.missing += cost;
        Ok(())
    }

    /// Returns the tokens of a charge that another bucket refused.
    fn refund(&mut self, cost: u64) {
        self.missing = self.missing.saturating_sub(cost.saturating_mul(1_000));
    }

    fn is_full(&self, per_second: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.refilled_ms).saturating_mul(per_second) >= self.missing
    }
}

/// Counts the organizations that spent something within the last second.
#[derive(Default)]
struct ActiveOrganizations {
    seconds: Mutex<SecondCounts>,
    /// The value that [`ActiveOrganizations::count`] returns.
    count: AtomicU64,
}

/// The organizations of the present second and of the one before.
#[derive(Default)]
struct SecondCounts {
    now: u64,
    so_far: u64,
    before: u64,
}

impl ActiveOrganizations {
    /// Records an organization that spends for the first time in the second `now`.
    fn add(&self, now: u64) {
        let mut seconds = self.seconds.lock();
        if seconds.now != now {
            seconds.before = if seconds.now + 1 == now { seconds.so_far } else { 0 };
            (seconds.now, seconds.so_far) = (now, 0);
        }
        seconds.so_far += 1;
        self.count.store(seconds.so_far.max(seconds.before), Relaxed);
    }
    fn count(&self) -> u64 {
        self.count.load(Relaxed).max(1)
    }
}

/// One kind of rate: events or requests.
struct RateKind {
    /// The configuration key of the rate of one organization.
    limit: &'static str,
    /// The configured rate per second; 0 means a share.
    configured: u64,
    shared: u64,
    least: u64,
    active: ActiveOrganizations,
    /// Each bucket with the second in which its organization last spent something.
    buckets: DashMap<TenantId, (Bucket, u64)>,
}

impl RateKind {
    fn new(limit: &'static str, configured: u64, shared: u64, least: u64) -> RateKind {
        RateKind {
            limit,
            configured,
            shared,
            least,
            active: ActiveOrganizations::default(),
            buckets: DashMap::new(),
        }
    }

    /// Returns what one organization may spend per second now.
    fn per_second(&self) -> u64 {
        match self.configured {
            0 => (self.shared / self.active.count()).max(self.least),
            some => some,
        }
    }

    fn take(&self, tenant: TenantId, cost: u64, now_ms: u64) -> Result<(), RateExceeded> {
        let mut entry = self.buckets.entry(tenant).or_insert_with(|| (Bucket::full(now_ms), 0));
        let (bucket, second) = &mut *entry;
        let now = now_ms / 1_000;
        if *second != now {
            *second = now;
            self.active.add(now);
        }
        let per_second = self.per_second();
        let over = |wait_ms| RateExceeded { limit: self.limit, per_second, wait_ms };
        bucket.take(cost, per_second, now_ms).map_err(over)
    }

    fn sweep(&self, now_ms: u64) {
        let per_second = self.per_second();
        self.buckets.retain(|_, (bucket, _)| !bucket.is_full(per_second, now_ms));
    }
}

/// The rates of all organizations and their subjects.
pub struct Rates {
    events: RateKind,
    requests: RateKind,
    /// Events per second of one subject without `publish:org`; 0 means no limit.
    per_subject: u64,
    /// Keyed by a digest of organization and subject. If two subjects had the same digest, they would only
    /// share a bucket.
    subjects: DashMap<u64, Bucket>,
    digest: RandomState,
    refused: AtomicU64,
}

impl Rates {
    /// Creates full buckets. `workers` is the number of worker threads.
    #[must_use]
    pub fn new(limits: RateLimits, workers: usize) -> Rates {
        let workers = workers.max(1) as u64;
        Rates {
            events: RateKind::new(
                "limits.publish_per_second_per_organization",
                limits.organization_events,
                SHARED_EVENTS * workers,
                LEAST_EVENTS,
            ),
            requests: RateKind::new(
                "limits.requests_per_second_per_organization",
                limits.organization_requests,
                SHARED_REQUESTS * workers,
                LEAST_REQUESTS,
            ),
            per_subject: limits.subject_events,
            subjects: DashMap::new(),
            digest: RandomState::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// Charges `events` to the organization of `principal`, and to its subject unless the subject may publish
    /// for the whole organization.
    ///
    /// # Errors
    /// [`RateExceeded`]; nothing is charged then.
    pub fn publish(
        &self,
        principal: &Principal,
        events: usize,
        now_ms: u64,
    ) -> Result<RateCharge, RateExceeded> {
        self.count_refusal(self.publish_of(principal, events, now_ms)).map(|()| RateCharge { paid: true })
    }

    fn publish_of(&self, principal: &Principal, events: usize, now_ms: u64) -> Result<(), RateExceeded> {
        let events = events as u64;
        self.events.take(principal.tenant, events, now_ms)?;
        if principal.publish_rate(self.per_subject) == 0 {
            return Ok(());
        }
        let subject = self.digest.hash_one((principal.tenant, principal.subject()));
        let mut bucket = self.subjects.entry(subject).or_insert_with(|| Bucket::full(now_ms));
        bucket.take(events, self.per_subject, now_ms).map_err(|wait_ms| {
            if let Some(mut entry) = self.events.buckets.get_mut(&principal.tenant) {
                entry.0.refund(events);
            }
            RateExceeded { limit: "limits.publish_per_second", per_second: self.per_subject, wait_ms }
        })
    }

    /// Charges one request to an organization.
    ///
    /// # Errors
    /// [`RateExceeded`]; nothing is charged then.
    pub fn request(&self, tenant: TenantId, now_ms: u64) -> Result<(), RateExceeded> {
        self.count_refusal(self.requests.take(tenant, 1, now_ms))
    }

    fn count_refusal(&self, charged: Result<(), RateExceeded>) -> Result<(), RateExceeded> {
        if charged.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        charged
    }

    /// Returns the number of refused charges.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Removes full buckets; called every few seconds.
    pub fn sweep(&self, now_ms: u64) {
        self.events.sweep(now_ms);
        self.requests.sweep(now_ms);
        self.subjects.retain(|_, bucket| !bucket.is_full(self.per_subject, now_ms));
    }

    /// Returns the number of buckets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.buckets.len() + self.requests.buckets.len() + self.subjects.len()
    }
    /// Returns true if there are no buckets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn kind(configured: u64, shared: u64, least: u64) -> RateKind {
        RateKind::new("limits.test", configured, shared, least)
    }

    #[test]
    fn two_seconds_of_the_rate_may_come_in_a_burst() {
        let rate = kind(10, 0, 0);
        assert!((0..20).all(|_| rate.take(A, 1, 5_000).is_ok()));
        let over = |wait_ms| Err(RateExceeded { limit: "limits.test", per_second: 10, wait_ms });
        assert_eq!(rate.take(A, 1, 5_000), over(100));
        assert_eq!(rate.take(B, 1, 5_000), Ok(()), "another organization has a bucket of its own");
        assert_eq!(rate.take(A, 1, 5_100), Ok(()));
        assert_eq!(rate.take(A, 1, 5_100), over(100));
    }

    #[test]
    fn a_charge_larger_than_the_bucket_passes_when_it_is_full() {
        let rate = kind(10, 0, 0);
        assert!(rate.take(A, 1_000, 0).is_ok());
        assert!(rate.take(A, 1_000, 1_999).is_err());
        assert!(rate.take(A, 1_000, 2_000).is_ok());
    }

    #[test]
    fn an_organization_gets_the_share_that_recent_ones_leave() {
        let rate = kind(0, 1_000, 50);
        assert!(rate.take(A, 2_000, 1_000).is_ok(), "alone, all of it");
        assert_eq!(rate.per_second(), 1_000);
        for other in 2..=10 {
            assert!(rate.take(TenantId(other), 1, 1_500).is_ok());
        }
        assert_eq!(rate.per_second(), 100);
        assert!(rate.take(TenantId(2), 250, 1_500).is_err(), "more than two seconds' worth, and one is gone");
        assert!(rate.take(A, 1, 5_000).is_ok());
        assert_eq!(rate.per_second(), 1_000, "the others have been quiet for a second");
        for other in 2..=100 {
            assert!(rate.take(TenantId(other), 1, 5_000).is_ok());
        }
        assert_eq!(rate.per_second(), 50, "but never less than this");
    }

    #[test]
    fn full_buckets_are_removed() {
        let rate = kind(10, 0, 0);
        assert!(rate.take(A, 20, 0).is_ok());
        rate.sweep(1_000);
        assert_eq!(rate.buckets.len(), 1);
        rate.sweep(2_000);
        assert!(rate.buckets.is_empty());
    }
}
