//! `/tools`, `/tools/{id}`, `/tools/{id}/execute`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteOwned};
use crate::domain::agents::Json;
use crate::domain::list_resource;
use crate::domain::tools::{Tool, ToolFilter, ToolPatch};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{boolean, unescaped};
use crate::http::schemas::parameters::{IdempotencyKey, IfMatch, PageParameters, ToolParameters};
use crate::time::rfc3339;

use super::handlers::{self, HttpResource};
use super::write_request::caller;

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

impl HttpResource for Tool {
    fn view<'a>(&'a self, org_id: &'a str) -> impl Serialize {
        let fields = &self.fields;
        ToolView {
            id: &self.id,
            organization_id: org_id,
            owner: self.owner.as_deref(),
            name: &self.name,
            description: fields.description.as_deref(),
            json_schema: fields.json_schema.as_ref(),
            source_type: fields.source_type.as_deref(),
            source_code: fields.source_code.as_deref(),
            tags: &fields.tags,
            metadata: fields.metadata.as_ref(),
            created_at: rfc3339(self.created_ms),
            updated_at: rfc3339(self.updated_ms),
        }
    }

    fn read_filter(filter: &mut ToolFilter, name: &str, value: &str) -> Result<bool, ErrorResponse> {
        match name {
            "tags" => {
                filter.tags.extend(value.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned));
            }
            "match_all" => filter.match_all = boolean(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Lists tools, newest first: all, or those with any or all of the given tags.
#[utoipa::path(
    get,
    path = "/api/v1/tools",
    tag = "tools",
    params(PageParameters, ToolParameters),
    responses((status = 200, description = "A page of tools.", body = Vec<ToolView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    handlers::list::<Tool>(request, right).await
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
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<WriteOwned>) -> HandlerResult {
    handlers::create::<Tool>(request, right).await
}

/// Gets a tool.
#[utoipa::path(
    get,
    path = "/api/v1/tools/{id}",
    tag = "tools",
    responses((status = 200, description = "The tool.", body = ToolView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Subscribe>, id: &str) -> HandlerResult {
    handlers::get::<Tool>(request, right, id).await
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
pub(crate) async fn update(
    request: &mut ApiRequest,
    right: Authorized<WriteOwned>,
    id: &str,
) -> HandlerResult {
    handlers::update::<Tool>(request, right, id).await
}

/// Deletes a tool.
#[utoipa::path(
    delete,
    path = "/api/v1/tools/{id}",
    tag = "tools",
    params(IfMatch),
    responses((status = 204, description = "The tool is deleted."))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<WriteOwned>, id: &str) -> HandlerResult {
    handlers::delete::<Tool>(request, right, id).await
}

/// Always refuses: the daemon does not run tools, because it has no sandbox for them.
#[utoipa::path(
    post,
    path = "/api/v1/tools/{id}/execute",
    tag = "tools",
    responses((status = 501))
)]
pub(crate) async fn execute(request: &ApiRequest, right: Authorized<WriteOwned>, id: &str) -> HandlerResult {
    let caller = caller(request, right.principal().clone()).await?;
    list_resource::get::<Tool, _>(&caller, &unescaped(id)?).await?;
    Err(ErrorResponse::not_implemented("the daemon does not run tools; run it in your own sandbox"))
}
