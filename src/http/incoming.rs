//! The body of a request as it comes: within its limit, within its organization's share of bodies on their way, and in time.
//!
//! * It counts what has come of a body whose end has not, until it is dropped.
//! * Time that its reader takes is not the client's: it is added to what the body as a whole may take.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::connection::shares::{Claim, FREE_BYTES};
use crate::ids::TenantId;
use crate::outcome::Refusal;
use crate::worker::Shared;

/// A body of which some may be still to come.
pub(super) struct IncomingBody {
    body: Incoming,
    shared: Arc<Shared>,
    /// Most bytes of it.
    limit: usize,
    /// Bytes that count besides it.
    head: usize,
    /// Bytes that have come.
    received: usize,
    /// When its first part was asked for, and later by the time that was spent on its parts.
    started: Instant,
    /// When its last part was handed over.
    handed_over: Option<Instant>,
    claim: Claim,
}

impl IncomingBody {
    /// `body`, of which at most `limit` bytes are read. It counts against the share of `tenant`, together with `head` bytes.
    ///
    /// # Errors
    /// 413 where it says that it is larger; 429 over the share.
    pub(super) fn new(
        body: Incoming,
        shared: &Arc<Shared>,
        limit: usize,
        tenant: Option<TenantId>,
        head: usize,
    ) -> Result<IncomingBody, Refusal> {
        if body.size_hint().lower() > limit as u64 {
            return Err(Refusal::too_large(limit));
        }
        let mut claim = shared.incoming.claim(tenant);
        if !body.is_end_stream() {
            claim.set(head)?;
        }
        let (shared, started) = (shared.clone(), Instant::now());
        Ok(IncomingBody { body, shared, limit, head, received: 0, started, handed_over: None, claim })
    }

    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// 413 over the limit; 429 over the share; 408 when it stops coming or takes too long in whole; 400 when it breaks off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if let Some(handed_over) = self.handed_over.take() {
            self.started += handed_over.elapsed();
        }
        loop {
            let stopped = Instant::now() + self.shared.config.body_timeout();
            let late = self.started + self.shared.config.receive_time(self.received);
            let frame =
                tokio::time::timeout_at(stopped.min(late), self.body.frame()).await.map_err(|_| {
                    let message = match stopped <= late {
                        true => "the body stopped coming",
                        false => "the body did not come whole in time",
                    };
                    Refusal::new(StatusCode::REQUEST_TIMEOUT, "BAD_REQUEST", message)
                })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| Refusal::bad_request("the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if self.received + data.len() > self.limit {
                return Err(Refusal::too_large(self.limit));
            }
            self.received += data.len();
            self.keep(0)?;
            self.handed_over = Some(Instant::now());
            return Ok(Some(data));
        }
    }

    /// Counts `bytes` for what was made of it so far, where that is clearly more than what has come.
    ///
    /// # Errors
    /// 429 over the share.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<(), Refusal> {
        if !self.is_over() {
            self.claim.set(self.head + self.received.max(bytes.saturating_sub(FREE_BYTES)))?;
        }
        Ok(())
    }

    /// Whether the part that was handed over last is the last one, as far as that is known.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// How long it will be, as far as that is known, bytes.
    pub(super) fn expected(&self) -> usize {
        (self.body.size_hint().lower() as usize).saturating_add(self.received)
    }
}
