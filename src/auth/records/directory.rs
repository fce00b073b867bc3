//! Organizations, keys, revocations and disabled users as they are now, in memory.
//!
//! * The records on disk are the truth and are written first. The directory is updated afterwards, under one
//!   lock, so a reader never sees half a change.
//! * Everything is limited by a named constant per organization, and the number of organizations by
//!   [`ORGANIZATIONS`].
//! * The directory does not know the format of any credential.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::rows::{KeyRow, Organization, RecordChange, Snapshot};
use crate::auth::rights::scope::Scope;
use crate::auth::tokens::jwt::TOKEN_MAX_MS;
use crate::ids::TenantId;
use crate::sync::RwLock;

/// Maximum number of organizations (about 400 bytes each).
pub const ORGANIZATIONS: usize = 1_000_000;
/// Maximum number of API keys of an organization. Stops a runaway script from filling memory (about 300 bytes
/// each).
pub const KEYS_PER_ORGANIZATION: usize = 10_000;
/// Maximum number of revoked tokens that an organization has at a time (about 100 bytes each).
pub const REVOCATIONS_PER_ORGANIZATION: usize = 100_000;
/// Maximum number of disabled users of an organization (about 100 bytes each).
pub const DISABLED_PER_ORGANIZATION: usize = 100_000;

/// Maximum number of users of an organization whose tokens were ended (about 100 bytes each). An entry is
/// removed when the tokens that it ended have expired.
pub const ENDED_PER_ORGANIZATION: usize = 100_000;

/// A key, and the part of it that changes without a commit.
#[derive(Debug)]
pub(in crate::auth) struct ApiKeyEntry {
    pub(in crate::auth) row: KeyRow,
    /// Unix milliseconds, 0 = never. Authentication writes it, at most once a minute.
    pub(in crate::auth) last_used_ms: AtomicU64,
}

impl ApiKeyEntry {
    pub(in crate::auth) fn new(row: KeyRow) -> Arc<ApiKeyEntry> {
        Arc::new(ApiKeyEntry { last_used_ms: AtomicU64::new(row.last_used_ms.unwrap_or(0)), row })
    }
    /// Returns the row with the last use known in memory.
    pub(in crate::auth) fn current(&self) -> KeyRow {
        let last_used_ms = match self.last_used_ms.load(Relaxed) {
            0 => None,
            ms => Some(ms),
        };
        KeyRow { last_used_ms, ..self.row.clone() }
    }
}

/// An organization's keys by id. Most organizations have one or two, and a tree would reserve room for
/// eleven.
#[derive(Debug, Default)]
pub(in crate::auth) struct ApiKeys(Vec<Arc<ApiKeyEntry>>);

impl ApiKeys {
    fn search(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|key| key.row.id.as_str().cmp(id))
    }
    pub(in crate::auth) fn len(&self) -> usize {
        self.0.len()
    }
    pub(in crate::auth) fn get(&self, id: &str) -> Option<&Arc<ApiKeyEntry>> {
        self.0.get(self.search(id).ok()?)
    }
    /// Returns the keys with ids greater than `id`, in order; all keys for `None`.
    pub(in crate::auth) fn after(&self, id: Option<&str>) -> &[Arc<ApiKeyEntry>] {
        let from = id.map_or(0, |id| self.search(id).map_or_else(|at| at, |at| at + 1));
        self.0.get(from..).unwrap_or_default()
    }
    fn insert(&mut self, key: Arc<ApiKeyEntry>) {
        match self.search(&key.row.id) {
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
        if let Ok(at) = self.search(id) {
            self.0.remove(at);
        }
    }
}

/// What is known about one organization. It uses trees because nearly all are empty: an empty hash table is
/// twice their size.
#[derive(Debug)]
pub(in crate::auth) struct OrganizationEntry {
    pub(in crate::auth) organization: Arc<Organization>,
    pub(in crate::auth) keys: ApiKeys,
    /// Revoked `jti` → time until which it must be remembered (Unix milliseconds; `None`: for ever).
    pub(in crate::auth) revoked: BTreeMap<String, Option<u64>>,
    pub(in crate::auth) disabled: BTreeSet<String>,
    /// `sub` → earliest time of issue (Unix milliseconds) of a token that is still valid.
    pub(in crate::auth) valid_since: BTreeMap<String, u64>,
}

impl OrganizationEntry {
    /// Returns true if tokens that a user was issued at this time have been ended since.
    pub(in crate::auth) fn has_ended(&self, sub: Option<&str>, issued_at_ms: u64) -> bool {
        sub.and_then(|sub| self.valid_since.get(sub)).is_some_and(|since_ms| issued_at_ms < *since_ms)
    }

    /// Returns users whose ended tokens have all expired. It examines at most `most` users, first those from
    /// `from` on. No token lives longer than [`TOKEN_MAX_MS`]. If a foreign issuer's tokens do, they must be
    /// ended by disabling the user.
    pub(in crate::auth) fn expired_ends(
        &self,
        now_ms: u64,
        from: &str,
        most: usize,
    ) -> impl Iterator<Item = &str> {
        let (rest, first) = ((Included(from), Unbounded), (Unbounded, Excluded(from)));
        let all = self.valid_since.range::<str, _>(rest).chain(self.valid_since.range::<str, _>(first));
        all.take(most)
            .filter(move |(_, since_ms)| is_expired(**since_ms, now_ms))
            .map(|(sub, _)| sub.as_str())
    }
}

/// Returns true if every token that was issued before this time has expired.
pub(in crate::auth) fn is_expired(since_ms: u64, now_ms: u64) -> bool {
    since_ms.saturating_add(TOKEN_MAX_MS) <= now_ms
}

/// An organization in the order of public ids. It uses the id in the row: a copy would be a quarter of the
/// memory of an idle organization.
#[derive(Debug)]
pub(in crate::auth) struct OrgIdOrder(Arc<Organization>);

impl OrgIdOrder {
    pub(in crate::auth) fn organization(&self) -> &Arc<Organization> {
        &self.0
    }
}

impl Borrow<str> for OrgIdOrder {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Ord for OrgIdOrder {
    fn cmp(&self, other: &OrgIdOrder) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for OrgIdOrder {
    fn partial_cmp(&self, other: &OrgIdOrder) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrgIdOrder {
    fn eq(&self, other: &OrgIdOrder) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrgIdOrder {}

#[derive(Debug, Default)]
pub(in crate::auth) struct DirectoryTable {
    pub(in crate::auth) by_tenant: HashMap<TenantId, OrganizationEntry>,
    /// Ordered, so lists can be paged.
    pub(in crate::auth) by_id: BTreeSet<OrgIdOrder>,
    /// ApiKeyEntry id → organization of the key.
    key_owner: HashMap<String, TenantId>,
    /// Ids of the keys with `operator`, of all organizations.
    operator_keys: BTreeSet<String>,
    pub(in crate::auth) next_tenant: u64,
}

/// The shared table.
#[derive(Debug)]
pub(in crate::auth) struct Directory(RwLock<DirectoryTable>);

impl Directory {
    pub(in crate::auth) fn new(snapshot: Snapshot) -> Self {
        let mut table = DirectoryTable { next_tenant: snapshot.next_tenant, ..DirectoryTable::default() };
        let organizations = snapshot.organizations.into_iter().map(RecordChange::PutOrganization);
        let keys = snapshot.keys.into_iter().map(RecordChange::PutKey);
        let revoked = snapshot.revocations.into_iter();
        let revoked = revoked.map(|(tenant, jti, until_ms)| RecordChange::Revoke { tenant, jti, until_ms });
        let disabled = snapshot.disabled.into_iter();
        let disabled =
            disabled.map(|(tenant, sub)| RecordChange::SetDisabled { tenant, sub, disabled: true });
        let ended = snapshot.ended.into_iter();
        let ended = ended.map(|(tenant, sub, since_ms)| RecordChange::EndTokens { tenant, sub, since_ms });
        let all = organizations.chain(keys).chain(revoked).chain(disabled).chain(ended);
        all.for_each(|write| table.apply(write));
        Directory(RwLock::new(table))
    }

    /// Reads under the lock. `f` must be short, because every worker reads here.
    pub(in crate::auth) fn read<T>(&self, f: impl FnOnce(&DirectoryTable) -> T) -> T {
        f(&self.0.read())
    }

    /// Returns a number that no organization has ever had. It is never used again, because a commit that
    /// failed may still be on disk.
    pub(in crate::auth) fn take_number(&self) -> TenantId {
        let mut table = self.0.write();
        let number = table.next_tenant.max(1);
        table.next_tenant = number + 1;
        TenantId(number)
    }

    /// Number of entries in all tables.
    #[cfg(test)]
    pub(in crate::auth) fn entries(&self) -> usize {
        let table = self.0.read();
        let of = |entry: &OrganizationEntry| {
            1 + entry.keys.len() + entry.revoked.len() + entry.disabled.len() + entry.valid_since.len()
        };
        table.by_tenant.values().map(of).sum::<usize>() + table.by_id.len() + table.key_owner.len()
    }

    /// Applies a commit in one step.
    pub(in crate::auth) fn apply(&self, writes: Vec<RecordChange>) {
        let mut table = self.0.write();
        writes.into_iter().for_each(|write| table.apply(write));
    }
}

impl DirectoryTable {
    pub(in crate::auth) fn by_org_id(&self, org_id: &str) -> Option<&OrganizationEntry> {
        self.by_tenant.get(&self.by_id.get(org_id)?.0.tenant)
    }

    /// Returns the key with this id, and its organization.
    pub(in crate::auth) fn key(&self, key_id: &str) -> Option<(&OrganizationEntry, &Arc<ApiKeyEntry>)> {
        let entry = self.by_tenant.get(self.key_owner.get(key_id)?)?;
        Some((entry, entry.keys.get(key_id)?))
    }

    /// Returns true if `key_id` has `operator` and no other unexpired key does.
    pub(in crate::auth) fn is_last_operator_key(&self, key_id: &str, now_ms: u64) -> bool {
        let lives = |id: &String| {
            self.key(id).is_some_and(|(_, key)| key.row.expires_at_ms.is_none_or(|end| end > now_ms))
        };
        self.operator_keys.contains(key_id) && !self.operator_keys.iter().any(|id| id != key_id && lives(id))
    }

    fn apply(&mut self, write: RecordChange) {
        match write {
            RecordChange::PutOrganization(row) => {
                self.next_tenant = self.next_tenant.max(row.tenant.0 + 1);
                let organization = Arc::new(row);
                self.by_id.replace(OrgIdOrder(Arc::clone(&organization)));
                let entry = self.by_tenant.entry(organization.tenant).or_insert_with(|| OrganizationEntry {
                    organization: Arc::clone(&organization),
                    keys: ApiKeys::default(),
                    revoked: BTreeMap::new(),
                    disabled: BTreeSet::new(),
                    valid_since: BTreeMap::new(),
                });
                entry.organization = organization;
            }
            RecordChange::DeleteOrganization(row) => {
                if let Some(entry) = self.by_tenant.remove(&row.tenant) {
                    self.by_id.remove(entry.organization.id.as_str());
                    for key in entry.keys.after(None) {
                        self.key_owner.remove(&key.row.id);
                        self.operator_keys.remove(&key.row.id);
                    }
                }
            }
            RecordChange::PutKey(row) => {
                if let Some(entry) = self.by_tenant.get_mut(&row.tenant) {
                    self.key_owner.insert(row.id.clone(), row.tenant);
                    if row.scopes.has(Scope::Operate) {
                        self.operator_keys.insert(row.id.clone());
                    }
                    entry.keys.insert(ApiKeyEntry::new(row));
                }
            }
            RecordChange::DeleteKey(tenant, id) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.keys.remove(&id);
                    self.key_owner.remove(&id);
                    self.operator_keys.remove(&id);
                }
            }
            RecordChange::Revoke { tenant, jti, until_ms } => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.revoked.insert(jti, until_ms);
                }
            }
            RecordChange::ForgetRevocation(tenant, jti) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.revoked.remove(&jti);
                }
            }
            RecordChange::EndTokens { tenant, sub, since_ms } => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.valid_since.insert(sub, since_ms);
                }
            }
            RecordChange::ForgetEnd(tenant, sub) => {
                if let Some(entry) = self.by_tenant.get_mut(&tenant) {
                    entry.valid_since.remove(&sub);
                }
            }
            RecordChange::SetDisabled { tenant, sub, disabled } => {
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
