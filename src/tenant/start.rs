//! Where a subscription starts: a cursor, a time, the oldest event, or now; and the gap that has to be declared.

use crate::cursor::CursorKey;
use crate::frame::control::GapReason;
use crate::ids::Sequence;
use crate::store::{ReadError, Since, Store};

use super::Tenant;

pub use crate::cursor::From;

/// A declared gap: what the client presented, and why it cannot go on from there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The presented cursor or time, as it was; the encoder cuts it.
    pub after: Box<str>,
    /// Why.
    pub reason: GapReason,
    /// Where it goes on.
    pub resumes_at: Sequence,
}

/// Where a subscription starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The position; `None`: the visible end at registration.
    pub position: Option<Sequence>,
    /// The gap to declare.
    pub gap: Option<Gap>,
    /// A cursor was accepted without a gap.
    pub resumed: bool,
    /// A position was asked for, so `caught_up` is owed.
    pub asked: bool,
}

impl Start {
    /// Live from the present end, nothing asked.
    pub const NOW: Start = Start { position: None, gap: None, resumed: false, asked: false };
}

/// Resolves what a client asked for.
///
/// # Errors
/// The log could not be read (`since` alone reads it).
pub async fn resolve(store: &Store, tenant: &Tenant, from: &From) -> Result<Start, ReadError> {
    if let Some(start) = resolve_now(&store.cursor_key(), tenant, from) {
        return Ok(start);
    }
    let From::Since(ms) = from else { return Ok(Start::NOW) };
    let (position, trimmed) = match store.position_since(tenant.log(), *ms).await? {
        Since::At(position) => (position, false),
        Since::Trimmed(position) => (position, true),
    };
    let after = crate::time::rfc3339(*ms).into();
    let gap = trimmed.then_some(Gap { after, reason: GapReason::Trimmed, resumes_at: position });
    Ok(Start { position: Some(position), gap, resumed: false, asked: true })
}

/// The same for what needs no reading; `None` for [`From::Since`].
#[must_use]
pub fn resolve_now(cursors: &CursorKey, tenant: &Tenant, from: &From) -> Option<Start> {
    match from {
        From::Now => Some(Start::NOW),
        From::Cursor(text) => Some(after_cursor(cursors, tenant, text)),
        From::Earliest => {
            Some(Start { position: Some(tenant.log().oldest()), gap: None, resumed: false, asked: true })
        }
        From::Since(_) => None,
    }
}

fn after_cursor(cursors: &CursorKey, tenant: &Tenant, text: &str) -> Start {
    let gap = |reason, resumes_at| Some(Gap { after: text.into(), reason, resumes_at });
    let head = tenant.head();
    match cursors.decode(tenant.id(), text.as_bytes()) {
        // A newer epoch, or this one with a higher counter, was never given out by this log. Its end is above the visible head
        // while a change waits for its commit: an event published behind that change has its id already, and its publisher
        // may resume from it.
        Some(position) if position <= tenant.log().end() => match tenant.log().oldest() {
            oldest if position < oldest => Start {
                position: Some(oldest),
                gap: gap(GapReason::Trimmed, oldest),
                resumed: false,
                asked: true,
            },
            _ => Start { position: Some(position), gap: None, resumed: true, asked: true },
        },
        _ => Start {
            position: Some(head),
            gap: gap(GapReason::UnknownCursor, head),
            resumed: false,
            asked: true,
        },
    }
}
