//! Skips the content of JSON strings many bytes at a time.

/// Texts up to this many bytes are examined word by word, because most are short.
const SHORT: usize = 32;

/// Returns true if `text` between quotes is its own JSON string, without escapes.
pub(crate) fn is_ordinary(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes.len() {
        0..=SHORT => ordinary(bytes) == bytes.len(),
        _ => memchr::memchr2(b'"', b'\\', bytes).is_none() && !has_controls(bytes),
    }
}

/// Returns true if there is a control character, which no JSON string may contain unescaped.
pub(super) fn has_controls(bytes: &[u8]) -> bool {
    bytes.iter().copied().min().is_some_and(|least| least < 0x20)
}

/// Returns how many bytes from the start are neither quote nor backslash. The strings must not contain
/// control characters.
pub(super) fn plain(bytes: &[u8]) -> usize {
    if let Some(word) = bytes.first_chunk()
        && let Some(found) = first_special(*word)
    {
        return found;
    }
    memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len())
}

/// Returns how many bytes from the start are neither quote, backslash nor control character.
pub(super) fn ordinary(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        match first_special(*word) {
            Some(found) => return at + found,
            None => at += size_of::<u64>(),
        }
    }
    at + bytes[at..].iter().take_while(|byte| !is_special(**byte)).count()
}

const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Returns the position of the first special byte of a word.
fn first_special(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte is below n if subtracting n borrows into a high bit that the byte had not set. A borrow can only
    // mark more bytes above a true one, and only the lowest mark is used.
    let word = u64::from_le_bytes(word);
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let found = below(word, 0x20) | below(word ^ (ONES * 0x22), 1) | below(word ^ (ONES * 0x5c), 1);
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_at_every_place_and_distance() {
        for special in [0, 1, 0x1f, b'"', b'\\'] {
            for len in 0..100 {
                let mut bytes = [b'a'; 100];
                bytes[len] = special;
                for from in 0..=len {
                    assert_eq!(ordinary(&bytes[from..]), len - from, "{special} at {len} from {from}");
                    assert_eq!(ordinary(&bytes[from..len]), len - from, "the end at {len} from {from}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_controls_is_passed_by_quotes_and_backslashes_alone() {
        for special in [b'"', b'\\'] {
            for len in 0..100 {
                let mut bytes = [b'a'; 100];
                bytes[len] = special;
                assert_eq!((plain(&bytes), plain(&bytes[..len])), (len, len), "{special} at {len}");
                let text = std::str::from_utf8(&bytes).expect("ASCII");
                assert!(!is_ordinary(text) && is_ordinary(&text[..len]), "{special} at {len}");
            }
        }
        for len in 0..100 {
            let mut bytes = [b'a'; 100];
            bytes[len] = b'\n';
            let text = std::str::from_utf8(&bytes).expect("ASCII");
            assert!(has_controls(&bytes) && !has_controls(&bytes[..len]), "at {len}");
            assert!(!is_ordinary(text) && is_ordinary(&text[..len]), "at {len}");
        }
    }

    #[test]
    fn every_other_byte_is_ordinary() {
        for byte in (0..=u8::MAX).filter(|byte| !is_special(*byte)) {
            assert_eq!((ordinary(&[byte; 70]), plain(&[byte; 70])), (70, 70), "{byte}");
            assert!(!has_controls(&[byte; 70]), "{byte}");
        }
    }
}
