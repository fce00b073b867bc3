//! `/messages`, `/messages/{id}`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser};
use crate::outcome::Refusal;
use crate::resource::agents::Json;
use crate::resource::messages::{self, Message, NewMessage, Role};
use crate::time::rfc3339;

use super::super::api::parameters::{IdempotencyKey, OfMessages, Page};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{Written, listed, made, no_parameters, page, reading, unescaped, writing, written};

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct View<'a> {
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

fn view<'a>(org_id: &'a str, message: &'a Message) -> View<'a> {
    View {
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
    responses((status = 200, description = "A page of messages.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, right: Authorized<Subscribe>) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let (mut agent_id, mut user_id) = (None, None);
    let page = page(x, |name, value| {
        match name {
            "agent_id" | "user_id" if value.is_empty() => {}
            "agent_id" => agent_id = Some(value.to_owned()),
            "user_id" => user_id = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (messages, next) = messages::list(&caller, agent_id.as_deref(), user_id.as_deref(), &page).await?;
    let views: Vec<View<'_>> =
        messages.iter().map(|message| view(&caller.principal.org_id, message)).collect();
    Ok(listed(&views, next.as_ref()))
}

/// Creates a message to or from an existing agent. Publishes `message`.
#[utoipa::path(
    post,
    path = "/api/v1/messages",
    tag = "messages",
    params(IdempotencyKey),
    request_body = NewMessage,
    responses((status = 201, description = "The new message.", body = View))
)]
pub(in crate::http) async fn create(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
) -> Result<Answer, Refusal> {
    let Written { x, right, caller, bytes, body: new, .. } =
        written::<NewMessage, WriteAsUser>(x, right).await?;
    let answer = |message: &Message| created(view(&caller.principal.org_id, message));
    made(x, &right, &bytes, answer, async |kept| messages::create(&caller, &right, new, kept).await).await
}

/// Gets a message.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 200, description = "The message.", body = View))
)]
pub(in crate::http) async fn get(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x, &right).await?;
    let message = messages::get(&caller, &unescaped(id)?).await?;
    Ok(Answer::data(StatusCode::OK, view(&caller.principal.org_id, &message)))
}

/// Deletes a message. Publishes no event.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 204, description = "The message is deleted."))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    messages::delete(&caller, &right, &unescaped(id)?).await?;
    Ok(Answer::empty())
}
