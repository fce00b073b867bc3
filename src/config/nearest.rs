//! Finds the known name that a mistyped name probably meant.

/// Number of edits (insert, delete or replace one character) that turn `a` into `b`. Time O(|a|·|b|), memory
/// O(|b|).
pub fn levenshtein(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let replaced = diagonal + usize::from(ca != *cb);
            left = replaced.min(above + 1).min(left + 1);
            *cell = left;
            diagonal = above;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Most characters of an unknown name that are compared. It bounds the work for very long input.
const COMPARED: usize = 100;

/// The known name closest to `unknown`; `None` only if `known` is empty. Dotted names are compared as a whole
/// and by their last part, so `ring_slots` finds `limits.ring_slots`.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let unknown: String = unknown.chars().take(COMPARED).collect::<String>().to_ascii_lowercase();
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let unknown_last = last(&unknown);
    known.into_iter().min_by_key(|name| {
        let whole = levenshtein(&unknown, name);
        let tail = levenshtein(&unknown_last, &last(name)) + usize::from(unknown != **name);
        (whole.min(tail), whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("ä", "a", 1),
        ] {
            assert_eq!(levenshtein(a, b), d, "{a} {b}");
            assert_eq!(levenshtein(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn a_missing_section_or_a_typo_is_found() {
        let known = ["listen", "limits.ring_slots", "limits.event_bytes", "retention.max_events"];
        assert_eq!(nearest("ring_slots", known), Some("limits.ring_slots"));
        assert_eq!(nearest("limits.ring_slot", known), Some("limits.ring_slots"));
        assert_eq!(nearest("retention.max_event", known), Some("retention.max_events"));
        assert_eq!(nearest("LISTENS", known), Some("listen"));
        assert_eq!(nearest("x", []), None);
    }
}
