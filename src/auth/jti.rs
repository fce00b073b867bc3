//! The `jti` of tokens made here: `<prefix><expiry>-<extent><scopes>-<random letters>`, expiry (Unix seconds) and scopes hexadecimal.
//!
//! * It says what an administrator needs to know of a token that is stored nowhere: until when its revocation must be
//!   remembered, and how wide it is, so that nobody revokes what is wider than themselves.
//! * Anybody can make one up; that revokes a token that does not exist.

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

/// The `jti` of a token with these rights; `random` is [`RANDOM_CHARS`] letters.
pub(super) fn of(
    session: bool,
    scopes: ScopeSet,
    narrowing: &Narrowing,
    expires_at_ms: u64,
    random: &str,
) -> String {
    let prefix = if session { SESSION_PREFIX } else { MINTED_PREFIX };
    let extent = if narrowing.is_none() { WHOLE } else { NARROWED };
    format!("{prefix}{:x}-{extent}{:x}-{random}", expires_at_ms / 1_000, scopes.bits())
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
    let rest = jti.strip_prefix(MINTED_PREFIX).or_else(|| jti.strip_prefix(SESSION_PREFIX))?;
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
