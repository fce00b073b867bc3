//! Who a credential stands for.
//!
//! * Only `auth` creates a [`Principal`], and only from a verified credential.
//! * A principal is a snapshot; `Auth::still_valid` says whether it is still valid.
//! * This module does not know connections or logged events.

use std::borrow::Cow;
use std::sync::Arc;

use super::credential::{CredentialId, CredentialSource};
use super::scope::{Scope, ScopeSet};
use crate::filter::{Narrowing, Rights};
use crate::ids::TenantId;
use crate::store::Visibility;

/// Who a verified credential stands for. Only `auth` creates it, and it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// The organization's number, the key of every lookup.
    pub tenant: TenantId,
    /// The organization's public id.
    pub org_id: Arc<str>,
    /// The user's id; `None` for an API key.
    pub sub: Option<Box<str>>,
    /// The roles that the token names. The scopes that they grant are already in `scopes`.
    pub roles: Box<[Box<str>]>,
    /// What the principal may do.
    pub scopes: ScopeSet,
    /// What the principal is limited to.
    pub narrowing: Narrowing,
    /// Expiry in Unix milliseconds: it is invalid from then on. `None`: it does not expire. For a ticket it
    /// is the expiry of the credential that the ticket was made from.
    pub expires_at_ms: Option<u64>,
    /// The credential that is revoked to end this principal. For a ticket it is the credential that the
    /// ticket was made from.
    pub credential: CredentialId,
    /// Where in the request the credential was.
    pub via: CredentialSource,
}

impl Principal {
    /// The command line on a data directory that no daemon has open. It has every scope in every
    /// organization. It belongs to no organization, so it can only administer. Never use it for a request.
    #[must_use]
    pub fn local_operator() -> Arc<Principal> {
        Arc::new(Principal {
            tenant: TenantId(0),
            org_id: "".into(),
            sub: None,
            roles: Box::default(),
            scopes: ScopeSet::OPERATOR,
            narrowing: Narrowing::default(),
            expires_at_ms: None,
            credential: CredentialId::Local,
            via: CredentialSource::Bearer,
        })
    }

    /// Returns what the principal may read now, given its organization's current visibility.
    #[must_use]
    pub fn rights(&self, visibility: Visibility) -> Rights {
        Rights {
            sub: self.sub.clone(),
            sees_all_users: self.scopes.has(Scope::ReadAll) || visibility == Visibility::Org,
            narrowing: self.narrowing.clone(),
        }
    }

    /// The identity that makes a repeated request the same request: the user, or else the key, with the same
    /// narrowing. So a stored response is never repeated to a credential that may not see its contents.
    #[must_use]
    pub fn subject(&self) -> Cow<'_, str> {
        let narrowing = match self.narrowing.is_none() {
            true => String::new(),
            // No `sub` and no key id contains a line feed. A narrowing consists of names, so serializing it
            // cannot fail.
            false => format!("\n{}", serde_json::to_string(&self.narrowing).unwrap_or_default()),
        };
        match (&self.sub, &self.credential) {
            (Some(sub), _) => Cow::Owned(format!("user:{sub}{narrowing}")),
            (None, CredentialId::Key { key_id, .. }) => Cow::Owned(format!("key:{key_id}{narrowing}")),
            (None, CredentialId::Token { .. } | CredentialId::Local) => Cow::Borrowed("local"),
        }
    }

    /// The id of the API key that authenticated the principal, if it was one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        match &self.credential {
            CredentialId::Key { key_id, .. } => Some(key_id),
            CredentialId::Token { .. } | CredentialId::Local => None,
        }
    }

    /// The rate at which this principal may publish and write, over all of its connections: `limit`, or 0 (no
    /// limit) for a principal that may publish for the whole organization. Only services have that right.
    #[must_use]
    pub fn publish_rate(&self, limit: u64) -> u64 {
        if self.scopes.has(Scope::PublishOrg) { 0 } else { limit }
    }

    /// Returns true if the principal may change and delete an agent or tool with this owner. Without an
    /// owner, that needs the scope `agents`.
    #[must_use]
    pub fn may_change_owned_by(&self, owner: Option<&str>) -> bool {
        let owns = owner.is_some() && owner == self.sub.as_deref();
        self.scopes.has(Scope::Agents) || (owns && self.scopes.has(Scope::Write))
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::rights::authorized::tests::principal;

    #[test]
    fn owners_with_write_and_anyone_with_agents_may_change_an_agent() {
        for (scopes, sub, owner, allowed) in [
            (["write"], Some("ann"), Some("ann"), true),
            (["write"], Some("ann"), Some("bob"), false),
            (["write"], Some("ann"), None, false),
            (["write"], None, None, false),
            (["publish:org"], Some("ann"), Some("ann"), false),
            (["agents"], Some("ann"), Some("bob"), true),
            (["agents"], None, None, true),
        ] {
            let may = principal(&scopes, sub, "{}").may_change_owned_by(owner);
            assert_eq!(may, allowed, "{scopes:?} {sub:?} {owner:?}");
        }
    }
}
