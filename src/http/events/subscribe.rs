//! `GET /api/v1/ws`, `/sse`, `/sse/llm`: everything is checked before the upgrade. Then the worker takes over
//! the connection.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};
use ring::digest;

use crate::auth::{CredentialUse, Subscribe};
use crate::connection::admission::ConnectionPermit;
use crate::error_response::ErrorResponse;
use crate::filter::Filter;
use crate::frame::sse;
use crate::http::Handled;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::boolean;
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{
    LastEventId, SseParameters, SubscriptionParameters, Upgrade, WebSocketParameters,
};
use crate::tenant::Tenant;
use crate::tenant::start::{self, StartPosition};
use crate::tenant::streams::{StreamStart, start_streams};
use crate::transport::Transport;
use crate::worker::connect::ConnectionHandoff;
use crate::worker::stream_readers::StreamSubscription;

use super::stream_query::StreamQuery;

/// Milliseconds that an `EventSource` waits before it reconnects.
pub const RETRY_MS: u64 = 2_000;
/// The text that is appended to the key before it is hashed (RFC 6455 §1.3).
const WS_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A subscription that was accepted.
pub struct GrantedSubscription {
    /// Status: 101 or 200.
    pub status: StatusCode,
    /// Headers of the response.
    pub headers: HeaderMap,
    /// Body bytes that precede what the worker writes.
    pub preface: Vec<u8>,
    /// What the worker takes over.
    pub handoff: ConnectionHandoff,
}

/// The parameters of a subscription.
struct SubscribeQuery {
    /// `None` if the connection only publishes.
    filter: Option<Filter>,
    from: StartPosition,
    options: TransportOptions,
}

/// The parameters that only some transports have.
#[derive(Default)]
struct TransportOptions {
    publish_only: bool,
    no_echo: bool,
    heartbeat_event: bool,
}

/// Opens a WebSocket to subscribe and publish over one connection.
///
/// # Errors
/// 426, 400, then 401, 403, 429, 503.
#[utoipa::path(
    get,
    path = "/api/v1/ws",
    tag = "subscriptions",
    params(SubscriptionParameters, WebSocketParameters, Upgrade),
    responses((status = 101, description = "The connection is a WebSocket now. `/api-docs/asyncapi.json` describes its frames."), (status = 426))
)]
pub async fn ws(request: &mut ApiRequest, _: ()) -> Result<Handled, ErrorResponse> {
    let accept = handshake(request)?;
    let principal = request.principal(CredentialUse::WebSocket)?;
    let query = subscribe_query(request, Transport::Ws)?;
    if query.filter.is_some() {
        principal.authorize::<Subscribe>()?;
    }
    request.shared().serving()?;
    let tenant = request.tenant(&principal).await?;
    let admitted = request
        .shared()
        .admission
        .admit(principal, request.peer)
        .inspect_err(|_| request.shared().metrics.refused.add(1))?;
    let start = start::resolve(request.shared().tenants.store(), &tenant, &query.from).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let handoff = handoff(Transport::Ws, Some((admitted, tenant)), query, start);
    let status = StatusCode::SWITCHING_PROTOCOLS;
    Ok(Handled::Subscribed(Box::new(GrantedSubscription { status, headers, preface: Vec::new(), handoff })))
}

/// Upgrades to the diagnostic echo, which needs no credential and delivers no event.
///
/// # Errors
/// 426, 400.
pub fn echo(request: &ApiRequest) -> Result<Handled, ErrorResponse> {
    let accept = handshake(request)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    let query =
        SubscribeQuery { filter: None, from: StartPosition::Now, options: TransportOptions::default() };
    let handoff = handoff(Transport::Ws, None, query, start::ResolvedStart::NOW);
    let status = StatusCode::SWITCHING_PROTOCOLS;
    Ok(Handled::Subscribed(Box::new(GrantedSubscription { status, headers, preface: Vec::new(), handoff })))
}

/// Subscribes to events as a stream (SSE).
///
/// # Errors
/// 400, 401, 403, 406. 429 and 503 if the client does not accept an event stream; otherwise these are sent as
/// an event.
#[utoipa::path(
    get,
    path = "/api/v1/sse",
    tag = "subscriptions",
    params(SubscriptionParameters, SseParameters, LastEventId),
    responses(
        (status = 200, description = "An endless stream of events.", content((String = "text/event-stream"))),
        (status = 406),
    )
)]
pub async fn sse(request: &mut ApiRequest, _: ()) -> Result<Handled, ErrorResponse> {
    events(request, false).await
}

/// Subscribes to LLM streams over SSE: `stream_chunk`, and `error` with a `request_id`. With `request_id` these
/// streams are sent from their first chunk; when the last of them has ended, the response ends after `done`.
///
/// # Errors
/// The same as [`sse()`].
#[utoipa::path(
    get,
    path = "/api/v1/sse/llm",
    tag = "subscriptions",
    params(SubscriptionParameters, SseParameters, LastEventId),
    responses(
        (status = 200, description = "A stream of events, which ends with the streams that were named.", content((String = "text/event-stream"))),
        (status = 204, description = "Every stream that was named has ended, and the cursor is past its end."),
        (status = 406),
    )
)]
pub async fn llm_sse(request: &mut ApiRequest, _: ()) -> Result<Handled, ErrorResponse> {
    events(request, true).await
}

async fn events(request: &mut ApiRequest, llm: bool) -> Result<Handled, ErrorResponse> {
    if !accepts_event_stream(request) {
        return Err(ErrorResponse::new(
            StatusCode::NOT_ACCEPTABLE,
            "BAD_REQUEST",
            "only text/event-stream is served here",
        ));
    }
    let principal = request.principal(CredentialUse::Stream)?;
    match sse_granted(request, principal, llm).await {
        Err(refusal) if refusal.is_passing() && names_event_stream(request) => {
            Ok(closing(request, &refusal).into())
        }
        other => other,
    }
}

async fn sse_granted(
    request: &mut ApiRequest,
    principal: Arc<crate::auth::Principal>,
    llm: bool,
) -> Result<Handled, ErrorResponse> {
    principal.authorize::<Subscribe>()?;
    let transport = match request.version {
        Version::HTTP_2 => Transport::SseH2,
        Version::HTTP_11 => Transport::Sse,
        _ => Transport::SseHttp10,
    };
    let mut query = subscribe_query(request, transport)?;
    if llm {
        query.filter = query.filter.map(Filter::streams_only);
    }
    request.shared().serving()?;
    let tenant = request.tenant(&principal).await?;
    let admitted = request
        .shared()
        .admission
        .admit(principal, request.peer)
        .inspect_err(|_| request.shared().metrics.refused.add(1))?;
    let ids = query.filter.as_ref().map(Filter::requests).filter(|ids| llm && !ids.is_empty());
    let (start, streams) = match ids {
        None => (start::resolve(request.shared().tenants.store(), &tenant, &query.from).await?, None),
        Some(ids) => {
            let ids: Vec<Arc<str>> = ids.iter().map(Arc::from).collect();
            let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
            let (tenants, rights) =
                (&request.shared().tenants, request.shared().auth.still_valid(admitted.principal())?);
            let StreamStart { start, streams, is_over } =
                start_streams(tenants, &tenant, &names, &rights, &query.from).await?;
            if is_over {
                return Ok(ApiResponse::empty().into()); // an `EventSource` stops on 204
            }
            (start, Some(StreamSubscription { ids, streams, reference: None }))
        }
    };
    let mut preface = Vec::new();
    sse::retry(RETRY_MS, &mut preface);
    let handoff = ConnectionHandoff { streams, ..handoff(transport, Some((admitted, tenant)), query, start) };
    let headers = event_stream_headers();
    Ok(Handled::Subscribed(Box::new(GrantedSubscription {
        status: StatusCode::OK,
        headers,
        preface,
        handoff,
    })))
}

fn handoff(
    transport: Transport,
    admitted_tenant: Option<(ConnectionPermit, Arc<Tenant>)>,
    query: SubscribeQuery,
    start: start::ResolvedStart,
) -> ConnectionHandoff {
    let (admitted, tenant) = admitted_tenant.unzip();
    ConnectionHandoff {
        admitted,
        tenant,
        transport,
        filter: query.filter,
        start,
        streams: None,
        no_echo: query.options.no_echo,
        heartbeat_event: query.options.heartbeat_event,
        head: Vec::new(),
        leftover: Bytes::new(),
    }
}

fn event_stream_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers
}

/// Returns 200 with one event that closes the stream and a reconnect delay with jitter, because `EventSource`
/// stops for ever on 429 and 503.
fn closing(request: &ApiRequest, refusal: &ErrorResponse) -> ApiResponse {
    let wait = refusal.retry_after.unwrap_or(1) * 1_000;
    let mut jitter = [0u8; 2];
    // zeros would do too
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut jitter);
    let mut body = Vec::new();
    sse::retry(wait + u64::from(u16::from_be_bytes(jitter)) * wait / u64::from(u16::MAX), &mut body);
    let error = crate::frame::control::Control::Error {
        code: refusal.code,
        message: &refusal.message,
        details: None,
        reference: None,
    };
    error.sse(&mut body);
    let mut headers = event_stream_headers();
    if request.version != Version::HTTP_2 {
        // When permits are scarce, the connection of a refused client is closed.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    ApiResponse { status: StatusCode::OK, headers, body: body.into() }
}

/// Checks the headers of the upgrade (RFC 6455 §4.2.1) and returns the value of `Sec-WebSocket-Accept`.
fn handshake(request: &ApiRequest) -> Result<HeaderValue, ErrorResponse> {
    let lists = |name: header::HeaderName, token: &str| {
        let values = request.headers.get_all(name);
        values
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    };
    let version = request.header(header::SEC_WEBSOCKET_VERSION);
    let upgrade = lists(header::UPGRADE, "websocket") && lists(header::CONNECTION, "upgrade");
    if !upgrade || version != Some("13") || request.version != Version::HTTP_11 {
        let message = "a WebSocket upgrade of version 13 over HTTP/1.1 is required";
        return Err(ErrorResponse::new(StatusCode::UPGRADE_REQUIRED, "BAD_REQUEST", message));
    }
    let bad_key = || ErrorResponse::bad_request("Sec-WebSocket-Key: must be 16 bytes in base64");
    let mut keys = request.headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().and_then(|key| key.to_str().ok()).map(str::trim).ok_or_else(bad_key)?;
    if keys.next().is_some() || STANDARD.decode(key).ok().is_none_or(|raw| raw.len() != 16) {
        return Err(bad_key());
    }
    let body = request.headers.contains_key(header::TRANSFER_ENCODING)
        || request.header(header::CONTENT_LENGTH).is_some_and(|length| length.trim() != "0");
    if body {
        return Err(ErrorResponse::bad_request("an upgrade request carries no body"));
    }
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(WS_GUID);
    HeaderValue::from_str(&STANDARD.encode(context.finish())).map_err(|_| ErrorResponse::internal())
}

/// Returns true if `Accept` allows an event stream. An absent header allows everything.
fn accepts_event_stream(request: &ApiRequest) -> bool {
    let mut accepts =
        request.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    accepts.peek().is_none()
        || accepts.flat_map(|value| value.split(',')).any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let refused =
                parts.any(|p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q == 0.0));
            matches!(kind.as_str(), "text/event-stream" | "text/*" | "*/*") && !refused
        })
}

fn names_event_stream(request: &ApiRequest) -> bool {
    let mut accepts = request.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.any(|value| value.to_ascii_lowercase().contains("text/event-stream"))
}

/// Parses the query of a subscription.
fn subscribe_query(request: &ApiRequest, transport: Transport) -> Result<SubscribeQuery, ErrorResponse> {
    let mut options = TransportOptions::default();
    let (filter, from) = StreamQuery::read(request, |name, value| match transport {
        Transport::Ws => options.take_ws(name, value),
        Transport::Sse | Transport::SseH2 | Transport::SseHttp10 => options.take_sse(name, value),
    })?;
    Ok(SubscribeQuery { filter: (!options.publish_only).then_some(filter), from, options })
}

impl TransportOptions {
    /// Takes a parameter that only `/ws` has. Returns false for any other.
    fn take_ws(&mut self, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        match (name, value) {
            ("subscribe" | "echo", "") => {}
            ("subscribe", "none") => self.publish_only = true,
            ("subscribe", _) => return Err(ErrorResponse::bad_request("subscribe: must be none")),
            ("echo", flag) => self.no_echo = !boolean("echo", flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes a parameter that only `/sse` has. Returns false for any other.
    fn take_sse(&mut self, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        match (name, value) {
            ("heartbeat", "" | "comment") => {}
            ("heartbeat", "event") => self.heartbeat_event = true,
            ("heartbeat", _) => {
                return Err(ErrorResponse::bad_request("heartbeat: must be event or comment"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
