//! A set of deleted users, by which events are found that have to be erased.

use std::collections::HashSet;

use crate::event::presence_channel;

/// Deleted users of one organization.
#[derive(Debug, Default)]
pub(crate) struct DeletedUsers {
    subs: HashSet<Box<str>>,
    /// The channels of their presence events.
    channels: HashSet<Box<str>>,
}

impl DeletedUsers {
    /// Adds a user; returns false if the user was already there.
    pub(crate) fn add(&mut self, sub: &str) -> bool {
        self.subs.insert(sub.into()) && self.channels.insert(presence_channel(sub).into())
    }

    /// Removes a user.
    pub(crate) fn remove(&mut self, sub: &str) {
        self.subs.remove(sub);
        self.channels.remove(presence_channel(sub).as_str());
    }

    pub(crate) fn contains(&self, sub: &str) -> bool {
        self.subs.contains(sub)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.subs.len()
    }

    pub(crate) fn subs(&self) -> impl Iterator<Item = &str> {
        self.subs.iter().map(|sub| &**sub)
    }

    /// Every routing key that an event of these users may have.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.subs().chain(self.channels.iter().map(|channel| &**channel))
    }

    /// Returns true if an event with these routing keys is on behalf of one of the users, or is one's
    /// presence event.
    pub(crate) fn concern(&self, user: Option<&str>, channel: Option<&str>) -> bool {
        user.is_some_and(|user| self.subs.contains(user)) || self.is_presence(channel)
    }

    /// Returns true if `channel` is the one of a user's presence events.
    pub(crate) fn is_presence(&self, channel: Option<&str>) -> bool {
        channel.is_some_and(|channel| self.channels.contains(channel))
    }
}
