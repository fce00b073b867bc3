//! One request as handlers see it: its parts, its peer, its worker, and access to its body and its principal.
//!
//! The files of this folder read a request: its body, its parameters, and its headers.

mod body;
pub(super) mod client_address;
pub mod cors;
pub(super) mod etag;
pub(super) mod host;
pub(super) mod idempotency;
pub(super) mod json_error;
pub mod parameters;

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Version, header};
use hyper::body::{Body as _, Incoming};

use crate::auth::{Authorized, CredentialUse, Principal, RequestContext, Right};
use crate::connection::byte_shares::{ByteClaim, FREE_BYTES};
use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::error_response::ErrorResponse;
use crate::http::response::ApiResponse;
use crate::ids::TenantId;
use crate::tenant::Tenant;
use crate::worker::{SharedState, Worker};

use body::{IncomingBody, discard};
use json_error::JsonError;

/// Bytes of memory that a header takes besides its text.
const HEADER_OVERHEAD: usize = 100;
/// Estimated bytes of memory that a waiting request takes besides its head and body.
const REQUEST_OVERHEAD: usize = 16 * 1024;

/// A request.
pub struct ApiRequest {
    /// The worker that received the request.
    pub worker: Rc<Worker>,
    /// Address of the peer; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// Method.
    pub method: Method,
    /// Path, as sent.
    pub path: String,
    /// Query without `?`, as sent. It may contain credentials.
    pub query: String,
    /// HTTP version.
    pub version: Version,
    /// Authority, if the request target has one (HTTP/2).
    pub authority: Option<String>,
    /// Headers.
    pub headers: HeaderMap,
    /// The connection's entry among those that have not shown a valid credential.
    newcomer: Rc<UnauthenticatedSocket>,
    /// Who asks, once that is known.
    caller: RefCell<Option<Arc<Principal>>>,
    /// The body before it is read, and what is left of one that is read no further.
    body: Option<Incoming>,
    /// The body while it is read.
    incoming: Option<IncomingBody>,
}

impl ApiRequest {
    /// Splits a request into its parts.
    #[must_use]
    pub fn new(
        request: http::Request<Incoming>,
        worker: &Rc<Worker>,
        peer: Option<IpAddr>,
        newcomer: &Rc<UnauthenticatedSocket>,
    ) -> ApiRequest {
        let (parts, body) = request.into_parts();
        ApiRequest {
            worker: worker.clone(),
            peer,
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            version: parts.version,
            authority: parts.uri.authority().map(ToString::to_string),
            headers: parts.headers,
            newcomer: newcomer.clone(),
            caller: RefCell::default(),
            body: Some(body),
            incoming: None,
        }
    }

    /// What all workers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedState> {
        &self.worker.shared
    }

    /// Returns a header as text.
    #[must_use]
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the caller's principal.
    ///
    /// # Errors
    /// 401, 403 or 429.
    pub fn principal(&self, credential_use: CredentialUse) -> Result<Arc<Principal>, ErrorResponse> {
        let auth = &self.shared().auth;
        let context = RequestContext::of(
            &self.headers,
            self.authority.as_deref(),
            &self.method,
            self.peer,
            credential_use,
        );
        let found = auth.authenticate(&auth.present(&self.headers, &self.query), &context);
        let principal = found.map_err(|error| {
            self.shared().metrics.auth_failures.add(1);
            tracing::debug!(path = %self.path, peer = ?self.peer, %error, "credential refused");
            ErrorResponse::from(error)
        })?;
        self.newcomer.mark_authenticated();
        let is_first = self.caller.replace(Some(principal.clone())).is_none();
        if !self.method.is_safe() {
            // The response of such a request could not be withheld, so the request is refused before anything
            // is done.
            self.shared().unread_answers.check(self.tenant_id())?;
        }
        // The organization's rate limit counts each request once, however often the handler asks for the
        // principal.
        if is_first {
            self.shared().tenants.rates().request(principal.tenant, self.shared().clock.now_ms())?;
        }
        Ok(principal)
    }

    /// Returns proof that the caller has the right `R`.
    ///
    /// # Errors
    /// 401, 403 or 429.
    pub fn authorized<R: Right>(&self) -> Result<Authorized<R>, ErrorResponse> {
        Ok(self.principal(CredentialUse::Rest)?.authorize()?)
    }

    /// Returns an error if the credential has ended since the request was accepted. Commits check this
    /// themselves; this method is for requests that wait and commit nothing.
    ///
    /// # Errors
    /// 401.
    pub fn confirm(&self) -> Result<(), ErrorResponse> {
        match self.caller.borrow().as_ref() {
            Some(caller) => Ok(self.shared().auth.confirm(caller)?),
            None => Ok(()),
        }
    }

    /// Opens the tenant of an authenticated principal.
    ///
    /// # Errors
    /// 503 while the store cannot be read.
    pub async fn tenant(&self, principal: &Principal) -> Result<Arc<Tenant>, ErrorResponse> {
        Ok(self.shared().tenants.open(principal.tenant).await?)
    }

    /// Returns the query's parameters, unescaped, without credentials.
    ///
    /// # Errors
    /// 400: escapes that are not UTF-8, or too many.
    pub fn parameters(&self) -> Result<Vec<crate::query::Pair<'_>>, ErrorResponse> {
        let pairs = crate::query::pairs(&self.query);
        let mut pairs = pairs.map_err(|error| ErrorResponse::bad_request(error.to_string()))?;
        pairs.retain(|(name, _)| !matches!(name.as_ref(), "token" | "ticket"));
        Ok(pairs)
    }

    /// Reads the whole body, at most `limits.body_bytes`.
    ///
    /// # Errors
    /// The same as [`ApiRequest::body_within`].
    pub async fn body(&mut self) -> Result<Bytes, ErrorResponse> {
        self.body_within(self.shared().config.limits.body_bytes).await
    }

    /// Reads the whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// 413 over the limit; 429 over the organization's share of bodies on their way; 408 when it stops coming
    /// for `body_timeout_ms` or takes longer than
    /// [`Config::receive_time`](crate::config::Config::receive_time) in whole; 400 when it breaks off; 401
    /// when the credential ended before all of it came. Each of these is answered at once, before the rest of
    /// the body arrives.
    pub async fn body_within(&mut self, limit: usize) -> Result<Bytes, ErrorResponse> {
        self.begin_body(limit)?;
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(part) = self.next_part().await? {
            match first.is_empty() && joined.is_empty() {
                true => first = part,
                false => {
                    if joined.is_empty() {
                        joined.extend_from_slice(&std::mem::take(&mut first));
                    }
                    joined.extend_from_slice(&part);
                }
            }
        }
        self.end_body()?;
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    }

    /// Starts to read the body part by part, at most `limit` bytes. Returns its length in bytes, as far as it
    /// is known.
    ///
    /// # Errors
    /// 413 where it says that it is larger; 429 over the organization's share of bodies on their way.
    pub fn begin_body(&mut self, limit: usize) -> Result<usize, ErrorResponse> {
        let Some(body) = self.body.take() else { return Ok(0) };
        let tenant = self.tenant_id();
        // A request without a verified credential counts with its head: many may wait on one HTTP/2
        // connection.
        let head = if tenant.is_none() { self.head_bytes() } else { 0 };
        let mut incoming = IncomingBody::new(body, self.shared(), limit, tenant, head);
        let (admitted, expected) = (incoming.admit(), incoming.expected());
        self.incoming = Some(incoming);
        self.discard_body_if(admitted.is_err());
        admitted.map(|()| expected)
    }

    /// Starts to read a body that stays open while its sender has nothing to send. It has no limit of length
    /// and time; its reader must set them.
    ///
    /// # Errors
    /// 429 over the organization's share of bodies on their way.
    pub fn begin_open_body(&mut self) -> Result<(), ErrorResponse> {
        self.begin_body(usize::MAX)?;
        if let Some(incoming) = &mut self.incoming {
            incoming.stay_open();
        }
        Ok(())
    }

    /// Reads the next part of the body; `None` after the last one.
    ///
    /// # Errors
    /// The same as [`ApiRequest::body_within`].
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, ErrorResponse> {
        let Some(incoming) = &mut self.incoming else { return Ok(None) };
        let part = incoming.next().await;
        self.discard_body_if(part.is_err());
        part
    }

    /// Returns true if the last part of the body has arrived, as far as that is known.
    #[must_use]
    pub fn body_is_over(&self) -> bool {
        self.incoming.as_ref().is_none_or(IncomingBody::is_over)
    }

    /// Counts `bytes` of memory for what was made from the body so far.
    ///
    /// # Errors
    /// 429 over the organization's share of bodies on their way.
    pub fn count_body(&mut self, bytes: usize) -> Result<(), ErrorResponse> {
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let kept = incoming.count_kept(bytes);
        self.discard_body_if(kept.is_err());
        kept
    }

    /// Ends reading a body that has arrived completely.
    ///
    /// # Errors
    /// 401 when the credential ended before all of it came.
    pub fn end_body(&mut self) -> Result<(), ErrorResponse> {
        let confirmed = self.confirm();
        self.discard_body_if(confirmed.is_err());
        self.incoming = None;
        confirmed
    }

    fn discard_body_if(&mut self, failed: bool) {
        if failed {
            self.body = self.incoming.take().map(IncomingBody::into_rest);
        }
    }

    /// Ends the body before the answer is sent. Returns true if none of it is left, so that the next request
    /// can follow on an HTTP/1 connection: a short rest is read and dropped, unless `waits` is false or the
    /// client waits for `100 Continue`.
    pub(super) async fn discard_body(&mut self, waits: bool) -> bool {
        let began = self.incoming.is_some();
        let body = self.incoming.take().map(IncomingBody::into_rest).or_else(|| self.body.take());
        match body {
            Some(body) if body.is_end_stream() => true,
            Some(body) if waits && (began || !self.headers.contains_key(header::EXPECT)) => {
                discard(body).await
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Returns the tenant of the request, once the principal is known.
    fn tenant_id(&self) -> Option<TenantId> {
        self.caller.borrow().as_ref().map(|caller| caller.tenant)
    }

    /// Returns the estimated memory of this request without its body, in bytes.
    fn head_bytes(&self) -> usize {
        let headers =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
        REQUEST_OVERHEAD + self.path.len() + self.query.len() + headers.sum::<usize>()
    }

    /// Returns the claim that `answer` has on the organization's share of unread responses until it is read;
    /// `None` if it needs none.
    ///
    /// # Errors
    /// 429: the share is used up. The response to a change is sent anyway.
    pub fn unread_claim(&self, answer: &ApiResponse) -> Result<Option<ByteClaim>, ErrorResponse> {
        let bytes = match &answer.body {
            Cow::Owned(body) if body.len() > FREE_BYTES => body.len(),
            _ => return Ok(None),
        };
        let mut claim = self.shared().unread_answers.claim(self.tenant_id());
        match self.method.is_safe() {
            true => claim.set(bytes)?,
            false => claim.force(bytes),
        }
        Ok(Some(claim))
    }

    /// Claims `bytes` of the organization's share of unread responses, for a response that is produced while
    /// it is read.
    ///
    /// # Errors
    /// 429: the share is used up.
    pub fn claim_unread(&self, bytes: usize) -> Result<ByteClaim, ErrorResponse> {
        let mut claim = self.shared().unread_answers.claim(self.tenant_id());
        claim.set(bytes)?;
        Ok(claim)
    }

    /// Parses the body as a JSON object of type `T`. An empty body is `{}`.
    ///
    /// # Errors
    /// 415 for another content type; 400 naming what is wrong; the errors of [`ApiRequest::body`].
    pub async fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, ErrorResponse> {
        self.json_and_bytes().await.map(|(value, _)| value)
    }

    /// Like [`ApiRequest::json`]. Also returns the bytes of the body.
    ///
    /// # Errors
    /// The same as there.
    pub async fn json_and_bytes<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<(T, Bytes), ErrorResponse> {
        self.small_json(self.shared().config.limits.body_bytes).await
    }

    /// Like [`ApiRequest::json_and_bytes`], for a body of at most `limit` bytes.
    ///
    /// # Errors
    /// The same as there.
    pub async fn small_json<T: serde::de::DeserializeOwned>(
        &mut self,
        limit: usize,
    ) -> Result<(T, Bytes), ErrorResponse> {
        let body = self.json_text(limit).await?;
        // serde would accept an array's items as the fields in their order, and so set fields that the client
        // did not name.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(ErrorResponse::invalid("", "must be an object"));
        }
        read(body)
    }

    /// Like [`ApiRequest::json_and_bytes`], for a body that may also be an array.
    ///
    /// # Errors
    /// The same as there.
    pub async fn json_or_array<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<(T, Bytes), ErrorResponse> {
        read(self.json_text(self.shared().config.limits.body_bytes).await?)
    }

    async fn json_text(&mut self, limit: usize) -> Result<Bytes, ErrorResponse> {
        let body = self.body_within(limit).await?;
        if !body.is_empty() {
            self.expect_type(&["application/json"])?;
        }
        Ok(body)
    }

    /// Returns the index of the body's content type in `allowed`. If the request has none, the first one is
    /// assumed.
    ///
    /// # Errors
    /// 415.
    pub fn expect_type(&self, allowed: &[&str]) -> Result<usize, ErrorResponse> {
        let Some(given) = self.headers.get(header::CONTENT_TYPE) else { return Ok(0) };
        if allowed.first().is_some_and(|first| given == first) {
            return Ok(0);
        }
        let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        allowed.iter().position(|one| one.eq_ignore_ascii_case(given)).ok_or_else(|| {
            let message = format!("the content type must be one of {}", allowed.join(", "));
            ErrorResponse::new(http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "BAD_REQUEST", message)
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(body: Bytes) -> Result<(T, Bytes), ErrorResponse> {
    let text = if body.trim_ascii().is_empty() { b"{}" } else { body.as_ref() };
    match serde_json::from_slice(text) {
        Ok(value) => Ok((value, body)),
        Err(error) => {
            let JsonError { field, reason } = JsonError::explain::<T>(text, &error);
            Err(ErrorResponse::invalid(&field, &reason))
        }
    }
}
