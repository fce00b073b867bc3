//! The caller of a request, and the body of a request that writes.
//!
//! Each write counts against the organization's publish rate before it waits for its turn on the worker.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::auth::{Authorized, Principal, Right, Subscribe};
use crate::domain::{Caller, ResourceError};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::idempotency::{self, KeyedRequest};
use crate::http::request::parameters::no_parameters;
use crate::http::response::ApiResponse;
use crate::store::Rows;
use crate::tenant::rate::RateCharge;
use crate::worker::Worker;

/// The caller of a request on this worker.
pub(super) type HttpCaller<'a> = Caller<'a, Rc<Worker>>;

/// Returns the caller of a request that reads.
pub(super) async fn reader<'a>(
    request: &'a ApiRequest,
    right: &Authorized<Subscribe>,
) -> Result<HttpCaller<'a>, ErrorResponse> {
    caller(request, right.principal().clone()).await
}

/// A request that writes: the right it uses, and its body, both parsed and raw.
pub(super) struct WriteRequest<'a, T, R> {
    pub(super) request: &'a ApiRequest,
    pub(super) right: Authorized<R>,
    pub(super) caller: HttpCaller<'a>,
    pub(super) body: T,
    pub(super) bytes: Bytes,
}

/// Reads a request that writes. It has a JSON body and no parameters.
pub(super) async fn write_request<T: DeserializeOwned, R: Right>(
    request: &mut ApiRequest,
    right: Authorized<R>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    batch_write_request(request, right, |_: &T| Ok(1)).await
}

/// Like [`write_request`], for a body with as many writes as `count` returns.
pub(super) async fn batch_write_request<T: DeserializeOwned, R: Right>(
    request: &mut ApiRequest,
    right: Authorized<R>,
    count: impl FnOnce(&T) -> Result<usize, ErrorResponse>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    no_parameters(request)?;
    let read = request.json_and_bytes().await?;
    write_request_with(request, right, read, count).await
}

/// Like [`write_request`], for a body that may be an array.
pub(super) async fn write_request_from_array<T: DeserializeOwned, R: Right>(
    request: &mut ApiRequest,
    right: Authorized<R>,
    count: impl FnOnce(&T) -> Result<usize, ErrorResponse>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    no_parameters(request)?;
    let read = request.json_or_array().await?;
    write_request_with(request, right, read, count).await
}

async fn write_request_with<T, R: Right>(
    request: &ApiRequest,
    right: Authorized<R>,
    (body, bytes): (T, Bytes),
    count: impl FnOnce(&T) -> Result<usize, ErrorResponse>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    let writes = count(&body)?;
    let caller = begin_batch_write(request, &right, bytes.len(), writes).await?;
    Ok(WriteRequest { request, right, caller, body, bytes })
}

/// Returns the caller of a request that writes, with a body of `bytes`.
pub(super) async fn begin_write<'a, R: Right>(
    request: &'a ApiRequest,
    right: &Authorized<R>,
    bytes: usize,
) -> Result<HttpCaller<'a>, ErrorResponse> {
    begin_batch_write(request, right, bytes, 1).await
}

/// Returns the caller of a request with several writes.
async fn begin_batch_write<'a, R: Right>(
    request: &'a ApiRequest,
    right: &Authorized<R>,
    bytes: usize,
    writes: usize,
) -> Result<HttpCaller<'a>, ErrorResponse> {
    let now_ms = request.shared().clock.now_ms();
    let charge = request.shared().tenants.rates().publish(right.principal(), writes, now_ms)?;
    request.worker.enter(right.principal().tenant, bytes).await;
    Ok(Caller { charge, ..caller(request, right.principal().clone()).await? })
}

pub(super) async fn caller(
    request: &ApiRequest,
    principal: Arc<Principal>,
) -> Result<HttpCaller<'_>, ErrorResponse> {
    let tenant = request.tenant(&principal).await?;
    let rights = request.shared().auth.still_valid(&principal)?;
    let (tenants, auth) = (&request.shared().tenants, &request.shared().auth);
    let charge = RateCharge::DUE;
    Ok(Caller { tenants, auth, tenant, principal, rights, charge, commit_waiter: &request.worker })
}

/// Creates something, once for the request's `Idempotency-Key`. `make` receives the function that returns the
/// rows to add to its commit.
pub(super) async fn create_once<M, R: Right>(
    request: &ApiRequest,
    right: &Authorized<R>,
    body: &[u8],
    answer: impl Fn(&M) -> ApiResponse,
    make: impl AsyncFnOnce(&dyn Fn(&M) -> Rows) -> Result<M, ResourceError>,
) -> HandlerResult {
    let guard = match idempotency::begin(request.shared(), request, right, body).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let made = make(&|made: &M| idempotency::response_rows(guard.as_ref(), || answer(made))).await?;
    Ok(answer(&made))
}
