//! The inside of JSON strings, passed over many bytes at a time.

/// Whether `text` is its own JSON string once it stands between quotes.
pub(crate) fn is_ordinary(text: &str) -> bool {
    ordinary(text.as_bytes()) == text.len()
}

/// How many bytes from the start are neither quote, backslash nor control character.
pub(super) fn ordinary(bytes: &[u8]) -> usize {
    // Most strings are short: two words first. Then so many bytes at once that the compiler takes vectors for them.
    let mut at = 0;
    for _ in 0..2 {
        match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(word) => match first_special(*word) {
                Some(found) => return at + found,
                None => at += size_of::<u64>(),
            },
            None => return at + bytes[at..].iter().take_while(|byte| !is_special(**byte)).count(),
        }
    }
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<VECTOR>())
        && !chunk.iter().fold(false, |any, byte| any | is_special(*byte))
    {
        at += VECTOR;
    }
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        match first_special(*word) {
            Some(found) => return at + found,
            None => at += size_of::<u64>(),
        }
    }
    at + bytes[at..].iter().take_while(|byte| !is_special(**byte)).count()
}

/// Bytes that [`ordinary`] looks at together.
const VECTOR: usize = 32;

const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Where the first special byte of a word is.
fn first_special(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte is below n where subtracting n borrows into a high bit that it had not set. A borrow can only mark further bytes above
    // a true one, and the lowest is what counts.
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
                let mut bytes = vec![b'a'; 100];
                bytes[len] = special;
                for from in 0..=len {
                    assert_eq!(ordinary(&bytes[from..]), len - from, "{special} at {len} from {from}");
                    assert_eq!(ordinary(&bytes[from..len]), len - from, "the end at {len} from {from}");
                }
            }
        }
    }

    #[test]
    fn every_other_byte_is_ordinary() {
        for byte in (0..=u8::MAX).filter(|byte| !is_special(*byte)) {
            assert_eq!(ordinary(&[byte; 70]), 70, "{byte}");
        }
    }
}
