//! `/organizations`, `/organizations/{id}`: the operator manages all organizations, a manager its own. Others
//! learn nothing about foreign organizations, not even that they exist.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{
    Authorized, Manage, NewOrganization, Operate, Organization, OrganizationChange, Visibility,
};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::etag::{if_match, of_version};
use crate::http::request::idempotency::{self, KeyedRequest};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{AdminPageParameters, IdempotencyKey, IfMatch};
use crate::time::rfc3339;

use super::{no_parameters, parameters, unescaped};

/// An organization.
#[derive(Serialize, ToSchema)]
#[schema(as = Organization)]
struct OrganizationView<'a> {
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

fn view(organization: &Organization) -> OrganizationView<'_> {
    OrganizationView {
        id: &organization.id,
        name: &organization.name,
        visibility: organization.visibility,
        presence: organization.presence,
        created_at: rfc3339(organization.created_at_ms),
    }
}

fn organization_response(status: StatusCode, organization: &Organization) -> ApiResponse {
    of_version(ApiResponse::data(status, view(organization)), organization.version())
}

/// Lists organizations in the order of their ids. For the operator.
#[utoipa::path(
    get,
    path = "/api/v1/organizations",
    tag = "organizations",
    params(AdminPageParameters),
    responses((status = 200, description = "A page of organizations.", body = Vec<OrganizationView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Operate>) -> HandlerResult {
    let page = parameters(request, &["cursor", "offset", "limit"])?;
    let found = request.shared().auth.organizations(&right, page.after.as_deref(), page.reach());
    let rows: Vec<OrganizationView<'_>> = found.iter().map(|organization| view(organization)).collect();
    Ok(super::list(&rows, &page, |row| row.id))
}

/// An organization to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOrganization)]
struct NewOrganizationBody {
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
struct OrganizationPatchBody {
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
    request_body = NewOrganizationBody,
    responses((status = 201, description = "The new organization.", body = OrganizationView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<Operate>) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (NewOrganizationBody, _) = request.json_and_bytes().await?;
    let shared = request.shared().clone();
    let guard = match idempotency::begin(&shared, request, &right, &bytes).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let new = NewOrganization {
        id: body.id,
        name: body.name.unwrap_or_default(),
        visibility: body.visibility.unwrap_or_default(),
        presence: body.presence.unwrap_or_default(),
        first_key: false,
    };
    let rows = |made: &Organization| {
        idempotency::response_rows(guard.as_ref(), || organization_response(StatusCode::CREATED, made))
    };
    let made = shared.auth.create_organization_with(&right, new, rows).await?;
    Ok(organization_response(StatusCode::CREATED, &made.organization))
}

/// Gets an organization: your own, or any for the operator.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    responses((status = 200, description = "The organization.", body = OrganizationView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let found = request.shared().auth.find_organization(&right, Some(&unescaped(id)?))?;
    Ok(organization_response(StatusCode::OK, &found))
}

/// Updates the given fields. A change of `visibility` takes effect at once, on open connections too.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    params(IfMatch),
    request_body = OrganizationPatchBody,
    responses((status = 200, description = "The updated organization.", body = OrganizationView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn update(request: &mut ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let body: OrganizationPatchBody = request.json().await?;
    if body.id.is_some() {
        return Err(ErrorResponse::invalid("id", "cannot be changed"));
    }
    let change = OrganizationChange { name: body.name, visibility: body.visibility, presence: body.presence };
    let version = if_match(request)?;
    let changed =
        request.shared().auth.change_organization(&right, Some(&unescaped(id)?), version, change).await?;
    Ok(organization_response(StatusCode::OK, &changed))
}

/// Deletes an organization with its credentials at once, and its events within 24 hours. For the operator.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}",
    tag = "organizations",
    responses((status = 204, description = "The organization is deleted."), (status = 409))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<Operate>, id: &str) -> HandlerResult {
    no_parameters(request)?;
    let deleted = request.shared().auth.delete_organization(&right, &unescaped(id)?).await?;
    request.shared().tenants.forget_streams(deleted.tenant);
    Ok(ApiResponse::empty())
}
