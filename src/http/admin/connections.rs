//! `/connections`, `/connections/{id}`: who is connected, and closing them.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Manage, Principal, Subscribe};
use crate::ids::TenantId;
use crate::outcome::Refusal;
use crate::wake::WakeQueue;
use crate::worker::mail::{Listed, Mail, connection_id, connection_name};
use crate::worker::scan::{Busy, Found, Selector};

use super::super::api::parameters::{AdminPage, OfConnections};
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{no_parameters, parameters, unescaped, unknown};

/// How many connections were closed.
#[derive(Serialize, ToSchema)]
#[schema(as = Closed)]
struct ClosedView {
    /// How many.
    closed: usize,
}

/// The connections a principal may see: with `manage` its organization's, else those of its own user or key; narrowed, those that
/// are narrowed at least as much.
fn visible(principal: &Arc<Principal>) -> Selector {
    let within = principal.narrowing.clone();
    let mut which = Selector { tenant: principal.tenant, id: None, user: None, key: None, within };
    if principal.authorize::<Manage>().is_err() {
        match &principal.sub {
            Some(sub) => which.user = Some(Arc::from(sub.as_ref())),
            None => which.key = Some(Arc::from(principal.key_id().unwrap_or_default())),
        }
    }
    which
}

/// Lists open connections: with `manage` the organization's, else one's own.
#[utoipa::path(
    get,
    path = "/api/v1/connections",
    tag = "connections",
    params(AdminPage),
    responses((status = 200, description = "A page.", body = Vec<Listed>))
)]
pub(in crate::http) async fn list(x: &Exchange, right: Authorized<Authenticated>) -> Result<Answer, Refusal> {
    let principal = right.principal().clone();
    // Who manages an organization reads its connections by that; reading one's own takes the scope of all reading.
    if principal.authorize::<Manage>().is_err() {
        principal.authorize::<Subscribe>()?;
    }
    let page = parameters(x, &["cursor", "offset", "limit"])?;
    let refused = || Refusal::bad_request("cursor: is none of this list's; begin without one");
    let after = page.after.as_deref().map(|name| connection_id(name).ok_or_else(refused)).transpose()?;
    let mut found = find(x, &visible(&principal), after, page.reach()).await?;
    // Only the rows that are shown are put in order and described.
    if found.len() > page.reach() {
        found.select_nth_unstable(page.reach());
        found.truncate(page.reach());
    }
    if page.offset > 0 && page.offset < found.len() {
        found.select_nth_unstable(page.offset);
    }
    let mut shown = found.split_off(page.offset.min(found.len()));
    shown.sort_unstable();
    // By what was found: a connection that goes before it is described makes no page the last one.
    let next = shown.last().filter(|_| shown.len() == page.limit).map(|last| connection_name(last.id));
    let mut rows = describe(x, principal.tenant, &shown).await?;
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Answer::list(&rows, next))
}

/// The connections with the lowest ids after `after`, at most `most` of each worker or some more, in any order.
async fn find(
    x: &Exchange,
    selector: &Selector,
    after: Option<u64>,
    most: usize,
) -> Result<Vec<Found>, Refusal> {
    let ask = |mail: &WakeQueue<Mail>| {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::List { selector: selector.clone(), after, most, reply });
        answer
    };
    let mut found = Vec::new();
    for answer in x.shared().mail.iter().map(ask).collect::<Vec<_>>() {
        found.extend(answer.await.unwrap_or(Ok(Vec::new())).map_err(busy)?);
    }
    Ok(found)
}

async fn describe(x: &Exchange, tenant: TenantId, found: &[Found]) -> Result<Vec<Listed>, Refusal> {
    let ask = |(worker, mail): (usize, &WakeQueue<Mail>)| {
        let (reply, answer) = oneshot::channel();
        let here = found.iter().filter(|found| found.worker == worker).copied().collect();
        mail.push(Mail::Describe { tenant, found: here, reply });
        answer
    };
    let mut rows = Vec::new();
    let concerned = |(worker, _): &(usize, _)| found.iter().any(|found| found.worker == *worker);
    for answer in x.shared().mail.iter().enumerate().filter(concerned).map(ask).collect::<Vec<_>>() {
        rows.extend(answer.await.unwrap_or(Ok(Vec::new())).map_err(busy)?);
    }
    Ok(rows)
}

/// Closes a connection: with `manage` one of the organization's, else one's own.
#[utoipa::path(
    delete,
    path = "/api/v1/connections/{id}",
    tag = "connections",
    responses((status = 204, description = "It is closed."))
)]
pub(in crate::http) async fn kick_one(
    x: &Exchange,
    right: Authorized<Authenticated>,
    id: &str,
) -> Result<Answer, Refusal> {
    let principal = right.principal().clone();
    no_parameters(x)?;
    let mut which = visible(&principal);
    which.id = Some(connection_id(&unescaped(id)?).ok_or_else(Refusal::not_found)?);
    match close(x, &which).await? {
        0 => Err(Refusal::not_found()),
        _ => Ok(Answer::empty()),
    }
}

/// Closes the connections of a user or an API key: with `manage` anybody's of the organization, else one's own.
#[utoipa::path(
    delete,
    path = "/api/v1/connections",
    tag = "connections",
    params(OfConnections),
    responses((status = 200, description = "So many were closed.", body = ClosedView))
)]
pub(in crate::http) async fn kick_all(
    x: &Exchange,
    right: Authorized<Authenticated>,
) -> Result<Answer, Refusal> {
    let principal = right.principal().clone();
    let mut which = visible(&principal);
    let own = which.user.is_some() || which.key.is_some();
    let mut named = false;
    for (name, value) in x.parameters()? {
        let slot = match name.as_ref() {
            "user" => &mut which.user,
            "key" => &mut which.key,
            other => return Err(unknown(other)),
        };
        // A foreign user or key is one nobody here has: nothing is found, nothing learnt.
        if own && slot.as_deref() != Some(value.as_ref()) {
            return Ok(Answer::data(StatusCode::OK, ClosedView { closed: 0 }));
        }
        *slot = Some(Arc::from(value.as_ref()));
        named = true;
    }
    if !named {
        return Err(Refusal::bad_request("name a connection, or give user= or key="));
    }
    Ok(Answer::data(StatusCode::OK, ClosedView { closed: close(x, &which).await? }))
}

async fn close(x: &Exchange, which: &Selector) -> Result<usize, Refusal> {
    let ask = |mail: &WakeQueue<Mail>| {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::Close(which.clone(), reply));
        answer
    };
    let mut closed = 0;
    for answer in x.shared().mail.iter().map(ask).collect::<Vec<_>>() {
        closed += answer.await.unwrap_or(Ok(0)).map_err(busy)?;
    }
    Ok(closed)
}

fn busy(error: Busy) -> Refusal {
    Refusal::quota(error.to_string(), 1)
}
