//! Full-text search: an inverted index in the rows of the store. Postings say which documents hold a term; a
//! scan reads those of a query, and the ranking scores the documents.

pub(crate) mod posting;
pub(crate) mod query;
pub(crate) mod rank;
pub(crate) mod scan;
