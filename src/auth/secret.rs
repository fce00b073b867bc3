//! Text that is shown once. It is wiped on drop, and `Debug` does not show it.

use std::fmt;

use zeroize::Zeroizing;

/// A new credential on its way to the requester.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }
    /// The text. All uses of the secret can be found by this method's name.
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
