//! Text that is shown once: wiped on drop, absent from `Debug`.

use std::fmt;

use zeroize::Zeroizing;

/// A new credential on its way to the one who asked for it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }
    /// The text. Every use of it is found by this name.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
