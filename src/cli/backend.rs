//! The interface for administration, implemented for a running daemon over REST and for the data directory of
//! a stopped one.

use serde::{Deserialize, Serialize};

use super::exit::CliError;

/// Administration of a daemon. Calls block, because a command does one thing and waits for it.
pub trait AdminBackend {
    /// Creates an organization.
    fn create_org(&mut self, new: &NewOrganization) -> Result<Organization, CliError>;
    /// Returns all organizations.
    fn list_orgs(&mut self) -> Result<Vec<Organization>, CliError>;
    /// Deletes an organization.
    fn delete_org(&mut self, id: &str) -> Result<(), CliError>;
    /// Creates an API key.
    fn create_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError>;
    /// Returns the keys of an organization; `None` means the credential's own, or `default`.
    fn list_keys(&mut self, org_id: Option<&str>) -> Result<Vec<KeyInfo>, CliError>;
    /// Creates an operator key.
    fn create_operator_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError>;
    /// Returns what deleting this key would break, if anything, as a sentence without its full stop.
    fn warning_of_key(&mut self, key_id: &str) -> Option<String>;
    /// Deletes an API key of an organization; `None` as for [`AdminBackend::list_keys`].
    fn delete_key(&mut self, org_id: Option<&str>, key_id: &str) -> Result<(), CliError>;
    /// Creates a token.
    fn mint_token(&mut self, new: &NewToken) -> Result<MintedToken, CliError>;
    /// Revokes a token of an organization; `None` as for [`AdminBackend::list_keys`].
    fn revoke_token(&mut self, org_id: Option<&str>, jti: &str) -> Result<(), CliError>;
}

/// Body of `POST /api/v1/organizations`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewOrganization {
    /// 1–128 of `[A-Za-z0-9._-]`; if absent, the daemon makes an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `org` shares all events with every member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// Whether presence events are sent to the organization.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
}

/// An organization, as `--json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    /// Id of the organization.
    pub id: String,
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// Who sees events addressed to a user: `private` or `org`.
    #[serde(default)]
    pub visibility: Option<String>,
    /// Whether presence events are sent to the organization.
    #[serde(default)]
    pub presence: bool,
    /// Time of creation, RFC 3339.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// Requested rights. An absent list means the daemon's default for the kind of credential. An empty narrowing
/// list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Grant {
    /// Scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Lifetime in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Agents that the credential is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
    /// Channels that the credential is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    /// Event types that the credential is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
}

/// Body of `POST /api/v1/api-keys`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewKey {
    /// Organization, if it is not the caller's own. Only operators may set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Rights of the key.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A new key with its secret, which is shown once. It has no `Debug`, because that would print the secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// Public part of the key.
    pub key_id: String,
    /// The whole key, with its secret.
    pub api_key: String,
    /// Organization of the key.
    #[serde(default)]
    pub org_id: Option<String>,
    /// Scopes of the key.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Expiry, RFC 3339; `None` means never.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// A key without its secret, as `--json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Public part of the key.
    pub key_id: String,
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// Organization of the key.
    #[serde(default)]
    pub org_id: Option<String>,
    /// Scopes of the key.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Expiry, RFC 3339; `None` means never.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Time of last use, RFC 3339; `None` means never used or unknown.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// Time of creation, RFC 3339.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// Body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewToken {
    /// Organization, if it is not the caller's own. Only operators may set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// User that the token represents.
    pub sub: String,
    /// Roles of the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Rights of the token.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A new token, as `--json` prints it. It has no `Debug`, because that would print the secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct MintedToken {
    /// The JWT.
    pub token: String,
    /// Id of the token, for `token revoke`.
    pub jti: String,
    /// Expiry, RFC 3339.
    pub expires_at: String,
}
