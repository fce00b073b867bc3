//! Cross-origin requests: what a browser may send from another origin, and which answers it may read (WHATWG Fetch).

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::exchange::Exchange;
use super::respond::Answer;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "authorization, content-type, x-api-key, last-event-id, idempotency-key, if-match, \
    x-producer-token, x-user-id, x-organization-id, x-request-id, traceparent";
const EXPOSED: &str = "x-request-id, Retry-After, Idempotent-Replayed, ETag";
/// Seconds a browser may remember a preflight.
const MAX_AGE: &str = "600";

/// Answers `OPTIONS`. Without an allowed origin it carries no permission, which is how the browser is told no.
#[must_use]
pub fn preflight(x: &Exchange) -> Answer {
    let mut answer = Answer { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Vec::new() };
    if allowed_origin(x).is_some() {
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            answer.headers.insert(name, HeaderValue::from_static(value));
        }
    }
    answer
}

/// The request's `Origin`, if it may read answers.
#[must_use]
pub fn allowed_origin(x: &Exchange) -> Option<HeaderValue> {
    let origin = x.headers.get(header::ORIGIN)?;
    let host = x.authority.as_deref().or_else(|| x.header(header::HOST));
    x.shared().auth.origins().allows(origin.to_str().ok()?, host).then(|| origin.clone())
}

/// Adds what an answer to a cross-origin request carries.
pub fn stamp(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// The same for a response.
pub fn stamp_response<B>(response: &mut Response<B>, origin: Option<HeaderValue>) {
    stamp(response.headers_mut(), origin);
}
