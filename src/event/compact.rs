//! Removes the white space between the tokens of JSON.
//!
//! * The input must be valid JSON: outside of strings every byte up to a space is white space, and strings
//!   contain no control character.
//! * Strings are skipped many bytes at a time; the tokens between them are short.

use std::borrow::Cow;

use super::json_text::plain;

/// Returns valid JSON without the white space between its tokens; borrowed if there is none.
pub(crate) fn compact(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut space = next_space(bytes, 0);
    if space == bytes.len() {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut kept = 0;
    loop {
        out.push_str(&json[kept..space]);
        if space == bytes.len() {
            return Cow::Owned(out);
        }
        kept = space + bytes[space..].iter().take_while(|byte| **byte <= b' ').count();
        space = next_space(bytes, kept);
    }
}

/// Returns the position of the first white space outside of strings from `at` on, or the end if there is
/// none. `at` is outside of strings too.
fn next_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            0..=b' ' => return at - 1,
            _ => {}
        }
    }
    bytes.len()
}

/// Returns the end of the string that begins before `at`, including its closing quote.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += plain(&bytes[at..]);
        match bytes.get(at) {
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(_) => return at + 1,
            None => return bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_compact_is_borrowed() {
        for json in ["1", r#"{"a b":[1,"c d \" e"]}"#, r#""\\""#, "[]", r#""ü ö""#] {
            assert!(matches!(compact(json), Cow::Borrowed(same) if same == json), "{json}");
        }
    }

    #[test]
    fn strings_keep_their_white_space() {
        let spaced = " { \"a b\" :\n[ 1 ,\t\"c \\\" , : d\" , \"\\\\\" ] , \"ü \": {\r\n} } ";
        assert_eq!(compact(spaced), r#"{"a b":[1,"c \" , : d","\\"],"ü ":{}}"#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~ü\\\\\"\n\t]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[ -~\\\\\"]{0,12}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// serde_json's output with white space becomes its compact output.
        #[test]
        fn pretty_json_becomes_what_serde_json_writes_compactly(value in value()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compacted = compact(&pretty);
            prop_assert_eq!(compacted.as_ref(), value.to_string());
        }

        /// Any text is read to its end without a panic.
        #[test]
        fn any_text_is_survived(text in "[ \n\"\\\\a{}:,ü\u{1}]{0,80}") {
            let out = compact(&text);
            prop_assert!(out.len() <= text.len());
        }
    }
}
