//! `/agents/{id}/core-memory`, `/agents/{id}/core-memory/{label}`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteOwned};
use crate::domain::core_memory::{self, Block, BlockContent, CoreMemoryOwner, Label};
use crate::http::HandlerResult;
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::request::etag::{if_match, of_version};
use crate::http::request::parameters::{only_parameter, unescaped};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{BlockUserParameter, IfMatch, PageParameters, UserParameter};
use crate::time::rfc3339;

use super::page::{page, page_response};
use super::write_request::{begin_write, reader};

/// A block of core memory.
#[derive(Serialize, ToSchema)]
#[schema(as = CoreMemoryBlock)]
struct BlockView<'a> {
    /// Id: `block-<uuid7>`. It is the `memory_id` of the block's events.
    id: &'a str,
    /// Organization of the block.
    organization_id: &'a str,
    /// Agent whose core memory the block is in.
    agent_id: &'a str,
    /// User that the block is about; `null` means all users.
    user_id: Option<&'a str>,
    /// Label of the block.
    label: Label,
    /// Text of the block.
    value: &'a str,
    /// Maximum length of the text, in characters.
    limit: u32,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(org_id: &'a str, block: &'a Block) -> BlockView<'a> {
    BlockView {
        id: &block.id,
        organization_id: org_id,
        agent_id: &block.agent_id,
        user_id: block.user_id.as_deref(),
        label: block.label,
        value: &block.value,
        limit: block.limit,
        created_at: rfc3339(block.created_ms),
        updated_at: rfc3339(block.updated_ms),
    }
}

/// Lists an agent's core memory blocks: those about all users, or those about one user.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/core-memory",
    tag = "core memory",
    params(PageParameters, UserParameter),
    responses((status = 200, description = "All of these blocks.", body = Vec<BlockView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut user_id = None;
    // There is at most one page. The paging parameters are parsed only so that invalid ones are refused.
    page(request, |name, value| {
        if name == "user_id" && !value.is_empty() {
            user_id = Some(value.to_owned());
        }
        Ok(name == "user_id")
    })?;
    let owner = CoreMemoryOwner { agent_id: &unescaped(id)?, user_id: user_id.as_deref() };
    let found = core_memory::list(&caller, owner).await?;
    let views: Vec<BlockView<'_>> = found.iter().map(|block| view(&caller.principal.org_id, block)).collect();
    Ok(page_response(&views, None))
}

/// Gets a core memory block.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(UserParameter),
    responses((status = 200, description = "The block.", body = BlockView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
    id: &str,
    label: &str,
) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let (id, user_id) = (unescaped(id)?, only_parameter(request, "user_id")?);
    let owner = CoreMemoryOwner { agent_id: &id, user_id: user_id.as_deref() };
    let block = core_memory::get(&caller, owner, Label::named(&unescaped(label)?)?).await?;
    Ok(of_version(ApiResponse::data(StatusCode::OK, view(&caller.principal.org_id, &block)), block.version))
}

/// Creates or replaces a core memory block. Publishes `memory_update`.
#[utoipa::path(
    put,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(BlockUserParameter, IfMatch),
    request_body = BlockContent,
    responses(
        (status = 200, description = "The replaced block.", body = BlockView, headers(("ETag" = String, description = "Version of the resource."))),
        (status = 201, description = "The new block.", body = BlockView, headers(("ETag" = String, description = "Version of the resource."))),
    )
)]
pub(crate) async fn put(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
    label: &str,
) -> HandlerResult {
    let (id, label, user_id) =
        (unescaped(id)?, Label::named(&unescaped(label)?)?, only_parameter(request, "user_id")?);
    let (holding, bytes): (BlockContent, _) = request.json_and_bytes().await?;
    let request = &*request;
    let caller = begin_write(request, &right, bytes.len()).await?;
    let owner = CoreMemoryOwner { agent_id: &id, user_id: user_id.as_deref() };
    let (block, is_new) =
        core_memory::put(&caller, &right, owner, label, if_match(request)?, holding).await?;
    let view = view(&caller.principal.org_id, &block);
    let answer = if is_new { created(view) } else { ApiResponse::data(StatusCode::OK, view) };
    Ok(of_version(answer, block.version))
}

/// Deletes a core memory block. Publishes `memory_update`.
#[utoipa::path(
    delete,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(UserParameter, IfMatch),
    responses((status = 204, description = "The block is deleted."))
)]
pub(crate) async fn delete(
    request: &ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
    label: &str,
) -> HandlerResult {
    let (id, label, user_id) =
        (unescaped(id)?, Label::named(&unescaped(label)?)?, only_parameter(request, "user_id")?);
    let caller = begin_write(request, &right, 0).await?;
    let owner = CoreMemoryOwner { agent_id: &id, user_id: user_id.as_deref() };
    core_memory::delete(&caller, &right, owner, label, if_match(request)?).await?;
    Ok(ApiResponse::empty())
}
