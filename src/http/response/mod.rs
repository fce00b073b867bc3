//! Responses: the envelope, the error body, and the headers that every response has.

pub mod body;

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error_response::ErrorResponse;
use crate::time::Clock;

/// `x-request-id`: taken from the request, or generated.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent`: returned unchanged.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Marks a response that repeats an earlier one.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Longest request id that is accepted from a client, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// A handler's response: status, headers and a body of JSON or text.
#[derive(Debug)]
pub struct ApiResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers in addition to the common ones.
    pub headers: HeaderMap,
    /// Body.
    pub body: Cow<'static, [u8]>,
}

impl ApiResponse {
    /// Returns `{data, success:true}` with `status`.
    pub fn data(status: StatusCode, data: impl Serialize) -> ApiResponse {
        #[derive(Serialize)]
        struct Envelope<T> {
            data: T,
            success: bool,
        }
        let body = serde_json::to_vec(&Envelope { data, success: true });
        ApiResponse::raw_json(status, body.unwrap_or_default()) // structs of texts and numbers: this cannot fail
    }
    /// Returns 200 with `{data, next_cursor, success:true}`.
    pub fn list(data: &[impl Serialize], next_cursor: Option<String>) -> ApiResponse {
        #[derive(Serialize)]
        struct List<'a, T> {
            data: &'a [T],
            next_cursor: Option<String>,
            success: bool,
        }
        let body = serde_json::to_vec(&List { data, next_cursor, success: true });
        ApiResponse::raw_json(StatusCode::OK, body.unwrap_or_default()) // see above
    }
    /// Returns any JSON value.
    #[must_use]
    pub fn json(status: StatusCode, value: &Value) -> ApiResponse {
        ApiResponse::raw_json(status, value.to_string().into_bytes())
    }
    /// Returns JSON text.
    #[must_use]
    pub fn raw_json(status: StatusCode, body: Vec<u8>) -> ApiResponse {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ApiResponse { status, headers, body: body.into() }
    }
    /// Returns 204.
    #[must_use]
    pub fn empty() -> ApiResponse {
        ApiResponse { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Cow::Borrowed(&[]) }
    }
    /// Returns the error body of a refusal: `{code, message, details, timestamp}`.
    #[must_use]
    pub fn error(refusal: &ErrorResponse, clock: &dyn Clock) -> ApiResponse {
        let timestamp = crate::time::rfc3339(clock.now_ms());
        let body = json!({
            "code": refusal.code, "message": refusal.message, "details": refusal.details, "timestamp": timestamp,
        });
        let mut answer = ApiResponse::json(refusal.status, &body);
        if let Some(seconds) = refusal.retry_after {
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = refusal.allow {
            answer.headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        match refusal.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"nervewire\"");
                answer.headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            StatusCode::UPGRADE_REQUIRED => {
                answer.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                answer.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            _ => {}
        }
        answer
    }
    /// The response as bytes, for a connection that closes after it because no request could be parsed.
    #[must_use]
    pub fn to_final_bytes(mut self) -> Vec<u8> {
        self.headers.insert(REQUEST_ID, request_id(&HeaderMap::new()));
        guard(&mut self.headers);
        self.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let mut bytes = raw_head(self.status, &self.headers);
        bytes.extend_from_slice(&self.body);
        bytes
    }
    /// Combines head and body.
    #[must_use]
    pub fn into_response<B>(self, body: impl FnOnce(Cow<'static, [u8]>) -> B) -> Response<B> {
        let mut response = Response::new(body(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Sets the headers that forbid content sniffing, and caching unless the response allows it.
pub fn guard(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Returns the request's id if it is acceptable, otherwise a new one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| {
            (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::from_str(&crate::ids::fresh("req")).unwrap_or(HeaderValue::from_static("req-0"))
        })
}

/// The head of a response on a socket that was taken from hyper (HTTP/1.1).
#[must_use]
pub fn raw_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes()); // a HeaderValue cannot contain CR or LF
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
