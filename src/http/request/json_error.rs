//! Explains JSON that does not deserialize: which field is wrong, and why.
//!
//! * The field is named as in events: `metadata.x`, `[3].content`. It is empty if the whole body is wrong.
//! * The reason never repeats a value, which may be a password.
//! * The text is parsed a second time, but only if it is refused.

use serde::Deserialize;

/// Maximum of bytes of the reported path, and of a name in it. A body may be much longer.
const FIELD_BYTES: usize = 128;

/// The wrong field, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JsonError {
    pub(crate) field: String,
    pub(crate) reason: String,
}

impl JsonError {
    /// Explains why `text` is not a `T`. `error` is what serde reported.
    pub(crate) fn explain<'a, T: Deserialize<'a>>(text: &'a [u8], error: &serde_json::Error) -> JsonError {
        if !error.is_data() {
            return JsonError { field: String::new(), reason: format!("is not JSON: {error}") };
        }
        let mut json = serde_json::Deserializer::from_slice(text);
        let at = serde_path_to_error::deserialize::<_, T>(&mut json).err();
        let path = at.map(|error| error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
        let message = error.to_string();
        let message = message.rfind(" at line ").map_or(message.as_str(), |end| &message[..end]);
        let (name, reason) = reason(message);
        let mut field = match name {
            Some(name) => named(path, name),
            None => path,
        };
        shorten(&mut field, FIELD_BYTES);
        JsonError { field, reason }
    }

    /// Shortens field and reason to `bytes` in total. The reason is cut between words.
    pub(crate) fn truncated(mut self, bytes: usize) -> JsonError {
        shorten(&mut self.field, bytes / 2);
        let room = bytes - self.field.len();
        if self.reason.len() > room {
            let end = self.reason.floor_char_boundary(room.saturating_sub('…'.len_utf8()));
            let end = self.reason[..end].rfind(' ').unwrap_or(end);
            self.reason.truncate(end);
            self.reason = format!("{}…", self.reason.trim_end_matches([',', ' ']));
        }
        self
    }
}

/// Parses serde's message. Returns the field that it names, if any, and the reason in our words.
fn reason(message: &str) -> (Option<&str>, String) {
    let quoted = |start: &str| {
        let rest = message.strip_prefix(start)?.strip_prefix('`')?;
        // A name may contain the same quote character. The text after it never does when a single field is
        // expected.
        let end = rest.find("`, expected ").or_else(|| rest.rfind('`'))?;
        Some((&rest[..end], rest[end + 1..].strip_prefix(", expected ")))
    };
    if let Some((name, _)) = quoted("missing field ") {
        return (Some(name), "is required".to_owned());
    }
    if let Some((name, _)) = quoted("duplicate field ") {
        return (Some(name), "is given twice".to_owned());
    }
    if let Some((name, known)) = quoted("unknown field ") {
        let known = known.map(|known| format!("; the fields are {}", list_of(known))).unwrap_or_default();
        return (Some(name), format!("is not a known field{known}"));
    }
    if message.starts_with("unknown variant ")
        && let Some(start) = message.rfind("`, expected ")
    {
        return (None, format!("must be {}", choices(&message[start + "`, expected ".len()..])));
    }
    match message.rfind(", expected ") {
        Some(start) if message.starts_with("invalid ") => {
            (None, format!("must be {}", expected_type(&message[start + ", expected ".len()..])))
        }
        _ => (None, message.to_owned()),
    }
}

/// Removes the quotes from serde's list of names.
fn choices(names: &str) -> String {
    names.replace('`', "")
}

/// Turns serde's list of names into a comma-separated list.
fn list_of(names: &str) -> String {
    choices(&names.strip_prefix("one of ").unwrap_or(names).replace("` or `", ", "))
}

/// Translates the type that serde expects into the words of JSON.
fn expected_type(expected: &str) -> &str {
    match expected {
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a sequence" => "an array",
        "a map" => "an object",
        _ if expected.starts_with("struct ") => "an object",
        _ => expected,
    }
}

/// Appends the field `name` to the path, unless the path ends with it.
fn named(path: String, name: &str) -> String {
    match path.strip_suffix(name) {
        Some("") => path,
        Some(parent) if parent.ends_with('.') => path,
        _ if path.is_empty() => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn shorten(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;
    use serde_json::value::RawValue;

    use super::*;
    use crate::auth::Password;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mood {
        Good,
        Bad,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)] // read, and not looked at
    struct Part {
        content: String,
        weight: Option<f64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Whole {
        name: Option<String>,
        count: Option<u32>,
        mood: Option<Mood>,
        metadata: Option<BTreeMap<String, String>>,
        part: Option<Part>,
        parts: Option<Vec<Part>>,
        raw: Option<Box<RawValue>>,
        password: Option<Password>,
    }

    fn misread<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, String) {
        let error = serde_json::from_str::<T>(text).expect_err(text);
        let JsonError { field, reason } = JsonError::explain::<T>(text.as_bytes(), &error);
        (field, reason)
    }

    #[test]
    fn the_field_is_named_with_its_path_and_the_reason_is_for_people() {
        for (text, field, reason) in [
            (r#"{"name":7}"#, "name", "must be a string"),
            (r#"{"raw":{"a":[1]},"count":-1}"#, "count", "must be a whole number, 0 or more"),
            (r#"{"count":"x, expected y"}"#, "count", "must be a whole number, 0 or more"),
            (r#"{"mood":"`, expected `x`"}"#, "mood", "must be good or bad"),
            (r#"{"metadata":{"x":7}}"#, "metadata.x", "must be a string"),
            (r#"{"metadata":[]}"#, "metadata", "must be an object"),
            (r#"{"part":{}}"#, "part.content", "is required"),
            (
                r#"{"part":{"content":"","part":1}}"#,
                "part.part",
                "is not a known field; the fields are content, weight",
            ),
            (
                r#"{"parts":[{"content":"a"},{"content":"b","weight":"c"}]}"#,
                "parts[1].weight",
                "must be a number",
            ),
            (r#"{"parts":[{"content":"a"},{"weight":1}]}"#, "parts[1].content", "is required"),
            (r#"{"name":"a","name":"b"}"#, "name", "is given twice"),
            (r#"{"part":{"content":"a","content":"b"}}"#, "part.content", "is given twice"),
            (r#""sesame""#, "", "must be an object"),
        ] {
            assert_eq!(misread::<Whole>(text), (field.to_owned(), reason.to_owned()), "{text}");
        }
        let (field, reason) = misread::<Whole>(r#"{"na`me":1}"#);
        assert_eq!(field, "na`me");
        assert!(
            reason.starts_with("is not a known field; the fields are name, count, mood, metadata"),
            "{reason}"
        );
        let content = |field: &str| (field.to_owned(), "is required".to_owned());
        assert_eq!(misread::<Vec<Part>>(r#"[{"content":"a"},{}]"#), content("[1].content"));
        assert_eq!(misread::<Part>("{}"), content("content"));
    }

    #[test]
    fn invalid_json_is_refused_with_its_position() {
        let (field, reason) = misread::<Whole>("{\"name\":\n oops}");
        assert_eq!((field.as_str(), reason.as_str()), ("", "is not JSON: expected value at line 2 column 2"));
    }

    #[test]
    fn the_reason_never_repeats_a_value() {
        for text in [
            r#"{"password":31415926}"#,
            r#"{"password":["31415926"]}"#,
            r#"{"count":"31415926"}"#,
            r#"{"mood":"31415926"}"#,
            r#"{"part":31415926}"#,
            r#"{"metadata":"31415926"}"#,
            r#"{"parts":[31415926]}"#,
            "31415926",
            r#"{"password":"31415926""#,
        ] {
            let (field, reason) = misread::<Whole>(text);
            assert!(!format!("{field} {reason}").contains("31415"), "{text}: {field}: {reason}");
        }
        assert_eq!(
            misread::<Whole>(r#"{"password":7}"#),
            ("password".to_owned(), "must be a string".to_owned())
        );
    }

    #[test]
    fn field_names_and_reasons_are_truncated() {
        let text = format!(r#"{{"{}":1}}"#, "ä".repeat(10_000));
        let (field, _) = misread::<Whole>(&text);
        assert!(field.len() <= FIELD_BYTES && field.ends_with("ä…"), "{field}");
        let error =
            JsonError { field: "name".to_owned(), reason: "must be one of this, that, other".to_owned() };
        let error = error.truncated(28);
        assert_eq!((error.field.as_str(), error.reason.as_str()), ("name", "must be one of this…"));
        let long = JsonError { field: "n".repeat(99), reason: "is not".to_owned() }.truncated(28);
        assert!(long.field.len() + long.reason.len() <= 28 && long.field.ends_with("n…"), "{long:?}");
    }
}
