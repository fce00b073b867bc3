//! `/memories`, `/memories/{id}` and its history; `/agents/{id}/memories`. Batches and search have their own
//! files.

pub(in crate::http) mod batch;
pub(in crate::http) mod search;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser};
use crate::event::Kind;
use crate::outcome::Refusal;
use crate::resource::agents::{self, Json};
use crate::resource::memories::{self, Memory, MemoryType, NewMemory, Saying, Scope, Version};
use crate::resource::{Page, Position};
use crate::time::rfc3339;

use super::super::api::parameters::{
    IdempotencyKey, IfMatch, OfMemories, OfMessages, OfUser, Page as PageAsked,
};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::parameters::{OFFSET_MOST, number};
use super::super::respond::Answer;
use super::{
    Asker, Written, if_match, listed, made, no_parameters, of_version, page, reading, unescaped, writing,
    written,
};

/// A memory.
#[derive(Serialize, ToSchema)]
#[schema(as = Memory)]
struct View<'a> {
    /// Id: `memory-<uuid7>`.
    id: &'a str,
    /// Organization of the memory.
    organization_id: &'a str,
    /// Agent that the memory belongs to; `null` if none.
    agent_id: Option<&'a str>,
    /// User that the memory belongs to; `null` means all users.
    user_id: Option<&'a str>,
    /// Text of the memory.
    content: &'a str,
    /// Type of the memory.
    memory_type: MemoryType,
    /// Importance, 0 to 1.
    importance: f64,
    /// What the memory belongs to.
    scope: Option<Scope>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Version; it increases with each change.
    version: u64,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(org_id: &'a str, memory: &'a Memory) -> View<'a> {
    View {
        id: &memory.id,
        organization_id: org_id,
        agent_id: memory.agent_id.as_deref(),
        user_id: memory.user_id.as_deref(),
        content: &memory.said.content,
        memory_type: memory.said.memory_type,
        importance: memory.said.importance,
        scope: memory.scope,
        metadata: memory.said.metadata.as_ref(),
        version: memory.version,
        created_at: rfc3339(memory.created_ms),
        updated_at: rfc3339(memory.updated_ms),
    }
}

fn told(org_id: &str, memory: &Memory) -> Answer {
    of_version(Answer::data(StatusCode::OK, view(org_id, memory)), memory.version)
}

/// The query of a list of memories.
#[derive(Default)]
struct Asked {
    agent_id: Option<String>,
    user_id: Option<String>,
    /// Number of the page, from 0, for older clients.
    page: Option<u64>,
}

impl Asked {
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Refusal> {
        match (name, value) {
            ("agent_id" | "user_id" | "page" | "sort_by", "") | ("sort_by", "created_at") => {}
            ("agent_id", id) => self.agent_id = Some(id.to_owned()),
            ("user_id", id) => self.user_id = Some(id.to_owned()),
            ("page", text) => self.page = Some(number("page", text, 0, OFFSET_MOST)?),
            ("sort_by", _) => {
                return Err(Refusal::bad_request("sort_by: must be created_at; lists have no other order"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the page that the request selects by its number, if it does.
    fn numbered(&self, mut page: Page) -> Result<Page, Refusal> {
        let Some(wanted) = self.page else { return Ok(page) };
        let offset = wanted * page.limit as u64;
        if page.from != Position::Offset(0) {
            return Err(Refusal::bad_request("page cannot be given together with cursor or offset"));
        }
        if offset > OFFSET_MOST {
            let message = format!("page: skips more than {OFFSET_MOST} rows; use cursor");
            return Err(Refusal::bad_request(message));
        }
        page.from = Position::Offset(offset as usize);
        Ok(page)
    }
}

async fn list_of(caller: &Asker<'_>, asked: Asked, page: Page) -> Result<Answer, Refusal> {
    let page = asked.numbered(page)?;
    let (agent_id, user_id) = (asked.agent_id.as_deref(), asked.user_id.as_deref());
    let (memories, next) = memories::list(caller, agent_id, user_id, &page).await?;
    let views: Vec<View<'_>> = memories.iter().map(|memory| view(&caller.principal.org_id, memory)).collect();
    Ok(listed(&views, next.as_ref()))
}

/// Lists memories of an agent, of a user, of both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories",
    tag = "memories",
    params(PageAsked, OfMessages, OfMemories),
    responses((status = 200, description = "A page of memories.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, right: Authorized<Subscribe>) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let mut asked = Asked::default();
    let page = page(x, |name, value| asked.take(name, value))?;
    list_of(&caller, asked, page).await
}

/// Lists an agent's memories, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/memories",
    tag = "memories",
    params(PageAsked, OfUser, OfMemories),
    responses((status = 200, description = "A page of memories.", body = Vec<View>))
)]
pub(in crate::http) async fn list_of_agent(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let mut asked = Asked::default();
    let page = page(x, |name, value| Ok(name != "agent_id" && asked.take(name, value)?))?;
    let id = unescaped(id)?;
    // the path names the agent, so a missing one is 404, not an empty list
    agents::exists(&caller, Kind::MemoryUpdate, &id).await?;
    asked.agent_id = Some(id);
    list_of(&caller, asked, page).await
}

/// Creates a memory. Publishes `memory_update` with the operation `created`.
#[utoipa::path(
    post,
    path = "/api/v1/memories",
    tag = "memories",
    params(IdempotencyKey),
    request_body = NewMemory,
    responses((status = 201, description = "The new memory.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn create(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
) -> Result<Answer, Refusal> {
    let Written { x, right, caller, bytes, body: new } = written::<NewMemory, WriteAsUser>(x, right).await?;
    let answer =
        |memory: &Memory| of_version(created(view(&caller.principal.org_id, memory)), memory.version);
    made(x, &right, &bytes, answer, async |kept| memories::create(&caller, &right, new, kept).await).await
}

/// Gets a memory.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    responses((status = 200, description = "The memory.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn get(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x, &right).await?;
    let memory = memories::get(&caller, &unescaped(id)?).await?;
    Ok(told(&caller.principal.org_id, &memory))
}

/// Updates the given fields. The previous version stays in the history. Publishes `memory_update`.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    request_body = Saying,
    responses((status = 200, description = "The updated memory.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn change(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> Result<Answer, Refusal> {
    let Written { x, right, caller, body: saying, .. } = written::<Saying, WriteAsUser>(x, right).await?;
    let memory = memories::change(&caller, &right, &unescaped(id)?, if_match(x)?, saying).await?;
    Ok(told(&caller.principal.org_id, &memory))
}

/// Deletes a memory. Publishes `memory_update` with the operation `deleted`.
#[utoipa::path(
    delete,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    responses((status = 204, description = "The memory is deleted."))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    memories::delete(&caller, &right, &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
}

/// A version of a memory.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryVersion)]
struct VersionView<'a> {
    /// Number of the version.
    version: u64,
    /// Operation that made the version: `created` or `updated`.
    operation: &'a str,
    /// Text of the memory.
    content: &'a str,
    /// Type of the memory.
    memory_type: MemoryType,
    /// Importance, 0 to 1.
    importance: f64,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Time of this version.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn version_view(version: &Version) -> VersionView<'_> {
    VersionView {
        version: version.version,
        operation: &version.operation,
        content: &version.said.content,
        memory_type: version.said.memory_type,
        importance: version.said.importance,
        metadata: version.said.metadata.as_ref(),
        updated_at: rfc3339(version.updated_ms),
    }
}

/// Lists the versions of a memory, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}/history",
    tag = "memories",
    params(PageAsked),
    responses((status = 200, description = "A page of versions.", body = Vec<VersionView>))
)]
pub(in crate::http) async fn history(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let page = page(x, |_, _| Ok(false))?;
    let (versions, next) = memories::history(&caller, &unescaped(id)?, &page).await?;
    let views: Vec<VersionView<'_>> = versions.iter().map(version_view).collect();
    Ok(listed(&views, next.as_ref()))
}
