//! The search index, an inverted index: which documents hold a term, in each group that is searched.
//!
//! * A posting is a row of its own under (group, term, document). Its value is what ranking and filters need.
//!   So only documents of the result page are read, and a change of a text writes only the terms that change.
//! * The code that changes a text also writes its postings, in the same commit. Nothing here keeps them
//!   consistent.
//! * A document is in every group in which it may be searched, so no search reads, counts or ranks by
//!   documents that its caller may not see.
//! * The caller defines words and a document's numbers; `rank.rs` decides which documents are best.

use std::ops::Bound;

use crate::ids::TenantId;
use crate::store::Store;
use crate::store::engine::{Engine, EngineError, Value};
use crate::store::format::keys::{self, KeyKind, end_of_prefix};
use crate::store::format::list_group::Group;
use crate::store::log::read_pool::ReadError;
use crate::store::rows::builder::{PriorValue, Rows, TooLong};
use crate::store::search::rank::{self, Hits};

const VERSION: u8 = 1;
/// Longest term, in bytes.
pub const TERM_BYTES: usize = 64;
/// Limit on the postings that one search reads, newest first. It bounds the cost of a search for common
/// words.
pub const POSTINGS: usize = 20_000;
/// Limit on the terms that one prefix matches.
pub const EXPANDED: usize = 64;
/// Postings that one search reads before another organization has its turn; this takes some milliseconds.
const SLICE: usize = 2_000;
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
pub(crate) fn words_of(length: u8) -> f32 {
    (f32::from(length) / 4.0).exp2() - 1.0
}

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

/// A document that holds a word.
pub(crate) type Posting = (Document, PostingPayload);

fn key_tail(group: Group, term: &str, document: &Document) -> Vec<u8> {
    // Terms contain no zero byte, so a term's postings come before those of every longer term that starts
    // with it.
    [&group.prefix()[..], term.as_bytes(), &[0], document].concat()
}

impl PostingPayload {
    /// Length of an encoded mark, in bytes.
    pub const LEN: usize = 8;

    fn encode(&self) -> Vec<u8> {
        let mut value = vec![VERSION, self.kind, self.count, self.length];
        value.extend_from_slice(&self.weight.to_be_bytes());
        value
    }

    fn decode(value: &[u8]) -> Result<PostingPayload, EngineError> {
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

impl Store {
    /// The best documents, and how many were found.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn search(&self, tenant: TenantId, query: SearchQuery) -> Result<Hits, ReadError> {
        let mut search = Search::new(tenant, query);
        self.run_long(tenant, move |engine| {
            let ended = search.read_slice(engine, SLICE)?;
            Ok(ended.then(|| rank::rank(&search.found, &search.query)))
        })
        .await
    }
}

/// Reads the postings of each word, at most [`POSTINGS`] in total. What rare words leave of that is for the
/// words after them. It is read in slices, and each continues where the last one ended.
struct Search {
    tenant: TenantId,
    query: SearchQuery,
    /// The postings found so far, by word.
    found: Vec<Vec<Posting>>,
    /// The word and the group being read.
    word: usize,
    group: usize,
    /// The number of postings of the word at which reading this group stops; `None` if the group was not
    /// started.
    full: Option<usize>,
    /// Where the search for the next term of the group continues, and how many were found, if the word is a
    /// prefix.
    next_term: Vec<u8>,
    expanded: usize,
    /// The term being read, from its newest posting or from below this key.
    term: Option<(String, Option<Vec<u8>>)>,
}

impl Search {
    fn new(tenant: TenantId, query: SearchQuery) -> Search {
        let (found, next_term) = (vec![Vec::new(); query.words.len()], Vec::new());
        Search { tenant, query, found, word: 0, group: 0, full: None, next_term, expanded: 0, term: None }
    }

    fn key(&self, tail: &[u8]) -> Vec<u8> {
        keys::key(KeyKind::Term, self.tenant, tail)
    }

    /// Reads about `most` more postings; returns true at the end.
    fn read_slice(&mut self, engine: &Engine, most: usize) -> Result<bool, EngineError> {
        let mut most = most;
        while self.word < self.found.len() {
            let full = match self.full {
                Some(full) => full,
                None if self.group == self.query.groups.len() => {
                    (self.word, self.group) = (self.word + 1, 0);
                    continue;
                }
                None => self.begin_group(),
            };
            if most == 0 {
                return Ok(false);
            }
            let before = self.found[self.word].len();
            if !self.read_term(engine, full, most)? && !self.find_term(engine, full)? {
                (self.group, self.full) = (self.group + 1, None);
            }
            // Finding a term costs about as much as reading a posting.
            most = most.saturating_sub((self.found[self.word].len() - before).max(1));
        }
        Ok(true)
    }

    /// Assigns the word's next group its share of the remaining postings.
    fn begin_group(&mut self) -> usize {
        let groups = self.query.groups.len();
        let walks = (self.query.words.len() - self.word) * groups - self.group;
        let left = POSTINGS - self.found.iter().map(Vec::len).sum::<usize>();
        let full = self.found[self.word].len() + left / walks.max(1);
        let (word, group) = (&self.query.words[self.word], self.query.groups[self.group]);
        self.expanded = 0;
        match word.prefix {
            true => self.next_term = self.key(&[&group.prefix()[..], word.term.as_bytes()].concat()),
            false => self.term = Some((word.term.clone(), None)),
        }
        self.full = Some(full);
        full
    }

    /// Reads more of the term, newest first; returns false if there is no term to read.
    fn read_term(&mut self, engine: &Engine, full: usize, most: usize) -> Result<bool, EngineError> {
        let Some((term, below)) = self.term.take() else { return Ok(false) };
        let group = self.query.groups[self.group];
        let first = self.key(&key_tail(group, &term, &self.query.since));
        let last = match below {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(self.key(&key_tail(group, &term, &[u8::MAX; size_of::<Document>()]))),
        };
        let into = &mut self.found[self.word];
        let most = most.min(full - into.len());
        let (mut read, mut lowest) = (0, None);
        for row in engine.between((Bound::Included(first), last)).rev().take(most) {
            let row = row?;
            into.push(posting(&row)?);
            (read, lowest) = (read + 1, Some(row.0));
        }
        if read == most
            && into.len() < full
            && let Some(lowest) = lowest
        {
            self.term = Some((term, Some(lowest.to_vec())));
        }
        Ok(true)
    }

    /// Finds the next term that starts with the word; returns false if there is none or the limit is reached.
    fn find_term(&mut self, engine: &Engine, full: usize) -> Result<bool, EngineError> {
        let (word, group) = (&self.query.words[self.word], self.query.groups[self.group]);
        if !word.prefix || self.expanded == EXPANDED || self.found[self.word].len() >= full {
            return Ok(false);
        }
        let end = self.key(&end_of_prefix(&[&group.prefix()[..], word.term.as_bytes()].concat()));
        let Some((key, _)) = engine.first(&self.next_term, &end)? else { return Ok(false) };
        let term = term_of(&key)?.to_owned();
        self.next_term = self.key(&[&group.prefix()[..], term.as_bytes(), &[1]].concat());
        self.expanded += 1;
        self.term = Some((term, None));
        Ok(true)
    }
}

/// The term of a posting's key.
fn term_of(key: &[u8]) -> Result<&str, EngineError> {
    let end = key.len().checked_sub(1 + size_of::<Document>());
    let term = end.and_then(|end| key.get(keys::HEAD + SCOPE..end)).ok_or_else(damaged)?;
    std::str::from_utf8(term).map_err(|_| damaged())
}

fn posting((key, value): &(Value, Value)) -> Result<Posting, EngineError> {
    let document = key.last_chunk::<{ size_of::<Document>() }>().ok_or_else(damaged)?;
    Ok((*document, PostingPayload::decode(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use crate::store::format::keys::List;

    const TENANT: TenantId = TenantId(3);
    const PAYLOAD: PostingPayload = PostingPayload { kind: 1, count: 1, length: 9, weight: 0.5 };

    fn document(number: u64) -> Document {
        let mut document = [0; 16];
        document[..8].copy_from_slice(&number.to_be_bytes());
        document
    }

    fn group(user: &str) -> Group {
        Group::new(List::AllMemories, &[user])
    }

    fn query(words: &[(&str, bool)]) -> SearchQuery {
        let words = words.iter().map(|(term, prefix)| QueryTerm { term: (*term).into(), prefix: *prefix });
        SearchQuery {
            groups: vec![group("ann")],
            words: words.collect(),
            since: [0; 16],
            kind: None,
            least_weight: 0.0,
            least_score: 0.0,
            skip: 0,
            limit: 100,
        }
    }

    async fn store(postings: &[(&str, &str, u64)]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreOptions::new(dir.path())).expect("the store opens");
        let mut rows = Rows::new();
        for (user, term, number) in postings {
            rows.put_term(TENANT, group(user), term, &document(*number), &PAYLOAD, PriorValue::Unknown)
                .expect("short");
        }
        store.write(rows).await.expect("written");
        (dir, store)
    }

    async fn numbers(store: &Store, query: SearchQuery) -> Vec<u64> {
        let hits = store.search(TENANT, query).await.expect("read").hits;
        let number = |hit: &rank::Hit| u64::from_be_bytes(hit.document[..8].try_into().expect("eight"));
        hits.iter().map(number).collect()
    }

    #[test]
    fn a_mark_comes_back_and_nothing_else_is_one() {
        assert_eq!(PostingPayload::decode(&PAYLOAD.encode()).expect("sound"), PAYLOAD);
        for len in 0..PAYLOAD.encode().len() {
            assert!(PostingPayload::decode(&PAYLOAD.encode()[..len]).is_err(), "cut to {len}");
        }
        for words in [0, 1, 7, 100, 10_000] {
            let about = words_of(length_of(words));
            assert!((about - words as f32).abs() <= 0.15 * words as f32 + 0.2, "{words} is about {about}");
        }
    }

    #[tokio::test]
    async fn a_term_is_found_in_its_group_and_tenant_alone() {
        let (_dir, store) =
            store(&[("ann", "tea", 1), ("bob", "tea", 2), ("ann", "tease", 3), ("ann", "te", 4)]).await;
        assert_eq!(numbers(&store, query(&[("tea", false)])).await, [1]);
        assert_eq!(numbers(&store, query(&[("none", false)])).await, [0; 0]);
        let both = SearchQuery { groups: vec![group("ann"), group("bob")], ..query(&[("tea", false)]) };
        assert_eq!(numbers(&store, both).await, [2, 1]);
        let elsewhere = store.search(TenantId(4), query(&[("tea", true)])).await.expect("read");
        assert_eq!(elsewhere.total, 0);
    }

    #[tokio::test]
    async fn a_beginning_finds_what_goes_on_from_it() {
        let (_dir, store) =
            store(&[("ann", "tea", 1), ("ann", "teacup", 2), ("ann", "tease", 3), ("ann", "tf", 4)]).await;
        assert_eq!(numbers(&store, query(&[("tea", true)])).await, [3, 2, 1]);
        assert_eq!(numbers(&store, query(&[("teas", true)])).await, [3]);
        assert_eq!(numbers(&store, query(&[("u", true)])).await, [0; 0]);
        let late = SearchQuery { since: document(2), ..query(&[("tea", true)]) };
        assert_eq!(numbers(&store, late).await, [3, 2]);
    }

    #[tokio::test]
    async fn of_too_many_the_newest_are_looked_at() {
        let most = POSTINGS as u64;
        let postings: Vec<_> = (0..most + 10).map(|number| ("ann", "tea", number)).collect();
        let (_dir, store) = store(&postings).await;
        let hits = store.search(TENANT, query(&[("tea", false)])).await.expect("read");
        assert_eq!((hits.total, hits.hits[0].document), (POSTINGS, document(most + 9)));
        let with_a_rare_one = query(&[("rare", false), ("tea", false)]);
        let hits = store.search(TENANT, with_a_rare_one).await.expect("read");
        assert_eq!(hits.total, POSTINGS, "the common word gets what the rare one leaves");
    }

    #[tokio::test]
    async fn a_beginning_stands_for_so_many_terms() {
        let terms: Vec<String> = (0..EXPANDED + 5).map(|n| format!("t{n:03}")).collect();
        let postings: Vec<_> =
            terms.iter().enumerate().map(|(n, term)| ("ann", term.as_str(), n as u64)).collect();
        let (_dir, store) = store(&postings).await;
        assert_eq!(numbers(&store, query(&[("t", true)])).await.len(), EXPANDED);
    }

    /// One organization has more long reads than may run, and none of them ends. Another one's search still
    /// completes, and its log and rows are read.
    #[tokio::test]
    async fn another_organizations_search_does_not_wait_for_those_of_a_busy_one() {
        const BUSY: TenantId = TenantId(9);
        let (_dir, store) = store(&[("ann", "tea", 1)]).await;
        let (permit, permission) = std::sync::mpsc::channel::<()>();
        let permission = std::sync::Arc::new(crate::sync::Mutex::new(permission));
        let mut busy = Vec::new();
        for _ in 0..crate::store::log::read_queue::LONG_WAITING {
            let (store, permission) = (store.clone(), permission.clone());
            busy.push(tokio::spawn(async move {
                let wait = move |_: &Engine| Ok(permission.lock().recv().ok().or(Some(())));
                store.run_long(BUSY, wait).await
            }));
        }
        tokio::task::yield_now().await;
        assert_eq!(numbers(&store, query(&[("tea", false)])).await, [1]);
        assert!(store.log(TENANT).await.is_ok());
        drop(permit);
        for busy in busy {
            assert_eq!(busy.await.expect("ended"), Ok(()));
        }
    }

    /// A search that is read in many slices finds what one slice finds.
    #[tokio::test]
    async fn slices_of_a_search_add_up() {
        let postings: Vec<_> = (0..200u64)
            .map(|n| (["ann", "bob"][n as usize % 2], ["tea", "teacup", "tease", "milk"][n as usize % 4], n))
            .collect();
        let (_dir, store) = store(&postings).await;
        let query = SearchQuery {
            groups: vec![group("ann"), group("bob")],
            ..query(&[("tea", true), ("milk", false), ("none", false)])
        };
        let whole = store.search(TENANT, query.clone()).await.expect("read");
        for slice in [1, 3, 7, 50] {
            let mut search = Search::new(TENANT, query.clone());
            let read = move |engine: &Engine| {
                Ok(search.read_slice(engine, slice)?.then(|| rank::rank(&search.found, &search.query)))
            };
            assert_eq!(store.run_long(TENANT, read).await.expect("read"), whole, "{slice} at a time");
        }
        assert_eq!(whole.total, 200);
    }
}
