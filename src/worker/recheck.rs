//! A recheck of rights: the users, keys and tokens of an organization that changed.
//!
//! Changes that come while a recheck waits are added to it, so at most one recheck of an organization waits,
//! however many changes there were.

use std::collections::{HashSet, VecDeque};

use crate::auth::{AuthChange, CredentialId, Principal};
use crate::ids::TenantId;

use super::connection_index::{ConnectionIndex, Owner, OwnerTag};

/// The most users, keys and tokens of an organization that wait for a recheck by name. With more, the whole
/// organization is rechecked.
const NAMED: usize = 1_024;

/// The users, keys and tokens of an organization whose rights have changed.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    everyone: bool,
    users: HashSet<Box<str>>,
    keys: HashSet<Box<str>>,
    tokens: HashSet<Box<str>>,
}

impl Recheck {
    /// Adds what `change` concerns.
    pub(super) fn add(&mut self, change: &AuthChange) {
        match change {
            AuthChange::KeyRevoked(_, key) => drop(self.keys.insert(key.as_str().into())),
            AuthChange::TokenRevoked(_, jti) => drop(self.tokens.insert(jti.as_str().into())),
            AuthChange::UserDisabled(_, sub, _) | AuthChange::TokensEnded(_, sub) => {
                self.users.insert(sub.as_str().into());
            }
            _ => self.everyone = true,
        }
        if self.everyone || self.users.len() + self.keys.len() + self.tokens.len() > NAMED {
            *self = Recheck { everyone: true, ..Recheck::default() };
        }
    }

    /// Returns true if the rights of `principal`, of this organization, may have changed.
    pub(super) fn concerns(&self, principal: &Principal) -> bool {
        let token = || match &principal.credential {
            CredentialId::Token { jti, .. } => jti.as_deref(),
            _ => None,
        };
        self.everyone
            || principal.sub.as_ref().is_some_and(|sub| self.users.contains(sub))
            || principal.key_id().is_some_and(|key| self.keys.contains(key))
            || principal.made_by_user().is_some_and(|sub| self.users.contains(sub.as_str()))
            || (!self.tokens.is_empty() && token().is_some_and(|jti| self.tokens.contains(jti)))
    }

    /// Returns true if a key that was deleted issued the credential, for any organization.
    pub(super) fn concerns_made(&self, principal: &Principal) -> bool {
        !self.keys.is_empty() && principal.made_by_key().is_some_and(|key| self.keys.contains(key))
    }

    /// Returns the owners whose connections are checked. A `jti` has no index of its own, so it stands for
    /// its organization.
    pub(super) fn owners(&self, index: &ConnectionIndex, tenant: TenantId) -> VecDeque<OwnerTag> {
        let made_by_keys = self.keys.iter().map(|key| Owner::MadeByKey(key));
        let all = (self.everyone || !self.tokens.is_empty()).then_some(Owner::Organization(tenant));
        let users =
            self.users.iter().flat_map(|sub| [Owner::User(tenant, sub), Owner::MadeByUser(tenant, sub)]);
        let keys = self.keys.iter().map(|key| Owner::Key(tenant, key));
        let named = users.chain(keys).filter(|_| all.is_none());
        all.into_iter().chain(named).chain(made_by_keys).map(|owner| index.tag(owner)).collect()
    }
}
