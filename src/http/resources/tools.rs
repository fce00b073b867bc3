//! `/tools`, `/tools/{id}`, `/tools/{id}/execute`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteOwned};
use crate::domain::agents::Json;
use crate::domain::tools::{self, Tool, ToolPatch};
use crate::error_response::ErrorResponse;
use crate::http::api_docs::parameters::{IdempotencyKey, IfMatch, OfTools, Page};
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::boolean;
use crate::http::response::ApiResponse;
use crate::time::rfc3339;

use super::{
    WriteRequest, begin_write, caller, create_once, if_match, no_parameters, of_version, page, page_response,
    reader, unescaped, write_request,
};

/// A tool.
#[derive(Serialize, ToSchema)]
#[schema(as = Tool)]
struct ToolView<'a> {
    /// Id: `tool-<uuid7>`.
    id: &'a str,
    /// Organization of the tool.
    organization_id: &'a str,
    /// User who may change the tool with the scope `write`. `null` means that only the scope `agents` can
    /// change it.
    owner: Option<&'a str>,
    /// Name of the tool.
    name: &'a str,
    /// Description for people and models.
    description: Option<&'a str>,
    /// JSON schema of the tool's arguments.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<&'a Json>,
    /// Type of the source code, as the platform defines it.
    source_type: Option<&'a str>,
    /// Source code of the tool.
    source_code: Option<&'a str>,
    /// Tags, in the order they were given, without duplicates.
    tags: &'a [String],
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(org_id: &'a str, tool: &'a Tool) -> ToolView<'a> {
    let fields = &tool.fields;
    ToolView {
        id: &tool.id,
        organization_id: org_id,
        owner: tool.owner.as_deref(),
        name: &tool.name,
        description: fields.description.as_deref(),
        json_schema: fields.json_schema.as_ref(),
        source_type: fields.source_type.as_deref(),
        source_code: fields.source_code.as_deref(),
        tags: &fields.tags,
        metadata: fields.metadata.as_ref(),
        created_at: rfc3339(tool.created_ms),
        updated_at: rfc3339(tool.updated_ms),
    }
}

fn tool_response(org_id: &str, tool: &Tool) -> ApiResponse {
    of_version(ApiResponse::data(StatusCode::OK, view(org_id, tool)), tool.version)
}

/// Lists tools, newest first: all, or those with any or all of the given tags.
#[utoipa::path(
    get,
    path = "/api/v1/tools",
    tag = "tools",
    params(Page, OfTools),
    responses((status = 200, description = "A page of tools.", body = Vec<ToolView>))
)]
pub(in crate::http) async fn list(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
) -> Result<ApiResponse, ErrorResponse> {
    let caller = reader(request, &right).await?;
    let (mut tags, mut match_all) = (Vec::new(), false);
    let page = page(request, |name, value| {
        match name {
            "tags" => tags.extend(value.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned)),
            "match_all" => match_all = boolean(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (tools, next) = tools::list(&caller, tags, match_all, &page).await?;
    let views: Vec<ToolView<'_>> = tools.iter().map(|tool| view(&caller.principal.org_id, tool)).collect();
    Ok(page_response(&views, next.as_ref()))
}

/// Creates a tool. Publishes no event.
#[utoipa::path(
    post,
    path = "/api/v1/tools",
    tag = "tools",
    params(IdempotencyKey),
    request_body = ToolPatch,
    responses((status = 201, description = "The new tool.", body = ToolView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn create(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
) -> Result<ApiResponse, ErrorResponse> {
    let WriteRequest { request, right, caller, bytes, body: patch } =
        write_request::<ToolPatch, WriteOwned>(request, right).await?;
    let answer = |tool: &Tool| of_version(created(view(&caller.principal.org_id, tool)), tool.version);
    create_once(request, &right, &bytes, answer, async |response_rows| {
        tools::create(&caller, &right, patch, response_rows).await
    })
    .await
}

/// Gets a tool.
#[utoipa::path(
    get,
    path = "/api/v1/tools/{id}",
    tag = "tools",
    responses((status = 200, description = "The tool.", body = ToolView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn get(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    no_parameters(request)?;
    let caller = reader(request, &right).await?;
    let tool = tools::get(&caller, &unescaped(id)?).await?;
    Ok(tool_response(&caller.principal.org_id, &tool))
}

/// Updates the given fields; `null` clears a field.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/tools/{id}",
    tag = "tools",
    params(IfMatch),
    request_body = ToolPatch,
    responses((status = 200, description = "The updated tool.", body = ToolView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn change(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    let WriteRequest { request, right, caller, body: patch, .. } =
        write_request::<ToolPatch, WriteOwned>(request, right).await?;
    let tool = tools::change(&caller, &right, &unescaped(id)?, if_match(request)?, patch).await?;
    Ok(tool_response(&caller.principal.org_id, &tool))
}

/// Deletes a tool.
#[utoipa::path(
    delete,
    path = "/api/v1/tools/{id}",
    tag = "tools",
    params(IfMatch),
    responses((status = 204, description = "The tool is deleted."))
)]
pub(in crate::http) async fn delete(
    request: &ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    no_parameters(request)?;
    let caller = begin_write(request, &right, 0).await?;
    tools::delete(&caller, &right, &unescaped(id)?, if_match(request)?).await?;
    Ok(ApiResponse::empty())
}

/// Always refuses: the daemon does not run tools, because it has no sandbox for them.
#[utoipa::path(
    post,
    path = "/api/v1/tools/{id}/execute",
    tag = "tools",
    responses((status = 501))
)]
pub(in crate::http) async fn execute(
    request: &ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<ApiResponse, ErrorResponse> {
    let caller = caller(request, right.principal().clone()).await?;
    tools::get(&caller, &unescaped(id)?).await?;
    Err(ErrorResponse::not_implemented("the daemon does not run tools; run it in your own sandbox"))
}
