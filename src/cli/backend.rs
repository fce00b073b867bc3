//! What administration needs, whoever does it: a running daemon over REST, or the data directory of a stopped one.

use serde::{Deserialize, Serialize};

use super::outcome::CliError;

/// Administration. Blocking: a command does one thing and waits for it.
pub trait AdminBackend {
    /// Creates an organization.
    fn create_org(&mut self, new: &NewOrganization) -> Result<Organization, CliError>;
    /// All organizations.
    fn list_orgs(&mut self) -> Result<Vec<Organization>, CliError>;
    /// Deletes an organization.
    fn delete_org(&mut self, id: &str) -> Result<(), CliError>;
    /// Creates an API key.
    fn create_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError>;
    /// The keys of an organization; `None` = the credential's own, or `default`.
    fn list_keys(&mut self, org_id: Option<&str>) -> Result<Vec<KeyInfo>, CliError>;
    /// Creates a key with `operator`.
    fn create_operator_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError>;
    /// What deleting this key would break, if anything, as a sentence without its full stop.
    fn warning_of_key(&mut self, key_id: &str) -> Option<String>;
    /// Deletes an API key of an organization; `None` as for [`AdminBackend::list_keys`].
    fn delete_key(&mut self, org_id: Option<&str>, key_id: &str) -> Result<(), CliError>;
    /// Mints a token.
    fn mint_token(&mut self, new: &NewToken) -> Result<MintedToken, CliError>;
    /// Revokes a token of an organization; `None` as for [`AdminBackend::list_keys`].
    fn revoke_token(&mut self, org_id: Option<&str>, jti: &str) -> Result<(), CliError>;
}

/// Body of `POST /api/v1/organizations`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewOrganization {
    /// 1–128 of `[A-Za-z0-9._-]`; absent = made by the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `org` shares all events with every member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// Whether it is told which of its users are connected.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
}

/// An organization, as `--json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    /// Its id.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Who sees events addressed to a user.
    #[serde(default)]
    pub visibility: Option<String>,
    /// Whether it is told which of its users are connected.
    #[serde(default)]
    pub presence: bool,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// Rights asked for; absent = the daemon's default for the kind of credential. An empty narrowing list matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Grant {
    /// Scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Lifetime in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Agents it is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<String>>,
    /// Channels it is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    /// Types it is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
}

/// Body of `POST /api/v1/api-keys`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewKey {
    /// Another organization than the caller's own: operators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Rights.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A new key with its secret, shown once. No `Debug`: it would print the secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// Public part.
    pub key_id: String,
    /// The whole key.
    pub api_key: String,
    /// Its organization.
    #[serde(default)]
    pub org_id: Option<String>,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// A key without its secret, as `--json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Public part.
    pub key_id: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Its organization.
    #[serde(default)]
    pub org_id: Option<String>,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// RFC 3339; `None` = never used, or not told.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// Body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewToken {
    /// Another organization than the caller's own: operators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// User it stands for.
    pub sub: String,
    /// Roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Rights.
    #[serde(flatten)]
    pub grant: Grant,
}

/// A new token, as `--json` prints it. No `Debug`: it would print the secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct MintedToken {
    /// The JWT.
    pub token: String,
    /// Its id, for `token revoke`.
    pub jti: String,
    /// RFC 3339.
    pub expires_at: String,
}
