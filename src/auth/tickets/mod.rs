//! Tickets: credentials fit for a URL, for browsers.

pub(super) mod ticket;
