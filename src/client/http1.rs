//! HTTP/1.1 over hyper: one kept-alive connection for requests, fresh ones for streams and sockets.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::endpoint::{Endpoint, Target};
use super::{ClientError, Refusal};

/// Bytes of an answer the client holds: 1,000 events of the largest size.
const ANSWER_BYTES_MAX: usize = 80 << 20;
/// Bytes of a text that is no error body and is shown in its place.
const SHOWN_BYTES_MAX: usize = 200;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the name to a connected socket.
    pub connect: Duration,
    /// From the request to the head of the answer; a long poll needs its `wait` more.
    pub head: Duration,
    /// From the head to the end of the answer's body.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), head: seconds(30), body: seconds(60) }
    }
}

/// A request, without its credential.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    /// From `/api/v1/…` on, query included.
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Request {
    /// A request without a body. `path` is absolute and already encoded.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header; a value that cannot be one fails when sent.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut request = self.header(header::CONTENT_TYPE, content_type);
        request.body = body.into();
        request
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON if the status is 2xx (null if it is empty), else the refusal.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or [`ClientError::Shape`] for a body that is no JSON.
    pub fn json(self) -> Result<serde_json::Value, ClientError> {
        if !self.status.is_success() {
            return Err(refusal(self.status, &self.headers, &self.body));
        }
        if self.body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Shape(format!("body: {error}")))
    }
}

/// A connected byte stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub(super) type BoxIo = Pin<Box<dyn Io>>;

/// The task that drives a connection; it ends with its owner.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Kept {
    sender: SendRequest<Full<Bytes>>,
    _driver: Driver,
}

/// A client of one daemon under one credential.
pub struct Client {
    endpoint: Endpoint,
    credential: Option<Zeroizing<String>>,
    timeouts: Timeouts,
    /// The connection of the last request, if it can take another.
    kept: Option<Kept>,
}

impl Client {
    /// A client that connects at its first request. `credential` is an API key or a JWT.
    pub fn new(endpoint: Endpoint, credential: Option<String>, timeouts: Timeouts) -> Self {
        Self { endpoint, credential: credential.map(Zeroizing::new), timeouts, kept: None }
    }

    /// Where it connects.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request over the kept connection, or over a new one if that has ended, and reads the whole answer.
    ///
    /// # Errors
    /// [`ClientError`]; a status beyond 2xx is no error here, see [`Reply::json`].
    pub async fn send(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut unsent = self.prepare(request)?;
        if let Some(mut kept) = self.kept.take()
            && kept.sender.ready().await.is_ok()
        {
            match self.head_of(kept.sender.try_send_request(unsent)).await? {
                Ok(response) => return self.finish(kept, response).await,
                Err(mut error) => match error.take_message() {
                    // It never left: the peer had closed the idle connection, which is its right.
                    Some(request) => unsent = request,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut fresh = self.open().await?;
        let response =
            self.head_of(fresh.sender.try_send_request(unsent)).await?.map_err(|error| error.into_error())?;
        self.finish(fresh, response).await
    }

    /// Sends a request over a connection of its own and returns the answer with its body still to come.
    pub(super) async fn stream(
        &self,
        request: &Request,
    ) -> Result<(http::Response<Incoming>, Driver), ClientError> {
        let request = self.prepare(request)?;
        let Kept { mut sender, _driver: driver } = self.open().await?;
        let response =
            self.head_of(sender.try_send_request(request)).await?.map_err(|error| error.into_error())?;
        if response.status().is_success() {
            return Ok((response, driver));
        }
        let (parts, body) = response.into_parts();
        let body = self.collect(body).await?;
        Err(refusal(parts.status, &parts.headers, &body))
    }

    /// A connected socket, for those who speak something else than plain requests.
    pub(super) async fn connect(&self) -> Result<BoxIo, ClientError> {
        let limit = self.timeouts.connect;
        let connecting = async {
            let io: BoxIo = match &self.endpoint.target {
                Target::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::pin(stream)
                }
                Target::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            };
            Ok(io)
        };
        let connected =
            timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| ClientError::Connect { address: self.endpoint.to_string(), source })
    }

    /// The request with host, credential and body, ready for hyper or a WebSocket handshake.
    pub(super) fn prepare(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, ClientError> {
        let path = format!("{}{}", self.endpoint.prefix, request.path);
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(path)
            .header(header::HOST, self.endpoint.host.as_str())
            .header(header::USER_AGENT, concat!("nervewire/", env!("CARGO_PKG_VERSION")));
        if let Some(credential) = &self.credential {
            let bearer = Zeroizing::new(format!("Bearer {}", credential.as_str()));
            let mut value = HeaderValue::from_str(&bearer).map_err(http::Error::from)?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value.as_str());
        }
        Ok(builder.body(Full::new(request.body.clone()))?)
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    async fn open(&self) -> Result<Kept, ClientError> {
        let (sender, connection) = handshake(TokioIo::new(self.connect().await?)).await?;
        let driver = tokio::spawn(async move {
            // Its failure is told by the request that waits on it.
            let _ = connection.await;
        });
        Ok(Kept { sender, _driver: Driver(driver) })
    }

    async fn head_of<T>(&self, answer: impl Future<Output = T>) -> Result<T, ClientError> {
        let limit = self.timeouts.head;
        timeout(limit, answer).await.map_err(|_| ClientError::Timeout("the answer", limit))
    }

    async fn finish(&mut self, kept: Kept, response: http::Response<Incoming>) -> Result<Reply, ClientError> {
        let (parts, body) = response.into_parts();
        let body = self.collect(body).await?;
        self.kept = Some(kept);
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limit = self.timeouts.body;
        let whole = timeout(limit, Limited::new(body, ANSWER_BYTES_MAX).collect());
        match whole.await.map_err(|_| ClientError::Timeout("the answer's body", limit))? {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge(ANSWER_BYTES_MAX)),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => (*error).into(),
                Err(other) => ClientError::Shape(other.to_string()),
            }),
        }
    }
}

/// What an answer beyond 2xx says.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ClientError {
    let mut json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let (code, message) = (text("code"), text("message"));
    let message = message.unwrap_or_else(|| {
        let shown = body.get(..SHOWN_BYTES_MAX).unwrap_or(body);
        String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    });
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let details = json.get_mut("details").map(serde_json::Value::take).unwrap_or_default();
    let code = code.unwrap_or_default();
    ClientError::Refused(Box::new(Refusal { status: status.as_u16(), code, message, details, retry_after }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    async fn head(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        String::from_utf8(bytes).unwrap()
    }

    async fn daemon() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, head: Duration::from_millis(50), body: second };
        (listener, Client::new(endpoint, Some("key".into()), timeouts))
    }

    #[tokio::test]
    async fn one_connection_serves_several_requests() {
        let (listener, mut client) = daemon().await;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let first = head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            first
        });
        let request = Request::new(Method::GET, "/x?y");
        for _ in 0..2 {
            assert_eq!(client.send(&request).await.unwrap().json().unwrap(), serde_json::json!({}));
        }
        let head = serving.await.unwrap();
        assert!(head.starts_with("GET /base/x?y HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("authorization: Bearer key\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_is_a_timeout() {
        let (listener, mut client) = daemon().await;
        let error = client.send(&Request::new(Method::GET, "/")).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout("the answer", _)), "{error}");
        drop(listener);
    }

    #[test]
    fn a_refusal_shows_the_error_body_or_a_harmless_cut_of_what_came() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        let body = br#"{"code":"NOT_FOUND","message":"gone","details":{"a":1}}"#;
        let error = refusal(StatusCode::NOT_FOUND, &headers, body);
        assert_eq!(error.to_string(), "404 NOT_FOUND: gone {\"a\":1}");
        assert!(matches!(error, ClientError::Refused(refusal) if refusal.retry_after == Some(7)));
        let page = format!("<html>\x1b[2J{}", "x".repeat(1_000));
        let error = refusal(StatusCode::BAD_GATEWAY, &HeaderMap::new(), page.as_bytes()).to_string();
        assert!(error.starts_with("502: <html> [2Jxxx") && error.len() < 300, "{error}");
    }
}
