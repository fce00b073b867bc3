//! HTTP/2 connections through hyper, and the limits that hyper leaves to its users: responses that the peer
//! does not read, and connections without requests.
//!
//! * hyper starts a task for each stream, which [`StreamExecutor`] runs. If the bytes of a response make no
//!   progress for `write_timeout_ms`, the task is dropped, which resets the stream. If hyper has handed all
//!   bytes to the connection already, there is no stream to reset, and the connection is closed.
//! * h2 bounds floods of frames. Its limits are set here, so that an update of the library cannot change
//!   them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, Entry};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connection::byte_shares::ByteShares;
use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::error_response::ErrorResponse;
use crate::http::deadlines::{Activity, DeadlineAction, Deadlines};
use crate::http::response::ApiResponse;
use crate::http::response::body::{Body, WriteProgress};
use crate::worker::Worker;

use super::hyper_io::{HEAD_BYTES, HyperIo};
use super::service::{ListenerKind, ServiceResponse, respond};
use super::socket_stream::SocketStream;

/// Maximum of concurrent streams of a connection.
pub const STREAMS: u32 = 100;
/// Flow-control window for requests, in bytes, for a stream and for the connection. It bounds the unread
/// request bodies of one connection.
const WINDOW: u32 = 64 * 1024;
/// Maximum of bytes of a stream's response that are buffered beyond the peer's window.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Maximum of streams that the peer has reset and that are not processed yet. One more closes the connection
/// (CVE-2023-44487, rapid reset).
const RESET_UNSEEN: usize = 20;
/// Maximum of streams of a connection that are reset because of the peer's errors. One more closes the
/// connection (CVE-2025-8671).
const RESET_FOR_ERRORS: usize = 100;
/// Estimated memory of a stream. It is counted while its peer has not shown a credential.
const STREAM_BYTES: usize = 4 * 1024;
/// Size of HPACK's dynamic table, bytes.
const HEADER_TABLE: u32 = 4 * 1024;

tokio::task_local! {
    /// The flow of the stream whose task is running.
    static FLOW: Rc<WriteProgress>;
}

/// Serves a connection that starts with the HTTP/2 preface.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    stream: SocketStream,
    first: Bytes,
    peer: Option<IpAddr>,
    newcomer: &Rc<UnauthenticatedSocket>,
) {
    let activity = Activity::new();
    let config = &worker.shared.config;
    let mut deadlines = Deadlines::new(&activity, config, false);
    let io = HyperIo::new(stream, first, None, &activity, worker);
    let service = {
        let (worker, newcomer) = (worker.clone(), newcomer.clone());
        service_fn(move |request: Request<Incoming>| {
            let (worker, newcomer) = (worker.clone(), newcomer.clone());
            let head = request.method() == Method::HEAD;
            async move {
                let flow = FLOW.try_with(Rc::clone).unwrap_or_else(|_| WriteProgress::of_stream());
                // The future is boxed because it is large and would otherwise stay until the response is
                // read.
                let answer =
                    Box::pin(respond(request, &worker, peer, ListenerKind::Public, &flow, &newcomer));
                match answer.await {
                    ServiceResponse::Whole(response) if head => Ok(without_content(response)),
                    ServiceResponse::Whole(response) => Ok::<_, Infallible>(response),
                    // Only HTTP/1 sockets are taken from hyper: `response` answers HTTP/2 subscriptions with
                    // a body.
                    ServiceResponse::TakeOver(_) => {
                        let refusal = ApiResponse::error(&ErrorResponse::internal(), &*worker.shared.clock);
                        Ok(refusal.into_response(|body| Body::whole(body, None, &flow)))
                    }
                }
            }
        })
    };
    let streams = StreamExecutor {
        activity: activity.clone(),
        write_timeout: config.write_timeout(),
        newcomer: newcomer.clone(),
        shares: worker.shared.incoming.clone(),
    };
    let mut connection = pin!(
        http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEAD_BYTES as u32)
            .header_table_size(HEADER_TABLE)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(RESET_FOR_ERRORS)
            .keep_alive_interval(Some(config.heartbeat()))
            .keep_alive_timeout(config.heartbeat())
            .serve_connection(io, service)
    );
    let mut stop = pin!(worker.stopped());
    let mut stopping = false;
    poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            deadlines.retire();
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection ended");
                }
                return Poll::Ready(());
            }
            match deadlines.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(DeadlineAction::Retire) => {
                    deadlines.retire();
                    connection.as_mut().graceful_shutdown(); // GOAWAY
                }
                Poll::Ready(end) => {
                    tracing::debug!(?end, "closed an HTTP/2 connection");
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

/// Turns the response to `GET` into the response to `HEAD` (RFC 9110 §9.3.2). hyper does this only for
/// HTTP/1.
fn without_content(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let (Entry::Vacant(header), Some(length)) = (response.headers_mut().entry(CONTENT_LENGTH), length) {
        header.insert(length.into());
    }
    response.body_mut().empty();
    response
}

/// Runs the tasks that hyper starts for the streams of one connection, on the worker's thread. They end with
/// the connection.
#[derive(Clone)]
struct StreamExecutor {
    activity: Rc<Activity>,
    write_timeout: Duration,
    newcomer: Rc<UnauthenticatedSocket>,
    shares: Arc<ByteShares>,
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(self.clone().run(task));
    }
}

impl StreamExecutor {
    async fn run<F: Future>(self, task: F) {
        let _busy = self.activity.begin();
        let mut claim = (!self.newcomer.is_authenticated()).then(|| self.shares.claim(None));
        if claim.as_mut().is_some_and(|claim| claim.set(STREAM_BYTES).is_err()) {
            return tracing::debug!(
                "reset a stream: too many streams of peers without a credential are open"
            );
        }
        let flow = WriteProgress::of_stream();
        let mut stall = StallTimer { flow: flow.clone(), limit: self.write_timeout, timer: None };
        let stalled = {
            let mut task = pin!(FLOW.scope(flow.clone(), task));
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                if self.newcomer.is_authenticated() {
                    claim = None;
                }
                match polled {
                    Poll::Ready(_) => Poll::Ready(false),
                    Poll::Pending => stall.poll(cx).map(|()| true),
                }
            })
            .await
        };
        if stalled {
            return tracing::debug!("reset a stream whose response the peer does not read");
        }
        let sent = poll_fn(|cx| match flow.poll_sent(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => stall.poll(cx).map(|()| false),
        });
        if !sent.await {
            self.activity.close_now();
        }
    }
}

/// Completes when a stream's bytes have made no progress for too long.
struct StallTimer {
    flow: Rc<WriteProgress>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(since) = self.flow.waits_since() else { return Poll::Pending };
            let at = since + self.limit;
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
