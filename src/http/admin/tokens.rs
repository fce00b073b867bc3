//! `/tokens`, `/tokens/{jti}`, `/users/{sub}/disabled`, `/tickets`: issues tokens and tickets, revokes
//! tokens, disables users.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Manage, Mint, NarrowingClaims, NewToken};
use crate::domain::users::{self, UserService};
use crate::http::HandlerResult;
use crate::http::created;
use crate::http::request::ApiRequest;
use crate::http::request::idempotency::{self, KeyedRequest};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{IdempotencyKey, OrganizationParameter};
use crate::time::rfc3339;

use super::{no_parameters, only_parameter, unescaped};

/// A token to issue. A limit that is left out is the same as that of the caller's own credential.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
struct TokenBody {
    /// User that the token is for.
    sub: String,
    /// Roles, whose scopes apply if `scopes` is absent. If both are absent, the role is `user`.
    #[serde(default)]
    roles: Vec<String>,
    /// Scopes of the token; those of its roles if absent.
    scopes: Option<Vec<String>>,
    /// Lifetime in seconds. If absent, one day, but no longer than the caller's own credential.
    #[serde(default, deserialize_with = "crate::json_integer::optional")]
    expires_in_seconds: Option<u64>,
    /// Agents that the token is limited to.
    #[schema(value_type = Option<Vec<String>>)]
    agents: Option<Vec<Box<str>>>,
    /// Channels that the token is limited to; `a/*` means every channel below `a/`.
    #[schema(value_type = Option<Vec<String>>)]
    channels: Option<Vec<Box<str>>>,
    /// Event types that the token is limited to.
    #[schema(value_type = Option<Vec<String>>)]
    types: Option<Vec<Box<str>>>,
    /// Organization of the token. Only the operator may name another organization than its own.
    org_id: Option<String>,
}

/// A new token.
#[derive(Serialize, ToSchema)]
#[schema(as = MintedToken)]
struct TokenView<'a> {
    /// The JWT. It is shown only once.
    token: &'a str,
    /// Id of the token, for `DELETE /api/v1/tokens/{jti}`.
    jti: &'a str,
    /// Time of expiry.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Issues a token for a user. Its rights cannot exceed the caller's own.
///
/// With the scope `mint` alone, the token can have at most the scopes `subscribe`, `publish` and `write`, and
/// no role above `user`.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = TokenBody,
    responses((status = 201, description = "The new token.", body = TokenView), (status = 404))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<Mint>) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (TokenBody, _) = request.json_and_bytes().await?;
    let shared = request.shared().clone();
    let guard = match idempotency::begin(&shared, request, &right, &bytes).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let new = NewToken {
        sub: body.sub,
        roles: body.roles,
        scopes: body.scopes,
        narrowing: NarrowingClaims { agents: body.agents, channels: body.channels, types: body.types },
        expires_in_ms: body.expires_in_seconds.map(|s| s.saturating_mul(1_000)),
    };
    let issued = shared.auth.mint_token(&right, body.org_id.as_deref(), &new)?;
    idempotency::record_secret_response(&shared, &right, guard.as_ref(), &issued.jti).await?;
    let expires_at = rfc3339(issued.expires_at_ms);
    Ok(created(TokenView { token: issued.token.expose(), jti: &issued.jti, expires_at }))
}

/// Revokes the token with this `jti` and closes its connections.
///
/// The response does not say whether such a token exists.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{jti}",
    tag = "credentials",
    params(OrganizationParameter),
    responses((status = 204, description = "The token is no longer valid."), (status = 409))
)]
pub(crate) async fn revoke(request: &ApiRequest, right: Authorized<Manage>, jti: &str) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    request.shared().auth.revoke_token(&right, org_id.as_deref(), &unescaped(jti)?).await?;
    Ok(ApiResponse::empty())
}

/// Disables or enables a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserDisabledChange)]
struct DisabledBody {
    /// True to refuse the user's tokens and close the user's connections.
    disabled: bool,
}

/// Whether a user is disabled.
#[derive(Serialize, ToSchema)]
#[schema(as = UserDisabled)]
struct DisabledView<'a> {
    /// User that was changed.
    sub: &'a str,
    /// True if the user's tokens are refused.
    disabled: bool,
}

/// Disables or enables a user. The user need not be registered here.
#[utoipa::path(
    put,
    path = "/api/v1/users/{sub}/disabled",
    tag = "users",
    params(OrganizationParameter),
    request_body = DisabledBody,
    responses((status = 200, description = "The new setting.", body = DisabledView), (status = 409))
)]
pub(crate) async fn set_disabled(
    request: &mut ApiRequest,
    right: Authorized<Manage>,
    sub: &str,
) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    let body: DisabledBody = request.json().await?;
    let sub = unescaped(sub)?;
    let service = UserService { tenants: &request.shared().tenants, auth: &request.shared().auth };
    users::set_disabled(service, &right, org_id.as_deref(), &sub, body.disabled).await?;
    Ok(ApiResponse::data(StatusCode::OK, DisabledView { sub: &sub, disabled: body.disabled }))
}

/// A ticket to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTicket)]
struct TicketBody {
    /// User that the ticket is for, with the rights of the role `user`; the caller if absent. Needs the scope
    /// `mint`.
    sub: Option<String>,
    /// True for a reconnect ticket: it can be used repeatedly for SSE and polling, and only with the `Origin`
    /// of this request. Otherwise the ticket can be used once.
    #[serde(default)]
    reconnect: bool,
}

/// A ticket, for use in a URL.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
struct TicketView<'a> {
    /// Value for `?ticket=`.
    ticket: &'a str,
    /// Time of expiry.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Creates a ticket for browser clients that cannot send headers.
///
/// It stands for the caller, or for the given user, and only opens streams and reads history.
#[utoipa::path(
    post,
    path = "/api/v1/tickets",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = TicketBody,
    responses((status = 201, description = "The new ticket.", body = TicketView))
)]
pub(crate) async fn create_ticket(
    request: &mut ApiRequest,
    right: Authorized<Authenticated>,
) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (TicketBody, _) = request.json_and_bytes().await?;
    let shared = request.shared().clone();
    let guard = match idempotency::begin(&shared, request, &right, &bytes).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let origin = request.header(http::header::ORIGIN);
    let ticket = match &body.sub {
        Some(sub) => {
            let user = shared.auth.principal_for_ticket(&right.principal().authorize::<Mint>()?, sub)?;
            shared.auth.ticket(&user.authorize()?, origin, body.reconnect)?
        }
        None => shared.auth.ticket(&right, origin, body.reconnect)?,
    };
    idempotency::record_secret_response(&shared, &right, guard.as_ref(), "").await?; // a ticket has no id besides its own value
    let expires_at = rfc3339(ticket.expires_at_ms);
    Ok(created(TicketView { ticket: ticket.ticket.expose(), expires_at }))
}
