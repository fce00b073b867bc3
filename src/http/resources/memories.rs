//! `/memories`, `/memories/{id}`, its history, batches, and search; `/agents/{id}/memories`.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth::{Subscribe, Use};
use crate::outcome::Refusal;
use crate::resource::agents::{self, Json};
use crate::resource::memories::batch::{self, ITEMS, Outcome};
use crate::resource::memories::search::{self, Query};
use crate::resource::memories::{self, Memory, MemoryType, NewMemory, Saying, Scope, Version};
use crate::resource::{Page, Position, ResourceError};
use crate::time::rfc3339;

use super::super::api::parameters::{
    IdempotencyKey, IfMatch, MemorySearch, MemoryWords, OfMemories, OfMessages, OfUser, Page as PageAsked,
};
use super::super::created;
use super::super::criteria::{boolean, fraction, number};
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{
    Asker, OFFSET_MOST, Written, asking, if_match, listed, made, may_write, no_parameters, of_version, page,
    reading, unescaped, writing, written, written_from_array, written_together,
};

/// Most bytes of what is said of one item that cannot be read: a hundred of them, twice, must fit the answer that is kept for
/// an `Idempotency-Key`.
const REASON_BYTES: usize = 80;
/// Longest id that an item's error repeats.
const SHOWN_ID: usize = 64;

/// A memory as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Memory)]
struct View<'a> {
    /// `memory-<uuid7>`.
    id: &'a str,
    /// Its organization.
    organization_id: &'a str,
    /// Which agent's.
    agent_id: Option<&'a str>,
    /// Which user's; `null`: everybody's.
    user_id: Option<&'a str>,
    /// The text.
    content: &'a str,
    /// What kind it is.
    memory_type: MemoryType,
    /// 0 to 1.
    importance: f64,
    /// What it belongs to.
    scope: Option<Scope>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// Counts its changes.
    version: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn view<'a>(org_id: &'a str, memory: &'a Memory) -> View<'a> {
    View {
        id: &memory.id,
        organization_id: org_id,
        agent_id: memory.agent_id.as_deref(),
        user_id: memory.user_id.as_deref(),
        content: &memory.said.content,
        memory_type: memory.said.memory_type,
        importance: memory.said.importance,
        scope: memory.scope,
        metadata: memory.said.metadata.as_ref(),
        version: memory.version,
        created_at: rfc3339(memory.created_ms),
        updated_at: rfc3339(memory.updated_ms),
    }
}

fn told(org_id: &str, memory: &Memory) -> Answer {
    of_version(Answer::data(StatusCode::OK, view(org_id, memory)), memory.version)
}

/// Which memories a list is of.
#[derive(Default)]
struct Asked {
    agent_id: Option<String>,
    user_id: Option<String>,
    /// Counted from 0, for older clients.
    page: Option<u64>,
}

impl Asked {
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Refusal> {
        match (name, value) {
            ("agent_id" | "user_id" | "page" | "sort_by", "") | ("sort_by", "created_at") => {}
            ("agent_id", id) => self.agent_id = Some(id.to_owned()),
            ("user_id", id) => self.user_id = Some(id.to_owned()),
            ("page", text) => self.page = Some(number("page", text, 0, OFFSET_MOST)?),
            ("sort_by", _) => {
                return Err(Refusal::bad_request("sort_by: must be created_at; lists have no other order"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The page that is meant where one is asked for by its number.
    fn numbered(&self, mut page: Page) -> Result<Page, Refusal> {
        let Some(wanted) = self.page else { return Ok(page) };
        let offset = wanted * page.limit as u64;
        if page.from != Position::Offset(0) {
            return Err(Refusal::bad_request("page cannot be given together with cursor or offset"));
        }
        if offset > OFFSET_MOST {
            let message = format!("page: passes over more than {OFFSET_MOST} rows; use cursor");
            return Err(Refusal::bad_request(message));
        }
        page.from = Position::Offset(offset as usize);
        Ok(page)
    }
}

async fn list_of(caller: &Asker<'_>, asked: Asked, page: Page) -> Result<Answer, Refusal> {
    let page = asked.numbered(page)?;
    let (agent_id, user_id) = (asked.agent_id.as_deref(), asked.user_id.as_deref());
    let (memories, next) = memories::list(caller, agent_id, user_id, &page).await?;
    let views: Vec<View<'_>> = memories.iter().map(|memory| view(&caller.principal.org_id, memory)).collect();
    Ok(listed(&views, next.as_ref()))
}

/// Lists memories of an agent, a user, both, or all, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories",
    tag = "memories",
    params(PageAsked, OfMessages, OfMemories),
    responses((status = 200, description = "A page.", body = Vec<View>))
)]
pub(in crate::http) async fn list(x: &Exchange) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
    let mut asked = Asked::default();
    let page = page(x, |name, value| asked.take(name, value))?;
    list_of(&caller, asked, page).await
}

/// Lists an agent's memories, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/memories",
    tag = "memories",
    params(PageAsked, OfUser, OfMemories),
    responses((status = 200, description = "A page.", body = Vec<View>))
)]
pub(in crate::http) async fn list_of_agent(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
    let mut asked = Asked::default();
    let page = page(x, |name, value| Ok(name != "agent_id" && asked.take(name, value)?))?;
    let id = unescaped(id)?;
    agents::exists(&caller, &id).await?; // here the path names it: 404, not an empty list
    asked.agent_id = Some(id);
    list_of(&caller, asked, page).await
}

/// Keeps a memory. Publishes `memory_update` with `created`.
#[utoipa::path(
    post,
    path = "/api/v1/memories",
    tag = "memories",
    params(IdempotencyKey),
    request_body = NewMemory,
    responses((status = 201, description = "It is kept.", body = View, headers(("ETag" = String, description = "Its version."))))
)]
pub(in crate::http) async fn create(x: &mut Exchange) -> Result<Answer, Refusal> {
    let Written { x, right, caller, bytes, body: new } = written::<NewMemory>(x).await?;
    let answer =
        |memory: &Memory| of_version(created(view(&caller.principal.org_id, memory)), memory.version);
    made(x, &caller, &bytes, answer, async |kept| memories::create(&caller, &right, new, kept).await).await
}

/// Shows a memory.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    responses((status = 200, description = "The memory.", body = View, headers(("ETag" = String, description = "Its version."))))
)]
pub(in crate::http) async fn get(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x).await?;
    let memory = memories::get(&caller, &unescaped(id)?).await?;
    Ok(told(&caller.principal.org_id, &memory))
}

/// Changes what is given; the version before stays in the history. Publishes `memory_update` with `updated`.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    request_body = Saying,
    responses((status = 200, description = "It was changed.", body = View, headers(("ETag" = String, description = "Its version."))))
)]
pub(in crate::http) async fn change(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let Written { x, right, caller, body: saying, .. } = written::<Saying>(x).await?;
    let memory = memories::change(&caller, &right, &unescaped(id)?, if_match(x)?, saying).await?;
    Ok(told(&caller.principal.org_id, &memory))
}

/// Deletes a memory. Publishes `memory_update` with `deleted`.
#[utoipa::path(
    delete,
    path = "/api/v1/memories/{id}",
    tag = "memories",
    params(IfMatch),
    responses((status = 204, description = "It is gone."))
)]
pub(in crate::http) async fn delete(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let right = may_write(x)?;
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    memories::delete(&caller, &right, &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
}

/// A version of a memory.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryVersion)]
struct VersionView<'a> {
    /// Which.
    version: u64,
    /// What made it.
    operation: &'a str,
    /// The text.
    content: &'a str,
    /// What kind it was.
    memory_type: MemoryType,
    /// 0 to 1.
    importance: f64,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Json>,
    /// When it was made.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn version_view(version: &Version) -> VersionView<'_> {
    VersionView {
        version: version.version,
        operation: &version.operation,
        content: &version.said.content,
        memory_type: version.said.memory_type,
        importance: version.said.importance,
        metadata: version.said.metadata.as_ref(),
        updated_at: rfc3339(version.updated_ms),
    }
}

/// Lists a memory's versions, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/memories/{id}/history",
    tag = "memories",
    params(PageAsked),
    responses((status = 200, description = "A page.", body = Vec<VersionView>))
)]
pub(in crate::http) async fn history(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
    let page = page(x, |_, _| Ok(false))?;
    let (versions, next) = memories::history(&caller, &unescaped(id)?, &page).await?;
    let views: Vec<VersionView<'_>> = versions.iter().map(version_view).collect();
    Ok(listed(&views, next.as_ref()))
}

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
        // Nothing that JSON writes longer than it is.
        let plain = |c: char| if c.is_control() || matches!(c, '"' | '\\') { '\'' } else { c };
        let mut reason: String = error.to_string().chars().map(plain).collect();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        ResourceError::Invalid { field: String::new(), reason }
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
pub(in crate::http) async fn create_batch(x: &mut Exchange) -> Result<Answer, Refusal> {
    let count = |body: &NewMemories| counted("memories", body.memories.len());
    let Written { x, right, caller, bytes, body } = written_together(x, count).await?;
    let items = body.memories.iter().map(|json| item(json)).collect();
    made(x, &caller, &bytes, outcome_told, async |kept| batch::create(&caller, &right, items, kept).await)
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
pub(in crate::http) async fn delete_batch(x: &mut Exchange) -> Result<Answer, Refusal> {
    let count = |body: &OldMemories| counted("ids", body.ids().len());
    let Written { x, right, caller, bytes, body } = written_from_array(x, count).await?;
    let ids = body.ids().to_vec();
    made(x, &caller, &bytes, outcome_told, async |kept| batch::delete(&caller, &right, ids, kept).await).await
}

/// A memory that was found, and how well it fits, 0 to 1.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryHit)]
struct HitView<'a> {
    #[serde(flatten)]
    memory: View<'a>,
    /// How well it fits, 0 to 1.
    score: f32,
}

/// What was found.
#[derive(Serialize, ToSchema)]
#[schema(as = FoundMemories)]
struct FoundView<'a> {
    /// Best first.
    results: Vec<HitView<'a>>,
    /// How many there are.
    total: usize,
    /// How many were passed over.
    offset: usize,
    /// How many were asked for.
    limit: usize,
    /// Whether there are more behind these.
    has_more: bool,
}

async fn found(caller: &Asker<'_>, query: Query) -> Result<Answer, Refusal> {
    let found = search::search(caller, query).await?;
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
    Ok(Answer::data(StatusCode::OK, view))
}

/// Searches memories by their words, best first.
#[utoipa::path(
    post,
    path = "/api/v1/memories/search",
    tag = "memories",
    request_body = Query,
    responses((status = 200, description = "What was found.", body = FoundView))
)]
pub(in crate::http) async fn search(x: &mut Exchange) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let principal = x.principal(Use::Rest)?;
    principal.authorize::<Subscribe>()?;
    let query = x.json::<Query>().await?;
    found(&asking(x, principal).await?, query).await
}

/// Searches memories by their words, best first.
#[utoipa::path(
    get,
    path = "/api/v1/memories/search",
    tag = "memories",
    params(MemoryWords, MemorySearch),
    responses((status = 200, description = "What was found.", body = FoundView))
)]
pub(in crate::http) async fn search_by_query(x: &Exchange) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
    let mut query = Query::default();
    for (name, value) in &x.pairs()? {
        match (name.as_ref(), value.as_ref()) {
            ("token" | "ticket", _) => {}
            ("query", text) => query.query = Some(text.to_owned()),
            ("prefix", text) => query.prefix = boolean("prefix", text)?,
            ("agent_id", id) => query.agent_id = Some(id.to_owned()),
            ("user_id", id) => query.user_id = Some(id.to_owned()),
            ("memory_type", "") => {}
            ("memory_type", name) => {
                let kind = MemoryType::from_name(name);
                let refused = |reason| Refusal::bad_request(format!("memory_type: {reason}"));
                query.memory_type = Some(kind.map_err(refused)?);
            }
            ("min_importance", text) => query.min_importance = Some(fraction("min_importance", text)?),
            ("threshold", text) => query.threshold = Some(fraction("threshold", text)?),
            ("max_age_days", text) => query.max_age_days = Some(number("max_age_days", text, 0, u64::MAX)?),
            ("limit", text) => query.limit = Some(number("limit", text, 1, search::LIMIT)?),
            ("offset", text) => query.offset = Some(number("offset", text, 0, search::OFFSET)?),
            (name, _) => return Err(Refusal::bad_request(format!("{name}: no such parameter"))),
        }
    }
    found(&caller, query).await
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
            id: Some("x".repeat(SHOWN_ID)),
            error: item(&raw).expect_err("no such field"),
        };
        let outcome = Outcome { done: Vec::new(), failed: (0..ITEMS).map(failed).collect() };
        let len = outcome_told(&outcome).body.len();
        assert!(len + 1_024 <= crate::store::MAX_VALUE, "{len}");
        let ids = (0..ITEMS).map(|_| crate::ids::fresh("memory")).collect();
        assert!(outcome_told(&Outcome { done: ids, failed: Vec::new() }).body.len() < len);
    }
}
