//! Splits texts into words, for memories and for queries. Both use the same rules, so that queries match.
//!
//! * A word is a run of Unicode letters and digits. Case and compatibility forms (NFKC) do not matter.
//! * Scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Burmese) are split into pairs of
//!   neighbouring characters. The last character of a run is also a word of its own, so that a single
//!   character is found as a prefix.
//! * The functions are pure and do not know the index.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use crate::store::{QueryTerm, TERM_BYTES};

/// Maximum of different words that are indexed of a memory: the first ones. It bounds the rows of one memory.
pub const WORDS: usize = 1_000;
/// Maximum of different words in a query.
pub const WORDS_ASKED: usize = 32;

/// The words of a text.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Words {
    /// How often each word occurs, at most 255.
    pub(super) counts: BTreeMap<String, u8>,
    /// Number of words, with repetitions.
    pub(super) len: usize,
}

/// Returns the words under which `text` is indexed.
pub(super) fn of_text(text: &str) -> Words {
    let mut words = Words::default();
    read(text, |word| {
        words.len += 1;
        if let Some(count) = words.counts.get_mut(word.text) {
            *count = count.saturating_add(1);
        } else if words.counts.len() < WORDS {
            words.counts.insert(word.text.to_owned(), 1);
        }
    });
    words
}

/// Returns the words of `query`, each once. A word that ends with `*` is a prefix; with `prefix` the last
/// word is one too.
pub(super) fn of_query(query: &str, prefix: bool) -> Vec<QueryTerm> {
    let mut words: Vec<QueryTerm> = Vec::new();
    let mut last = None;
    for piece in query.split_whitespace() {
        let mut ends = None;
        read(piece, |found| {
            if found.position == WordPosition::Tail {
                return; // its pairs are more specific
            }
            let known = words.iter().position(|word| word.term == found.text);
            let at = known.unwrap_or(words.len());
            if known.is_none() {
                words.push(QueryTerm { term: found.text.to_owned(), prefix: false });
            }
            words[at].prefix |= found.position == WordPosition::Alone;
            ends = Some(at);
        });
        if let Some(at) = ends {
            words[at].prefix |= piece.ends_with('*');
        }
        last = ends.or(last);
    }
    if let Some(at) = last.filter(|_| prefix) {
        words[at].prefix = true;
    }
    words
}

/// Position of a word in its run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WordPosition {
    /// A word, or a pair of characters.
    Whole,
    /// The last character of a run of pairs.
    Tail,
    /// The only character of a run of pairs.
    Alone,
}

struct Found<'a> {
    text: &'a str,
    position: WordPosition,
}

/// Calls `each` for every word of `text`, in order. A word is cut at [`TERM_BYTES`].
fn read(text: &str, mut each: impl FnMut(Found<'_>)) {
    let mut word = String::new();
    // The last character of a run without spaces, and whether another one precedes it.
    let mut run: Option<(char, bool)> = None;
    let mut utf8 = [0; 4];
    // The space at the end closes the last word.
    for c in text.nfkc().flat_map(char::to_lowercase).chain(std::iter::once(' ')) {
        let is_word = c.is_alphanumeric() || is_combining_mark(c);
        let unspaced = is_word && is_unspaced(c);
        if let Some((before, paired)) = run {
            if unspaced {
                each(Found {
                    text: [before, c].iter().collect::<String>().as_str(),
                    position: WordPosition::Whole,
                });
            } else {
                let position = if paired { WordPosition::Tail } else { WordPosition::Alone };
                each(Found { text: before.encode_utf8(&mut utf8), position });
            }
        }
        if (unspaced || !is_word) && !word.is_empty() {
            each(Found { text: &word, position: WordPosition::Whole });
            word.clear();
        }
        run = unspaced.then_some((c, run.is_some()));
        let begins = !word.is_empty() || c.is_alphanumeric();
        if is_word && !unspaced && begins && word.len() + c.len_utf8() <= TERM_BYTES {
            word.push(c);
        }
    }
}

/// Returns true if a character belongs to a script without spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0E00}'..='\u{0EFF}' // Thai, Lao
        | '\u{1000}'..='\u{109F}' // Burmese
        | '\u{1780}'..='\u{17FF}' // Khmer
        | '\u{3005}'..='\u{3007}' // iteration marks, zero
        | '\u{3040}'..='\u{30FF}' // kana
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}' // Han
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A query that repeats a text finds it, and every word fits the index.
        #[test]
        fn a_query_with_the_words_of_a_text_matches_it(text in "(\\PC|[a-zA-Zß İĞ]|[ก-๏]|[一-龠]|[\u{300}-\u{310}]|[ \t\u{a0}*]){0,60}") {
            let words = of_text(&text);
            for word in of_query(&text, false) {
                let starts = |held: &&String| if word.prefix { held.starts_with(&word.term) } else { **held == word.term };
                prop_assert!(words.counts.keys().any(|held| starts(&held)), "{word:?} of {text:?}");
            }
            prop_assert!(words.counts.keys().all(|word| (1..=TERM_BYTES).contains(&word.len()) && !word.contains('\0')));
        }
    }

    fn counts(text: &str) -> Vec<(String, u8)> {
        of_text(text).counts.into_iter().collect()
    }

    fn words(text: &str) -> Vec<String> {
        counts(text).into_iter().map(|(word, _)| word).collect()
    }

    fn query_words(query: &str, prefix: bool) -> Vec<String> {
        let shown = |word: QueryTerm| if word.prefix { format!("{}*", word.term) } else { word.term };
        of_query(query, prefix).into_iter().map(shown).collect()
    }

    #[test]
    fn words_are_letters_and_digits_in_one_case_and_form() {
        assert_eq!(
            words("The Tea-cup, (2 of them)! don't"),
            ["2", "cup", "don", "of", "t", "tea", "the", "them"]
        );
        assert_eq!(counts("Tea TEA tea"), [("tea".to_owned(), 3)]);
        assert_eq!(words("cafe\u{301} CAFÉ ＣＡＦＥ ﬁn"), ["cafe", "café", "fin"]);
        assert_eq!(words("Ünïcode ПРИВЕТ १२"), ["ünïcode", "привет", "१२"]);
        for nothing in ["", " \t\n", "—…!", "\u{301}\u{301}", "🫖"] {
            assert_eq!(of_text(nothing), Words::default(), "{nothing:?}");
        }
    }

    #[test]
    fn scripts_without_spaces_are_read_in_pairs() {
        assert_eq!(words("我喜欢 tea茶"), ["tea", "喜欢", "我喜", "欢", "茶"]);
        assert_eq!(query_words("喜欢茶", false), ["喜欢", "欢茶"]);
        assert_eq!(query_words("茶", false), ["茶*"], "a single character is a prefix");
        assert_eq!(query_words("tea茶", false), ["tea", "茶*"]);
        assert!(words("ภาษาไทย").iter().all(|word| word.chars().count() <= 2));
    }

    #[test]
    fn a_query_marks_its_prefixes() {
        assert_eq!(query_words("Tea cup* tea", false), ["tea", "cup*"]);
        assert_eq!(query_words("tea cup", true), ["tea", "cup*"]);
        assert_eq!(query_words("cup tea cup", true), ["cup*", "tea"]);
        assert_eq!(query_words("tea-cu*", false), ["tea", "cu*"]);
        assert_eq!(query_words("tea *", true), ["tea*"]);
        assert_eq!(query_words("* ! ?", true), [""; 0]);
    }

    #[test]
    fn long_words_are_truncated_and_their_number_is_limited() {
        let long = "é".repeat(40);
        let cut = "é".repeat(32);
        assert_eq!((words(&long), query_words(&long, false)), (vec![cut.clone()], vec![cut]));
        let many: String = (0..WORDS + 100).map(|n| format!("w{n} ")).collect();
        let read = of_text(&many);
        assert_eq!((read.counts.len(), read.len), (WORDS, WORDS + 100));
        assert!(read.counts.contains_key("w0"), "the first ones");
        assert_eq!(counts(&"a ".repeat(300)), [("a".to_owned(), 255)]);
    }
}
