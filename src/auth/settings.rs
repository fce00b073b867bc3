//! The settings of `auth`.

use super::tokens::configured_keys::JwtKeySettings;
use crate::config;

/// Settings of [`super::Auth`].
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Keys of other issuers. Empty: only tokens minted here are accepted.
    pub jwt_keys: Vec<JwtKeySettings>,
    /// Whether `?token=` is accepted.
    pub token_in_query: bool,
    /// Allowed web origins. Empty: same origin and loopback.
    pub allowed_origins: Vec<String>,
    /// Failed credentials per address (IPv6 /64) and minute before 429; 0 = no limit.
    pub failures_per_minute: u32,
    /// Maximum lifetime of a configured key's tokens after `iat`, in milliseconds.
    pub max_token_ms: u64,
}

impl Default for AuthSettings {
    fn default() -> Self {
        AuthSettings {
            jwt_keys: Vec::new(),
            token_in_query: true,
            allowed_origins: Vec::new(),
            failures_per_minute: 60,
            max_token_ms: 30 * 24 * 3_600_000,
        }
    }
}

impl From<&config::Config> for AuthSettings {
    fn from(config: &config::Config) -> Self {
        AuthSettings {
            jwt_keys: config.auth.jwt_keys.iter().map(JwtKeySettings::from).collect(),
            token_in_query: config.token_in_query,
            allowed_origins: config.allowed_origins.clone(),
            failures_per_minute: u32::try_from(config.auth.failures_per_minute).unwrap_or(u32::MAX),
            max_token_ms: config.auth.max_token_seconds.saturating_mul(1_000),
        }
    }
}
