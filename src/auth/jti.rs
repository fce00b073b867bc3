//! The `jti` of tokens made here: `<prefix><expiry>-<extent><scopes>-<random letters>[.<maker>]`, expiry (Unix seconds) and scopes
//! hexadecimal.
//!
//! * It says what an administrator needs to know of a token that is stored nowhere: until when its revocation must be
//!   remembered, and how wide it is, so that nobody revokes what is wider than themselves.
//! * The maker is the credential that minted the token. The token ends with it, since nobody could list the tokens of a key that
//!   was stolen. A token that mints hands on the API key that it was minted by itself.
//! * Anybody can make one up; that revokes a token that does not exist. A maker is believed only where the token's signature was
//!   verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::keys::KeyDigest;
use super::principal::{Credential, Principal};
use super::scope::ScopeSet;
use crate::filter::Narrowing;

/// How the `jti` of a minted token begins.
const MINTED_PREFIX: &str = "tok-";
/// How the `jti` of the session of a user who logged in begins.
const SESSION_PREFIX: &str = "ses-";
/// Random letters at the end.
pub(super) const RANDOM_CHARS: usize = 22;
/// The extent of a token that may touch everything, or what its narrowing lets it.
const WHOLE: char = 'w';
const NARROWED: char = 'n';
/// How a maker begins: an API key's id follows, or the digest of a verifying key and, after another `.`, a user.
const BY_KEY: char = 'k';
const BY_TOKEN: char = 't';
/// Most bytes of a user's id in a maker: a `jti` has 256. A longer one is left out, and the verifying key stands alone.
const MAKER_SUB_BYTES: usize = 128;

/// The `jti` of a token with these rights; `random` is [`RANDOM_CHARS`] letters.
pub(super) fn of(
    session: bool,
    scopes: ScopeSet,
    narrowing: &Narrowing,
    expires_at_ms: u64,
    random: &str,
    maker: Option<&str>,
) -> String {
    let prefix = if session { SESSION_PREFIX } else { MINTED_PREFIX };
    let extent = if narrowing.is_none() { WHOLE } else { NARROWED };
    let maker = maker.map(|maker| format!(".{maker}")).unwrap_or_default();
    format!("{prefix}{:x}-{extent}{:x}-{random}{maker}", expires_at_ms / 1_000, scopes.bits())
}

/// Which credential minted a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Maker<'j> {
    /// The API key of this id.
    Key(&'j str),
    /// A token that this key verified, of this user.
    Token(KeyDigest, Option<String>),
}

/// The maker, as text, of tokens that `issuer` mints; `None`: the command line, which lasts.
pub(super) fn maker_of(issuer: &Principal) -> Option<String> {
    match &issuer.credential {
        Credential::Key { key_id, .. } => Some(format!("{BY_KEY}{key_id}")),
        Credential::Token { key, jti, .. } => {
            let handed_on = jti.as_deref().and_then(|jti| jti.split_once('.')).map(|(_, maker)| maker);
            let by_key = handed_on.filter(|maker| maker.starts_with(BY_KEY)).map(str::to_owned);
            let sub = issuer.sub.as_deref().filter(|sub| sub.len() <= MAKER_SUB_BYTES);
            let sub = sub.map(|sub| format!(".{}", BASE64.encode(sub))).unwrap_or_default();
            by_key.or_else(|| Some(format!("{BY_TOKEN}{:x}{sub}", key.number())))
        }
        Credential::Local => None,
    }
}

/// The maker in the `jti` of a verified token of our own.
pub(super) fn maker(jti: &str) -> Option<Maker<'_>> {
    let (_, maker) = jti.split_once('.')?;
    if let Some(key_id) = maker.strip_prefix(BY_KEY) {
        return Some(Maker::Key(key_id));
    }
    let mut parts = maker.strip_prefix(BY_TOKEN)?.split('.');
    let (digest, sub) = (parts.next()?, parts.next());
    let digest = KeyDigest::of_number(u64::from_str_radix(digest, 16).ok()?);
    let sub = sub.and_then(|sub| BASE64.decode(sub).ok()).and_then(|sub| String::from_utf8(sub).ok());
    Some(Maker::Token(digest, sub))
}

/// What the `jti` of a token made here tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenFacts {
    /// Unix milliseconds.
    pub(super) expires_at_ms: u64,
    /// What the token may do, and whether it is narrowed; `None`: made by a version that did not say.
    pub(super) rights: Option<(ScopeSet, bool)>,
}

/// Reads a `jti`; `None`: it is of another issuer. Who makes one up revokes a token that does not exist.
pub(super) fn read(jti: &str) -> Option<TokenFacts> {
    let rest = jti.split_once('.').map_or(jti, |(rest, _)| rest);
    let rest = rest.strip_prefix(MINTED_PREFIX).or_else(|| rest.strip_prefix(SESSION_PREFIX))?;
    let (seconds, rest) = rest.split_once('-')?;
    let (rights, random) = match rest.split_once('-') {
        Some((rights, random)) => {
            let narrowed = rights.starts_with(NARROWED);
            let bits =
                rights.strip_prefix([WHOLE, NARROWED]).and_then(|hex| u16::from_str_radix(hex, 16).ok())?;
            (Some((ScopeSet::from_bits(bits), narrowed)), random)
        }
        None => (None, rest),
    };
    let ours = random.len() == RANDOM_CHARS && random.bytes().all(|b| b.is_ascii_alphanumeric());
    let seconds = ours.then(|| u64::from_str_radix(seconds, 16).ok()).flatten()?;
    Some(TokenFacts { expires_at_ms: seconds.checked_mul(1_000)?, rights })
}

/// Returns true for the `jti` of a session that this daemon gave.
pub(super) fn is_session(jti: &str) -> bool {
    jti.starts_with(SESSION_PREFIX)
}
