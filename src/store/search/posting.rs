//! Postings: a document holds a term.
//!
//! * A posting is a row of its own under (group, term, document). Its value is what ranking and filters need.
//!   So only documents of the result page are read, and a change of a text writes only the terms that change.
//! * The code that changes a text also writes its postings, in the same commit. Nothing here keeps them
//!   consistent.
//! * A document is in every group in which it may be searched, so no search reads, counts or ranks by
//!   documents that its caller may not see.
//! * The caller defines words and a document's numbers.

use crate::ids::TenantId;
use crate::store::engine::{EngineError, Value};
use crate::store::format::Group;
use crate::store::format::keys::{self, KeyKind};
use crate::store::rows::{PriorValue, Rows, TooLong};

const VERSION: u8 = 1;
/// Longest term, in bytes.
pub const TERM_BYTES: usize = 64;
/// Limit on the postings that one search reads, newest first. It bounds the cost of a search for common
/// words.
pub const POSTINGS: usize = 20_000;
/// Bytes before a posting's term: list and digest.
const SCOPE: usize = 1 + 16;

const _: () = assert!(SCOPE + TERM_BYTES + 1 + size_of::<Document>() <= 1 + keys::MAX_NAME);

/// A document's id in the index. Ids are ordered by creation.
pub type Document = [u8; 16];

/// What a posting stores about a document.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PostingPayload {
    /// The kind, from a closed list of the caller's.
    pub kind: u8,
    /// How often the term occurs; 255 means 255 or more.
    pub count: u8,
    /// The length of the text, by [`length_of`].
    pub length: u8,
    /// The weight that the caller filters by.
    pub weight: f32,
}

/// Encodes a number of words as one byte, in steps of a fifth, so that a text that changes little keeps it.
#[must_use]
pub fn length_of(words: usize) -> u8 {
    ((words as f32 + 1.0).log2() * 4.0).round() as u8
}

/// The approximate number of words for a byte of [`length_of`].
pub(super) fn words_of(length: u8) -> f32 {
    (f32::from(length) / 4.0).exp2() - 1.0
}

/// A document that holds a word.
pub(crate) type Posting = (Document, PostingPayload);

pub(super) fn key_tail(group: Group, term: &str, document: &Document) -> Vec<u8> {
    // Terms contain no zero byte, so a term's postings come before those of every longer term that starts
    // with it.
    [&group.prefix()[..], term.as_bytes(), &[0], document].concat()
}

impl PostingPayload {
    /// Length of an encoded mark, in bytes.
    pub const LEN: usize = 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![VERSION, self.kind, self.count, self.length];
        value.extend_from_slice(&self.weight.to_be_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<PostingPayload, EngineError> {
        match *value {
            [VERSION, kind, count, length, a, b, c, d] => {
                Ok(PostingPayload { kind, count, length, weight: f32::from_be_bytes([a, b, c, d]) })
            }
            _ => Err(damaged()),
        }
    }
}

fn damaged() -> EngineError {
    EngineError::Engine("a stored posting is damaged".into())
}

impl Rows {
    /// Adds a posting: `document` holds `term`.
    ///
    /// # Errors
    /// [`TooLong`] for a term longer than [`TERM_BYTES`].
    pub fn put_term(
        &mut self,
        tenant: TenantId,
        group: Group,
        term: &str,
        document: &Document,
        mark: &PostingPayload,
        before: PriorValue,
    ) -> Result<(), TooLong> {
        if term.len() > TERM_BYTES {
            return Err(TooLong { what: "term", len: term.len() });
        }
        self.put(KeyKind::Term, tenant, &key_tail(group, term, document), mark.encode(), before)
    }
    /// Removes a posting.
    pub fn delete_term(&mut self, tenant: TenantId, group: Group, term: &str, document: &Document) {
        self.delete(KeyKind::Term, tenant, &key_tail(group, term, document), PostingPayload::LEN);
    }
}

/// The term of a posting's key.
pub(super) fn term_of(key: &[u8]) -> Result<&str, EngineError> {
    let end = key.len().checked_sub(1 + size_of::<Document>());
    let term = end.and_then(|end| key.get(keys::HEAD + SCOPE..end)).ok_or_else(damaged)?;
    std::str::from_utf8(term).map_err(|_| damaged())
}

pub(super) fn posting((key, value): &(Value, Value)) -> Result<Posting, EngineError> {
    let document = key.last_chunk::<{ size_of::<Document>() }>().ok_or_else(damaged)?;
    Ok((*document, PostingPayload::decode(value)?))
}
