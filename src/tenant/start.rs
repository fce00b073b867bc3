//! Start of a subscription: at a cursor, at a time, at the oldest event, or now; and the gap that must be
//! declared.

use crate::cursor::CursorKey;
use crate::frame::control::GapReason;
use crate::ids::Sequence;
use crate::store::{ReadError, Since, Store};

use super::Tenant;

pub use crate::cursor::From;

/// A declared gap: the position of the client, and why delivery cannot continue from there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The client's cursor or time, unchanged. The encoder cuts it.
    pub after: Box<str>,
    /// Reason of the gap.
    pub reason: GapReason,
    /// Position at which delivery continues.
    pub resumes_at: Sequence,
}

/// Start of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The start position; `None` means the visible end at registration.
    pub position: Option<Sequence>,
    /// The gap to declare, if any.
    pub gap: Option<Gap>,
    /// True if a cursor was accepted without a gap.
    pub resumed: bool,
    /// True if the client requested a position, so `caught_up` must be sent.
    pub asked: bool,
}

impl Start {
    /// Start at the current end, with no position requested.
    pub const NOW: Start = Start { position: None, gap: None, resumed: false, asked: false };
}

/// Resolves the position that a client requested.
///
/// # Errors
/// The log could not be read. Only `since` reads it.
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

/// Like [`resolve`], for positions that need no read. Returns `None` for [`From::Since`].
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
        // A cursor of a newer epoch, or with a higher counter in this one, was never issued by this log. The
        // log's end is above the visible head while a change waits for its commit: an event published behind
        // that change already has its id, and its publisher may resume from it.
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
