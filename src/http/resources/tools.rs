//! `/tools`, `/tools/{id}`, `/tools/{id}/execute`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteOwned};
use crate::outcome::Refusal;
use crate::resource::agents::Json;
use crate::resource::tools::{self, Saying, Tool};
use crate::time::rfc3339;

use super::super::api::parameters::{IdempotencyKey, IfMatch, OfTools, Page};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::parameters::boolean;
use super::super::respond::Answer;
use super::{
    Written, asking, if_match, listed, made, no_parameters, of_version, page, reading, unescaped, writing,
    written,
};

/// A tool.
#[derive(Serialize, ToSchema)]
#[schema(as = Tool)]
struct View<'a> {
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

fn view<'a>(org_id: &'a str, tool: &'a Tool) -> View<'a> {
    let said = &tool.said;
    View {
        id: &tool.id,
        organization_id: org_id,
        owner: tool.owner.as_deref(),
        name: &tool.name,
        description: said.description.as_deref(),
        json_schema: said.json_schema.as_ref(),
        source_type: said.source_type.as_deref(),
        source_code: said.source_code.as_deref(),
        tags: &said.tags,
        metadata: said.metadata.as_ref(),
        created_at: rfc3339(tool.created_ms),
        updated_at: rfc3339(tool.updated_ms),
    }
}

fn told(org_id: &str, tool: &Tool) -> Answer {
    of_version(Answer::data(StatusCode::OK, view(org_id, tool)), tool.version)
}

/// Lists tools, newest first: all, or those with any or all of the given tags.
#[utoipa::path(
    get,
    path = "/api/v1/tools",
    tag = "tools",
    params(Page, OfTools),
    responses((status = 200, description = "A page of tools.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, right: Authorized<Subscribe>) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let (mut tags, mut match_all) = (Vec::new(), false);
    let page = page(x, |name, value| {
        match name {
            "tags" => tags.extend(value.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned)),
            "match_all" => match_all = boolean(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (tools, next) = tools::list(&caller, tags, match_all, &page).await?;
    let views: Vec<View<'_>> = tools.iter().map(|tool| view(&caller.principal.org_id, tool)).collect();
    Ok(listed(&views, next.as_ref()))
}

/// Creates a tool. Publishes no event.
#[utoipa::path(
    post,
    path = "/api/v1/tools",
    tag = "tools",
    params(IdempotencyKey),
    request_body = Saying,
    responses((status = 201, description = "The new tool.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn create(
    x: &mut Exchange,
    right: Authorized<WriteOwned>,
) -> Result<Answer, Refusal> {
    let Written { x, right, caller, bytes, body: saying } = written::<Saying, WriteOwned>(x, right).await?;
    let answer = |tool: &Tool| of_version(created(view(&caller.principal.org_id, tool)), tool.version);
    made(x, &right, &bytes, answer, async |kept| tools::create(&caller, &right, saying, kept).await).await
}

/// Gets a tool.
#[utoipa::path(
    get,
    path = "/api/v1/tools/{id}",
    tag = "tools",
    responses((status = 200, description = "The tool.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn get(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x, &right).await?;
    let tool = tools::get(&caller, &unescaped(id)?).await?;
    Ok(told(&caller.principal.org_id, &tool))
}

/// Updates the given fields; `null` clears a field.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/tools/{id}",
    tag = "tools",
    params(IfMatch),
    request_body = Saying,
    responses((status = 200, description = "The updated tool.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn change(
    x: &mut Exchange,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<Answer, Refusal> {
    let Written { x, right, caller, body: saying, .. } = written::<Saying, WriteOwned>(x, right).await?;
    let tool = tools::change(&caller, &right, &unescaped(id)?, if_match(x)?, saying).await?;
    Ok(told(&caller.principal.org_id, &tool))
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
    x: &Exchange,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    tools::delete(&caller, &right, &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
}

/// Always refuses: the daemon does not run tools, because it has no sandbox for them.
#[utoipa::path(
    post,
    path = "/api/v1/tools/{id}/execute",
    tag = "tools",
    responses((status = 501))
)]
pub(in crate::http) async fn execute(
    x: &Exchange,
    right: Authorized<WriteOwned>,
    id: &str,
) -> Result<Answer, Refusal> {
    let caller = asking(x, right.principal().clone()).await?;
    tools::get(&caller, &unescaped(id)?).await?;
    Err(Refusal::not_implemented("the daemon does not run tools; run it in your own sandbox"))
}
