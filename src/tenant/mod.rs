//! Tenants: the write side of each organization (one lock), its ring, its log and its wake-up bits.
//!
//! * [`Tenants::get`] and [`Tenants::open`] are the only ways to get a [`Tenant`]. It is created at first
//!   use. A tenant that is quiet and that nothing refers to is removed from memory with its log, so 100,000
//!   organizations cost only as much as the active ones.
//! * Ring and log have the same order, because one lock covers numbering, the ring and the commit queue
//!   (`admission/append.rs`).
//! * A tenant does not know connections, sockets or workers. It sets bits and pushes itself onto the workers'
//!   queues.

pub mod admission;
pub mod body_reader;
pub mod draft;
pub mod idempotency;
pub mod publish;
pub mod rate;
pub mod start;
pub mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::config::Config;
use crate::cursor::CursorKey;
use crate::event_ring::{Pins, Ring, RingItem, RingLimits, RingWriter};
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::metrics::{Metrics, Times};
use crate::store::{ReadError, Store, TenantLog};
use crate::sync::Mutex;
use crate::time::Clock;
use crate::wake::{WakeBits, WakeQueue};

use rate::{RateLimits, Rates};
use streams::leases::LeaseWheel;
use streams::table::StreamTable;

/// Slots of a new ring.
pub const INITIAL_SLOTS: usize = 64;
/// Milliseconds without a publish after which a ring whose frames are committed frees its memory.
pub const QUIET_MS: u64 = 60_000;
/// Maximum of digests of rows known to be in the store. They take 1 MiB, enough for the agents of a large
/// organization. If a row is not known, a message that needs it costs a read on another thread.
const KNOWN: usize = 16 * 1_024;
/// Shards of the table of tenants, a power of two. A sweep locks one shard at a time, so a worker that opens
/// a tenant waits for at most one. With 100,000 tenants a shard has some hundred.
const SHARDS: usize = 256;
/// Maximum of tenants that one [`Tenants::release_idle`] removes. The next sweep continues.
const FORGOTTEN_AT_ONCE: usize = 16 * 1_024;

impl RingItem for Frame {
    fn sequence(&self) -> u64 {
        Frame::sequence(self).0
    }
    fn bytes(&self) -> usize {
        self.size()
    }
}

/// Limits of publishing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum of slots of a ring; a power of two.
    pub ring_slots: usize,
    /// Maximum of bytes in one tenant's ring.
    pub ring_bytes: usize,
    /// Maximum of bytes in all rings together.
    pub ring_bytes_total: usize,
    /// Maximum of bytes of one encoded event.
    pub event_bytes: usize,
    /// Rates of events and requests.
    pub rates: RateLimits,
    /// Limits of streams.
    pub streams: StreamLimits,
}

/// Limits of streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Maximum of open streams, of all organizations.
    pub open: usize,
    /// Maximum of open streams of one organization.
    pub open_per_organization: usize,
    /// Maximum of bytes of a stream's text.
    pub bytes: u64,
    /// How long the text of an ended stream is kept, in seconds. Its state is kept [`STATE_KEPT`] times as long.
    pub keep_seconds: u64,
}

impl Default for StreamLimits {
    /// The limits of a configuration without `streams.*`.
    fn default() -> StreamLimits {
        StreamLimits { open: 100_000, open_per_organization: 10_000, bytes: 8 << 20, keep_seconds: 86_400 }
    }
}

/// How many times as long as its text the state of an ended stream is kept.
pub const STATE_KEPT: u64 = 10;

impl From<&Config> for Limits {
    fn from(config: &Config) -> Limits {
        let limits = &config.limits;
        Limits {
            ring_slots: limits.ring_slots,
            ring_bytes: limits.ring_bytes_per_tenant,
            ring_bytes_total: limits.ring_bytes_total,
            event_bytes: limits.event_bytes,
            rates: RateLimits::from(limits),
            streams: StreamLimits {
                open: config.streams.open,
                open_per_organization: config.streams.open_per_organization,
                bytes: config.streams.bytes,
                keep_seconds: config.streams.keep_seconds,
            },
        }
    }
}

/// All tenants in memory, and what they share.
pub struct Tenants {
    table: DashMap<TenantId, Arc<Tenant>>,
    store: Store,
    pins: Arc<Pins>,
    /// One queue for each worker.
    wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// Approximate bytes in all rings. Updated after each publish.
    ring_bytes: AtomicUsize,
    /// Number of tenants in memory at the last sweep plus those opened since. They share the limit of all
    /// rings.
    sharing: AtomicUsize,
    /// Keys of publishes in progress.
    key_locks: idempotency::KeyLocks,
    rates: Rates,
    /// Number of open streams in memory.
    open_streams: AtomicUsize,
    leases: LeaseWheel,
    /// Organizations that may have open streams.
    streaming: Mutex<BTreeSet<TenantId>>,
}

/// The events of one organization.
pub struct Tenant {
    id: TenantId,
    log: Arc<TenantLog>,
    ring: Arc<Ring<Frame>>,
    wake: WakeBits,
    write: Mutex<WriteSide>,
    /// Time of the last publish, Unix milliseconds.
    published_ms: AtomicU64,
    /// Digests of rows that are known to be in the store, at most [`KNOWN`].
    known: Mutex<HashSet<[u8; 32]>>,
    /// Times from publish to send. They exist while a worker has subscribers of this tenant.
    times: Mutex<Weak<Times>>,
}

/// What the tenant's lock protects.
struct WriteSide {
    ring: RingWriter<Frame>,
    /// Time of receipt of the last event, Unix milliseconds. It never decreases.
    received_ms: u64,
    streams: StreamTable,
}

impl Tenants {
    /// Creates an empty table. When a commit fails and when the store reopens, every tenant's ring is
    /// restarted.
    #[must_use]
    pub fn new(
        store: Store,
        pins: Arc<Pins>,
        wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Arc<Tenants> {
        let rates = Rates::new(limits.rates, wakes.len());
        let leases = LeaseWheel::new(clock.monotonic_us() / 1_000_000);
        let tenants = Arc::new(Tenants {
            table: DashMap::with_shard_amount(SHARDS),
            store: store.clone(),
            pins,
            wakes,
            clock,
            metrics,
            limits,
            ring_bytes: AtomicUsize::new(0),
            sharing: AtomicUsize::new(0),
            key_locks: idempotency::KeyLocks::default(),
            rates,
            open_streams: AtomicUsize::new(0),
            leases,
            streaming: Mutex::default(),
        });
        let weak = Arc::downgrade(&tenants);
        store.on_epoch(move || {
            if let Some(tenants) = weak.upgrade() {
                tenants.restart_rings();
            }
        });
        tenants
    }

    /// Opens the tenant of an organization that auth has verified. The first use reads the ends of its log.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub async fn open(&self, id: TenantId) -> Result<Arc<Tenant>, ReadError> {
        if let Some(tenant) = self.get(id) {
            return Ok(tenant);
        }
        let log = self.store.log(id).await?;
        let make = || {
            self.sharing.fetch_add(1, Ordering::Relaxed);
            Arc::new(self.make(id, log))
        };
        Ok(self.table.entry(id).or_insert_with(make).clone())
    }

    /// Returns a tenant that is open. It stays open while anything refers to it, as every connection's worker
    /// does.
    #[must_use]
    pub fn get(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.table.get(&id).map(|tenant| tenant.clone())
    }

    fn make(&self, id: TenantId, log: Arc<TenantLog>) -> Tenant {
        let limits = RingLimits {
            initial_slots: INITIAL_SLOTS,
            max_slots: self.limits.ring_slots,
            max_bytes: self.limits.ring_bytes,
        };
        let (writer, ring) = crate::event_ring::ring(&self.pins, limits, log.end().next().0);
        let received_ms = log.last_received_ms();
        Tenant {
            id,
            log,
            ring,
            wake: WakeBits::new(),
            write: Mutex::new(WriteSide { ring: writer, received_ms, streams: StreamTable::default() }),
            published_ms: AtomicU64::new(0),
            known: Mutex::default(),
            times: Mutex::new(Weak::new()),
        }
    }

    /// Restarts all rings after a failed commit and after the store was reopened. Sequences continue from the
    /// end of each log, frames that were visible and not committed are dropped, and waiting readers are
    /// woken.
    fn restart_rings(&self) {
        for entry in &self.table {
            let tenant = entry.value();
            {
                let mut side = tenant.write.lock();
                self.ring_bytes.fetch_sub(side.ring.bytes(), Ordering::Relaxed);
                let next = tenant.log.end().next().0.max(side.ring.head());
                side.ring.restart(next);
                // Words whose commit failed never happened; the rest is read again.
                let open = side.streams.reset();
                self.count_open(-(open as isize));
            }
            self.wake(tenant);
        }
    }

    /// Wakes every worker with subscribers of `tenant`.
    fn wake(&self, tenant: &Arc<Tenant>) {
        tenant.wake.signal(|worker| self.wakes[worker].push(tenant.clone()));
    }

    /// Frees the rings that were quiet for [`QUIET_MS`], and removes tenants that have no ring and that
    /// nothing refers to. Called every few seconds.
    pub fn release_idle(&self) {
        let now = self.clock.now_ms();
        let mut unused = Vec::new();
        for entry in &self.table {
            let tenant = entry.value();
            if now.saturating_sub(tenant.published_ms.load(Ordering::Relaxed)) < QUIET_MS {
                continue;
            }
            if let Some(mut side) = tenant.write.try_lock()
                && side.ring.slots() > 0
                && side.ring.head() == tenant.log.committed().next().0
            {
                self.ring_bytes.fetch_sub(side.ring.bytes(), Ordering::Relaxed);
                side.ring.release();
            }
            if tenant.is_unused() && unused.len() < FORGOTTEN_AT_ONCE {
                unused.push(tenant.id);
            }
        }
        for id in unused {
            // New references come from the table, whose lock is held here. So a tenant that only the table
            // refers to stays so.
            if self.table.remove_if(&id, |_, tenant| tenant.is_unused()).is_some() {
                self.store.forget_quiet(id);
            }
        }
        self.sharing.store(self.table.len(), Ordering::Relaxed);
        if self.table.capacity() > 1_024 && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to_fit();
        }
    }

    /// Drops every frame of `tenant` that is on disk. Connections that are behind read the log from now on,
    /// where some of these events are being erased.
    pub fn forget_frames(&self, tenant: &Tenant) {
        let mut side = tenant.write.lock();
        let before = side.ring.bytes();
        side.ring.advance_tail(tenant.log.committed().next().0);
        self.ring_bytes.fetch_sub(before - side.ring.bytes(), Ordering::Relaxed);
    }

    /// Returns the key that signs cursors.
    #[must_use]
    pub fn cursors(&self) -> CursorKey {
        self.store.cursor_key()
    }
    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// Returns the rates of events and requests of all organizations.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }
    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    /// Returns the approximate number of bytes in all rings.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes.load(Ordering::Relaxed)
    }
    /// Returns the number of open streams in memory.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::Relaxed)
    }
    fn count_open(&self, change: isize) {
        self.open_streams.fetch_add(change as usize, Ordering::Relaxed); // wraps for a negative change
    }
    /// Returns the present second of the monotonic clock.
    fn now_s(&self) -> u64 {
        self.clock.monotonic_us() / 1_000_000
    }
    /// Returns the number of tenants in memory: those in use or used recently.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }
    /// Returns true if no tenant is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl Tenant {
    /// Returns true if only the table refers to the tenant, only the tenant and the store refer to its log,
    /// and everything in the log is on disk. The store no longer refers to the log of a deleted organization.
    fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && Arc::strong_count(&self.log) <= 2
            && self.write.try_lock().is_some_and(|side| {
                side.ring.slots() == 0
                    && side.streams.is_empty()
                    && side.ring.is_quiescent()
                    && side.ring.head() == self.log.committed().next().0
            })
    }

    /// Returns the tenant's id.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.id
    }
    /// Returns the tenant's log.
    #[must_use]
    pub fn log(&self) -> &Arc<TenantLog> {
        &self.log
    }
    /// Returns the tenant's ring.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring<Frame>> {
        &self.ring
    }
    /// Returns true if the row with this digest is known to be in the store.
    #[must_use]
    pub fn is_known(&self, digest: &[u8; 32]) -> bool {
        self.known.lock().contains(digest)
    }
    /// Marks a row as known. The caller has read it and holds its lock ([`Tenants::lock_keys`]).
    pub fn remember_known(&self, digest: [u8; 32]) {
        let mut known = self.known.lock();
        if known.len() == KNOWN {
            known.clear(); // rows that are often needed are soon known again
        }
        known.insert(digest);
    }
    /// Marks a row as not known. The caller removes it and holds its lock.
    pub fn forget_known(&self, digest: &[u8; 32]) {
        self.known.lock().remove(digest);
    }
    /// Returns the times of this tenant's events from publish to send. They restart when it has had no live
    /// subscriber.
    #[must_use]
    pub fn times(&self) -> Arc<Times> {
        let mut held = self.times.lock();
        held.upgrade().unwrap_or_else(|| {
            let times = Arc::new(Times::default());
            *held = Arc::downgrade(&times);
            times
        })
    }
    /// Returns the tenant's wake-up bits.
    #[must_use]
    pub fn wake_bits(&self) -> &WakeBits {
        &self.wake
    }
    /// Returns the sequence of the last visible event.
    #[must_use]
    pub fn last_visible(&self) -> Sequence {
        Sequence(self.ring.head() - 1) // a ring starts at a sequence above 0
    }
    /// Returns an upper bound of the number of events after `position`; 0 only if there is none.
    #[must_use]
    pub fn replaying(&self, position: Sequence) -> u64 {
        let (head, committed) = (self.last_visible(), self.log.committed());
        let uncommitted = head.counter().saturating_sub(committed.max(position).counter());
        if position >= self.log.last_event() {
            return uncommitted; // between them is only the start of a new epoch, without an event
        }
        let stored = committed.counter().saturating_sub(position.counter());
        stored.min(self.log.events()) + uncommitted
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant").field("id", &self.id).finish_non_exhaustive()
    }
}
