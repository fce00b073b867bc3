//! Quotas: how much each organization stores besides its log, and how much it may store.
//!
//! * Usage is exact. It is measured wherever a batch is applied ([`Quotas::measure`]), and the new numbers
//!   are written in that batch. So after any crash they agree with the rows. Only the committer applies
//!   batches.
//! * A change that adds is admitted first ([`Quotas::reserve`]). Its reservation lasts until its commit has
//!   ended, so concurrent changes cannot exceed a limit together. A change that only removes or shrinks needs
//!   no admission.
//! * An organization without a limit of its own may use what others leave, see [`Ledger::allowance`]. One
//!   within its equal share is never refused because of what others store.
//! * This module knows only numbers; `usage.rs` decides which rows count.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::usage::{ChangedLength, Difference, Usage, dedup_bytes, differences};
use crate::ids::TenantId;
use crate::sync::Mutex;

/// The part of `store.max_live_bytes`, as a divisor, that rows may fill before organizations over their equal
/// share are refused more. The rest is for organizations that store less, and for events.
const CONTENDED: u64 = 2;

/// Upper bound of what a change adds, as far as is known before its commit. Negative numbers mean that it
/// removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// Number of resources.
    pub rows: i64,
    /// Bytes of keys and values.
    pub bytes: i64,
}

impl Growth {
    /// The growth of storing `messages` by their `message_id`s, and the ids of `answered` events under an
    /// `Idempotency-Key`.
    #[must_use]
    pub fn of_publish(messages: usize, answered: Option<usize>) -> Growth {
        let (scope, head) = (32, 1 + 8 + 32);
        let messages = messages * dedup_bytes(scope, head + 8);
        let answer = answered.map_or(0, |ids| dedup_bytes(scope, head + 16 + 8 * ids));
        Growth { rows: 0, bytes: (messages + answer) as i64 }
    }
}

impl std::ops::AddAssign for Growth {
    fn add_assign(&mut self, other: Growth) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// An organization would exceed its quota. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the organization stores as much as {limit} allows ({used} of {max}): delete what is not needed, or ask the operator to raise {limit}"
)]
pub struct OverQuota {
    /// The configuration key of the limit.
    pub limit: &'static str,
    /// The organization's limit now.
    pub max: u64,
    /// What it stores, including reservations.
    pub used: u64,
}

/// The quotas of organizations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaLimits {
    /// Limit on the bytes of one organization, including its events; 0 means a share.
    pub(crate) bytes: u64,
    /// Limit on the rows of one organization; 0 means no limit.
    pub(crate) rows: u64,
    /// Limit on the bytes of all organizations together, including their events; 0 means no limit.
    pub(crate) max_live_bytes: u64,
}

impl QuotaLimits {
    /// How many bytes of events an organization may keep beside `usage`, if it has a limit of its own. A
    /// sixteenth of the limit is always left for the newest events, however many rows there are, so that
    /// reconnecting clients find them.
    pub(crate) fn event_bytes(&self, usage: Usage) -> Option<u64> {
        (self.bytes > 0).then(|| self.bytes.saturating_sub(usage.bytes).max(self.bytes / 16))
    }
}

/// One organization's account in the ledger.
#[derive(Clone, Copy, Debug, Default)]
struct TenantAccount {
    /// What is applied.
    used: Usage,
    /// What is admitted and not applied yet. It is not part of `used`.
    reserved_rows: u64,
    reserved_bytes: u64,
}

impl TenantAccount {
    fn is_empty(&self) -> bool {
        self.used == Usage::default() && self.reserved_rows == 0 && self.reserved_bytes == 0
    }
    fn bytes(&self) -> u64 {
        self.used.bytes.saturating_add(self.reserved_bytes)
    }
    fn rows(&self) -> u64 {
        self.used.rows.saturating_add(self.reserved_rows)
    }
}

/// The organizations that store something or have a reservation.
#[derive(Default)]
struct Ledger {
    accounts: HashMap<TenantId, TenantAccount>,
    /// Sums over all accounts; bytes include reservations.
    rows: u64,
    bytes: u64,
}

impl Ledger {
    /// Changes an account and the sums.
    fn change(&mut self, tenant: TenantId, change: impl FnOnce(&mut TenantAccount)) {
        let account = self.accounts.entry(tenant).or_default();
        let (rows, bytes) = (account.used.rows, account.bytes());
        change(account);
        self.rows = (self.rows + account.used.rows).saturating_sub(rows);
        self.bytes = (self.bytes + account.bytes()).saturating_sub(bytes);
        if account.is_empty() {
            self.accounts.remove(&tenant);
        }
    }

    /// Checks whether the rows of an organization may grow by `growth` bytes. Returns their limit as an error
    /// if not.
    ///
    /// Without a limit of its own, an organization may grow freely as long as the rows of all take less than
    /// half of `max_live_bytes`. From then on, only organizations grow whose rows take less than an equal
    /// part of that half. So a single organization is not limited by others that do not exist, and one that
    /// stores little is admitted however much others store. Rows of all together stay below `max_live_bytes`:
    /// at most half of it is taken under the first rule, and at most half under the second.
    fn allowance(&self, limits: &QuotaLimits, account: &TenantAccount, growth: u64) -> Result<(), OverQuota> {
        let wanted = account.bytes().saturating_add(growth);
        let (limit, max) = if limits.bytes > 0 {
            ("limits.bytes_per_organization", limits.bytes)
        } else {
            let contended = limits.max_live_bytes / CONTENDED;
            if limits.max_live_bytes == 0 || self.bytes.saturating_add(growth) <= contended {
                return Ok(());
            }
            ("store.max_live_bytes", contended / (self.accounts.len().max(1) as u64))
        };
        match wanted <= max {
            true => Ok(()),
            false => Err(OverQuota { limit, max, used: account.bytes() }),
        }
    }
}

/// Totals over all organizations, and the number of refused changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaTotals {
    /// Organizations that store something besides events.
    pub organizations: u64,
    /// Organizations that could not add a byte or a row now.
    pub full: u64,
    /// Number of resources.
    pub rows: u64,
    /// Bytes of keys and values of everything but the logs, including reservations.
    pub bytes: u64,
    /// Number of refused changes.
    pub refused: u64,
}

/// The bytes of organizations' rows.
pub(crate) struct RowBytes<'a>(&'a Ledger);

impl RowBytes<'_> {
    /// Number of organizations that have rows.
    pub(crate) fn len(&self) -> usize {
        self.0.accounts.len()
    }
    pub(crate) fn contains(&self, tenant: TenantId) -> bool {
        self.0.accounts.contains_key(&tenant)
    }
    pub(crate) fn bytes(&self, tenant: TenantId) -> u64 {
        self.0.accounts.get(&tenant).map_or(0, |account| account.used.bytes)
    }
}

/// The usage and the limits of all organizations.
pub(crate) struct Quotas {
    pub(crate) limits: QuotaLimits,
    ledger: Mutex<Ledger>,
    refused: AtomicU64,
}

/// A reservation of quota for a change. The change holds it until its commit has ended; dropping it releases
/// the quota.
pub struct Reservation {
    quotas: Arc<Quotas>,
    tenant: TenantId,
    rows: u64,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quotas.ledger.lock().change(self.tenant, |account| {
            account.reserved_rows = account.reserved_rows.saturating_sub(self.rows);
            account.reserved_bytes = account.reserved_bytes.saturating_sub(self.bytes);
        });
    }
}

impl Quotas {
    pub(crate) fn new(limits: QuotaLimits) -> Arc<Quotas> {
        Arc::new(Quotas { limits, ledger: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Replaces the usage of all organizations by what was loaded. Reservations stay.
    pub(crate) fn replace_usage(&self, found: Vec<(TenantId, Usage)>) {
        let mut ledger = self.ledger.lock();
        let known: Vec<TenantId> = ledger.accounts.keys().copied().collect();
        for tenant in known {
            ledger.change(tenant, |account| account.used = Usage::default());
        }
        for (tenant, usage) in found {
            ledger.change(tenant, |account| account.used = usage);
        }
    }

    /// The usage of organizations once a batch with `changes` is applied. The batch must store it, and
    /// [`Quotas::apply_measured`] takes it afterwards. `length` reads the length of the value under a key; it
    /// is called for each value that is replaced or deleted.
    pub(crate) fn measure<'a, E>(
        &self,
        changes: impl Iterator<Item = ChangedLength<'a>> + Clone,
        length: impl Fn(&[u8]) -> Result<Option<usize>, E>,
    ) -> Result<Vec<(TenantId, Usage)>, E> {
        let differences = differences(changes, length)?;
        let ledger = self.ledger.lock();
        let changed = differences.into_iter().filter(|(_, difference)| *difference != Difference::default());
        let after = changed.map(|(tenant, difference)| {
            let used = ledger.accounts.get(&tenant).map(|account| account.used).unwrap_or_default();
            (tenant, difference.applied_to(used))
        });
        Ok(after.collect())
    }

    /// Takes over what [`Quotas::measure`] returned, once its batch is applied.
    pub(crate) fn apply_measured(&self, after: Vec<(TenantId, Usage)>) {
        if after.is_empty() {
            return;
        }
        let mut ledger = self.ledger.lock();
        for (tenant, usage) in after {
            ledger.change(tenant, |account| account.used = usage);
        }
    }

    /// Reserves quota for a change of `tenant`; `None` if it adds nothing.
    ///
    /// # Errors
    /// [`OverQuota`], which names the limit.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        tenant: TenantId,
        growth: Growth,
    ) -> Result<Option<Reservation>, OverQuota> {
        let added = |number: i64| u64::try_from(number).unwrap_or(0);
        let (rows, bytes) = (added(growth.rows), added(growth.bytes));
        if rows == 0 && bytes == 0 {
            return Ok(None);
        }
        let mut ledger = self.ledger.lock();
        // The organization counts among those that share, even if it stored nothing before.
        let account = *ledger.accounts.entry(tenant).or_default();
        let admitted = if rows > 0 && self.limits.rows > 0 && account.rows() + rows > self.limits.rows {
            let (limit, max) = ("limits.rows_per_organization", self.limits.rows);
            Err(OverQuota { limit, max, used: account.rows() })
        } else if bytes > 0 {
            ledger.allowance(&self.limits, &account, bytes)
        } else {
            Ok(())
        };
        if admitted.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        let (more_rows, more_bytes) = if admitted.is_ok() { (rows, bytes) } else { (0, 0) };
        ledger.change(tenant, |account| {
            account.reserved_rows += more_rows;
            account.reserved_bytes += more_bytes;
        });
        admitted.map(|()| Some(Reservation { quotas: self.clone(), tenant, rows, bytes }))
    }

    /// The usage of `tenant`.
    pub(crate) fn usage(&self, tenant: TenantId) -> Usage {
        self.ledger.lock().accounts.get(&tenant).map(|account| account.used).unwrap_or_default()
    }

    /// Bytes of all organizations' rows.
    pub(crate) fn bytes(&self) -> u64 {
        self.ledger.lock().bytes
    }

    /// Totals over all organizations. Visits each of them.
    pub(crate) fn totals(&self) -> QuotaTotals {
        let ledger = self.ledger.lock();
        let is_full = |account: &&TenantAccount| {
            (self.limits.rows > 0 && account.rows() >= self.limits.rows)
                || ledger.allowance(&self.limits, account, 1).is_err()
        };
        QuotaTotals {
            organizations: ledger.accounts.len() as u64,
            full: ledger.accounts.values().filter(is_full).count() as u64,
            rows: ledger.rows,
            bytes: ledger.bytes,
            refused: self.refused.load(Relaxed),
        }
    }

    /// Calls `look` with the bytes of all organizations' rows.
    pub(crate) fn with_rows<T>(&self, look: impl FnOnce(&RowBytes<'_>) -> T) -> T {
        look(&RowBytes(&self.ledger.lock()))
    }

    /// Removes the account of an erased organization.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.ledger.lock().change(tenant, |account| account.used = Usage::default());
    }
}
