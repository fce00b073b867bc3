//! `auth.jwt_keys[]`: the keys of other issuers that verify JWTs, and the organizations each key is valid
//! for.
//!
//! * A key pins one algorithm. The token's header never chooses the algorithm.
//! * A key lists its organizations. Only the daemon's own key, which is not configured here, is valid for
//!   all.
//! * An error text never contains a secret.
//!
//! This module opens no key files. `auth` opens them and checks their content.

use std::path::PathBuf;

use super::nearest::nearest;
use super::raw::{RawValue, expects};
use super::secret::{REDACTED, Secret};
use super::values::words;

/// Most keys of one daemon. A rotation needs fewer.
const KEYS_MAX: usize = 64;
/// Least bytes of an HS256 key: the size of the digest (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Most bytes of a `kid` or an organization id (protocol §9).
const NAME_BYTES_MAX: usize = 128;
/// Most bytes of an issuer or an audience, which are often URLs.
const CLAIM_BYTES_MAX: usize = 2_048;
const FIELDS: &[&str] = &[
    "kid",
    "default",
    "alg",
    "secret",
    "public_key_file",
    "jwks_file",
    "organizations",
    "issuer",
    "audience",
];

words! {
    /// A signature algorithm of RFC 7518 §3.1 or RFC 8037 §3.1.
    JwtAlgorithm {
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}

/// One entry of `auth.jwt_keys`.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtKey {
    /// The `kid` of the tokens that this key verifies, 1–128 bytes. Never set with a JWKS file, whose keys
    /// have their own `kid`.
    pub kid: Option<String>,
    /// Whether this key verifies tokens without a `kid`. At most one key has it, and never a JWKS file.
    pub default: bool,
    /// The key material and the algorithm that it pins.
    pub material: JwtKeyMaterial,
    /// Ids of the organizations that the tokens may name, at least one.
    pub organizations: Vec<String>,
    /// The `iss` that the tokens must carry. `None` accepts any or no `iss`.
    pub issuer: Option<String>,
    /// A value that the `aud` of the tokens must contain. With `None`, an `aud` must contain `nervewire` if
    /// there is one.
    pub audience: Option<String>,
}

/// The key material.
#[derive(Clone, Debug, PartialEq)]
pub enum JwtKeyMaterial {
    /// An HS256 secret of at least 32 bytes.
    Secret(Secret),
    /// A PEM public key for RS256, ES256 or EdDSA.
    PublicKeyFile {
        /// The path, relative to the working directory.
        path: PathBuf,
        /// The algorithm, never HS256.
        alg: JwtAlgorithm,
    },
    /// A JWK set (RFC 7517 §5). Each key in it is pinned by its own `alg`.
    JwksFile {
        /// The path, relative to the working directory.
        path: PathBuf,
        /// If set, keys of other algorithms are ignored. Never HS256.
        alg: Option<JwtAlgorithm>,
    },
}

pub(super) fn from_raw(value: &RawValue) -> Result<Vec<JwtKey>, String> {
    let RawValue::List(items) = value else {
        // The text is not repeated here, because it may contain a secret.
        return Err(format!("expects a list of tables (JSON in the environment), got {}", value.type_name()));
    };
    if items.len() > KEYS_MAX {
        return Err(format!("expects at most {KEYS_MAX} keys, got {}", items.len()));
    }
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match entry(item) {
            Ok(key) => keys.push(key),
            Err(what) => problems.push(format!("[{i}]{what}")),
        }
    }
    if problems.is_empty() {
        together(&keys, &mut problems);
    }
    if problems.is_empty() { Ok(keys) } else { Err(problems.join("; ")) }
}

/// Parses one entry. The error starts with `.field` or with a space.
fn entry(item: &RawValue) -> Result<JwtKey, String> {
    let RawValue::Table(fields) = item else {
        return Err(format!(" expects a table, got {}", item.type_name()));
    };
    if let Some((name, _)) = fields.iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
        let meant = nearest(name, FIELDS.iter().copied()).unwrap_or_default();
        return Err(format!(".{name} is unknown; did you mean {meant}?"));
    }
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    let text = |name: &str| match field(name) {
        None => Ok(None),
        Some(RawValue::Str(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(other) => Err(format!(".{name} expects a non-empty string, got {}", other.type_name())),
    };
    let kid = text("kid")?;
    if kid.as_ref().is_some_and(|kid| kid.len() > NAME_BYTES_MAX) {
        return Err(format!(".kid is longer than {NAME_BYTES_MAX} bytes"));
    }
    let default = match field("default") {
        None => false,
        Some(RawValue::Bool(flag)) => *flag,
        Some(other) => return Err(format!(".default {}", expects("true or false", other))),
    };
    let alg = match text("alg")? {
        None => None,
        Some(word) => Some(word.parse::<JwtAlgorithm>().map_err(|words| {
            format!(".alg {}", expects(&format!("one of {}", words.join(", ")), &RawValue::Str(word)))
        })?),
    };
    let material = match (text("secret")?, text("public_key_file")?, text("jwks_file")?) {
        (Some(text), None, None) => secret(text, alg)?,
        (None, Some(path), None) => match alg {
            Some(alg) if alg != JwtAlgorithm::Hs256 => {
                JwtKeyMaterial::PublicKeyFile { path: path.into(), alg }
            }
            _ => return Err(".alg expects RS256, ES256 or EdDSA beside public_key_file".to_owned()),
        },
        (None, None, Some(path)) => {
            if alg == Some(JwtAlgorithm::Hs256) {
                return Err(".alg expects RS256, ES256 or EdDSA, or nothing, beside jwks_file".to_owned());
            }
            if kid.is_some() || default {
                return Err(
                    " has a jwks_file, whose keys have their own kid: leave out kid and default".to_owned()
                );
            }
            JwtKeyMaterial::JwksFile { path: path.into(), alg }
        }
        _ => return Err(" expects exactly one of secret, public_key_file, jwks_file".to_owned()),
    };
    let claim = |name: &str| match text(name)? {
        Some(claim) if claim.len() > CLAIM_BYTES_MAX => {
            Err(format!(".{name} is longer than {CLAIM_BYTES_MAX} bytes"))
        }
        claim => Ok(claim),
    };
    Ok(JwtKey {
        kid,
        default,
        material,
        organizations: organizations(field("organizations"))?,
        issuer: claim("issuer")?,
        audience: claim("audience")?,
    })
}

fn secret(text: String, alg: Option<JwtAlgorithm>) -> Result<JwtKeyMaterial, String> {
    if alg.is_some_and(|alg| alg != JwtAlgorithm::Hs256) {
        return Err(".alg expects HS256 beside secret".to_owned());
    }
    if text == REDACTED {
        return Err(format!(
            ".secret is {REDACTED:?}, which check-config prints instead of a secret: put the secret back"
        ));
    }
    if text.len() < SECRET_BYTES_MIN {
        return Err(format!(".secret expects at least {SECRET_BYTES_MIN} bytes (RFC 7518, 3.2)"));
    }
    Ok(JwtKeyMaterial::Secret(Secret::new(text)))
}

fn organizations(value: Option<&RawValue>) -> Result<Vec<String>, String> {
    let refuse = || {
        ".organizations expects a list of the organization ids its tokens may name (letters, digits, `.`, `_`, `-`); \
         `*` is not one of them"
            .to_owned()
    };
    let Some(RawValue::List(items)) = value else { return Err(refuse()) };
    let ids: Option<Vec<String>> = items
        .iter()
        .map(|item| match item {
            RawValue::Str(id)
                if (1..=NAME_BYTES_MAX).contains(&id.len())
                    && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) =>
            {
                Some(id.clone())
            }
            _ => None,
        })
        .collect();
    ids.filter(|ids| !ids.is_empty()).ok_or_else(refuse)
}

/// Checks the relations between the entries.
fn together(keys: &[JwtKey], problems: &mut Vec<String>) {
    if keys.iter().filter(|key| key.default).count() > 1 {
        problems.push("more than one key is marked default".to_owned());
    }
    for (i, key) in keys.iter().enumerate() {
        let repeated = keys.iter().take(i).any(|other| key.kid.is_some() && other.kid == key.kid);
        if repeated {
            problems.push(format!("[{i}].kid is the same as an earlier one"));
        }
        let jwks = matches!(key.material, JwtKeyMaterial::JwksFile { .. });
        if keys.len() > 1 && key.kid.is_none() && !key.default && !jwks {
            problems.push(format!("[{i}] needs a kid, or default = true: otherwise no token can choose it"));
        }
    }
}

/// The keys as a file would write them, with secrets redacted.
pub(super) fn to_raw(keys: &[JwtKey]) -> RawValue {
    let text = |text: &str| RawValue::Str(text.to_owned());
    let one = |key: &JwtKey| {
        let mut fields = Vec::new();
        if let Some(kid) = &key.kid {
            fields.push(("kid".to_owned(), text(kid)));
        }
        if key.default {
            fields.push(("default".to_owned(), RawValue::Bool(true)));
        }
        let (name, value, alg) = match &key.material {
            JwtKeyMaterial::Secret(_) => ("secret", REDACTED.to_owned(), Some(JwtAlgorithm::Hs256)),
            JwtKeyMaterial::PublicKeyFile { path, alg } => {
                ("public_key_file", path.display().to_string(), Some(*alg))
            }
            JwtKeyMaterial::JwksFile { path, alg } => ("jwks_file", path.display().to_string(), *alg),
        };
        if let Some(alg) = alg {
            fields.push(("alg".to_owned(), text(alg.word())));
        }
        fields.push((name.to_owned(), RawValue::Str(value)));
        fields.push((
            "organizations".to_owned(),
            RawValue::List(key.organizations.iter().cloned().map(RawValue::Str).collect()),
        ));
        for (name, claim) in [("issuer", &key.issuer), ("audience", &key.audience)] {
            fields.extend(claim.as_deref().map(|claim| (name.to_owned(), text(claim))));
        }
        RawValue::Table(fields)
    };
    RawValue::List(keys.iter().map(one).collect())
}
