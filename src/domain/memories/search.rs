//! Searches memories by words, best match first.
//!
//! * The groups of the index that are searched follow from what the caller may see. A memory is read only if
//!   it was found in one of them.
//! * Of a common word only the newest postings (`store::POSTINGS`) are searched.

use serde::Deserialize;

use super::super::record;
use super::super::{AgentUserFilter, Caller, ResourceError};
use super::{Memory, MemoryType, indexed, words};
use crate::store::SearchQuery;
use crate::tenant::publish::CommitWaiter;

/// Maximum length of a query, in characters.
pub const QUERY_CHARS: usize = 1_000;
/// Maximum of results. `LIMIT_DEFAULT` applies if the query does not give a limit.
pub const LIMIT: u64 = 100;
const LIMIT_DEFAULT: u64 = 10;
/// Maximum of `offset`.
pub const OFFSET: u64 = 10_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A search query.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MemoryQuery)]
pub struct MemoryQuery {
    /// Words, at least one of which a memory contains. A word that ends with `*` matches every word that
    /// begins with it.
    pub query: Option<String>,
    /// True if the last word matches every word that begins with it.
    pub prefix: bool,
    /// Only memories of this agent.
    pub agent_id: Option<String>,
    /// Only memories of this user.
    pub user_id: Option<String>,
    /// Only memories of this type.
    pub memory_type: Option<MemoryType>,
    /// Only memories of at least this importance.
    pub min_importance: Option<f64>,
    /// Only memories created in the last so many days.
    #[serde(deserialize_with = "crate::json_integer::optional")]
    pub max_age_days: Option<u64>,
    /// Only memories with at least this score, 0 to 1.
    pub threshold: Option<f64>,
    /// Maximum of results; 10 if left out.
    #[serde(deserialize_with = "crate::json_integer::optional")]
    pub limit: Option<u64>,
    /// Results to skip.
    #[serde(deserialize_with = "crate::json_integer::optional")]
    pub offset: Option<u64>,
}

/// A memory that matches, with its score.
pub struct Hit {
    /// The memory.
    pub memory: Memory,
    /// Score, 0 to 1.
    pub score: f32,
}

/// Result of a search.
pub struct SearchResult {
    /// The requested part of the results, best first.
    pub hits: Vec<Hit>,
    /// Number of memories that match.
    pub total: usize,
    /// Number of results that were skipped.
    pub offset: usize,
    /// Maximum of results that was requested.
    pub limit: usize,
}

/// Searches memories.
///
/// # Errors
/// [`ResourceError::Invalid`] names the invalid field of the query.
pub async fn search<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    query: MemoryQuery,
) -> Result<SearchResult, ResourceError> {
    let limit = within("limit", query.limit.unwrap_or(LIMIT_DEFAULT), 1, LIMIT)?;
    let offset = within("offset", query.offset.unwrap_or_default(), 0, OFFSET)?;
    let words = words_of(query.query.as_deref().unwrap_or_default(), query.prefix)?;
    let age_ms = query.max_age_days.map(|days| days.saturating_mul(DAY_MS));
    let since = age_ms.map_or([0; 16], |age| indexed::first_since(caller.now_ms().saturating_sub(age)));
    let least_weight = fraction("min_importance", query.min_importance)?;
    let least_score = fraction("threshold", query.threshold)?;
    let part = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    let filter = AgentUserFilter { agent_id: part(&query.agent_id), user_id: part(&query.user_id) };
    let groups = super::visible_groups(&caller.rights, &filter)?;
    let mut found = SearchResult { hits: Vec::new(), total: 0, offset, limit };
    if groups.is_empty() {
        return Ok(found);
    }
    let kind = query.memory_type.map(|kind| kind as u8);
    let query_terms =
        SearchQuery { groups, words, since, kind, least_weight, least_score, skip: offset, limit };
    let (store, tenant) = (caller.tenants.store(), caller.tenant.id());
    let hits = store.search(tenant, query_terms).await?;
    found.total = hits.total;
    let ids = hits.hits.iter().map(|hit| indexed::id_of(&hit.document)).collect();
    let memories: Vec<Option<Memory>> = record::get_all(store, tenant, ids).await?;
    // A memory that was deleted between the search and the read is left out.
    let found_still = |(memory, hit): (Option<Memory>, crate::store::Hit)| {
        memory.map(|memory| Hit { memory, score: hit.score })
    };
    found.hits = memories.into_iter().zip(hits.hits).filter_map(found_still).collect();
    Ok(found)
}

fn words_of(query: &str, prefix: bool) -> Result<Vec<crate::store::QueryTerm>, ResourceError> {
    let invalid = |reason: String| Err(ResourceError::invalid("query", reason));
    if query.chars().count() > QUERY_CHARS {
        return invalid(format!("has more than {QUERY_CHARS} characters"));
    }
    let found = words::of_query(query, prefix);
    match found.len() {
        0 => invalid("must hold a word to look for: letters or digits".into()),
        len if len > words::WORDS_ASKED => {
            invalid(format!("has {len} different words, the limit is {}", words::WORDS_ASKED))
        }
        _ => Ok(found),
    }
}

fn within(field: &str, number: u64, least: u64, most: u64) -> Result<usize, ResourceError> {
    match (least..=most).contains(&number) {
        true => Ok(number as usize),
        false => {
            let reason = format!("must be a whole number from {least} to {most}");
            Err(ResourceError::invalid(field, reason))
        }
    }
}

fn fraction(field: &str, number: Option<f64>) -> Result<f32, ResourceError> {
    let number = number.unwrap_or_default();
    match (0.0..=1.0).contains(&number) {
        true => Ok(number as f32),
        false => Err(ResourceError::invalid(field, "must be a number from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_search_query_is_refused() {
        let many: String = (0..=words::WORDS_ASKED).map(|n| format!("w{n} ")).collect();
        for bad in ["", " ", "—", &"x".repeat(QUERY_CHARS + 1), &many] {
            assert!(words_of(bad, true).is_err(), "{bad:.20}");
        }
        assert_eq!(words_of(&"x".repeat(QUERY_CHARS), false).expect("one word").len(), 1);
        assert!(within("limit", 0, 1, LIMIT).is_err() && within("limit", LIMIT, 1, LIMIT).is_ok());
        assert!(fraction("threshold", Some(1.1)).is_err() && fraction("threshold", None).is_ok());
    }
}
