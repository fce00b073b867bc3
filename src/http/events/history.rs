//! `GET /api/v1/events`: history and long-poll in one request, over the same log and ring as subscriptions.

use std::time::Duration;

use http::StatusCode;

use crate::auth::{Authorized, Subscribe};
use crate::error_response::ErrorResponse;
use crate::filter::Selection;
use crate::http::Handled;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{HISTORY_EVENTS, HISTORY_WAIT_SECONDS, number};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{HistoryParameters, LastEventId, SubscriptionParameters};
use crate::tenant::start::{self, StartPosition};

use super::history_reader::{
    CLAIM_BYTES, EventPageTail, HistoryReader, Progress, ReadOutcome, RemainingBody, WHOLE_BYTES,
};
use super::stream_query::StreamQuery;

const DEFAULT_LIMIT: usize = 100;
/// A waiting poll checks its credential, and whether the daemon is stopping, at least this often.
const LOOK: Duration = Duration::from_secs(1);
struct HistoryQuery {
    from: StartPosition,
    limit: usize,
    wait: Duration,
    selection: Selection,
}

/// Lists events after a position, or waits for the first one.
///
/// # Errors
/// 400, 401, 403, 429, 503.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(SubscriptionParameters, HistoryParameters, LastEventId),
    responses((status = 200, description = "Events, and the cursor of the next page.", body = EventPageTail))
)]
pub async fn list(request: &mut ApiRequest, right: Authorized<Subscribe>) -> Result<Handled, ErrorResponse> {
    let request = &*request;
    let principal = right.principal().clone();
    let query = history_query(request)?;
    let tenant = request.tenant(&principal).await?;
    // A waiting poll is a connection: it takes a permit of every limit.
    let waiting = query.wait > Duration::ZERO;
    let admitted = waiting
        .then(|| request.shared().admission.admit_poll(principal.clone(), request.peer))
        .transpose()?;
    let start = start::resolve(request.shared().tenants.store(), &tenant, &query.from).await?;
    let mut progress = Progress::at(start.position.unwrap_or_else(|| tenant.last_visible()), start.gap);
    let deadline = tokio::time::Instant::now() + query.wait;
    let watch = request.worker.watch(&tenant);
    let worker = request.worker.clone();
    let HistoryQuery { limit, selection, .. } = query;
    let mut reader = HistoryReader { worker, tenant, principal, admitted, selection, limit };
    let outcome = loop {
        // taken before reading, so that no event is missed between reading and waiting
        let news = watch.events_seen();
        reader.renew()?; // the rights may have changed during a long wait
        let outcome = reader.read_on(&mut progress, WHOLE_BYTES).await?;
        let stop = progress.found > 0 || progress.gap.is_some() || request.shared().is_stopping();
        let now = tokio::time::Instant::now();
        if stop || !progress.caught_up || now >= deadline {
            break outcome;
        }
        tokio::select! {
            () = news => {}
            () = request.worker.stopped() => {}
            // the rights may have changed: check them again
            () = tokio::time::sleep_until(deadline.min(now + LOOK)) => {}
        }
    };
    if outcome == ReadOutcome::Ended {
        return Ok(ApiResponse::raw_json(StatusCode::OK, reader.end(progress).into_bytes()).into());
    }
    let claim = request.claim_unread(CLAIM_BYTES)?;
    let head = ApiResponse::raw_json(StatusCode::OK, Vec::new());
    Ok(Handled::Streamed(head, Box::new(RemainingBody::new(reader, progress)), claim))
}

fn history_query(request: &ApiRequest) -> Result<HistoryQuery, ErrorResponse> {
    let (mut limit, mut wait) = (DEFAULT_LIMIT, 0);
    let (filter, from) = StreamQuery::read(request, |name, value| {
        match (name, value) {
            ("limit" | "wait", "") => {}
            ("limit", text) => limit = number("limit", text, 1, HISTORY_EVENTS as u64)? as usize,
            ("wait", text) => wait = number("wait", text, 0, HISTORY_WAIT_SECONDS)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let selection = Selection { filter, ..Selection::default() };
    Ok(HistoryQuery { from, limit, wait: Duration::from_secs(wait), selection })
}
