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

/// A message as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct View<'a> {
    /// `msg-<uuid7>`.
    id: &'a str,
    /// Its organization.
    organization_id: &'a str,
    /// To or from which agent.
    agent_id: &'a str,
    /// Whose conversation it is; `null`: everybody's.
    user_id: Option<&'a str>,
    /// Who speaks.
    role: Role,
    /// The text.
    content: &'a str,
    /// The model that wrote it.
    model: Option<&'a str>,
    /// JSON of the platform's.
    #[schema(value_type = Option<Object>)]
    tool_calls: Option<&'a Json>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// When it was made.
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

/// Lists messages of an agent, a user, both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/messages",
    tag = "messages",
    params(Page, OfMessages),
    responses((status = 200, description = "A page.", body = Vec<View>))
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

/// Keeps a message of an agent that exists. Publishes `message`.
#[utoipa::path(
    post,
    path = "/api/v1/messages",
    tag = "messages",
    params(IdempotencyKey),
    request_body = NewMessage,
    responses((status = 201, description = "It is kept.", body = View))
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

/// Shows a message.
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

/// Deletes a message. No event tells of it.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 204, description = "It is gone."))
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
