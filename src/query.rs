//! Parses a query string into pairs: `application/x-www-form-urlencoded` (WHATWG URL §5.1), with limits.
//!
//! * It is stricter than the standard: a broken escape and bytes that are not UTF-8 are refused instead of
//!   replaced, because replacing would hide a mistake.
//! * An error never shows the query, which may hold a credential.

use std::borrow::Cow;

/// The most bytes of a query string; a filter, a position and a token fit.
pub const QUERY_BYTES: usize = 16 * 1024;
/// The most pairs. Every endpoint knows fewer names, and the lists inside a value have their own limit.
pub const QUERY_PAIRS: usize = 64;

/// Why a query string was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// More than [`QUERY_BYTES`].
    #[error("the query is longer than {QUERY_BYTES} bytes")]
    TooLong,
    /// More than [`QUERY_PAIRS`].
    #[error("the query has more than {QUERY_PAIRS} parameters")]
    TooMany,
    /// `%` without two hexadecimal digits.
    #[error("the query holds '%' without two hexadecimal digits")]
    Escape,
    /// The unescaped bytes are not UTF-8.
    #[error("the query is not UTF-8")]
    NotUtf8,
}

/// A name and its value, unescaped.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Returns the pairs of `query` (without `?`), in order; empty pieces are skipped and a name without `=` has
/// an empty value.
///
/// # Errors
/// [`QueryError`]: which rule the query broke.
pub fn pairs(query: &str) -> Result<Vec<Pair<'_>>, QueryError> {
    if query.len() > QUERY_BYTES {
        return Err(QueryError::TooLong);
    }
    let mut pairs = Vec::new();
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        if pairs.len() == QUERY_PAIRS {
            return Err(QueryError::TooMany);
        }
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        pairs.push((unescape(name)?, unescape(value)?));
    }
    Ok(pairs)
}

/// Unescapes one segment of a path (RFC 3986 §2.1; there `+` is itself). Returns `None` for a broken escape
/// or bytes that are not UTF-8.
#[must_use]
pub fn unescape_path(segment: &str) -> Option<String> {
    let literal = segment.replace('+', "%2B");
    unescape(&literal).ok().map(Cow::into_owned)
}

fn unescape(text: &str) -> Result<Cow<'_, str>, QueryError> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(QueryError::Escape),
            },
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| QueryError::NotUtf8)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_unescaped_and_in_order() {
        let read = pairs("a=1&&b=x+y%2Fz&c&=v&a=%C3%BC%26%3d").expect("valid");
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        assert_eq!(read, [("a", "1"), ("b", "x y/z"), ("c", ""), ("", "v"), ("a", "ü&=")]);
        assert!(pairs("").expect("valid").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (query, error) in [
            ("a=%", QueryError::Escape),
            ("a=%4", QueryError::Escape),
            ("%zz=1", QueryError::Escape),
            ("a=%+1", QueryError::Escape),
            ("a=%ff", QueryError::NotUtf8),
            (&"a".repeat(QUERY_BYTES + 1), QueryError::TooLong),
            (&"a&".repeat(QUERY_PAIRS + 1), QueryError::TooMany),
        ] {
            assert_eq!(pairs(query), Err(error), "{query:.20}");
        }
    }
}
