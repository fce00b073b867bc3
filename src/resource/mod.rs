//! What organizations keep besides events: agents, their messages, memories and core memory, tools, users; each change with the
//! event that tells of it.
//!
//! * A change and its event are one commit ([`Tenants::change`]): after any crash both are there or neither, and nobody hears of
//!   what is not kept.
//! * Who changes a resource holds its lock from reading it to its commit, so no change is lost to another.
//! * Every list has an index of its own; nothing is read to be passed over.
//! * It knows no HTTP. What a principal may see is asked of [`Rights`] alone.

pub mod agents;
pub mod blocks;
pub mod entry;
pub mod leaving;
pub mod memories;
pub mod messages;
mod ownership;
mod record;
pub mod tools;
pub mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::auth::{Auth, Authorized, Principal};
use crate::event::{Event, EventError};
use crate::filter::Rights;
use crate::store::{ReadError, Rows, TooLong, scope};
use crate::tenant::idempotency::Held;
use crate::tenant::publish::{Notice, PublishError};
use crate::tenant::{Tenant, Tenants};

pub use record::{Page, Position};

/// Most bytes of a name.
pub const NAME_BYTES: usize = 255;
/// Most bytes of a description, a system prompt, an error message.
pub const TEXT_BYTES: usize = 16 * 1024;
/// Most bytes of free JSON in one field.
pub const JSON_BYTES: usize = 8 * 1024;

/// Why a resource was not read or changed; nothing was done then, but for a failed commit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResourceError {
    /// It does not exist, or is not the caller's to see.
    #[error("not found")]
    NotFound,
    /// A field that cannot be.
    #[error("{field}: {reason}")]
    Invalid {
        /// Its name.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller may not do that.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What it is now does not allow that.
    #[error("{0}")]
    Conflict(String),
    /// It has changed since the version the caller named.
    #[error("it has changed: its version is {0} now")]
    Changed(u64),
    /// One write takes no more.
    #[error("the batch is full: send this one again in another")]
    BatchFull,
    /// It does not fit.
    #[error("{0}")]
    TooLarge(#[from] TooLong),
    /// It could not be committed.
    #[error("{0}")]
    Publish(#[from] PublishError),
    /// It could not be read.
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl ResourceError {
    fn invalid(field: &str, reason: impl Into<String>) -> ResourceError {
        ResourceError::Invalid { field: field.to_owned(), reason: reason.into() }
    }
}

impl From<EventError> for ResourceError {
    fn from(error: EventError) -> ResourceError {
        ResourceError::Invalid { field: error.field, reason: error.reason }
    }
}

/// Who asks, and in which organization.
pub struct Caller<'a, N> {
    /// All organizations.
    pub tenants: &'a Arc<Tenants>,
    /// What knows whether their credential still holds.
    pub auth: &'a Auth,
    /// Theirs.
    pub tenant: Arc<Tenant>,
    /// Who.
    pub principal: Arc<Principal>,
    /// What they may see now.
    pub rights: Rights,
    /// How they hear of a commit.
    pub notice: &'a N,
}

impl<N: Notice> Caller<'_, N> {
    fn now_ms(&self) -> u64 {
        self.tenants.clock().now_ms()
    }

    /// Keeps others from changing what `lock` names until the answer is dropped; rows that are committed under it hold it.
    async fn alone(&self, lock: [u8; 32]) -> Arc<Held> {
        self.tenants.alone(self.tenant.id(), vec![lock]).await
    }

    /// Commits rows and the events that tell of them, if the credential that gave `right` still holds then.
    async fn commit<R>(
        &self,
        right: &Authorized<R>,
        mut rows: Rows,
        events: &[Event<'_>],
    ) -> Result<(), ResourceError> {
        if let Some(sub) = &self.principal.sub {
            rows.in_name_of(self.tenant.id(), sub);
        }
        let frames = self.tenants.encode(events, 0)?;
        let actor = self.auth.actor(right);
        Ok(self.tenants.change(actor, &self.tenant, frames, rows, self.notice).await?)
    }
}

/// What names the lock of a resource.
fn lock_of(kind: &str, id: &str) -> [u8; 32] {
    scope(&[kind.as_bytes(), id.as_bytes()])
}

/// Whether `asked`, if a version was, is the resource's own.
fn is_version(asked: Option<u64>, own: u64) -> Result<(), ResourceError> {
    match asked {
        Some(asked) if asked != own => Err(ResourceError::Changed(own)),
        _ => Ok(()),
    }
}

/// A number above every one before, by which lists are ordered: microseconds since 1970, or the next free one.
fn next_number(now_ms: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now_ms.saturating_mul(1_000);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    now.max(last.unwrap_or_default() + 1) // the update never declines
}

/// Tells a field that is `null` from one that is absent.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// A text that is not blank and not too long.
fn named(field: &str, text: Option<String>) -> Result<Option<String>, ResourceError> {
    match &text {
        Some(text) if text.trim().is_empty() => Err(ResourceError::invalid(field, "must not be blank")),
        _ => short(field, text, NAME_BYTES),
    }
}

/// A text that is not too long.
fn short(field: &str, text: Option<String>, most: usize) -> Result<Option<String>, ResourceError> {
    match &text {
        Some(text) if text.len() > most => {
            Err(ResourceError::invalid(field, format!("is {} bytes, the limit is {most}", text.len())))
        }
        _ => Ok(text),
    }
}

/// Free JSON that is not too long.
fn free(field: &str, json: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, ResourceError> {
    match &json {
        Some(json) if json.get().len() > JSON_BYTES => {
            let reason = format!("is {} bytes, the limit is {JSON_BYTES}", json.get().len());
            Err(ResourceError::invalid(field, reason))
        }
        _ => Ok(json),
    }
}

/// Free JSON that is an object.
fn object(field: &str, json: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, ResourceError> {
    match &json {
        Some(json) if !json.get().starts_with('{') => Err(ResourceError::invalid(field, "must be an object")),
        _ => free(field, json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_grow_and_follow_the_clock() {
        let far_ms = 4_000_000_000_000;
        let first = next_number(far_ms);
        assert!(first >= far_ms * 1_000);
        assert_eq!(next_number(0), first + 1);
        assert!(next_number(far_ms + 1) > first + 1);
    }

    #[test]
    fn what_is_too_long_blank_or_no_object_is_refused() {
        let raw = |text: String| RawValue::from_string(text).expect("JSON");
        assert!(named("name", Some("x".repeat(NAME_BYTES))).is_ok());
        assert!(named("name", Some("x".repeat(NAME_BYTES + 1))).is_err());
        assert!(named("name", Some(" \t".into())).is_err());
        assert!(object("metadata", Some(raw("[]".into()))).is_err());
        assert!(object("metadata", Some(raw("{}".into()))).is_ok());
        assert!(free("tool_rules", Some(raw(format!("\"{}\"", "x".repeat(JSON_BYTES))))).is_err());
    }
}
