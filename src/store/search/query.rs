//! What is searched for.

use super::posting::Document;
use crate::store::format::Group;

/// A word to search for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryTerm {
    /// The term.
    pub term: String,
    /// Whether terms that start with it also match.
    pub prefix: bool,
}

/// A search.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// The groups to search; a document is in at most one of them.
    pub groups: Vec<Group>,
    /// The words; a document must hold at least one.
    pub words: Vec<QueryTerm>,
    /// Only this document and later ones.
    pub since: Document,
    /// Only documents of this kind.
    pub kind: Option<u8>,
    /// Only documents with this weight or more.
    pub least_weight: f32,
    /// Only documents with this score or more, 0 to 1.
    pub least_score: f32,
    /// Number of documents to skip.
    pub skip: usize,
    /// Largest number of documents to return.
    pub limit: usize,
}
