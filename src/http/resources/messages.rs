//! `/messages`, `/messages/{id}`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser};
use crate::domain::agents::Json;
use crate::domain::messages::{self, Message, NewMessage, Role};
use crate::error_response::ErrorResponse;
use crate::http::api_docs::parameters::{IdempotencyKey, OfMessages, Page};
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::response::ApiResponse;
use crate::time::rfc3339;

use super::{
    WriteRequest, begin_write, create_once, no_parameters, page, page_response, reader, unescaped,
    write_request,
};

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct MessageView<'a> {
    /// Id: `msg-<uuid7>`.
    id: &'a str,
    /// Organization of the message.
    organization_id: &'a str,
    /// Agent that the message is to or from.
    agent_id: &'a str,
    /// User whose conversation the message belongs to; `null` means all users.
    user_id: Option<&'a str>,
    /// Role of the sender.
    role: Role,
    /// Text of the message.
    content: &'a str,
    /// Model that wrote the message.
    model: Option<&'a str>,
    /// Tool calls, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    tool_calls: Option<&'a Json>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
}

fn view<'a>(org_id: &'a str, message: &'a Message) -> MessageView<'a> {
    MessageView {
        id: &message.id,
        organization_id: org_id,
        agent_id: &message.agent_id,
        user_id: message.user(),
        role: message.role,
        content: &message.content,
        model: message.model.as_deref(),
        tool_calls: message.tool_calls.as_ref(),
        metadata: message.metadata.as_ref(),
        created_at: rfc3339(message.created_ms),
    }
}

/// Lists messages of an agent, of a user, of both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/messages",
    tag = "messages",
    params(Page, OfMessages),
    responses((status = 200, description = "A page of messages.", body = Vec<MessageView>))
)]
pub(in crate::http) async fn list(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
) -> Result<ApiResponse, ErrorResponse> {
    let caller = reader(request, &right).await?;
    let (mut agent_id, mut user_id) = (None, None);
    let page = page(request, |name, value| {
        match name {
            "agent_id" | "user_id" if value.is_empty() => {}
            "agent_id" => agent_id = Some(value.to_owned()),
            "user_id" => user_id = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (messages, next) = messages::list(&caller, agent_id.as_deref(), user_id.as_deref(), &page).await?;
    let views: Vec<MessageView<'_>> =
        messages.iter().map(|message| view(&caller.principal.org_id, message)).collect();
    Ok(page_response(&views, next.as_ref()))
}

/// Creates a message to or from an existing agent. Publishes `message`.
#[utoipa::path(
    post,
    path = "/api/v1/messages",
    tag = "messages",
    params(IdempotencyKey),
    request_body = NewMessage,
    responses((status = 201, description = "The new message.", body = MessageView))
)]
pub(in crate::http) async fn create(
    request: &mut ApiRequest,
    right: Authorized<WriteAsUser>,
) -> Result<ApiResponse, ErrorResponse> {
    let WriteRequest { request, right, caller, bytes, body: new, .. } =
        write_request::<NewMessage, WriteAsUser>(request, right).await?;
    let answer = |message: &Message| created(view(&caller.principal.org_id, message));
    create_once(request, &right, &bytes, answer, async |response_rows| {
        messages::create(&caller, &right, new, response_rows).await
    })
    .await
}

/// Gets a message.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 200, description = "The message.", body = MessageView))
)]
pub(in crate::http) async fn get(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    no_parameters(request)?;
    let caller = reader(request, &right).await?;
    let message = messages::get(&caller, &unescaped(id)?).await?;
    Ok(ApiResponse::data(StatusCode::OK, view(&caller.principal.org_id, &message)))
}

/// Deletes a message. Publishes no event.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 204, description = "The message is deleted."))
)]
pub(in crate::http) async fn delete(
    request: &ApiRequest,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    no_parameters(request)?;
    let caller = begin_write(request, &right, 0).await?;
    messages::delete(&caller, &right, &unescaped(id)?).await?;
    Ok(ApiResponse::empty())
}
