//! Tenants: each organization's write side (one lock), its ring, its log and its wake-up bits.
//!
//! * [`Tenants::get`] and [`Tenants::open`] are the only ways to a [`Tenant`]; it is made at first use. One that is quiet and
//!   that nobody holds is forgotten, its log with it: 100,000 organizations cost what those cost that are awake.
//! * Ring and log agree on order, since one lock covers numbering, the ring and the commit queue (`publish.rs`).
//! * A tenant knows no connection, socket or worker: it sets bits, and pushes itself onto workers' queues.

pub mod draft;
pub mod idempotency;
pub mod intake;
pub mod publish;
pub mod start;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::config::Config;
use crate::cursor::CursorKey;
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::metrics::{Metrics, Times};
use crate::ring::{Pins, Ring, RingLimits, RingWriter, Slotted};
use crate::store::{ReadError, Store, TenantLog};
use crate::sync::Mutex;
use crate::time::Clock;
use crate::wake::{WakeBits, WakeQueue};

/// Slots a ring begins with.
pub const INITIAL_SLOTS: usize = 64;
/// Milliseconds without a publish after which a committed ring gives its memory back.
pub const QUIET_MS: u64 = 60_000;
/// Most things a tenant knows to be in the store: 1 MiB of memory, and the agents of a large organization. One that is not known costs
/// its message a read on another thread.
const KNOWN: usize = 16 * 1_024;
/// Parts of the table of tenants, a power of two. A sweep locks one at a time, and a worker that opens a tenant waits for that one at
/// most: of 100,000 tenants some hundred are in a part.
const SHARDS: usize = 256;
/// Most tenants that one [`Tenants::sweep`] forgets; the next goes on.
const FORGOTTEN_AT_ONCE: usize = 16 * 1_024;

impl Slotted for Frame {
    fn sequence(&self) -> u64 {
        Frame::sequence(self).0
    }
    fn bytes(&self) -> usize {
        self.size()
    }
}

/// Bounds of publishing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Slots of a ring at its largest; a power of two.
    pub ring_slots: usize,
    /// Bytes one tenant's ring may hold.
    pub ring_bytes: usize,
    /// Bytes all rings may hold together.
    pub ring_bytes_total: usize,
    /// Most bytes of one encoded event.
    pub event_bytes: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Limits {
        let limits = &config.limits;
        Limits {
            ring_slots: limits.ring_slots,
            ring_bytes: limits.ring_bytes_per_tenant,
            ring_bytes_total: limits.ring_bytes_total,
            event_bytes: limits.event_bytes,
        }
    }
}

/// Every tenant, and what they share.
pub struct Tenants {
    table: DashMap<TenantId, Arc<Tenant>>,
    store: Store,
    pins: Arc<Pins>,
    /// One queue per worker.
    wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// Bytes in all rings, about: adjusted after each publish.
    ring_bytes: AtomicUsize,
    /// Tenants in memory at the last sweep, and those opened since: they share what all rings may hold.
    sharing: AtomicUsize,
    /// Publishes that carry a key and have not ended.
    inflight: idempotency::Inflight,
}

/// One organization's events.
pub struct Tenant {
    id: TenantId,
    log: Arc<TenantLog>,
    ring: Arc<Ring<Frame>>,
    wake: WakeBits,
    write: Mutex<WriteSide>,
    /// Unix milliseconds of the last publish.
    published_ms: AtomicU64,
    /// What is known to be in the store, at most [`KNOWN`].
    known: Mutex<HashSet<[u8; 32]>>,
    /// From publishing to sending; lives while a worker has subscribers of this tenant.
    times: Mutex<Weak<Times>>,
}

/// What the tenant's lock protects.
struct WriteSide {
    ring: RingWriter<Frame>,
    /// Receive time of the last event; never decreases.
    received_ms: u64,
}

impl Tenants {
    /// An empty table. Where a commit fails, and where the store reopens, every tenant's ring restarts.
    #[must_use]
    pub fn new(
        store: Store,
        pins: Arc<Pins>,
        wakes: Arc<[WakeQueue<Arc<Tenant>>]>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Arc<Tenants> {
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
            inflight: idempotency::Inflight::default(),
        });
        let weak = Arc::downgrade(&tenants);
        store.on_epoch(move || {
            if let Some(tenants) = weak.upgrade() {
                tenants.restart_rings();
            }
        });
        tenants
    }

    /// The tenant of an organization that auth vouched for; reads its log's ends at first use.
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

    /// A tenant that is open. It stays so while anyone holds it, and every connection's worker does.
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
        let (writer, ring) = crate::ring::ring(&self.pins, limits, log.end().next().0);
        let received_ms = log.last_received_ms();
        Tenant {
            id,
            log,
            ring,
            wake: WakeBits::new(),
            write: Mutex::new(WriteSide { ring: writer, received_ms }),
            published_ms: AtomicU64::new(0),
            known: Mutex::default(),
            times: Mutex::new(Weak::new()),
        }
    }

    /// After a commit failed, and after the store reopened: positions go on from each log's end, what was shown and not committed goes,
    /// and waiting readers are woken.
    fn restart_rings(&self) {
        for entry in &self.table {
            let tenant = entry.value();
            {
                let mut side = tenant.write.lock();
                self.ring_bytes.fetch_sub(side.ring.bytes(), Ordering::Relaxed);
                let next = tenant.log.end().next().0.max(side.ring.head());
                side.ring.restart(next);
            }
            self.wake(tenant);
        }
    }

    /// Tells every worker with subscribers of `tenant`.
    fn wake(&self, tenant: &Arc<Tenant>) {
        tenant.wake.signal(|worker| self.wakes[worker].push(tenant.clone()));
    }

    /// Gives back the memory of rings that were quiet for [`QUIET_MS`], and forgets tenants whose ring has gone and whom
    /// nobody holds; called every few seconds.
    pub fn sweep(&self) {
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
            // Under the table's lock, where every new holder comes from: who is alone there stays alone.
            if self.table.remove_if(&id, |_, tenant| tenant.is_unused()).is_some() {
                self.store.forget_quiet(id);
            }
        }
        self.sharing.store(self.table.len(), Ordering::Relaxed);
        if self.table.capacity() > 1_024 && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to_fit();
        }
    }

    /// Lets go of every frame of `tenant` that is on disk: whoever is behind reads the log from now on, where some of them are
    /// being erased.
    pub fn forget_frames(&self, tenant: &Tenant) {
        let mut side = tenant.write.lock();
        let before = side.ring.bytes();
        side.ring.advance_tail(tenant.log.committed().next().0);
        self.ring_bytes.fetch_sub(before - side.ring.bytes(), Ordering::Relaxed);
    }

    /// What signs cursors.
    #[must_use]
    pub fn cursors(&self) -> CursorKey {
        self.store.cursor_key()
    }
    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    /// Bytes in all rings, about.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes.load(Ordering::Relaxed)
    }
    /// Tenants in memory: those that were used lately, or are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }
    /// Whether none was used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl Tenant {
    /// Whether the table alone holds it, and it and the store alone its log, which has nothing that the disk has not. The store has
    /// let go of the log of a deleted organization already.
    fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && Arc::strong_count(&self.log) <= 2
            && self.write.try_lock().is_some_and(|side| {
                side.ring.slots() == 0
                    && side.ring.is_settled()
                    && side.ring.head() == self.log.committed().next().0
            })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.id
    }
    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Arc<TenantLog> {
        &self.log
    }
    /// Its ring.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring<Frame>> {
        &self.ring
    }
    /// Whether what `scope` names is known to be in the store.
    #[must_use]
    pub fn knows(&self, scope: &[u8; 32]) -> bool {
        self.known.lock().contains(scope)
    }
    /// From now on it is known; for whoever has read it and holds its lock ([`Tenants::alone`]).
    pub fn learn(&self, scope: [u8; 32]) {
        let mut known = self.known.lock();
        if known.len() == KNOWN {
            known.clear(); // what is asked for often is soon known again
        }
        known.insert(scope);
    }
    /// It is not known any more; for whoever removes it and holds its lock.
    pub fn unlearn(&self, scope: &[u8; 32]) {
        self.known.lock().remove(scope);
    }
    /// How long its events took from publishing to sending, since it last had no live subscriber.
    #[must_use]
    pub fn times(&self) -> Arc<Times> {
        let mut held = self.times.lock();
        held.upgrade().unwrap_or_else(|| {
            let times = Arc::new(Times::default());
            *held = Arc::downgrade(&times);
            times
        })
    }
    /// Its wake-up bits.
    #[must_use]
    pub fn wake_bits(&self) -> &WakeBits {
        &self.wake
    }
    /// The position after the last visible event.
    #[must_use]
    pub fn head(&self) -> Sequence {
        Sequence(self.ring.head() - 1) // a ring starts at a sequence after 0
    }
    /// An upper bound of the events after `position`, 0 only if there is none.
    #[must_use]
    pub fn replaying(&self, position: Sequence) -> u64 {
        let (head, committed) = (self.head(), self.log.committed());
        let uncommitted = head.counter().saturating_sub(committed.max(position).counter());
        if position >= self.log.last_event() {
            return uncommitted; // what lies between is the step to a new epoch, which holds no event
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
