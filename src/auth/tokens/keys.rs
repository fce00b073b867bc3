//! The keys that verify JWTs.
//!
//! * A key has one fixed algorithm; a token's header never chooses it (RFC 8725 §3.1).
//! * A key lists the organizations that it may issue tokens for. Only the daemon's own key may issue them for
//!   all.
//! * One lookup per token: by `kid`, or the default key if there is none. Keys are never tried in turn.
//! * A session records the digest of the key that opened it, not its `kid`. If a key is replaced under the
//!   same `kid`, the sessions of the old key end.
//! * This module works on bytes; `key_file` and `own_key` read files.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};

use crate::auth::rights::credential::KeyDigest;

/// Maximum number of keys that a daemon verifies with, including those of JWKS files.
pub(in crate::auth) const KEYS: usize = 1_024;
/// HS256 needs a key at least as long as the digest (RFC 7518 §3.2).
pub(in crate::auth) const SECRET_BYTES_MIN: usize = 32;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 to 8192 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
    /// Returns the algorithm with this name; `None` for any other name, including `none`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Algorithm> {
        use Algorithm::{EdDsa, Es256, Hs256, Rs256};
        [Hs256, Rs256, Es256, EdDsa].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// The key material that verifies. `Debug` shows only the algorithm.
#[derive(Clone)]
pub(in crate::auth) enum KeyMaterial {
    Hmac(hmac::Key),
    /// Modulus and exponent, big endian without leading zeros.
    Rsa(Box<[u8]>, Box<[u8]>),
    /// An uncompressed point, 65 bytes.
    P256(Box<[u8]>),
    /// 32 bytes.
    Ed25519(Box<[u8]>),
}

impl KeyMaterial {
    /// Makes an HMAC key.
    ///
    /// # Errors
    /// The secret is shorter than the digest.
    pub(in crate::auth) fn secret(bytes: &[u8]) -> Result<KeyMaterial, String> {
        match bytes.len() >= SECRET_BYTES_MIN {
            true => Ok(KeyMaterial::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
            false => Err(format!("an HS256 secret has at least {SECRET_BYTES_MIN} bytes (RFC 7518, 3.2)")),
        }
    }

    pub(in crate::auth) fn algorithm(&self) -> Algorithm {
        match self {
            KeyMaterial::Hmac(_) => Algorithm::Hs256,
            KeyMaterial::Rsa(..) => Algorithm::Rs256,
            KeyMaterial::P256(_) => Algorithm::Es256,
            KeyMaterial::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Adds what distinguishes this key from all others. For an HMAC secret this is a tag, because ring does
    /// not expose the secret.
    fn identify(&self, context: &mut digest::Context) {
        field(context, self.algorithm().name().as_bytes());
        match self {
            KeyMaterial::Hmac(key) => field(context, hmac::sign(key, b"nervewire key digest").as_ref()),
            KeyMaterial::Rsa(n, e) => {
                field(context, n);
                field(context, e);
            }
            KeyMaterial::P256(bytes) | KeyMaterial::Ed25519(bytes) => field(context, bytes),
        }
    }

    /// Returns true if `signature` is this key's signature over `message`. ring compares HMAC in constant
    /// time.
    pub(in crate::auth) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            KeyMaterial::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            KeyMaterial::Rsa(n, e) => RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            KeyMaterial::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            KeyMaterial::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
        }
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({})", self.algorithm().name())
    }
}

/// Adds a field with its length, so that two adjacent fields cannot be confused with others.
fn field(context: &mut digest::Context, bytes: &[u8]) {
    context.update(&(bytes.len() as u64).to_be_bytes());
    context.update(bytes);
}

/// The organizations that a key's tokens may name.
#[derive(Clone, Debug)]
pub(in crate::auth) enum AllowedOrganizations {
    /// Every organization: only the daemon's own key.
    All,
    /// The organizations with these ids.
    Named(Arc<[Box<str>]>),
}

/// One key.
#[derive(Clone, Debug)]
pub(in crate::auth) struct VerifyingKey {
    /// The name by which tokens choose the key. Empty only for the default or sole key.
    pub(in crate::auth) kid: Arc<str>,
    pub(in crate::auth) material: KeyMaterial,
    pub(in crate::auth) organizations: AllowedOrganizations,
    /// The `iss` that its tokens must have. `None`: any `iss`, or none.
    pub(in crate::auth) issuer: Option<Box<str>>,
    /// What the `aud` of its tokens must contain. `None`: [`AUDIENCE`], if a token has an `aud`.
    pub(in crate::auth) audience: Option<Box<str>>,
    /// Maximum lifetime of its tokens after `iat`, in milliseconds. `None`: no limit, for the daemon's own
    /// key.
    pub(in crate::auth) max_token_ms: Option<u64>,
}

impl VerifyingKey {
    pub(in crate::auth) fn digest(&self) -> KeyDigest {
        let mut context = digest::Context::new(&digest::SHA256);
        field(&mut context, self.kid.as_bytes());
        self.material.identify(&mut context);
        for name in [&self.issuer, &self.audience] {
            context.update(&[u8::from(name.is_some())]);
            field(&mut context, name.as_deref().unwrap_or_default().as_bytes());
        }
        let digest = context.finish();
        let first = digest.as_ref().iter().take(8);
        KeyDigest::of_number(first.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(in crate::auth) fn allows_organization(&self, org_id: &str) -> bool {
        match &self.organizations {
            AllowedOrganizations::All => true,
            AllowedOrganizations::Named(ids) => ids.iter().any(|id| id.as_ref() == org_id),
        }
    }
    /// Returns true if this is the daemon's own key.
    pub(in crate::auth) fn is_own(&self) -> bool {
        matches!(self.organizations, AllowedOrganizations::All)
    }
}

/// A key of a set, with its digest.
#[derive(Debug)]
pub(in crate::auth) struct KeyWithDigest {
    key: VerifyingKey,
    pub(in crate::auth) digest: KeyDigest,
}

impl Deref for KeyWithDigest {
    type Target = VerifyingKey;
    fn deref(&self) -> &VerifyingKey {
        &self.key
    }
}

impl KeyWithDigest {
    fn new(key: VerifyingKey) -> Arc<KeyWithDigest> {
        Arc::new(KeyWithDigest { digest: key.digest(), key })
    }
}

/// All keys. The set is replaced as a whole when the keys are read again.
#[derive(Debug, Default)]
pub(in crate::auth) struct KeySet {
    by_kid: HashMap<Arc<str>, Arc<KeyWithDigest>>,
    by_digest: HashMap<KeyDigest, Arc<KeyWithDigest>>,
    default: Option<Arc<KeyWithDigest>>,
}

impl KeySet {
    /// Builds the set of the configured keys, each with a flag whether it is marked as the default, and the
    /// daemon's own key. The own key is the default only if no key is configured.
    ///
    /// # Errors
    /// Two keys with one name, two defaults, too many keys, or a key without `kid` that no token could
    /// choose.
    pub(in crate::auth) fn new(
        own: VerifyingKey,
        configured: Vec<(VerifyingKey, bool)>,
    ) -> Result<KeySet, String> {
        if configured.len() > KEYS {
            return Err(format!("more than {KEYS} keys"));
        }
        let sole = configured.len() == 1;
        let own = KeyWithDigest::new(own);
        let mut set = KeySet::default();
        if configured.is_empty() {
            set.default = Some(Arc::clone(&own));
        }
        set.by_digest.insert(own.digest, Arc::clone(&own));
        set.by_kid.insert(Arc::clone(&own.kid), own);
        for (key, marked) in configured {
            let key = KeyWithDigest::new(key);
            if key.kid.is_empty() && !marked && !sole {
                return Err(
                    "a key has no kid, is not the default and is not the only key: no token could choose it"
                        .into(),
                );
            }
            if (marked || sole) && set.default.replace(Arc::clone(&key)).is_some() {
                return Err("more than one key is marked default".into());
            }
            set.by_digest.insert(key.digest, Arc::clone(&key));
            if !key.kid.is_empty() && set.by_kid.insert(Arc::clone(&key.kid), Arc::clone(&key)).is_some() {
                return Err(format!("two keys have the kid {:?}", key.kid));
            }
        }
        Ok(set)
    }

    /// Returns the one key that may have signed a token with this `kid`.
    pub(in crate::auth) fn choose(&self, kid: Option<&str>) -> Option<&Arc<KeyWithDigest>> {
        match kid {
            Some(kid) => self.by_kid.get(kid),
            None => self.default.as_ref(),
        }
    }

    /// Returns the key that a session recorded, if it is still in the set.
    pub(in crate::auth) fn recorded(&self, digest: KeyDigest) -> Option<&Arc<KeyWithDigest>> {
        self.by_digest.get(&digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, own: bool) -> VerifyingKey {
        VerifyingKey {
            kid: kid.into(),
            material: KeyMaterial::secret(&[7; 32]).expect("long enough"),
            organizations: if own {
                AllowedOrganizations::All
            } else {
                AllowedOrganizations::Named(Arc::new(["acme".into()]))
            },
            issuer: None,
            audience: None,
            max_token_ms: None,
        }
    }

    fn chosen(set: &KeySet, kid: Option<&str>) -> Option<String> {
        set.choose(kid).map(|key| key.kid.to_string())
    }

    #[test]
    fn a_token_without_kid_is_verified_by_the_default_or_only_key() {
        let alone = KeySet::new(key("own", true), vec![]).expect("valid");
        assert_eq!(chosen(&alone, None).as_deref(), Some("own"));
        let one = KeySet::new(key("own", true), vec![(key("a", false), false)]).expect("valid");
        assert_eq!(chosen(&one, None).as_deref(), Some("a"));
        assert_eq!(chosen(&one, Some("own")).as_deref(), Some("own"));
        let keys = |marked| vec![(key("a", false), false), (key("b", false), marked)];
        let two = KeySet::new(key("own", true), keys(true)).expect("valid");
        assert_eq!(chosen(&two, None).as_deref(), Some("b"));
        let undecided = KeySet::new(key("own", true), keys(false)).expect("valid");
        assert_eq!(chosen(&undecided, None), None);
        assert_eq!(chosen(&undecided, Some("c")), None);
    }

    #[test]
    fn ambiguous_sets_are_refused() {
        for keys in [
            vec![(key("a", false), false), (key("a", false), false)],
            vec![(key("a", false), true), (key("b", false), true)],
            vec![(key("own", false), false)],
            vec![(key("a", false), true), (key("", false), false)],
        ] {
            assert!(KeySet::new(key("own", true), keys).is_err());
        }
    }

    #[test]
    fn a_recorded_key_is_found_until_it_changes() {
        let nameless = key("", false);
        let set = KeySet::new(key("own", true), vec![(nameless.clone(), true)]).expect("valid");
        assert!(set.recorded(nameless.digest()).is_some_and(|key| key.kid.is_empty()));
        assert!(set.recorded(key("own", true).digest()).is_some());
        let name = |name: &str| Some(Box::from(name));
        for other in [
            key("a", false),
            VerifyingKey {
                material: KeyMaterial::secret(&[8; 32]).expect("long enough"),
                ..nameless.clone()
            },
            VerifyingKey { material: KeyMaterial::Ed25519([7; 32].into()), ..nameless.clone() },
            VerifyingKey { issuer: name("x"), ..nameless.clone() },
            VerifyingKey { audience: name("x"), ..nameless.clone() },
            VerifyingKey { audience: name(""), ..nameless.clone() },
        ] {
            assert!(set.recorded(other.digest()).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_key_is_valid_for_its_named_organizations_only() {
        assert!(key("a", false).allows_organization("acme"));
        assert!(!key("a", false).allows_organization("acme2"));
        assert!(key("own", true).allows_organization("anyone"));
        assert!(!format!("{:?}", key("a", false)).contains('7'));
    }
}
