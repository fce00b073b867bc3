//! What both kinds of tickets have in common.

use ring::error::Unspecified;

use crate::auth::secret::Secret;

/// Maximum length of a ticket, in bytes: an encrypted principal with the narrowing of the longest token.
pub(in crate::auth) const TICKET_BYTES: usize = 16 * 1024;

/// A new ticket.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The text for `?ticket=`.
    pub ticket: Secret,
    /// Expiry in Unix milliseconds.
    pub expires_at_ms: u64,
}

/// Why no ticket was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum TicketError {
    /// There are no random bytes, or the principal is too long for a ticket.
    Unmakeable,
    /// There are too many unused tickets.
    Full {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
}

impl From<Unspecified> for TicketError {
    fn from(Unspecified: Unspecified) -> TicketError {
        TicketError::Unmakeable
    }
}
