//! The channel of a user's presence events.
//!
//! The code that publishes on it, lists it, and erases it with its user takes the name from here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::CHANNEL_BYTES;

/// Returns the channel of a user's presence events: `presence/` and the `sub` encoded as by JavaScript's
/// `encodeURIComponent`, with `*` as `%2A`, so that it is one segment and no pattern. If that is too long for
/// a channel, the SHA-256 of the `sub` is used instead.
#[must_use]
pub fn presence_channel(sub: &str) -> String {
    const PREFIX: &str = "presence/";
    let mut name = String::from(PREFIX);
    for byte in sub.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'\'' | b'(' | b')' => name.push(char::from(byte)),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                name.push('%');
                name.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
        }
    }
    if name.len() > CHANNEL_BYTES {
        let digest = ring::digest::digest(&ring::digest::SHA256, sub.as_bytes());
        // A colon is always escaped above, so no other user's channel looks like this.
        name = format!("{PREFIX}sha256:{}", URL_SAFE_NO_PAD.encode(digest));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_one_segment_and_no_pattern() {
        for (sub, expected) in [
            ("ann", "presence/ann"),
            ("a.b-c_d~e!(f)'", "presence/a.b-c_d~e!(f)'"),
            ("ann@example.com", "presence/ann%40example.com"),
            ("a/b*%,:", "presence/a%2Fb%2A%25%2C%3A"),
            ("zoë", "presence/zo%C3%AB"),
        ] {
            assert_eq!(presence_channel(sub), expected);
        }
        let longest = "x".repeat(191);
        assert_eq!(presence_channel(&longest), format!("presence/{longest}"));
        let digest = presence_channel(&"x".repeat(192));
        assert!(digest.starts_with("presence/sha256:") && digest.len() == 59, "{digest}");
        assert_ne!(digest, presence_channel(&"x".repeat(193)));
        assert_eq!(presence_channel(&"/".repeat(64)).len(), 59);
    }
}
