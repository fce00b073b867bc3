//! One accepted socket: hyper serves HTTP/1 or HTTP/2 on it, until it closes or the worker takes it over.
//!
//! * A trusted proxy may name its client, in a PROXY header before the first request or in headers of each
//!   request (`client_address`).
//! * The first bytes (the HTTP/2 preface) decide the protocol, so HTTP/1 has no cost for HTTP/2.
//! * An accepted subscription on HTTP/1 leaves its request unanswered in hyper. Once all earlier responses
//!   are flushed ([`WriteProgress`]), the socket is taken back with `into_parts`, and the worker writes the response
//!   head itself.
//! * If hyper responds on its own (to a head it cannot parse), its body is replaced by the usual error body.

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
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::admission::AdmissionError;
use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::error_response::ErrorResponse;
use crate::frame::chunked;
use crate::metrics::Transport;
use crate::worker::connect::ConnectionHandoff;
use crate::worker::{Accepted, Worker};

use super::Handled;
use super::deadlines::{Activity, DeadlineAction, Deadlines};
use super::events::subscribe::{self, GrantedSubscription};
use super::h2;
use super::proxy_protocol::{self, ParsedHeader};
use super::request::ApiRequest;
use super::request::client_address::client_address;
use super::request::cors;
use super::request::host;
use super::response::body::{Body, WriteProgress};
use super::response::{ApiResponse, REQUEST_ID, TRACEPARENT, guard, raw_head, request_id};
use super::transport::{HyperIo, SocketStream};

/// Maximum of bytes of a request head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Maximum of headers of a request. This is hyper's own default; setting it would make hyper fill two buffers
/// for each head.
pub const HEADERS: usize = 100;
/// How long, and for how many reads of 8 KiB, input is discarded after the last response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 4_096;
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    /// The public API.
    Public,
    /// Only `/echo` (`--diagnostic-echo`).
    Echo,
}

/// Serves a new socket on this worker until it closes or is taken from hyper.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted, kind: ListenerKind) {
    let held = worker.hold_socket();
    let (stream, peer) = match SocketStream::from_accepted(accepted) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "could not use a new socket"),
    };
    let trusted = worker.shared.config.trusted_proxies.contains(peer);
    let newcomer = Rc::new(worker.shared.newcomers.add((!trusted).then_some(peer)));
    let taken = tokio::select! {
        biased;
        () = newcomer.evicted() => return tracing::debug!("closed a socket without a credential to make room for another"),
        taken = serve_protocol(&worker, stream, peer, kind, &newcomer) => taken,
    };
    drop(newcomer);
    let Some((stream, handoff)) = taken else { return };
    match stream.into_fd() {
        Ok(fd) => match worker.adopt_socket(fd, handoff) {
            Ok(()) => held.hand_over(),
            Err(error) => tracing::warn!(%error, "could not watch a socket"),
        },
        Err(error) => tracing::debug!(%error, "could not take a socket out of the runtime"),
    }
}

/// Serves a socket in the protocol that its peer uses. Returns the connection if its socket was taken from
/// hyper.
async fn serve_protocol(
    worker: &Rc<Worker>,
    stream: SocketStream,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> Option<(SocketStream, ConnectionHandoff)> {
    let config = &worker.shared.config;
    let (wait, trusted) = (config.header_timeout(), config.trusted_proxies.contains(peer));
    // All clients of a trusted proxy share its address, so the limit applies only to the clients that it
    // names.
    if !trusted && let Err(full) = newcomer.limit_by_address(peer) {
        refuse(worker, stream, full).await;
        return None;
    }
    let (stream, first, source) = tokio::time::timeout(wait, sniff(stream, trusted)).await.ok()??;
    if source.is_none() {
        newcomer.count_for_address(peer);
    } else if let Err(full) = newcomer.limit_by_address(source) {
        refuse(worker, stream, full).await;
        return None;
    }
    let peer = source.or(peer);
    if first.starts_with(H2_PREFACE) && kind == ListenerKind::Public {
        h2::serve(worker, stream, first, peer, newcomer).await;
        return None;
    }
    serve_h1(worker, stream, first, peer, kind, newcomer).await
}

/// Sends the reason why a socket is not served. It makes one write and ignores the rest.
async fn refuse(worker: &Worker, mut stream: SocketStream, full: AdmissionError) {
    worker.shared.metrics.refused.add(1);
    let answer = ApiResponse::error(&full.into(), &*worker.shared.clock).to_final_bytes();
    let _ = stream.write(&answer).await; // a failed write does not change the refusal
    let _ = stream.shutdown().await;
}

/// Reads until it is clear whether the peer uses HTTP/2; before that, the PROXY header of a trusted peer.
/// Returns the first bytes of HTTP, and the client that the header names. `None` if the peer closed first.
async fn sniff(mut stream: SocketStream, trusted: bool) -> Option<(SocketStream, Bytes, Option<IpAddr>)> {
    let mut first = Vec::with_capacity(1_024);
    let (mut may_name, mut source) = (trusted, None);
    loop {
        match if may_name { proxy_protocol::parse(&first) } else { ParsedHeader::Other } {
            ParsedHeader::Partial => {}
            ParsedHeader::Header { length, source: named } => {
                first.drain(..length);
                (may_name, source) = (false, named);
            }
            // Everything else is HTTP, or is refused as HTTP.
            ParsedHeader::Other => may_name = false,
        }
        if !may_name && (first.len() >= H2_PREFACE.len() || !H2_PREFACE.starts_with(&first)) {
            return Some((stream, first.into(), source));
        }
        if stream.read_buf(&mut first).await.ok()? == 0 {
            return None;
        }
    }
}

/// What the service hands to the task that drives its connection.
#[derive(Default)]
struct SocketTakeover {
    granted: RefCell<Option<ConnectionHandoff>>,
}

async fn serve_h1(
    worker: &Rc<Worker>,
    stream: SocketStream,
    first: Bytes,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> Option<(SocketStream, ConnectionHandoff)> {
    let flow = WriteProgress::of_connection();
    let takeover = Rc::new(SocketTakeover::default());
    let activity = Activity::new();
    let mut deadlines = Deadlines::new(&activity, &worker.shared.config, true);
    let io = HyperIo::new(stream, first, Some(flow.clone()), &activity, worker);
    let service = {
        let (worker, flow, takeover) = (worker.clone(), flow.clone(), takeover.clone());
        let (newcomer, activity) = (newcomer.clone(), activity.clone());
        service_fn(move |request: Request<Incoming>| {
            let (worker, flow, takeover) = (worker.clone(), flow.clone(), takeover.clone());
            let (busy, newcomer) = (activity.begin(), newcomer.clone());
            // Boxed, because hyper returns its parts only if the future can be moved.
            Box::pin(async move {
                match respond(request, &worker, peer, kind, &flow, &newcomer).await {
                    ServiceResponse::Whole(mut response) => {
                        response.body_mut().keep(busy);
                        Ok::<_, Infallible>(response)
                    }
                    ServiceResponse::TakeOver(handoff) => {
                        *takeover.granted.borrow_mut() = Some(*handoff);
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
            if takeover.granted.borrow().is_some() && flow.is_clean() {
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
    let mut handoff = takeover.granted.take()?;
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

pub(super) enum ServiceResponse {
    Whole(Response<Body>),
    TakeOver(Box<ConnectionHandoff>),
}

pub(super) async fn respond(
    request: Request<Incoming>,
    worker: &Rc<Worker>,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    flow: &Rc<WriteProgress>,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> ServiceResponse {
    let peer = client_address(peer, request.headers(), &worker.shared.config.trusted_proxies);
    let mut x = ApiRequest::new(request, worker, peer, newcomer);
    worker.metrics().requests.add(1);
    let origin = cors::allowed_origin(&x);
    let id = request_id(&x.headers);
    // A request with both framings may have been read differently in front of us (RFC 9112 §6.1): no other follows it.
    let mut last = x.headers.contains_key(header::TRANSFER_ENCODING);
    let is_http_1 = x.version <= Version::HTTP_11;
    // The body of a safe method means nothing: it is read first, so that nothing waits between the last look at the credential and
    // the answer.
    if is_http_1 && x.method.is_safe() {
        last |= !x.discard_body(true).await;
    }
    let handled = match (host::check(x.version, x.authority.as_deref(), &x.headers), kind) {
        (Err(refusal), _) => Err(refusal),
        (Ok(()), ListenerKind::Public) => super::handle(&mut x).await,
        (Ok(()), ListenerKind::Echo) if x.path == "/echo" => subscribe::echo(&x),
        (Ok(()), ListenerKind::Echo) => Err(ErrorResponse::not_found()),
    };
    let mut claim = None;
    let handled = handled.and_then(|handled| {
        if let Handled::Answer(answer) = &handled {
            claim = x.unread_claim(answer)?;
        }
        Ok(handled)
    });
    if is_http_1 {
        let is_late = handled.as_ref().is_err_and(|refusal| refusal.status == StatusCode::REQUEST_TIMEOUT);
        last |= !x.discard_body(!is_late && !last).await;
    }
    let common = |headers: &mut http::HeaderMap| {
        headers.insert(REQUEST_ID, id.clone());
        if let Some(parent) = x.headers.get(TRACEPARENT) {
            headers.insert(TRACEPARENT, parent.clone());
        }
        cors::stamp(headers, origin.clone());
        guard(headers);
        if last {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    };
    match handled {
        Ok(Handled::Subscribed(subscribed)) => {
            let mut subscribed = *subscribed;
            common(&mut subscribed.headers);
            start(worker, subscribed, x.version, flow)
        }
        Ok(Handled::Answer(mut answer)) => {
            common(&mut answer.headers);
            ServiceResponse::Whole(answer.into_response(|body| Body::whole(body, claim, flow)))
        }
        Ok(Handled::Streamed(mut answer, parts, claim)) => {
            common(&mut answer.headers);
            ServiceResponse::Whole(answer.into_response(|_| Body::parts(parts, claim, flow)))
        }
        Err(refusal) => {
            tracing::debug!(path = %x.path, status = refusal.status.as_u16(), code = refusal.code, "refused");
            let mut answer = ApiResponse::error(&refusal, &*worker.shared.clock);
            common(&mut answer.headers);
            ServiceResponse::Whole(answer.into_response(|body| Body::whole(body, None, flow)))
        }
    }
}

/// Starts an accepted subscription: on HTTP/2 as a response body, otherwise on the socket itself.
fn start(
    worker: &Rc<Worker>,
    subscribed: GrantedSubscription,
    version: Version,
    flow: &Rc<WriteProgress>,
) -> ServiceResponse {
    let GrantedSubscription { status, mut headers, preface, mut handoff } = subscribed;
    if version == Version::HTTP_2 {
        handoff.head = preface;
        let queue = worker.adopt_body(handoff);
        let mut response = Response::new(Body::queue(queue, flow));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        return ServiceResponse::Whole(response);
    }
    if handoff.transport != Transport::Ws {
        // The socket is taken from hyper, so no further request is read from it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if handoff.transport == Transport::Sse {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    handoff.head = raw_head(status, &headers);
    match handoff.transport {
        Transport::Sse => chunked::chunk(&preface, &mut handoff.head),
        _ => handoff.head.extend_from_slice(&preface),
    }
    ServiceResponse::TakeOver(Box::new(handoff))
}
