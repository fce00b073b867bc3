//! `/memories/batch`, `/memories/batch/delete`: many at once, each told of by itself.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth::{Authorized, WriteAsUser};
use crate::outcome::Refusal;
use crate::resource::ResourceError;
use crate::resource::agents::Json;
use crate::resource::memories::NewMemory;
use crate::resource::memories::batch::{self, ITEMS, Outcome};

use super::super::super::api::parameters::IdempotencyKey;
use super::super::super::exchange::Exchange;
use super::super::super::misread::Misread;
use super::super::super::respond::Answer;
use super::super::{Written, made, written_from_array, written_together};

/// Most bytes of what is said of one item that cannot be read, its field and the reason: a hundred of them, twice, must fit the answer that is kept for
/// an `Idempotency-Key`.
const REASON_BYTES: usize = 112;
/// Longest id that an item's error repeats.
const SHOWN_ID: usize = 64;

/// Memories to be made together.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewMemories)]
struct NewMemories {
    /// Each as it would be by itself.
    #[schema(value_type = Vec<NewMemory>)]
    memories: Vec<Json>,
}

/// Memories to be deleted together, by their ids.
#[derive(Deserialize, ToSchema)]
#[schema(as = OldMemories)]
#[serde(untagged, expecting = "ids must be an array of texts, by itself or as {\"ids\": […]}")]
enum OldMemories {
    Bare(Vec<String>),
    Named(Ids),
}

/// Ids of memories.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MemoryIds)]
struct Ids {
    /// Of memories.
    ids: Vec<String>,
}

impl OldMemories {
    fn ids(&self) -> &[String] {
        match self {
            OldMemories::Bare(ids) | OldMemories::Named(Ids { ids }) => ids,
        }
    }
}

/// What a batch came to.
#[derive(Serialize, ToSchema)]
#[schema(as = Batch)]
struct BatchView {
    /// How many were.
    successful: usize,
    /// How many were not.
    failed: usize,
    /// The ids of what was made or deleted.
    results: Vec<String>,
    /// What is wrong with the others.
    errors: Vec<ItemError>,
}

/// What a batch came to, in the envelope, and beside it for clients that know none.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchAnswer)]
struct BatchAnswer<'a> {
    /// The outcome.
    #[schema(value_type = BatchView)]
    data: &'a BatchView,
    /// Always `true`.
    success: bool,
    #[serde(flatten)]
    #[schema(ignore)] // its fields are told where the document is made
    flat: &'a BatchView,
}

/// What is wrong with one item.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItemError)]
struct ItemError {
    /// Which, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Its id, where it named one.
    id: Option<String>,
    /// For programs; those of refusals.
    code: &'static str,
    /// For people.
    message: String,
    /// More for a program, or `null`.
    details: serde_json::Value,
}

fn outcome_told(outcome: &Outcome) -> Answer {
    let error = |failed: &batch::Failed| {
        let refusal = Refusal::from(failed.error.clone());
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
    Answer::raw_json(StatusCode::OK, serde_json::to_vec(&both).unwrap_or_default()) // texts and numbers: nothing can fail
}

/// Refuses a batch of none or too many.
fn counted(field: &str, items: usize) -> Result<usize, Refusal> {
    match (1..=ITEMS).contains(&items) {
        true => Ok(items),
        false => Err(Refusal::invalid(field, &format!("has {items} items, must have 1 to {ITEMS}"))),
    }
}

fn item(json: &RawValue) -> Result<NewMemory, ResourceError> {
    serde_json::from_str(json.get()).map_err(|error| {
        let Misread { field, reason } =
            Misread::of::<NewMemory>(json.get().as_bytes(), &error).within(REASON_BYTES);
        // Nothing that JSON writes longer than it is.
        let plain = |c: char| if c.is_control() || matches!(c, '"' | '\\') { '\'' } else { c };
        ResourceError::Invalid { field: field.chars().map(plain).collect(), reason }
    })
}

/// Keeps memories together; a wrong one is told of and does not refuse the others.
#[utoipa::path(
    post,
    path = "/api/v1/memories/batch",
    tag = "memories",
    params(IdempotencyKey),
    request_body = NewMemories,
    responses((status = 200, description = "What became of each.", body = BatchAnswer))
)]
pub(in crate::http) async fn create(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
) -> Result<Answer, Refusal> {
    let count = |body: &NewMemories| counted("memories", body.memories.len());
    let Written { x, right, caller, bytes, body } = written_together(x, right, count).await?;
    let items = body.memories.iter().map(|json| item(json)).collect();
    made(x, &right, &bytes, outcome_told, async |kept| batch::create(&caller, &right, items, kept).await)
        .await
}

/// Deletes memories together; one that is not there is told of and does not refuse the others.
#[utoipa::path(
    post,
    path = "/api/v1/memories/batch/delete",
    tag = "memories",
    params(IdempotencyKey),
    request_body = OldMemories,
    responses((status = 200, description = "What became of each.", body = BatchAnswer))
)]
pub(in crate::http) async fn delete(
    x: &mut Exchange,
    right: Authorized<WriteAsUser>,
) -> Result<Answer, Refusal> {
    let count = |body: &OldMemories| counted("ids", body.ids().len());
    let Written { x, right, caller, bytes, body } = written_from_array(x, right, count).await?;
    let ids = body.ids().to_vec();
    made(x, &right, &bytes, outcome_told, async |kept| batch::delete(&caller, &right, ids, kept).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a repeat under the same `Idempotency-Key` would be done again.
    #[test]
    fn the_longest_answer_to_a_batch_can_be_kept() {
        let hostile = format!("{{\"{}\":1}}", "\\u0001\\\"\\\\".repeat(1_000));
        let raw = RawValue::from_string(hostile).expect("JSON");
        let failed = |index| batch::Failed {
            index,
            id: None, // only what is to be deleted has one, and it is read already
            error: item(&raw).expect_err("no such field"),
        };
        let outcome = Outcome { done: Vec::new(), failed: (0..ITEMS).map(failed).collect() };
        let len = outcome_told(&outcome).body.len();
        assert!(len + 1_024 <= crate::store::MAX_VALUE, "{len}");
        let ids = (0..ITEMS).map(|_| crate::ids::fresh("memory")).collect();
        assert!(outcome_told(&Outcome { done: ids, failed: Vec::new() }).body.len() < len);
    }
}
