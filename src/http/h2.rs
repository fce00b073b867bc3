//! HTTP/2 connections by hyper, and what hyper leaves to its users: answers that are not read, and connections without requests.
//!
//! * Each stream is a task that hyper makes ([`Streams`] runs it). An answer whose bytes make no progress for
//!   `write_timeout_ms` resets its stream: the task is dropped. Where hyper has handed everything to the connection already,
//!   there is no stream left to reset, and the connection ends.
//! * Floods are bounded by h2; its numbers stand here, so that an update of the library changes none.

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

use crate::connection::newcomers::Newcomer;
use crate::connection::shares::Shares;
use crate::outcome::Refusal;
use crate::worker::Worker;

use super::body::{Body, Flow};
use super::conn::{Door, HEAD_BYTES, Responded, respond};
use super::deadlines::{Activity, Deadlines, End};
use super::respond::Answer;
use super::transport::{Io, Stream};

/// Concurrent streams of a connection.
pub const STREAMS: u32 = 100;
/// Flow-control window for requests, of a stream and of the connection, bytes: what a connection's request bodies may hold that
/// nobody has read.
const WINDOW: u32 = 64 * 1024;
/// Most bytes of a stream's answer that are handed to the connection beyond the peer's window.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Streams that the peer has reset and that were not seen yet; one more ends the connection (CVE-2023-44487, rapid reset).
const RESET_UNSEEN: usize = 20;
/// Streams of a connection that may be reset for the peer's errors; one more ends the connection (CVE-2025-8671).
const RESET_FOR_ERRORS: usize = 100;
/// What a stream takes in memory, about: counted for each whose peer has not shown a credential.
const STREAM_BYTES: usize = 4 * 1024;
/// HPACK's dynamic table, bytes.
const HEADER_TABLE: u32 = 4 * 1024;

tokio::task_local! {
    /// Of the stream whose task runs.
    static FLOW: Rc<Flow>;
}

/// Serves a connection whose first bytes are HTTP/2's preface.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    stream: Stream,
    first: Bytes,
    peer: Option<IpAddr>,
    newcomer: &Rc<Newcomer>,
) {
    let activity = Activity::new();
    let config = &worker.shared.config;
    let mut deadlines = Deadlines::new(&activity, config, false);
    let io = Io::new(stream, first, None, &activity, worker);
    let service = {
        let (worker, newcomer) = (worker.clone(), newcomer.clone());
        service_fn(move |request: Request<Incoming>| {
            let (worker, newcomer) = (worker.clone(), newcomer.clone());
            let head = request.method() == Method::HEAD;
            async move {
                let flow = FLOW.try_with(Rc::clone).unwrap_or_else(|_| Flow::of_stream());
                // Boxed: it is large, and would stay as long as the answer is not read.
                let answer = Box::pin(respond(request, &worker, peer, Door::Public, &flow, &newcomer));
                match answer.await {
                    Responded::Whole(response) if head => Ok(without_content(response)),
                    Responded::Whole(response) => Ok::<_, Infallible>(response),
                    // Only HTTP/1 is taken over: `respond` answers subscriptions of HTTP/2 with a body.
                    Responded::TakeOver(_) => {
                        let refusal = Answer::refusal(&Refusal::internal(), &*worker.shared.clock);
                        Ok(refusal.into_response(|body| Body::whole(body, None, &flow)))
                    }
                }
            }
        })
    };
    let streams = Streams {
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
                Poll::Ready(End::Retire) => {
                    deadlines.retire();
                    connection.as_mut().graceful_shutdown(); // GOAWAY
                }
                Poll::Ready(end) => {
                    tracing::debug!(?end, "an HTTP/2 connection was ended");
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

/// The answer to `HEAD` in place of the answer to `GET` (RFC 9110 §9.3.2), which hyper makes over HTTP/1 alone.
fn without_content(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let (Entry::Vacant(header), Some(length)) = (response.headers_mut().entry(CONTENT_LENGTH), length) {
        header.insert(length.into());
    }
    response.body_mut().empty();
    response
}

/// Runs the tasks that hyper makes for the streams of one connection, on the worker's own thread; each ends with its connection.
#[derive(Clone)]
struct Streams {
    activity: Rc<Activity>,
    write_timeout: Duration,
    newcomer: Rc<Newcomer>,
    shares: Arc<Shares>,
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(self.clone().run(task));
    }
}

impl Streams {
    async fn run<F: Future>(self, task: F) {
        let _busy = self.activity.begin();
        let mut claim = (!self.newcomer.is_settled()).then(|| self.shares.claim(None));
        if claim.as_mut().is_some_and(|claim| claim.set(STREAM_BYTES).is_err()) {
            return tracing::debug!("a stream was reset: too many of peers without a credential are open");
        }
        let flow = Flow::of_stream();
        let mut stall = Stall { flow: flow.clone(), limit: self.write_timeout, timer: None };
        let stalled = {
            let mut task = pin!(FLOW.scope(flow.clone(), task));
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                if self.newcomer.is_settled() {
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
            return tracing::debug!("an answer was not read: its stream was reset");
        }
        let sent = poll_fn(|cx| match flow.poll_sent(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => stall.poll(cx).map(|()| false),
        });
        if !sent.await {
            self.activity.doom();
        }
    }
}

/// Tells when a stream's bytes have made no progress for too long.
struct Stall {
    flow: Rc<Flow>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
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
