//! Which credential a principal presented, and where in the request it was.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where in a request the credential was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CredentialSource {
    /// `Authorization: Bearer`.
    Bearer,
    /// `X-API-Key`.
    ApiKeyHeader,
    /// `?ticket=`.
    Ticket,
    /// `?token=`.
    Query,
    /// The cookie.
    Cookie,
}

/// Identifies a credential. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialId {
    /// An API key.
    Key {
        /// The key id.
        key_id: Arc<str>,
        /// Unix milliseconds at which the key made a ticket in the name of a user; 0 if the key itself was
        /// presented.
        issued_at_ms: u64,
    },
    /// A JWT.
    Token {
        /// The key that verified it.
        key: KeyDigest,
        /// Its `jti`, by which it is revoked.
        jti: Option<Box<str>>,
        /// Unix milliseconds; 0 if the token does not say.
        issued_at_ms: u64,
        /// True if it was issued for a password: it stands for a registered user, who outlasts the token.
        session: bool,
    },
    /// The command line with direct access to the data directory.
    Local,
}

/// Identifies a verifying key by its `kid`, material, issuer and audience. A session records it to find the
/// key again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyDigest(u64); // 8 bytes, because every session of a token holds one

impl KeyDigest {
    /// The digest as a number, for use in text.
    pub(in crate::auth) const fn number(self) -> u64 {
        self.0
    }
    /// Returns the digest for a value of [`KeyDigest::number`].
    pub(in crate::auth) const fn of_number(number: u64) -> KeyDigest {
        KeyDigest(number)
    }
}
