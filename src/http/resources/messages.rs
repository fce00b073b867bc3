//! `/messages`, `/messages/{id}`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser};
use crate::domain::AgentUserFilter;
use crate::domain::agents::Json;
use crate::domain::messages::{Message, NewMessage, Role};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::schemas::parameters::{IdempotencyKey, MessageParameters, PageParameters};
use crate::time::rfc3339;

use super::handlers::{self, HttpResource, read_agent_or_user};

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

impl HttpResource for Message {
    fn view<'a>(&'a self, org_id: &'a str) -> impl Serialize {
        MessageView {
            id: &self.id,
            organization_id: org_id,
            agent_id: &self.agent_id,
            user_id: self.user(),
            role: self.role,
            content: &self.content,
            model: self.model.as_deref(),
            tool_calls: self.tool_calls.as_ref(),
            metadata: self.metadata.as_ref(),
            created_at: rfc3339(self.created_ms),
        }
    }

    fn read_filter(filter: &mut AgentUserFilter, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        Ok(read_agent_or_user(filter, name, value))
    }
}

/// Lists messages of an agent, of a user, of both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/messages",
    tag = "messages",
    params(PageParameters, MessageParameters),
    responses((status = 200, description = "A page of messages.", body = Vec<MessageView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    handlers::list::<Message>(request, right).await
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
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<WriteAsUser>) -> HandlerResult {
    handlers::create::<Message>(request, right).await
}

/// Gets a message.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 200, description = "The message.", body = MessageView))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    handlers::get::<Message>(request, right, id).await
}

/// Deletes a message. Publishes no event.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    responses((status = 204, description = "The message is deleted."))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<WriteAsUser>, id: &str) -> HandlerResult {
    handlers::delete::<Message>(request, right, id).await
}
