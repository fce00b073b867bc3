//! `/presence`: which users of the organization are connected.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe};
use crate::connection::presence::PresentPage;
use crate::domain::PageStart;
use crate::error_response::ErrorResponse;
use crate::event::{EventKind, presence_channel};
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{PAGE_DEFAULT, PAGE_MOST, number, unknown};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::PresenceParameters;
use crate::time::rfc3339;

use super::page::{cursor, position};
use super::write_request::reader;

/// Maximum of users that one request may name.
const NAMED: usize = PAGE_MOST as usize;

/// A user who is connected.
#[derive(Serialize, ToSchema)]
#[schema(as = Present)]
struct PresentView<'a> {
    /// The user.
    sub: &'a str,
    /// Always `online`: other users are not listed.
    status: &'static str,
    /// Open WebSocket and SSE connections. 0 during the grace period after the last one has closed.
    connections: u32,
    /// Time since which the user has been connected.
    #[schema(format = DateTime)]
    since: String,
}

/// A page of users who are connected.
#[derive(Serialize, ToSchema)]
#[schema(as = PresencePage)]
struct PresenceList<'a> {
    /// Users, in the order of `sub`.
    data: Vec<PresentView<'a>>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
    /// Whether presence is enabled for the organization. If not, the list is empty.
    enabled: bool,
    /// Always `true`.
    success: bool,
}

/// The query of a request.
struct PresenceQuery {
    limit: usize,
    after: Option<String>,
    users: Option<BTreeSet<Box<str>>>,
}

/// Lists connected users whose presence channel the credential may read.
#[utoipa::path(
    get,
    path = "/api/v1/presence",
    tag = "presence",
    params(PresenceParameters),
    responses((status = 200, description = "A page of users.", body = PresenceList))
)]
pub(crate) async fn list(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let query = presence_query(request)?;
    let narrowing = &caller.rights.narrowing;
    let shown = |sub: &str| narrowing.permits(EventKind::Custom, None, Some(&presence_channel(sub)));
    let (admission, tenant) = (&request.shared().admission, caller.tenant.id());
    let page =
        admission.presence().page(tenant, query.after.as_deref(), query.limit, query.users.as_ref(), shown);
    let enabled = page.is_some();
    let PresentPage { users, next } = page.unwrap_or_default();
    let data = users
        .iter()
        .map(|user| PresentView {
            sub: &user.sub,
            status: "online",
            connections: admission.streams_of(tenant, &user.sub),
            since: rfc3339(user.since_ms),
        })
        .collect();
    let next_cursor = next.and_then(|sub| cursor(&PageStart::After(0, sub.as_ref().to_owned())));
    let list = PresenceList { data, next_cursor, enabled, success: true };
    // texts and numbers: this cannot fail
    Ok(ApiResponse::raw_json(StatusCode::OK, serde_json::to_vec(&list).unwrap_or_default()))
}

fn presence_query(request: &ApiRequest) -> Result<PresenceQuery, ErrorResponse> {
    let mut query = PresenceQuery { limit: PAGE_DEFAULT, after: None, users: None };
    for (name, value) in &request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("limit" | "cursor" | "user_id", "") => {}
            ("limit", text) => query.limit = number("limit", text, 1, PAGE_MOST)? as usize,
            ("cursor", text) => match position(text) {
                Some(PageStart::After(0, sub)) => query.after = Some(sub),
                _ => {
                    return Err(ErrorResponse::bad_request(
                        "cursor: is not a cursor of this list; start without one",
                    ));
                }
            },
            ("user_id", names) => {
                let names: BTreeSet<Box<str>> = names.split(',').map(Box::from).collect();
                if names.len() > NAMED {
                    return Err(ErrorResponse::bad_request(format!(
                        "user_id: must name at most {NAMED} users"
                    )));
                }
                query.users = Some(names);
            }
            (name, _) => return Err(unknown(name)),
        }
    }
    Ok(query)
}
