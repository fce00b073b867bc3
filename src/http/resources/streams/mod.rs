//! `/streams`: opening, ending and reading LLM streams. Appending is in `chunks.rs`.
//!
//! The life of a stream is in [`crate::tenant::streams`], who may see and cancel it in
//! [`crate::domain::streams`].

pub(crate) mod chunks;
mod view;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Publish, Subscribe};
use crate::domain::agents::Json;
use crate::domain::streams as rules;
use crate::domain::{ResourceError, StreamFilter};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{
    HISTORY_WAIT_SECONDS, boolean, no_parameters, number, unescaped, unknown,
};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{
    PageParameters, ProducerToken, StreamListParameters, StreamReadParameters,
};
use crate::tenant::Tenant;
use crate::tenant::admission::stream_open::OpenRequest;
use crate::tenant::admission::stream_word::{StreamAuthority, StreamWord};
use crate::tenant::streams::state::StreamEnd;
use crate::tenant::streams::{Stream, StreamState, StreamView};

use super::handlers::read_agent_or_user;
use super::page::{page, page_response};
use super::write_request::reader;
use view::{PartTexts, StreamBody, StreamInfo};

/// The header with the producer's token.
const PRODUCER_TOKEN: &str = "x-producer-token";
/// A waiting read checks its credential, and whether the daemon is stopping, at least this often.
const LOOK: Duration = Duration::from_secs(1);

/// A stream to open.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewStream)]
struct OpenBody {
    /// Id of the stream. Choose one that cannot be guessed. If left out, the daemon makes one.
    request_id: Option<String>,
    /// Agent that speaks.
    agent_id: Option<String>,
    /// User who may read the stream. If left out, it is the caller, or everyone in the organization for a
    /// credential with `publish:org`.
    user_id: Option<String>,
    /// Free data: a JSON object of at most 8 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Json>,
    /// Seconds for which the producer may be silent. 60 if left out.
    #[serde(deserialize_with = "crate::json_integer::optional")]
    lease_seconds: Option<u32>,
    /// True if the agent's status is to follow the stream: `thinking` while it is open, then `idle`.
    agent_status: Option<bool>,
    /// True to take the stream over if it is open: the earlier producer is refused from then on.
    takeover: Option<bool>,
}

/// A stream that was opened.
#[derive(Serialize, ToSchema)]
struct OpenedStream<'a> {
    /// Id of the stream.
    request_id: &'a str,
    /// Token for `X-Producer-Token`. It is shown only here.
    producer_token: &'a str,
    /// How often the stream was opened or taken over.
    generation: u32,
    /// Index of the next chunk.
    next_index: u64,
    /// Seconds for which the producer may be silent.
    lease_seconds: u32,
}

/// The end of a stream that is complete.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = StreamFinish)]
struct FinishBody {
    /// Why the model stopped, such as `stop` or `length`.
    finish_reason: Option<String>,
    /// What the stream cost: a JSON object of at most 8 KiB.
    #[schema(value_type = Option<Object>)]
    usage: Option<Json>,
}

/// The end of a stream that failed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StreamFail)]
struct FailBody {
    /// Code for programs.
    code: String,
    /// Message for people.
    message: String,
}

/// Why a stream is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = StreamCancel)]
struct CancelBody {
    /// Reason for people.
    reason: Option<String>,
}

/// Opens a stream, or takes it over.
///
/// # Errors
/// 400, 401, 403, 409, 429, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams",
    tag = "LLM streams",
    request_body = OpenBody,
    responses(
        (status = 201, description = "The stream is open.", body = OpenedStream),
        (status = 200, description = "The stream was taken over.", body = OpenedStream),
        (status = 409),
    )
)]
pub(crate) async fn open(request: &mut ApiRequest, right: Authorized<Publish>) -> HandlerResult {
    no_parameters(request)?;
    let body: OpenBody = request.json().await?;
    let tenant = request.tenant(right.principal()).await?;
    let (tenants, auth) = (&request.shared().tenants, &request.shared().auth);
    let wanted = OpenRequest {
        request_id: body.request_id,
        agent_id: body.agent_id,
        user_id: body.user_id,
        metadata: body.metadata,
        lease_seconds: body.lease_seconds,
        agent_status: body.agent_status.unwrap_or_default(),
        takeover: body.takeover.unwrap_or_default(),
    };
    let (opened, is_new) = tenants.open_stream(&tenant, auth, &right, wanted, &request.worker).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let opened_view = OpenedStream {
        request_id: &opened.request_id,
        producer_token: &opened.producer_token,
        generation: opened.generation,
        next_index: opened.next_index,
        lease_seconds: opened.lease_seconds,
    };
    Ok(ApiResponse::data(status, opened_view))
}

/// Completes a stream. A repeated identical request succeeds again.
///
/// # Errors
/// 400, 401, 409, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/finish",
    tag = "LLM streams",
    params(ProducerToken),
    request_body = FinishBody,
    responses((status = 200, description = "The stream is completed.", body = StreamInfo), (status = 409))
)]
pub(crate) async fn finish(request: &mut ApiRequest, right: Authorized<Publish>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let body: FinishBody = request.json().await?;
    let end = StreamEnd::completed(body.finish_reason, body.usage);
    say_as_producer(request, &right, id, Some(end)).await
}

/// Marks a stream as failed. Its readers get the code and the message.
///
/// # Errors
/// 400, 401, 409, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/fail",
    tag = "LLM streams",
    params(ProducerToken),
    request_body = FailBody,
    responses((status = 200, description = "The stream is failed.", body = StreamInfo), (status = 409))
)]
pub(crate) async fn fail(request: &mut ApiRequest, right: Authorized<Publish>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let body: FailBody = request.json().await?;
    let end = StreamEnd::failed(body.code, body.message);
    say_as_producer(request, &right, id, Some(end)).await
}

/// Renews the lease of a stream whose producer has nothing to send.
///
/// # Errors
/// 401, 409, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/renew",
    tag = "LLM streams",
    params(ProducerToken),
    responses((status = 200, description = "The lease begins anew.", body = StreamInfo), (status = 409))
)]
pub(crate) async fn renew(request: &mut ApiRequest, right: Authorized<Publish>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    say_as_producer(request, &right, id, None).await
}

/// Cancels a stream: its producer is refused from now on, and its readers get an error. A stream that has ended
/// stays as it is.
///
/// # Errors
/// 400, 401, 403, 404, 503.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/cancel",
    tag = "LLM streams",
    request_body = CancelBody,
    responses((status = 200, description = "The stream has ended.", body = StreamInfo), (status = 404))
)]
pub(crate) async fn cancel(
    request: &mut ApiRequest,
    right: Authorized<Authenticated>,
    id: &str,
) -> HandlerResult {
    no_parameters(request)?;
    let body: CancelBody = request.json().await?;
    let reason = body.reason;
    let tenant = request.tenant(right.principal()).await?;
    let id = unescaped(id)?;
    let auth = &request.shared().auth;
    let may = |stream: &Stream| {
        let rights = auth.still_valid(right.principal())?;
        Ok::<_, ErrorResponse>(rules::check_cancel(right.principal(), &rights, stream)?)
    };
    let actor = auth.actor(&right);
    request.shared().tenants.cancel_stream(&tenant, actor, &id, reason, may, &request.worker).await?;
    shown(request, &tenant, &id).await
}

/// Gets a stream: its state and the text so far. With `wait` the request waits for text after `known`, or for
/// the end.
///
/// # Errors
/// 400, 401, 404, 429, 503.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}",
    tag = "LLM streams",
    params(StreamReadParameters),
    responses((status = 200, description = "The stream.", body = StreamBody))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    let query = read_query(request)?;
    let principal = right.principal().clone();
    let tenant = request.tenant(&principal).await?;
    let id = unescaped(id)?;
    // A waiting read is a connection: it takes a permit of every limit.
    let _permit = (query.wait > Duration::ZERO)
        .then(|| request.shared().admission.admit_poll(principal.clone(), request.peer))
        .transpose()?;
    let deadline = tokio::time::Instant::now() + query.wait;
    let watch = request.worker.watch(&tenant);
    loop {
        // taken before reading, so that nothing is missed between reading and waiting
        let news = watch.events_seen();
        let rights = request.shared().auth.still_valid(&principal)?;
        let found = request.shared().tenants.stream(&tenant, &id).await?;
        let found =
            found.filter(|view| view.stream.is_visible(&rights)).ok_or_else(ErrorResponse::not_found)?;
        let is_new = found.stream.next_index > query.known || found.stream.state != StreamState::Open;
        let now = tokio::time::Instant::now();
        if is_new || now >= deadline || request.shared().is_stopping() {
            return answer(request, &tenant, &found, &query).await;
        }
        tokio::select! {
            () = news => {}
            () = request.worker.stopped() => {}
            () = tokio::time::sleep_until(deadline.min(now + LOOK)) => {}
        }
    }
}

/// Lists streams, newest first.
///
/// # Errors
/// 400, 401, 429, 503.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "LLM streams",
    params(PageParameters, StreamListParameters),
    responses((status = 200, description = "A page of streams.", body = Vec<StreamInfo>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut filter = StreamFilter::default();
    let page = page(request, |name, value| {
        if name == "state" {
            let state = || {
                let names = StreamState::ALL.map(StreamState::name).join(", ");
                ErrorResponse::bad_request(format!("state: must be one of {names}"))
            };
            filter.state = match value {
                "" => None,
                value => Some(StreamState::from_name(value).ok_or_else(state)?),
            };
            return Ok(true);
        }
        Ok(read_agent_or_user(&mut filter.agent_user, name, value))
    })?;
    let (found, next) = rules::list(&caller, &filter, &page).await?;
    let mut views = Vec::with_capacity(found.len());
    let tenants = &request.shared().tenants;
    for stream in found {
        // What an open stream has now is in memory.
        let now = match stream.state {
            StreamState::Open => tenants.stream(&caller.tenant, &stream.request_id).await?,
            _ => None,
        };
        views.push(StreamInfo::of(&now.map_or(stream, |view| view.stream)));
    }
    Ok(page_response(&views, next.as_ref()))
}

/// Removes the text of a stream that has ended. Its state stays.
///
/// # Errors
/// 401, 403, 404, 409 while it is open, 503.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{id}",
    tag = "LLM streams",
    responses((status = 204, description = "The text is removed."), (status = 409))
)]
pub(crate) async fn delete(
    request: &ApiRequest,
    right: Authorized<Authenticated>,
    id: &str,
) -> HandlerResult {
    no_parameters(request)?;
    let tenant = request.tenant(right.principal()).await?;
    let id = unescaped(id)?;
    let rights = request.shared().auth.still_valid(right.principal())?;
    let found = request.shared().tenants.stream(&tenant, &id).await?.ok_or(ResourceError::NotFound)?;
    rules::check_cancel(right.principal(), &rights, &found.stream)?;
    if found.stream.state == StreamState::Open {
        return Err(ErrorResponse::conflict("the stream is open: cancel or finish it first"));
    }
    let actor = request.shared().auth.actor(&right);
    request.shared().tenants.remove_stream_text(&tenant, actor, &id).await?;
    Ok(ApiResponse::empty())
}

/// The producer's token; empty if there is none.
fn producer_token(request: &ApiRequest) -> String {
    request.header(PRODUCER_TOKEN).unwrap_or_default().to_owned()
}

/// Ends a stream on behalf of its producer, or with no end renews its lease.
async fn say_as_producer(
    request: &ApiRequest,
    right: &Authorized<Publish>,
    id: &str,
    end: Option<StreamEnd>,
) -> HandlerResult {
    let tenant = request.tenant(right.principal()).await?;
    let (id, token) = (unescaped(id)?, producer_token(request));
    let (actor, authority) = (request.shared().auth.actor(right), StreamAuthority::Producer(&token));
    let word = StreamWord::without_chunks(actor, &id, authority, end);
    request.shared().tenants.stream_word(&tenant, word, Some(&request.worker)).await?;
    shown(request, &tenant, &id).await
}

/// Answers with a stream, to somebody who may change it.
async fn shown(request: &ApiRequest, tenant: &Arc<Tenant>, id: &str) -> HandlerResult {
    let found = request.shared().tenants.stream(tenant, id).await?.ok_or_else(ErrorResponse::not_found)?;
    Ok(ApiResponse::data(StatusCode::OK, StreamInfo::of(&found.stream)))
}

/// What of a stream is to be read.
struct ReadQuery {
    text: bool,
    all_parts: bool,
    offset: u64,
    known: u64,
    wait: Duration,
}

fn read_query(request: &ApiRequest) -> Result<ReadQuery, ErrorResponse> {
    let mut query = ReadQuery { text: true, all_parts: false, offset: 0, known: 0, wait: Duration::ZERO };
    for (name, value) in request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("text" | "parts" | "offset" | "known" | "wait", "") => {}
            ("text", flag) => query.text = boolean("text", flag)?,
            ("parts", "text") => query.all_parts = false,
            ("parts", "all") => query.all_parts = true,
            ("parts", _) => return Err(ErrorResponse::bad_request("parts: must be text or all")),
            ("offset", text) => query.offset = number("offset", text, 0, u64::MAX)?,
            ("known", text) => query.known = number("known", text, 0, u64::MAX)?,
            ("wait", text) => {
                query.wait = Duration::from_secs(number("wait", text, 0, HISTORY_WAIT_SECONDS)?);
            }
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(query)
}

async fn answer(
    request: &ApiRequest,
    tenant: &Arc<Tenant>,
    found: &StreamView,
    query: &ReadQuery,
) -> HandlerResult {
    let mut texts = PartTexts::new(query.offset, query.all_parts);
    if query.text && !found.stream.is_expired {
        found.read_all(request.shared().tenants.store(), tenant, |text| texts.take(text)).await?;
    }
    let body = StreamBody::of(&found.stream, query.text, texts);
    Ok(ApiResponse::data(StatusCode::OK, body))
}
