//! Start of a subscription to named streams: from their first chunk, or after a cursor.

use std::sync::Arc;

use super::state::Stream;
use crate::filter::Rights;
use crate::frame::control::GapReason;
use crate::ids::Sequence;
use crate::store::ReadError;
use crate::tenant::start::{Gap, ResolvedStart, StartPosition, resolve};
use crate::tenant::{Tenant, Tenants};

/// Where a subscription to streams starts.
#[derive(Debug)]
pub struct StreamStart {
    /// The position.
    pub start: ResolvedStart,
    /// Each stream in the order of the request; `None` for one that does not exist, or that the reader may not
    /// see.
    pub streams: Vec<Option<Stream>>,
    /// True if every stream has ended and the reader has read all of them.
    pub is_over: bool,
}

/// Resolves the start of a subscription to the streams `ids`. A position from which the log has gone is no
/// gap here, because the text of streams is kept apart from it.
///
/// # Errors
/// [`ReadError`].
pub async fn start_streams(
    tenants: &Tenants,
    tenant: &Arc<Tenant>,
    ids: &[&str],
    rights: &Rights,
    from: &StartPosition,
) -> Result<StreamStart, ReadError> {
    let now = tenant.last_visible();
    let streams = tenants.visible_streams(tenant, ids, rights).await?;
    let resolved = resolve(tenants.store(), tenant, from).await?;
    let known = streams.iter().flatten();
    let Some(begin) = known.map(|stream| Sequence(stream.opened_after)).min() else {
        // Chunks may have been published under these ids without a stream; they are in the log. A stream that
        // is opened from here on is read from its first chunk.
        let position = resolved.position.or(Some(now));
        return Ok(StreamStart { start: ResolvedStart { position, ..resolved }, streams, is_over: false });
    };
    let start = match (from, resolved.gap) {
        (StartPosition::Cursor(_), Some(Gap { reason: GapReason::UnknownCursor, after, .. })) => {
            // What the reader has is not known, so it starts anew and gets a `gap`.
            let gap = Some(Gap { after, reason: GapReason::UnknownCursor, resumes_at: begin });
            ResolvedStart { position: Some(begin), gap, resumed: false, requested: true }
        }
        (StartPosition::Cursor(text), _) => {
            let position = tenants.cursors().decode(tenant.id(), text.as_bytes()).unwrap_or(begin);
            let position = position.max(begin);
            ResolvedStart { position: Some(position), gap: None, resumed: true, requested: true }
        }
        (StartPosition::Since(_), _) => {
            let position = resolved.position.unwrap_or(begin);
            let position = position.max(begin);
            ResolvedStart { position: Some(position), gap: None, resumed: false, requested: true }
        }
        (StartPosition::Now | StartPosition::Earliest, _) => {
            let requested = *from == StartPosition::Earliest;
            ResolvedStart { position: Some(begin), gap: None, resumed: false, requested }
        }
    };
    let position = start.position.unwrap_or(begin);
    let is_over =
        streams.iter().all(|stream| stream.as_ref().and_then(Stream::end).is_some_and(|end| end <= position));
    Ok(StreamStart { start, streams, is_over })
}

impl Tenants {
    /// Returns streams as they are now; `None` for one that does not exist, or that a reader with these rights
    /// may not see.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn visible_streams(
        &self,
        tenant: &Arc<Tenant>,
        ids: &[&str],
        rights: &Rights,
    ) -> Result<Vec<Option<Stream>>, ReadError> {
        let (views, _) = self.streams(tenant, ids).await?;
        let visible = |stream: &Stream| stream.is_visible(rights);
        Ok(views.into_iter().map(|view| view.map(|view| view.stream).filter(visible)).collect())
    }
}
