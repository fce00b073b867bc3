//! `/memories/search`: searches memories by words. The query is a JSON body or query parameters.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Subscribe};
use crate::domain::memories::MemoryType;
use crate::domain::memories::search::{self as engine, MemoryQuery};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{boolean, fraction, no_parameters, number, unknown};
use crate::http::resources::write_request::{HttpCaller, caller, reader};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::{MemorySearchParameters, MemoryWordsParameter};

use super::{MemoryView, view};

/// A memory that matches, with its score.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryHit)]
struct HitView<'a> {
    #[serde(flatten)]
    memory: MemoryView<'a>,
    /// Score, 0 to 1. A higher score is a better match.
    score: f32,
}

/// Result of a search.
#[derive(Serialize, ToSchema)]
#[schema(as = FoundMemories)]
struct FoundView<'a> {
    /// Memories that match, best first.
    results: Vec<HitView<'a>>,
    /// Number of memories that match.
    total: usize,
    /// Number of results that were skipped.
    offset: usize,
    /// Maximum of results that was requested.
    limit: usize,
    /// True if there are more results after these.
    has_more: bool,
}

async fn found(caller: &HttpCaller<'_>, query: MemoryQuery) -> HandlerResult {
    let found = engine::search(caller, query).await?;
    let org_id = &caller.principal.org_id;
    let view = FoundView {
        has_more: found.total > found.offset + found.limit,
        results: found
            .hits
            .iter()
            .map(|hit| HitView { memory: view(org_id, &hit.memory), score: hit.score })
            .collect(),
        total: found.total,
        offset: found.offset,
        limit: found.limit,
    };
    Ok(ApiResponse::data(StatusCode::OK, view))
}

/// Searches memories by words, best match first.
#[utoipa::path(
    post,
    path = "/api/v1/memories/search",
    tag = "memories",
    request_body = MemoryQuery,
    responses((status = 200, description = "The memories that match.", body = FoundView))
)]
pub(crate) async fn by_body(request: &mut ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    no_parameters(request)?;
    let principal = right.principal().clone();
    principal.authorize::<Subscribe>()?;
    let query = request.json::<MemoryQuery>().await?;
    found(&caller(request, principal).await?, query).await
}

/// Searches memories by words, best match first.
#[utoipa::path(
    get,
    path = "/api/v1/memories/search",
    tag = "memories",
    params(MemoryWordsParameter, MemorySearchParameters),
    responses((status = 200, description = "The memories that match.", body = FoundView))
)]
pub(crate) async fn by_query(request: &ApiRequest, right: Authorized<Subscribe>) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut query = MemoryQuery::default();
    for (name, value) in &request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("query", text) => query.query = Some(text.to_owned()),
            ("prefix", text) => query.prefix = boolean("prefix", text)?,
            ("agent_id", id) => query.agent_id = Some(id.to_owned()),
            ("user_id", id) => query.user_id = Some(id.to_owned()),
            ("memory_type", "") => {}
            ("memory_type", name) => {
                let kind = MemoryType::from_name(name);
                let refused = |reason| ErrorResponse::bad_request(format!("memory_type: {reason}"));
                query.memory_type = Some(kind.map_err(refused)?);
            }
            ("min_importance", text) => query.min_importance = Some(fraction("min_importance", text)?),
            ("threshold", text) => query.threshold = Some(fraction("threshold", text)?),
            ("max_age_days", text) => query.max_age_days = Some(number("max_age_days", text, 0, u64::MAX)?),
            ("limit", text) => query.limit = Some(number("limit", text, 1, engine::LIMIT)?),
            ("offset", text) => query.offset = Some(number("offset", text, 0, engine::OFFSET)?),
            (name, _) => return Err(unknown(name)),
        }
    }
    found(&caller, query).await
}
