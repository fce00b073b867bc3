//! Stored resources of organizations: agents, their messages, memories and core memory, tools, users. Each
//! change comes with the event that reports it.
//!
//! * A change and its event are one commit ([`PublishKind::Change`]). After any crash both exist or neither does,
//!   and no event is delivered for a change that is not stored.
//! * A change holds the lock of its resource from the read to the commit, so no concurrent change is lost.
//! * Every list has its own index; no row is read only to be skipped.
//! * The module does not know HTTP. Only [`Rights`] decides what a principal may see.

mod agent_user;
pub mod agents;
pub mod core_memory;
pub(crate) mod list_resource;
pub mod login;
pub mod memories;
pub mod messages;
mod ownership;
mod record;
pub mod streams;
pub mod tools;
pub mod user_erasure;
pub mod users;

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::auth::{Auth, Authorized, Principal};
use crate::event::{Event, EventError};
use crate::filter::Rights;
use crate::ids::next_number;
use crate::store::{ReadError, Rows, TooLong, key_digest};
use crate::tenant::admission::{PublishKind, PublishRequest};
use crate::tenant::idempotency::KeyGuards;
use crate::tenant::publish::{CommitWaiter, PublishError};
use crate::tenant::rate::RateCharge;
use crate::tenant::streams::StreamError;
use crate::tenant::{Tenant, Tenants};

pub use agent_user::AgentUserFilter;
pub use record::{PageRequest, PageStart};
pub use streams::StreamFilter;

/// Maximum of bytes of a name.
pub const NAME_BYTES: usize = 255;
/// Maximum of bytes of a description, a system prompt or an error message.
pub const TEXT_BYTES: usize = 16 * 1024;
/// Maximum of bytes of free JSON in one field.
pub const JSON_BYTES: usize = 8 * 1024;

/// Why a resource was not read or changed. Nothing was changed, unless the commit failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResourceError {
    /// The resource does not exist, or the caller may not see it.
    #[error("not found")]
    NotFound,
    /// A field is not valid.
    #[error("{field}: {reason}")]
    Invalid {
        /// Name of the field.
        field: String,
        /// What is wrong with the field.
        reason: String,
    },
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The current state of the resource does not allow this.
    #[error("{0}")]
    Conflict(String),
    /// The resource has another version than the one the caller named.
    #[error("the resource has changed: its version is {0} now")]
    Changed(u64),
    /// The batch has no room for this item.
    #[error("the batch is full: send this item again in another batch")]
    BatchFull,
    /// The resource is too large to be stored.
    #[error("{0}")]
    TooLarge(#[from] TooLong),
    /// The commit failed or was refused.
    #[error("{0}")]
    Publish(#[from] PublishError),
    /// The store could not be read.
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl ResourceError {
    fn invalid(field: &str, reason: impl Into<String>) -> ResourceError {
        ResourceError::Invalid { field: field.to_owned(), reason: reason.into() }
    }
}

impl From<StreamError> for ResourceError {
    fn from(error: StreamError) -> ResourceError {
        match error {
            StreamError::Publish(error) => error.into(),
            StreamError::Read(error) => error.into(),
            StreamError::TooLong(error) => error.into(),
            StreamError::NotFound => ResourceError::NotFound,
            other => ResourceError::Conflict(other.to_string()),
        }
    }
}

impl From<EventError> for ResourceError {
    fn from(error: EventError) -> ResourceError {
        ResourceError::Invalid { field: error.field, reason: error.reason }
    }
}

/// The caller of a request, and its organization.
pub struct Caller<'a, N> {
    /// All organizations.
    pub tenants: &'a Arc<Tenants>,
    /// Checks whether the credential is still valid.
    pub auth: &'a Auth,
    /// Organization of the caller.
    pub tenant: Arc<Tenant>,
    /// The verified principal.
    pub principal: Arc<Principal>,
    /// The current rights.
    pub rights: Rights,
    /// The charge of the request's rate, if it writes.
    pub charge: RateCharge,
    /// How the caller is notified of a commit.
    pub commit_waiter: &'a N,
}

impl<N: CommitWaiter> Caller<'_, N> {
    fn now_ms(&self) -> u64 {
        self.tenants.clock().now_ms()
    }

    /// Locks what `lock` names until the result is dropped. Rows that are committed under the lock keep it
    /// until the commit is over.
    async fn lock(&self, lock: [u8; 32]) -> Arc<KeyGuards> {
        self.tenants.lock_keys(self.tenant.id(), vec![lock]).await
    }

    /// Commits rows and the events that report them, if the credential behind `right` is still valid at the
    /// commit.
    async fn commit<R>(
        &self,
        right: &Authorized<R>,
        mut rows: Rows,
        events: &[Event<'_>],
    ) -> Result<(), ResourceError> {
        if let Some(sub) = &self.principal.sub {
            rows.in_name_of(self.tenant.id(), sub);
        }
        let request = PublishRequest {
            actor: self.auth.actor(right),
            tenant: self.tenant.id(),
            events: self.tenants.internal_draft(self.charge, events),
            kind: PublishKind::Change(rows),
        };
        self.tenants.publish(request, self.commit_waiter).await?;
        Ok(())
    }
}

/// The key of a resource's lock.
fn lock_key(kind: &str, id: &str) -> [u8; 32] {
    key_digest(&[kind.as_bytes(), id.as_bytes()])
}

/// Checks that `expected`, if the request named a version, is the current one.
fn check_version(expected: Option<u64>, own: u64) -> Result<(), ResourceError> {
    match expected {
        Some(expected) if expected != own => Err(ResourceError::Changed(own)),
        _ => Ok(()),
    }
}

/// Distinguishes a field that is `null` from one that is left out.
fn double_option<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// Checks that a text is not blank and not too long.
fn check_name(field: &str, text: Option<String>) -> Result<Option<String>, ResourceError> {
    match &text {
        Some(text) if text.trim().is_empty() => Err(ResourceError::invalid(field, "must not be blank")),
        _ => check_text(field, text, NAME_BYTES),
    }
}

/// Checks that a text is not too long.
fn check_text(field: &str, text: Option<String>, most: usize) -> Result<Option<String>, ResourceError> {
    match &text {
        Some(text) if text.len() > most => {
            Err(ResourceError::invalid(field, format!("is {} bytes, the limit is {most}", text.len())))
        }
        _ => Ok(text),
    }
}

/// Checks that free JSON is not too long.
fn check_json(field: &str, json: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, ResourceError> {
    match &json {
        Some(json) if json.get().len() > JSON_BYTES => {
            let reason = format!("is {} bytes, the limit is {JSON_BYTES}", json.get().len());
            Err(ResourceError::invalid(field, reason))
        }
        _ => Ok(json),
    }
}

/// Checks that free JSON is an object.
fn check_object(field: &str, json: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, ResourceError> {
    match &json {
        Some(json) if !json.get().starts_with('{') => Err(ResourceError::invalid(field, "must be an object")),
        _ => check_json(field, json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_too_long_blank_or_no_object_are_refused() {
        let raw = |text: String| RawValue::from_string(text).expect("JSON");
        assert!(check_name("name", Some("x".repeat(NAME_BYTES))).is_ok());
        assert!(check_name("name", Some("x".repeat(NAME_BYTES + 1))).is_err());
        assert!(check_name("name", Some(" \t".into())).is_err());
        assert!(check_object("metadata", Some(raw("[]".into()))).is_err());
        assert!(check_object("metadata", Some(raw("{}".into()))).is_ok());
        assert!(check_json("tool_rules", Some(raw(format!("\"{}\"", "x".repeat(JSON_BYTES))))).is_err());
    }
}
