//! `/agents`, `/memories`, `/messages`, `/streams`, `/tools`, `/presence` and `/users`: request and response types. The
//! rules are in [`crate::domain`].
//!
//! * Lists are newest first. The next page is selected by a cursor, or by `offset` for older clients.
//! * `ETag` is the version of a resource. A change with an `If-Match` of another version is refused (RFC 9110
//!   §13.1.1).
//! * `handlers.rs` has the handlers that listed resources share. `page.rs` and `write_request.rs` read
//!   what their requests have in common.

pub(super) mod agents;
pub(super) mod core_memory;
mod handlers;
pub(super) mod memories;
pub(super) mod messages;
mod page;
pub(super) mod presence;
pub(super) mod streams;
pub(super) mod tools;
pub(super) mod users;
mod write_request;
