//! `/memories`, `/memories/{id}` and its history; `/agents/{id}/memories`. Batches and search have their own
//! files.

pub(crate) mod batch;
pub(crate) mod search;

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteAsUser};
use crate::domain::agents::{self, Json};
use crate::domain::memories::{self, Memory, MemoryPatch, MemoryType, NewMemory, Scope, Version};
use crate::domain::{AgentUserFilter, PageRequest, PageStart};
use crate::error_response::ErrorResponse;
use crate::event::EventKind;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{OFFSET_MOST, number, unescaped};
use crate::http::schemas::parameters::{
    IdempotencyKey, IfMatch, MemoryPageParameters, MessageParameters, PageParameters, UserParameter,
};
use crate::time::rfc3339;

use super::handlers::{self, HttpResource, list_page, read_agent_or_user};
use super::page::{page, page_response};
use super::write_request::{HttpCaller, reader};

/// A memory.
#[derive(Serialize, ToSchema)]
#[schema(as = Memory)]
struct MemoryView<'a> {
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

fn view<'a>(org_id: &'a str, memory: &'a Memory) -> MemoryView<'a> {
    MemoryView {
        id: &memory.id,
        organization_id: org_id,
        agent_id: memory.agent_id.as_deref(),
        user_id: memory.user_id.as_deref(),
        content: &memory.fields.content,
        memory_type: memory.fields.memory_type,
        importance: memory.fields.importance,
        scope: memory.scope,
        metadata: memory.fields.metadata.as_ref(),
        version: memory.version,
        created_at: rfc3339(memory.created_ms),
        updated_at: rfc3339(memory.updated_ms),
    }
}

/// The query of a list of memories.
#[derive(Default)]
struct MemoryListQuery {
    filter: AgentUserFilter,
    /// Number of the page, from 0, for older clients.
    page: Option<u64>,
}

impl MemoryListQuery {
    fn take(&mut self, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        match (name, value) {
            ("page" | "sort_by", "") | ("sort_by", "created_at") => {}
            ("page", text) => self.page = Some(number("page", text, 0, OFFSET_MOST)?),
            ("sort_by", _) => {
                return Err(ErrorResponse::bad_request(
                    "sort_by: must be created_at; lists have no other order",
                ));
            }
            _ => return Ok(read_agent_or_user(&mut self.filter, name, value)),
        }
        Ok(true)
    }

    /// Returns the page that the request selects by its number, if it does.
    fn numbered(&self, mut page: PageRequest) -> Result<PageRequest, ErrorResponse> {
        let Some(wanted) = self.page else { return Ok(page) };
        let offset = wanted * page.limit as u64;
        if page.from != PageStart::Offset(0) {
            return Err(ErrorResponse::bad_request("page cannot be given together with cursor or offset"));
        }
        if offset > OFFSET_MOST {
            let message = format!("page: skips more than {OFFSET_MOST} rows; use cursor");
            return Err(ErrorResponse::bad_request(message));
        }
        page.from = PageStart::Offset(offset as usize);
        Ok(page)
    }
}

async fn list_of(caller: &HttpCaller<'_>, query: MemoryListQuery, page: PageRequest) -> HandlerResult {
    list_page::<Memory>(caller, &query.filter, &query.numbered(page)?).await
}

impl HttpResource for Memory {
    fn view<'a>(&'a self, org_id: &'a str) -> impl Serialize {
        view(org_id, self)
    }
}

/// Lists memories of an agent, of a user, of both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories",
    tag = "memories",
    params(PageParameters, MessageParameters, MemoryPageParameters),
    responses((status = 200, description = "A page of memories.", body = Vec<MemoryView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut query = MemoryListQuery::default();
    let page = page(request, |name, value| query.take(name, value))?;
    list_of(&caller, query, page).await
}

/// Lists an agent's memories, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/memories",
    tag = "memories",
    params(PageParameters, UserParameter, MemoryPageParameters),
    responses((status = 200, description = "A page of memories.", body = Vec<MemoryView>))
)]
pub(crate) async fn list_of_agent(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
    id: &str,
) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut query = MemoryListQuery::default();
    let page = page(request, |name, value| Ok(name != "agent_id" && query.take(name, value)?))?;
    let id = unescaped(id)?;
    // the path names the agent, so a missing one is 404, not an empty list
    agents::exists(&caller, EventKind::MemoryUpdate, &id).await?;
    query.filter.agent_id = Some(id);
    list_of(&caller, query, page).await
}

/// Creates a memory. Publishes `memory_update` with the operation `created`.
#[utoipa::path(
    post,
    path = "/api/v1/memories",
    tag = "memories",
    params(IdempotencyKey),
    request_body = NewMemory,
    responses((status = 201, description = "The new memory.", body = MemoryView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<WriteAsUser>) -> HandlerResult {
    handlers::create::<Memory>(request, right).await
}

/// Gets a memory.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    responses((status = 200, description = "The memory.", body = MemoryView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    handlers::get::<Memory>(request, right, id).await
}

/// Updates the given fields. The previous version stays in the history. Publishes `memory_update`.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    request_body = MemoryPatch,
    responses((status = 200, description = "The updated memory.", body = MemoryView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn update(
    request: &mut ApiRequest,
    right: Authorized<WriteAsUser>,
    id: &str,
) -> HandlerResult {
    handlers::update::<Memory>(request, right, id).await
}

/// Deletes a memory. Publishes `memory_update` with the operation `deleted`.
#[utoipa::path(
    delete,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    responses((status = 204, description = "The memory is deleted."))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<WriteAsUser>, id: &str) -> HandlerResult {
    handlers::delete::<Memory>(request, right, id).await
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
        content: &version.fields.content,
        memory_type: version.fields.memory_type,
        importance: version.fields.importance,
        metadata: version.fields.metadata.as_ref(),
        updated_at: rfc3339(version.updated_ms),
    }
}

/// Lists the versions of a memory, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}/history",
    tag = "memories",
    params(PageParameters),
    responses((status = 200, description = "A page of versions.", body = Vec<VersionView>))
)]
pub(crate) async fn history(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let page = page(request, |_, _| Ok(false))?;
    let (versions, next) = memories::history(&caller, &unescaped(id)?, &page).await?;
    let views: Vec<VersionView<'_>> = versions.iter().map(version_view).collect();
    Ok(page_response(&views, next.as_ref()))
}
