//! Cross-origin requests: which requests a browser may send from another origin, and which responses it may
//! read (WHATWG Fetch).

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use crate::auth::{ALLOW_HEADERS, ALLOW_METHODS, EXPOSE_HEADERS, PREFLIGHT_MAX_AGE_SECONDS};
use crate::http::response::ApiResponse;

use super::ApiRequest;

/// Answers `OPTIONS`. Without an allowed origin the response has no CORS permission, so the browser refuses
/// the request.
#[must_use]
pub fn preflight(request: &ApiRequest) -> ApiResponse {
    let mut answer =
        ApiResponse { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: [].as_slice().into() };
    if allowed_origin(request).is_some() {
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

/// The request's `Origin` if it may read responses. A refused origin is logged, because the browser does not
/// tell its page the reason.
#[must_use]
pub fn allowed_origin(request: &ApiRequest) -> Option<HeaderValue> {
    let origin = request.headers.get(header::ORIGIN)?;
    let host = request.authority.as_deref().or_else(|| request.header(header::HOST));
    let auth = &request.shared().auth;
    let text = origin.to_str().unwrap_or_default();
    if auth.origins().allows(text, host) {
        return Some(origin.clone());
    }
    if let Some(origin) = auth.refused_origin_to_log(text) {
        tracing::warn!(%origin, path = %request.path, "refused a cross-origin request; to allow this origin, add it to allowed_origins");
    }
    None
}

/// Adds the CORS headers of a response.
pub fn stamp(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
    }
}
