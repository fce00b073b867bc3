//! Issues API keys and tokens.
//!
//! * Nobody issues a scope, role, claim or expiry wider than their own (protocol §3). A token that acts or
//!   reads as another user is wider than one's own, unless the issuer may publish for, or read the events of,
//!   everyone. The scope `mint` is the right to issue to any user what a user has by their role, and nothing
//!   more.
//! * A field that the request omits is inherited from the issuer, so an omitted narrowing never widens the
//!   rights.
//! * `operator` cannot be issued. A token's `jti` contains its expiry, so its revocation can be forgotten
//!   after it.

use std::sync::Arc;

use super::organizations::{AdminError, check_name, limit};
use crate::auth::api_key;
use crate::auth::records::directory::KEYS_PER_ORGANIZATION;
use crate::auth::records::rows::{KeyRow, RecordChange};
use crate::auth::request::presented::CredentialSource;
use crate::auth::rights::permissions::Role;
use crate::auth::rights::principal::{
    Authorized, CredentialId, Manage, Mint, MintsTokens, Operate, Principal,
};
use crate::auth::rights::scope::{Scope, ScopeSet};
use crate::auth::secret::Secret;
use crate::auth::tokens::jti;
use crate::auth::tokens::jwt::{self, NewClaims, ROLES, is_id};
use crate::auth::{Auth, AuthChange};
use crate::filter::{Names, Narrowing};
use crate::ids::TenantId;
use crate::store::Rows;

/// Default lifetime of a token, in milliseconds: 24 hours.
pub const TOKEN_DEFAULT_MS: u64 = 24 * 3_600_000;
/// Maximum lifetime of a token, in milliseconds: 30 days.
pub const TOKEN_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// Narrowing claims of a request. `None` inherits the issuer's.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct NarrowingClaims {
    /// Agent ids.
    #[serde(default)]
    pub agents: Option<Vec<Box<str>>>,
    /// Channels and patterns (`a/*`).
    #[serde(default)]
    pub channels: Option<Vec<Box<str>>>,
    /// Event types.
    #[serde(default)]
    pub types: Option<Vec<Box<str>>>,
}

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

/// Fields of a new token.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// The user's id.
    pub sub: String,
    /// `admin`, `user`, `viewer` or `readonly`. Without roles and scopes the role is `user`.
    pub roles: Vec<String>,
    /// Names of scopes, or `*`. `None` takes the scopes of the roles.
    pub scopes: Option<Vec<String>>,
    /// What the token is limited to.
    pub narrowing: NarrowingClaims,
    /// Lifetime in milliseconds, at most [`TOKEN_MAX_MS`]. `None` takes [`TOKEN_DEFAULT_MS`], or the issuer's
    /// expiry if that is earlier.
    pub expires_in_ms: Option<u64>,
}

/// Contents of a token to sign.
pub(in crate::auth) struct Signed<'a> {
    pub(in crate::auth) sub: &'a str,
    pub(in crate::auth) org_id: &'a str,
    pub(in crate::auth) roles: &'a [String],
    /// `None` takes the scopes of the roles.
    pub(in crate::auth) scopes: Option<ScopeSet>,
    pub(in crate::auth) narrowing: &'a Narrowing,
    /// Unix milliseconds.
    pub(in crate::auth) issued_at_ms: u64,
    /// Unix milliseconds, rounded down to whole seconds.
    pub(in crate::auth) expires_at_ms: u64,
    /// True if the token is issued for a password.
    pub(in crate::auth) session: bool,
    /// The credential that mints the token ([`jti::minted_by`]). The token ends with it.
    pub(in crate::auth) maker: Option<&'a str>,
}

/// A token that was minted.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The JWT.
    pub token: Secret,
    /// The `jti`, by which the token is revoked.
    pub jti: String,
    /// Expiry in Unix milliseconds, in whole seconds.
    pub expires_at_ms: u64,
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
        limit("API keys", count, KEYS_PER_ORGANIZATION)?;
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
        limit("API keys", count, KEYS_PER_ORGANIZATION)?;
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
        let key = self.directory.read(|table| table.by_tenant.get(&tenant)?.keys.get(key_id).map(Arc::clone));
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

    /// Mints a token for a user of `org_id`, or of the caller's own organization. Nothing is stored.
    ///
    /// # Errors
    /// `Invalid`, `Forbidden` if the token would be wider than the caller's own rights, `NotFound`, `Ended`.
    pub fn mint_token(
        &self,
        by: &Authorized<impl MintsTokens>,
        org_id: Option<&str>,
        new: &NewToken,
    ) -> Result<IssuedToken, AdminError> {
        self.actor(by).confirm()?;
        let issuer = by.principal();
        if !is_id(&new.sub) {
            return Err(AdminError::invalid("sub", "must be 1 to 256 bytes without control characters"));
        }
        let default_role = ["user".to_owned()];
        let roles = match new.roles.is_empty() && new.scopes.is_none() {
            true => default_role.as_slice(),
            false => new.roles.as_slice(),
        };
        let of_roles = role_scopes(roles)?;
        let scopes = new.scopes.as_deref().map(requested_scopes).transpose()?;
        may_mint(issuer, &new.sub, of_roles, scopes)?;
        let narrowing = inherited(&new.narrowing, issuer)?;
        let now_ms = self.clock.now_ms();
        let expires_at_ms = token_end(new.expires_in_ms, issuer, now_ms)?;
        let organization = self.target(issuer, org_id)?;
        // A token minted now is newer than every end of tokens so far, also than one that is a moment ahead
        // of the clock.
        let issued_at_ms = now_ms.max(self.valid_since(organization.tenant, &new.sub));
        self.sign(Signed {
            sub: &new.sub,
            org_id: &organization.id,
            roles,
            scopes,
            narrowing: &narrowing,
            issued_at_ms,
            expires_at_ms,
            session: false,
            maker: jti::minted_by(issuer).as_deref(),
        })
    }

    /// Returns the principal that a user has by the role `user`, for a ticket in the user's name.
    ///
    /// # Errors
    /// `Invalid`, `Forbidden` if it would be wider than the caller's own rights, `NotFound`, `Random`.
    pub fn principal_for_ticket(
        &self,
        by: &Authorized<Mint>,
        sub: &str,
    ) -> Result<Arc<Principal>, AdminError> {
        self.actor(by).confirm()?;
        let issuer = by.principal();
        if !is_id(sub) {
            return Err(AdminError::invalid("sub", "must be 1 to 256 bytes without control characters"));
        }
        may_mint(issuer, sub, ScopeSet::MINTABLE, None)?;
        let now_ms = self.clock.now_ms();
        let expires_at_ms = token_end(None, issuer, now_ms)?;
        // The ticket ends with the credential that made it, and when the user's own tokens end.
        let issued_at_ms = now_ms.max(self.valid_since(issuer.tenant, sub));
        let credential = match issuer.credential.clone() {
            CredentialId::Key { key_id, .. } => CredentialId::Key { key_id, issued_at_ms },
            CredentialId::Token { key, jti, .. } => {
                CredentialId::Token { key, jti, issued_at_ms, session: false }
            }
            CredentialId::Local => CredentialId::Local,
        };
        Ok(Arc::new(Principal {
            tenant: issuer.tenant,
            org_id: Arc::clone(&issuer.org_id),
            sub: Some(sub.into()),
            roles: [Role::User.name().into()].into(),
            scopes: ScopeSet::MINTABLE,
            narrowing: issuer.narrowing.clone(),
            expires_at_ms: Some(expires_at_ms),
            credential,
            via: CredentialSource::Ticket,
        }))
    }

    /// Signs a token with these contents, without checks.
    pub(in crate::auth) fn sign(&self, new: Signed<'_>) -> Result<IssuedToken, AdminError> {
        let exp = new.expires_at_ms / 1_000;
        let scopes = new.scopes.map_or_else(|| role_scopes(new.roles), Ok)?;
        let random = api_key::letters(&self.random, jti::RANDOM_CHARS).map_err(|_| AdminError::Random)?;
        let jti = jti::of(new.session, scopes, new.narrowing, new.expires_at_ms, &random, new.maker);
        let claims = NewClaims {
            sub: new.sub,
            org_id: new.org_id,
            exp,
            iat: new.issued_at_ms as f64 / 1_000.0,
            jti: &jti,
            roles: new.roles,
            scopes: new.scopes.map(ScopeSet::names),
            scopes_version: new.scopes.map(|_| jwt::SCOPES_VERSION),
            narrowing: new.narrowing,
        };
        let token = jwt::sign(&claims, &self.own_key.kid, &self.own_key.jwt).ok_or(AdminError::Random)?;
        match token.len() <= jwt::TOKEN_BYTES {
            true => Ok(IssuedToken { token: Secret::new(token), jti, expires_at_ms: exp * 1_000 }),
            false => Err(AdminError::invalid("agents", "agents, channels and types make the token too long")),
        }
    }

    /// Makes a key's row and text, without checks.
    pub(in crate::auth) fn make_key(
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

fn requested_scopes(names: &[String]) -> Result<ScopeSet, AdminError> {
    let known = || format!("must be {}", Scope::REQUESTABLE);
    let one = |(index, name): (usize, &String)| {
        ScopeSet::from_request(name).ok_or_else(|| AdminError::invalid(format!("scopes[{index}]"), known()))
    };
    names.iter().enumerate().map(one).collect()
}

fn role_scopes(roles: &[String]) -> Result<ScopeSet, AdminError> {
    if roles.len() > ROLES {
        return Err(AdminError::invalid("roles", format!("must be at most {ROLES}")));
    }
    let known = "must be admin, user, viewer or readonly";
    let one = |(index, role): (usize, &String)| {
        ScopeSet::of_role(role).ok_or_else(|| AdminError::invalid(format!("roles[{index}]"), known))
    };
    roles.iter().enumerate().map(one).collect()
}

/// Checks whether `issuer` may issue these scopes, or else the scopes of these roles, to the user `sub`.
fn may_mint(
    issuer: &Principal,
    sub: &str,
    of_roles: ScopeSet,
    scopes: Option<ScopeSet>,
) -> Result<(), AdminError> {
    // A role is checked even if scopes are given, because other readers of the token may use the role.
    let all = of_roles | scopes.unwrap_or_default();
    if issuer.scopes.has(Scope::Mint) && ScopeSet::MINTABLE.covers(all) {
        return Ok(());
    }
    if !issuer.scopes.has(Scope::Manage) {
        return Err(AdminError::Forbidden(
            "roles, scopes: mint grants at most subscribe, publish and write, and no role above user",
        ));
    }
    if !issuer.scopes.covers(all) {
        return Err(AdminError::Forbidden("roles, scopes: wider than your own"));
    }
    check_user(issuer, sub, scopes.unwrap_or(of_roles))
}

/// Checks the right to issue a token for another user. Such a token reads that user's events, publishes and
/// writes in that user's name, and changes the user's agents.
fn check_user(issuer: &Principal, sub: &str, scopes: ScopeSet) -> Result<(), AdminError> {
    let oneself = issuer.sub.as_deref() == Some(sub);
    let wider = |own: Scope, given: Scope| scopes.has(given) && !issuer.scopes.has(own);
    let reads = wider(Scope::ReadAll, Scope::Subscribe);
    let speaks = wider(Scope::PublishOrg, Scope::Publish) || wider(Scope::PublishOrg, Scope::Write);
    match !oneself && (reads || speaks || wider(Scope::Agents, Scope::Write)) {
        true => Err(AdminError::Forbidden(
            "sub: a token for another user needs mint, or read:all to subscribe, publish:org to publish and write, and agents to write",
        )),
        false => Ok(()),
    }
}

/// Returns the requested narrowing, with each absent claim taken from the issuer.
fn inherited(claims: &NarrowingClaims, issuer: &Principal) -> Result<Narrowing, AdminError> {
    let outer = &issuer.narrowing;
    let names = |names: &Names| names.iter().map(Into::into).collect();
    let kinds = || outer.types().map(|kinds| kinds.iter().map(|kind| kind.name().into()).collect());
    let narrowing = Narrowing::new(
        claims.agents.clone().or_else(|| outer.agents().map(names)),
        claims.channels.clone().or_else(|| outer.channels().map(names)),
        claims.types.clone().or_else(kinds),
    );
    let narrowing = narrowing.map_err(|error| AdminError::invalid(error.field, error.reason))?;
    match narrowing.within(outer) {
        true => Ok(narrowing),
        false => Err(AdminError::Forbidden("agents, channels, types: wider than your own")),
    }
}

/// Returns the requested expiry, or else the issuer's own.
fn within_own(requested: Option<u64>, issuer: &Principal) -> Result<Option<u64>, AdminError> {
    match (requested, issuer.expires_at_ms) {
        (Some(end), Some(own)) if end > own => {
            Err(AdminError::Forbidden("expires_in_seconds: later than your own"))
        }
        (requested, own) => Ok(requested.or(own)),
    }
}

fn token_end(expires_in_ms: Option<u64>, issuer: &Principal, now_ms: u64) -> Result<u64, AdminError> {
    let reason = "must be 1 second to 30 days";
    match expires_in_ms {
        Some(ms) if !(1_000..=TOKEN_MAX_MS).contains(&ms) => {
            Err(AdminError::invalid("expires_in_seconds", reason))
        }
        Some(ms) => Ok(within_own(Some(now_ms.saturating_add(ms)), issuer)?.unwrap_or(now_ms)),
        None => Ok((now_ms + TOKEN_DEFAULT_MS).min(issuer.expires_at_ms.unwrap_or(u64::MAX))),
    }
}
