//! `/users/login`, `/users/me/password`: what answers with a session.
//!
//! * A login needs no credential and ignores one; its body is small, since anybody may send it.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Password};
use crate::outcome::Refusal;
use crate::resource::entry::{self, Entered};
use crate::resource::users::UserError;
use crate::time::rfc3339;

use super::super::super::exchange::Exchange;
use super::super::super::respond::Answer;
use super::super::no_parameters;
use super::{View, desk, view, wipe};

/// Most bytes of the body of a login: more than organization, email and password need.
pub const LOGIN_BYTES: usize = 8 * 1024;

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
    Answer::raw_json(StatusCode::OK, body)
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
    request_body = LoginBody,
    responses(
        (status = 200, description = "A session.", body = SessionAnswer),
        (status = 401),
        (status = 429),
        (status = 503),
    )
)]
pub(in crate::http) async fn login(x: &mut Exchange, _: ()) -> Result<Answer, Refusal> {
    x.shared().serving()?;
    no_parameters(x)?;
    let (body, bytes): (LoginBody, _) = x.small_json(LOGIN_BYTES).await?;
    wipe(bytes);
    let x = &*x;
    let LoginBody { email, password, organization_id } = body;
    let found = entry::login(desk(x), x.peer, &organization_id, &email, Arc::new(password)).await;
    found.map(|found| entered(x, &found)).map_err(|error| counted(x, error))
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
pub(in crate::http) async fn change_password(
    x: &mut Exchange,
    right: Authorized<Authenticated>,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let (body, bytes): (PasswordBody, _) = x.small_json(LOGIN_BYTES).await?;
    wipe(bytes);
    let x = &*x;
    let (current, new) = (Arc::new(body.current_password), Arc::new(body.new_password));
    let changed = entry::change_password(desk(x), x.peer, &right, current, new).await;
    changed.map(|found| entered(x, &found)).map_err(|error| counted(x, error))
}
