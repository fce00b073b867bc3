//! HTTP/1 connections through hyper, until the worker takes the socket over.
//!
//! * An accepted subscription leaves its request unanswered in hyper. Once all earlier responses are flushed
//!   ([`WriteProgress`]), the socket is taken back with `into_parts`, and the worker writes the response head
//!   itself.
//! * If hyper responds on its own (to a head it cannot parse), its response is replaced by the usual error
//!   (`hyper_io`).

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::http::deadlines::{Activity, DeadlineAction, Deadlines};
use crate::http::response::body::WriteProgress;
use crate::worker::Worker;
use crate::worker::connect::ConnectionHandoff;

use super::hyper_io::{HEAD_BYTES, HyperIo};
use super::service::{ListenerKind, ServiceResponse, respond};
use super::socket_stream::SocketStream;

/// How long, and for how many reads of 8 KiB, input is discarded after the last response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 4_096;

/// Serves a connection. Returns the socket and the connection if a subscription was accepted on it.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    stream: SocketStream,
    first: Bytes,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> Option<(SocketStream, ConnectionHandoff)> {
    let flow = WriteProgress::of_connection();
    // The subscription that the service accepted; its socket is taken from hyper.
    let granted = Rc::new(RefCell::new(None));
    let activity = Activity::new();
    let mut deadlines = Deadlines::new(&activity, &worker.shared.config, true);
    let io = HyperIo::new(stream, first, Some(flow.clone()), &activity, worker);
    let service = {
        let (worker, flow, granted) = (worker.clone(), flow.clone(), granted.clone());
        let (newcomer, activity) = (newcomer.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let (worker, flow, granted) = (worker.clone(), flow.clone(), granted.clone());
            let (busy, newcomer) = (activity.begin(), newcomer.clone());
            // Boxed, because hyper returns its parts only if the future can be moved.
            Box::pin(async move {
                match respond(request, &worker, peer, kind, &flow, &newcomer).await {
                    ServiceResponse::Whole(mut response) => {
                        response.body_mut().keep(busy);
                        Ok::<_, Infallible>(response)
                    }
                    ServiceResponse::TakeOver(handoff) => {
                        *granted.borrow_mut() = Some(*handoff);
                        // The driver below drops this future with the connection.
                        std::future::pending().await
                    }
                }
            })
        })
    };
    let mut connection = http1::Builder::new()
        .header_read_timeout(None) // `Deadlines` measures this time, and idle connections in another way
        .max_buf_size(HEAD_BYTES)
        .half_close(false)
        .serve_connection(io, service);
    let mut stop = pin!(worker.stopped());
    let mut stopping = false;
    let outcome = poll_fn(|cx| {
        let _driven = activity.drive();
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            deadlines.retire();
            Pin::new(&mut connection).graceful_shutdown();
        }
        loop {
            let done = connection.poll_without_shutdown(cx).is_ready();
            if granted.borrow().is_some() && flow.is_clean() {
                return Poll::Ready(H1Outcome::TakenOver);
            }
            match deadlines.poll(cx) {
                _ if done => return Poll::Ready(H1Outcome::Done),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(DeadlineAction::Retire) => {
                    deadlines.retire();
                    Pin::new(&mut connection).graceful_shutdown();
                }
                Poll::Ready(end) => return Poll::Ready(H1Outcome::Late(end)),
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    match outcome {
        H1Outcome::TakenOver => {}
        H1Outcome::Done => {
            linger(parts.io.into_stream()).await;
            return None;
        }
        H1Outcome::Late(end) => {
            parts.io.into_stream().end(end);
            return None;
        }
    }
    let mut handoff = granted.take()?;
    handoff.leftover = parts.read_buf;
    Some((parts.io.into_stream(), handoff))
}

/// How an HTTP/1 connection ended.
enum H1Outcome {
    /// The socket goes to the worker.
    TakenOver,
    /// hyper has closed the connection.
    Done,
    /// A deadline ended the connection.
    Late(DeadlineAction),
}

/// Shuts down our side and discards input for a moment. Closing a socket with unread input would reset the
/// connection, which could destroy the response on its way (a 413 to a body that is still being sent).
async fn linger(mut stream: SocketStream) {
    let discard = async {
        stream.shutdown().await?;
        let mut scratch = vec![0; 8 * 1024];
        for _ in 0..LINGER_READS {
            if stream.read(&mut scratch).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    // the peer's end, an error and the timeout are the same here
    let _ = tokio::time::timeout(LINGER, discard).await;
}
