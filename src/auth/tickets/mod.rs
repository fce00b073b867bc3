//! Tickets: credentials that may be part of a URL, for browsers (protocol §4).
//!
//! * [`one_shot`]: in memory, used up by their first use.
//! * [`reconnect`]: an encrypted principal, for reconnects of an EventSource.
//! * [`ticket`]: what both kinds have in common; [`open`] reads either kind.
//!
//! Both kinds stand for a principal with the expiry and revocation of the credential that they were made
//! from. The principal may only read streams and history (`ScopeSet::OF_TICKETS`). This folder does not know
//! requests; `request` checks origin and use.

pub(super) mod one_shot;
pub(super) mod open;
pub(super) mod reconnect;
pub(super) mod ticket;
