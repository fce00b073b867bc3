//! Organizations, keys, revocations and disabled users as they are now, in memory.
//!
//! * The records are the truth and are written first; this follows, under one lock, so a reader never sees half a
//!   change.
//! * Everything is bounded by a named limit per organization, and the organizations by [`ORGANIZATIONS`].
//! * Knows no credential's form.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::issue::TOKEN_MAX_MS;
use super::records::{KeyRow, OrganizationRow, Snapshot, Write};
use super::scope::Scope;
use crate::ids::TenantId;
use crate::sync::RwLock;

/// Most organizations (about 400 bytes each).
pub const ORGANIZATIONS: usize = 1_000_000;
/// Most API keys of an organization; stops a runaway script from filling memory (about 300 bytes each).
pub const KEYS_PER_ORGANIZATION: usize = 10_000;
/// Most revoked tokens an organization has at a time (about 100 bytes each).
pub const REVOCATIONS_PER_ORGANIZATION: usize = 100_000;
/// Most disabled users of an organization (about 100 bytes each).
pub const DISABLED_PER_ORGANIZATION: usize = 100_000;

/// Most users of an organization whose tokens were ended at a time (about 100 bytes each); a mark goes when the tokens it ended
/// have expired.
pub const ENDED_PER_ORGANIZATION: usize = 100_000;

/// One organization, as it is today.
pub type Organization = OrganizationRow;

/// A key and what changes without a commit.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) row: KeyRow,
    /// Unix milliseconds, 0 = never; written by whoever authenticates, once a minute.
    pub(super) last_used_ms: AtomicU64,
}

impl Key {
    pub(super) fn new(row: KeyRow) -> Arc<Key> {
        Arc::new(Key { last_used_ms: AtomicU64::new(row.last_used_ms.unwrap_or(0)), row })
    }
    /// The row with the last use known in memory.
    pub(super) fn current(&self) -> KeyRow {
        let last_used_ms = match self.last_used_ms.load(Relaxed) {
            0 => None,
            ms => Some(ms),
        };
        KeyRow { last_used_ms, ..self.row.clone() }
    }
}

/// An organization's keys by id. Most have one or two, for which a tree would keep room for eleven.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Arc<Key>>);

impl Keys {
    fn place(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|key| key.row.id.as_str().cmp(id))
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Key>> {
        self.0.get(self.place(id).ok()?)
    }
    /// Those with ids after `id`, in order; all for `None`.
    pub(super) fn after(&self, id: Option<&str>) -> &[Arc<Key>] {
        let from = id.map_or(0, |id| self.place(id).map_or_else(|at| at, |at| at + 1));
        self.0.get(from..).unwrap_or_default()
    }
    fn insert(&mut self, key: Arc<Key>) {
        match self.place(&key.row.id) {
            Ok(at) => self.0[at] = key,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, key);
            }
        }
    }
    fn remove(&mut self, id: &str) {
        if let Ok(at) = self.place(id) {
            self.0.remove(at);
        }
    }
}

/// What is known of one organization. Trees where nearly all are empty: an empty hash table is twice their size.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) organization: Arc<Organization>,
    pub(super) keys: Keys,
    /// jti → until when it must be remembered (Unix milliseconds; `None`: for ever).
    pub(super) revoked: BTreeMap<String, Option<u64>>,
    pub(super) disabled: BTreeSet<String>,
    /// sub → since when (Unix milliseconds) a token must have been issued to be good.
    pub(super) good_since: BTreeMap<String, u64>,
}

impl Entry {
    /// Returns true if what was issued to a user at this time has been ended since.
    pub(super) fn has_ended(&self, sub: Option<&str>, issued_at_ms: u64) -> bool {
        sub.and_then(|sub| self.good_since.get(sub)).is_some_and(|since_ms| issued_at_ms < *since_ms)
    }

    /// Users whose ended tokens have all expired, among `most` users, those from `from` on first. No token lives longer than
    /// [`TOKEN_MAX_MS`]; who gives users of this daemon tokens of a foreign issuer that do must end them by disabling the user.
    pub(super) fn outlived(&self, now_ms: u64, from: &str, most: usize) -> impl Iterator<Item = &str> {
        let (rest, first) = ((Included(from), Unbounded), (Unbounded, Excluded(from)));
        let all = self.good_since.range::<str, _>(rest).chain(self.good_since.range::<str, _>(first));
        all.take(most)
            .filter(move |(_, since_ms)| is_outlived(**since_ms, now_ms))
            .map(|(sub, _)| sub.as_str())
    }
}

/// Whether every token that was issued before an instant has expired.
pub(super) fn is_outlived(since_ms: u64, now_ms: u64) -> bool {
    since_ms.saturating_add(TOKEN_MAX_MS) <= now_ms
}

/// An organization in the order of public ids. The id is the row's own: a second one would be a quarter of what an idle
/// organization takes.
#[derive(Debug)]
pub(super) struct ById(Arc<Organization>);

impl ById {
    pub(super) fn organization(&self) -> &Arc<Organization> {
        &self.0
    }
}

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Ord for ById {
    fn cmp(&self, other: &ById) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &ById) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &ById) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ById {}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) by_tenant: HashMap<TenantId, Entry>,
    /// Ordered, so lists can be paged.
    pub(super) by_id: BTreeSet<ById>,
    /// Whose a key is, by key id.
    key_owner: HashMap<String, TenantId>,
    /// Ids of the keys with `operator`, of all organizations.
    operator_keys: BTreeSet<String>,
    pub(super) next_tenant: u64,
}

/// The shared table.
#[derive(Debug)]
pub(super) struct Directory(RwLock<Table>);

impl Directory {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let mut table = Table { next_tenant: snapshot.next_tenant, ..Table::default() };
        let organizations = snapshot.organizations.into_iter().map(Write::PutOrganization);
        let keys = snapshot.keys.into_iter().map(Write::PutKey);
        let revoked = snapshot.revocations.into_iter();
        let revoked = revoked.map(|(tenant, jti, until_ms)| Write::Revoke { tenant, jti, until_ms });
        let disabled = snapshot.disabled.into_iter();
        let disabled = disabled.map(|(tenant, sub)| Write::SetDisabled { tenant, sub, disabled: true });
        let ended = snapshot.ended.into_iter();
        let ended = ended.map(|(tenant, sub, since_ms)| Write::EndTokens { tenant, sub, since_ms });
        let all = organizations.chain(keys).chain(revoked).chain(disabled).chain(ended);
        all.for_each(|write| table.apply(write));
        Directory(RwLock::new(table))
    }

    /// Reads under the lock; `f` must be short: every worker asks here.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Table) -> T) -> T {
        f(&self.0.read())
    }

    /// A number that no organization ever had. It is not given out again: where the commit that uses it fails, the disk may hold it
    /// all the same.
    pub(super) fn take_number(&self) -> TenantId {
        let mut table = self.0.write();
        let number = table.next_tenant.max(1);
        table.next_tenant = number + 1;
        TenantId(number)
    }

    /// Entries of all tables.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let table = self.0.read();
        let of = |entry: &Entry| {
            1 + entry.keys.len() + entry.revoked.len() + entry.disabled.len() + entry.good_since.len()
        };
        table.by_tenant.values().map(of).sum::<usize>() + table.by_id.len() + table.key_owner.len()
    }

    /// Follows a commit, in one step.
    pub(super) fn apply(&self, writes: Vec<Write>) {
        let mut table = self.0.write();
        writes.into_iter().for_each(|write| table.apply(write));
    }
}

impl Table {
    pub(super) fn by_org_id(&self, org_id: &str) -> Option<&Entry> {
        self.by_tenant.get(&self.by_id.get(org_id)?.0.tenant)
    }

    /// The key of this id, and its organization.
    pub(super) fn key(&self, key_id: &str) -> Option<(&Entry, &Arc<Key>)> {
        let entry = self.by_tenant.get(self.key_owner.get(key_id)?)?;
        Some((entry, entry.keys.get(key_id)?))
    }

    /// Whether `key_id` has `operator` and no other key that has not expired does.
    pub(super) fn is_last_operator_key(&self, key_id: &str, now_ms: u64) -> bool {
        let lives = |id: &String| {
            self.key(id).is_some_and(|(_, key)| key.row.expires_at_ms.is_none_or(|end| end > now_ms))
        };
        self.operator_keys.contains(key_id) && !self.operator_keys.iter().any(|id| id != key_id && lives(id))
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::PutOrganization(row) => {
                self.next_tenant = self.next_tenant.max(row.tenant.0 + 1);
                let organization = Arc::new(row);
                self.by_id.replace(ById(Arc::clone(&organization)));
                let entry = self.by_tenant.entry(organization.tenant).or_insert_with(|| Entry {
                    organization: Arc::clone(&organization),
                    keys: Keys::default(),
                    revoked: BTreeMap::new(),
                    disabled: BTreeSet::new(),
                    good_since: BTreeMap::new(),
                });
                entry.organization = organization;
            }
            Write::DeleteOrganization(row) => {
                if let Some(entry) = self.by_tenant.remove(&row.tenant) {
                    self.by_id.remove(entry.organization.id.as_str());
                    for key in entry.keys.after(None) {
                        self.key_owner.remove(&key.row.id);
                        self.operator_keys.remove(&key.row.id);
                    }
                }
            }
            Write::PutKey(row) => {
                if let Some(entry) = self.by_tenant.get_mut(&row.tenant) {
                    self.key_owner.insert(row.id.clone(), row.tenant);
                    if row.scopes.has(Scope::Operate) {
                        self.operator_keys.insert(row.id.clone());
                    }
                    entry.keys.insert(Key::new(row));
                }
            }
            Write::DeleteKey(tenant, id) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.keys.remove(&id);
                    self.key_owner.remove(&id);
                    self.operator_keys.remove(&id);
                }
            }
            Write::Revoke { tenant, jti, until_ms } => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.revoked.insert(jti, until_ms);
                }
            }
            Write::ForgetRevocation(tenant, jti) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.revoked.remove(&jti);
                }
            }
            Write::EndTokens { tenant, sub, since_ms } => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.good_since.insert(sub, since_ms);
                }
            }
            Write::ForgetEnd(tenant, sub) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.good_since.remove(&sub);
                }
            }
            Write::SetDisabled { tenant, sub, disabled } => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    match disabled {
                        true => drop(entry.disabled.insert(sub)),
                        false => drop(entry.disabled.remove(&sub)),
                    }
                }
            }
        }
    }
}
