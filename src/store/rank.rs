//! Ranking: scores documents that hold some of the words searched for. It is pure arithmetic over postings.
//!
//! * A score is between 0 and 1. A document with more of the words ranks above every one with fewer. Among
//!   equals, rare words, many occurrences and short texts count for more (BM25), and then the later document.
//! * Rarity is counted over the postings that were read, and these are only of groups that the caller may
//!   see.

use std::collections::HashMap;

use super::terms::{Document, POSTINGS, Posting, Sought, words_of};

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
pub(super) fn rank(found: &[Vec<Posting>], sought: &Sought) -> Hits {
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
            sought.kind.is_none_or(|kind| kind == mark.kind) && mark.weight >= sought.least_weight
        };
        for (document, _) in postings.iter().filter(fits) {
            let Some((count, length)) = holders.remove(document) else { continue };
            let candidate = candidates.entry(*document).or_default();
            candidate.words += 1;
            candidate.sum += rarity * weight(count, length);
        }
    }
    let asked = found.len().max(1) as f32;
    let score = |candidate: &Candidate| (candidate.words as f32 - 1.0 + candidate.sum / all_rarity) / asked;
    let mut hits: Vec<Hit> = candidates
        .iter()
        .map(|(document, candidate)| Hit { document: *document, score: score(candidate) })
        .filter(|hit| hit.score >= sought.least_score)
        .collect();
    let total = hits.len();
    hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.document.cmp(&a.document)));
    let hits = hits.into_iter().skip(sought.skip).take(sought.limit).collect();
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
    use super::super::terms::{Mark, Word, length_of};
    use super::*;

    fn held(document: u8, count: u8, words: usize) -> Posting {
        ([document; 16], Mark { kind: document % 2, count, length: length_of(words), weight: 0.5 })
    }

    fn sought(words: usize) -> Sought {
        Sought {
            groups: Vec::new(),
            words: vec![Word { term: "w".into(), prefix: false }; words],
            since: [0; 16],
            kind: None,
            least_weight: 0.0,
            least_score: 0.0,
            skip: 0,
            limit: 100,
        }
    }

    fn order(found: &[Vec<Posting>], sought: &Sought) -> Vec<u8> {
        rank(found, sought).hits.iter().map(|hit| hit.document[0]).collect()
    }

    #[test]
    fn more_words_stand_above_fewer_whatever_else() {
        let common: Vec<Posting> = (1..=200).map(|n| held(n, 1, 5_000)).collect();
        let rare = vec![held(3, 255, 1), held(250, 255, 1)];
        let found = [common.clone(), rare, vec![held(9, 1, 5_000)]];
        assert_eq!(order(&found, &sought(3))[..3], [3, 9, 250], "two, then the rarer of the single ones");
        let scores: Vec<f32> = rank(&found, &sought(3)).hits.iter().map(|hit| hit.score).collect();
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    }

    #[test]
    fn often_short_and_late_stand_above() {
        assert_eq!(order(&[vec![held(1, 3, 50), held(2, 1, 50)]], &sought(1)), [1, 2], "more often");
        assert_eq!(order(&[vec![held(1, 1, 5), held(2, 1, 500)]], &sought(1)), [1, 2], "in less text");
        assert_eq!(order(&[vec![held(1, 1, 50), held(2, 1, 50)]], &sought(1)), [2, 1], "later");
        let rare_and_common = [vec![held(1, 1, 50)], (2..100).map(|n| held(n, 1, 50)).collect()];
        assert_eq!(order(&rare_and_common, &sought(2))[0], 1, "by the rarer word");
    }

    #[test]
    fn filters_and_the_part_asked_for() {
        let found = [(1..=9).map(|n| held(n, 1, 50)).collect::<Vec<_>>()];
        assert_eq!(order(&found, &Sought { kind: Some(1), ..sought(1) }), [9, 7, 5, 3, 1]);
        assert_eq!(order(&found, &Sought { least_weight: 0.6, ..sought(1) }), [0; 0]);
        let part = rank(&found, &Sought { skip: 2, limit: 3, ..sought(1) });
        assert_eq!((part.total, part.hits.len(), part.hits[0].document[0]), (9, 3, 7));
        let score = part.hits[0].score;
        assert_eq!(rank(&found, &Sought { least_score: score, ..sought(1) }).total, 9);
        assert_eq!(rank(&found, &Sought { least_score: score + 0.01, ..sought(1) }).total, 0);
        assert_eq!(rank(&[Vec::new()], &sought(1)), Hits::default());
    }

    #[test]
    fn a_document_that_holds_several_terms_of_one_word_counts_once() {
        let hits = rank(&[vec![held(1, 1, 50), held(1, 2, 50)]], &sought(1));
        assert_eq!(
            (hits.total, hits.hits[0].score),
            (1, rank(&[vec![held(1, 3, 50)]], &sought(1)).hits[0].score)
        );
    }
}
