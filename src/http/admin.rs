//! Organizations, API keys, tokens, tickets, users, connections, statistics: administration over REST.
//!
//! The rules live in [`crate::auth`]; here are shapes only. The command line runs the same functions on a data directory.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::auth::{
    Authorized, KeyRow, Manage, NarrowingClaims, NewKey, NewOrganization, NewToken, Operate, Organization,
    OrganizationChange, Principal, Use, Visibility,
};
use crate::outcome::Refusal;
use crate::tenant::publish::PublishError;
use crate::time::rfc3339;
use crate::worker::mail::{Mail, Which, connection_id};

use super::created;
use super::exchange::Exchange;
use super::once::{self, Turn};
use super::respond::Answer;

/// Rows of a list where nobody asks for fewer, and the most.
const LIST_DEFAULT: usize = 50;
const LIST_MOST: usize = 100;

fn managing(x: &Exchange) -> Result<Authorized<Manage>, Refusal> {
    Ok(x.principal(Use::Rest)?.authorize::<Manage>()?)
}

/// Who may not operate learns nothing of organizations, not even that there are some.
fn operating(x: &Exchange) -> Result<Authorized<Operate>, Refusal> {
    Ok(x.principal(Use::Rest)?.authorize::<Operate>()?)
}

/// One path segment, unescaped.
fn unescaped(segment: &str) -> Result<String, Refusal> {
    crate::query::unescape_path(segment).ok_or_else(Refusal::not_found)
}

/// What the query of an administrative request may hold.
struct Parameters {
    after: Option<String>,
    limit: usize,
    org_id: Option<String>,
}

/// Reads the parameters `known` names. An unknown one is refused: ignored, an `org_id` would act on another organization
/// than its sender thinks.
fn parameters(x: &Exchange, known: &[&str]) -> Result<Parameters, Refusal> {
    let mut read = Parameters { after: None, limit: LIST_DEFAULT, org_id: None };
    for (name, value) in x.pairs()? {
        match name.as_ref() {
            "token" | "ticket" => {}
            other if !known.contains(&other) => {
                return Err(Refusal::bad_request(format!("{other}: no such parameter")));
            }
            _ if value.is_empty() => {}
            "cursor" => read.after = Some(value.into_owned()),
            "org_id" => read.org_id = Some(value.into_owned()),
            _ => {
                let limit = value.parse().ok().filter(|n| (1..=LIST_MOST).contains(n));
                let reason = format!("limit: must be a whole number from 1 to {LIST_MOST}");
                read.limit = limit.ok_or_else(|| Refusal::bad_request(reason))?;
            }
        }
    }
    Ok(read)
}

fn list(rows: Vec<Value>, limit: usize, id: &str) -> Answer {
    let next = if rows.len() == limit { rows.last().map(|row| row[id].clone()) } else { None };
    Answer::json(StatusCode::OK, &json!({"data": rows, "next_cursor": next, "success": true}))
}

fn organization_json(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "name": organization.name,
        "visibility": organization.visibility,
        "presence": organization.presence,
        "created_at": rfc3339(organization.created_at_ms),
    })
}

pub(super) fn list_organizations(x: &Exchange) -> Result<Answer, Refusal> {
    let by = operating(x)?;
    let page = parameters(x, &["cursor", "limit"])?;
    let found = x.shared().auth.organizations(&by, page.after.as_deref(), page.limit);
    Ok(list(found.iter().map(|it| organization_json(it)).collect(), page.limit, "id"))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct OrganizationBody {
    id: Option<String>,
    name: Option<String>,
    visibility: Option<Visibility>,
    presence: Option<bool>,
}

pub(super) async fn create_organization(x: &mut Exchange) -> Result<Answer, Refusal> {
    let by = operating(x)?;
    parameters(x, &[])?;
    let (body, bytes): (OrganizationBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, by.principal(), &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let new = NewOrganization {
        id: body.id,
        name: body.name.unwrap_or_default(),
        visibility: body.visibility.unwrap_or_default(),
        presence: body.presence.unwrap_or_default(),
        first_key: false,
    };
    let rows = |made: &Organization| once::kept(once.as_ref(), &created(organization_json(made)));
    let made = shared.auth.create_organization_with(&by, new, rows).await?;
    Ok(created(organization_json(&made.organization)))
}

pub(super) fn get_organization(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    parameters(x, &[])?;
    let found = x.shared().auth.find_organization(&by, Some(&unescaped(id)?))?;
    Ok(Answer::data(StatusCode::OK, organization_json(&found)))
}

pub(super) async fn change_organization(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    parameters(x, &[])?;
    let body: OrganizationBody = x.json().await?;
    if body.id.is_some() {
        return Err(Refusal::invalid("id", "cannot be changed"));
    }
    let change = OrganizationChange { name: body.name, visibility: body.visibility, presence: body.presence };
    let changed = x.shared().auth.change_organization(&by, Some(&unescaped(id)?), change).await?;
    Ok(Answer::data(StatusCode::OK, organization_json(&changed)))
}

pub(super) async fn delete_organization(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = operating(x)?;
    parameters(x, &[])?;
    x.shared().auth.delete_organization(&by, &unescaped(id)?).await?;
    Ok(Answer::empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    #[serde(default)]
    name: String,
    scopes: Option<Vec<String>>,
    expires_in_seconds: Option<u64>,
    agents: Option<Vec<Box<str>>>,
    channels: Option<Vec<Box<str>>>,
    types: Option<Vec<Box<str>>>,
    org_id: Option<String>,
}

fn key_json(x: &Exchange, key: &KeyRow) -> Value {
    json!({
        "key_id": key.id,
        "org_id": x.shared().auth.organization(key.tenant).map(|it| it.id.clone()),
        "name": key.name,
        "scopes": key.scopes.names(),
        "agents": key.narrowing.agents().map(|names| names.iter().collect::<Vec<_>>()),
        "channels": key.narrowing.channels().map(|names| names.iter().collect::<Vec<_>>()),
        "types": key.narrowing.types().map(|kinds| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>()),
        "created_at": rfc3339(key.created_at_ms),
        "expires_at": key.expires_at_ms.map(rfc3339),
        "last_used_at": key.last_used_ms.map(rfc3339),
    })
}

pub(super) async fn create_key(x: &mut Exchange) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    parameters(x, &[])?;
    let (body, bytes): (KeyBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, by.principal(), &bytes).await? {
        Turn::First(once) => once,
        Turn::Repeat(answer) => return Ok(answer),
    };
    let now_ms = x.shared().clock.now_ms();
    let new = NewKey {
        name: body.name,
        scopes: body.scopes.unwrap_or_else(|| vec!["*".into()]),
        narrowing: NarrowingClaims { agents: body.agents, channels: body.channels, types: body.types },
        expires_at_ms: body.expires_in_seconds.map(|s| now_ms.saturating_add(s.saturating_mul(1_000))),
    };
    let rows = |row: &KeyRow| once::withheld(once.as_ref(), &row.id);
    let issued = shared.auth.create_key_with(&by, body.org_id.as_deref(), new, rows).await?;
    let mut data = key_json(x, &issued.row);
    data["api_key"] = issued.api_key.expose().into();
    Ok(created(data))
}

pub(super) fn list_keys(x: &Exchange) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    let page = parameters(x, &["cursor", "limit", "org_id"])?;
    let keys = x.shared().auth.keys(&by, page.org_id.as_deref(), page.after.as_deref(), page.limit)?;
    Ok(list(keys.iter().map(|key| key_json(x, key)).collect(), page.limit, "key_id"))
}

pub(super) async fn delete_key(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    let asked = parameters(x, &["org_id"])?;
    x.shared().auth.delete_key(&by, asked.org_id.as_deref(), &unescaped(id)?).await?;
    Ok(Answer::empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    sub: String,
    #[serde(default)]
    roles: Vec<String>,
    scopes: Option<Vec<String>>,
    expires_in_seconds: Option<u64>,
    agents: Option<Vec<Box<str>>>,
    channels: Option<Vec<Box<str>>>,
    types: Option<Vec<Box<str>>>,
    org_id: Option<String>,
}

pub(super) async fn mint_token(x: &mut Exchange) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    parameters(x, &[])?;
    let (body, bytes): (TokenBody, _) = x.json_and_bytes().await?;
    let shared = x.shared().clone();
    let once = match once::turn(&shared, x, by.principal(), &bytes).await? {
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
    if once.is_some() {
        // A token is kept nowhere, so its row is all there is to commit.
        let rows = once::withheld(once.as_ref(), &issued.jti);
        shared.tenants.store().write(rows).await.map_err(PublishError::from)?;
    }
    let expires_at = rfc3339(issued.expires_at_ms);
    Ok(created(json!({"token": issued.token.expose(), "jti": issued.jti, "expires_at": expires_at})))
}

pub(super) async fn revoke_token(x: &Exchange, jti: &str) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    let asked = parameters(x, &["org_id"])?;
    x.shared().auth.revoke_token(&by, asked.org_id.as_deref(), &unescaped(jti)?).await?;
    Ok(Answer::empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisabledBody {
    disabled: bool,
}

pub(super) async fn set_disabled(x: &mut Exchange, sub: &str) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    let asked = parameters(x, &["org_id"])?;
    let body: DisabledBody = x.json().await?;
    let sub = unescaped(sub)?;
    x.shared().auth.set_disabled(&by, asked.org_id.as_deref(), &sub, body.disabled).await?;
    Ok(Answer::data(StatusCode::OK, json!({"sub": sub, "disabled": body.disabled})))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    #[serde(default)]
    reconnect: bool,
}

pub(super) async fn make_ticket(x: &mut Exchange) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
    parameters(x, &[])?;
    let body: TicketBody = x.json().await?;
    let origin = x.header(http::header::ORIGIN);
    let ticket = x.shared().auth.ticket(&principal, origin, body.reconnect)?;
    Ok(created(json!({"ticket": ticket.ticket.expose(), "expires_at": rfc3339(ticket.expires_at_ms)})))
}

/// The connections a principal may see: with `manage` its organization's, else those of its own user or key.
fn visible(principal: &Arc<Principal>) -> Which {
    let mut which = Which { tenant: principal.tenant, id: None, user: None, key: None };
    if principal.authorize::<Manage>().is_err() {
        match &principal.sub {
            Some(sub) => which.user = Some(Arc::from(sub.as_ref())),
            None => which.key = Some(Arc::from(principal.key_id().unwrap_or_default())),
        }
    }
    which
}

pub(super) async fn list_connections(x: &Exchange) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
    let page = parameters(x, &["cursor", "limit"])?;
    let mut rows = Vec::new();
    for mail in x.shared().mail.iter() {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::List(visible(&principal), reply));
        rows.extend(answer.await.unwrap_or_default());
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let after = page.after.unwrap_or_default();
    let shown = rows.into_iter().filter(|row| row.id > after).take(page.limit);
    Ok(list(shown.map(|row| json!(row)).collect(), page.limit, "id"))
}

pub(super) async fn kick(x: &Exchange, id: Option<&str>) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
    let mut which = visible(&principal);
    let own = which.user.is_some() || which.key.is_some();
    match id {
        Some(id) => {
            parameters(x, &[])?;
            which.id = Some(connection_id(&unescaped(id)?).ok_or_else(Refusal::not_found)?);
        }
        None => {
            let mut named = false;
            for (name, value) in x.pairs()? {
                let slot = match name.as_ref() {
                    "token" | "ticket" => continue,
                    "user" => &mut which.user,
                    "key" => &mut which.key,
                    other => return Err(Refusal::bad_request(format!("{other}: no such parameter"))),
                };
                // A foreign user or key is one nobody here has: nothing is found, nothing learnt.
                if own && slot.as_deref() != Some(value.as_ref()) {
                    return Ok(Answer::data(StatusCode::OK, json!({"closed": 0})));
                }
                *slot = Some(Arc::from(value.as_ref()));
                named = true;
            }
            if !named {
                return Err(Refusal::bad_request("name a connection, or give user= or key="));
            }
        }
    }
    let mut closed = 0;
    for mail in x.shared().mail.iter() {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::Kick(which.clone(), reply));
        closed += answer.await.unwrap_or_default();
    }
    match (id, closed) {
        (Some(_), 0) => Err(Refusal::not_found()),
        (Some(_), _) => Ok(Answer::empty()),
        (None, _) => Ok(Answer::data(StatusCode::OK, json!({"closed": closed}))),
    }
}

pub(super) async fn stats(x: &Exchange) -> Result<Answer, Refusal> {
    let by = managing(x)?;
    let asked = parameters(x, &["org_id"])?;
    let organization = x.shared().auth.find_organization(&by, asked.org_id.as_deref())?;
    let tenant = x.shared().tenants.open(organization.tenant).await?;
    let log = tenant.log();
    let cursors = x.shared().tenants.cursors();
    let times = tenant.times().snapshot();
    let buckets = times.buckets().map(|(under, count)| json!({"under_us": under, "count": count}));
    Ok(Answer::data(
        StatusCode::OK,
        json!({
            "org_id": organization.id,
            "connections": x.shared().admission.of_organization(organization.tenant),
            "stored_events": log.events(),
            "stored_bytes": log.bytes(),
            "uncommitted_events": tenant.head().counter().saturating_sub(log.committed().counter()),
            "publish_to_send": {
                "count": times.count(),
                "p50_us": times.quantile_us(0.5),
                "p99_us": times.quantile_us(0.99),
                "buckets": buckets.collect::<Vec<_>>(),
            },
            "oldest_cursor": cursors.encode(organization.tenant, log.oldest()).as_str(),
            "newest_cursor": cursors.encode(organization.tenant, tenant.head()).as_str(),
        }),
    ))
}
