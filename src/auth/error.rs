//! Why a credential was not taken, once for whoever must answer and once for the log.
//!
//! * The peer learns the class (401, 403, 429) and nothing else: every [`Refusal`] is the same 401, so an unknown
//!   organization looks like a wrong signature.
//! * No variant carries any part of a credential.

/// What the answer is. `outcome` alone turns it into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401 + `WWW-Authenticate`.
    #[error("credential refused: {0}")]
    Unauthorized(Refusal),
    /// 403: the credential is valid, but not from here or not for this.
    #[error("{0}")]
    Forbidden(Forbidden),
    /// 429: the address has failed too often this minute.
    #[error("too many failed credentials")]
    TooManyFailures {
        /// Seconds, at least 1: the `Retry-After`.
        retry_after: u64,
    },
}

/// Why a credential authenticates nobody: for debug logs and counters, never for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The request presents none; this is not counted as a failure.
    #[error("none presented")]
    Absent,
    /// It has no known form.
    #[error("malformed")]
    Malformed,
    /// It is longer than any valid one.
    #[error("too long")]
    TooLong,
    /// The token's `alg` is not the key's.
    #[error("algorithm mismatch")]
    Algorithm,
    /// No key of that name, or a token without `kid` and no default key.
    #[error("unknown key")]
    UnknownKey,
    /// The signature, secret or ticket is not genuine.
    #[error("not genuine")]
    NotGenuine,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It would hold for longer than `auth.max_token_seconds` allows, or has done so already.
    #[error("lives longer than auth.max_token_seconds")]
    Lifetime,
    /// `nbf` or `iat` lies in the future.
    #[error("not valid yet")]
    NotYet,
    /// `iss` is not the key's issuer.
    #[error("wrong issuer")]
    Issuer,
    /// `aud` does not name this daemon.
    #[error("wrong audience")]
    Audience,
    /// A claim is missing or unusable.
    #[error("unusable claims")]
    Claims,
    /// The organization does not exist, or the key may not speak for it.
    #[error("wrong organization")]
    Organization,
    /// Revoked, or its key has gone.
    #[error("revoked")]
    Revoked,
    /// The user is disabled.
    #[error("user disabled")]
    Disabled,
    /// A one-shot ticket that was used, ran out, or never was.
    #[error("unknown or spent ticket")]
    Ticket,
}

/// Why a valid credential does not count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    /// The page's origin is not allowed.
    #[error("this origin is not allowed")]
    Origin,
    /// A ticket opens streams and reads history; one for reconnecting opens SSE and polling only.
    #[error(
        "a ticket opens streams and reads history only; send the credential itself in the Authorization header"
    )]
    TicketUse,
}

/// Why a live connection's credential no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Ended {
    /// Its time is over: close 4401.
    #[error("credential expired")]
    Expired,
    /// Key or token revoked: close 4403.
    #[error("credential revoked")]
    Revoked,
    /// The user was disabled: close 4403.
    #[error("user disabled")]
    Disabled,
    /// The organization was deleted: close 4403.
    #[error("organization deleted")]
    OrganizationDeleted,
}

/// Why a live connection keeps its old credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The new credential is not valid: the connection goes on with the old one.
    #[error("{0}")]
    Refused(AuthError),
    /// It is valid, but of another organization or user: close 4403.
    #[error("the credential is of another organization or user")]
    ChangedIdentity,
}

/// The principal lacks the scope for what it asked: 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("needs the scope {0}")]
pub struct MissingScope(pub &'static str);

/// Why an event may not be published by this principal: 403 (protocol §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishDenied {
    /// `user_id` of someone else.
    #[error("user_id: only your own, without the scope publish:org")]
    OtherUser,
    /// The credential stands for no user.
    #[error("user_id: this credential has no user, and needs the scope publish:org")]
    NoUser,
    /// The type goes to the whole organization.
    #[error("type: addressed to the whole organization, which needs the scope publish:org")]
    WholeOrganization,
    /// Outside the credential's `agents`, `channels` or `types`.
    #[error("the credential does not extend to this event's agent, channel or type")]
    Narrowed,
}

/// Why `Auth` could not be set up: exit code of bad configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// A key file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// As configured.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key file's content is unusable.
    #[error("{path}: {reason}")]
    KeyFile {
        /// As configured.
        path: String,
        /// What is wrong; never the content.
        reason: String,
    },
    /// A configured key is unusable.
    #[error("auth.jwt_keys[{index}]: {reason}")]
    Key {
        /// Position in the list.
        index: usize,
        /// What is wrong; never the secret.
        reason: String,
    },
    /// The configured keys do not go together.
    #[error("auth.jwt_keys: {0}")]
    Keys(String),
    /// Not `scheme://host[:port]`.
    #[error("allowed_origins: {0:?} is no origin")]
    Origin(String),
    /// The stored organizations and keys could not be read.
    #[error("reading organizations and keys")]
    Records(#[source] super::records::RecordsError),
}
