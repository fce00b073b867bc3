//! Bytes that are cut anywhere become text: no character is ever split.
//!
//! * Bytes that are not UTF-8 become U+FFFD, one for each maximal invalid sequence, as
//!   `String::from_utf8_lossy` does.
//! * At most three bytes wait: the beginning of a character.

/// The beginning of a character that the next bytes may complete.
#[derive(Debug, Default)]
pub(super) struct Utf8Decoder {
    incomplete: Vec<u8>,
}

impl Utf8Decoder {
    /// Takes the next bytes and returns the text that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.incomplete.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.incomplete.len());
        let mut rest = self.incomplete.as_slice();
        loop {
            let Err(error) = std::str::from_utf8(rest).map(|valid| text.push_str(valid)) else {
                rest = &[];
                break;
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else {
                rest = invalid;
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = invalid.get(length..).unwrap_or_default();
        }
        self.incomplete = rest.to_vec();
        text
    }

    /// Returns U+FFFD if the input ended inside a character.
    pub(super) fn finish(self) -> String {
        String::from_utf8_lossy(&self.incomplete).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [&[u8]; 9] = [
        "wört €uro 😀 end".as_bytes(),
        b"",
        b"plain",
        b"\xff\xfe lone",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"a\xe2\x82b\xf0\x9fc\xed\xa0\x80d\xc0\xafe",
        b"\xf0\x9f\x98\xf0\x9f\x98\x80\xe2\x82\xac\x80",
    ];

    #[test]
    fn text_does_not_depend_on_where_the_bytes_are_cut() {
        for sample in SAMPLES {
            let whole = String::from_utf8_lossy(sample);
            for size in 1..=sample.len().max(1) {
                let mut decoder = Utf8Decoder::default();
                let mut text: String = sample.chunks(size).map(|piece| decoder.push(piece)).collect();
                text.push_str(&decoder.finish());
                assert_eq!(text, whole, "{sample:?} in pieces of {size}");
            }
            for first in 0..=sample.len() {
                let mut decoder = Utf8Decoder::default();
                let (before, after) = sample.split_at(first);
                let text = decoder.push(before) + &decoder.push(after) + &decoder.finish();
                assert_eq!(text, whole, "{sample:?} cut at {first}");
            }
        }
    }

    /// A character is not held back once it is complete, and invalid bytes are not once they are known to be.
    #[test]
    fn complete_text_is_returned_at_once() {
        let mut decoder = Utf8Decoder::default();
        assert_eq!(decoder.push("a€".as_bytes()), "a€");
        assert_eq!(decoder.push(b"\xe2\x82"), "");
        assert_eq!(decoder.push(b"x"), "\u{fffd}x");
        assert_eq!(decoder.finish(), "");
    }
}
