//! The search index entries of a memory: its words, in every group that it belongs to.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::ResourceError;
use super::super::record::Record as _;
use super::{ID_PREFIX, Memory, words};
use crate::ids::TenantId;
use crate::store::{Document, PostingPayload, PriorValue, Rows, length_of};

/// Adds the rows that change the index entries of `old` into those of `new`. Words that stay need none.
pub(super) fn put(
    rows: &mut Rows,
    tenant: TenantId,
    old: Option<&Memory>,
    new: &Memory,
) -> Result<(), ResourceError> {
    let Some(document) = document(&new.id) else { return Ok(()) };
    let (before, now) = (old.map(marks).unwrap_or_default(), marks(new));
    for group in new.groups() {
        for term in before.keys().filter(|term| !now.contains_key(*term)) {
            rows.delete_term(tenant, group, term, &document);
        }
        for (term, mark) in now.iter().filter(|(term, mark)| before.get(*term) != Some(mark)) {
            let stored = match old {
                None => PriorValue::Nothing,
                Some(_) if before.contains_key(term) => PriorValue::Value(PostingPayload::LEN),
                Some(_) => PriorValue::Unknown,
            };
            rows.put_term(tenant, group, term, &document, mark, stored)?;
        }
    }
    Ok(())
}

/// Adds the rows that remove all index entries of `old`.
pub(super) fn remove(rows: &mut Rows, tenant: TenantId, old: &Memory) {
    let Some(document) = document(&old.id) else { return };
    for group in old.groups() {
        for term in marks(old).keys() {
            rows.delete_term(tenant, group, term, &document);
        }
    }
}

fn marks(memory: &Memory) -> BTreeMap<String, PostingPayload> {
    let words = words::of_text(&memory.fields.content);
    let (kind, length) = (memory.fields.memory_type as u8, length_of(words.len));
    let weight = memory.fields.importance as f32;
    words
        .counts
        .into_iter()
        .map(|(term, count)| (term, PostingPayload { kind, count, length, weight }))
        .collect()
}

/// Returns a memory's document number in the index: the UUID in its id, which grows with the time of
/// creation.
pub(super) fn document(id: &str) -> Option<Document> {
    Uuid::parse_str(id.strip_prefix(ID_PREFIX)?.strip_prefix('-')?).ok().map(Uuid::into_bytes)
}

/// Returns the id of a document.
pub(super) fn id_of(document: &Document) -> String {
    format!("{ID_PREFIX}-{}", Uuid::from_bytes(*document))
}

/// Returns the lowest document number that a memory created at `ms` (Unix milliseconds) or later can have
/// (RFC 9562 §5.7).
pub(super) fn first_since(ms: u64) -> Document {
    let mut document = [0; 16];
    document[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_as_a_document_and_holds_its_creation_time() {
        let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        let id = crate::ids::fresh(ID_PREFIX);
        let document = document(&id).expect("ours");
        assert_eq!(id_of(&document), id);
        let ms = before.as_millis() as u64;
        assert!(first_since(ms) <= document && document < first_since(ms + 60_000));
        for other in ["", "memory-", "memory-1", "agent-018f0000-0000-7000-8000-000000000000"] {
            assert_eq!(super::document(other), None, "{other}");
        }
    }
}
