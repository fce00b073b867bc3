//! A secret: wiped on drop, compared in constant time, never printed by `Debug` or `Display`.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The word that a printed configuration shows instead of a secret. It is refused when loaded.
pub(super) const REDACTED: &str = "(redacted)";

/// The bytes of a secret. [`Secret::expose`] is the only access to them, so a text search finds every use.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes. If the caller keeps a copy, the caller has to wipe it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for signing and verifying.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_bytes() {
        let shown = format!("{:?} {:#?}", Secret::new("correct horse"), Some(Secret::new("correct horse")));
        assert!(!shown.contains("horse"), "{shown}");
        assert!(!shown.contains("104"), "{shown}");
    }

    #[test]
    fn equality_is_by_bytes() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("aa"));
    }
}
