//! `/connections`, `/connections/{id}`: lists open connections and closes them.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::auth::{Authenticated, Authorized, Manage, Principal, Subscribe};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{AdminPageParameters, ConnectionParameters};
use crate::ids::TenantId;
use crate::wake::WakeQueue;
use crate::worker::connection_list::{
    ConnectionInfo, ConnectionSelector, FoundConnection, ScanQueueFull, connection_id, connection_name,
};
use crate::worker::mail::Mail;

use super::{no_parameters, parameters, unescaped, unknown};

/// The number of connections that were closed.
#[derive(Serialize, ToSchema)]
#[schema(as = Closed)]
struct ClosedConnections {
    /// Number of connections that were closed.
    closed: usize,
}

/// The connections that a principal may see: those of its organization if it has `manage`, otherwise those of
/// its own user or key. A principal with a narrowing sees only connections that are narrowed at least as
/// much.
fn visible(principal: &Arc<Principal>) -> ConnectionSelector {
    let within = principal.narrowing.clone();
    let mut which = ConnectionSelector { tenant: principal.tenant, id: None, user: None, key: None, within };
    if principal.authorize::<Manage>().is_err() {
        match &principal.sub {
            Some(sub) => which.user = Some(Arc::from(sub.as_ref())),
            None => which.key = Some(Arc::from(principal.key_id().unwrap_or_default())),
        }
    }
    which
}

/// Lists open connections: with `manage` those of the organization, otherwise your own.
#[utoipa::path(
    get,
    path = "/api/v1/connections",
    tag = "connections",
    params(AdminPageParameters),
    responses((status = 200, description = "A page of connections.", body = Vec<ConnectionInfo>))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Authenticated>) -> HandlerResult {
    let principal = right.principal().clone();
    // The right `manage` covers all connections of the organization. Reading your own needs the scope that
    // all reading needs.
    if principal.authorize::<Manage>().is_err() {
        principal.authorize::<Subscribe>()?;
    }
    let page = parameters(request, &["cursor", "offset", "limit"])?;
    let refused = || ErrorResponse::bad_request("cursor: is not a cursor of this list; start without one");
    let after = page.after.as_deref().map(|name| connection_id(name).ok_or_else(refused)).transpose()?;
    let mut found = find(request, &visible(&principal), after, page.reach()).await?;
    // Only the rows of this page are sorted and described.
    if found.len() > page.reach() {
        found.select_nth_unstable(page.reach());
        found.truncate(page.reach());
    }
    if page.offset > 0 && page.offset < found.len() {
        found.select_nth_unstable(page.offset);
    }
    let mut shown = found.split_off(page.offset.min(found.len()));
    shown.sort_unstable();
    // The next cursor comes from what was found, not from what could be described. A connection may close
    // before it is described, and the page must not look like the last one because of that.
    let next = shown.last().filter(|_| shown.len() == page.limit).map(|last| connection_name(last.id));
    let mut rows = describe(request, principal.tenant, &shown).await?;
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(ApiResponse::list(&rows, next))
}

/// Returns the connections with the lowest ids after `after`, in any order: up to `most` of each worker,
/// sometimes a few more.
async fn find(
    request: &ApiRequest,
    selector: &ConnectionSelector,
    after: Option<u64>,
    most: usize,
) -> Result<Vec<FoundConnection>, ErrorResponse> {
    let ask = |mail: &WakeQueue<Mail>| {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::List { selector: selector.clone(), after, most, reply });
        answer
    };
    let mut found = Vec::new();
    for answer in request.shared().mail.iter().map(ask).collect::<Vec<_>>() {
        found.extend(answer.await.unwrap_or(Ok(Vec::new())).map_err(busy)?);
    }
    Ok(found)
}

async fn describe(
    request: &ApiRequest,
    tenant: TenantId,
    found: &[FoundConnection],
) -> Result<Vec<ConnectionInfo>, ErrorResponse> {
    let ask = |(worker, mail): (usize, &WakeQueue<Mail>)| {
        let (reply, answer) = oneshot::channel();
        let here = found.iter().filter(|found| found.worker == worker).copied().collect();
        mail.push(Mail::Describe { tenant, found: here, reply });
        answer
    };
    let mut rows = Vec::new();
    let concerned = |(worker, _): &(usize, _)| found.iter().any(|found| found.worker == *worker);
    for answer in request.shared().mail.iter().enumerate().filter(concerned).map(ask).collect::<Vec<_>>() {
        rows.extend(answer.await.unwrap_or(Ok(Vec::new())).map_err(busy)?);
    }
    Ok(rows)
}

/// Closes a connection: with `manage` any of the organization, otherwise one of your own.
#[utoipa::path(
    delete,
    path = "/api/v1/connections/{id}",
    tag = "connections",
    responses((status = 204, description = "The connection is closed."))
)]
pub(crate) async fn close(request: &ApiRequest, right: Authorized<Authenticated>, id: &str) -> HandlerResult {
    let principal = right.principal().clone();
    no_parameters(request)?;
    let mut which = visible(&principal);
    which.id = Some(connection_id(&unescaped(id)?).ok_or_else(ErrorResponse::not_found)?);
    match close_selected(request, &which).await? {
        0 => Err(ErrorResponse::not_found()),
        _ => Ok(ApiResponse::empty()),
    }
}

/// Closes all connections of a user or an API key: with `manage` any of the organization, otherwise your own.
#[utoipa::path(
    delete,
    path = "/api/v1/connections",
    tag = "connections",
    params(ConnectionParameters),
    responses((status = 200, description = "The number of connections that were closed.", body = ClosedConnections))
)]
pub(crate) async fn close_all(request: &ApiRequest, right: Authorized<Authenticated>) -> HandlerResult {
    let principal = right.principal().clone();
    let mut which = visible(&principal);
    let own = which.user.is_some() || which.key.is_some();
    let mut named = false;
    for (name, value) in request.parameters()? {
        let slot = match name.as_ref() {
            "user" => &mut which.user,
            "key" => &mut which.key,
            other => return Err(unknown(other)),
        };
        // A user or key of somebody else is treated as one that does not exist: nothing is found, and nothing
        // is revealed.
        if own && slot.as_deref() != Some(value.as_ref()) {
            return Ok(ApiResponse::data(StatusCode::OK, ClosedConnections { closed: 0 }));
        }
        *slot = Some(Arc::from(value.as_ref()));
        named = true;
    }
    if !named {
        return Err(ErrorResponse::bad_request("name a connection, or give user= or key="));
    }
    Ok(ApiResponse::data(
        StatusCode::OK,
        ClosedConnections { closed: close_selected(request, &which).await? },
    ))
}

async fn close_selected(request: &ApiRequest, which: &ConnectionSelector) -> Result<usize, ErrorResponse> {
    let ask = |mail: &WakeQueue<Mail>| {
        let (reply, answer) = oneshot::channel();
        mail.push(Mail::Close(which.clone(), reply));
        answer
    };
    let mut closed = 0;
    for answer in request.shared().mail.iter().map(ask).collect::<Vec<_>>() {
        closed += answer.await.unwrap_or(Ok(0)).map_err(busy)?;
    }
    Ok(closed)
}

fn busy(error: ScanQueueFull) -> ErrorResponse {
    ErrorResponse::quota(error.to_string(), 1)
}
