//! `/users/login`, `/users/me/password`: requests that return a session.
//!
//! * A login needs no credential and ignores one. Its body is small, since anybody may send it.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Password};
use crate::domain::login::{self, UserSession};
use crate::domain::users::UserError;
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::no_parameters;
use crate::http::response::ApiResponse;
use crate::time::rfc3339;

use super::{UserView, erase_secrets, user_service, view};

/// Maximum of bytes of a login body. It leaves room for organization, email and password.
pub const LOGIN_BYTES: usize = 8 * 1024;

/// Credentials of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
struct LoginBody {
    /// Email of the user.
    email: String,
    /// Password of the user.
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// Organization of the user.
    organization_id: String,
}

/// A token and its user.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
struct Session<'a> {
    /// The JWT.
    token: &'a str,
    /// Time of expiry.
    #[schema(format = DateTime)]
    expires_at: String,
    /// User that the token is for.
    user: UserView<'a>,
}

/// A session, in the envelope, and repeated beside it, where the clients of AgentMem read it.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionAnswer)]
struct SessionAnswer<'a> {
    #[serde(flatten)]
    #[schema(ignore)] // `special` in api/openapi.rs adds its fields
    flat: &'a Session<'a>,
    /// The session.
    #[schema(value_type = Session<'a>)]
    data: &'a Session<'a>,
    /// Always `true`.
    success: bool,
}

fn session_response(
    request: &ApiRequest,
    UserSession { user, organization, issued }: &UserSession,
) -> ApiResponse {
    let session = Session {
        token: issued.token.expose(),
        expires_at: rfc3339(issued.expires_at_ms),
        user: view(request, organization, user),
    };
    let answer = SessionAnswer { flat: &session, data: &session, success: true };
    let body = serde_json::to_vec(&answer).unwrap_or_default(); // texts: this cannot fail
    ApiResponse::raw_json(StatusCode::OK, body)
}

/// A refused password counts as a failed credential.
fn count_failure(request: &ApiRequest, error: UserError) -> ErrorResponse {
    if matches!(error, UserError::Unknown | UserError::TooMany(_)) {
        request.shared().metrics.auth_failures.add(1);
        tracing::debug!(path = %request.path, peer = ?request.peer, %error, "login refused");
    }
    error.into()
}

/// Logs a user in with organization, email and password, and returns a token.
///
/// All wrong logins get the same response. Too many are refused.
#[utoipa::path(
    post,
    path = "/api/v1/users/login",
    tag = "users",
    request_body = LoginBody,
    responses(
        (status = 200, description = "A session.", body = SessionAnswer),
        (status = 401),
        (status = 429),
        (status = 503),
    )
)]
pub(crate) async fn login(request: &mut ApiRequest, _: ()) -> HandlerResult {
    request.shared().serving()?;
    no_parameters(request)?;
    let (body, bytes): (LoginBody, _) = request.small_json(LOGIN_BYTES).await?;
    erase_secrets(bytes);
    let request = &*request;
    let LoginBody { email, password, organization_id } = body;
    let found =
        login::login(user_service(request), request.peer, &organization_id, &email, Arc::new(password)).await;
    found.map(|found| session_response(request, &found)).map_err(|error| count_failure(request, error))
}

/// The current and the new password of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordChange)]
struct PasswordBody {
    /// Current password.
    #[schema(value_type = String, format = Password)]
    current_password: Password,
    /// New password, at least 8 characters.
    #[schema(value_type = String, format = Password)]
    new_password: Password,
}

/// Changes your own password. Every user may do this, whatever their role; it needs the current password.
#[utoipa::path(
    put,
    path = "/api/v1/users/me/password",
    tag = "users",
    request_body = PasswordBody,
    responses((status = 200, description = "A new session. All earlier tokens of the user are no longer valid.", body = SessionAnswer), (status = 404), (status = 409))
)]
pub(crate) async fn change_password(
    request: &mut ApiRequest,
    right: Authorized<Authenticated>,
) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (PasswordBody, _) = request.small_json(LOGIN_BYTES).await?;
    erase_secrets(bytes);
    let request = &*request;
    let (current, new) = (Arc::new(body.current_password), Arc::new(body.new_password));
    let changed = login::change_password(user_service(request), request.peer, &right, current, new).await;
    changed.map(|found| session_response(request, &found)).map_err(|error| count_failure(request, error))
}
