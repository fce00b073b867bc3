//! The body of a request while it arrives, within its size limit, its organization's share of incoming
//! bodies, and its time limit.
//!
//! * An incomplete body counts with the bytes received, until it is dropped.
//! * Most bodies have come with their heads: a clock is read only where there is something to wait for.
//! * Time that its reader takes is not the client's: it is added to what the body as a whole may take.
//! * What is left of a body when its request is answered is read and dropped if it is short ([`discard`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use tokio::time::Instant;

use crate::connection::byte_shares::{ByteClaim, FREE_BYTES};
use crate::error_response::ErrorResponse;
use crate::ids::TenantId;
use crate::worker::SharedState;

/// Most bytes of a body that are read and dropped, so that its connection serves the next request.
pub(super) const DISCARD_BYTES: u64 = 64 * 1024;
/// How long an answer waits for those bytes.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// Reads what is left of the body of a request that is answered, and drops it. Returns false if some is left:
/// it is longer than [`DISCARD_BYTES`], it did not come within [`DISCARD_TIME`], or it broke off.
pub(super) async fn discard(mut body: Incoming) -> bool {
    if body.size_hint().lower() > DISCARD_BYTES {
        return false;
    }
    let mut left = DISCARD_BYTES;
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(length) else { return false };
            left = rest;
        }
        true
    };
    tokio::time::timeout(DISCARD_TIME, read).await.unwrap_or(false)
}

/// A body of which some may be still to come.
pub(super) struct IncomingBody {
    body: Incoming,
    shared: Arc<SharedState>,
    /// Maximum of bytes of the body.
    limit: usize,
    /// Bytes that count in addition to the body.
    head: usize,
    /// Bytes received.
    received: usize,
    /// When the body was first waited for, moved forward by the time that its reader has spent on its parts.
    started: Option<Instant>,
    /// True for a body that stays open while its sender has nothing to send: it has no time limit, and counts
    /// with what is kept of it only.
    is_open: bool,
    /// When the last part was passed on, if the body was waited for before.
    handed_over: Option<Instant>,
    claim: ByteClaim,
}

impl IncomingBody {
    /// Reads `body`, of which at most `limit` bytes are read. It counts against the share of `tenant`,
    /// together with `head` bytes.
    pub(super) fn new(
        body: Incoming,
        shared: &Arc<SharedState>,
        limit: usize,
        tenant: Option<TenantId>,
        head: usize,
    ) -> IncomingBody {
        let claim = shared.incoming.claim(tenant);
        let shared = shared.clone();
        IncomingBody {
            body,
            shared,
            limit,
            head,
            received: 0,
            started: None,
            is_open: false,
            handed_over: None,
            claim,
        }
    }

    /// Lets the body stay open: its reader decides how long.
    pub(super) fn stay_open(&mut self) {
        self.is_open = true;
    }

    /// Checks, before any of it is read, whether it may be read.
    ///
    /// # Errors
    /// 413 where it says that it is larger than its limit; 429 over the share.
    pub(super) fn admit(&mut self) -> Result<(), ErrorResponse> {
        if self.body.size_hint().lower() > self.limit as u64 {
            return Err(ErrorResponse::too_large(self.limit));
        }
        if !self.body.is_end_stream() {
            self.claim.set(self.head)?;
        }
        Ok(())
    }

    /// What is left of it, which counts no longer.
    pub(super) fn into_rest(self) -> Incoming {
        self.body
    }

    /// Reads the next part; `None` after the last one.
    ///
    /// # Errors
    /// 413 over the limit; 429 over the share; 408 if the body stops arriving or takes too long; 400 if it is
    /// cut off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ErrorResponse> {
        loop {
            let frame = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None if self.is_open => self.body.frame().await,
                None => self.wait().await?,
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| ErrorResponse::bad_request("the body was cut off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if self.received + data.len() > self.limit {
                return Err(ErrorResponse::too_large(self.limit));
            }
            self.received = if self.is_open { data.len() } else { self.received + data.len() };
            self.count_kept(0)?;
            self.handed_over = self.started.map(|_| Instant::now());
            return Ok(Some(data));
        }
    }

    /// Waits for the next frame of the body, within the time limits.
    async fn wait(&mut self) -> Result<Option<hyper::Result<Frame<Bytes>>>, ErrorResponse> {
        let now = Instant::now();
        let spent = self.handed_over.take().map_or(Duration::ZERO, |handed_over| now - handed_over);
        let started = self.started.map_or(now, |started| started + spent);
        self.started = Some(started);
        let config = &self.shared.config;
        let (stopped, late) = (now + config.body_timeout(), started + config.receive_time(self.received));
        tokio::time::timeout_at(stopped.min(late), self.body.frame()).await.map_err(|_| {
            let message = match stopped <= late {
                true => "the body stopped arriving",
                false => "the body was not received completely in time",
            };
            ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, "BAD_REQUEST", message)
        })
    }

    /// Counts `bytes` of memory for what was made from the body so far, if that is clearly more than what has
    /// arrived.
    ///
    /// # Errors
    /// 429 over the share.
    pub(super) fn count_kept(&mut self, bytes: usize) -> Result<(), ErrorResponse> {
        if !self.is_over() {
            self.claim.set(self.head + self.received.max(bytes.saturating_sub(FREE_BYTES)))?;
        }
        Ok(())
    }

    /// Returns true if the part that was passed on last is the last one, as far as that is known.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Returns the length of the body in bytes, as far as it is known.
    pub(super) fn expected(&self) -> usize {
        (self.body.size_hint().lower() as usize).saturating_add(self.received)
    }
}
