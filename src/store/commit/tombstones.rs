//! Tombstones of deleted organizations and users: nothing of a deleted organization, and nothing on behalf of
//! a deleted user, is committed any more.
//!
//! * The order of commits decides. The committer adds a tombstone when the deletion is on disk, and refuses
//!   everything that comes after the deletion. So the erasure finds everything that came before, and nothing
//!   comes after it.
//! * Publishers also check the tombstones before a sequence is assigned, so the committer refuses only what
//!   was queued while the deletion was being committed.
//! * Neither an organization's number nor a user's id is ever used again. A tombstone of a user need only
//!   outlive the requests that were in progress at the deletion, and none of these outlives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::queue::{Append, Item};
use crate::frame::{Frame, RoutingKey};
use crate::ids::TenantId;
use crate::store::format::DeletedUsers;

/// Limit on remembered deleted users (about 200 bytes each); the oldest are removed first. Deleting as many
/// takes hours, because each has to be registered with a password first.
const USERS: usize = 100_000;

/// The tombstones. Written by the committer.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    /// Numbers of deleted organizations as ranges, first to last. There is a living organization between two
    /// ranges, so there are no more ranges than organizations.
    organizations: BTreeMap<u64, u64>,
    users: HashMap<TenantId, DeletedUsers>,
    /// Every user of `users`, in the order of deletion.
    order: VecDeque<(TenantId, Box<str>)>,
}

impl Tombstones {
    /// Adds an organization.
    pub(super) fn add_organization(&mut self, tenant: TenantId) {
        if self.users.remove(&tenant).is_some() {
            self.order.retain(|(of, _)| *of != tenant);
        }
        if self.has_organization(tenant) {
            return;
        }
        let (mut first, mut last) = (tenant.0, tenant.0);
        if let Some((&before, _)) =
            self.organizations.range(..first).next_back().filter(|(_, end)| **end + 1 == first)
        {
            first = before;
        }
        if let Some(end) = last.checked_add(1).and_then(|next| self.organizations.remove(&next)) {
            last = end;
        }
        self.organizations.insert(first, last);
    }

    /// Adds a user.
    pub(super) fn add_user(&mut self, tenant: TenantId, sub: &str) {
        if !self.users.entry(tenant).or_default().add(sub) {
            return;
        }
        self.order.push_back((tenant, sub.into()));
        if self.order.len() > USERS
            && let Some((tenant, sub)) = self.order.pop_front()
            && let Some(users) = self.users.get_mut(&tenant)
        {
            users.remove(&sub);
            if users.is_empty() {
                self.users.remove(&tenant);
            }
        }
    }

    /// Returns true if the organization was deleted.
    pub(super) fn has_organization(&self, tenant: TenantId) -> bool {
        self.organizations.range(..=tenant.0).next_back().is_some_and(|(_, last)| *last >= tenant.0)
    }

    /// Returns true if the user was deleted.
    pub(super) fn has_user(&self, tenant: TenantId, sub: &str) -> bool {
        self.users.get(&tenant).is_some_and(|users| users.contains(sub))
    }

    /// Returns true if anything of `tenant` is refused.
    pub(crate) fn concern(&self, tenant: TenantId) -> bool {
        self.users.contains_key(&tenant) || self.has_organization(tenant)
    }

    /// Returns true if events may not be published, because their organization, or a user on whose behalf one
    /// of them is, was deleted.
    pub(crate) fn refuse_events(&self, tenant: TenantId, frames: &[Arc<Frame>]) -> bool {
        let in_name =
            |frame: &Arc<Frame>| frame.key(RoutingKey::User).is_some_and(|user| self.has_user(tenant, user));
        self.concern(tenant) && (self.has_organization(tenant) || frames.iter().any(in_name))
    }

    /// Returns true if a queued item may not be committed.
    pub(crate) fn refuse(&self, item: &Item) -> bool {
        if self.organizations.is_empty() && self.users.is_empty() {
            return false;
        }
        let refused = |append: &Append| self.refuse_events(append.log.tenant(), append.frames.as_slice());
        item.append.as_ref().is_some_and(refused)
            || item.rows.written_into().any(|tenant| self.has_organization(tenant))
            || item.rows.names().any(|(tenant, sub)| self.has_user(tenant, sub))
    }

    /// Returns true for a presence event of a deleted user. It is delivered to connected clients, but not
    /// stored.
    pub(super) fn has_presence(&self, tenant: TenantId, frame: &Frame) -> bool {
        self.users.get(&tenant).is_some_and(|users| users.is_presence(frame.key(RoutingKey::Channel)))
    }

    /// Number of entries of all tables.
    pub(crate) fn entries(&self) -> usize {
        self.organizations.len() + self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_organizations_are_ranges_between_those_that_live() {
        let mut tombstones = Tombstones::default();
        for n in [5, 3, 4, 9, 4, 1, u64::MAX] {
            tombstones.add_organization(TenantId(n));
        }
        let ranges: Vec<_> = tombstones.organizations.iter().map(|(first, last)| (*first, *last)).collect();
        assert_eq!(ranges, [(1, 1), (3, 5), (9, 9), (u64::MAX, u64::MAX)]);
        let dead: Vec<_> = (0..=10).filter(|n| tombstones.has_organization(TenantId(*n))).collect();
        assert_eq!(dead, [1, 3, 4, 5, 9]);
    }

    #[test]
    fn tombstones_of_users_are_limited_and_end_with_their_organization() {
        let mut tombstones = Tombstones::default();
        for n in 0..USERS + 2 {
            tombstones.add_user(TenantId(1 + n as u64 % 2), &format!("user-{n}"));
        }
        tombstones.add_user(TenantId(1), &format!("user-{USERS}"));
        assert_eq!(tombstones.entries(), USERS);
        assert!(!tombstones.has_user(TenantId(1), "user-0") && !tombstones.has_user(TenantId(2), "user-1"));
        assert!(tombstones.has_user(TenantId(1), "user-2") && !tombstones.has_user(TenantId(2), "user-2"));
        tombstones.add_organization(TenantId(1));
        tombstones.add_organization(TenantId(2));
        assert_eq!((tombstones.entries(), tombstones.users.len()), (1, 0));
    }
}
