//! `/tools`, `/tools/{id}`, `/tools/{id}/execute`.

use http::StatusCode;
use serde::Serialize;

use crate::outcome::Refusal;
use crate::resource::agents::Json;
use crate::resource::tools::{self, Saying, Tool};
use crate::time::rfc3339;

use super::super::created;
use super::super::criteria::boolean;
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{
    Written, if_match, listed, made, may_write, no_parameters, of_version, page, reading, unescaped, writing,
    written,
};

/// A tool as clients see it.
#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    organization_id: &'a str,
    name: &'a str,
    description: Option<&'a str>,
    json_schema: Option<&'a Json>,
    source_type: Option<&'a str>,
    source_code: Option<&'a str>,
    tags: &'a [String],
    metadata: Option<&'a Json>,
    created_at: String,
    updated_at: String,
}

fn view<'a>(org_id: &'a str, tool: &'a Tool) -> View<'a> {
    let said = &tool.said;
    View {
        id: &tool.id,
        organization_id: org_id,
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

pub(in crate::http) async fn list(x: &Exchange) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
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

pub(in crate::http) async fn create(x: &mut Exchange) -> Result<Answer, Refusal> {
    let Written { x, caller, bytes, body: saying, .. } = written::<Saying>(x).await?;
    let answer = |tool: &Tool| of_version(created(view(&caller.principal.org_id, tool)), tool.version);
    made(x, &caller, &bytes, answer, async |kept| tools::create(&caller, saying, kept).await).await
}

pub(in crate::http) async fn get(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x).await?;
    let tool = tools::get(&caller, &unescaped(id)?).await?;
    Ok(told(&caller.principal.org_id, &tool))
}

pub(in crate::http) async fn change(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let Written { x, caller, body: saying, .. } = written::<Saying>(x).await?;
    let tool = tools::change(&caller, &unescaped(id)?, if_match(x)?, saying).await?;
    Ok(told(&caller.principal.org_id, &tool))
}

pub(in crate::http) async fn delete(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let right = may_write(x)?;
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    tools::delete(&caller, &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
}

/// There is no sandbox to run a tool in, and none is run outside of one.
pub(in crate::http) async fn execute(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    may_write(x)?;
    let caller = reading(x).await?;
    tools::get(&caller, &unescaped(id)?).await?;
    Err(Refusal::not_implemented("tools are not executed here: run it where you have a sandbox"))
}
