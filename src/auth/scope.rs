//! What a principal may do, as a small set.
//!
//! * `*` is the five scopes of an organization; [`Scope::Operate`] stands above organizations and is never part of it.
//! * A role stands for scopes only where a token names none (`permissions.rs`); an unknown role or scope gives nothing.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use super::permissions::Role;

/// One right (protocol §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Publish as oneself.
    Publish = 1,
    /// Publish for any user, or for everyone.
    PublishOrg = 2,
    /// Read events addressed to oneself or to everyone.
    Subscribe = 4,
    /// Read events addressed to others as well.
    ReadAll = 8,
    /// Keys, tokens, users and connections of the own organization.
    Manage = 16,
    /// Organizations themselves: the bootstrap key and the local command line.
    Operate = 32,
}

impl Scope {
    /// Every scope, in the order of their bits.
    pub const ALL: [Scope; 6] =
        [Scope::Publish, Scope::PublishOrg, Scope::Subscribe, Scope::ReadAll, Scope::Manage, Scope::Operate];

    /// The name in tokens and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::PublishOrg => "publish:org",
            Scope::Subscribe => "subscribe",
            Scope::ReadAll => "read:all",
            Scope::Manage => "manage",
            Scope::Operate => "operator",
        }
    }
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// No right at all.
    pub const NONE: ScopeSet = ScopeSet(0);
    /// `*`: every right inside an organization.
    pub const ORGANIZATION: ScopeSet = ScopeSet(31);
    /// What the bootstrap key and the local command line hold.
    pub const OPERATOR: ScopeSet = ScopeSet(63);

    /// These scopes.
    #[must_use]
    pub const fn of(scopes: &[Scope]) -> ScopeSet {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= scopes[at] as u8;
            at += 1;
        }
        ScopeSet(bits)
    }
    /// Whether `scope` is in the set.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }
    /// Whether every scope of `other` is in this set.
    #[must_use]
    pub const fn covers(self, other: ScopeSet) -> bool {
        other.0 & !self.0 == 0
    }
    /// Whether any scope of `other` is in this set.
    #[must_use]
    pub const fn meets(self, other: ScopeSet) -> bool {
        self.0 & other.0 != 0
    }
    /// The set without [`Scope::Operate`]: what may be passed on by a token.
    #[must_use]
    pub const fn without_operator(self) -> ScopeSet {
        ScopeSet(self.0 & ScopeSet::ORGANIZATION.0)
    }
    /// The bits, as stored.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
    /// A stored set; bits this build does not know are dropped: they give nothing.
    #[must_use]
    pub const fn from_bits(bits: u8) -> ScopeSet {
        ScopeSet(bits & ScopeSet::OPERATOR.0)
    }
    /// The names, in the order of [`Scope::ALL`].
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect()
    }

    /// The set of stored names, `operator` included; a name this build does not know gives nothing.
    #[must_use]
    pub(super) fn from_stored(names: &[String]) -> ScopeSet {
        let known = |name: &String| Scope::ALL.into_iter().find(|scope| scope.name() == name);
        names.iter().filter_map(known).map(ScopeSet::from).collect()
    }

    /// What one name in a token's `scopes` gives: `operator` and unknown names give nothing.
    #[must_use]
    pub fn from_claim(name: &str) -> ScopeSet {
        if name == "*" {
            return ScopeSet::ORGANIZATION;
        }
        let known = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        known.map_or(ScopeSet::NONE, |scope| ScopeSet::from(scope).without_operator())
    }

    /// What one name asked for by an administrator means; `None` for a name that is not a scope. `operator` cannot
    /// be asked for.
    #[must_use]
    pub fn from_request(name: &str) -> Option<ScopeSet> {
        Some(ScopeSet::from_claim(name)).filter(|set| *set != ScopeSet::NONE)
    }

    /// What a role stands for where no scopes are named; `None` for a role nobody here knows.
    #[must_use]
    pub fn of_role(role: &str) -> Option<ScopeSet> {
        Role::named(role).map(Role::scopes)
    }
}

impl From<Scope> for ScopeSet {
    fn from(scope: Scope) -> Self {
        ScopeSet(scope as u8)
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
        assert_eq!(star.names(), ["publish", "publish:org", "subscribe", "read:all", "manage"]);
        assert!(!star.has(Scope::Operate));
        assert_eq!(ScopeSet::from_claim("operator"), ScopeSet::NONE);
        assert_eq!(ScopeSet::from_request("operator"), None);
    }

    #[test]
    fn roles_stand_for_their_defaults_and_unknown_ones_for_nothing() {
        assert_eq!(ScopeSet::of_role("admin"), Some(ScopeSet::ORGANIZATION));
        assert_eq!(ScopeSet::of_role("user"), Some(Scope::Publish | Scope::Subscribe));
        assert_eq!(ScopeSet::of_role("readonly"), ScopeSet::of_role("viewer"));
        assert_eq!(ScopeSet::of_role("Admin"), None);
        assert_eq!(ScopeSet::of_role("root"), None);
    }

    #[test]
    fn stored_bits_round_trip_and_unknown_bits_give_nothing() {
        for bits in 0..=u8::MAX {
            let set = ScopeSet::from_bits(bits);
            assert_eq!(ScopeSet::from_bits(set.bits()), set);
            assert!(ScopeSet::OPERATOR.covers(set));
            let by_name: ScopeSet = set.names().into_iter().map(ScopeSet::from_claim).collect();
            assert_eq!(by_name, set.without_operator());
        }
    }
}
