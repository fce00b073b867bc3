//! Reads public keys from files: one PEM key (RFC 7468 §13), or a JWK set (RFC 7517 §5).
//!
//! * An unsupported key is an error in PEM and is skipped in a set, because issuers publish keys for other
//!   uses too.
//! * A set without a usable key is an error, and so is a usable key that is malformed.
//! * This module has no rules about `kid`: `keys` checks the complete key set.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::keys::{Algorithm, KeyMaterial};

/// Maximum size of a key file, in bytes.
pub(in crate::auth) const FILE_BYTES: u64 = 1 << 20;

/// Object identifiers of the three kinds of keys, as DER contents.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]; // RFC 8017 A.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]; // RFC 5480 §2.1.1
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]; // RFC 5480 §2.1.1.1
const ED25519: &[u8] = &[0x2b, 0x65, 0x70]; // RFC 8410 §3

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

/// Reads the first `PUBLIC KEY` section of a PEM file.
pub(in crate::auth) fn from_pem(pem: &[u8]) -> Result<KeyMaterial, String> {
    let info = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|_| "holds no PEM section PUBLIC KEY".to_owned())?;
    from_spki(&info).ok_or_else(|| "holds no RSA, P-256 or Ed25519 public key".to_owned())
}

/// One usable key of a set.
#[derive(Debug)]
pub(in crate::auth) struct SetKey {
    pub(in crate::auth) kid: Option<String>,
    pub(in crate::auth) material: KeyMaterial,
}

/// Returns the keys of a set that can verify JWTs; with `only`, those of that algorithm.
pub(in crate::auth) fn from_jwks(json: &[u8], only: Option<Algorithm>) -> Result<Vec<SetKey>, String> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|_| "is not a JWK set".to_owned())?;
    let (mut keys, mut kids) = (Vec::new(), HashSet::new());
    for (index, value) in set.keys.into_iter().enumerate() {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
        let Some(algorithm) = jwk.algorithm() else { continue };
        if only.is_some_and(|only| only != algorithm) {
            continue;
        }
        let material = jwk.material().map_err(|reason| format!("keys[{index}]: {reason}"))?;
        // Otherwise the order of an issuer's list would decide which of the two is used.
        if jwk.kid.as_ref().is_some_and(|kid| !kids.insert(kid.clone())) {
            return Err(format!(
                "keys[{index}]: its kid {:?} is already used by an earlier key",
                jwk.kid.unwrap_or_default()
            ));
        }
        keys.push(SetKey { kid: jwk.kid, material });
    }
    match keys.is_empty() {
        true => Err("holds no key usable for HS256, RS256, ES256 or EdDSA".to_owned()),
        false => Ok(keys),
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    use_: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// Returns the algorithm that the key verifies. `None`: the key does not verify, or its algorithm is not
    /// supported.
    fn algorithm(&self) -> Option<Algorithm> {
        let for_signatures = self.use_.as_deref().is_none_or(|u| u == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Algorithm::Hs256,
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return None,
        };
        // RFC 9864 names EdDSA over this curve "Ed25519"; tokens still say EdDSA.
        let named =
            |name: &str| name == algorithm.name() || (algorithm == Algorithm::EdDsa && name == "Ed25519");
        (for_signatures && self.alg.as_deref().is_none_or(named)).then_some(algorithm)
    }

    fn material(&self) -> Result<KeyMaterial, String> {
        let field = |name: &str, value: &Option<String>| {
            let value = value.as_deref().ok_or_else(|| format!("{name} is missing"))?;
            BASE64.decode(value.trim_end_matches('=')).map_err(|_| format!("{name} is not base64url"))
        };
        let sized = |name: &str, value: &Option<String>| match field(name, value)? {
            bytes if bytes.len() == 32 => Ok(bytes),
            bytes => Err(format!("{name} has {} bytes instead of 32", bytes.len())),
        };
        match self.kty.as_str() {
            "oct" => KeyMaterial::secret(&zeroize::Zeroizing::new(field("k", &self.k)?)),
            "RSA" => rsa(&field("n", &self.n)?, &field("e", &self.e)?).ok_or_else(rsa_size),
            "EC" => {
                let point = [vec![4], sized("x", &self.x)?, sized("y", &self.y)?].concat();
                Ok(KeyMaterial::P256(point.into()))
            }
            _ => Ok(KeyMaterial::Ed25519(sized("x", &self.x)?.into())),
        }
    }
}

fn rsa_size() -> String {
    "an RSA key has 2048 to 8192 bits".to_owned()
}

/// ring needs numbers without leading zeros and refuses keys outside 2048–8192 bits at every token. They are
/// checked here once instead.
fn rsa(n: &[u8], e: &[u8]) -> Option<KeyMaterial> {
    let strip = |bytes: &[u8]| -> Box<[u8]> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().into()
    };
    let (n, e) = (strip(n), strip(e));
    let bits = (n.len() * 8).checked_sub(n.first()?.leading_zeros() as usize)?;
    ((2048..=8192).contains(&bits) && !e.is_empty()).then_some(KeyMaterial::Rsa(n, e))
}

/// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
fn from_spki(der: &[u8]) -> Option<KeyMaterial> {
    let (info, rest) = element(SEQUENCE, der)?;
    let (algorithm, key) = element(SEQUENCE, info)?;
    let (oid, parameters) = element(OBJECT_ID, algorithm)?;
    let (bits, after) = element(BIT_STRING, key)?;
    let (0, bits) = bits.split_first()? else { return None }; // a whole number of bytes has no unused bits
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    if oid == RSA_ENCRYPTION {
        let (numbers, _) = element(SEQUENCE, bits)?;
        let (n, e) = element(INTEGER, numbers)?;
        let (e, _) = element(INTEGER, e)?;
        return rsa(n, e);
    }
    if oid == EC_PUBLIC_KEY {
        let (curve, _) = element(OBJECT_ID, parameters)?;
        let uncompressed = bits.len() == 65 && bits.first() == Some(&4);
        return (curve == PRIME256V1 && uncompressed).then(|| KeyMaterial::P256(bits.into()));
    }
    (oid == ED25519 && bits.len() == 32).then(|| KeyMaterial::Ed25519(bits.into()))
}

/// Returns the contents of a DER element of `tag` at the start of `der`, and the bytes after it (X.690 §8.1,
/// lengths up to 65,535).
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match (*length, rest) {
        (short @ 0..=0x7f, rest) => (usize::from(short), rest),
        (0x81, [one, rest @ ..]) => (usize::from(*one), rest),
        (0x82, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_uses_are_skipped_and_malformed_ones_reported() {
        let k = BASE64.encode([7; 32]);
        let json = format!(
            r#"{{"keys":[{{"kty":"oct","k":"{k}","use":"enc"}},{{"kty":"EC","crv":"P-384","x":"","y":""}},
                {{"kty":"RSA","alg":"RS512","n":"AQ","e":"AQAB"}},7,{{"kty":"oct","k":"{k}","kid":"a","alg":"HS256"}}]}}"#
        );
        let keys = from_jwks(json.as_bytes(), None).expect("one usable key");
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].kid.as_deref(), Some("a"));
        assert!(from_jwks(json.as_bytes(), Some(Algorithm::EdDsa)).is_err());
        let key = format!(r#"{{"kty":"oct","k":"{k}","kid":"a"}}"#);
        let twice = format!(r#"{{"keys":[{key},{key}]}}"#);
        for (bad, expected) in [
            (r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#, "at least 32 bytes"),
            (r#"{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}"#, "2048 to 8192"),
            (r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQ"}]}"#, "1 bytes instead of 32"),
            (r#"{"keys":[{"kty":"OKP","crv":"Ed25519"}]}"#, "x is missing"),
            (&twice, "keys[1]: its kid \"a\" is already used by an earlier key"),
            (r#"{"keys":[]}"#, "no key usable"),
            ("[]", "is not a JWK set"),
        ] {
            let error = from_jwks(bad.as_bytes(), None).expect_err(bad);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_public_key_is_refused() {
        let pem = |label: &str, der: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        for bad in [String::new(), pem("PRIVATE KEY", &[0x30, 0]), pem("PUBLIC KEY", &[0x30, 0])] {
            assert!(from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
        for length in 0..64 {
            assert!(from_spki(&vec![0x30; length]).is_none());
        }
    }
}
