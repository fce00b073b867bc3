//! A request without its credential, a complete response, and time limits. It has no socket.
//!
//! * `Debug` shows neither header values nor bodies, because they may contain passwords, keys and tokens.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ApiError, ClientError};

/// Maximum bytes of a body that is not an error body and is shown as the message.
const SHOWN_BYTES_MAX: usize = 200;
/// Maximum bytes of a request id that is kept.
const REQUEST_ID_BYTES_MAX: usize = 128;
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Time limits of each step.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From name resolution to a connected socket.
    pub connect: Duration,
    /// From the request to the head of the response. A long poll adds its `wait`.
    pub head: Duration,
    /// From the head to the end of the response body.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), head: seconds(30), body: seconds(60) }
    }
}

/// A request, without its credential.
#[derive(Clone)]
pub struct Request {
    pub(crate) method: Method,
    /// The path from `/api/v1/…` on, with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
    /// How long the daemon may wait before it responds, in addition to [`Timeouts::head`].
    pub(crate) wait: Duration,
    /// Whether the daemon carries it out once, however often it is sent, without an idempotency key.
    idempotent: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{} {path} ({} bytes)", self.method, self.body.len())
    }
}

impl Request {
    /// Creates a request without a body. `path` is absolute and already encoded.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let idempotent = method.is_safe();
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            wait: Duration::ZERO,
            idempotent,
        }
    }

    /// Adds a header. An invalid value fails when the request is sent.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body and its content type.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut request = self.header(header::CONTENT_TYPE, content_type);
        request.body = body.into();
        request
    }

    /// Sets a JSON body.
    ///
    /// # Errors
    /// [`ClientError::Body`].
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self, ClientError> {
        Ok(self.body("application/json", serde_json::to_vec(body).map_err(ClientError::Body)?))
    }

    /// Sets the idempotency key, under which the daemon carries out the request once, however often it is
    /// sent within 24 hours (protocol §7).
    #[must_use]
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Sets how long the daemon may wait before it responds to a long poll. The time limit of the head is
    /// longer by this.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Marks a request that changes something, and does not change more if it is sent again.
    #[must_use]
    pub(crate) fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Returns true if the request may be sent more than once without harm.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.idempotent || self.headers.iter().any(|(name, _)| *name == IDEMPOTENCY_KEY)
    }
}

/// A complete response.
#[derive(Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

impl Response {
    /// Returns the body as JSON if the status is 2xx (null if it is empty), else the refusal.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or [`ClientError::UnexpectedResponse`] for a body that is not JSON.
    pub fn json(self) -> Result<serde_json::Value, ClientError> {
        let response = self.error_for_status()?;
        if response.body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        response.decode()
    }

    /// Returns the response itself if the status is 2xx, else the refusal.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub fn error_for_status(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(refused(self.status, &self.headers, &self.body))
    }

    /// Returns the body of a 2xx response as this type.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        // The error names the position, not the content: serde's text may quote the body, which may hold a
        // secret.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (category, line, column) = (error.classify(), error.line(), error.column());
            ClientError::UnexpectedResponse(format!(
                "body: {category:?} error at line {line}, column {column}"
            ))
        })
    }

    /// Returns `data` in the body of a 2xx response as this type.
    pub(crate) fn decode_data<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        #[derive(serde::Deserialize)]
        struct Enveloped<T> {
            data: T,
        }
        self.decode::<Enveloped<T>>().map(|enveloped| enveloped.data)
    }
}

/// Returns the error for a response whose status is not 2xx.
pub(crate) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ClientError {
    let mut json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let (code, message) = (text("code"), text("message"));
    let message = message.unwrap_or_else(|| {
        let shown = body.get(..SHOWN_BYTES_MAX).unwrap_or(body);
        String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    });
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(header::RETRY_AFTER).and_then(|text| text.parse().ok());
    let request_id = header(REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX).map(str::to_owned);
    let details = json.get_mut("details").map(serde_json::Value::take).unwrap_or_default();
    let (code, status) = (code.unwrap_or_default(), status.as_u16());
    ClientError::Refused(Box::new(ApiError { status, code, message, details, retry_after, request_id }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_refusal_shows_the_error_body_or_the_printable_start_of_another_body() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        headers.insert(REQUEST_ID, HeaderValue::from_static("r-1"));
        let body = br#"{"code":"NOT_FOUND","message":"gone","details":{"a":1}}"#;
        let error = refused(StatusCode::NOT_FOUND, &headers, body);
        assert_eq!(error.to_string(), "404 NOT_FOUND: gone {\"a\":1}");
        let error = error.api_error().unwrap();
        assert_eq!((error.retry_after, error.request_id.as_deref()), (Some(7), Some("r-1")));
        let page = format!("<html>\x1b[2J{}", "x".repeat(1_000));
        let error = refused(StatusCode::BAD_GATEWAY, &HeaderMap::new(), page.as_bytes()).to_string();
        assert!(error.starts_with("502: <html> [2Jxxx") && error.len() < 300, "{error}");
    }

    #[test]
    fn debug_output_and_errors_do_not_show_secrets() {
        let request = Request::new(Method::POST, "/api/v1/users/login?token=hidden")
            .header(header::COOKIE, "hidden")
            .json(&serde_json::json!({"password": "hidden"}))
            .unwrap();
        let response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: r#"{"token":"hidden""#.into(),
        };
        let error = response.decode::<Vec<u8>>().unwrap_err();
        for shown in [format!("{request:?}"), format!("{response:?}"), error.to_string()] {
            assert!(!shown.contains("hidden"), "{shown}");
        }
    }

    #[test]
    fn reads_and_requests_with_a_key_are_repeatable() {
        let post = Request::new(Method::POST, "/");
        assert!(!post.is_repeatable() && post.idempotency_key("k").is_repeatable());
        assert!(
            Request::new(Method::GET, "/").is_repeatable()
                && !Request::new(Method::DELETE, "/").is_repeatable()
        );
    }
}
