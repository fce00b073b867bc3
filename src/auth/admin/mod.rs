//! Administration: every change of organizations, keys, tokens and users.
//!
//! REST handlers and the offline command line share this code.
//!
//! * [`actor`]: the authority under which a change is committed. [`delegation`] limits what it may grant.
//! * [`commit`]: how a change is locked, committed and applied; [`change_locks`] has the locks, and [`change`]
//!   is the notice that live connections get.
//! * [`organizations`], [`api_keys`], [`users`]: the changes themselves. [`mint`] and [`revoke`] are for
//!   tokens, [`tickets`] for tickets, [`first_key`] for the operator key of a new store.
//! * [`fields`]: checks that several requests share.
//! * [`maintenance`]: what is stored or forgotten once a minute.

pub(super) mod actor;
pub(super) mod api_keys;
pub(super) mod change;
pub(super) mod change_locks;
pub(super) mod commit;
pub(super) mod delegation;
pub(super) mod fields;
pub(super) mod first_key;
pub(super) mod maintenance;
pub(super) mod mint;
pub(super) mod organizations;
pub(super) mod revoke;
pub(super) mod tickets;
pub(super) mod users;
