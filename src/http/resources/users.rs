//! `/users`, `/users/register`, `/users/login`, `/users/me`, `/organizations/{id}/members`. The rules live in
//! [`crate::resource::users`]; here are shapes only.
//!
//! * A body with a password is wiped when it was read; no answer has one, and what an `Idempotency-Key` keeps of the body is as
//!   hard to invert as the kept password.
//! * `/users/login` needs no credential and ignores one; its body is small, since anybody may send it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::auth::{Authorized, Manage, Organization, Password, Role, Subscribe, Use};
use crate::outcome::Refusal;
use crate::resource::entry::{self, Entered};
use crate::resource::users::{self, Desk, NewUser, Saying, User, UserError};
use crate::time::rfc3339;

use super::super::api::parameters::{IdempotencyKey, IfMatch, OfOrganization, Page};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::once::{self, Turn};
use super::super::respond::Answer;
use super::{if_match, listed, may_write, no_parameters, of_version, only_parameter, page, unescaped};

/// Most bytes of the body of a login: more than organization, email and password need.
pub const LOGIN_BYTES: usize = 8 * 1024;

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
fn own_organization(
    x: &Exchange,
    right: &Authorized<impl crate::auth::Right>,
) -> Result<Arc<Organization>, Refusal> {
    x.shared().auth.organization(right.principal().tenant).ok_or_else(Refusal::not_found)
}

fn desk(x: &Exchange) -> Desk<'_> {
    Desk { tenants: &x.shared().tenants, auth: &x.shared().auth }
}

/// Whether they may change users; asked before a body is read.
fn may_manage(x: &Exchange) -> Result<Authorized<Manage>, Refusal> {
    x.shared().serving()?;
    x.authorized::<Manage>()
}

/// Wipes a body, if this is all there is of it.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.zeroize();
    }
}

/// A user to be registered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
struct RegisterBody {
    /// Theirs alone within the organization.
    email: String,
    /// At least 8 characters.
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// At least 2 characters.
    name: String,
    /// The caller's own, or the path's, if absent.
    organization_id: Option<String>,
    /// For the platform.
    timezone: Option<String>,
    /// `user` if absent; no wider than the caller's own rights.
    #[serde(default)]
    role: Role,
}

/// Registers a user, who may enter with email and password.
#[utoipa::path(
    post,
    path = "/api/v1/users/register",
    tag = "users",
    params(IdempotencyKey),
    request_body = RegisterBody,
    responses((status = 201, description = "They may enter.", body = View, headers(("ETag" = String, description = "Its version."))), (status = 404))
)]
pub(in crate::http) async fn register(x: &mut Exchange) -> Result<Answer, Refusal> {
    enrol(x, None).await
}

/// Registers a user in this organization.
#[utoipa::path(
    post,
    path = "/api/v1/organizations/{id}/members",
    tag = "users",
    params(IdempotencyKey),
    request_body = RegisterBody,
    responses((status = 201, description = "They may enter.", body = View, headers(("ETag" = String, description = "Its version."))), (status = 404))
)]
pub(in crate::http) async fn add_member(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    enrol(x, Some(unescaped(id)?)).await
}

/// Registers a user in the organization that path or body names, or else the caller's.
async fn enrol(x: &mut Exchange, organization: Option<String>) -> Result<Answer, Refusal> {
    let by = may_manage(x)?;
    no_parameters(x)?;
    let (body, bytes): (RegisterBody, _) = x.json_and_bytes().await?;
    wipe(bytes);
    let x = &*x;
    let org_id = match (organization, body.organization_id) {
        (Some(path), Some(body)) if path != body => {
            return Err(Refusal::invalid("organization_id", "is another than the path's; leave it out"));
        }
        (path, body) => path.or(body),
    };
    let new = NewUser {
        email: body.email,
        password: Arc::new(body.password),
        name: body.name,
        timezone: body.timezone,
        role: body.role,
    };
    let digest = recognizable(x, &by, org_id.as_deref(), &new).await?;
    let once = match once::turn(x.shared(), x, by.principal(), &digest).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let answer = |user: &User, organization: &Organization| {
        of_version(created(view(x, organization, user)), user.version)
    };
    let kept =
        |user: &User, organization: &Organization| once::kept(once.as_ref(), &answer(user, organization));
    let (user, organization) = users::register(desk(x), &by, org_id.as_deref(), new, kept).await?;
    Ok(answer(&user, &organization))
}

/// What tells one registration from another under the same `Idempotency-Key`; of the password a digest that is as hard to invert
/// as its hash. Empty without a key.
async fn recognizable(
    x: &Exchange,
    by: &Authorized<Manage>,
    org_id: Option<&str>,
    new: &NewUser,
) -> Result<Vec<u8>, Refusal> {
    let Some(key) = once::idempotency_key(x)? else { return Ok(Vec::new()) };
    new.password.check_new().map_err(|reason| Refusal::invalid("password", &reason))?;
    let subject = by.principal().subject();
    let salt = crate::store::scope(&[by.principal().org_id.as_bytes(), subject.as_bytes(), key.as_bytes()]);
    let passwords = x.shared().auth.passwords();
    let place = passwords.setter(by.principal().tenant)?;
    let password = passwords.digest(&place, new.password.clone(), salt).await?;
    let rest = (&new.email, &new.name, &new.timezone, new.role, org_id, password);
    Ok(serde_json::to_vec(&rest).unwrap_or_default()) // texts and numbers: nothing can fail
}

/// Who would enter.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
struct LoginBody {
    /// The user's.
    email: String,
    /// The user's.
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// The user's.
    organization_id: String,
}

/// A token and whose it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
struct Session<'a> {
    /// The JWT.
    token: &'a str,
    /// When it ends.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Whose it is.
    user: View<'a>,
}

/// A session twice: in the envelope, and beside it, where AgentMem's clients read it.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionAnswer)]
struct SessionAnswer<'a> {
    #[serde(flatten)]
    #[schema(ignore)] // its fields are told where the document is made
    flat: &'a Session<'a>,
    /// The session.
    #[schema(value_type = Session<'a>)]
    data: &'a Session<'a>,
    /// Always `true`.
    success: bool,
}

fn entered(x: &Exchange, Entered { user, organization, issued }: &Entered) -> Answer {
    let session = Session {
        token: issued.token.expose(),
        expires_at: rfc3339(issued.expires_at_ms),
        user: view(x, organization, user),
    };
    let answer = SessionAnswer { flat: &session, data: &session, success: true };
    let body = serde_json::to_vec(&answer).unwrap_or_default(); // texts: nothing can fail
    let mut answer = Answer::raw_json(StatusCode::OK, body);
    answer.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A refused password is a failed credential like any other.
fn counted(x: &Exchange, error: UserError) -> Refusal {
    if matches!(error, UserError::Unknown | UserError::TooMany(_)) {
        x.shared().metrics.auth_failures.add(1);
        tracing::debug!(path = %x.path, peer = ?x.peer, %error, "login refused");
    }
    error.into()
}

/// Lets a user in: a token for organization, email and password. Wrong ones all look alike, and too many are refused.
#[utoipa::path(
    post,
    path = "/api/v1/users/login",
    tag = "users",
    security(()),
    request_body = LoginBody,
    responses(
        (status = 200, description = "A session.", body = SessionAnswer),
        (status = 401),
        (status = 429),
        (status = 503),
    )
)]
pub(in crate::http) async fn login(x: &mut Exchange) -> Result<Answer, Refusal> {
    x.shared().serving()?;
    no_parameters(x)?;
    let (body, bytes): (LoginBody, _) = x.small_json(LOGIN_BYTES).await?;
    wipe(bytes);
    let x = &*x;
    let LoginBody { email, password, organization_id } = body;
    let found = entry::login(desk(x), x.peer, &organization_id, &email, Arc::new(password)).await;
    found.map(|found| entered(x, &found)).map_err(|error| counted(x, error))
}

/// Shows who asks.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    tag = "users",
    responses((status = 200, description = "The user.", body = View, headers(("ETag" = String, description = "Its version."))), (status = 404))
)]
pub(in crate::http) async fn me(x: &Exchange) -> Result<Answer, Refusal> {
    let right = x.authorized::<Subscribe>()?;
    no_parameters(x)?;
    let user = users::me(desk(x), &right).await?;
    Ok(told(x, &*own_organization(x, &right)?, &user))
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
pub(in crate::http) async fn change_me(x: &mut Exchange) -> Result<Answer, Refusal> {
    let right = may_write(x)?;
    no_parameters(x)?;
    let saying: Saying = x.json().await?;
    let x = &*x;
    let user = users::change_me(desk(x), &right, if_match(x)?, saying).await?;
    Ok(told(x, &*own_organization(x, &right)?, &user))
}

/// A user's password, and the one it is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordChange)]
struct PasswordBody {
    /// The present one.
    #[schema(value_type = String, format = Password)]
    current_password: Password,
    /// At least 8 characters.
    #[schema(value_type = String, format = Password)]
    new_password: Password,
}

/// Changes the password of whoever asks. Any user may, whatever their role: knowing the present one is the right.
#[utoipa::path(
    put,
    path = "/api/v1/users/me/password",
    tag = "users",
    request_body = PasswordBody,
    responses((status = 200, description = "A new session; the tokens before it have ended.", body = SessionAnswer), (status = 404), (status = 409))
)]
pub(in crate::http) async fn change_password(x: &mut Exchange) -> Result<Answer, Refusal> {
    x.shared().serving()?;
    let principal = x.principal(Use::Rest)?;
    no_parameters(x)?;
    let (body, bytes): (PasswordBody, _) = x.small_json(LOGIN_BYTES).await?;
    wipe(bytes);
    let x = &*x;
    let (current, new) = (Arc::new(body.current_password), Arc::new(body.new_password));
    let changed = entry::change_password(desk(x), x.peer, &principal, current, new).await;
    changed.map(|found| entered(x, &found)).map_err(|error| counted(x, error))
}

/// Lists users, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    params(Page, OfOrganization),
    responses((status = 200, description = "A page.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange) -> Result<Answer, Refusal> {
    let by = x.authorized::<Manage>()?;
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
pub(in crate::http) async fn list_members(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = x.authorized::<Manage>()?;
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
pub(in crate::http) async fn get(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = x.authorized::<Manage>()?;
    let org_id = only_parameter(x, "org_id")?;
    let (user, organization) = users::get(desk(x), &by, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(told(x, &organization, &user))
}

/// Deletes a user with what they leave behind: messages, core memory, events.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{sub}",
    tag = "users",
    params(OfOrganization, IfMatch),
    responses((status = 204, description = "They are gone."))
)]
pub(in crate::http) async fn delete(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = may_manage(x)?;
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
pub(in crate::http) async fn change_member(x: &mut Exchange, id: &str, sub: &str) -> Result<Answer, Refusal> {
    let by = may_manage(x)?;
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
pub(in crate::http) async fn remove_member(x: &Exchange, id: &str, sub: &str) -> Result<Answer, Refusal> {
    let by = may_manage(x)?;
    no_parameters(x)?;
    users::delete(desk(x), &by, Some(&unescaped(id)?), &unescaped(sub)?, if_match(x)?).await?;
    Ok(Answer::empty())
}
