//! Administration: every change of organizations, keys, tokens and users, under the authority of an actor.

pub(super) mod actor;
pub(super) mod change_locks;
pub(super) mod delegation;
pub(super) mod first_key;
pub(super) mod issue;
pub(super) mod maintenance;
pub(super) mod organizations;
pub(super) mod session;
