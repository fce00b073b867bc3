//! What a credential allows: scopes, roles, the principal that has them, and the proof of a right.
//!
//! * [`scope`]: the names of rights in a credential, as a set.
//! * [`permissions`]: which role grants which scope, and which scope an action needs.
//! * [`credential`]: which credential was presented, and where in the request.
//! * [`principal`]: who a verified credential stands for.
//! * [`authorized`]: the proof that a principal has a right.

pub(super) mod authorized;
pub(super) mod credential;
pub mod permissions;
pub(super) mod principal;
pub(super) mod scope;
