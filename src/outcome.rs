//! The only place that maps an error to a status, a code and a message for the client.
//!
//! Messages for clients are written here or come from the display text of a typed error. Inner errors (IO,
//! sled) are logged and never sent to clients.

use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::{AdminError, AuthError, Ended, MissingScope, PasswordError, PublishDenied, TooMany};
use crate::close::Close;
use crate::connection::admission::Refused;
use crate::connection::rate::OverRate;
use crate::connection::shares::Full;
use crate::event::EventError;
use crate::filter::FilterError;
use crate::resource::ResourceError;
use crate::resource::users::UserError;
use crate::store::{CommitError, OverQuota, ReadError};
use crate::tenant::publish::PublishError;

/// Seconds that a client should wait if nothing better is known.
const RETRY_SECONDS: u64 = 1;
/// Seconds that a client should wait when its organization has reached its quota. Space becomes free only
/// when somebody deletes data, or when idempotency rows expire after a day.
const FULL_RETRY_SECONDS: u64 = 60;

/// An error response.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Error code, in capitals.
    pub code: &'static str,
    /// Message for people.
    pub message: String,
    /// More information for programs, or `null`.
    pub details: Value,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// `Allow`, for a 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// Creates a refusal without details.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            code,
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            allow: None,
        }
    }
    /// 400 `BAD_REQUEST`.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }
    /// 400 `VALIDATION_ERROR`, with the name of the field.
    pub fn invalid(field: &str, reason: &str) -> Refusal {
        let message = if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") };
        let details = json!({"field": field, "reason": reason});
        Refusal { details, ..Refusal::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message) }
    }
    /// 404. What does not exist and what belongs to others look the same.
    #[must_use]
    pub fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "not found")
    }
    /// 403 `FORBIDDEN`.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }
    /// 409 `CONFLICT`.
    pub fn conflict(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, "CONFLICT", message)
    }
    /// 405 with the allowed methods.
    #[must_use]
    pub fn method(allow: &'static str) -> Refusal {
        let message = format!("method not allowed; allowed: {allow}");
        let code = "METHOD_NOT_ALLOWED";
        Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, code, message) }
    }
    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Refusal {
        let message = format!("the body is over {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }
    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message);
        Refusal { retry_after: Some(RETRY_SECONDS), ..refusal }
    }
    /// 412, with the current version.
    fn changed(message: String, version: u64) -> Refusal {
        let refusal = Refusal::new(StatusCode::PRECONDITION_FAILED, "CONFLICT", message);
        Refusal { details: json!({"version": version}), ..refusal }
    }
    /// 429 with `Retry-After`.
    pub fn quota(message: impl Into<String>, retry_after: u64) -> Refusal {
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "QUOTA_EXCEEDED", message);
        Refusal { retry_after: Some(retry_after.max(1)), ..refusal }
    }
    /// 500 without any inner text.
    #[must_use]
    pub fn internal() -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "internal error")
    }
    /// 501.
    pub fn not_implemented(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    }
    /// Returns true if an SSE client receives this as an event. As a status it would stop the client's
    /// `EventSource` for ever.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Refusal {
        Refusal::invalid(&error.field, &error.reason)
    }
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Refusal {
        Refusal::bad_request(error.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Refusal {
        match error {
            AuthError::Unauthorized(_) => {
                Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid credential is required")
            }
            AuthError::Forbidden(why) => Refusal::forbidden(why.to_string()),
            AuthError::TooManyFailures { retry_after } => {
                Refusal::quota("too many failed credentials from this address", retry_after)
            }
        }
    }
}

impl From<Ended> for Refusal {
    fn from(_: Ended) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the credential has ended")
    }
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Refusal {
        match error {
            AdminError::NotFound => Refusal::not_found(),
            AdminError::Conflict(why) => Refusal::conflict(why),
            AdminError::Changed(version) => Refusal::changed(error.to_string(), version),
            AdminError::Forbidden(why) => Refusal::forbidden(why),
            AdminError::Ended(ended) => ended.into(),
            AdminError::Full { .. } => Refusal::quota(error.to_string(), RETRY_SECONDS),
            AdminError::Invalid { field, reason } => Refusal::invalid(&field, &reason),
            AdminError::Limit { .. } => Refusal::conflict(error.to_string()),
            AdminError::Random => Refusal::internal(),
            AdminError::Records(_) => Refusal {
                details: json!({"outcome": "unknown"}),
                ..Refusal::unavailable("the change may not have been stored")
            },
        }
    }
}

impl From<MissingScope> for Refusal {
    fn from(error: MissingScope) -> Refusal {
        Refusal::forbidden(error.to_string())
    }
}

impl From<PublishDenied> for Refusal {
    fn from(error: PublishDenied) -> Refusal {
        Refusal::forbidden(error.to_string())
    }
}

impl From<Refused> for Refusal {
    fn from(error: Refused) -> Refusal {
        match error {
            Refused::Total => Refusal::unavailable(error.to_string()),
            _ => {
                let details =
                    error.limit().map_or(Value::Null, |(limit, max)| json!({"limit": limit, "max": max}));
                Refusal { details, ..Refusal::quota(error.to_string(), RETRY_SECONDS) }
            }
        }
    }
}

impl From<Full> for Refusal {
    fn from(error: Full) -> Refusal {
        match error {
            Full::Organization { .. } => Refusal::quota(error.to_string(), RETRY_SECONDS),
            Full::Unauthenticated => Refusal::unavailable(error.to_string()),
        }
    }
}

impl From<OverQuota> for Refusal {
    fn from(error: OverQuota) -> Refusal {
        let OverQuota { limit, max, used } = error;
        let details = json!({"limit": limit, "max": max, "used": used});
        Refusal { details, ..Refusal::quota(error.to_string(), FULL_RETRY_SECONDS) }
    }
}

impl From<OverRate> for Refusal {
    fn from(error: OverRate) -> Refusal {
        let seconds = error.wait_ms.div_ceil(1_000).max(1);
        let details = json!({"limit": error.limit, "max": error.per_second, "retry_after": seconds});
        Refusal { details, ..Refusal::quota(error.to_string(), seconds) }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        match error {
            ReadError::Unavailable | ReadError::Busy => Refusal::unavailable(error.to_string()),
            ReadError::OverShare => Refusal::quota(error.to_string(), RETRY_SECONDS),
            ReadError::Failed => Refusal::internal(),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Refusal {
        match error {
            PublishError::Invalid(error) => error.into(),
            PublishError::TooLarge(error) => {
                Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, code: "PAYLOAD_TOO_LARGE", ..error.into() }
            }
            PublishError::OverQuota(error) => error.into(),
            PublishError::Conflict(why) => Refusal::conflict(why),
            PublishError::Ended(ended) => ended.into(),
            PublishError::Read(error) => error.into(),
            PublishError::Unavailable | PublishError::Backlog => Refusal::unavailable(error.to_string()),
            PublishError::Commit(CommitError::Deleted) => {
                Refusal { message: error.to_string(), ..Refusal::not_found() }
            }
            PublishError::Commit(_) => {
                Refusal { details: json!({"outcome": "unknown"}), ..Refusal::unavailable(error.to_string()) }
            }
        }
    }
}

impl From<ResourceError> for Refusal {
    fn from(error: ResourceError) -> Refusal {
        match error {
            ResourceError::NotFound => Refusal::not_found(),
            ResourceError::Invalid { field, reason } => Refusal::invalid(&field, &reason),
            ResourceError::Forbidden(why) => Refusal::forbidden(why),
            ResourceError::Conflict(why) => Refusal::conflict(why),
            ResourceError::Changed(version) => Refusal::changed(error.to_string(), version),
            ResourceError::BatchFull => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", error.to_string())
            }
            ResourceError::TooLarge(error) => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", error.to_string())
            }
            ResourceError::Publish(error) => error.into(),
            ResourceError::Read(error) => error.into(),
        }
    }
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Refusal {
        match error {
            UserError::Resource(error) => error.into(),
            UserError::Admin(error) => error.into(),
            UserError::Password(PasswordError::Busy) => Refusal::unavailable(error.to_string()),
            UserError::Password(PasswordError::Share) => Refusal::quota(error.to_string(), RETRY_SECONDS),
            UserError::Password(PasswordError::Failed) => Refusal::internal(),
            UserError::Unknown => Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", error.to_string()),
            UserError::TooMany(TooMany { retry_after }) => Refusal::quota(error.to_string(), retry_after),
        }
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Refusal {
        UserError::Password(error).into()
    }
}

/// The close code that a live connection gets when its credential ends.
#[must_use]
pub fn close_of(ended: Ended) -> Close {
    match ended {
        Ended::Expired => Close::Expired,
        Ended::Revoked | Ended::Disabled | Ended::OrganizationDeleted => Close::Revoked,
    }
}
