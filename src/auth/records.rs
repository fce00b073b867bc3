//! The rows credentials are made of, and the face of whatever keeps them.
//!
//! * [`Records::commit`] returns after the rows survive a crash (fsync); memory changes only afterwards.
//! * One commit is all or nothing.
//! * A tenant's number is never used again, so nothing that outlives an organization can speak for its successor.

use std::future::Future;
use std::pin::Pin;

use super::scope::ScopeSet;
use crate::filter::Narrowing;
use crate::ids::TenantId;

/// Who sees an event with `user_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// That user, and principals with `read:all`.
    #[default]
    User,
    /// Every principal of the organization.
    Org,
}

impl Visibility {
    /// Whether everyone of the organization sees everyone's events.
    #[must_use]
    pub const fn shows_all(self) -> bool {
        matches!(self, Visibility::Org)
    }
}

/// One organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationRow {
    /// Given once, never again.
    pub tenant: TenantId,
    /// The public id.
    pub id: String,
    /// For people; may be empty.
    pub name: String,
    /// See [`Visibility`].
    pub visibility: Visibility,
    /// Unix milliseconds.
    pub created_at_ms: u64,
}

/// One API key. The secret itself is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Whose.
    pub tenant: TenantId,
    /// The public part.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
    /// For people; may be empty.
    pub name: String,
    /// What it may do.
    pub scopes: ScopeSet,
    /// What it may touch.
    pub narrowing: Narrowing,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds; `None`: does not expire.
    pub expires_at_ms: Option<u64>,
    /// Unix milliseconds, up to a minute late; `None`: never used.
    pub last_used_ms: Option<u64>,
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new or changed organization.
    PutOrganization(OrganizationRow),
    /// The organization and all its rows (keys, revocations, disabled users); its events go within 24 h.
    DeleteOrganization(TenantId),
    /// A new or changed key.
    PutKey(KeyRow),
    /// A key is gone.
    DeleteKey(TenantId, String),
    /// A token is revoked; the row may go after `until_ms` (`None`: never).
    Revoke {
        /// Whose.
        tenant: TenantId,
        /// The token's `jti`.
        jti: String,
        /// Unix milliseconds.
        until_ms: Option<u64>,
    },
    /// A revocation whose token has expired anyway.
    ForgetRevocation(TenantId, String),
    /// A user is disabled, or no longer.
    SetDisabled {
        /// Whose.
        tenant: TenantId,
        /// The user.
        sub: String,
        /// The new state.
        disabled: bool,
    },
}

/// Everything, as read at start.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The next [`TenantId`] nobody ever had.
    pub next_tenant: u64,
    /// Every organization.
    pub organizations: Vec<OrganizationRow>,
    /// Every key.
    pub keys: Vec<KeyRow>,
    /// (tenant, jti, until).
    pub revocations: Vec<(TenantId, String, Option<u64>)>,
    /// (tenant, sub).
    pub disabled: Vec<(TenantId, String)>,
}

/// The keeper failed; the text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RecordsError(pub String);

/// A commit under way.
pub type Commit<'a> = Pin<Box<dyn Future<Output = Result<(), RecordsError>> + Send + 'a>>;

/// Keeper of the rows.
pub trait Records: Send + Sync {
    /// Reads everything; called once, at start.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn load(&self) -> Result<Snapshot, RecordsError>;

    /// Writes all of `writes` or none, and returns once they are safe.
    fn commit(&self, writes: Vec<Write>) -> Commit<'_>;
}
