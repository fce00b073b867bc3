//! Creates, lists and deletes API keys.
//!
//! * Nobody creates a key with wider rights than their own (`delegation`). `operator` cannot be requested.

use super::change::AuthChange;
use super::delegation::{NarrowingClaims, inherited, requested_scopes, within_own};
use super::fields::{check_limit, check_name};
use crate::auth::error::AdminError;
use crate::auth::records::directory::KEYS_PER_ORGANIZATION;
use crate::auth::records::rows::{KeyRow, RecordChange};
use crate::auth::rights::authorized::{Authorized, Manage, Operate};
use crate::auth::rights::credential::CredentialId;
use crate::auth::rights::scope::{Scope, ScopeSet};
use crate::auth::secret::Secret;
use crate::auth::{Auth, api_key};
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::store::Rows;

/// Fields of a new API key.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// Display name, at most 256 bytes.
    pub name: String,
    /// Names of scopes, or `*`; at least one.
    pub scopes: Vec<String>,
    /// What the key is limited to.
    pub narrowing: NarrowingClaims,
    /// Expiry in Unix milliseconds. `None` takes the expiry of the issuer's credential.
    pub expires_at_ms: Option<u64>,
}

/// An API key that was created.
#[derive(Debug, Clone)]
pub struct IssuedKey {
    /// The stored row.
    pub row: KeyRow,
    /// The key itself. It is shown once and stored nowhere.
    pub api_key: Secret,
}

impl Auth {
    /// Creates an API key of `org_id`, or of the caller's own organization.
    ///
    /// # Errors
    /// `Invalid`, `Forbidden` if the key would be wider than the caller's own rights, `NotFound`, `Limit`,
    /// `Ended`, `Records`.
    pub async fn create_key(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        new: NewKey,
    ) -> Result<IssuedKey, AdminError> {
        self.create_key_with(by, org_id, new, |_| Rows::new()).await
    }

    /// Like [`Auth::create_key`], and commits the caller's own rows, such as its idempotency row, in the same
    /// commit.
    ///
    /// # Errors
    /// The same as [`Auth::create_key`].
    pub async fn create_key_with(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        new: NewKey,
        beside: impl FnOnce(&KeyRow) -> Rows,
    ) -> Result<IssuedKey, AdminError> {
        let issuer = by.principal();
        check_name(&new.name)?;
        if new.scopes.is_empty() {
            return Err(AdminError::invalid("scopes", format!("is required: {}", Scope::REQUESTABLE)));
        }
        let scopes = requested_scopes(&new.scopes)?;
        if !issuer.scopes.covers(scopes) {
            return Err(AdminError::Forbidden("scopes: wider than your own"));
        }
        let narrowing = inherited(&new.narrowing, issuer)?;
        let now_ms = self.clock.now_ms();
        if new.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(AdminError::invalid("expires_in_seconds", "is in the past"));
        }
        let expires_at_ms = within_own(new.expires_at_ms, issuer)?;
        let (organization, _changing) = self.lock_target(issuer, org_id).await?;
        let tenant = organization.tenant;
        let count = self.directory.read(|table| table.by_tenant.get(&tenant).map_or(0, |e| e.keys.len()));
        check_limit("API keys", count, KEYS_PER_ORGANIZATION)?;
        let key = self.make_key(tenant, scopes, NewKey { expires_at_ms, ..new }, narrowing)?;
        self.commit(self.actor(by), vec![RecordChange::PutKey(key.row.clone())], beside(&key.row), &[])
            .await?;
        Ok(key)
    }

    /// Creates a key with `*` and `operator` in `org_id`. Only the offline command line offers this. REST
    /// cannot issue `operator`.
    ///
    /// # Errors
    /// `Invalid`, `NotFound`, `Limit`, `Records`.
    pub async fn create_operator_key(
        &self,
        by: &Authorized<Operate>,
        org_id: &str,
        name: String,
        expires_at_ms: Option<u64>,
    ) -> Result<IssuedKey, AdminError> {
        check_name(&name)?;
        let _changing = self.changing.lock().await;
        let tenant = self.target(by.principal(), Some(org_id))?.tenant;
        let count = self.directory.read(|table| table.by_tenant.get(&tenant).map_or(0, |e| e.keys.len()));
        check_limit("API keys", count, KEYS_PER_ORGANIZATION)?;
        let new = NewKey { name, expires_at_ms, ..NewKey::default() };
        let key = self.make_key(tenant, ScopeSet::OPERATOR, new, Narrowing::default())?;
        self.commit(self.actor(by), vec![RecordChange::PutKey(key.row.clone())], Rows::new(), &[]).await?;
        Ok(key)
    }

    /// Returns true if `key_id` is the only key with `operator` that has not expired.
    #[must_use]
    pub fn is_last_operator_key(&self, key_id: &str) -> bool {
        self.directory.read(|table| table.is_last_operator_key(key_id, self.clock.now_ms()))
    }

    /// Lists up to `limit` keys with key ids greater than `after`, in the order of key ids. A narrowed
    /// credential gets only the keys that are narrowed at least as much.
    ///
    /// # Errors
    /// `NotFound` for the organization.
    pub fn keys(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeyRow>, AdminError> {
        let tenant = self.target(by.principal(), org_id)?.tenant;
        Ok(self.directory.read(|table| {
            let Some(entry) = table.by_tenant.get(&tenant) else { return Vec::new() };
            let outer = &by.principal().narrowing;
            let shown = entry.keys.after(after).iter().filter(|key| key.row.narrowing.within(outer));
            shown.take(limit).map(|key| key.current()).collect()
        }))
    }

    /// Deletes a key. Connections that were authenticated by it are closed.
    ///
    /// # Errors
    /// `NotFound`. `Forbidden` for a key that is wider than the caller's own rights. `Conflict` for the last
    /// operator key, unless the caller is the offline command line, which can create another. `Ended`,
    /// `Records`.
    pub async fn delete_key(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        key_id: &str,
    ) -> Result<(), AdminError> {
        let issuer = by.principal();
        let (organization, _changing) = self.lock_target(issuer, org_id).await?;
        let tenant = organization.tenant;
        let key = self.directory.read(|table| table.by_tenant.get(&tenant)?.keys.get(key_id).cloned());
        // A key that the list hides from the caller must be not found here as well.
        let key =
            key.filter(|key| key.row.narrowing.within(&issuer.narrowing)).ok_or(AdminError::NotFound)?;
        if issuer.key_id() != Some(key_id) && !issuer.reaches(key.row.scopes, &key.row.narrowing) {
            return Err(AdminError::Forbidden("this key is wider than your own rights"));
        }
        if issuer.credential != CredentialId::Local && self.is_last_operator_key(key_id) {
            return Err(AdminError::Conflict(
                "this is the last operator key: make another first, with `nervewire key create --operator` while the daemon is \
                 stopped",
            ));
        }
        let write = RecordChange::DeleteKey(tenant, key_id.into());
        self.commit(
            self.actor(by),
            vec![write],
            Rows::new(),
            &[AuthChange::KeyRevoked(tenant, key_id.into())],
        )
        .await
    }

    /// Makes a key's row and text, without checks.
    pub(super) fn make_key(
        &self,
        tenant: TenantId,
        scopes: ScopeSet,
        new: NewKey,
        narrowing: Narrowing,
    ) -> Result<IssuedKey, AdminError> {
        let key = api_key::generate(&self.random).map_err(|_| AdminError::Random)?;
        let row = KeyRow {
            tenant,
            id: key.id,
            digest: key.digest,
            name: new.name,
            scopes,
            narrowing,
            created_at_ms: self.clock.now_ms(),
            expires_at_ms: new.expires_at_ms,
            last_used_ms: None,
        };
        Ok(IssuedKey { row, api_key: key.text })
    }
}
