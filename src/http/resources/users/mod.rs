//! `/users`, `/users/me`, `/organizations/{id}/members`: request and response types. The rules are in
//! [`crate::domain::users`]. Registration and sessions have their own files.
//!
//! * A body with a password is wiped from memory once it is parsed. No response has a password.

pub(crate) mod login;
pub(crate) mod register;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::auth::{Authenticated, Authorized, Manage, Organization, Principal, Role, WriteAsUser};
use crate::domain::users::{self, User, UserPatch, UserService};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::etag::{if_match, of_version};
use crate::http::request::parameters::{no_parameters, only_parameter, unescaped};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{IfMatch, OrganizationParameter, PageParameters};
use crate::time::rfc3339;

use super::page::{page, page_response};

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
struct UserView<'a> {
    /// Id: `user-<uuid7>`. It is the `sub` of the user's tokens.
    id: &'a str,
    /// Organization of the user.
    organization_id: &'a str,
    /// Email, in lower case. It is unique in the organization.
    email: &'a str,
    /// Name for people.
    name: &'a str,
    /// Time zone, for the platform.
    timezone: Option<&'a str>,
    /// Role, which determines what the user may do.
    role: Role,
    /// True if the user is disabled.
    disabled: bool,
    /// Time of registration.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of the last change.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(request: &ApiRequest, organization: &'a Organization, user: &'a User) -> UserView<'a> {
    UserView {
        id: &user.id,
        organization_id: &organization.id,
        email: &user.email,
        name: &user.name,
        timezone: user.timezone.as_deref(),
        role: user.role,
        disabled: request.shared().auth.is_disabled(organization.tenant, &user.id),
        created_at: rfc3339(user.created_ms),
        updated_at: rfc3339(user.updated_ms),
    }
}

fn user_response(request: &ApiRequest, organization: &Organization, user: &User) -> ApiResponse {
    of_version(ApiResponse::data(StatusCode::OK, view(request, organization, user)), user.version)
}

/// Returns the caller's organization.
fn own_organization(request: &ApiRequest, principal: &Principal) -> Result<Arc<Organization>, ErrorResponse> {
    request.shared().auth.organization(principal.tenant).ok_or_else(ErrorResponse::not_found)
}

fn user_service(request: &ApiRequest) -> UserService<'_> {
    UserService { tenants: &request.shared().tenants, auth: &request.shared().auth }
}

/// Wipes a body from memory, if nothing else refers to its bytes.
fn erase_secrets(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

/// Gets your own user.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    tag = "users",
    responses((status = 200, description = "The user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(crate) async fn me(request: &ApiRequest, right: Authorized<Authenticated>) -> HandlerResult {
    let principal = right.principal().clone();
    no_parameters(request)?;
    let user = users::own_user(user_service(request), &principal).await?;
    Ok(user_response(request, &*own_organization(request, &principal)?, &user))
}

/// Updates fields of your own user; `null` clears a field.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/users/me",
    tag = "users",
    params(IfMatch),
    request_body = UserPatch,
    responses((status = 200, description = "The updated user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(crate) async fn update_me(request: &mut ApiRequest, right: Authorized<WriteAsUser>) -> HandlerResult {
    no_parameters(request)?;
    let patch: UserPatch = request.json().await?;
    let request = &*request;
    let user = users::change_me(user_service(request), &right, if_match(request)?, patch).await?;
    Ok(user_response(request, &*own_organization(request, right.principal())?, &user))
}

/// Lists users, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    params(PageParameters, OrganizationParameter),
    responses((status = 200, description = "A page of users.", body = Vec<UserView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Manage>) -> HandlerResult {
    let mut org_id = None;
    let page = page(request, |name, value| {
        if name == "org_id" && !value.is_empty() {
            org_id = Some(value.to_owned());
        }
        Ok(name == "org_id")
    })?;
    listing(request, &right, org_id.as_deref(), &page).await
}

/// Lists the users of an organization, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/members",
    tag = "users",
    params(PageParameters),
    responses((status = 200, description = "A page of users.", body = Vec<UserView>))
)]
pub(crate) async fn list_members(request: &ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    let page = page(request, |_, _| Ok(false))?;
    listing(request, &right, Some(&unescaped(id)?), &page).await
}

async fn listing(
    request: &ApiRequest,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    page: &crate::domain::PageRequest,
) -> HandlerResult {
    let ((found, next), organization) = users::list(user_service(request), right, org_id, page).await?;
    let views: Vec<UserView<'_>> = found.iter().map(|user| view(request, &organization, user)).collect();
    Ok(page_response(&views, next.as_ref()))
}

/// Gets a user.
#[utoipa::path(
    get,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OrganizationParameter),
    responses((status = 200, description = "The user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    let (user, organization) =
        users::get(user_service(request), &right, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(user_response(request, &organization, &user))
}

/// Deletes a user with their messages, memories, core memory and events.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OrganizationParameter, IfMatch),
    responses((status = 204, description = "The user is deleted."))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    users::delete(user_service(request), &right, org_id.as_deref(), &unescaped(id)?, if_match(request)?)
        .await?;
    Ok(ApiResponse::empty())
}

/// New role of a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleChange)]
struct RoleBody {
    /// New role. It cannot exceed the caller's own rights.
    role: Role,
}

/// Sets a user's role. The user's tokens end.
#[utoipa::path(
    put,
    path = "/api/v1/organizations/{id}/members/{sub}",
    tag = "users",
    params(IfMatch),
    request_body = RoleBody,
    responses((status = 200, description = "The updated user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(crate) async fn set_member_role(
    request: &mut ApiRequest,
    right: Authorized<Manage>,
    id: &str,
    sub: &str,
) -> HandlerResult {
    no_parameters(request)?;
    let body: RoleBody = request.json().await?;
    let request = &*request;
    let (id, sub) = (unescaped(id)?, unescaped(sub)?);
    let changed =
        users::set_role(user_service(request), &right, Some(&id), &sub, if_match(request)?, body.role).await;
    let (user, organization) = changed?;
    Ok(user_response(request, &organization, &user))
}

/// Deletes a user of an organization.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}/members/{sub}",
    tag = "users",
    params(IfMatch),
    responses((status = 204, description = "The user is deleted."))
)]
pub(crate) async fn remove_member(
    request: &ApiRequest,
    right: Authorized<Manage>,
    id: &str,
    sub: &str,
) -> HandlerResult {
    no_parameters(request)?;
    users::delete(user_service(request), &right, Some(&unescaped(id)?), &unescaped(sub)?, if_match(request)?)
        .await?;
    Ok(ApiResponse::empty())
}
