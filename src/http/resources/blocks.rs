//! `/agents/{id}/core-memory`, `/agents/{id}/core-memory/{label}`.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe, WriteOwned};
use crate::outcome::Refusal;
use crate::resource::blocks::{self, Block, Holding, Label, Whose};
use crate::time::rfc3339;

use super::super::api::parameters::{ForUser, IfMatch, OfUser, Page};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{if_match, listed, of_version, only_parameter, page, reading, unescaped, writing};

/// A block of core memory as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = CoreMemoryBlock)]
struct View<'a> {
    /// `block-<uuid7>`: the `memory_id` of the events that tell of it.
    id: &'a str,
    /// Its organization.
    organization_id: &'a str,
    /// Whose memory it is.
    agent_id: &'a str,
    /// Whom it is about; `null`: everybody.
    user_id: Option<&'a str>,
    /// What it is about.
    label: Label,
    /// The text.
    value: &'a str,
    /// Most characters of the text.
    limit: u32,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(org_id: &'a str, block: &'a Block) -> View<'a> {
    View {
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

/// Lists an agent's blocks of core memory: everybody's, or a user's.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/core-memory",
    tag = "core memory",
    params(Page, OfUser),
    responses((status = 200, description = "All of them.", body = Vec<View>))
)]
pub(in crate::http) async fn list(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let mut user_id = None;
    // There is one page at most: its parameters are read to be refused where they are wrong.
    page(x, |name, value| {
        if name == "user_id" && !value.is_empty() {
            user_id = Some(value.to_owned());
        }
        Ok(name == "user_id")
    })?;
    let whose = Whose { agent_id: &unescaped(id)?, user_id: user_id.as_deref() };
    let found = blocks::list(&caller, whose).await?;
    let views: Vec<View<'_>> = found.iter().map(|block| view(&caller.principal.org_id, block)).collect();
    Ok(listed(&views, None))
}

/// Shows a block.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(OfUser),
    responses((status = 200, description = "The block.", body = View, headers(("ETag" = String, description = "Its version."))))
)]
pub(in crate::http) async fn get(
    x: &Exchange,
    right: Authorized<Subscribe>,
    id: &str,
    label: &str,
) -> Result<Answer, Refusal> {
    let caller = reading(x, &right).await?;
    let (id, user_id) = (unescaped(id)?, only_parameter(x, "user_id")?);
    let whose = Whose { agent_id: &id, user_id: user_id.as_deref() };
    let block = blocks::get(&caller, whose, Label::named(&unescaped(label)?)?).await?;
    Ok(of_version(Answer::data(StatusCode::OK, view(&caller.principal.org_id, &block)), block.version))
}

/// Makes a block, or has it hold something else. Publishes `memory_update`.
#[utoipa::path(
    put,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(ForUser, IfMatch),
    request_body = Holding,
    responses(
        (status = 200, description = "It holds that.", body = View, headers(("ETag" = String, description = "Its version."))),
        (status = 201, description = "It was made.", body = View, headers(("ETag" = String, description = "Its version."))),
    )
)]
pub(in crate::http) async fn put(
    x: &mut Exchange,
    right: Authorized<WriteOwned>,
    id: &str,
    label: &str,
) -> Result<Answer, Refusal> {
    let (id, label, user_id) =
        (unescaped(id)?, Label::named(&unescaped(label)?)?, only_parameter(x, "user_id")?);
    let (holding, bytes): (Holding, _) = x.json_and_bytes().await?;
    let x = &*x;
    let caller = writing(x, &right, bytes.len()).await?;
    let whose = Whose { agent_id: &id, user_id: user_id.as_deref() };
    let (block, is_new) = blocks::put(&caller, &right, whose, label, if_match(x)?, holding).await?;
    let view = view(&caller.principal.org_id, &block);
    let answer = if is_new { created(view) } else { Answer::data(StatusCode::OK, view) };
    Ok(of_version(answer, block.version))
}

/// Deletes a block. Publishes `memory_update`.
#[utoipa::path(
    delete,
    path = "/api/v1/agents/{id}/core-memory/{label}",
    tag = "core memory",
    params(OfUser, IfMatch),
    responses((status = 204, description = "It is gone."))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    right: Authorized<WriteOwned>,
    id: &str,
    label: &str,
) -> Result<Answer, Refusal> {
    let (id, label, user_id) =
        (unescaped(id)?, Label::named(&unescaped(label)?)?, only_parameter(x, "user_id")?);
    let caller = writing(x, &right, 0).await?;
    let whose = Whose { agent_id: &id, user_id: user_id.as_deref() };
    blocks::delete(&caller, &right, whose, label, if_match(x)?).await?;
    Ok(Answer::empty())
}
