//! `/connections`, `/connections/{id}`: who is connected, and closing them.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::auth::{Manage, Principal, Use};
use crate::outcome::Refusal;
use crate::worker::mail::{Listed, Mail, Which, connection_id};

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

/// Lists open connections: with `manage` the organization's, else one's own.
#[utoipa::path(
    get,
    path = "/api/v1/connections",
    tag = "connections",
    params(AdminPage),
    responses((status = 200, description = "A page.", body = Vec<Listed>))
)]
pub(in crate::http) async fn list(x: &Exchange) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
    let page = parameters(x, &["cursor", "offset", "limit"])?;
    let mut rows = Vec::new();
    for mail in x.shared().mail.iter() {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::List(visible(&principal), reply));
        rows.extend(answer.await.unwrap_or_default());
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let after = page.after.as_deref().unwrap_or_default();
    let shown: Vec<Listed> = rows.into_iter().filter(|row| *row.id > *after).take(page.reach()).collect();
    Ok(super::list(&shown, &page, |row| &row.id))
}

/// Closes a connection: with `manage` one of the organization's, else one's own.
#[utoipa::path(
    delete,
    path = "/api/v1/connections/{id}",
    tag = "connections",
    responses((status = 204, description = "It is closed."))
)]
pub(in crate::http) async fn kick_one(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
    no_parameters(x)?;
    let mut which = visible(&principal);
    which.id = Some(connection_id(&unescaped(id)?).ok_or_else(Refusal::not_found)?);
    match close(x, &which).await {
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
pub(in crate::http) async fn kick_all(x: &Exchange) -> Result<Answer, Refusal> {
    let principal = x.principal(Use::Rest)?;
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
    Ok(Answer::data(StatusCode::OK, ClosedView { closed: close(x, &which).await }))
}

async fn close(x: &Exchange, which: &Which) -> usize {
    let mut closed = 0;
    for mail in x.shared().mail.iter() {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::Kick(which.clone(), reply));
        closed += answer.await.unwrap_or_default();
    }
    closed
}
