//! Cross-origin requests: what a browser may send from another origin, and which answers it may read (WHATWG Fetch).

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use crate::auth::{ALLOW_HEADERS, ALLOW_METHODS, EXPOSE_HEADERS, PREFLIGHT_MAX_AGE_SECONDS};

use super::exchange::Exchange;
use super::respond::Answer;

/// Answers `OPTIONS`. Without an allowed origin it carries no permission, which is how the browser is told no.
#[must_use]
pub fn preflight(x: &Exchange) -> Answer {
    let mut answer =
        Answer { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: [].as_slice().into() };
    if allowed_origin(x).is_some() {
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOW_METHODS)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS)),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE_SECONDS)),
        ] {
            answer.headers.insert(name, value);
        }
    }
    answer
}

/// The request's `Origin`, if it may read answers. One that may not is logged: the browser tells its page nothing of why.
#[must_use]
pub fn allowed_origin(x: &Exchange) -> Option<HeaderValue> {
    let origin = x.headers.get(header::ORIGIN)?;
    let host = x.authority.as_deref().or_else(|| x.header(header::HOST));
    let auth = &x.shared().auth;
    let text = origin.to_str().unwrap_or_default();
    if auth.origins().allows(text, host) {
        return Some(origin.clone());
    }
    if let Some(origin) = auth.refused_origin_to_log(text) {
        tracing::warn!(%origin, path = %x.path, "a page of this origin was refused; allowed_origins names those that may");
    }
    None
}

/// Adds what an answer to a cross-origin request carries.
pub fn stamp(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
    }
}
