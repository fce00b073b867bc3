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
pub use crate::store::Visibility;
use crate::store::{Rows, scope};

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
    /// Whether it is told which of its users are connected.
    pub presence: bool,
    /// Unix milliseconds.
    pub created_at_ms: u64,
}

impl OrganizationRow {
    /// Another number for another name, visibility or presence. Below 2^53: clients' numbers may be doubles.
    #[must_use]
    pub fn version(&self) -> u64 {
        let flags = [u8::from(self.visibility == Visibility::Org), u8::from(self.presence)];
        let born = self.created_at_ms.to_be_bytes();
        let digest = scope(&[self.id.as_bytes(), &born, self.name.as_bytes(), &flags]);
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*first) >> 11
    }
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
    DeleteOrganization(OrganizationRow),
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
    /// A user's older tokens are good no more.
    EndTokens {
        /// Whose.
        tenant: TenantId,
        /// The user.
        sub: String,
        /// Unix milliseconds: what was issued earlier is over.
        since_ms: u64,
    },
    /// An end of tokens that have all expired anyway.
    ForgetEnd(TenantId, String),
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
    /// How many keys this start wrote out in today's scopes.
    pub rewritten_keys: usize,
    /// Every organization.
    pub organizations: Vec<OrganizationRow>,
    /// Every key.
    pub keys: Vec<KeyRow>,
    /// (tenant, jti, until).
    pub revocations: Vec<(TenantId, String, Option<u64>)>,
    /// (tenant, sub).
    pub disabled: Vec<(TenantId, String)>,
    /// (tenant, sub, since).
    pub ended: Vec<(TenantId, String, u64)>,
}

/// Why the keeper failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The commit failed; it may be found done after a restart, or not.
    #[error("the write failed; whether it took place is unknown")]
    Unknown,
    /// Nothing is read or written now; nothing was done.
    #[error("the store cannot be used now")]
    Unavailable,
    /// A row is longer than can be stored; nothing was done.
    #[error("too long to be stored")]
    TooLong,
    /// The organization was deleted before; nothing was done.
    #[error("the organization was deleted")]
    Deleted,
    /// The stored rows cannot be read.
    #[error("the stored rows cannot be read")]
    Unreadable,
}

/// A commit under way.
pub type Commit<'a> = Pin<Box<dyn Future<Output = Result<(), RecordsError>> + Send + 'a>>;

/// Keeper of the rows.
pub trait Records: Send + Sync {
    /// Reads everything; called once, at start.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn load(&self) -> Result<Snapshot, RecordsError>;

    /// Writes all of `writes` and `beside` (a caller's own rows, such as an idempotency row) or none, and returns once
    /// they are safe. The write is under way after the first poll, whether or not the future is kept.
    fn commit(&self, writes: Vec<Write>, beside: Rows) -> Commit<'_>;
}
