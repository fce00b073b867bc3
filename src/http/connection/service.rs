//! The HTTP service of both protocols: from a request to its response, or to the subscription that starts.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::connection::unauthenticated::UnauthenticatedSocket;
use crate::error_response::ErrorResponse;
use crate::frame::chunked;
use crate::http::Handled;
use crate::http::events::subscribe::{self, GrantedSubscription};
use crate::http::request::ApiRequest;
use crate::http::request::client_address::client_address;
use crate::http::request::cors;
use crate::http::request::host;
use crate::http::response::body::{Body, WriteProgress};
use crate::http::response::{ApiResponse, REQUEST_ID, TRACEPARENT, guard, raw_head, request_id};
use crate::transport::Transport;
use crate::worker::Worker;
use crate::worker::connect::ConnectionHandoff;

/// What a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    /// The public API.
    Public,
    /// Only `/echo` (`--diagnostic-echo`).
    Echo,
}

/// What the service answers.
pub(super) enum ServiceResponse {
    Whole(Response<Body>),
    /// The worker takes over the socket and writes the response itself.
    TakeOver(Box<ConnectionHandoff>),
}

/// Handles a request.
pub(super) async fn respond(
    request: Request<Incoming>,
    worker: &Rc<Worker>,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    flow: &Rc<WriteProgress>,
    newcomer: &Rc<UnauthenticatedSocket>,
) -> ServiceResponse {
    let peer = client_address(peer, request.headers(), &worker.shared.config.trusted_proxies);
    let mut request = ApiRequest::new(request, worker, peer, newcomer);
    worker.metrics().requests.add(1);
    let origin = cors::allowed_origin(&request);
    let id = request_id(&request.headers);
    // A request with both framings may have been read differently in front of us (RFC 9112 §6.1): no other
    // follows it.
    let mut last = request.headers.contains_key(header::TRANSFER_ENCODING);
    let is_http_1 = request.version <= Version::HTTP_11;
    // The body of a safe method means nothing: it is read first, so that nothing waits between the last check
    // of the credential and the answer.
    if is_http_1 && request.method.is_safe() {
        last |= !request.discard_body(true).await;
    }
    let handled = match (host::check(request.version, request.authority.as_deref(), &request.headers), kind) {
        (Err(refusal), _) => Err(refusal),
        (Ok(()), ListenerKind::Public) => crate::http::handle(&mut request).await,
        (Ok(()), ListenerKind::Echo) if request.path == "/echo" => subscribe::echo(&request),
        (Ok(()), ListenerKind::Echo) => Err(ErrorResponse::not_found()),
    };
    let mut claim = None;
    let handled = handled.and_then(|handled| {
        if let Handled::Answer(answer) = &handled {
            claim = request.unread_claim(answer)?;
        }
        Ok(handled)
    });
    if is_http_1 {
        let is_late = handled.as_ref().is_err_and(|refusal| refusal.status == StatusCode::REQUEST_TIMEOUT);
        last |= !request.discard_body(!is_late && !last).await;
    }
    let common = |headers: &mut http::HeaderMap| {
        headers.insert(REQUEST_ID, id.clone());
        if let Some(parent) = request.headers.get(TRACEPARENT) {
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
            start(worker, subscribed, flow)
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
            tracing::debug!(path = %request.path, status = refusal.status.as_u16(), code = refusal.code, "refused");
            let mut answer = ApiResponse::error(&refusal, &*worker.shared.clock);
            common(&mut answer.headers);
            ServiceResponse::Whole(answer.into_response(|body| Body::whole(body, None, flow)))
        }
    }
}

/// Starts an accepted subscription: on HTTP/2 as a response body, otherwise on the socket itself.
fn start(worker: &Rc<Worker>, subscribed: GrantedSubscription, flow: &Rc<WriteProgress>) -> ServiceResponse {
    let GrantedSubscription { status, mut headers, preface, mut handoff } = subscribed;
    // A socket that is taken from hyper serves no further request.
    let close = HeaderValue::from_static("close");
    match handoff.transport {
        Transport::SseH2 => {
            handoff.head = preface;
            let queue = worker.adopt_body(handoff);
            let mut response = Response::new(Body::queue(queue, flow));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            return ServiceResponse::Whole(response);
        }
        Transport::Ws => handoff.head = raw_head(status, &headers),
        Transport::Sse => {
            headers.insert(header::CONNECTION, close);
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            handoff.head = raw_head(status, &headers);
            chunked::chunk(&preface, &mut handoff.head);
        }
        Transport::SseHttp10 => {
            headers.insert(header::CONNECTION, close);
            handoff.head = raw_head(status, &headers);
            handoff.head.extend_from_slice(&preface);
        }
    }
    ServiceResponse::TakeOver(Box::new(handoff))
}
