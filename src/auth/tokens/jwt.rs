//! Verifies and signs JSON Web Tokens (RFC 7519) in compact form (RFC 7515 §3.1).
//!
//! * The signature is checked before any claim is read.
//! * `alg` must be the key's algorithm. `crit` is refused, because no extension is supported (RFC 7515
//!   §4.1.11).
//! * A claim of a wrong type, or a repeated claim, refuses the token: nothing is guessed. `null` is a wrong
//!   type. An absent narrowing does not narrow, so an issuer must not be able to say "absent" by accident.
//! * `exp` has no leeway. `nbf` and `iat` have [`CLOCK_SKEW_MS`], because an issuer's clock may be a little
//!   ahead. `iat` of the daemon's own tokens is not compared with the clock, so they stay valid after the
//!   clock is set back.
//! * A token of a configured key ends at the latest `max_token_ms` after its `iat`, whatever its `exp` is.
//!   Without `iat` there is no time to count from, and counting from now would let a reconnect renew the
//!   token. So without `iat` a later `exp` refuses the token.
//! * This module does not know organizations or revocations.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::keys::{Algorithm, KeySet, KeyWithDigest, VerifyingKey};
use super::own_key::AUDIENCE;
use crate::auth::error::CredentialError;
use crate::auth::rights::permissions::Role;
use crate::auth::rights::scope::ScopeSet;
use crate::event::ID_BYTES;
use crate::filter::Narrowing;
use crate::ids::is_org_id;

/// Maximum length of a token, in bytes. It fits into a request head and limits the work that a forged token
/// causes.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// Default lifetime of a token, in milliseconds: 24 hours.
pub const TOKEN_DEFAULT_MS: u64 = 24 * 3_600_000;
/// Maximum lifetime of a token, in milliseconds: 30 days.
pub const TOKEN_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// The value of `scopes_version`, which tokens minted here carry beside `scopes`. A token without it was
/// minted before `write`, `agents` and `mint` were scopes of their own. The last of those expires 30 days
/// after the upgrade.
pub(in crate::auth) const SCOPES_VERSION: u8 = 1;
/// How far in the future `nbf` and `iat` may be, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 5_000;
/// Maximum number of roles kept of a token, and maximum length of a role in bytes.
pub(in crate::auth) const ROLES: usize = 64;
const ROLE_BYTES: usize = 64;

/// The claims of a genuine token that is valid now.
#[derive(Debug, Clone)]
pub(in crate::auth) struct Claims {
    pub(in crate::auth) sub: Box<str>,
    pub(in crate::auth) org_id: Box<str>,
    pub(in crate::auth) expires_at_ms: u64,
    pub(in crate::auth) issued_at_ms: Option<u64>,
    /// True if `iat` has a fraction, as in our own tokens: it is precise to the millisecond.
    pub(in crate::auth) to_the_ms: bool,
    pub(in crate::auth) jti: Option<Box<str>>,
    pub(in crate::auth) roles: Box<[Box<str>]>,
    pub(in crate::auth) scopes: ScopeSet,
    pub(in crate::auth) narrowing: Narrowing,
}

/// The claims of a new token.
#[derive(Debug, Clone, Serialize)]
pub(in crate::auth) struct NewClaims<'a> {
    pub(in crate::auth) sub: &'a str,
    pub(in crate::auth) org_id: &'a str,
    /// Seconds since the Unix epoch.
    pub(in crate::auth) exp: u64,
    /// Seconds since the Unix epoch, with milliseconds (RFC 7519 §2 allows fractions). A password change ends
    /// tokens that were issued before it, also within the same second.
    pub(in crate::auth) iat: f64,
    pub(in crate::auth) jti: &'a str,
    pub(in crate::auth) roles: &'a [String],
    /// Absent: the scopes of the roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::auth) scopes: Option<Vec<&'static str>>,
    /// [`SCOPES_VERSION`], if `scopes` is present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::auth) scopes_version: Option<u8>,
    #[serde(flatten)]
    pub(in crate::auth) narrowing: &'a Narrowing,
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawClaims {
    sub: Box<str>,
    org_id: Box<str>,
    exp: NumericDate,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<Box<str>>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<Box<str>>,
    #[serde(default, deserialize_with = "present")]
    roles: Option<Vec<Box<str>>>,
    #[serde(default, deserialize_with = "present")]
    scopes: Option<Vec<Box<str>>>,
    #[serde(default, deserialize_with = "present")]
    scopes_version: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    agents: Option<Vec<Box<str>>>,
    #[serde(default, deserialize_with = "present")]
    channels: Option<Vec<Box<str>>>,
    #[serde(default, deserialize_with = "present")]
    types: Option<Vec<Box<str>>>,
}

/// Reads a field that is present, so that `null` is an error and not the same as absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Seconds since the epoch (RFC 7519 §2), whole or not. Stored as milliseconds, and whether a fraction was
/// written.
#[derive(Clone, Copy)]
struct NumericDate(u64, bool);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(from)?;
        if let Some(seconds) = number.as_u64() {
            return Ok(NumericDate(seconds.saturating_mul(1_000), false));
        }
        match number.as_f64() {
            // It is rounded, because the nearest double of 0.29 s is a little less than 290 ms.
            Some(seconds) if seconds >= 0.0 => Ok(NumericDate((seconds * 1_000.0).round() as u64, true)),
            _ => Err(D::Error::custom("no NumericDate")),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(Box<str>),
    Several(Vec<Box<str>>),
}

impl Audience {
    fn names(&self, us: &str) -> bool {
        match self {
            Audience::One(name) => name.as_ref() == us,
            Audience::Several(names) => names.iter().any(|name| name.as_ref() == us),
        }
    }
}

/// Verifies `token`. Returns its claims if it is genuine and valid now, and the key that verified it.
pub(in crate::auth) fn verify<'k>(
    token: &str,
    keys: &'k KeySet,
    now_ms: u64,
) -> Result<(Claims, &'k KeyWithDigest), CredentialError> {
    if token.len() > TOKEN_BYTES {
        return Err(CredentialError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(CredentialError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(CredentialError::Malformed)?;
    let header = object(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| CredentialError::Malformed)?;
    if header.crit.is_some() {
        return Err(CredentialError::Malformed);
    }
    let key = keys.choose(header.kid.as_deref()).ok_or(CredentialError::UnknownKey)?;
    if Algorithm::from_name(header.alg) != Some(key.material.algorithm()) {
        return Err(CredentialError::Algorithm);
    }
    let signature = BASE64.decode(signature).map_err(|_| CredentialError::Malformed)?;
    if !key.material.verifies(message.as_bytes(), &signature) {
        return Err(CredentialError::NotGenuine);
    }
    let payload = object(payload)?;
    let raw: RawClaims = serde_json::from_slice(&payload).map_err(|_| CredentialError::Claims)?;
    Ok((check(raw, key, now_ms)?, key))
}

/// Signs a token with `claims` by HS256 and the key named `kid`. Returns `None` only if the claims are not
/// JSON.
pub(in crate::auth) fn sign(claims: &NewClaims<'_>, kid: &str, key: &hmac::Key) -> Option<String> {
    let header = serde_json::json!({ "alg": Algorithm::Hs256.name(), "kid": kid, "typ": "JWT" });
    let mut token = BASE64.encode(header.to_string());
    token.push('.');
    BASE64.encode_string(serde_json::to_vec(claims).ok()?, &mut token);
    let tag = hmac::sign(key, token.as_bytes());
    token.push('.');
    BASE64.encode_string(tag.as_ref(), &mut token);
    Some(token)
}

/// Decodes one part, which must be a JSON object (serde would accept an array for a struct).
fn object(part: &str) -> Result<Vec<u8>, CredentialError> {
    let json = BASE64.decode(part).map_err(|_| CredentialError::Malformed)?;
    match json.trim_ascii_start().first() {
        Some(b'{') => Ok(json),
        _ => Err(CredentialError::Malformed),
    }
}

fn check(raw: RawClaims, key: &VerifyingKey, now_ms: u64) -> Result<Claims, CredentialError> {
    if raw.exp.0 <= now_ms {
        return Err(CredentialError::Expired);
    }
    let latest = now_ms.saturating_add(CLOCK_SKEW_MS);
    let foreign_iat = raw.iat.filter(|_| !key.is_own());
    if [raw.nbf, foreign_iat].into_iter().flatten().any(|date| date.0 > latest) {
        return Err(CredentialError::NotYet);
    }
    let expires_at_ms = match (key.max_token_ms, raw.iat) {
        (None, _) => raw.exp.0,
        (Some(max), Some(iat)) => raw.exp.0.min(iat.0.saturating_add(max)),
        (Some(max), None) if raw.exp.0 <= now_ms.saturating_add(max) => raw.exp.0,
        (Some(_), None) => return Err(CredentialError::Lifetime),
    };
    if expires_at_ms <= now_ms {
        return Err(CredentialError::Lifetime);
    }
    if key.issuer.is_some() && key.issuer != raw.iss {
        return Err(CredentialError::Issuer);
    }
    // RFC 7519 §4.1.3: a recipient that a present `aud` does not name must refuse the token.
    let audience_ok = match (&raw.aud, &key.audience) {
        (Some(aud), Some(audience)) => aud.names(audience),
        (Some(aud), None) => aud.names(AUDIENCE),
        (None, audience) => audience.is_none(),
    };
    if !audience_ok {
        return Err(CredentialError::Audience);
    }
    let roles = raw.roles.unwrap_or_default();
    let roles_ok = roles.len() <= ROLES && roles.iter().all(|role| role.len() <= ROLE_BYTES);
    if !is_id(&raw.sub) || !is_org_id(&raw.org_id) || !raw.jti.as_deref().is_none_or(is_id) || !roles_ok {
        return Err(CredentialError::Claims);
    }
    let scopes = match raw.scopes {
        Some(names) => {
            let set: ScopeSet = names.iter().map(|name| ScopeSet::from_claim(name)).collect();
            if key.is_own() && raw.scopes_version.is_none() { set.of_old_token() } else { set }
        }
        None => roles.iter().filter_map(|role| Role::scopes_of(role)).collect(),
    };
    let narrowing =
        Narrowing::new(raw.agents, raw.channels, raw.types).map_err(|_| CredentialError::Claims)?;
    Ok(Claims {
        sub: raw.sub,
        org_id: raw.org_id,
        expires_at_ms,
        issued_at_ms: raw.iat.map(|date| date.0),
        to_the_ms: raw.iat.is_some_and(|date| date.1),
        jti: raw.jti,
        roles: roles.into_boxed_slice(),
        scopes,
        narrowing,
    })
}

/// Returns true if `text` is valid as a `sub` or `jti`. The rules are those of an event's `user_id`.
pub(in crate::auth) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}
