//! `GET /api/v1/events`: history and long-poll in one, over the same log and ring as every subscription.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Subscribe, Use};
use crate::filter::Selection;
use crate::frame::Frame;
use crate::frame::control::GapReason;
use crate::ids::Sequence;
use crate::outcome::Refusal;
use crate::store::LogRead;
use crate::tenant::Tenant;
use crate::tenant::start::{self, From, Gap};

use super::api::parameters::{HistoryPage, LastEventId, Subscription};
use super::criteria::Criteria;
use super::exchange::Exchange;
use super::parameters::number;
use super::respond::Answer;

/// Most events of one answer.
pub const LIMIT: usize = 1_000;
const DEFAULT_LIMIT: usize = 100;
/// Longest wait, seconds.
pub const WAIT_SECONDS: u64 = 60;
/// A waiting poll looks at its credential, and whether the daemon stops, at least this often.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of events in one answer; at least one event goes.
const ANSWER_BYTES: usize = 4 << 20;

struct Asked {
    from: From,
    limit: usize,
    wait: Duration,
    selection: Selection,
}

/// Events found, and how far was looked.
struct Found {
    frames: Vec<Arc<Frame>>,
    bytes: usize,
    position: Sequence,
    gap: Option<Gap>,
    caught_up: bool,
}

/// What follows the events of an answer. They are spliced in as they were encoded, so that none is encoded again.
#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
struct Rest<'a> {
    /// Where the next question goes on: past all that was looked at, whether it matched or not.
    next_cursor: &'a str,
    /// What is missing before the first event.
    gap: Option<GapView<'a>>,
    /// Whether there is nothing more by now.
    caught_up: bool,
    /// Always `true`.
    success: bool,
}

/// Events that are missing: fetch the state anew.
#[derive(Serialize, ToSchema)]
#[schema(as = Gap)]
struct GapView<'a> {
    /// The cursor or time that was asked for, cut to 64 bytes.
    after: &'a str,
    /// Where it goes on.
    resumes_at: String,
    /// `trimmed`: from the oldest event that is kept; `unknown_cursor`: from now on.
    reason: &'static str,
}

/// Answers events after a position, or waits for the first.
///
/// # Errors
/// 400, 401, 403, 429, 503.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(Subscription, HistoryPage, LastEventId),
    responses((status = 200, description = "Events, and where to go on.", body = Rest))
)]
pub async fn get(x: &mut Exchange) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Stream)?;
    principal.authorize::<Subscribe>()?;
    let mut asked = parameters(x)?;
    let tenant = x.tenant(&principal).await?;
    // A waiting poll is a connection: it takes a place in every limit.
    let waiting = asked.wait > Duration::ZERO;
    let _admitted =
        waiting.then(|| x.shared().admission.admit_poll(principal.clone(), x.peer)).transpose()?;
    let start = start::resolve(x.shared().tenants.store(), &tenant, &asked.from).await?;
    let position = start.position.unwrap_or_else(|| tenant.head());
    let mut found = Found { frames: Vec::new(), bytes: 0, position, gap: start.gap, caught_up: false };
    let deadline = tokio::time::Instant::now() + asked.wait;
    let watch = x.worker.watch(&tenant);
    loop {
        let news = watch.news(); // before looking, so that nothing comes unnoticed between looking and waiting
        // Today's rights, also after a long wait.
        match x.shared().auth.still_valid(&principal) {
            Ok(rights) => asked.selection.rights = rights,
            Err(ended) if found.frames.is_empty() => return Err(ended.into()),
            Err(_) => break,
        }
        read_on(x, &tenant, &asked, &mut found).await?;
        let stop = !found.frames.is_empty() || found.gap.is_some() || x.shared().is_stopping();
        let now = tokio::time::Instant::now();
        if stop || !found.caught_up || now >= deadline {
            break;
        }
        tokio::select! {
            () = news => {}
            () = x.worker.stopped() => {}
            () = tokio::time::sleep_until(deadline.min(now + LOOK)) => {} // rights may have changed: look again
        }
    }
    Ok(answer(x, &tenant, &found))
}

/// Reads until the end or the limit.
async fn read_on(
    x: &Exchange,
    tenant: &Arc<Tenant>,
    asked: &Asked,
    found: &mut Found,
) -> Result<(), Refusal> {
    let mut ring = Vec::new();
    loop {
        ring.clear();
        match x.worker.read_ring(tenant, found.position, &mut ring) {
            crate::ring::Read::AtHead => {
                found.caught_up = true;
                return Ok(());
            }
            crate::ring::Read::Frames => {
                if !found.take(asked, ring.drain(..)) {
                    return Ok(());
                }
            }
            crate::ring::Read::Behind { .. } => {
                match x.shared().tenants.store().read_log(tenant.log(), found.position).await? {
                    LogRead::Page(page) => {
                        if !found.take(asked, page.frames().iter().map(|frame| Arc::new(frame.clone()))) {
                            return Ok(());
                        }
                    }
                    LogRead::Gap { resumes_at } => {
                        let after = x.shared().tenants.cursors().encode(tenant.id(), found.position);
                        found.gap = Some(Gap {
                            after: after.as_str().into(),
                            reason: GapReason::Trimmed,
                            resumes_at,
                        });
                        found.position = resumes_at;
                    }
                    LogRead::End { committed } => {
                        // A new epoch has begun: its first position is the log's end.
                        found.position = found.position.max(committed);
                    }
                }
            }
        }
    }
}

impl Found {
    /// Adds those that are asked for. Returns false when the answer is full.
    fn take(&mut self, asked: &Asked, frames: impl Iterator<Item = Arc<Frame>>) -> bool {
        for frame in frames {
            let sequence = frame.sequence();
            if asked.selection.matches(&frame) {
                let size = frame.json().len();
                if self.frames.len() == asked.limit || (self.bytes + size > ANSWER_BYTES && self.bytes > 0) {
                    self.caught_up = false;
                    return false;
                }
                self.bytes += size;
                self.frames.push(frame);
            }
            self.position = sequence;
        }
        true
    }
}

fn answer(x: &Exchange, tenant: &Tenant, found: &Found) -> Answer {
    let cursors = x.shared().tenants.cursors();
    let mut body = Vec::with_capacity(found.bytes + found.frames.len() + 256);
    body.extend_from_slice(b"{\"data\":[");
    for (at, frame) in found.frames.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(frame.json());
    }
    let gap = found.gap.as_ref().map(|gap| GapView {
        after: &gap.after[..gap.after.floor_char_boundary(crate::frame::control::AFTER_BYTES)],
        resumes_at: cursors.encode(tenant.id(), gap.resumes_at).to_string(),
        reason: gap.reason.name(),
    });
    let next = cursors.encode(tenant.id(), found.position);
    body.extend_from_slice(b"],");
    let rest = Rest { next_cursor: next.as_str(), gap, caught_up: found.caught_up, success: true };
    let rest = serde_json::to_vec(&rest).unwrap_or_default(); // texts and flags: nothing can fail
    body.extend_from_slice(rest.get(1..).unwrap_or_default()); // without its brace
    Answer::raw_json(StatusCode::OK, body)
}

fn parameters(x: &Exchange) -> Result<Asked, Refusal> {
    let (mut limit, mut wait) = (DEFAULT_LIMIT, 0);
    let (filter, from) = Criteria::read(x, |name, value| {
        match (name, value) {
            ("limit" | "wait", "") => {}
            ("limit", text) => limit = number("limit", text, 1, LIMIT as u64)? as usize,
            ("wait", text) => wait = number("wait", text, 0, WAIT_SECONDS)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let selection = Selection { filter, ..Selection::default() };
    Ok(Asked { from, limit, wait: Duration::from_secs(wait), selection })
}
