//! Full-text search: the index of terms, and the ranking of documents.

pub(crate) mod rank;
pub(crate) mod terms;
