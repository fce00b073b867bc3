//! Full-text search: an inverted index in the rows of the store.
//!
//! Postings (`posting.rs`) say which documents hold a term. A scan (`scan.rs`) reads those of a query
//! (`query.rs`), and `rank.rs` scores the documents.

mod posting;
mod query;
mod rank;
mod scan;

pub use self::posting::{Document, POSTINGS, PostingPayload, TERM_BYTES, length_of};
pub use self::query::{QueryTerm, SearchQuery};
pub use self::rank::{Hit, Hits};
pub use self::scan::EXPANDED;
pub(crate) use self::scan::Search;
