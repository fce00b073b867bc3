//! Tokens for a daemon that the bench started: HS256 (RFC 7515, RFC 7519) with a secret made for that run.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

/// Lifetime of a token, in seconds.
const LIFETIME: u64 = 24 * 3_600;

/// Creates a new secret of 43 characters. Do not store it: without system randomness it is weak.
pub(crate) fn secret() -> String {
    let mut bytes = [0u8; 32];
    // A measured daemon listens on loopback for some seconds. The secret protects nothing else.
    let _ = SystemRandom::new().fill(&mut bytes);
    BASE64.encode(bytes)
}

/// Creates a token for `sub` in the organization `default` with these scopes.
pub(crate) fn mint(secret: &str, sub: &str, scopes: &[&str]) -> String {
    // A clock before 1970 makes a token that the daemon refuses.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims =
        json!({"sub": sub, "org_id": "default", "scopes": scopes, "iat": now, "exp": now + LIFETIME});
    let head = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}
