//! `/users/register`, and `POST` of `/organizations/{id}/members`.
//!
//! * The digest of the body that is stored for an `Idempotency-Key` is as hard to invert as the stored
//!   password hash.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Manage, Organization, Password, Role};
use crate::domain::users::{self, NewUser, User};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::request::etag::of_version;
use crate::http::request::idempotency::{self, KeyedRequest};
use crate::http::request::parameters::{no_parameters, unescaped};
use crate::http::schemas::parameters::IdempotencyKey;

use super::{UserView, erase_secrets, user_service, view};

/// A user to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
struct RegisterBody {
    /// Email. It must be unique in the organization.
    email: String,
    /// Password, at least 8 characters.
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// Name, at least 2 characters.
    name: String,
    /// Organization; the path's or the caller's own if absent.
    organization_id: Option<String>,
    /// Time zone, for the platform.
    timezone: Option<String>,
    /// Role; `user` if absent. It cannot exceed the caller's own rights.
    #[serde(default)]
    role: Role,
}

/// Registers a user, who can then log in with email and password.
#[utoipa::path(
    post,
    path = "/api/v1/users/register",
    tag = "users",
    params(IdempotencyKey),
    request_body = RegisterBody,
    responses((status = 201, description = "The new user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(crate) async fn register(request: &mut ApiRequest, right: Authorized<Manage>) -> HandlerResult {
    register_user(request, right, None).await
}

/// Registers a user in an organization.
#[utoipa::path(
    post,
    path = "/api/v1/organizations/{id}/members",
    tag = "users",
    params(IdempotencyKey),
    request_body = RegisterBody,
    responses((status = 201, description = "The new user.", body = UserView, headers(("ETag" = String, description = "Version of the resource."))), (status = 404))
)]
pub(crate) async fn add_member(
    request: &mut ApiRequest,
    right: Authorized<Manage>,
    id: &str,
) -> HandlerResult {
    register_user(request, right, Some(unescaped(id)?)).await
}

/// Registers a user in the organization that the path or the body names, otherwise in the caller's.
async fn register_user(
    request: &mut ApiRequest,
    right: Authorized<Manage>,
    organization: Option<String>,
) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (RegisterBody, _) = request.json_and_bytes().await?;
    erase_secrets(bytes);
    let request = &*request;
    let org_id = match (organization, body.organization_id) {
        (Some(path), Some(body)) if path != body => {
            return Err(ErrorResponse::invalid("organization_id", "differs from the path's; leave it out"));
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
    let digest = request_digest(request, &right, org_id.as_deref(), &new).await?;
    let guard = match idempotency::begin(request.shared(), request, &right, &digest).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let answer = |user: &User, organization: &Organization| {
        of_version(created(view(request, organization, user)), user.version)
    };
    let response_rows = |user: &User, organization: &Organization| {
        idempotency::response_rows(guard.as_ref(), || answer(user, organization))
    };
    let (user, organization) =
        users::register(user_service(request), &right, org_id.as_deref(), new, response_rows).await?;
    Ok(answer(&user, &organization))
}

/// Returns what distinguishes one registration from another with the same `Idempotency-Key`. Instead of the
/// password it has a digest that is as hard to invert as the password's hash. Empty if there is no key.
async fn request_digest(
    request: &ApiRequest,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    new: &NewUser,
) -> Result<Vec<u8>, ErrorResponse> {
    let Some(key) = idempotency::idempotency_key(request)? else { return Ok(Vec::new()) };
    new.password.check_new().map_err(|reason| ErrorResponse::invalid("password", &reason))?;
    let subject = right.principal().subject();
    let salt =
        crate::store::key_digest(&[right.principal().org_id.as_bytes(), subject.as_bytes(), key.as_bytes()]);
    let passwords = request.shared().auth.passwords();
    let place = passwords.setter(right.principal().tenant)?;
    let password = passwords.digest(&place, new.password.clone(), salt).await?;
    let rest = (&new.email, &new.name, &new.timezone, new.role, org_id, password);
    Ok(serde_json::to_vec(&rest).unwrap_or_default()) // texts and numbers: this cannot fail
}
