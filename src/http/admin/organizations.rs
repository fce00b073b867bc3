//! `/organizations`, `/organizations/{id}`: the operator manages all organizations, a manager its own. Others
//! learn nothing about foreign organizations, not even that they exist.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{
    Authorized, Manage, NewOrganization, Operate, Organization, OrganizationChange, Visibility,
};
use crate::outcome::Refusal;
use crate::time::rfc3339;

use super::super::api::parameters::{AdminPage, IdempotencyKey, IfMatch};
use super::super::exchange::Exchange;
use super::super::once::{self, Turn};
use super::super::respond::Answer;
use super::super::version::{if_match, of_version};
use super::{no_parameters, parameters, unescaped};

/// An organization.
#[derive(Serialize, ToSchema)]
#[schema(as = Organization)]
struct View<'a> {
    /// Unique id of the organization.
    id: &'a str,
    /// Name for people.
    name: &'a str,
    /// Which users receive events that carry a `user_id`.
    visibility: Visibility,
    /// True if the organization publishes which of its users are connected.
    presence: bool,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
}

fn view(organization: &Organization) -> View<'_> {
    View {
        id: &organization.id,
        name: &organization.name,
        visibility: organization.visibility,
        presence: organization.presence,
        created_at: rfc3339(organization.created_at_ms),
    }
}

fn told(status: StatusCode, organization: &Organization) -> Answer {
    of_version(Answer::data(status, view(organization)), organization.version())
}

/// Lists organizations in the order of their ids. For the operator.
#[utoipa::path(
    get,
    path = "/api/v1/organizations",
    tag = "organizations",
    params(AdminPage),
    responses((status = 200, description = "A page of organizations.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, by: Authorized<Operate>) -> Result<Answer, Refusal> {
    let page = parameters(x, &["cursor", "offset", "limit"])?;
    let found = x.shared().auth.organizations(&by, page.after.as_deref(), page.reach());
    let rows: Vec<View<'_>> = found.iter().map(|organization| view(organization)).collect();
    Ok(super::list(&rows, &page, |row| row.id))
}

/// An organization to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOrganization)]
struct NewBody {
    /// Id for tokens that another service issues; generated if absent.
    id: Option<String>,
    /// Name for people.
    name: Option<String>,
    /// Which users receive events that carry a `user_id`; `private` if absent.
    visibility: Option<Visibility>,
    /// Whether to publish which users are connected; `false` if absent.
    presence: Option<bool>,
}

/// A change of an organization. Fields that are left out stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganizationChange)]
struct ChangeBody {
    /// Cannot be changed. The field exists so that the refusal can say so.
    #[schema(ignore)]
    id: Option<serde::de::IgnoredAny>,
    /// Name for people.
    name: Option<String>,
    /// Which users receive events that carry a `user_id`.
    visibility: Option<Visibility>,
    /// Whether to publish which users are connected.
    presence: Option<bool>,
}

/// Creates an organization. For the operator.
#[utoipa::path(
    post,
    path = "/api/v1/organizations",
    tag = "organizations",
    params(IdempotencyKey),
    request_body = NewBody,
    responses((status = 201, description = "The new organization.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn create(x: &mut Exchange, by: Authorized<Operate>) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let (body, bytes): (NewBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, &by, &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let new = NewOrganization {
        id: body.id,
        name: body.name.unwrap_or_default(),
        visibility: body.visibility.unwrap_or_default(),
        presence: body.presence.unwrap_or_default(),
        first_key: false,
    };
    let rows = |made: &Organization| once::kept(once.as_ref(), || told(StatusCode::CREATED, made));
    let made = shared.auth.create_organization_with(&by, new, rows).await?;
    Ok(told(StatusCode::CREATED, &made.organization))
}

/// Gets an organization: your own, or any for the operator.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    responses((status = 200, description = "The organization.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn get(x: &Exchange, by: Authorized<Manage>, id: &str) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let found = x.shared().auth.find_organization(&by, Some(&unescaped(id)?))?;
    Ok(told(StatusCode::OK, &found))
}

/// Updates the given fields. A change of `visibility` takes effect at once, on open connections too.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    params(IfMatch),
    request_body = ChangeBody,
    responses((status = 200, description = "The updated organization.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn change(
    x: &mut Exchange,
    by: Authorized<Manage>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let body: ChangeBody = x.json().await?;
    if body.id.is_some() {
        return Err(Refusal::invalid("id", "cannot be changed"));
    }
    let change = OrganizationChange { name: body.name, visibility: body.visibility, presence: body.presence };
    let version = if_match(x)?;
    let changed = x.shared().auth.change_organization(&by, Some(&unescaped(id)?), version, change).await?;
    Ok(told(StatusCode::OK, &changed))
}

/// Deletes an organization with its credentials at once, and its events within 24 hours. For the operator.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    responses((status = 204, description = "The organization is deleted."), (status = 409))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    by: Authorized<Operate>,
    id: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    x.shared().auth.delete_organization(&by, &unescaped(id)?).await?;
    Ok(Answer::empty())
}
