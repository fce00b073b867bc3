//! A password as it was sent, and the hash that is stored.
//!
//! * A password is wiped from memory when it is dropped. `Debug` does not show it, nor does the error for an
//!   unreadable body.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Minimum length of a new password, in characters.
pub const PASSWORD_CHARS: usize = 8;
/// Maximum length of a password, in bytes. Limits the time that hashing takes.
pub const PASSWORD_BYTES: usize = 1_024;
/// A password as it was sent.
pub struct Password(pub(super) Zeroizing<String>);

impl Password {
    /// Checks that it may become a user's password.
    ///
    /// # Errors
    /// What is wrong with the password.
    pub fn check_new(&self) -> Result<(), String> {
        if self.0.chars().count() < PASSWORD_CHARS {
            return Err(format!("must have at least {PASSWORD_CHARS} characters"));
        }
        self.check_length()
    }

    /// Checks that it is not too long to be any password.
    ///
    /// # Errors
    /// What is wrong with the password.
    pub fn check_length(&self) -> Result<(), String> {
        match self.0.len() <= PASSWORD_BYTES {
            true => Ok(()),
            false => Err(format!("must be at most {PASSWORD_BYTES} bytes")),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

impl<'de> Deserialize<'de> for Password {
    /// Reads raw JSON first, because serde's own errors would quote a value that is not a string.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Password, D::Error> {
        let raw: Box<str> = Box::<RawValue>::deserialize(from)?.into();
        let raw = Zeroizing::new(String::from(raw));
        let text = serde_json::from_str(&raw).map_err(|_| D::Error::custom("must be a string"))?;
        Ok(Password(Zeroizing::new(text)))
    }
}

/// The stored form of a password: a PHC string with its own parameters and salt.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub(super) String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(redacted)")
    }
}

/// Why a password was neither hashed nor verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many requests are waiting: 503.
    #[error("too many passwords are being verified; try again")]
    Busy,
    /// Too many requests of this address or organization are waiting: 429.
    #[error("too many passwords of this address or organization are being verified; try again")]
    Share,
    /// There are no random bytes, or no memory: 500.
    #[error("a password could not be hashed")]
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        serde_json::from_value(text.into()).expect("a password")
    }

    #[test]
    fn debug_and_errors_never_show_a_password() {
        assert_eq!(format!("{:?}", password("sesame")), "Password(redacted)");
        for wrong in ["31415926535", "[\"sesame\"]", "{\"sesame\":1}", "true", "null"] {
            let error = serde_json::from_str::<Password>(wrong).expect_err(wrong).to_string();
            assert!(!error.contains("sesame") && !error.contains("31415"), "{error}");
        }
        assert!(password("1234567").check_new().is_err());
        assert!(password("äöüäöüäö").check_new().is_ok(), "characters, not bytes");
        assert!(password(&"x".repeat(PASSWORD_BYTES)).check_new().is_ok());
        assert!(password(&"x".repeat(PASSWORD_BYTES + 1)).check_new().is_err());
    }
}
