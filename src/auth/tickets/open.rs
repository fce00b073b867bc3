//! Reads a ticket of either kind.

use std::sync::Arc;

use super::one_shot::{OneShotTickets, SpendHandle};
use super::reconnect::{self, TicketSealer};
use crate::auth::rights::principal::Principal;

/// A ticket that was read but not yet accepted.
#[derive(Debug)]
pub(in crate::auth) enum OpenedTicket {
    /// It exists and is not used up yet: [`OneShotTickets::spend`] does that.
    OneShot(SpendHandle, Arc<Principal>),
    /// It is genuine and not expired.
    Reconnect { principal: Principal, origin: Option<Box<str>> },
}

/// Reads `text`; `Err(true)`: genuine but expired.
pub(in crate::auth) fn open(
    text: &str,
    sealer: &TicketSealer,
    one_shots: &OneShotTickets,
    now_ms: u64,
) -> Result<OpenedTicket, bool> {
    if let Some(body) = text.strip_prefix(reconnect::PREFIX) {
        let (principal, origin) = sealer.open(body, now_ms)?;
        return Ok(OpenedTicket::Reconnect { principal, origin });
    }
    let (spend, principal) = one_shots.find(text, now_ms).ok_or(false)?;
    Ok(OpenedTicket::OneShot(spend, principal))
}
