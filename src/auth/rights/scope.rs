//! Scopes: what a principal may do, as a small set.
//!
//! * `*` is the eight scopes of an organization. [`Scope::Operate`] is above organizations and never part of
//!   it.
//! * A role grants scopes only if the token has none (`permissions.rs`). An unknown role or scope grants
//!   nothing.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// One scope (protocol §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum Scope {
    /// Publish events in one's own name.
    Publish = 1,
    /// Publish and write for any user, or for everyone.
    PublishOrg = 2,
    /// Read events and resources that are addressed to oneself or to everyone.
    Subscribe = 4,
    /// Read what is addressed to other users as well.
    ReadAll = 8,
    /// Manage keys, tokens, users and connections of the own organization.
    Manage = 16,
    /// Manage organizations: for the bootstrap key and the offline command line.
    Operate = 32,
    /// Write messages, memories and core memory in one's own name, and the agents and tools that one owns.
    Write = 64,
    /// Write any agent and any tool of the organization.
    Agents = 128,
    /// Mint tokens and tickets for users, with at most [`ScopeSet::MINTABLE`].
    Mint = 256,
}

impl Scope {
    /// All scopes, in the order in which documents and responses list them.
    pub const ALL: [Scope; 9] = [
        Scope::Subscribe,
        Scope::Publish,
        Scope::Write,
        Scope::Agents,
        Scope::PublishOrg,
        Scope::ReadAll,
        Scope::Mint,
        Scope::Manage,
        Scope::Operate,
    ];
    /// The scopes that a request may ask for, as error texts list them: every scope but `operator`, and `*`.
    pub const REQUESTABLE: &str =
        "subscribe, publish, write, agents, publish:org, read:all, mint, manage or * (all of these)";

    /// The name in tokens and responses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::PublishOrg => "publish:org",
            Scope::Subscribe => "subscribe",
            Scope::ReadAll => "read:all",
            Scope::Manage => "manage",
            Scope::Operate => "operator",
            Scope::Write => "write",
            Scope::Agents => "agents",
            Scope::Mint => "mint",
        }
    }
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u16);

impl ScopeSet {
    /// No scopes.
    pub const NONE: ScopeSet = ScopeSet(0);
    /// `*`: every scope inside an organization.
    pub const ORGANIZATION: ScopeSet = ScopeSet(Self::OPERATOR.0 & !(Scope::Operate as u16));
    /// The scopes of the bootstrap key and the offline command line.
    pub const OPERATOR: ScopeSet = ScopeSet::of(&Scope::ALL);
    /// The most that [`Scope::Mint`] can grant: what a user has by their role.
    pub const MINTABLE: ScopeSet = ScopeSet::of(&[Scope::Subscribe, Scope::Publish, Scope::Write]);
    /// The meaning of `*` before [`Scope::Write`], [`Scope::Agents`] and [`Scope::Mint`] were scopes of their
    /// own.
    const OLD_ORGANIZATION: ScopeSet =
        ScopeSet::of(&[Scope::Subscribe, Scope::Publish, Scope::PublishOrg, Scope::ReadAll, Scope::Manage]);

    /// The most that a ticket grants. A ticket is part of a URL, which others may log.
    pub const OF_TICKETS: ScopeSet = ScopeSet::of(&[Scope::Subscribe, Scope::ReadAll]);

    /// Returns the set of these scopes.
    #[must_use]
    pub const fn of(scopes: &[Scope]) -> ScopeSet {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= scopes[at] as u16;
            at += 1;
        }
        ScopeSet(bits)
    }
    /// Returns true if `scope` is in the set.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope as u16 != 0
    }
    /// Returns true if every scope of `other` is in this set.
    #[must_use]
    pub const fn covers(self, other: ScopeSet) -> bool {
        other.0 & !self.0 == 0
    }
    /// Returns true if any scope of `other` is in this set.
    #[must_use]
    pub const fn intersects(self, other: ScopeSet) -> bool {
        self.0 & other.0 != 0
    }
    /// The scopes that are in both sets.
    #[must_use]
    pub const fn and(self, other: ScopeSet) -> ScopeSet {
        ScopeSet(self.0 & other.0)
    }
    /// The set without [`Scope::Operate`], which a token cannot pass on.
    #[must_use]
    pub const fn without_operator(self) -> ScopeSet {
        ScopeSet(self.0 & ScopeSet::ORGANIZATION.0)
    }
    /// The bits, as stored.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
    /// Reads a stored set. Bits that this version does not know are ignored.
    #[must_use]
    pub const fn from_bits(bits: u16) -> ScopeSet {
        ScopeSet(bits & ScopeSet::OPERATOR.0)
    }
    /// The names, in the order of [`Scope::ALL`].
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect()
    }

    /// The current scopes of an API key that was stored with these scopes when publishing still included
    /// writing any agent, tool, message and memory. An administrator gave the key to a service, so it keeps
    /// all of these rights.
    #[must_use]
    pub(in crate::auth) fn of_old_key(self) -> ScopeSet {
        let wrote = match self.intersects(Scope::Publish | Scope::PublishOrg) {
            true => Scope::Write | Scope::Agents,
            false => ScopeSet::NONE,
        };
        self | wrote | self.all_of_old()
    }

    /// The current scopes of a token that this daemon minted with these scopes at that time. From now on a
    /// user's token writes in the user's name. Only tokens that may publish for everyone still write
    /// everybody's agents and tools.
    #[must_use]
    pub(in crate::auth) fn of_old_token(self) -> ScopeSet {
        let wrote = match (self.has(Scope::PublishOrg), self.has(Scope::Publish)) {
            (true, _) => Scope::Write | Scope::Agents,
            (false, true) => Scope::Write.into(),
            (false, false) => ScopeSet::NONE,
        };
        self | wrote | self.all_of_old()
    }

    /// Returns all current scopes for a set that had all scopes of that time, else no scopes.
    fn all_of_old(self) -> ScopeSet {
        match self.covers(ScopeSet::OLD_ORGANIZATION) {
            true => ScopeSet::ORGANIZATION,
            false => ScopeSet::NONE,
        }
    }

    /// Reads a set of stored names, including `operator`. A name that this version does not know grants
    /// nothing.
    #[must_use]
    pub(in crate::auth) fn from_stored(names: &[String]) -> ScopeSet {
        let known = |name: &String| Scope::ALL.into_iter().find(|scope| scope.name() == name);
        names.iter().filter_map(known).map(ScopeSet::from).collect()
    }

    /// The scopes that one name in a token's `scopes` grants. `operator` and unknown names grant nothing.
    #[must_use]
    pub fn from_claim(name: &str) -> ScopeSet {
        if name == "*" {
            return ScopeSet::ORGANIZATION;
        }
        let known = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        known.map_or(ScopeSet::NONE, |scope| ScopeSet::from(scope).without_operator())
    }

    /// The scopes that an administrator requests by one name; `None` for a name that is not a scope.
    /// `operator` cannot be requested.
    #[must_use]
    pub fn from_request(name: &str) -> Option<ScopeSet> {
        Some(ScopeSet::from_claim(name)).filter(|set| *set != ScopeSet::NONE)
    }
}

impl From<Scope> for ScopeSet {
    fn from(scope: Scope) -> Self {
        ScopeSet(scope as u16)
    }
}
impl<T: Into<ScopeSet>> BitOr<T> for ScopeSet {
    type Output = ScopeSet;
    fn bitor(self, other: T) -> ScopeSet {
        ScopeSet(self.0 | other.into().0)
    }
}
impl BitOr for Scope {
    type Output = ScopeSet;
    fn bitor(self, other: Scope) -> ScopeSet {
        ScopeSet::from(self) | other
    }
}
impl BitOrAssign for ScopeSet {
    fn bitor_assign(&mut self, other: ScopeSet) {
        self.0 |= other.0;
    }
}
impl FromIterator<ScopeSet> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = ScopeSet>>(sets: I) -> Self {
        sets.into_iter().fold(ScopeSet::NONE, |all, set| all | set)
    }
}
impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_everything_but_operator() {
        let star = ScopeSet::from_claim("*");
        let names = ["subscribe", "publish", "write", "agents", "publish:org", "read:all", "mint", "manage"];
        assert_eq!(star.names(), names);
        assert_eq!(Scope::REQUESTABLE, format!("{} or * (all of these)", names.join(", ")));
        assert!(!star.has(Scope::Operate));
        assert_eq!(ScopeSet::from_claim("operator"), ScopeSet::NONE);
        assert_eq!(ScopeSet::from_request("operator"), None);
    }

    #[test]
    fn stored_bits_round_trip_and_unknown_bits_are_ignored() {
        for bits in 0..=0x3ff {
            let set = ScopeSet::from_bits(bits);
            assert_eq!(ScopeSet::from_bits(set.bits()), set);
            assert!(ScopeSet::OPERATOR.covers(set));
            let by_name: ScopeSet = set.names().into_iter().map(ScopeSet::from_claim).collect();
            assert_eq!(by_name, set.without_operator());
        }
    }

    #[test]
    fn scopes_granted_before_the_write_scope_keep_their_rights() {
        let set = |names: &str| names.split_whitespace().map(ScopeSet::from_claim).collect::<ScopeSet>();
        let star = "subscribe publish publish:org read:all manage";
        for (old, key, token) in [
            ("subscribe", "subscribe", "subscribe"),
            ("subscribe publish", "subscribe publish write agents", "subscribe publish write"),
            ("publish:org", "publish:org write agents", "publish:org write agents"),
            ("read:all manage", "read:all manage", "read:all manage"),
            (star, "*", "*"),
        ] {
            assert_eq!((set(old).of_old_key(), set(old).of_old_token()), (set(key), set(token)), "{old}");
            assert_eq!(set(key).of_old_key(), set(key), "a second time changes nothing: {old}");
        }
        let operator = ScopeSet::OLD_ORGANIZATION | Scope::Operate;
        assert_eq!(operator.of_old_key(), ScopeSet::OPERATOR);
    }
}
