//! `/api-keys`, `/api-keys/{id}`. A key is shown once, when it is made.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authorized, KeyRow, Manage, NarrowingClaims, NewKey};
use crate::outcome::Refusal;
use crate::store::Growth;
use crate::time::rfc3339;

use super::super::api::parameters::{AdminPage, IdempotencyKey, OfOrganization};
use super::super::exchange::Exchange;
use super::super::once::{self, Turn};
use super::super::respond::Answer;
use super::{no_parameters, only_parameter, parameters, unescaped};

/// What a key takes of its organization's quota besides its name and narrowing, about, in bytes.
const KEY_ROW_BYTES: usize = 512;

/// An API key to be made; what is absent is as wide as the caller's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey)]
struct KeyBody {
    /// For people.
    #[serde(default)]
    name: String,
    /// What it may do; required. `*` is all that an organization's key can have.
    #[serde(default)]
    #[schema(required = true)]
    scopes: Vec<String>,
    /// As long as the caller's own credential if absent.
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

/// An API key as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct View<'a> {
    /// Names it; no secret.
    key_id: &'a str,
    /// Its organization.
    org_id: Option<String>,
    /// For people.
    name: &'a str,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// The agents it may touch; `null`: all.
    agents: Option<Vec<&'a str>>,
    /// The channels it may touch; `null`: all.
    channels: Option<Vec<&'a str>>,
    /// The kinds of event it may touch; `null`: all.
    types: Option<Vec<&'static str>>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ends; `null`: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was last used.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

/// A new API key with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
struct CreatedView<'a> {
    #[serde(flatten)]
    key: View<'a>,
    /// The key itself, shown once.
    api_key: &'a str,
}

fn view<'a>(x: &Exchange, key: &'a KeyRow) -> View<'a> {
    let narrowing = &key.narrowing;
    View {
        key_id: &key.id,
        org_id: x.shared().auth.organization(key.tenant).map(|it| it.id.clone()),
        name: &key.name,
        scopes: key.scopes.names(),
        agents: narrowing.agents().map(|names| names.iter().collect()),
        channels: narrowing.channels().map(|names| names.iter().collect()),
        types: narrowing.types().map(|kinds| kinds.iter().map(|kind| kind.name()).collect()),
        created_at: rfc3339(key.created_at_ms),
        expires_at: key.expires_at_ms.map(rfc3339),
        last_used_at: key.last_used_ms.map(rfc3339),
    }
}

/// Makes an API key, no wider than the caller's own credential. Its secret is shown this once.
#[utoipa::path(
    post,
    path = "/api/v1/api-keys",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = KeyBody,
    responses((status = 201, description = "It was made.", body = CreatedView), (status = 404))
)]
pub(in crate::http) async fn create(x: &mut Exchange, by: Authorized<Manage>) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let (body, bytes): (KeyBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, &by, &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let now_ms = x.shared().clock.now_ms();
    let new = NewKey {
        name: body.name,
        scopes: body.scopes,
        narrowing: NarrowingClaims { agents: body.agents, channels: body.channels, types: body.types },
        expires_at_ms: body.expires_in_seconds.map(|s| now_ms.saturating_add(s.saturating_mul(1_000))),
    };
    let tenant = match body.org_id.as_deref() {
        None => by.principal().tenant,
        Some(id) => shared.auth.find_organization(&by, Some(id))?.tenant,
    };
    let growth = Growth { rows: 0, bytes: (bytes.len() + KEY_ROW_BYTES) as i64 };
    let room = shared.tenants.store().reserve(tenant, growth)?;
    let rows = |row: &KeyRow| {
        let mut rows = once::withheld(once.as_ref(), &row.id);
        rows.hold_room(room);
        rows
    };
    let issued = shared.auth.create_key_with(&by, body.org_id.as_deref(), new, rows).await?;
    let made = CreatedView { key: view(x, &issued.row), api_key: issued.api_key.expose() };
    Ok(Answer::data(StatusCode::CREATED, made))
}

/// Lists API keys by their ids.
#[utoipa::path(
    get,
    path = "/api/v1/api-keys",
    tag = "credentials",
    params(AdminPage, OfOrganization),
    responses((status = 200, description = "A page.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange, by: Authorized<Manage>) -> Result<Answer, Refusal> {
    let page = parameters(x, &["cursor", "offset", "limit", "org_id"])?;
    let keys = x.shared().auth.keys(&by, page.org_id.as_deref(), page.after.as_deref(), page.reach())?;
    let rows: Vec<View<'_>> = keys.iter().map(|key| view(x, key)).collect();
    Ok(super::list(&rows, &page, |row| row.key_id))
}

/// Deletes an API key; its connections are closed. The last key with `operator` is refused.
#[utoipa::path(
    delete,
    path = "/api/v1/api-keys/{id}",
    tag = "credentials",
    params(OfOrganization),
    responses((status = 204, description = "It opens nothing any more."), (status = 409))
)]
pub(in crate::http) async fn delete(
    x: &Exchange,
    by: Authorized<Manage>,
    id: &str,
) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    x.shared().auth.delete_key(&by, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(Answer::empty())
}
