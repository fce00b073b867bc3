//! The format of an API key: `nwk_<key id>_<secret>`.
//!
//! * Key id and secret consist of letters and digits only, so the parts are unambiguous and a double click
//!   selects the whole key.
//! * The secret has 256 random bits, so a plain SHA-256 of it is stored: it cannot be guessed offline.
//! * A comparison takes the same time wherever the texts differ. [`matches`] does the same work when no
//!   record exists.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, error};
use subtle::ConstantTimeEq as _;

use super::secret::Secret;

/// The prefix of every API key.
pub const PREFIX: &str = "nwk_";
/// Characters of a key id: 71 bits, so two ids do not collide.
const ID_CHARS: usize = 12;
/// Characters of a secret: 62^43 > 2^256.
const SECRET_CHARS: usize = 43;
/// Maximum length of a text that is hashed. No key is longer.
const MAX_BYTES: usize = 256;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a secret.
pub(super) type SecretDigest = [u8; 32];

/// A new key: its id, the digest to store, and the text that is shown once.
pub(super) struct GeneratedKey {
    pub(super) id: String,
    pub(super) digest: SecretDigest,
    pub(super) text: Secret,
}

/// Creates a key.
///
/// # Errors
/// The system returned no random bytes.
pub(super) fn generate(random: &SystemRandom) -> Result<GeneratedKey, error::Unspecified> {
    let id = letters(random, ID_CHARS)?;
    let secret = letters(random, SECRET_CHARS)?;
    let digest = digest_of(&secret);
    Ok(GeneratedKey { digest, text: Secret::new(format!("{PREFIX}{id}_{secret}")), id })
}

/// Splits a text that has the format of a key into key id and secret.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain(id) && plain(secret)).then_some((id, secret))
}

/// Returns true if `secret` is the secret of `stored`. Without a record it returns false after the same work.
pub(super) fn matches(secret: &str, stored: Option<&SecretDigest>) -> bool {
    let nobody = [0; 32];
    let equal = digest_of(secret).ct_eq(stored.unwrap_or(&nobody));
    bool::from(equal) & stored.is_some()
}

/// Returns `count` random letters and digits, all equally likely.
pub(super) fn letters(random: &SystemRandom, count: usize) -> Result<String, error::Unspecified> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        random.fill(&mut bytes)?;
        // 248 = 4 × 62: larger bytes would make the first letters more likely.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        text.extend(fair.take(count - text.len()).map(|byte| char::from(ALPHABET[usize::from(*byte) % 62])));
    }
    Ok(text)
}

fn digest_of(secret: &str) -> SecretDigest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_splits_into_what_is_stored() {
        let key = generate(&SystemRandom::new()).expect("random bytes");
        let (id, secret) = split(key.text.expose()).expect("the form of a key");
        assert_eq!((id.len(), secret.len()), (ID_CHARS, SECRET_CHARS));
        assert_eq!(id, key.id);
        assert!(matches(secret, Some(&key.digest)));
        assert!(!matches(secret, None));
        assert!(!matches(&secret[1..], Some(&key.digest)));
        assert!(!matches("", Some(&[0; 32])));
        assert_ne!(generate(&SystemRandom::new()).expect("random bytes").id, key.id);
    }

    #[test]
    fn texts_of_another_format_are_refused() {
        let long = format!("nwk_a_{}", "x".repeat(MAX_BYTES));
        for bad in
            ["", "nwk_", "nwk_a", "nwk_a_", "nwk__b", "nwk_a_b_c", "NWK_a_b", "agm_a_b", "nwk_a_b c", &long]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_letter_occurs() {
        let text = letters(&SystemRandom::new(), 62 * 64).expect("random bytes");
        assert!(ALPHABET.iter().all(|letter| text.contains(char::from(*letter))));
    }
}
