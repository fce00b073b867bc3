//! The admin listener: serves metrics and health on a thread of its own, so that a probe is answered under
//! full load. Everything else on it needs an operator's credential and an expected `Host`.
//!
//! * `metrics_page` and `exposition`: the metrics, in the formats of Prometheus.
//! * `backup`: starts and releases backups.

mod backup;
mod exposition;
mod metrics_page;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use crate::auth::{CredentialUse, Operate, RequestContext};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::worker::SharedState;

use super::connection::hyper_io::{HEAD_BYTES, HEADERS};
use super::health;
use super::request::host;
use super::response::{ApiResponse, REQUEST_ID, guard, request_id};

use exposition::Format;

/// Maximum of concurrent connections of the admin listener. One more closes the oldest, so that idle
/// connections cannot block a probe.
const CONNECTIONS: usize = 64;

/// A bound admin listener.
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

struct Page {
    shared: Arc<SharedState>,
}

/// Serves connections until the runtime is dropped.
pub async fn serve(listener: Listener, shared: Arc<SharedState>) {
    let page = Arc::new(Page { shared });
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted: io::Result<AbortHandle> = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, &page)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, &page)),
        };
        match accepted {
            Ok(connection) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Starts the task of a connection. It ends with the connection, with the runtime, or when a newer connection
/// needs its slot.
fn spawn(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, page: &Arc<Page>) -> AbortHandle {
    let page = page.clone();
    let task = tokio::spawn(async move {
        let config = &page.shared.config;
        let (wait, age, end) =
            (config.header_timeout(), Duration::from_millis(config.idle_timeout_ms), config.write_timeout());
        let service = service_fn(move |request: Request<Incoming>| {
            let page = page.clone();
            async move { Ok::<_, Infallible>(page.answer(&request)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(wait)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = match tokio::time::timeout(age, connection.as_mut()).await {
            Ok(ended) => Ok(ended),
            // The number of connections is small, so one whose peer does not read is closed. Its client can
            // connect again.
            Err(_) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(end, connection).await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended"),
            Err(_) => tracing::debug!("closed an admin connection whose peer does not read"),
        }
    });
    task.abort_handle()
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<bytes::Bytes>> {
        let mut answer =
            self.route(request).unwrap_or_else(|refusal| ApiResponse::error(&refusal, &*self.shared.clock));
        answer.headers.insert(REQUEST_ID, request_id(request.headers()));
        guard(&mut answer.headers);
        answer.into_response(|body| Full::new(body.into_owned().into()))
    }

    fn route(&self, request: &Request<Incoming>) -> HandlerResult {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        host::check(request.version(), authority, request.headers())?;
        let path = request.uri().path();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["metrics"] | ["health", ..] if !reads => Err(ErrorResponse::method("GET, HEAD")),
            ["metrics"] => {
                let format = Format::negotiate(request.headers());
                let text = metrics_page::page(&self.shared, format).into_bytes();
                let mut answer = ApiResponse::raw_json(StatusCode::OK, text);
                answer.headers.insert(header::CONTENT_TYPE, format.content_type());
                Ok(answer)
            }
            ["health"] | ["health", "ready"] => Ok(health::readiness(&self.shared)),
            ["health", "live"] => Ok(health::liveness(&self.shared)),
            ["health", ..] => Err(ErrorResponse::not_found()),
            ["backup"] => {
                self.operator(request)?;
                backup::answer(self.shared.tenants.store(), request.method(), request.uri())
            }
            _ => {
                self.operator(request)?;
                Err(ErrorResponse::not_found())
            }
        }
    }

    /// A `Host` that is not a loopback name means that a page of another site sent the request (DNS
    /// rebinding).
    fn operator(&self, request: &Request<Incoming>) -> Result<(), ErrorResponse> {
        let host =
            request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
            Ok(_) => name,
            Err(_) => host,
        });
        let numeric = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        if !numeric && !matches!(name, "localhost" | "") {
            return Err(ErrorResponse::forbidden("this Host is not served here"));
        }
        let auth = &self.shared.auth;
        let presented = auth.present(request.headers(), request.uri().query().unwrap_or_default());
        let context =
            RequestContext::of(request.headers(), None, request.method(), None, CredentialUse::Rest);
        let principal = auth.authenticate(&presented, &context)?;
        principal.authorize::<Operate>()?;
        Ok(())
    }
}
