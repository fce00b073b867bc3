//! `/users`, `/users/me`, `/organizations/{id}/members`. The rules live in [`crate::resource::users`]; here are shapes only.
//! Registering and what answers with a session have a file each.
//!
//! * A body with a password is wiped when it was read; no answer has one.

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

/// A user as clients see them.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
struct View<'a> {
    /// `user-<uuid7>`: the `sub` of their tokens.
    id: &'a str,
    /// Their organization.
    organization_id: &'a str,
    /// In lower case; no other user's of the organization.
    email: &'a str,
    /// For people.
    name: &'a str,
    /// For the platform.
    timezone: Option<&'a str>,
    /// What they may do.
    role: Role,
    /// Whether they are kept out for now.
    disabled: bool,
    /// When they were registered.
    #[schema(format = DateTime)]
    created_at: String,
    /// When they were last changed.
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

/// The organization of whoever asks.
fn own_organization(x: &Exchange, principal: &Principal) -> Result<Arc<Organization>, Refusal> {
    x.shared().auth.organization(principal.tenant).ok_or_else(Refusal::not_found)
}

fn desk(x: &Exchange) -> Desk<'_> {
    Desk { tenants: &x.shared().tenants, auth: &x.shared().auth }
}

/// Wipes a body, if this is all there is of it.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

/// Shows who asks.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    tag = "users",
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Its version."))), (status = 404))
)]
pub(in crate::http) async fn me(x: &Exchange, right: Authorized<Authenticated>) -> Result<Answer, Refusal> {
    let principal = right.principal().clone();
    no_parameters(x)?;
    let user = users::own(desk(x), &principal).await?;
    Ok(told(x, &*own_organization(x, &principal)?, &user))
}

/// Changes what users say of themselves; `null` clears.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/users/me",
    tag = "users",
    params(IfMatch),
    request_body = Saying,
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Its version."))), (status = 404))
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
    responses((status = 200, description = "A page.", body = Vec<View>))
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

/// Lists the users of this organization, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/organizations/{id}/members",
    tag = "users",
    params(Page),
    responses((status = 200, description = "A page.", body = Vec<View>))
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

/// Shows a user.
#[utoipa::path(
    get,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OfOrganization),
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Its version."))))
)]
pub(in crate::http) async fn get(x: &Exchange, by: Authorized<Manage>, id: &str) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    let (user, organization) = users::get(desk(x), &by, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(told(x, &organization, &user))
}

/// Deletes a user with what they leave behind: messages, memories, core memory, events.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OfOrganization, IfMatch),
    responses((status = 204, description = "They are gone."))
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

/// What a member is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleChange)]
struct RoleBody {
    /// No wider than the caller's own rights.
    role: Role,
}

/// Gives a user another role; their tokens end.
#[utoipa::path(
    put,
    path = "/api/v1/organizations/{id}/members/{sub}",
    tag = "users",
    params(IfMatch),
    request_body = RoleBody,
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Its version."))))
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

/// Deletes a user of this organization.
#[utoipa::path(
    delete,
    path = "/api/v1/organizations/{id}/members/{sub}",
    tag = "users",
    params(IfMatch),
    responses((status = 204, description = "They are gone."))
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
