//! One request and its response, each over its own connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::within;

/// A request builder.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    to: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    pub(crate) fn new(to: SocketAddr, method: &str, path: &str) -> Call {
        Call { to, method: method.into(), path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Replaces the header, whatever its case.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Call {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    /// `Authorization: Bearer` with an API key or a JWT.
    pub(crate) fn key(self, credential: &str) -> Call {
        self.header("authorization", format!("Bearer {credential}"))
    }

    /// Removes the credential header.
    pub(crate) fn anonymous(mut self) -> Call {
        self.headers.retain(|(name, _)| name != "authorization");
        self
    }

    pub(crate) fn json(self, body: &Value) -> Call {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(self, content_type: &str, body: impl Into<Bytes>) -> Call {
        let mut call = self.header("content-type", content_type);
        call.body = body.into();
        call
    }

    /// Sets a body without a content type.
    pub(crate) fn bare_body(mut self, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self
    }

    /// Sends the request and reads the whole response.
    pub(crate) async fn send(self) -> Reply {
        let what = format!("the answer to {} {}", self.method, self.path);
        within(&what, async { self.try_send().await.unwrap() }).await
    }

    /// As `send`, for a daemon that may end before it has responded.
    pub(crate) async fn try_send(self) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.to).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let host = self.to.to_string();
        let mut request =
            http::Request::builder().method(self.method.as_str()).uri(&self.path).header("host", host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(self.body))?).await;
        let (head, body) = answer?.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

/// A complete response.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `data.ids` of a publish response.
    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<String> {
        let json = self.json();
        let ids = json["data"]["ids"].as_array().unwrap_or_else(|| panic!("no ids in {self:?}"));
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Checks that this is an error response with this status and code. Returns its body.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let json = self.json();
        assert_eq!(json["code"], code, "{self:?}");
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["code", "details", "message", "timestamp"], "{self:?}");
        assert!(json["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        let timestamp = json["timestamp"].as_str().unwrap_or_else(|| panic!("{self:?}"));
        assert!(super::is_timestamp(timestamp), "{timestamp}");
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        json
    }
}
