//! `/memories/batch`, `/memories/batch/delete`: creates or deletes many memories in one request, with a
//! result for each.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth::{Authorized, WriteAsUser};
use crate::domain::ResourceError;
use crate::domain::agents::Json;
use crate::domain::memories::NewMemory;
use crate::domain::memories::batch::{self, BatchOutcome, ITEMS};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::json_error::JsonError;
use crate::http::resources::write_request::{
    WriteRequest, batch_write_request, create_once, write_request_from_array,
};
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::IdempotencyKey;

/// Maximum of bytes of the field and reason reported for one item that cannot be parsed. A hundred of them,
/// each twice, must fit into the response that is stored for an `Idempotency-Key`.
const REASON_BYTES: usize = 112;
/// Longest id that the error of an item repeats.
const SHOWN_ID: usize = 64;

/// Memories to create together.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewMemories)]
struct NewMemories {
    /// Memories, each as for `POST /api/v1/memories`.
    #[schema(value_type = Vec<NewMemory>)]
    memories: Vec<Json>,
}

/// Memories to delete together, by their ids.
#[derive(Deserialize, ToSchema)]
#[schema(as = OldMemories)]
#[serde(untagged, expecting = "ids must be an array of texts, by itself or as {\"ids\": […]}")]
enum MemoriesToDelete {
    Bare(Vec<String>),
    Named(Ids),
}

/// Ids of memories.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MemoryIds)]
struct Ids {
    /// Ids of the memories.
    ids: Vec<String>,
}

impl MemoriesToDelete {
    fn ids(&self) -> &[String] {
        match self {
            MemoriesToDelete::Bare(ids) | MemoriesToDelete::Named(Ids { ids }) => ids,
        }
    }
}

/// Result of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = Batch)]
struct BatchView {
    /// Number of items that succeeded.
    successful: usize,
    /// Number of items that failed.
    failed: usize,
    /// Ids of the memories that were created or deleted.
    results: Vec<String>,
    /// Errors of the items that failed.
    errors: Vec<ItemError>,
}

/// Result of a batch, in the envelope, and repeated beside it for clients that do not read the envelope.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchAnswer)]
struct BatchAnswer<'a> {
    /// The result.
    #[schema(value_type = BatchView)]
    data: &'a BatchView,
    /// Always `true`.
    success: bool,
    #[serde(flatten)]
    #[schema(ignore)] // `special` in api/openapi.rs adds its fields
    flat: &'a BatchView,
}

/// Error of one item.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItemError)]
struct ItemError {
    /// Index of the item, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Id of the item, if it had one.
    id: Option<String>,
    /// Error code, for programs; the same codes as in error responses.
    code: &'static str,
    /// Text for people.
    message: String,
    /// More information for programs, or `null`.
    details: serde_json::Value,
}

fn batch_response(outcome: &BatchOutcome) -> ApiResponse {
    let error = |failed: &batch::FailedItem| {
        let refusal = ErrorResponse::from(failed.error.clone());
        ItemError {
            index: failed.index,
            id: failed
                .id
                .clone()
                .filter(|id| id.len() <= SHOWN_ID && id.bytes().all(|b| b.is_ascii_graphic())),
            code: refusal.code,
            message: refusal.message,
            details: refusal.details,
        }
    };
    let view = BatchView {
        successful: outcome.done.len(),
        failed: outcome.failed.len(),
        results: outcome.done.clone(),
        errors: outcome.failed.iter().map(error).collect(),
    };
    let both = BatchAnswer { data: &view, success: true, flat: &view };
    // texts and numbers: this cannot fail
    ApiResponse::raw_json(StatusCode::OK, serde_json::to_vec(&both).unwrap_or_default())
}

/// Refuses an empty batch and one with too many items.
fn checked_len(field: &str, items: usize) -> Result<usize, ErrorResponse> {
    match (1..=ITEMS).contains(&items) {
        true => Ok(items),
        false => Err(ErrorResponse::invalid(field, &format!("has {items} items, must have 1 to {ITEMS}"))),
    }
}

fn item(json: &RawValue) -> Result<NewMemory, ResourceError> {
    serde_json::from_str(json.get()).map_err(|error| {
        let JsonError { field, reason } =
            JsonError::explain::<NewMemory>(json.get().as_bytes(), &error).truncated(REASON_BYTES);
        // Characters that JSON would escape, and so make longer, are replaced.
        let plain = |c: char| if c.is_control() || matches!(c, '"' | '\\') { '\'' } else { c };
        ResourceError::Invalid { field: field.chars().map(plain).collect(), reason }
    })
}

/// Creates several memories. An invalid item is reported and does not affect the others.
#[utoipa::path(
    post,
    path = "/api/v1/memories/batch",
    tag = "memories",
    params(IdempotencyKey),
    request_body = NewMemories,
    responses((status = 200, description = "The result of each item.", body = BatchAnswer))
)]
pub(crate) async fn create(request: &mut ApiRequest, right: Authorized<WriteAsUser>) -> HandlerResult {
    let count = |body: &NewMemories| checked_len("memories", body.memories.len());
    let WriteRequest { request, right, caller, bytes, body } =
        batch_write_request(request, right, count).await?;
    let items = body.memories.iter().map(|json| item(json)).collect();
    create_once(request, &right, &bytes, batch_response, async |response_rows| {
        batch::create(&caller, &right, items, response_rows).await
    })
    .await
}

/// Deletes several memories. A missing one is reported and does not affect the others.
#[utoipa::path(
    post,
    path = "/api/v1/memories/batch/delete",
    tag = "memories",
    params(IdempotencyKey),
    request_body = MemoriesToDelete,
    responses((status = 200, description = "The result of each item.", body = BatchAnswer))
)]
pub(crate) async fn delete(request: &mut ApiRequest, right: Authorized<WriteAsUser>) -> HandlerResult {
    let count = |body: &MemoriesToDelete| checked_len("ids", body.ids().len());
    let WriteRequest { request, right, caller, bytes, body } =
        write_request_from_array(request, right, count).await?;
    let ids = body.ids().to_vec();
    create_once(request, &right, &bytes, batch_response, async |response_rows| {
        batch::delete(&caller, &right, ids, response_rows).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the response were too long to store, a repeat with the same `Idempotency-Key` would be done again.
    #[test]
    fn the_longest_batch_response_fits_into_a_stored_response() {
        let hostile = format!("{{\"{}\":1}}", "\\u0001\\\"\\\\".repeat(1_000));
        let raw = RawValue::from_string(hostile).expect("JSON");
        let failed = |index| batch::FailedItem {
            index,
            id: None, // only items to delete have an id, and those are parsed already
            error: item(&raw).expect_err("no such field"),
        };
        let outcome = BatchOutcome { done: Vec::new(), failed: (0..ITEMS).map(failed).collect() };
        let len = batch_response(&outcome).body.len();
        assert!(len + 1_024 <= crate::store::MAX_VALUE, "{len}");
        let ids = (0..ITEMS).map(|_| crate::ids::fresh("memory")).collect();
        assert!(batch_response(&BatchOutcome { done: ids, failed: Vec::new() }).body.len() < len);
    }
}
