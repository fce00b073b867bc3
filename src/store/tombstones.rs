//! Who was deleted: nothing of a deleted organization, and nothing in the name of a deleted user, is committed any more.
//!
//! * The order of commits decides. The committer writes a tombstone when the deletion is on disk, and refuses whatever it meets
//!   after the deletion: all that came before is there for the erasure to find, and nothing comes after it.
//! * Publishers ask here too, before a sequence is assigned, so the committer refuses only what was queued while the deletion was
//!   on its way.
//! * Neither an organization's number nor a user's id is ever given again. A tombstone of a user need only outlive the requests
//!   that were under way at the deletion, none of which outlives the process.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::queue::{Append, Item};
use crate::event::presence_channel;
use crate::frame::{Frame, Key};
use crate::ids::TenantId;

/// Most deleted users that are remembered (about 200 bytes each); the oldest go first. To delete as many takes hours, since each has
/// to be registered with a password before.
const USERS: usize = 100_000;

/// The tombstones. Written by the committer.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Numbers of deleted organizations as ranges, first to last. Between two ranges an organization lives, so there are no more
    /// of them than organizations.
    organizations: BTreeMap<u64, u64>,
    users: HashMap<TenantId, Users>,
    /// Every user of `users`, in the order of their deletion.
    order: VecDeque<(TenantId, Box<str>)>,
}

/// Deleted users of one organization.
#[derive(Debug, Default)]
pub(super) struct Users {
    subs: HashSet<Box<str>>,
    /// Where their coming and going is told.
    channels: HashSet<Box<str>>,
}

impl Users {
    /// Adds one; false if it is known.
    pub(super) fn add(&mut self, sub: &str) -> bool {
        self.subs.insert(sub.into()) && self.channels.insert(presence_channel(sub).into())
    }

    pub(super) fn len(&self) -> usize {
        self.subs.len()
    }

    pub(super) fn subs(&self) -> impl Iterator<Item = &str> {
        self.subs.iter().map(|sub| &**sub)
    }

    /// Every routing key that an event of theirs may have.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.subs().chain(self.channels.iter().map(|channel| &**channel))
    }

    /// Whether an event of these routing keys is in the name of one of them, or tells of one's coming or going.
    pub(super) fn concern(&self, user: Option<&str>, channel: Option<&str>) -> bool {
        user.is_some_and(|user| self.subs.contains(user)) || self.is_presence(channel)
    }

    fn is_presence(&self, channel: Option<&str>) -> bool {
        channel.is_some_and(|channel| self.channels.contains(channel))
    }
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
            users.subs.remove(&sub);
            users.channels.remove(presence_channel(&sub).as_str());
            if users.subs.is_empty() {
                self.users.remove(&tenant);
            }
        }
    }

    /// Whether an organization was deleted.
    pub(super) fn has_organization(&self, tenant: TenantId) -> bool {
        self.organizations.range(..=tenant.0).next_back().is_some_and(|(_, last)| *last >= tenant.0)
    }

    /// Whether a user was deleted.
    pub(super) fn has_user(&self, tenant: TenantId, sub: &str) -> bool {
        self.users.get(&tenant).is_some_and(|users| users.subs.contains(sub))
    }

    /// Whether something of `tenant` is refused.
    pub(super) fn concern(&self, tenant: TenantId) -> bool {
        self.users.contains_key(&tenant) || self.has_organization(tenant)
    }

    /// Whether events may not be published: their organization was deleted, or a user in whose name one of them is.
    pub(super) fn refuse_events(&self, tenant: TenantId, frames: &[Arc<Frame>]) -> bool {
        let in_name =
            |frame: &Arc<Frame>| frame.key(Key::User).is_some_and(|user| self.has_user(tenant, user));
        self.concern(tenant) && (self.has_organization(tenant) || frames.iter().any(in_name))
    }

    /// Whether something that was queued may not be committed.
    pub(super) fn refuse(&self, item: &Item) -> bool {
        if self.organizations.is_empty() && self.users.is_empty() {
            return false;
        }
        let refused = |append: &Append| self.refuse_events(append.log.tenant(), append.frames.as_slice());
        item.append.as_ref().is_some_and(refused)
            || item.rows.written_into().any(|tenant| self.has_organization(tenant))
            || item.rows.names().any(|(tenant, sub)| self.has_user(tenant, sub))
    }

    /// Whether an event tells of a deleted user's coming or going. It is sent to who is connected, and not kept.
    pub(super) fn has_presence(&self, tenant: TenantId, frame: &Frame) -> bool {
        self.users.get(&tenant).is_some_and(|users| users.is_presence(frame.key(Key::Channel)))
    }

    /// Entries of all tables.
    pub(super) fn entries(&self) -> usize {
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
    fn users_are_remembered_up_to_a_number_and_go_with_their_organization() {
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
