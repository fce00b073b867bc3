//! The only place that maps an error to a status, a code and a message for the client.
//!
//! Messages for clients are written here or come from the display text of a typed error. Inner errors (IO,
//! sled) are logged and never sent to clients.

use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::{
    AdminError, AuthError, CredentialEnded, MissingScope, PasswordError, PublishDenied, TooManyAttempts,
};
use crate::close::CloseReason;
use crate::connection::admission::AdmissionError;
use crate::connection::byte_shares::ShareExceeded;
use crate::domain::ResourceError;
use crate::domain::users::UserError;
use crate::event::EventError;
use crate::filter::FilterError;
use crate::store::{CommitError, OverQuota, ReadError};
use crate::tenant::publish::PublishError;
use crate::tenant::rate::RateExceeded;
use crate::tenant::streams::{StreamError, StreamState};

/// Seconds that a client should wait if nothing better is known.
const RETRY_SECONDS: u64 = 1;
/// Seconds that a client should wait when its organization has reached its quota. Space becomes free only
/// when somebody deletes data, or when idempotency rows expire after a day.
const FULL_RETRY_SECONDS: u64 = 60;

/// An error response.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorResponse {
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

impl ErrorResponse {
    /// Creates a refusal without details.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ErrorResponse {
        ErrorResponse {
            status,
            code,
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            allow: None,
        }
    }
    /// 400 `BAD_REQUEST`.
    pub fn bad_request(message: impl Into<String>) -> ErrorResponse {
        ErrorResponse::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }
    /// 400 `VALIDATION_ERROR`, with the name of the field.
    pub fn invalid(field: &str, reason: &str) -> ErrorResponse {
        let message = if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") };
        let details = json!({"field": field, "reason": reason});
        ErrorResponse { details, ..ErrorResponse::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message) }
    }
    /// 404. What does not exist and what belongs to others look the same.
    #[must_use]
    pub fn not_found() -> ErrorResponse {
        ErrorResponse::new(StatusCode::NOT_FOUND, "NOT_FOUND", "not found")
    }
    /// 403 `FORBIDDEN`.
    pub fn forbidden(message: impl Into<String>) -> ErrorResponse {
        ErrorResponse::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }
    /// 409 `CONFLICT`.
    pub fn conflict(message: impl Into<String>) -> ErrorResponse {
        ErrorResponse::new(StatusCode::CONFLICT, "CONFLICT", message)
    }
    /// 405 with the allowed methods.
    #[must_use]
    pub fn method(allow: &'static str) -> ErrorResponse {
        let message = format!("method not allowed; allowed: {allow}");
        let code = "METHOD_NOT_ALLOWED";
        ErrorResponse {
            allow: Some(allow),
            ..ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, code, message)
        }
    }
    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> ErrorResponse {
        let message = format!("the body is over {limit} bytes");
        ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }
    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<String>) -> ErrorResponse {
        let response = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message);
        ErrorResponse { retry_after: Some(RETRY_SECONDS), ..response }
    }
    /// 412, with the current version.
    fn changed(message: String, version: u64) -> ErrorResponse {
        let response = ErrorResponse::new(StatusCode::PRECONDITION_FAILED, "CONFLICT", message);
        ErrorResponse { details: json!({"version": version}), ..response }
    }
    /// 429 with `Retry-After`.
    pub fn quota(message: impl Into<String>, retry_after: u64) -> ErrorResponse {
        let response = ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "QUOTA_EXCEEDED", message);
        ErrorResponse { retry_after: Some(retry_after.max(1)), ..response }
    }
    /// 500 without any inner text.
    #[must_use]
    pub fn internal() -> ErrorResponse {
        ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "internal error")
    }
    /// 501.
    pub fn not_implemented(message: impl Into<String>) -> ErrorResponse {
        ErrorResponse::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    }
    /// Returns true if an SSE client receives this as an event. As a status it would stop the client's
    /// `EventSource` for ever.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<EventError> for ErrorResponse {
    fn from(error: EventError) -> ErrorResponse {
        ErrorResponse::invalid(&error.field, &error.reason)
    }
}

impl From<FilterError> for ErrorResponse {
    fn from(error: FilterError) -> ErrorResponse {
        ErrorResponse::bad_request(error.to_string())
    }
}

impl From<AuthError> for ErrorResponse {
    fn from(error: AuthError) -> ErrorResponse {
        match error {
            AuthError::Unauthorized(_) => {
                ErrorResponse::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid credential is required")
            }
            AuthError::Forbidden(why) => ErrorResponse::forbidden(why.to_string()),
            AuthError::TooManyFailures { retry_after } => {
                ErrorResponse::quota("too many failed credentials from this address", retry_after)
            }
        }
    }
}

impl From<CredentialEnded> for ErrorResponse {
    fn from(_: CredentialEnded) -> ErrorResponse {
        ErrorResponse::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the credential has ended")
    }
}

impl From<AdminError> for ErrorResponse {
    fn from(error: AdminError) -> ErrorResponse {
        match error {
            AdminError::NotFound => ErrorResponse::not_found(),
            AdminError::Conflict(why) => ErrorResponse::conflict(why),
            AdminError::Changed(version) => ErrorResponse::changed(error.to_string(), version),
            AdminError::Forbidden(why) => ErrorResponse::forbidden(why),
            AdminError::Ended(ended) => ended.into(),
            AdminError::Full { .. } => ErrorResponse::quota(error.to_string(), RETRY_SECONDS),
            AdminError::Invalid { field, reason } => ErrorResponse::invalid(&field, &reason),
            AdminError::Limit { .. } => ErrorResponse::conflict(error.to_string()),
            AdminError::Random => ErrorResponse::internal(),
            AdminError::Records(_) => ErrorResponse {
                details: json!({"outcome": "unknown"}),
                ..ErrorResponse::unavailable("the change may not have been stored")
            },
        }
    }
}

impl From<MissingScope> for ErrorResponse {
    fn from(error: MissingScope) -> ErrorResponse {
        ErrorResponse::forbidden(error.to_string())
    }
}

impl From<PublishDenied> for ErrorResponse {
    fn from(error: PublishDenied) -> ErrorResponse {
        ErrorResponse::forbidden(error.to_string())
    }
}

impl From<AdmissionError> for ErrorResponse {
    fn from(error: AdmissionError) -> ErrorResponse {
        match error {
            AdmissionError::Total => ErrorResponse::unavailable(error.to_string()),
            _ => {
                let details =
                    error.limit().map_or(Value::Null, |(limit, max)| json!({"limit": limit, "max": max}));
                ErrorResponse { details, ..ErrorResponse::quota(error.to_string(), RETRY_SECONDS) }
            }
        }
    }
}

impl From<ShareExceeded> for ErrorResponse {
    fn from(error: ShareExceeded) -> ErrorResponse {
        match error {
            ShareExceeded::Organization { .. } => ErrorResponse::quota(error.to_string(), RETRY_SECONDS),
            ShareExceeded::Unauthenticated => ErrorResponse::unavailable(error.to_string()),
        }
    }
}

impl From<OverQuota> for ErrorResponse {
    fn from(error: OverQuota) -> ErrorResponse {
        let OverQuota { limit, max, used } = error;
        let details = json!({"limit": limit, "max": max, "used": used});
        ErrorResponse { details, ..ErrorResponse::quota(error.to_string(), FULL_RETRY_SECONDS) }
    }
}

impl From<RateExceeded> for ErrorResponse {
    fn from(error: RateExceeded) -> ErrorResponse {
        let seconds = error.wait_ms.div_ceil(1_000).max(1);
        let details = json!({"limit": error.limit, "max": error.per_second, "retry_after": seconds});
        ErrorResponse { details, ..ErrorResponse::quota(error.to_string(), seconds) }
    }
}

impl From<ReadError> for ErrorResponse {
    fn from(error: ReadError) -> ErrorResponse {
        match error {
            ReadError::Unavailable | ReadError::Busy => ErrorResponse::unavailable(error.to_string()),
            ReadError::OverShare => ErrorResponse::quota(error.to_string(), RETRY_SECONDS),
            ReadError::Failed => ErrorResponse::internal(),
        }
    }
}

impl From<PublishError> for ErrorResponse {
    fn from(error: PublishError) -> ErrorResponse {
        match error {
            PublishError::Denied { reason, .. } => reason.into(),
            PublishError::OverRate(error) => error.into(),
            PublishError::Invalid(error) => error.into(),
            PublishError::TooLarge(error) => ErrorResponse {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                code: "PAYLOAD_TOO_LARGE",
                ..error.into()
            },
            PublishError::OverQuota(error) => error.into(),
            PublishError::Conflict(why) => ErrorResponse::conflict(why),
            PublishError::Ended(ended) => ended.into(),
            PublishError::Read(error) => error.into(),
            PublishError::Unavailable | PublishError::Backlog => {
                ErrorResponse::unavailable(error.to_string())
            }
            PublishError::Commit(CommitError::Deleted) => {
                ErrorResponse { message: error.to_string(), ..ErrorResponse::not_found() }
            }
            PublishError::Commit(_) => ErrorResponse {
                details: json!({"outcome": "unknown"}),
                ..ErrorResponse::unavailable(error.to_string())
            },
        }
    }
}

impl From<ResourceError> for ErrorResponse {
    fn from(error: ResourceError) -> ErrorResponse {
        match error {
            ResourceError::NotFound => ErrorResponse::not_found(),
            ResourceError::Invalid { field, reason } => ErrorResponse::invalid(&field, &reason),
            ResourceError::Forbidden(why) => ErrorResponse::forbidden(why),
            ResourceError::Conflict(why) => ErrorResponse::conflict(why),
            ResourceError::Changed(version) => ErrorResponse::changed(error.to_string(), version),
            ResourceError::BatchFull => {
                ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", error.to_string())
            }
            ResourceError::TooLarge(error) => {
                ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", error.to_string())
            }
            ResourceError::Publish(error) => error.into(),
            ResourceError::Read(error) => error.into(),
        }
    }
}

impl From<StreamError> for ErrorResponse {
    fn from(error: StreamError) -> ErrorResponse {
        let message = error.to_string();
        let conflict = |code| ErrorResponse::new(StatusCode::CONFLICT, code, message.clone());
        match error {
            StreamError::NotFound | StreamError::NotOpen => ErrorResponse::not_found(),
            StreamError::BadToken => ErrorResponse::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message),
            StreamError::Fenced => conflict("STREAM_FENCED"),
            StreamError::Ended(StreamState::Cancelled) => conflict("STREAM_CANCELLED"),
            StreamError::Ended(StreamState::Abandoned) => conflict("STREAM_ABANDONED"),
            StreamError::Ended(_) => conflict("STREAM_ENDED"),
            StreamError::InUse | StreamError::Changed => conflict("CONFLICT"),
            StreamError::IndexTooHigh { expected } => {
                ErrorResponse { details: json!({"expected_index": expected}), ..conflict("CONFLICT") }
            }
            StreamError::TooManyOpen { limit, max } => ErrorResponse {
                details: json!({"limit": limit, "max": max}),
                ..ErrorResponse::quota(message, RETRY_SECONDS)
            },
            StreamError::TooMuchText { max } => ErrorResponse {
                details: json!({"limit": "streams.bytes", "max": max}),
                ..ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
            },
            StreamError::Invalid { field, reason } => ErrorResponse::invalid(&field, &reason),
            StreamError::Denied(denied) => denied.into(),
            StreamError::TooLong(_) => {
                ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
            }
            StreamError::Publish(error) => error.into(),
            StreamError::Read(error) => error.into(),
            StreamError::NotLoaded | StreamError::TailFull => ErrorResponse::unavailable(message),
        }
    }
}

impl From<UserError> for ErrorResponse {
    fn from(error: UserError) -> ErrorResponse {
        match error {
            UserError::Resource(error) => error.into(),
            UserError::Admin(error) => error.into(),
            UserError::Password(PasswordError::Busy) => ErrorResponse::unavailable(error.to_string()),
            UserError::Password(PasswordError::Share) => {
                ErrorResponse::quota(error.to_string(), RETRY_SECONDS)
            }
            UserError::Password(PasswordError::Failed) => ErrorResponse::internal(),
            UserError::Unknown => {
                ErrorResponse::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", error.to_string())
            }
            UserError::TooMany(TooManyAttempts { retry_after }) => {
                ErrorResponse::quota(error.to_string(), retry_after)
            }
        }
    }
}

impl From<PasswordError> for ErrorResponse {
    fn from(error: PasswordError) -> ErrorResponse {
        UserError::Password(error).into()
    }
}

/// The close code that a live connection gets when its credential ends.
#[must_use]
pub fn close_reason(ended: CredentialEnded) -> CloseReason {
    match ended {
        CredentialEnded::Expired => CloseReason::Expired,
        CredentialEnded::Revoked | CredentialEnded::Disabled | CredentialEnded::OrganizationDeleted => {
            CloseReason::Revoked
        }
    }
}
