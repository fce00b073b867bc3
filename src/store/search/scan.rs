//! The scan of one search: the postings of its words, newest first, read in slices. `rank.rs` decides which
//! documents are best.

use std::ops::Bound;

use super::posting::{Document, POSTINGS, Posting, key_tail, posting, term_of};
use super::query::SearchQuery;
use super::rank::{Hits, rank};
use crate::ids::TenantId;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, end_of_prefix};

/// Limit on the terms that one prefix matches.
pub const EXPANDED: usize = 64;
/// Postings that one search reads before another organization has its turn; this takes some milliseconds.
const SLICE: usize = 2_000;

/// Reads the postings of each word, at most [`POSTINGS`] in total. What rare words leave of that is for the
/// words after them. It is read in slices, and each continues where the last one ended.
pub(crate) struct Search {
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
    pub(crate) fn new(tenant: TenantId, query: SearchQuery) -> Search {
        let (found, next_term) = (vec![Vec::new(); query.words.len()], Vec::new());
        Search { tenant, query, found, word: 0, group: 0, full: None, next_term, expanded: 0, term: None }
    }

    fn key(&self, tail: &[u8]) -> Vec<u8> {
        keys::key(KeyKind::Term, self.tenant, tail)
    }

    /// Reads about [`SLICE`] more postings; `None` while more are to be read.
    pub(crate) fn step(&mut self, engine: &Engine) -> Result<Option<Hits>, EngineError> {
        let has_ended = self.read_slice(engine, SLICE)?;
        Ok(has_ended.then(|| rank(&self.found, &self.query)))
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

#[cfg(test)]
mod tests {
    use super::super::posting::{PostingPayload, length_of, words_of};
    use super::super::query::QueryTerm;
    use super::*;
    use crate::store::format::Group;
    use crate::store::format::keys::List;
    use crate::store::rows::{PriorValue, Rows};
    use crate::store::{Hit, Store, StoreOptions};

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
        let number = |hit: &Hit| u64::from_be_bytes(hit.document[..8].try_into().expect("eight"));
        hits.iter().map(number).collect()
    }

    #[test]
    fn a_posting_round_trips_and_refuses_other_lengths() {
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
    async fn a_prefix_finds_every_term_that_starts_with_it() {
        let (_dir, store) =
            store(&[("ann", "tea", 1), ("ann", "teacup", 2), ("ann", "tease", 3), ("ann", "tf", 4)]).await;
        assert_eq!(numbers(&store, query(&[("tea", true)])).await, [3, 2, 1]);
        assert_eq!(numbers(&store, query(&[("teas", true)])).await, [3]);
        assert_eq!(numbers(&store, query(&[("u", true)])).await, [0; 0]);
        let late = SearchQuery { since: document(2), ..query(&[("tea", true)]) };
        assert_eq!(numbers(&store, late).await, [3, 2]);
    }

    #[tokio::test]
    async fn a_search_reads_the_newest_postings_if_there_are_too_many() {
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
    async fn a_prefix_matches_a_limited_number_of_terms() {
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
        for _ in 0..crate::store::log::LONG_WAITING {
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
                Ok(search.read_slice(engine, slice)?.then(|| rank(&search.found, &search.query)))
            };
            assert_eq!(store.run_long(TENANT, read).await.expect("read"), whole, "{slice} at a time");
        }
        assert_eq!(whole.total, 200);
    }
}
