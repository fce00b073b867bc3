//! Producer tokens: who holds the newest one may append.
//!
//! A token names its generation, so an older one is told apart from a wrong one. Only a digest is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use super::error::StreamError;

const PREFIX: &str = "nws_";
const SECRET_BYTES: usize = 32;
/// The most bytes of a token.
const TOKEN_BYTES: usize = 64;

/// A new token, and its digest.
pub(in crate::tenant) struct IssuedToken {
    pub(in crate::tenant) text: String,
    pub(in crate::tenant) digest: [u8; 32],
}

/// Makes the token of a generation; `None` if the system provides no random numbers.
pub(in crate::tenant) fn issue(generation: u32) -> Option<IssuedToken> {
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).ok()?;
    let text = format!("{PREFIX}{generation}_{}", URL_SAFE_NO_PAD.encode(secret));
    let digest = digest_of(&text);
    Some(IssuedToken { text, digest })
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    digest
}

/// Checks a token.
///
/// # Errors
/// [`StreamError::Fenced`] for one of an earlier generation, [`StreamError::BadToken`] for any other.
pub(in crate::tenant) fn check(token: &str, generation: u32, digest: &[u8; 32]) -> Result<(), StreamError> {
    if token.len() > TOKEN_BYTES {
        return Err(StreamError::BadToken);
    }
    let named = token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    let named = named.and_then(|(generation, _)| generation.parse::<u32>().ok());
    match named.ok_or(StreamError::BadToken)? {
        older if older < generation => Err(StreamError::Fenced),
        same if same == generation && bool::from(digest_of(token).ct_eq(digest)) => Ok(()),
        _ => Err(StreamError::BadToken),
    }
}

/// A digest as hexadecimal digits.
pub(in crate::tenant) fn to_hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of hexadecimal digits; zeros if they are none, which no token has.
pub(in crate::tenant) fn from_hex(text: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        let digits = text.get(2 * at..2 * at + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_token_passes_and_older_ones_are_fenced() {
        let (first, second) = (issue(1).expect("random"), issue(2).expect("random"));
        assert!(check(&first.text, 1, &first.digest).is_ok());
        assert!(matches!(check(&first.text, 2, &second.digest), Err(StreamError::Fenced)));
        assert!(check(&second.text, 2, &second.digest).is_ok());
        for wrong in [second.text.as_str(), "", "nws_2_", "nws_1", "x", &"x".repeat(100), "nws_1_ü"] {
            assert!(matches!(check(wrong, 1, &first.digest), Err(StreamError::BadToken)), "{wrong}");
        }
        assert_eq!(from_hex(&to_hex(&first.digest)), first.digest);
        assert_eq!(from_hex("zz"), [0; 32]);
    }
}
