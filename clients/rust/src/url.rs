//! Paths with a query string.

/// Returns `base` with these parameters, whose values are already escaped.
pub(crate) fn path_with_query(base: &str, pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut path = base.to_owned();
    for (n, (name, value)) in pairs.into_iter().enumerate() {
        path.push(if n == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        path.push_str(&value);
    }
    path
}

/// Encodes `text` for a path segment or a query value: escapes everything but RFC 3986's unreserved
/// characters.
pub fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_leaves_only_unreserved_characters() {
        assert_eq!(encode("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(encode("a/b?c=ä &\n"), "a%2Fb%3Fc%3D%C3%A4%20%26%0A");
    }
}
