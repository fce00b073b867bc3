//! From a request to a principal, and whether the principal is still valid.
//!
//! * [`presented`]: finds the credential in the request.
//! * [`verify`]: verifies it. [`validity`] checks later whether it is still valid.
//! * [`origin`]: which web pages may use the daemon (CORS, cookies, WebSockets).
//! * [`failure_counts`]: limits how many wrong credentials an address may present.

pub(super) mod failure_counts;
pub(super) mod origin;
pub(super) mod presented;
pub(super) mod validity;
pub(super) mod verify;
