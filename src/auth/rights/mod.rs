//! What a credential allows: scopes, roles, and the principal that has them.
//!
//! * [`scope`]: the names of rights in a credential, as a set.
//! * [`permissions`]: which role grants which scope, and which scope an action needs.
//! * [`principal`]: who a verified credential stands for, and the proof of a right.

pub mod permissions;
pub(super) mod principal;
pub(super) mod scope;
