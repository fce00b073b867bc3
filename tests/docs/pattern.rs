//! Compares an example with the response of the daemon: equal except for placeholders.
//!
//! * `<form>` stands for a value of that form and gives it a name; `<form:name>` gives it a name of its own.
//!   Later requests may use it.
//! * A `<form:name>` that occurs again must have the same value, so an example cannot show two equal ids
//!   unless they are equal.
//! * An unknown form is an error, so a typing error is not a placeholder that matches everything.

use std::collections::HashMap;

use serde_json::Value;

/// The values of the placeholders so far, by their text between `<` and `>`.
pub(crate) type Names = HashMap<String, String>;

/// Whether `text` has the form. `None`: the form is unknown.
fn has_form(form: &str, text: &str) -> Option<bool> {
    let base64url = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let prefixed = |prefix: &str, text: &str| text.strip_prefix(prefix).is_some_and(|rest| rest.len() > 8);
    Some(match form {
        "cursor" => text.len() == 22 && base64url(text),
        "timestamp" => super::common::is_timestamp(text),
        "key" => prefixed("nwk_", text) && base64url(text),
        "key_id" => text.len() == 12 && text.bytes().all(|b| b.is_ascii_alphanumeric()),
        "token" => {
            text.split('.').count() == 3 && text.split('.').all(|part| !part.is_empty() && base64url(part))
        }
        // The part after the dot names the credential that minted the token.
        "jti" => prefixed("tok-", text) && text.split('.').all(base64url),
        "producer" => prefixed("nws_", text) && base64url(text),
        "ticket" => (prefixed("nwt1_", text) || prefixed("nwt2_", text)) && base64url(text),
        "connection" => text.strip_prefix("conn-").is_some_and(|id| u64::from_str_radix(id, 16).is_ok()),
        "agent" => prefixed("agent-", text) && base64url(text),
        "user" => prefixed("user-", text) && base64url(text),
        "block" => prefixed("block-", text) && base64url(text),
        "memory" => prefixed("memory-", text) && base64url(text),
        "message_id" => prefixed("msg-", text) && base64url(text),
        "request" => prefixed("req-", text) && base64url(text),
        "number" => text.parse::<u64>().is_ok(),
        "words" => !text.is_empty(),
        _ => return None,
    })
}

/// One placeholder: `form` or `form:name`.
struct Placeholder<'a> {
    text: &'a str,
    form: &'a str,
    named: bool,
}

impl<'a> Placeholder<'a> {
    fn of(text: &'a str) -> Result<Placeholder<'a>, String> {
        let form = text.split(':').next().unwrap_or_default();
        has_form(form, "").ok_or_else(|| format!("<{text}>: no form of that name"))?;
        Ok(Placeholder { text, form, named: text.contains(':') })
    }
}

/// Splits at the first placeholder into the text before it, the placeholder, and the text after it.
fn split(pattern: &str) -> Result<Option<(&str, Placeholder<'_>, &str)>, String> {
    let Some(at) = pattern.find('<') else { return Ok(None) };
    let end = pattern[at..].find('>').ok_or_else(|| format!("no end of placeholder in {pattern:?}"))? + at;
    Ok(Some((&pattern[..at], Placeholder::of(&pattern[at + 1..end])?, &pattern[end + 1..])))
}

/// Replaces the placeholders in a request's text by their values.
pub(crate) fn fill(text: &str, names: &Names) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, placeholder, after)) = split(rest)? {
        let value = names.get(placeholder.text);
        filled += before;
        filled += value.ok_or_else(|| format!("<{}> is used before any answer gave it", placeholder.text))?;
        rest = after;
    }
    Ok(filled + rest)
}

/// Compares a text and stores the values of its placeholders.
pub(crate) fn text(pattern: &str, got: &str, names: &mut Names) -> Result<(), String> {
    let differ = || format!("the document says {pattern:?}, the daemon {got:?}");
    let Some((before, placeholder, after)) = split(pattern)? else {
        return if pattern == got { Ok(()) } else { Err(differ()) };
    };
    let rest = got.strip_prefix(before).ok_or_else(differ)?;
    let next = after.split('<').next().unwrap_or_default();
    let end = if next.is_empty() { rest.len() } else { rest.find(next).ok_or_else(differ)? };
    let (value, rest) = rest.split_at(end);
    if has_form(placeholder.form, value) != Some(true) {
        return Err(format!("{value:?} is no <{}>: {}", placeholder.form, differ()));
    }
    match names.get(placeholder.text) {
        Some(known) if placeholder.named && known != value => {
            return Err(format!("<{}> was {known:?} and is {value:?}", placeholder.text));
        }
        _ => names.insert(placeholder.text.to_owned(), value.to_owned()),
    };
    text(after, rest, names)
}

/// Parses the JSON of an example, in which a placeholder may also stand for a number.
pub(crate) fn parse(example: &str) -> Result<Value, String> {
    let mut quoted = String::new();
    let mut rest = example;
    while let Some(at) = rest.find("<number") {
        let end =
            rest[at..].find('>').ok_or_else(|| format!("no end of placeholder in {example:?}"))? + at + 1;
        let bare = !rest[..at].ends_with('"');
        let quote = if bare { "\"" } else { "" };
        quoted += &format!("{}{quote}{}{quote}", &rest[..at], &rest[at..end]);
        rest = &rest[end..];
    }
    serde_json::from_str(&(quoted + rest)).map_err(|error| format!("{error} in the example {example}"))
}

/// Compares JSON. The fields must be the same, no more and no fewer.
pub(crate) fn json(pattern: &Value, got: &Value, names: &mut Names) -> Result<(), String> {
    let differ = || Err(format!("the document says {pattern}, the daemon {got}"));
    match (pattern, got) {
        (Value::Object(a), Value::Object(b)) => {
            if let Some(extra) = b.keys().find(|name| !a.contains_key(*name)) {
                return Err(format!("the document leaves out {extra:?} of {got}"));
            }
            a.iter().try_for_each(|(name, value)| {
                let got = b.get(name).ok_or_else(|| format!("the daemon leaves out {name:?}: {got}"))?;
                json(value, got, names)
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| json(a, b, names))
        }
        (Value::String(a), Value::String(b)) => text(a, b, names),
        (Value::String(a), Value::Number(b)) if a.starts_with("<number") => text(a, &b.to_string(), names),
        _ if pattern == got => Ok(()),
        _ => differ(),
    }
}
