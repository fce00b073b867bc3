//! The `jti` of tokens minted here: `<prefix><expiry>-<extent><scopes>-<random letters>[.<maker>]`. Expiry
//! (Unix seconds) and scopes are hexadecimal.
//!
//! * No token is stored, so the `jti` says what an administrator needs to know about it: until when its
//!   revocation must be remembered, and how wide its rights are, so that nobody revokes a token wider than
//!   their own rights.
//! * The maker is the credential that minted the token. The token ends with it, because the tokens of a
//!   stolen key cannot be listed. A token that mints passes on the API key that it was minted by itself.
//! * Anybody can invent a `jti`; that only revokes a token that does not exist. A maker is trusted only after
//!   the token's signature was verified.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::auth::rights::credential::{CredentialId, KeyDigest};
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::ScopeSet;
use crate::filter::Narrowing;

/// The prefix of the `jti` of a minted token.
const MINTED_PREFIX: &str = "tok-";
/// The prefix of the `jti` of a session token, which a user gets by logging in.
const SESSION_PREFIX: &str = "ses-";
/// Random letters at the end.
pub(in crate::auth) const RANDOM_CHARS: usize = 22;
/// The extent of a token: not narrowed, or narrowed.
const WHOLE: char = 'w';
const NARROWED: char = 'n';
/// The first character of a maker: an API key's id follows, or the digest of a verifying key and, after
/// another `.`, a user id.
const BY_KEY: char = 'k';
const BY_TOKEN: char = 't';
/// Maximum length of a user id in a maker, in bytes, because a `jti` has at most 256. A longer id is omitted,
/// and the maker is the verifying key alone.
const MAKER_SUB_BYTES: usize = 128;

/// Returns the `jti` of a token with these rights; `random` is [`RANDOM_CHARS`] letters.
pub(in crate::auth) fn of(
    session: bool,
    scopes: ScopeSet,
    narrowing: &Narrowing,
    expires_at_ms: u64,
    random: &str,
    maker: Option<&MintedBy<'_>>,
) -> String {
    let prefix = if session { SESSION_PREFIX } else { MINTED_PREFIX };
    let extent = if narrowing.is_none() { WHOLE } else { NARROWED };
    let maker = maker.map(|maker| format!(".{maker}")).unwrap_or_default();
    format!("{prefix}{:x}-{extent}{:x}-{random}{maker}", expires_at_ms / 1_000, scopes.bits())
}

/// The credential that minted a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) enum MintedBy<'j> {
    /// The API key with this id.
    Key(&'j str),
    /// A token of this user, verified by this key.
    Token(KeyDigest, Option<String>),
}

impl fmt::Display for MintedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MintedBy::Key(key_id) => write!(f, "{BY_KEY}{key_id}"),
            MintedBy::Token(key, sub) => {
                write!(f, "{BY_TOKEN}{:x}", key.number())?;
                match sub.as_deref().filter(|sub| sub.len() <= MAKER_SUB_BYTES) {
                    Some(sub) => write!(f, ".{}", BASE64.encode(sub)),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Principal {
    /// Returns the maker of tokens that this principal mints; `None` for the command line, which does not
    /// end.
    pub(in crate::auth) fn as_maker(&self) -> Option<MintedBy<'_>> {
        match &self.credential {
            CredentialId::Key { key_id, .. } => Some(MintedBy::Key(key_id)),
            CredentialId::Token { key, .. } => match self.maker() {
                Some(by_key @ MintedBy::Key(_)) => Some(by_key),
                _ => Some(MintedBy::Token(*key, self.sub.as_deref().map(str::to_owned))),
            },
            CredentialId::Local => None,
        }
    }

    /// The API key that minted the token, or that minted the token's own maker. The token ends with it.
    #[must_use]
    pub fn made_by_key(&self) -> Option<&str> {
        match self.maker()? {
            MintedBy::Key(key_id) => Some(key_id),
            MintedBy::Token(..) => None,
        }
    }

    /// The user whose token minted this one. This token ends when that user's tokens end.
    #[must_use]
    pub fn made_by_user(&self) -> Option<String> {
        match self.maker()? {
            MintedBy::Key(_) => None,
            MintedBy::Token(_, sub) => sub,
        }
    }

    fn maker(&self) -> Option<MintedBy<'_>> {
        match &self.credential {
            CredentialId::Token { jti, .. } => jti.as_deref().and_then(maker),
            CredentialId::Key { .. } | CredentialId::Local => None,
        }
    }
}

/// Returns the maker in the `jti` of a verified token of our own.
pub(in crate::auth) fn maker(jti: &str) -> Option<MintedBy<'_>> {
    let (_, maker) = jti.split_once('.')?;
    if let Some(key_id) = maker.strip_prefix(BY_KEY) {
        return Some(MintedBy::Key(key_id));
    }
    let mut parts = maker.strip_prefix(BY_TOKEN)?.split('.');
    let (digest, sub) = (parts.next()?, parts.next());
    let digest = KeyDigest::of_number(u64::from_str_radix(digest, 16).ok()?);
    let sub = sub.and_then(|sub| BASE64.decode(sub).ok()).and_then(|sub| String::from_utf8(sub).ok());
    Some(MintedBy::Token(digest, sub))
}

/// What the `jti` of a token minted here says about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct TokenFacts {
    /// Unix milliseconds.
    pub(in crate::auth) expires_at_ms: u64,
    /// The token's scopes, and whether it is narrowed. `None`: an older version minted it, which did not
    /// record them.
    pub(in crate::auth) rights: Option<(ScopeSet, bool)>,
}

/// Reads a `jti`. `None`: another issuer's token. A caller that invents a `jti` revokes a token that does not
/// exist.
pub(in crate::auth) fn read(jti: &str) -> Option<TokenFacts> {
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

/// Returns true for the `jti` of a session token of this daemon.
pub(in crate::auth) fn is_session(jti: &str) -> bool {
    jti.starts_with(SESSION_PREFIX)
}
