//! `/api-keys`, `/api-keys/{id}`. The secret of a key is shown once, when the key is created.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Authorized, KeyRow, Manage, NarrowingClaims, NewKey};
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::idempotency::{self, KeyedRequest};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{AdminPageParameters, IdempotencyKey, OrganizationParameter};
use crate::store::Growth;
use crate::time::rfc3339;

use super::{no_parameters, only_parameter, parameters, unescaped};

/// Bytes that a key is counted with in its organization's quota, besides its name and narrowing. An estimate.
const KEY_ROW_BYTES: usize = 512;

/// An API key to create. A limit that is left out is the same as that of the caller's own credential.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey)]
struct NewApiKeyBody {
    /// Name for people.
    #[serde(default)]
    name: String,
    /// Scopes of the key; required. `*` means every scope that a key of an organization can have.
    #[serde(default)]
    #[schema(required = true)]
    scopes: Vec<String>,
    /// Lifetime in seconds. If absent, the key expires when the caller's own credential does.
    #[serde(default, deserialize_with = "crate::json_integer::optional")]
    expires_in_seconds: Option<u64>,
    /// Agents that the key is limited to.
    #[schema(value_type = Option<Vec<String>>)]
    agents: Option<Vec<Box<str>>>,
    /// Channels that the key is limited to; `a/*` means every channel below `a/`.
    #[schema(value_type = Option<Vec<String>>)]
    channels: Option<Vec<Box<str>>>,
    /// Event types that the key is limited to.
    #[schema(value_type = Option<Vec<String>>)]
    types: Option<Vec<Box<str>>>,
    /// Organization of the key. Only the operator may name another organization than its own.
    org_id: Option<String>,
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct ApiKeyView<'a> {
    /// Id of the key. It is not secret.
    key_id: &'a str,
    /// Organization of the key.
    org_id: Option<String>,
    /// Name for people.
    name: &'a str,
    /// Scopes of the key.
    scopes: Vec<&'static str>,
    /// Agents that the key is limited to; `null` means all.
    agents: Option<Vec<&'a str>>,
    /// Channels that the key is limited to; `null` means all.
    channels: Option<Vec<&'a str>>,
    /// Event types that the key is limited to; `null` means all.
    types: Option<Vec<&'static str>>,
    /// Time of creation.
    #[schema(format = DateTime)]
    created_at: String,
    /// Time of expiry; `null` means never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Time of last use.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
}

/// A new API key with its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
struct CreatedApiKeyView<'a> {
    #[serde(flatten)]
    key: ApiKeyView<'a>,
    /// The secret key. It is shown only once.
    api_key: &'a str,
}

fn view<'a>(request: &ApiRequest, key: &'a KeyRow) -> ApiKeyView<'a> {
    let narrowing = &key.narrowing;
    ApiKeyView {
        key_id: &key.id,
        org_id: request.shared().auth.organization(key.tenant).map(|it| it.id.clone()),
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

/// Creates an API key. Its rights cannot exceed the caller's own. The secret is shown only in this response.
#[utoipa::path(
    post,
    path = "/api/v1/api-keys",
    tag = "credentials",
    params(IdempotencyKey),
    request_body = NewApiKeyBody,
    responses((status = 201, description = "The new key, with its secret.", body = CreatedApiKeyView), (status = 404))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<Manage>) -> HandlerResult {
    no_parameters(request)?;
    let (body, bytes): (NewApiKeyBody, _) = request.json_and_bytes().await?;
    let shared = request.shared().clone();
    let guard = match idempotency::begin(&shared, request, &right, &bytes).await? {
        KeyedRequest::First(guard) => guard,
        KeyedRequest::Repeat(answer) => return Ok(answer),
    };
    let now_ms = request.shared().clock.now_ms();
    let new = NewKey {
        name: body.name,
        scopes: body.scopes,
        narrowing: NarrowingClaims { agents: body.agents, channels: body.channels, types: body.types },
        expires_at_ms: body.expires_in_seconds.map(|s| now_ms.saturating_add(s.saturating_mul(1_000))),
    };
    let tenant = match body.org_id.as_deref() {
        None => right.principal().tenant,
        Some(id) => shared.auth.find_organization(&right, Some(id))?.tenant,
    };
    let growth = Growth { rows: 0, bytes: (bytes.len() + KEY_ROW_BYTES) as i64 };
    let room = shared.tenants.store().reserve(tenant, growth)?;
    let rows = |row: &KeyRow| {
        let mut rows = idempotency::secret_response_rows(guard.as_ref(), &row.id);
        rows.hold_reservation(room);
        rows
    };
    let issued = shared.auth.create_key_with(&right, body.org_id.as_deref(), new, rows).await?;
    let made = CreatedApiKeyView { key: view(request, &issued.row), api_key: issued.api_key.expose() };
    Ok(ApiResponse::data(StatusCode::CREATED, made))
}

/// Lists API keys in the order of their ids.
#[utoipa::path(
    get,
    path = "/api/v1/api-keys",
    tag = "credentials",
    params(AdminPageParameters, OrganizationParameter),
    responses((status = 200, description = "A page of API keys.", body = Vec<ApiKeyView>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Manage>) -> HandlerResult {
    let page = parameters(request, &["cursor", "offset", "limit", "org_id"])?;
    let keys =
        request.shared().auth.keys(&right, page.org_id.as_deref(), page.after.as_deref(), page.reach())?;
    let rows: Vec<ApiKeyView<'_>> = keys.iter().map(|key| view(request, key)).collect();
    Ok(super::list(&rows, &page, |row| row.key_id))
}

/// Deletes an API key and closes its connections. The last key with the scope `operator` cannot be deleted.
#[utoipa::path(
    delete,
    path = "/api/v1/api-keys/{id}",
    tag = "credentials",
    params(OrganizationParameter),
    responses((status = 204, description = "The key is no longer valid."), (status = 409))
)]
pub(crate) async fn delete(request: &ApiRequest, right: Authorized<Manage>, id: &str) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    request.shared().auth.delete_key(&right, org_id.as_deref(), &unescaped(id)?).await?;
    Ok(ApiResponse::empty())
}
