//! `/agents`, `/agents/{id}`, `/agents/{id}/state`, `/agents/{id}/messages`.

use std::cell::OnceCell;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser, WriteOwned};
use crate::domain::agents::{self, Agent, AgentPatch, AgentStatus, Json};
use crate::domain::list_resource;
use crate::domain::messages::{self, Message, NewMessage, Role};
use crate::event::EventKind;
use crate::http::HandlerResult;
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::request::etag::{if_match, of_version};
use crate::http::request::parameters::{no_parameters, unescaped};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{IdempotencyKey, IfMatch, PageParameters};
use crate::time::rfc3339;

use super::handlers::{self, HttpResource};
use super::write_request::{WriteRequest, create_once, reader, write_request};

/// An agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
struct AgentView<'a> {
    /// Id: `agent-<uuid7>`.
    id: &'a str,
    /// Organization of the agent.
    organization_id: &'a str,
    /// User who may change the agent with the scope `write`. `null` means that only the scope `agents` can
    /// change it.
    owner: Option<&'a str>,
    /// Name for people.
    name: Option<&'a str>,
    /// Description for people.
    description: Option<&'a str>,
    /// System prompt.
    system: Option<&'a str>,
    /// Type of the agent, as the platform defines it.
    agent_type: Option<&'a str>,
    /// Model settings, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    llm_config: Option<&'a Json>,
    /// Embedding settings, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    embedding_config: Option<&'a Json>,
    /// Tool rules, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    tool_rules: Option<&'a Json>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Current state.
    state: AgentStatus,
    /// Reason of the failure, if the state is `error`.
    error_message: Option<&'a str>,
    /// Time when the state was last set.
    #[schema(format = DateTime)]
    last_active_at: Option<String>,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl HttpResource for Agent {
    fn view<'a>(&'a self, org_id: &'a str) -> impl Serialize {
        let value = &self.fields;
        AgentView {
            id: &self.id,
            organization_id: org_id,
            owner: self.owner.as_deref(),
            name: value.name.as_deref(),
            description: value.description.as_deref(),
            system: value.system.as_deref(),
            agent_type: value.agent_type.as_deref(),
            llm_config: value.llm_config.as_ref(),
            embedding_config: value.embedding_config.as_ref(),
            tool_rules: value.tool_rules.as_ref(),
            metadata: value.metadata.as_ref(),
            state: self.state,
            error_message: self.error_message.as_deref(),
            last_active_at: self.last_active_ms.map(rfc3339),
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
        }
    }
}

/// Lists agents, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agents",
    tag = "agents",
    params(PageParameters),
    responses((status = 200, description = "A page of agents.", body = Vec<AgentView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    handlers::list::<Agent>(request, right).await
}

/// Creates an agent in the state `idle`. Publishes `agent_update` with the status `created`.
#[utoipa::path(
    post,
    path = "/api/v1/agents",
    tag = "agents",
    params(IdempotencyKey),
    request_body = AgentPatch,
    responses((status = 201, description = "The new agent.", body = AgentView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<WriteOwned>) -> HandlerResult {
    handlers::create::<Agent>(request, right).await
}

/// Gets an agent.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}",
    tag = "agents",
    responses((status = 200, description = "The agent.", body = AgentView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    handlers::get::<Agent>(request, right, id).await
}

/// Updates the given fields; `null` clears a field. Publishes `agent_update` with the agent's state.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/agents/{id}",
    tag = "agents",
    params(IfMatch),
    request_body = AgentPatch,
    responses((status = 200, description = "The updated agent.", body = AgentView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn update(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> HandlerResult {
    handlers::update::<Agent>(request, right, id).await
}

/// Deletes an agent. Its messages stay. Publishes `agent_update` with the status `deleted`.
#[utoipa::path(
    delete,
    path = "/api/v1/agents/{id}",
    tag = "agents",
    params(IfMatch),
    responses((status = 204, description = "The agent is deleted."))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<WriteOwned>, id: &str) -> HandlerResult {
    handlers::delete::<Agent>(request, right, id).await
}

/// State of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentState)]
struct AgentStatusView<'a> {
    /// Id of the agent.
    agent_id: &'a str,
    /// Current state.
    state: AgentStatus,
    /// Time when the state was last set.
    #[schema(format = DateTime)]
    last_active_at: Option<String>,
    /// Reason of the failure, if the state is `error`.
    error_message: Option<&'a str>,
}

fn status_response(agent: &Agent) -> ApiResponse {
    let view = AgentStatusView {
        agent_id: &agent.id,
        state: agent.state,
        last_active_at: agent.last_active_ms.map(rfc3339),
        error_message: agent.error_message.as_deref(),
    };
    of_version(ApiResponse::data(StatusCode::OK, view), agent.version)
}

/// New state of an agent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentStateChange)]
struct AgentStatusBody {
    /// New state.
    state: AgentStatus,
    /// Reason of the failure. Stored only with the state `error`.
    error_message: Option<String>,
}

/// Gets an agent's state.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/state",
    tag = "agents",
    responses((status = 200, description = "The agent's state.", body = AgentStatusView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get_state(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let caller = reader(request, &right).await?;
    Ok(status_response(&list_resource::get(&caller, &unescaped(id)?).await?))
}

/// Sets an agent's state, if the current state allows it. Publishes `agent_update`.
#[utoipa::path(
    put,
    path = "/api/v1/agents/{id}/state",
    tag = "agents",
    params(IfMatch),
    request_body = AgentStatusBody,
    responses((status = 200, description = "The new state.", body = AgentStatusView, headers(("ETag" = String, description = "Version of the resource."))), (status = 409))
)]
pub(crate) async fn set_state(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> HandlerResult {
    let WriteRequest { request, right, caller, body, .. } =
        write_request::<AgentStatusBody, WriteOwned>(request, right).await?;
    let version = if_match(request)?;
    let agent =
        agents::set_state(&caller, &right, &unescaped(id)?, version, body.state, body.error_message).await?;
    Ok(status_response(&agent))
}

/// A message to an agent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAgentMessage)]
struct NewAgentMessage {
    /// Text of the message.
    message: String,
    /// User whose conversation the message belongs to; the caller if absent.
    user_id: Option<String>,
    /// Whether the platform should remember the message. Like the next two fields it is stored in the
    /// message's metadata, where agents can read it.
    memorizing: Option<bool>,
    /// URIs of images that belong to the message.
    image_uris: Option<Vec<String>>,
    /// Voice recordings that belong to the message.
    voice_files: Option<Vec<String>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Json>,
}

impl NewAgentMessage {
    /// The fields that are stored in the message's metadata, next to the sender's own.
    fn notes(&self) -> Vec<(&'static str, Json)> {
        fn metadata_note<T: Serialize>(
            name: &'static str,
            value: Option<&T>,
        ) -> Option<(&'static str, Json)> {
            let json = serde_json::value::to_raw_value(value?).ok()?; // texts and booleans: this cannot fail
            Some((name, json))
        }
        let notes = [
            metadata_note("memorizing", self.memorizing.as_ref()),
            metadata_note("image_uris", self.image_uris.as_ref()),
            metadata_note("voice_files", self.voice_files.as_ref()),
        ];
        notes.into_iter().flatten().collect()
    }
}

/// The stored message.
#[derive(Serialize, ToSchema)]
#[schema(as = SentAgentMessage)]
struct SentMessage<'a> {
    /// Id of the message.
    message_id: &'a str,
    /// Always `null`. The agent's answer is delivered as events, since the daemon does not run agents.
    response: Option<&'a str>,
    /// Time that storing the message took, in milliseconds.
    processing_time_ms: u64,
}

/// Sends a user's message to an agent. Publishes `message`. The agent's answer is delivered as events.
#[utoipa::path(
    post,
    path = "/api/v1/agents/{id}/messages",
    tag = "messages",
    params(IdempotencyKey),
    request_body = NewAgentMessage,
    responses((status = 201, description = "The message is stored.", body = SentMessage))
)]
pub(crate) async fn send_message(
    request: &mut ApiRequest,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> HandlerResult {
    let began = std::time::Instant::now();
    let WriteRequest { request, right, caller, bytes, body, .. } =
        write_request::<NewAgentMessage, WriteAsUser>(request, right).await?;
    let id = unescaped(id)?;
    // the path names the agent, so a missing one is 404, not 400
    agents::exists(&caller, EventKind::Message, &id).await?;
    let notes = body.notes();
    let new = NewMessage {
        agent_id: Some(id),
        user_id: body.user_id,
        role: Role::User,
        content: Some(body.message),
        text: None,
        model: None,
        tool_calls: None,
        metadata: messages::with_notes(body.metadata, notes)?,
    };
    let took = OnceCell::new();
    let answer = |message: &Message| {
        // Measured once: a repeated request receives the same response as this one.
        let processing_time_ms = *took.get_or_init(|| began.elapsed().as_millis() as u64);
        created(SentMessage { message_id: &message.id, response: None, processing_time_ms })
    };
    create_once(request, &right, &bytes, answer, async |response_rows| {
        list_resource::create(&caller, &right, new, response_rows).await
    })
    .await
}
