//! Start of a subscription: at a cursor, at a time, at the oldest event, or now; and the gap that must be
//! declared.

use crate::cursor::CursorKey;
use crate::frame::control::GapReason;
use crate::ids::Sequence;
use crate::store::{ReadError, Store, TimePosition};

use super::Tenant;

pub use crate::cursor::StartPosition;

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
pub struct ResolvedStart {
    /// The start position; `None` means the visible end at registration.
    pub position: Option<Sequence>,
    /// The gap to declare, if any.
    pub gap: Option<Gap>,
    /// True if a cursor was accepted without a gap.
    pub resumed: bool,
    /// True if the client requested a position, so `caught_up` must be sent.
    pub requested: bool,
}

impl ResolvedStart {
    /// Start at the current end, with no position requested.
    pub const NOW: ResolvedStart =
        ResolvedStart { position: None, gap: None, resumed: false, requested: false };
}

/// Resolves the position that a client requested.
///
/// # Errors
/// The log could not be read. Only `since` reads it.
pub async fn resolve(
    store: &Store,
    tenant: &Tenant,
    from: &StartPosition,
) -> Result<ResolvedStart, ReadError> {
    if let Some(start) = resolve_now(&store.cursor_key(), tenant, from) {
        return Ok(start);
    }
    let StartPosition::Since(ms) = from else { return Ok(ResolvedStart::NOW) };
    let (position, trimmed) = match store.position_since(tenant.log(), *ms).await? {
        TimePosition::At(position) => (position, false),
        TimePosition::Trimmed(position) => (position, true),
    };
    let after = crate::time::rfc3339(*ms).into();
    let gap = trimmed.then_some(Gap { after, reason: GapReason::Trimmed, resumes_at: position });
    Ok(ResolvedStart { position: Some(position), gap, resumed: false, requested: true })
}

/// Like [`resolve`], for positions that need no read. Returns `None` for [`StartPosition::Since`].
#[must_use]
pub fn resolve_now(cursors: &CursorKey, tenant: &Tenant, from: &StartPosition) -> Option<ResolvedStart> {
    match from {
        StartPosition::Now => Some(ResolvedStart::NOW),
        StartPosition::Cursor(text) => Some(after_cursor(cursors, tenant, text)),
        StartPosition::Earliest => Some(ResolvedStart {
            position: Some(tenant.log().oldest()),
            gap: None,
            resumed: false,
            requested: true,
        }),
        StartPosition::Since(_) => None,
    }
}

fn after_cursor(cursors: &CursorKey, tenant: &Tenant, text: &str) -> ResolvedStart {
    let gap = |reason, resumes_at| Some(Gap { after: text.into(), reason, resumes_at });
    let head = tenant.last_visible();
    match cursors.decode(tenant.id(), text.as_bytes()) {
        // A cursor of a newer epoch, or with a higher counter in this one, was never issued by this log. The
        // log's end is above the visible head while a change waits for its commit: an event published behind
        // that change already has its id, and its publisher may resume from it.
        Some(position) if position <= tenant.log().end() => match tenant.log().oldest() {
            oldest if position < oldest => ResolvedStart {
                position: Some(oldest),
                gap: gap(GapReason::Trimmed, oldest),
                resumed: false,
                requested: true,
            },
            _ => ResolvedStart { position: Some(position), gap: None, resumed: true, requested: true },
        },
        _ => ResolvedStart {
            position: Some(head),
            gap: gap(GapReason::UnknownCursor, head),
            resumed: false,
            requested: true,
        },
    }
}
