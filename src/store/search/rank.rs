//! Ranking: scores documents that hold some of the words searched for. It is pure arithmetic over postings.
//!
//! * A score is between 0 and 1. A document with more of the words ranks above every one with fewer. Among
//!   equals, rare words, many occurrences and short texts count for more (BM25), and then the later document.
//! * Rarity is counted over the postings that were read, and these are only of groups that the caller may
//!   see.

use std::collections::HashMap;

use super::posting::{Document, POSTINGS, Posting, words_of};
use super::query::SearchQuery;

/// BM25's constants: how soon more occurrences stop counting, and how much the length of a text counts.
const K: f32 = 1.2;
const B: f32 = 0.75;
/// Words of an ordinary text. It is a constant, so that a document's score does not depend on other
/// documents' lengths.
const ORDINARY_WORDS: f32 = 50.0;

/// A document that was found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hit {
    /// The document.
    pub document: Document,
    /// Its score, 0 to 1.
    pub score: f32,
}

/// The result of a search.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Hits {
    /// The requested part of the documents, best first.
    pub hits: Vec<Hit>,
    /// Number of documents found among the postings that were read.
    pub total: usize,
}

/// The partial score of a document.
#[derive(Default)]
struct Candidate {
    words: u32,
    /// Sum over its words of rarity × weight of their occurrences.
    sum: f32,
}

/// Ranks the postings of each word.
pub(crate) fn rank(found: &[Vec<Posting>], query: &SearchQuery) -> Hits {
    let mut candidates: HashMap<Document, Candidate> = HashMap::new();
    let mut all_rarity = 0.0;
    for postings in found {
        // A word may match several terms, and a document may hold several of these.
        let mut holders: HashMap<Document, (u32, u8)> = HashMap::with_capacity(postings.len());
        for (document, mark) in postings {
            let holder = holders.entry(*document).or_insert((0, mark.length));
            holder.0 += u32::from(mark.count);
        }
        let rarity = rarity(holders.len());
        all_rarity += rarity;
        let fits = |(_, mark): &&Posting| {
            query.kind.is_none_or(|kind| kind == mark.kind) && mark.weight >= query.least_weight
        };
        for (document, _) in postings.iter().filter(fits) {
            let Some((count, length)) = holders.remove(document) else { continue };
            let candidate = candidates.entry(*document).or_default();
            candidate.words += 1;
            candidate.sum += rarity * weight(count, length);
        }
    }
    let terms = found.len().max(1) as f32;
    let score = |candidate: &Candidate| (candidate.words as f32 - 1.0 + candidate.sum / all_rarity) / terms;
    let mut hits: Vec<Hit> = candidates
        .iter()
        .map(|(document, candidate)| Hit { document: *document, score: score(candidate) })
        .filter(|hit| hit.score >= query.least_score)
        .collect();
    let total = hits.len();
    hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.document.cmp(&a.document)));
    let hits = hits.into_iter().skip(query.skip).take(query.limit).collect();
    Hits { hits, total }
}

/// The rarity of a word that `holders` documents hold; above 0.
fn rarity(holders: usize) -> f32 {
    let (all, holders) = (POSTINGS as f32, holders as f32);
    (1.0 + (all - holders + 0.5) / (holders + 0.5)).ln()
}

/// The weight of `count` occurrences in a text of this length; 0 to 1.
fn weight(count: u32, length: u8) -> f32 {
    let count = count as f32;
    count / (count + K * (1.0 - B + B * words_of(length) / ORDINARY_WORDS))
}

#[cfg(test)]
mod tests {
    use super::super::posting::{PostingPayload, length_of};
    use super::super::query::QueryTerm;
    use super::*;

    fn posting(document: u8, count: u8, words: usize) -> Posting {
        ([document; 16], PostingPayload { kind: document % 2, count, length: length_of(words), weight: 0.5 })
    }

    fn query(words: usize) -> SearchQuery {
        SearchQuery {
            groups: Vec::new(),
            words: vec![QueryTerm { term: "w".into(), prefix: false }; words],
            since: [0; 16],
            kind: None,
            least_weight: 0.0,
            least_score: 0.0,
            skip: 0,
            limit: 100,
        }
    }

    fn order(found: &[Vec<Posting>], query: &SearchQuery) -> Vec<u8> {
        rank(found, query).hits.iter().map(|hit| hit.document[0]).collect()
    }

    #[test]
    fn documents_with_more_words_rank_above_those_with_fewer() {
        let common: Vec<Posting> = (1..=200).map(|n| posting(n, 1, 5_000)).collect();
        let rare = vec![posting(3, 255, 1), posting(250, 255, 1)];
        let found = [common.clone(), rare, vec![posting(9, 1, 5_000)]];
        assert_eq!(order(&found, &query(3))[..3], [3, 9, 250], "two, then the rarer of the single ones");
        let scores: Vec<f32> = rank(&found, &query(3)).hits.iter().map(|hit| hit.score).collect();
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    }

    #[test]
    fn frequent_words_short_texts_and_later_documents_rank_higher() {
        assert_eq!(order(&[vec![posting(1, 3, 50), posting(2, 1, 50)]], &query(1)), [1, 2], "more often");
        assert_eq!(order(&[vec![posting(1, 1, 5), posting(2, 1, 500)]], &query(1)), [1, 2], "in less text");
        assert_eq!(order(&[vec![posting(1, 1, 50), posting(2, 1, 50)]], &query(1)), [2, 1], "later");
        let rare_and_common = [vec![posting(1, 1, 50)], (2..100).map(|n| posting(n, 1, 50)).collect()];
        assert_eq!(order(&rare_and_common, &query(2))[0], 1, "by the rarer word");
    }

    #[test]
    fn filters_and_paging_select_the_hits() {
        let found = [(1..=9).map(|n| posting(n, 1, 50)).collect::<Vec<_>>()];
        assert_eq!(order(&found, &SearchQuery { kind: Some(1), ..query(1) }), [9, 7, 5, 3, 1]);
        assert_eq!(order(&found, &SearchQuery { least_weight: 0.6, ..query(1) }), [0; 0]);
        let part = rank(&found, &SearchQuery { skip: 2, limit: 3, ..query(1) });
        assert_eq!((part.total, part.hits.len(), part.hits[0].document[0]), (9, 3, 7));
        let score = part.hits[0].score;
        assert_eq!(rank(&found, &SearchQuery { least_score: score, ..query(1) }).total, 9);
        assert_eq!(rank(&found, &SearchQuery { least_score: score + 0.01, ..query(1) }).total, 0);
        assert_eq!(rank(&[Vec::new()], &query(1)), Hits::default());
    }

    #[test]
    fn a_document_that_holds_several_terms_of_one_word_counts_once() {
        let hits = rank(&[vec![posting(1, 1, 50), posting(1, 2, 50)]], &query(1));
        assert_eq!(
            (hits.total, hits.hits[0].score),
            (1, rank(&[vec![posting(1, 3, 50)]], &query(1)).hits[0].score)
        );
    }
}
