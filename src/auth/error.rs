//! Why a credential, a change or the set-up was refused or failed.
//!
//! * The peer learns only the class (401, 403, 429): every [`CredentialError`] is the same 401, so an unknown
//!   organization looks like a wrong signature.
//! * No variant contains any part of a credential.

use crate::store::ReadError;

/// The result of a failed authentication. Only `error_response` maps it to a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401 with `WWW-Authenticate`.
    #[error("credential refused: {0}")]
    Unauthorized(CredentialError),
    /// 403: the credential is valid, but not from this origin or not for this request.
    #[error("{0}")]
    Forbidden(ForbiddenUse),
    /// 429: the address has had too many failures this minute.
    #[error("too many failed credentials")]
    TooManyFailures {
        /// `Retry-After` in seconds, at least 1.
        retry_after: u64,
    },
}

/// Why a credential was refused. For debug logs and counters, never for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialError {
    /// The request has no credential. This does not count as a failure.
    #[error("no credential")]
    Absent,
    /// The credential has no known format.
    #[error("malformed")]
    Malformed,
    /// The credential is longer than any valid one.
    #[error("too long")]
    TooLong,
    /// The token's `alg` is not the key's algorithm.
    #[error("algorithm mismatch")]
    Algorithm,
    /// No key has this name, or the token has no `kid` and there is no default key.
    #[error("unknown key")]
    UnknownKey,
    /// The signature, secret or ticket is not genuine.
    #[error("not genuine")]
    NotGenuine,
    /// The credential has expired.
    #[error("expired")]
    Expired,
    /// The token is valid for longer than `auth.max_token_seconds` allows, or has already reached that age.
    #[error("lives longer than auth.max_token_seconds")]
    Lifetime,
    /// `nbf` or `iat` is in the future.
    #[error("not valid yet")]
    NotYet,
    /// `iss` is not the key's issuer.
    #[error("wrong issuer")]
    Issuer,
    /// `aud` does not name this daemon.
    #[error("wrong audience")]
    Audience,
    /// A claim is missing or invalid.
    #[error("invalid claims")]
    Claims,
    /// The organization does not exist, or the key may not issue tokens for it.
    #[error("wrong organization")]
    Organization,
    /// The credential was revoked, or its key was deleted.
    #[error("revoked")]
    Revoked,
    /// The user is disabled.
    #[error("user disabled")]
    Disabled,
    /// The one-shot ticket was used, has expired, or never existed.
    #[error("unknown or used ticket")]
    Ticket,
}

/// Why a valid credential is not accepted for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ForbiddenUse {
    /// The page's origin is not allowed.
    #[error("this origin is not allowed")]
    Origin,
    /// A ticket opens streams and reads history. A reconnect ticket opens SSE and polling only.
    #[error(
        "a ticket opens streams and reads history only; send the credential itself in the Authorization header"
    )]
    TicketUse,
}

/// Why the credential of a live connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialEnded {
    /// It has expired: close 4401.
    #[error("credential expired")]
    Expired,
    /// The key or token was revoked: close 4403.
    #[error("credential revoked")]
    Revoked,
    /// The user was disabled: close 4403.
    #[error("user disabled")]
    Disabled,
    /// The organization was deleted: close 4403.
    #[error("organization deleted")]
    OrganizationDeleted,
}

/// Why a live connection did not get a new credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The new credential is not valid. The connection continues with the old one.
    #[error("{0}")]
    Refused(AuthError),
    /// The new credential is valid, but belongs to another organization or user: close 4403.
    #[error("the credential belongs to another organization or user")]
    ChangedIdentity,
}

/// The principal does not have the required scope: 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("needs the scope {0}")]
pub struct MissingScope(pub &'static str);

/// Why this principal may not publish an event: 403 (protocol §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishDenied {
    /// `user_id` is another user's.
    #[error("user_id: acting for another user needs the scope publish:org")]
    OtherUser,
    /// The credential has no user.
    #[error("user_id: a credential without a user needs the scope publish:org")]
    NoUser,
    /// An event of this type goes to the whole organization.
    #[error("type: an event for the whole organization needs the scope publish:org")]
    WholeOrganization,
    /// The event is outside the credential's `agents`, `channels` or `types`.
    #[error("the credential does not cover this event's agent, channel or type")]
    Narrowed,
}

/// Why `Auth` could not be set up. The process exits with the code for bad configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// A key file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The path as configured.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The content of a key file is invalid.
    #[error("{path}: {reason}")]
    KeyFile {
        /// The path as configured.
        path: String,
        /// What is wrong; never the content.
        reason: String,
    },
    /// A configured key is invalid.
    #[error("auth.jwt_keys[{index}]: {reason}")]
    Key {
        /// Index in the list.
        index: usize,
        /// What is wrong; never the secret.
        reason: String,
    },
    /// The configured keys conflict with each other.
    #[error("auth.jwt_keys: {0}")]
    Keys(String),
    /// An entry is not `scheme://host[:port]`.
    #[error("allowed_origins: {0:?} is not an origin")]
    Origin(String),
    /// The stored organizations and keys could not be read.
    #[error("organizations and keys could not be read")]
    Records(#[source] RecordsError),
}

/// Why the store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The commit failed. After a restart its rows may exist or not.
    #[error("the write failed; whether it took place is unknown")]
    Unknown,
    /// The store cannot be read or written now. Nothing was done.
    #[error("the store cannot be used now")]
    Unavailable,
    /// A row is longer than the store allows. Nothing was done.
    #[error("too long to be stored")]
    TooLong,
    /// The organization has already been deleted. Nothing was done.
    #[error("the organization was deleted")]
    Deleted,
    /// The stored rows cannot be read.
    #[error("the stored rows cannot be read")]
    Unreadable,
}

impl From<ReadError> for RecordsError {
    fn from(error: ReadError) -> RecordsError {
        match error {
            ReadError::Unavailable | ReadError::Busy | ReadError::OverShare => RecordsError::Unavailable,
            ReadError::Failed => RecordsError::Unreadable,
        }
    }
}

/// Why an administrative change was not made. Only `error_response` maps it to a status.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The object does not exist or the caller may not see it: 404.
    #[error("not found")]
    NotFound,
    /// The object already exists or is in use: 409.
    #[error("{0}")]
    Conflict(&'static str),
    /// The object has this version, not the version that the caller named: 412.
    #[error("it has changed: its version is {0} now")]
    Changed(u64),
    /// The object would have wider rights than the caller: 403.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A field is invalid: 400.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field's path, such as `scopes[1]`.
        field: String,
        /// What is wrong, as text for a person.
        reason: String,
    },
    /// One more object would exceed a named limit: 409.
    #[error("at most {max} {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
    /// There is no room for one more object at the moment: 429.
    #[error("at most {max} {what}")]
    Full {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
    /// The caller's credential has ended in the meantime: 401.
    #[error("{0}")]
    Ended(#[from] CredentialEnded),
    /// The system returned no random bytes: 500.
    #[error("the system returned no random bytes")]
    Random,
    /// The write failed. It is unknown whether it is on disk: 503.
    #[error("the change could not be written")]
    Records(#[source] RecordsError),
}

impl AdminError {
    pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        AdminError::Invalid { field: field.into(), reason: reason.into() }
    }
}
