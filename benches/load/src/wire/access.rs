//! Where a server is reached, and as whom.

use std::net::SocketAddr;

/// The address of a server and a credential for it.
#[derive(Clone, Debug)]
pub struct Access {
    /// The address.
    pub addr: SocketAddr,
    /// The value of the `Host` header.
    pub host: String,
    /// The header line of the credential with its line end; empty if there is none.
    pub credential: String,
}

impl Access {
    /// Returns the same address with another API key or token.
    #[must_use]
    pub fn with_credential(&self, credential: &str) -> Access {
        Access { credential: credential_header(credential), ..self.clone() }
    }
}

/// Returns the header line of an API key or token; empty if there is none.
pub(crate) fn credential_header(credential: &str) -> String {
    match credential {
        "" => String::new(),
        key if key.starts_with("nwk_") => format!("X-API-Key: {key}\r\n"),
        token => format!("Authorization: Bearer {token}\r\n"),
    }
}
