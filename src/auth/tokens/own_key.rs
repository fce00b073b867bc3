//! The daemon's own key, which signs the tokens minted here and encrypts reconnect tickets.
//!
//! * It is one file in the data directory, readable by its owner only. A file that others can read, or a
//!   damaged file, is refused: to replace it silently would invalidate every token.
//! * The file is created atomically: a temporary file is written, synced and renamed.
//! * The encryption key is derived with a label that cannot be a JWT (it contains spaces), so a signature and
//!   a ticket cannot be confused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::keys::{AllowedOrganizations, KeyMaterial, VerifyingKey};
use crate::auth::error::AuthConfigError;

/// The file's name in the data directory. It holds 32 random bytes as base64url (the `k` of a JWK).
pub(in crate::auth) const FILE: &str = "auth.key";
/// The default audience of the daemon.
pub(in crate::auth) const AUDIENCE: &str = "nervewire";

const SEAL_LABEL: &[u8] = b"nervewire reconnect ticket 1";

/// The daemon's own key.
pub struct OwnKey {
    /// `own-` and a digest of the key, so a new key has a new name.
    pub(in crate::auth) kid: Arc<str>,
    /// Signs and verifies tokens.
    pub(in crate::auth) jwt: hmac::Key,
    /// Encrypts reconnect tickets.
    pub(in crate::auth) seal: Zeroizing<[u8; 32]>,
}

impl OwnKey {
    /// Returns the key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let jwt = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let mut seal = Zeroizing::new([0; 32]);
        seal.copy_from_slice(hmac::sign(&jwt, SEAL_LABEL).as_ref());
        let name = digest::digest(&digest::SHA256, bytes);
        let kid = format!("own-{}", BASE64.encode(&name.as_ref()[..6]));
        OwnKey { kid: kid.into(), jwt, seal }
    }

    /// Reads the key of a data directory, or creates it if there is none. The caller holds the directory's
    /// lock.
    ///
    /// # Errors
    /// The file cannot be read or written, can be read by others, or is damaged.
    pub fn load_or_make(data_dir: &Path) -> Result<Self, AuthConfigError> {
        let path = data_dir.join(FILE);
        let shown = path.display().to_string();
        let file_error = |source| AuthConfigError::File { path: shown.clone(), source };
        match File::open(&path) {
            Ok(file) => read(file).map_err(file_error)?.map_err(|reason| {
                let path = shown.clone();
                AuthConfigError::KeyFile { path, reason: reason.to_owned() }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(data_dir).map_err(file_error),
            Err(error) => Err(file_error(error)),
        }
    }

    pub(in crate::auth) fn verifying(&self) -> VerifyingKey {
        VerifyingKey {
            kid: Arc::clone(&self.kid),
            material: KeyMaterial::Hmac(self.jwt.clone()),
            organizations: AllowedOrganizations::All,
            issuer: None,
            audience: None,
            max_token_ms: None,
        }
    }
}

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnKey({})", self.kid)
    }
}

fn read(mut file: File) -> io::Result<Result<OwnKey, &'static str>> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Ok(Err("can be read by others: chmod 600"));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(64));
    (&mut file).take(64).read_to_end(&mut text)?;
    let mut bytes = Zeroizing::new([0; 32]);
    let decoded = BASE64.decode_slice(text.trim_ascii(), bytes.as_mut());
    Ok(match decoded {
        Ok(32) => Ok(OwnKey::from_bytes(&bytes)),
        _ => Err("is damaged: expected 43 characters of base64url"),
    })
}

fn make(data_dir: &Path) -> io::Result<OwnKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(bytes.as_mut())
        .map_err(|_| io::Error::other("the system returned no random bytes"))?;
    let text = Zeroizing::new(BASE64.encode(bytes.as_ref()) + "\n");
    let new = data_dir.join(format!("{FILE}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, data_dir.join(FILE))?;
    File::open(data_dir)?.sync_all()?;
    Ok(OwnKey::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_created_once_and_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = OwnKey::load_or_make(dir.path()).expect("created");
        let again = OwnKey::load_or_make(dir.path()).expect("read");
        assert_eq!(first.kid, again.kid);
        assert_eq!(first.seal, again.seal);
        let mode = fs::metadata(dir.path().join(FILE)).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = OwnKey::load_or_make(tempfile::tempdir().expect("a directory").path()).expect("created");
        assert_ne!(first.kid, other.kid);
    }

    #[test]
    fn a_key_file_that_others_can_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        OwnKey::load_or_make(dir.path()).expect("created");
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(OwnKey::load_or_make(dir.path()), Err(AuthConfigError::KeyFile { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, "short").expect("write");
        let error = OwnKey::load_or_make(dir.path()).expect_err("damaged");
        assert!(!error.to_string().contains("short"), "{error}");
    }
}
