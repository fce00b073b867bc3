//! JSON Web Tokens and the keys that verify them.
//!
//! * [`jwt`]: verifies and signs a token.
//! * [`jti`]: the `jti` of tokens minted here, which says how wide the token is and who minted it.
//! * [`keys`]: the verifying keys. [`configured_keys`] builds them from `auth.jwt_keys`, and [`key_file`]
//!   reads PEM and JWKS files.
//! * [`own_key`]: the daemon's own key, in the data directory.

pub(super) mod configured_keys;
pub(super) mod jti;
pub(super) mod jwt;
pub(super) mod key_file;
pub(super) mod keys;
pub(super) mod own_key;
