//! Finds the known name that a mistyped name probably meant.

use strsim::levenshtein;

/// Most characters of an unknown name that are compared. It bounds the work for very long input.
const COMPARED: usize = 100;

/// The known name closest to `unknown`; `None` only if `known` is empty. Dotted names are compared as a whole
/// and by their last part, so `ring_slots` finds `limits.ring_slots`.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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
    fn a_missing_section_or_a_typing_error_finds_the_key() {
        let known = ["listen", "limits.ring_slots", "limits.event_bytes", "retention.max_events"];
        assert_eq!(nearest("ring_slots", known), Some("limits.ring_slots"));
        assert_eq!(nearest("limits.ring_slot", known), Some("limits.ring_slots"));
        assert_eq!(nearest("retention.max_event", known), Some("retention.max_events"));
        assert_eq!(nearest("LISTENS", known), Some("listen"));
        assert_eq!(nearest("x", []), None);
    }
}
