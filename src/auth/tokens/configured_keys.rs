//! The keys of `auth.jwt_keys`, read from the configuration and from files.
//!
//! * Everything is checked before a port opens. An error names the index of a key, never its content.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::key_file::{self, FILE_BYTES, SetKey};
use super::keys::{Algorithm, AllowedOrganizations, KeyMaterial, KeySet, VerifyingKey};
use super::own_key::OwnKey;
use crate::auth::error::AuthConfigError;
use crate::config::{self, JwtAlgorithm, JwtKeyMaterial};
use crate::ids::is_org_id;

/// One entry of `auth.jwt_keys`.
#[derive(Debug, Clone)]
pub struct JwtKeySettings {
    /// The name by which tokens choose the key. `None` for a JWKS file, whose keys have their own.
    pub kid: Option<String>,
    /// Whether the key verifies tokens without `kid`.
    pub default: bool,
    /// Where the key material comes from.
    pub source: KeySource,
    /// The organizations that its tokens may name; at least one, no wildcard.
    pub organizations: Vec<String>,
    /// The `iss` that its tokens must have; `None`: any.
    pub issuer: Option<String>,
    /// What the `aud` of its tokens must contain. `None`: `nervewire`, if a token has an `aud`.
    pub audience: Option<String>,
}

impl From<&config::JwtKey> for JwtKeySettings {
    fn from(key: &config::JwtKey) -> Self {
        let source = match &key.material {
            JwtKeyMaterial::Secret(secret) => KeySource::Secret(Zeroizing::new(secret.expose().to_vec())),
            JwtKeyMaterial::PublicKeyFile { path, alg } => {
                KeySource::PublicKeyFile(path.clone(), (*alg).into())
            }
            JwtKeyMaterial::JwksFile { path, alg } => {
                KeySource::JwksFile(path.clone(), alg.map(Algorithm::from))
            }
        };
        JwtKeySettings {
            kid: key.kid.clone(),
            default: key.default,
            source,
            organizations: key.organizations.clone(),
            issuer: key.issuer.clone(),
            audience: key.audience.clone(),
        }
    }
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Hs256 => Algorithm::Hs256,
            JwtAlgorithm::Rs256 => Algorithm::Rs256,
            JwtAlgorithm::Es256 => Algorithm::Es256,
            JwtAlgorithm::EdDsa => Algorithm::EdDsa,
        }
    }
}

/// The source of a configured key, with its algorithm.
#[derive(Clone)]
pub enum KeySource {
    /// HS256 with these bytes, at least 32.
    Secret(Zeroizing<Vec<u8>>),
    /// A PEM public key for this algorithm.
    PublicKeyFile(PathBuf, Algorithm),
    /// A JWK set. With an algorithm, only its keys for that algorithm.
    JwksFile(PathBuf, Option<Algorithm>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::Secret(_) => f.write_str("Secret(redacted)"),
            KeySource::PublicKeyFile(path, algorithm) => write!(f, "PublicKeyFile({path:?}, {algorithm:?})"),
            KeySource::JwksFile(path, only) => write!(f, "JwksFile({path:?}, {only:?})"),
        }
    }
}

/// Reads all configured keys.
pub(in crate::auth) fn key_set(
    own: &OwnKey,
    settings: &[JwtKeySettings],
    max_token_ms: u64,
) -> Result<KeySet, AuthConfigError> {
    let mut keys = Vec::new();
    for (index, entry) in settings.iter().enumerate() {
        let refuse = |reason: String| AuthConfigError::Key { index, reason };
        if entry.organizations.is_empty() || !entry.organizations.iter().all(|id| is_org_id(id)) {
            return Err(refuse("names no organizations, or an invalid one".into()));
        }
        let materials = materials(entry, refuse)?;
        let sole = materials.len() == 1;
        for SetKey { kid, material } in materials {
            let key = VerifyingKey {
                kid: kid.or_else(|| sole.then(|| entry.kid.clone()).flatten()).unwrap_or_default().into(),
                material,
                organizations: AllowedOrganizations::Named(
                    entry.organizations.iter().map(|id| id.as_str().into()).collect(),
                ),
                issuer: entry.issuer.as_deref().map(Into::into),
                audience: entry.audience.as_deref().map(Into::into),
                max_token_ms: Some(max_token_ms),
            };
            keys.push((key, entry.default));
        }
    }
    KeySet::new(own.verifying(), keys).map_err(AuthConfigError::Keys)
}

fn materials(
    entry: &JwtKeySettings,
    refuse: impl Fn(String) -> AuthConfigError,
) -> Result<Vec<SetKey>, AuthConfigError> {
    match &entry.source {
        KeySource::Secret(bytes) => {
            let material = KeyMaterial::secret(bytes).map_err(refuse)?;
            Ok(vec![SetKey { kid: entry.kid.clone(), material }])
        }
        KeySource::PublicKeyFile(path, algorithm) => {
            let material = key_file::from_pem(&read(path)?).map_err(|reason| bad_file(path, reason))?;
            match material.algorithm() == *algorithm {
                true => Ok(vec![SetKey { kid: entry.kid.clone(), material }]),
                false => Err(bad_file(path, format!("is not a key for {}", algorithm.name()))),
            }
        }
        KeySource::JwksFile(path, only) => {
            key_file::from_jwks(&read(path)?, *only).map_err(|reason| bad_file(path, reason))
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, AuthConfigError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes));
    file.map_err(|source| AuthConfigError::File { path: path.display().to_string(), source })?;
    match bytes.len() as u64 > FILE_BYTES {
        true => Err(bad_file(path, format!("is longer than {FILE_BYTES} bytes"))),
        false => Ok(bytes),
    }
}

fn bad_file(path: &Path, reason: String) -> AuthConfigError {
    AuthConfigError::KeyFile { path: path.display().to_string(), reason }
}
