//! `Idempotency-Key` on requests other than publishing: the request is done once, and every repeat receives
//! the same response.
//!
//! * The row of the key is part of the commit of the change, so after any crash both exist or neither does.
//! * A repeat shows the resource as it was created, with the `ETag` of that version.
//! * A response with a secret is not stored. A repeat is answered with the id of what was created, if it has
//!   one, never with the secret.

use http::header::HeaderValue;
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

use crate::auth::{Authorized, Right};
use crate::error_response::ErrorResponse;
use crate::http::response::{ApiResponse, REPLAYED};
use crate::store::{self, Rows};
use crate::tenant::idempotency::{DedupKey, Digest, IdempotencyGuard};
use crate::worker::SharedState;

use super::ApiRequest;
use super::etag::{of_version, version_of};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, in bytes.
const KEY_BYTES: usize = 255;

/// What a request with a key must do.
pub(crate) enum KeyedRequest {
    /// Do it. `None` if the request has no key.
    First(Option<IdempotencyGuard>),
    /// Send this response of the earlier request.
    Repeat(ApiResponse),
}

/// Returns the request's key, if it has one.
///
/// # Errors
/// 400.
pub(crate) fn idempotency_key(request: &ApiRequest) -> Result<Option<String>, ErrorResponse> {
    let Some(key) = request.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match key.to_str().ok().filter(visible) {
        Some(key) if (1..=KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ErrorResponse::bad_request(format!(
            "Idempotency-Key: must be 1 to {KEY_BYTES} visible characters"
        ))),
    }
}

/// Decides whether this request is the first with its key. It waits while another one with the same key is in
/// progress.
///
/// # Errors
/// 400 for an invalid key; 401 if the credential ended during the wait; 409 if the key was used with another
/// body, or for a response with a secret; 503.
pub(crate) async fn begin(
    shared: &SharedState,
    request: &ApiRequest,
    right: &Authorized<impl Right>,
    body: &[u8],
) -> Result<KeyedRequest, ErrorResponse> {
    let Some(key) = idempotency_key(request)? else { return Ok(KeyedRequest::First(None)) };
    let principal = right.principal();
    let keyed = DedupKey::of_request(
        &principal.subject(),
        request.method.as_str(),
        &request.path,
        &key,
        Digest::of(body),
    );
    match shared.tenants.begin_keyed(shared.auth.actor(right), principal.tenant, keyed).await? {
        Ok(guard) => Ok(KeyedRequest::First(Some(guard))),
        Err(store::StoredResponse::Stored { status, version, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut answer = ApiResponse::raw_json(status, body);
            if let Some(version) = version {
                answer = of_version(answer, version);
            }
            answer.headers.insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(KeyedRequest::Repeat(answer))
        }
        Err(store::StoredResponse::Withheld { id }) => {
            let message =
                "this Idempotency-Key was used before; the response had a secret and cannot be repeated";
            let details = if id.is_empty() { Value::Null } else { json!({"id": id}) };
            Err(ErrorResponse { details, ..ErrorResponse::conflict(message) })
        }
        Err(store::StoredResponse::Published { .. }) => {
            Err(ErrorResponse::conflict("the Idempotency-Key was used to publish"))
        }
    }
}

/// Returns the rows that store a response without a secret. Without a key the response is not even built.
pub(crate) fn response_rows(guard: Option<&IdempotencyGuard>, answer: impl FnOnce() -> ApiResponse) -> Rows {
    let stored = || {
        let answer = answer();
        store::StoredResponse::Stored {
            status: answer.status.as_u16(),
            version: version_of(&answer),
            body: answer.body.into_owned(),
        }
    };
    guard.map_or_else(Rows::new, |guard| guard.rows(stored()))
}

/// Returns the rows that remember that something with a secret was created.
pub(crate) fn secret_response_rows(guard: Option<&IdempotencyGuard>, id: &str) -> Rows {
    guard.map_or_else(Rows::new, |guard| guard.rows(store::StoredResponse::Withheld { id: id.to_owned() }))
}

/// Commits the rows of [`secret_response_rows`]. This is for results that are not stored, so that the row is
/// all there is to commit.
///
/// # Errors
/// 503.
pub(crate) async fn record_secret_response(
    shared: &SharedState,
    right: &Authorized<impl Right>,
    guard: Option<&IdempotencyGuard>,
    id: &str,
) -> Result<(), ErrorResponse> {
    if guard.is_some() {
        let mut rows = secret_response_rows(guard, id);
        rows.hold_reservation(shared.tenants.store().reserve(right.principal().tenant, rows.growth())?);
        shared.tenants.write(shared.auth.actor(right), rows).await?;
    }
    Ok(())
}
