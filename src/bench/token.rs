//! Tokens of a daemon that the bench started itself: HS256 (RFC 7515, RFC 7519) under a secret made for that run.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::time::{Clock as _, SystemClock};

/// How long a token is good for, seconds.
const LIFETIME: u64 = 24 * 3_600;

/// A new secret, 43 characters. Not for keeping: where the system has no randomness it is a weak one.
#[must_use]
pub fn secret() -> String {
    let mut bytes = [0u8; 32];
    // A measured daemon listens on loopback for some seconds; nothing else is ever behind this secret.
    let _ = SystemRandom::new().fill(&mut bytes);
    BASE64.encode(bytes)
}

/// A token of `sub` in `org` with these scopes.
#[must_use]
pub fn mint(secret: &str, org: &str, sub: &str, scopes: &[&str]) -> String {
    let now = SystemClock.now_ms() / 1_000;
    let claims = json!({"sub": sub, "org_id": org, "scopes": scopes, "iat": now, "exp": now + LIFETIME});
    let head = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}
