//! `/tokens`, `/tokens/{jti}`, `/users/{sub}/disabled`, `/tickets`: what users come with, and how it ends.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Manage, Mint, NarrowingClaims, NewToken};
use crate::outcome::Refusal;
use crate::resource::users::{self, Desk};
use crate::time::rfc3339;

use super::super::api::parameters::{IdempotencyKey, OfOrganization};
use super::super::created;
use super::super::exchange::Exchange;
use super::super::once::{self, Turn};
use super::super::respond::Answer;
use super::{no_parameters, only_parameter, unescaped};

/// A token to be minted; what is absent is as wide as the caller's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
struct TokenBody {
    /// The user it stands for.
    sub: String,
    /// Stand for scopes where none are named; neither roles nor scopes: `user`.
    #[serde(default)]
    roles: Vec<String>,
    /// What it may do; those of its roles if absent.
    scopes: Option<Vec<String>>,
    /// A day if absent, or as long as the caller's own credential.
    #[serde(default, deserialize_with = "crate::whole::optional")]
    expires_in_seconds: Option<u64>,
    /// The agents it may touch.
    #[schema(value_type = Option<Vec<String>>)]
    agents: Option<Vec<Box<str>>>,
    /// The channels it may touch; `a/*` is everything below `a/`.
    #[schema(value_type = Option<Vec<String>>)]
    channels: Option<Vec<Box<str>>>,
    /// The kinds of event it may touch.
    #[schema(value_type = Option<Vec<String>>)]
    types: Option<Vec<Box<str>>>,
    /// The operator alone may name another organization than its own.
    org_id: Option<String>,
}

/// A token that was minted.
#[derive(Serialize, ToSchema)]
#[schema(as = MintedToken)]
struct TokenView<'a> {
    /// The JWT, shown once.
    token: &'a str,
    /// Names it, for `DELETE /api/v1/tokens/{jti}`.
    jti: &'a str,
    /// When it ends.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Mints a token of a user, no wider than the caller's own credential. With `mint` alone: at most `subscribe`, `publish` and
/// `write`, and no role above `user`.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = TokenBody,
    responses((status = 201, description = "It was minted.", body = TokenView), (status = 404))
)]
pub(in crate::http) async fn mint(x: &mut Exchange, by: Authorized<Mint>) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let (body, bytes): (TokenBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, &by, &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let new = NewToken {
        sub: body.sub,
        roles: body.roles,
        scopes: body.scopes,
        narrowing: NarrowingClaims { agents: body.agents, channels: body.channels, types: body.types },
        expires_in_ms: body.expires_in_seconds.map(|s| s.saturating_mul(1_000)),
    };
    let issued = shared.auth.mint_token(&by, body.org_id.as_deref(), &new)?;
    once::withhold(&shared, &by, once.as_ref(), &issued.jti).await?;
    let expires_at = rfc3339(issued.expires_at_ms);
    Ok(created(TokenView { token: issued.token.expose(), jti: &issued.jti, expires_at }))
}

/// Revokes the token of this `jti`; its connections are closed. Whether there is one is not known.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{jti}",
    tag = "credentials",
    params(OfOrganization),
    responses((status = 204, description = "It opens nothing any more."), (status = 409))
)]
pub(in crate::http) async fn revoke(
    x: &Exchange,
    by: Authorized<Manage>,
    jti: &str,
) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    x.shared().auth.revoke_token(&by, org_id.as_deref(), &unescaped(jti)?).await?;
    Ok(Answer::empty())
}

/// Whether a user is kept out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserDisabledChange)]
struct DisabledBody {
    /// Whether its tokens are refused and its connections closed.
    disabled: bool,
}

/// Whether a user is kept out.
#[derive(Serialize, ToSchema)]
#[schema(as = UserDisabled)]
struct DisabledView<'a> {
    /// The user.
    sub: &'a str,
    /// Whether its tokens are refused.
    disabled: bool,
}

/// Keeps a user out, or lets it in again. The user need not be known here.
#[utoipa::path(
    put,
    path = "/api/v1/users/{sub}/disabled",
    tag = "users",
    params(OfOrganization),
    request_body = DisabledBody,
    responses((status = 200, description = "So it is now.", body = DisabledView), (status = 409))
)]
pub(in crate::http) async fn set_disabled(
    x: &mut Exchange,
    by: Authorized<Manage>,
    sub: &str,
) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    let body: DisabledBody = x.json().await?;
    let sub = unescaped(sub)?;
    let desk = Desk { tenants: &x.shared().tenants, auth: &x.shared().auth };
    users::set_disabled(desk, &by, org_id.as_deref(), &sub, body.disabled).await?;
    Ok(Answer::data(StatusCode::OK, DisabledView { sub: &sub, disabled: body.disabled }))
}

/// Which ticket is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTicket)]
struct TicketBody {
    /// The user it stands for, as a token of role `user` would; the caller if absent. Takes the scope `mint`.
    sub: Option<String>,
    /// One that lasts: for SSE and polling, bound to the request's `Origin`. Else it is spent at its first use.
    #[serde(default)]
    reconnect: bool,
}

/// A ticket, for a browser's URL.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
struct TicketView<'a> {
    /// For `?ticket=`.
    ticket: &'a str,
    /// When it opens nothing any more.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Makes a ticket for a browser that can send no header: of the caller's own rights, or of a user's.
#[utoipa::path(
    post,
    path = "/api/v1/tickets",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = TicketBody,
    responses((status = 201, description = "It was made.", body = TicketView))
)]
pub(in crate::http) async fn make_ticket(
    x: &mut Exchange,
    by: Authorized<Authenticated>,
) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let (body, bytes): (TicketBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, &by, &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let origin = x.header(http::header::ORIGIN);
    let ticket = match &body.sub {
        Some(sub) => {
            let user = shared.auth.principal_for_ticket(&by.principal().authorize::<Mint>()?, sub)?;
            shared.auth.ticket(&user.authorize()?, origin, body.reconnect)?
        }
        None => shared.auth.ticket(&by, origin, body.reconnect)?,
    };
    once::withhold(&shared, &by, once.as_ref(), "").await?; // a ticket has no name besides itself
    let expires_at = rfc3339(ticket.expires_at_ms);
    Ok(created(TicketView { ticket: ticket.ticket.expose(), expires_at }))
}
