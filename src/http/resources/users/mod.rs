//! `/users`, `/users/me`, `/organizations/{id}/members`: request and response types. The rules are in
//! [`crate::resource::users`]. Registration and sessions have their own files.
//!
//! * A body with a password is wiped from memory once it is parsed. No response has a password.

pub(in crate::http) mod login;
pub(in crate::http) mod register;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::auth::{Authenticated, Authorized, Manage, Organization, Principal, Role, WriteAsUser};
use crate::outcome::Refusal;
use crate::resource::users::{self, Desk, Saying, User};
use crate::time::rfc3339;

use super::super::api::parameters::{IfMatch, OfOrganization, Page};
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{if_match, listed, no_parameters, of_version, only_parameter, page, unescaped};

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
struct View<'a> {
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

fn view<'a>(x: &Exchange, organization: &'a Organization, user: &'a User) -> View<'a> {
    View {
        id: &user.id,
        organization_id: &organization.id,
        email: &user.email,
        name: &user.name,
        timezone: user.timezone.as_deref(),
        role: user.role,
        disabled: x.shared().auth.is_disabled(organization.tenant, &user.id),
        created_at: rfc3339(user.created_ms),
        updated_at: rfc3339(user.updated_ms),
    }
}

fn told(x: &Exchange, organization: &Organization, user: &User) -> Answer {
    of_version(Answer::data(StatusCode::OK, view(x, organization, user)), user.version)
}

/// Returns the caller's organization.
fn own_organization(x: &Exchange, principal: &Principal) -> Result<Arc<Organization>, Refusal> {
    x.shared().auth.organization(principal.tenant).ok_or_else(Refusal::not_found)
}

fn desk(x: &Exchange) -> Desk<'_> {
    Desk { tenants: &x.shared().tenants, auth: &x.shared().auth }
}

/// Wipes a body from memory, if nothing else refers to its bytes.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

/// Gets your own user.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    tag = "users",
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(in crate::http) async fn me(x: &Exchange, right: Authorized<Authenticated>) -> Result<Answer, Refusal> {
    let principal = right.principal().clone();
    no_parameters(x)?;
    let user = users::own(desk(x), &principal).await?;
    Ok(told(x, &*own_organization(x, &principal)?, &user))
}

/// Updates fields of your own user; `null` clears a field.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/users/me",
    tag = "users",
    params(IfMatch),
    request_body = Saying,
    responses((status = 200, description = "The updated user.", body = View, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(in crate::http) async fn change_me(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let saying: Saying = x.json().await?;
    let x = &*x;
    let user = users::change_me(desk(x), &right, if_match(x)?, saying).await?;
    Ok(told(x, &*own_organization(x, right.principal())?, &user))
}

/// Lists users, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    params(Page, OfOrganization),
    responses((status = 200, description = "A page of users.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, by: Authorized<Manage>) -> Result<Answer, Refusal> {
    let mut org_id = None;
    let page = page(x, |name, value| {
        if name == "org_id" && !value.is_empty() {
            org_id = Some(value.to_owned());
        }
        Ok(name == "org_id")
    })?;
    listing(x, &by, org_id.as_deref(), &page).await
}

/// Lists the users of an organization, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/members",
    tag = "users",
    params(Page),
    responses((status = 200, description = "A page of users.", body = Vec<View>))
)]
pub(in crate::http) async fn list_members(
    x: &Exchange,
    by: Authorized<Manage>,
    id: &str,
) -> Result<Answer, Refusal> {
    let page = page(x, |_, _| Ok(false))?;
    listing(x, &by, Some(&unescaped(id)?), &page).await
}

async fn listing(
    x: &Exchange,
    by: &Authorized<Manage>,
    org_id: Option<&str>,
    page: &crate::resource::Page,
) -> Result<Answer, Refusal> {
    let ((found, next), organization) = users::list(desk(x), by, org_id, page).await?;
    let views: Vec<View<'_>> = found.iter().map(|user| view(x, &organization, user)).collect();
    Ok(listed(&views, next.as_ref()))
}

/// Gets a user.
#[utoipa::path(
    get,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OfOrganization),
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn get(x: &Exchange, by: Authorized<Manage>, id: &str) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    let (user, organization) = users::get(desk(x), &by, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(told(x, &organization, &user))
}

/// Deletes a user with their messages, memories, core memory and events.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OfOrganization, IfMatch),
    responses((status = 204, description = "The user is deleted."))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    by: Authorized<Manage>,
    id: &str,
) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    users::delete(desk(x), &by, org_id.as_deref(), &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
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
    responses((status = 200, description = "The updated user.", body = View, headers(("ETag" = String, description = "Version of the resource."))))
)]
pub(in crate::http) async fn change_member(
    x: &mut Exchange,
    by: Authorized<Manage>,
    id: &str,
    sub: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let body: RoleBody = x.json().await?;
    let x = &*x;
    let (id, sub) = (unescaped(id)?, unescaped(sub)?);
    let changed = users::set_role(desk(x), &by, Some(&id), &sub, if_match(x)?, body.role).await;
    let (user, organization) = changed?;
    Ok(told(x, &organization, &user))
}

/// Deletes a user of an organization.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}/members/{sub}",
    tag = "users",
    params(IfMatch),
    responses((status = 204, description = "The user is deleted."))
)]
pub(in crate::http) async fn remove_member(
    x: &Exchange,
    by: Authorized<Manage>,
    id: &str,
    sub: &str,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    users::delete(desk(x), &by, Some(&unescaped(id)?), &unescaped(sub)?, if_match(x)?).await?;
    Ok(Answer::empty())
}
