//! `/agents`, `/memories`, `/messages`, `/tools` and `/presence`: request and response types. The rules are
//! in [`crate::domain`].
//!
//! * Lists are newest first. The next page is selected by a cursor, or by `offset` for older clients.
//! * `ETag` is the version of a resource. A change with an `If-Match` of another version is refused (RFC 9110
//!   §13.1.1).

pub(super) mod agents;
pub(super) mod core_memory;
pub(super) mod memories;
pub(super) mod messages;
pub(super) mod presence;
pub(super) mod tools;
pub(super) mod users;

use std::rc::Rc;
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::{Authorized, Principal, Right, Subscribe};
use crate::domain::{Caller, PageRequest, PageStart, ResourceError};
use crate::error_response::ErrorResponse;
use crate::store::Rows;
use crate::worker::Worker;

use super::request::ApiRequest;
use super::request::etag::{if_match, of_version};
use super::request::idempotency::{self, KeyedRequest};
use super::request::parameters::{
    OFFSET_MOST, PAGE_DEFAULT, PAGE_MOST, no_parameters, number, only_parameter, unescaped, unknown,
};
use super::response::ApiResponse;

/// The caller of a request on this worker.
type HttpCaller<'a> = Caller<'a, Rc<Worker>>;

/// Returns the caller of a request that reads.
async fn reader<'a>(
    request: &'a ApiRequest,
    right: &Authorized<Subscribe>,
) -> Result<HttpCaller<'a>, ErrorResponse> {
    caller(request, right.principal().clone()).await
}

/// A request that writes: the right it uses, and its body, both parsed and raw.
struct WriteRequest<'a, T, R> {
    request: &'a ApiRequest,
    right: Authorized<R>,
    caller: HttpCaller<'a>,
    body: T,
    bytes: Bytes,
}

/// Reads a request that writes. It has a JSON body and no parameters.
async fn write_request<T: DeserializeOwned, R: Right>(
    request: &mut ApiRequest,
    right: Authorized<R>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    batch_write_request(request, right, |_: &T| Ok(1)).await
}

/// Like [`write_request`], for a body with as many writes as `count` returns.
async fn batch_write_request<T: DeserializeOwned, R: Right>(
    request: &mut ApiRequest,
    right: Authorized<R>,
    count: impl FnOnce(&T) -> Result<usize, ErrorResponse>,
) -> Result<WriteRequest<'_, T, R>, ErrorResponse> {
    no_parameters(request)?;
    let read = request.json_and_bytes().await?;
    write_request_with(request, right, read, count).await
}

/// Like [`write_request`], for a body that may be an array.
async fn write_request_from_array<T: DeserializeOwned, R: Right>(
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
async fn begin_write<'a, R: Right>(
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
    request.shared().rates.publish(right.principal(), writes, now_ms)?;
    request.worker.enter(right.principal().tenant, bytes).await;
    caller(request, right.principal().clone()).await
}

async fn caller(request: &ApiRequest, principal: Arc<Principal>) -> Result<HttpCaller<'_>, ErrorResponse> {
    let tenant = request.tenant(&principal).await?;
    let rights = request.shared().auth.still_valid(&principal)?;
    let (tenants, auth) = (&request.shared().tenants, &request.shared().auth);
    Ok(Caller { tenants, auth, tenant, principal, rights, commit_waiter: &request.worker })
}

/// Creates something, once for the request's `Idempotency-Key`. `make` receives the function that returns the
/// rows to add to its commit.
async fn create_once<M, R: Right>(
    request: &ApiRequest,
    right: &Authorized<R>,
    body: &[u8],
    answer: impl Fn(&M) -> ApiResponse,
    make: impl AsyncFnOnce(&dyn Fn(&M) -> Rows) -> Result<M, ResourceError>,
) -> Result<ApiResponse, ErrorResponse> {
    let guard = match idempotency::begin(request.shared(), request, right, body).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let made = make(&|made: &M| idempotency::response_rows(guard.as_ref(), || answer(made))).await?;
    Ok(answer(&made))
}

/// Parses the page that the query selects. Every other parameter is passed to `other`, which returns true if
/// it has handled it.
fn page(
    request: &ApiRequest,
    mut other: impl FnMut(&str, &str) -> Result<bool, ErrorResponse>,
) -> Result<PageRequest, ErrorResponse> {
    let mut page = PageRequest { from: PageStart::Offset(0), descending: true, limit: PAGE_DEFAULT };
    let (mut offset, mut cursor) = (None, None);
    for (name, value) in &request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("limit" | "offset" | "cursor" | "order", "") => {}
            ("limit", text) => page.limit = number("limit", text, 1, PAGE_MOST)? as usize,
            ("offset", text) => offset = Some(number("offset", text, 0, OFFSET_MOST)? as usize),
            ("order", "asc") => page.descending = false,
            ("order", "desc") => page.descending = true,
            ("order", _) => return Err(ErrorResponse::bad_request("order: must be asc or desc")),
            ("cursor", text) => {
                let position = position(text);
                let refused =
                    || ErrorResponse::bad_request("cursor: is not a cursor of this list; start without one");
                cursor = Some(position.ok_or_else(refused)?);
            }
            (name, value) if other(name, value)? => {}
            (name, _) => return Err(unknown(name)),
        }
    }
    page.from = match (cursor, offset) {
        (Some(_), Some(_)) => {
            return Err(ErrorResponse::bad_request("cursor and offset cannot be given together"));
        }
        (Some(position), None) => position,
        (None, offset) => PageStart::Offset(offset.unwrap_or_default()),
    };
    Ok(page)
}

fn position(text: &str) -> Option<PageStart> {
    let raw = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (number, id) = raw.split_at_checked(8)?;
    let id =
        String::from_utf8(id.to_vec()).ok().filter(|id| (1..=crate::event::ID_BYTES).contains(&id.len()))?;
    Some(PageStart::After(u64::from_be_bytes(number.try_into().ok()?), id))
}

fn cursor(position: &PageStart) -> Option<String> {
    match position {
        PageStart::Offset(_) => None,
        PageStart::After(number, id) => {
            Some(URL_SAFE_NO_PAD.encode([&number.to_be_bytes()[..], id.as_bytes()].concat()))
        }
    }
}

/// Returns 200 with a page and the cursor of the next one.
fn page_response(rows: &[impl Serialize], next: Option<&PageStart>) -> ApiResponse {
    ApiResponse::list(rows, next.and_then(cursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_its_cursor_and_nothing_else_does() {
        let at = PageStart::After(7, "agent-1".into());
        let text = cursor(&at).expect("a cursor");
        assert_eq!(position(&text), Some(at));
        for bad in ["", "AAAA", "%", &text[..10], &format!("{text}!")] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
