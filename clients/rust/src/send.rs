//! Sends requests over a few kept-alive connections, and opens streams over connections of their own.
//!
//! * A request is sent again only if no byte of it was sent, if the daemon refused its credential and there
//!   is another, or (`send_with_retries`) if repeating it does no harm.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::client::Client;
use crate::connection::{Connection, Driver};
use crate::credential::CurrentCredential;
use crate::error::ClientError;
use crate::request::{Request, Response, refused};
use crate::retry;
use crate::sync::lock;

/// Maximum size of a response, in bytes: 1,000 events of the largest size.
const RESPONSE_BYTES_MAX: usize = 80 << 20;
/// Maximum number of idle connections. Beyond it, a connection is closed after its request. Programs that
/// write many streams at once need about as many connections.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 128;

impl Client {
    /// Sends a request over an idle connection, or over a new one, and reads the whole response. If the
    /// daemon refuses the credential and there is a provider, it gets another one and sends the request once
    /// more.
    ///
    /// # Errors
    /// [`ClientError`]. A status other than 2xx is not an error here, see [`Response::json`].
    pub async fn send(&self, request: &Request) -> Result<Response, ClientError> {
        let credentials = &self.inner.credentials;
        let credential = credentials.current();
        let response = self.send_as(request, &credential).await?;
        if response.status == StatusCode::UNAUTHORIZED && credentials.renew(credential.generation).await? {
            return self.send_as(request, &credentials.current()).await;
        }
        Ok(response)
    }

    /// Sends a request and sends it again if that does no harm (it only reads, or the daemon carries it out
    /// once). It is sent again after 408, 429, 500, 502–504 and lost connections, up to
    /// [`Backoff::max_attempts`](crate::Backoff) attempts in all. Each wait is longer than the last and never
    /// shorter than `Retry-After`. `on_retry` is called with each failure and the wait after it.
    ///
    /// # Errors
    /// [`ClientError`]: the last failure, or the refusal.
    pub async fn send_with_retries(
        &self,
        request: &Request,
        mut on_retry: impl FnMut(&ClientError, Duration),
    ) -> Result<Response, ClientError> {
        let backoff = &self.inner.backoff;
        let mut failures = 0;
        loop {
            let error = match self.send(request).await.and_then(Response::error_for_status) {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            failures += 1;
            let requested = retry::request_delay(&error)
                .filter(|_| request.is_repeatable() && failures < backoff.max_attempts);
            let Some(requested) = requested else { return Err(error) };
            let wait = backoff.wait(failures, requested);
            on_retry(&error, wait);
            sleep(wait).await;
        }
    }

    async fn send_as(
        &self,
        request: &Request,
        credential: &CurrentCredential,
    ) -> Result<Response, ClientError> {
        let wait = request.wait;
        let mut request = self.prepare(request, credential)?;
        let idle = lock(&self.inner.idle).pop();
        if let Some(mut connection) = idle
            && matches!(self.limit_head(Duration::ZERO, connection.sender.ready()).await, Ok(Ok(())))
        {
            match self.limit_head(wait, connection.sender.try_send_request(request)).await? {
                Ok(response) => return self.read_response(connection, response).await,
                Err(mut error) => match error.take_message() {
                    // The request was not sent: the peer had closed the idle connection, which it may do.
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = self.send_over(&mut connection, wait, request).await?;
        self.read_response(connection, response).await
    }

    /// Sends a request over a connection of its own and returns the response before its body is read.
    pub(crate) async fn stream(
        &self,
        request: &Request,
    ) -> Result<(http::Response<Incoming>, Driver), ClientError> {
        let wait = request.wait;
        let request = self.prepare(request, &self.inner.credentials.current())?;
        let mut connection = self.open().await?;
        let response = self.send_over(&mut connection, wait, request).await?;
        if response.status().is_success() {
            return Ok((response, connection.driver));
        }
        let (parts, body) = response.into_parts();
        let body = self.read_body(body).await?;
        Err(refused(parts.status, &parts.headers, &body))
    }

    /// Returns the request with host, credential and body, ready for hyper or a WebSocket handshake.
    pub(crate) fn prepare(
        &self,
        request: &Request,
        credential: &CurrentCredential,
    ) -> Result<http::Request<Full<Bytes>>, ClientError> {
        let endpoint = &self.inner.endpoint;
        let path = format!("{}{}", endpoint.prefix, request.path);
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(path)
            .header(header::HOST, endpoint.host.as_str())
            .header(header::USER_AGENT, concat!("nervewire/", env!("CARGO_PKG_VERSION")));
        if let Some(credential) = &credential.credential {
            let bearer = Zeroizing::new(format!("Bearer {}", credential.expose()));
            let mut value = HeaderValue::from_str(&bearer).map_err(http::Error::from)?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value.as_str());
        }
        Ok(builder.body(Full::new(request.body.clone()))?)
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.inner.endpoint, self.inner.timeouts.connect).await
    }

    async fn send_over(
        &self,
        connection: &mut Connection,
        wait: Duration,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let response = self.limit_head(wait, connection.sender.try_send_request(request)).await?;
        Ok(response.map_err(|error| error.into_error())?)
    }

    /// Limits the time until the head of a response. `wait` is what a long poll adds.
    async fn limit_head<T>(&self, wait: Duration, head: impl Future<Output = T>) -> Result<T, ClientError> {
        let limit = self.inner.timeouts.head + wait;
        timeout(limit, head).await.map_err(|_| ClientError::Timeout("the response", limit))
    }

    async fn read_response(
        &self,
        connection: Connection,
        response: http::Response<Incoming>,
    ) -> Result<Response, ClientError> {
        let (parts, body) = response.into_parts();
        let body = self.read_body(body).await?;
        let mut idle = lock(&self.inner.idle);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
        drop(idle);
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limit = self.inner.timeouts.body;
        let whole = timeout(limit, Limited::new(body, RESPONSE_BYTES_MAX).collect());
        match whole.await.map_err(|_| ClientError::Timeout("the response body", limit))? {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge(RESPONSE_BYTES_MAX)),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => (*error).into(),
                Err(other) => ClientError::UnexpectedResponse(other.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timeouts;
    use http::Method;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

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
        (listener, Client::builder(endpoint).credential("key").timeouts(timeouts).build())
    }

    #[tokio::test]
    async fn one_connection_serves_several_requests() {
        let (listener, client) = daemon().await;
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
    async fn a_daemon_that_does_not_respond_is_a_timeout() {
        let (listener, client) = daemon().await;
        let error = client.send(&Request::new(Method::GET, "/")).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout("the response", _)), "{error}");
        drop(listener);
    }
}
