//! The stored rows of `auth`, and the interface of the store that keeps them.
//!
//! * [`Records::commit`] returns after the rows are synced and survive a crash. Memory changes only
//!   afterwards.
//! * A commit is atomic.
//! * A tenant's number is never used again, so a credential that outlives its organization has no rights in
//!   the next one.

use std::future::Future;
use std::pin::Pin;

use crate::auth::error::RecordsError;
use crate::auth::rights::scope::ScopeSet;
use crate::filter::Narrowing;
use crate::ids::TenantId;
pub use crate::store::Visibility;
use crate::store::{Rows, key_digest};

/// One organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Assigned once and never used again.
    pub tenant: TenantId,
    /// The public id.
    pub id: String,
    /// Display name; may be empty.
    pub name: String,
    /// Which users see which events; see [`Visibility`].
    pub visibility: Visibility,
    /// Whether the organization gets presence events (which of its users are connected).
    pub presence: bool,
    /// Unix milliseconds.
    pub created_at_ms: u64,
}

impl Organization {
    /// Returns a number that changes with the name, visibility and presence setting. It is below 2^53,
    /// because clients may read numbers as doubles.
    #[must_use]
    pub fn version(&self) -> u64 {
        let flags = [u8::from(self.visibility == Visibility::Org), u8::from(self.presence)];
        let born = self.created_at_ms.to_be_bytes();
        let digest = key_digest(&[self.id.as_bytes(), &born, self.name.as_bytes(), &flags]);
        let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*first) >> 11
    }
}

/// One API key. The secret itself is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The organization of the key.
    pub tenant: TenantId,
    /// The public part of the key.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
    /// Display name; may be empty.
    pub name: String,
    /// What the key may do.
    pub scopes: ScopeSet,
    /// What the key is limited to.
    pub narrowing: Narrowing,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds; `None`: the key does not expire.
    pub expires_at_ms: Option<u64>,
    /// Unix milliseconds, up to a minute late; `None`: never used.
    pub last_used_ms: Option<u64>,
}

/// One change in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// Creates or changes an organization.
    PutOrganization(Organization),
    /// Deletes the organization and all its rows (keys, revocations, disabled users). Its events are deleted
    /// within 24 h.
    DeleteOrganization(Organization),
    /// Creates or changes a key.
    PutKey(KeyRow),
    /// Deletes a key.
    DeleteKey(TenantId, String),
    /// Revokes a token. The row may be deleted after `until_ms` (`None`: never).
    Revoke {
        /// The organization.
        tenant: TenantId,
        /// The token's `jti`.
        jti: String,
        /// Unix milliseconds.
        until_ms: Option<u64>,
    },
    /// Deletes a revocation whose token has expired.
    ForgetRevocation(TenantId, String),
    /// Ends a user's older tokens.
    EndTokens {
        /// The organization.
        tenant: TenantId,
        /// The user.
        sub: String,
        /// Unix milliseconds. Tokens that were issued earlier are invalid.
        since_ms: u64,
    },
    /// Deletes an end of tokens that have all expired.
    ForgetEnd(TenantId, String),
    /// Disables or enables a user.
    SetDisabled {
        /// The organization.
        tenant: TenantId,
        /// The user.
        sub: String,
        /// The new state.
        disabled: bool,
    },
}

/// All rows, as read at start.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The next unused [`TenantId`].
    pub next_tenant: u64,
    /// Number of keys that this start rewrote with the current scopes.
    pub rewritten_keys: usize,
    /// All organizations.
    pub organizations: Vec<Organization>,
    /// All keys.
    pub keys: Vec<KeyRow>,
    /// Revoked tokens: (tenant, `jti`, until when, in Unix milliseconds).
    pub revocations: Vec<(TenantId, String, Option<u64>)>,
    /// Disabled users: (tenant, `sub`).
    pub disabled: Vec<(TenantId, String)>,
    /// Ends of tokens: (tenant, `sub`, since when, in Unix milliseconds).
    pub ended: Vec<(TenantId, String, u64)>,
}

/// The future of a commit.
pub type CommitFuture<'a> = Pin<Box<dyn Future<Output = Result<(), RecordsError>> + Send + 'a>>;

/// The store of the rows.
pub trait Records: Send + Sync {
    /// Reads all rows. Called once, at start.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn load(&self) -> Result<Snapshot, RecordsError>;

    /// Writes all of `writes` and `beside` (a caller's own rows, such as an idempotency row) or none of them.
    /// Returns once they are synced. After the first poll the write continues even if the future is dropped.
    fn commit(&self, writes: Vec<RecordChange>, beside: Rows) -> CommitFuture<'_>;
}
