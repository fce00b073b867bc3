//! Notice of a change that can end live principals.

use crate::ids::TenantId;

/// A change that can end live principals or change their rights. The hooks are called after memory was
/// updated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthChange {
    /// An API key was deleted.
    KeyRevoked(TenantId, String),
    /// A token was revoked.
    TokenRevoked(TenantId, String),
    /// A user was disabled (`true`) or enabled again (`false`).
    UserDisabled(TenantId, String, bool),
    /// A user's older tokens were ended: the password or role changed, or the user was deleted.
    TokensEnded(TenantId, String),
    /// The organization was deleted.
    OrganizationDeleted(TenantId),
    /// The organization's `visibility` changed: the rights of its principals must be computed again.
    VisibilityChanged(TenantId),
    /// The organization's presence setting changed to this value. No rights change.
    PresenceChanged(TenantId, bool),
    /// The verifying keys were read again: the key of any organization's tokens may have been removed.
    KeysReloaded,
}

impl AuthChange {
    /// The organization whose principals are affected; `None`: all organizations.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            AuthChange::KeyRevoked(tenant, _)
            | AuthChange::TokenRevoked(tenant, _)
            | AuthChange::UserDisabled(tenant, ..)
            | AuthChange::TokensEnded(tenant, _)
            | AuthChange::OrganizationDeleted(tenant)
            | AuthChange::PresenceChanged(tenant, _)
            | AuthChange::VisibilityChanged(tenant) => Some(*tenant),
            AuthChange::KeysReloaded => None,
        }
    }
}
