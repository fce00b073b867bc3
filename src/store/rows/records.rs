//! Rows of organizations and credentials: organizations, API keys, revoked tokens, disabled users, secrets.
//!
//! * A value is a version byte and JSON. A field that is added later has a default, so that old rows stay
//!   readable.
//! * No credential is stored, only digests.
//! * `auth` defines what a scope, a role or a narrowing means.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::builder::{PriorValue, Rows, TooLong};
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, MetaKey};

const VERSION: u8 = 1;

/// Who sees events that have a `user_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// An event with a `user_id` is delivered only to that user (and to principals with `read:all`).
    #[default]
    Private,
    /// Every event is delivered to every user of the organization.
    Org,
}

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Its internal number; never reused.
    #[serde(skip, default = "no_tenant")]
    pub tenant: TenantId,
    /// Its public id.
    pub org_id: String,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Who sees which events.
    #[serde(default)]
    pub visibility: Visibility,
    /// Whether the organization receives presence events of its users.
    #[serde(default)]
    pub presence: bool,
    /// Creation time, Unix milliseconds.
    pub created_ms: u64,
    /// Whether it is deleted: its rows are being or have been erased.
    #[serde(default)]
    pub deleted: bool,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The organization it belongs to.
    #[serde(skip, default = "no_tenant")]
    pub tenant: TenantId,
    /// The public part of the key.
    pub key_id: String,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
    /// Names of its scopes.
    pub scopes: Vec<String>,
    /// What reading and publishing are limited to.
    #[serde(default)]
    pub narrowing: Narrowing,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// Creation time, Unix milliseconds.
    pub created_ms: u64,
    /// Expiry time, Unix milliseconds; absent if it never expires.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Time of last use, Unix milliseconds, accurate to some minutes; absent if it was never used.
    #[serde(default)]
    pub last_used_ms: Option<u64>,
}

/// A token that is refused although its signature is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedToken {
    /// The organization it was issued for.
    #[serde(skip, default = "no_tenant")]
    pub tenant: TenantId,
    /// Its `jti`.
    #[serde(skip)]
    pub jti: String,
    /// When it expires, Unix milliseconds. The row is removed then.
    pub expires_ms: u64,
}

/// A user whose credentials are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisabledUser {
    /// The organization.
    #[serde(skip, default = "no_tenant")]
    pub tenant: TenantId,
    /// The user's `sub`.
    #[serde(skip)]
    pub sub: String,
    /// When the user was disabled, Unix milliseconds.
    pub since_ms: u64,
}

/// The time from which a user's tokens are valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensValidSince {
    /// The organization.
    #[serde(skip, default = "no_tenant")]
    pub tenant: TenantId,
    /// The user's `sub`.
    #[serde(skip)]
    pub sub: String,
    /// Unix milliseconds. Tokens issued earlier are refused.
    pub since_ms: u64,
}

fn no_tenant() -> TenantId {
    TenantId(0)
}

/// A typed row of a tenant, identified within its kind by a name.
pub(crate) trait TypedRow: Serialize + DeserializeOwned {
    const KIND: KeyKind;
    /// Sets the fields that the key holds.
    fn set_key(&mut self, tenant: TenantId, name: &str);
}

impl TypedRow for Organization {
    const KIND: KeyKind = KeyKind::Organization;
    fn set_key(&mut self, tenant: TenantId, _: &str) {
        self.tenant = tenant;
    }
}
impl TypedRow for ApiKey {
    const KIND: KeyKind = KeyKind::ApiKey;
    fn set_key(&mut self, tenant: TenantId, _: &str) {
        self.tenant = tenant;
    }
}
impl TypedRow for RevokedToken {
    const KIND: KeyKind = KeyKind::Revoked;
    fn set_key(&mut self, tenant: TenantId, name: &str) {
        (self.tenant, self.jti) = (tenant, name.to_owned());
    }
}
impl TypedRow for DisabledUser {
    const KIND: KeyKind = KeyKind::DisabledUser;
    fn set_key(&mut self, tenant: TenantId, name: &str) {
        (self.tenant, self.sub) = (tenant, name.to_owned());
    }
}

impl TypedRow for TokensValidSince {
    const KIND: KeyKind = KeyKind::UserSince;
    fn set_key(&mut self, tenant: TenantId, name: &str) {
        (self.tenant, self.sub) = (tenant, name.to_owned());
    }
}

impl Rows {
    fn put_record<R: TypedRow>(&mut self, tenant: TenantId, name: &str, record: &R) -> Result<(), TooLong> {
        let mut value = vec![VERSION];
        // These are structs of strings and numbers written to memory, so nothing can fail.
        let _ = serde_json::to_writer(&mut value, record);
        self.put(R::KIND, tenant, name.as_bytes(), value, PriorValue::Unknown)
    }

    /// Creates or replaces an organization.
    ///
    /// # Errors
    /// [`TooLong`] if the row is too large.
    pub fn put_organization(&mut self, organization: &Organization) -> Result<(), TooLong> {
        self.put_record(organization.tenant, "", organization)
    }
    /// Creates or replaces an API key.
    ///
    /// # Errors
    /// [`TooLong`] if the narrowing or the name is too long.
    pub fn put_api_key(&mut self, key: &ApiKey) -> Result<(), TooLong> {
        self.put_record(key.tenant, &key.key_id, key)
    }
    /// Deletes an API key.
    pub fn delete_api_key(&mut self, tenant: TenantId, key_id: &str) {
        self.delete(KeyKind::ApiKey, tenant, key_id.as_bytes(), 1);
    }
    /// Revokes a token.
    ///
    /// # Errors
    /// [`TooLong`] for a `jti` that is empty or longer than 256 bytes.
    pub fn put_revoked(&mut self, revoked: &RevokedToken) -> Result<(), TooLong> {
        self.put_record(revoked.tenant, &revoked.jti, revoked)
    }
    /// Deletes a revocation.
    pub fn delete_revoked(&mut self, tenant: TenantId, jti: &str) {
        self.delete(KeyKind::Revoked, tenant, jti.as_bytes(), 1);
    }
    /// Disables a user.
    ///
    /// # Errors
    /// [`TooLong`] for a `sub` that is empty or longer than 256 bytes.
    pub fn put_disabled_user(&mut self, user: &DisabledUser) -> Result<(), TooLong> {
        self.put_record(user.tenant, &user.sub, user)
    }
    /// Enables a user again.
    pub fn delete_disabled_user(&mut self, tenant: TenantId, sub: &str) {
        self.delete(KeyKind::DisabledUser, tenant, sub.as_bytes(), 1);
    }
    /// Ends a user's earlier tokens.
    ///
    /// # Errors
    /// [`TooLong`] for a `sub` that is empty or longer than 256 bytes.
    pub fn put_user_since(&mut self, user: &TokensValidSince) -> Result<(), TooLong> {
        self.put_record(user.tenant, &user.sub, user)
    }
    /// Deletes the row that ended a user's earlier tokens.
    pub fn delete_user_since(&mut self, tenant: TenantId, sub: &str) {
        self.delete(KeyKind::UserSince, tenant, sub.as_bytes(), 1);
    }
    /// Stores the version of the scopes that API keys are stored with.
    ///
    /// # Errors
    /// Never: the row has two bytes.
    pub fn put_scopes_version(&mut self, version: u8) -> Result<(), TooLong> {
        self.put(
            KeyKind::Meta,
            TenantId(0),
            &[MetaKey::Scopes as u8],
            vec![VERSION, version],
            PriorValue::Unknown,
        )
    }
    /// Stores opaque bytes under a name of the store's own (1 to 64 bytes).
    ///
    /// # Errors
    /// [`TooLong`] for another name or for more than 72 KiB.
    pub fn put_secret(&mut self, name: &str, bytes: &[u8]) -> Result<(), TooLong> {
        self.put(
            KeyKind::Secret,
            TenantId(0),
            name.as_bytes(),
            [&[VERSION], bytes].concat(),
            PriorValue::Unknown,
        )
    }
}

pub(crate) fn read<R: TypedRow>(key: &[u8], value: &[u8]) -> Result<R, EngineError> {
    let damaged = || EngineError::Engine(format!("a stored {:?} row is damaged", R::KIND));
    let (_, tenant, tail) = keys::parse(key).map_err(|_| damaged())?;
    let name = std::str::from_utf8(tail).map_err(|_| damaged())?;
    let json = value.strip_prefix(&[VERSION]).ok_or_else(damaged)?;
    let mut record: R = serde_json::from_slice(json).map_err(|_| damaged())?;
    record.set_key(tenant, name);
    Ok(record)
}

/// The public id of an organization, or its number if its row cannot be read.
pub(crate) fn name_of(engine: &Engine, tenant: TenantId) -> String {
    let key = keys::key(KeyKind::Organization, tenant, &[]);
    let row = engine.get(&key).ok().flatten();
    let organization = row.and_then(|row| read::<Organization>(&key, &row).ok());
    organization.map_or_else(|| tenant.0.to_string(), |organization| organization.org_id)
}

/// Every row of a kind, of all tenants.
pub(crate) fn all<R: TypedRow>(engine: &Engine) -> Result<Vec<R>, EngineError> {
    let (from, to) = ([R::KIND as u8], [R::KIND as u8 + 1]);
    engine.range(&from, &to).map(|row| row.and_then(|(key, value)| read(&key, &value))).collect()
}

/// The version of the scopes that API keys are stored with; 0 if it was never stored.
pub(crate) fn scopes_version(engine: &Engine) -> Result<u8, EngineError> {
    let row = engine.get(&keys::meta(MetaKey::Scopes))?;
    match row.as_deref() {
        None => Ok(0),
        Some([VERSION, version]) => Ok(*version),
        Some(_) => Err(EngineError::Engine("the row with the version of scopes is damaged".into())),
    }
}

/// A secret's bytes.
pub(crate) fn secret(engine: &Engine, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
    let row = engine.get(&keys::key(KeyKind::Secret, TenantId(0), name.as_bytes()))?;
    Ok(row.and_then(|value| value.strip_prefix(&[VERSION]).map(<[u8]>::to_vec)))
}

/// The highest tenant number that was ever assigned; 0 if there is none.
pub(crate) fn last_tenant(engine: &Engine) -> Result<u64, EngineError> {
    let row = engine.last(&[KeyKind::Organization as u8], &[KeyKind::Organization as u8 + 1])?;
    Ok(row.and_then(|(key, _)| keys::parse(&key).ok().map(|(_, tenant, _)| tenant.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_or_of_another_version_is_an_error() {
        let key = keys::key(KeyKind::DisabledUser, TenantId(4), b"eve");
        let value = br#"{"since_ms":7,"added_later":true}"#;
        let read_user = |version: u8, json: &[u8]| read::<DisabledUser>(&key, &[&[version], json].concat());
        let user = DisabledUser { tenant: TenantId(4), sub: "eve".into(), since_ms: 7 };
        assert_eq!(read_user(1, value).expect("sound"), user);
        assert!(read_user(2, value).is_err());
        for len in 0..value.len() {
            assert!(read_user(1, &value[..len]).is_err(), "cut to {len}");
        }
    }

    /// A row from before `presence` existed, byte for byte.
    #[test]
    fn an_organization_stored_by_an_older_daemon_has_no_presence() {
        let key = keys::key(KeyKind::Organization, TenantId(4), b"");
        let old = br#"{"org_id":"acme","name":"Acme","visibility":"org","created_ms":7,"deleted":false}"#;
        let found: Organization = read(&key, &[&[VERSION], &old[..]].concat()).expect("readable");
        assert_eq!((found.tenant, found.org_id.as_str(), found.presence), (TenantId(4), "acme", false));
        let text = serde_json::to_vec(&Organization { presence: true, ..found }).expect("JSON");
        let again: Organization = read(&key, &[&[VERSION], &text[..]].concat()).expect("readable");
        assert!(again.presence && again.visibility == Visibility::Org);
    }

    #[test]
    fn rows_that_are_too_long_are_refused_before_they_are_queued() {
        let mut rows = Rows::new();
        let mut revoked = RevokedToken { tenant: TenantId(1), jti: "j".repeat(257), expires_ms: 1 };
        assert!(rows.put_revoked(&revoked).is_err());
        revoked.jti.clear();
        assert!(rows.put_revoked(&revoked).is_err());
        assert!(rows.put_secret("ticket", &vec![0; 80_000]).is_err());
        assert!(rows.is_empty());
    }
}
