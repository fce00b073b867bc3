//! Authentication and authorization: from a credential to a [`Principal`], and from a principal to a right
//! (protocol §1, §3, §4).
//!
//! * Only this folder creates a [`Principal`] and an [`Authorized`].
//! * [`Auth::authenticate`] does no IO and does not wait. Organizations, keys, revocations and disabled users
//!   are in memory; they are loaded at start and updated with every change.
//! * A change is written and synced before memory is updated and before anybody is notified (`admin`).
//! * Whatever is wrong with a credential, the peer gets the same 401. The reason goes to the log only.
//! * This module does not know connections. Code that holds principals is notified of changes by
//!   [`Auth::on_change`] and calls [`Auth::still_valid`] again. It does not know status codes either:
//!   `error_response` chooses them.

mod admin;
mod api_key;
mod error;
mod passwords;
mod records;
mod request;
mod rights;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod tickets;
mod tokens;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;

pub use admin::actor::Actor;
pub use admin::first_key::{FirstKey, FirstKeyError, pending_file as unseen_first_key};
pub use admin::issue::{
    IssuedKey, IssuedToken, NarrowingClaims, NewKey, NewToken, TOKEN_DEFAULT_MS, TOKEN_MAX_MS,
};
pub use admin::organizations::{
    AdminError, CreatedOrganization, NAME_BYTES, NewOrganization, OrganizationChange,
};
pub use admin::session::{LoginAttempt, TooManyAttempts};
pub use api_key::PREFIX as API_KEY_PREFIX;
pub use error::{
    AuthConfigError, AuthError, CredentialEnded, CredentialError, ForbiddenUse, MissingScope, PublishDenied,
    RenewError,
};
pub use passwords::attempt_limiter::{ACCOUNT_FAILURES, ACCOUNT_WINDOW_MS, GUESS_COUNTS};
pub use passwords::hash_queue::{
    HashPermit, LOGINS_PER_ADDRESS, LOGINS_WAITING, QueuePlace, SETTERS, SETTERS_PER_ORGANIZATION,
};
pub use passwords::password::{
    HASHES_AT_ONCE, PASSWORD_BYTES, PASSWORD_CHARS, Password, PasswordError, PasswordHash, PasswordProof,
    Passwords,
};
pub use records::directory::{
    DISABLED_PER_ORGANIZATION, ENDED_PER_ORGANIZATION, KEYS_PER_ORGANIZATION, ORGANIZATIONS, Organization,
    REVOCATIONS_PER_ORGANIZATION,
};
pub use records::rows::{
    CommitFuture, KeyRow, OrganizationRow, RecordChange, Records, RecordsError, Snapshot, Visibility,
};
pub use records::scope_migration::REWRITTEN_KEYS;
pub use records::stored::StoredRecords;
pub use request::failure_counts::ADDRESSES;
pub use request::origin::{
    ALLOW_HEADERS, ALLOW_METHODS, EXPOSE_HEADERS, OriginPolicy, PREFLIGHT_MAX_AGE_SECONDS,
};
pub use request::presented::{
    COOKIE, CredentialSource, CredentialUse, PresentedCredential, QUERY_PARAMETERS, RequestContext,
    redact_query,
};
pub use rights::permissions::{self, Role};
pub use rights::principal::{
    Authenticated, Authorized, CredentialId, Manage, Mint, MintsTokens, NamesUsers, Operate, Principal,
    Publish, Right, Subscribe, WriteAsUser, WriteOwned,
};
pub use rights::scope::{Scope, ScopeSet};
pub use secret::Secret;
pub use settings::{AuthSettings, JwtKeySettings, KeySource};
pub use tickets::ticket::{
    ONE_SHOT_MS, RECONNECT_MS, TICKETS, TICKETS_PER_ORGANIZATION, TICKETS_PER_SUBJECT, Ticket,
};
pub use tokens::jwt::{CLOCK_SKEW_MS, TOKEN_BYTES};
pub use tokens::keys::{Algorithm, KeyDigest};
pub use tokens::own_key::OwnKey;

use crate::filter::Rights;
use crate::ids::TenantId;
use crate::sync::{Mutex, RwLock};
use crate::time::{CautiousClock, Clock};
use admin::change_locks::ChangeLocks;
use passwords::attempt_limiter::AttemptLimiter;
use records::directory::Directory;
use request::failure_counts::FailureCounts;
use request::origin::RefusedOrigins;
use tickets::ticket::{OneShotTickets, TicketError, TicketSealer};
use tokens::keys::KeySet;

/// A change that can end live principals or change their rights. The hooks are called after memory was
/// updated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthChange {
    /// An API key was deleted.
    KeyRevoked(TenantId, String),
    /// A token was revoked.
    TokenRevoked(TenantId, String),
    /// A user was disabled (`true`) or enabled again (`false`).
    UserDisabled(TenantId, String, bool),
    /// A user's older tokens were ended: the password or role changed, or the user was deleted.
    TokensEnded(TenantId, String),
    /// The organization was deleted.
    OrganizationDeleted(TenantId),
    /// The organization's `visibility` changed: the rights of its principals must be computed again.
    VisibilityChanged(TenantId),
    /// The organization's presence setting changed to this value. No rights change.
    PresenceChanged(TenantId, bool),
    /// The verifying keys were read again: the key of any organization's tokens may have been removed.
    KeysReloaded,
}

impl AuthChange {
    /// The organization whose principals are affected; `None`: all organizations.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            AuthChange::KeyRevoked(tenant, _)
            | AuthChange::TokenRevoked(tenant, _)
            | AuthChange::UserDisabled(tenant, ..)
            | AuthChange::TokensEnded(tenant, _)
            | AuthChange::OrganizationDeleted(tenant)
            | AuthChange::PresenceChanged(tenant, _)
            | AuthChange::VisibilityChanged(tenant) => Some(*tenant),
            AuthChange::KeysReloaded => None,
        }
    }
}

type ChangeHook = Box<dyn Fn(&AuthChange) + Send + Sync>;

/// Verifies all credentials; shared by all workers.
pub struct Auth {
    clock: Arc<dyn Clock>,
    records: Arc<dyn Records>,
    directory: Directory,
    own_key: OwnKey,
    /// Replaced as a whole by [`Auth::reload_keys`].
    keys: RwLock<Arc<KeySet>>,
    max_token_ms: u64,
    origins: OriginPolicy,
    refused_origins: RefusedOrigins,
    token_in_query: bool,
    failures: FailureCounts,
    guesses: AttemptLimiter,
    passwords: Passwords,
    one_shots: OneShotTickets,
    seal: TicketSealer,
    random: SystemRandom,
    hooks: RwLock<Vec<ChangeHook>>,
    /// Keys whose last use is not stored yet; at most one entry per key.
    used: Mutex<HashSet<(TenantId, String)>>,
    rewritten_keys: usize,
    /// The clock by which revocations and ends of tokens are forgotten. If one were forgotten too early, its
    /// token would be valid again.
    forgetting: Mutex<CautiousClock>,
    /// Held from the check to the commit of an administrative change, so two changes cannot both find a name
    /// free.
    changing: ChangeLocks,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("own_key", &self.own_key).finish_non_exhaustive()
    }
}

impl Auth {
    /// Number of entries in the tables that have entries for each organization.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.directory.entries() + self.used.lock().len()
    }

    /// Reads key files and stored records.
    ///
    /// # Errors
    /// [`AuthConfigError`]: a setting, a key file or the records are invalid.
    pub fn new(
        settings: &AuthSettings,
        own_key: OwnKey,
        records: Arc<dyn Records>,
        clock: Arc<dyn Clock>,
    ) -> Result<Auth, AuthConfigError> {
        let keys = settings::key_set(&own_key, &settings.jwt_keys, settings.max_token_ms)?;
        let origins = OriginPolicy::new(&settings.allowed_origins).map_err(AuthConfigError::Origin)?;
        let snapshot = records.load().map_err(AuthConfigError::Records)?;
        let rewritten_keys = snapshot.rewritten_keys;
        if rewritten_keys > 0 {
            tracing::info!(keys = rewritten_keys, "{REWRITTEN_KEYS}");
        }
        let seal = TicketSealer::new(&own_key.seal).map_err(|_| AuthConfigError::KeyFile {
            path: tokens::own_key::FILE.into(),
            reason: "cannot seal".into(),
        })?;
        Ok(Auth {
            clock,
            records,
            directory: Directory::new(snapshot),
            own_key,
            keys: RwLock::new(Arc::new(keys)),
            max_token_ms: settings.max_token_ms,
            origins,
            refused_origins: RefusedOrigins::default(),
            token_in_query: settings.token_in_query,
            failures: FailureCounts::new(settings.failures_per_minute),
            guesses: AttemptLimiter::new(settings.failures_per_minute),
            passwords: Passwords::default(),
            one_shots: OneShotTickets::default(),
            seal,
            random: SystemRandom::new(),
            hooks: RwLock::default(),
            used: Mutex::default(),
            forgetting: Mutex::default(),
            changing: ChangeLocks::default(),
            rewritten_keys,
        })
    }

    /// Finds the credential in a request. `query` is without `?`.
    #[must_use]
    pub fn present<'a>(&self, headers: &'a http::HeaderMap, query: &'a str) -> PresentedCredential<'a> {
        request::presented::present(headers, query, self.token_in_query)
    }

    /// Authenticates a credential and returns its principal. Success uses up a one-shot ticket.
    ///
    /// # Errors
    /// 401 (also without any credential), 403 for a valid credential with a disallowed origin or use, 429 if
    /// the address has had too many failures. A valid credential is never refused because of failures.
    pub fn authenticate(
        &self,
        presented: &PresentedCredential<'_>,
        cx: &RequestContext<'_>,
    ) -> Result<Arc<Principal>, AuthError> {
        let now_ms = self.clock.now_ms();
        self.verify(presented, cx, now_ms).map_err(|error| self.count_failure(error, cx.peer, now_ms))
    }

    /// Checks that a principal is still valid and returns its current read rights.
    ///
    /// # Errors
    /// The reason why its credential has ended.
    pub fn still_valid(&self, principal: &Principal) -> Result<Rights, CredentialEnded> {
        let (now_ms, keys) = (self.clock.now_ms(), Arc::clone(&self.keys.read()));
        self.directory.read(|table| {
            let entry = request::verify::check_holds(table, &keys, principal, now_ms)?;
            Ok(principal.rights(&entry.organization))
        })
    }

    /// Returns the principal with which a live connection continues after presenting `token` (a JWT or an API
    /// key).
    ///
    /// # Errors
    /// [`RenewError::Refused`]: the old principal stays. [`RenewError::ChangedIdentity`]: the connection must
    /// be closed.
    pub fn renew(
        &self,
        current: &Principal,
        token: &str,
        peer: Option<std::net::IpAddr>,
    ) -> Result<Arc<Principal>, RenewError> {
        let now_ms = self.clock.now_ms();
        let new = self.bearer(token, CredentialSource::Bearer, now_ms);
        let new = new.map_err(|refusal| {
            RenewError::Refused(self.count_failure(AuthError::Unauthorized(refusal), peer, now_ms))
        })?;
        match new.tenant == current.tenant && new.sub == current.sub {
            true => Ok(Arc::new(new)),
            false => Err(RenewError::ChangedIdentity),
        }
    }

    /// Makes a ticket for the principal of `by`. With `reconnect` the ticket is for SSE and polling only, and
    /// bound to `origin` (the request's `Origin`).
    ///
    /// # Errors
    /// No random bytes, a narrowing that is too long for a URL, or a credential that has ended.
    pub fn ticket(
        &self,
        by: &Authorized<Authenticated>,
        origin: Option<&str>,
        reconnect: bool,
    ) -> Result<Ticket, AdminError> {
        self.actor(by).confirm()?;
        let principal = by.principal();
        let now_ms = self.clock.now_ms();
        let ticket = match reconnect {
            true => self.seal.make(principal, origin, now_ms, &self.random),
            false => self.one_shots.make(principal, now_ms, &self.random),
        };
        ticket.map_err(|error| match error {
            TicketError::Unmakeable => AdminError::Conflict("the credential is too long for a ticket"),
            TicketError::Full { what, max } => AdminError::Full { what, max },
        })
    }

    /// Number of stored keys that this start rewrote with the current scopes; see [`REWRITTEN_KEYS`].
    #[must_use]
    pub fn rewritten_keys(&self) -> usize {
        self.rewritten_keys
    }

    /// The origin allow-list, for CORS.
    #[must_use]
    pub fn origins(&self) -> &OriginPolicy {
        &self.origins
    }

    /// Returns the text to log for an `Origin` that was just refused; `None` if it must not be logged again
    /// now.
    #[must_use]
    pub fn refused_origin_to_log(&self, origin: &str) -> Option<Box<str>> {
        self.refused_origins.to_log(origin, self.clock.now_ms())
    }

    /// Registers `hook` to be called after every [`AuthChange`], on the thread that made the change. It must be
    /// short and must not call administration.
    pub fn on_change(&self, hook: impl Fn(&AuthChange) + Send + Sync + 'static) {
        self.hooks.write().push(Box::new(hook));
    }

    /// Reads the configured keys again. Either all of them are replaced or none.
    ///
    /// # Errors
    /// The keys stay as they were.
    pub fn reload_keys(&self, settings: &[JwtKeySettings]) -> Result<(), AuthConfigError> {
        let keys = settings::key_set(&self.own_key, settings, self.max_token_ms)?;
        *self.keys.write() = Arc::new(keys);
        self.notify(&AuthChange::KeysReloaded);
        Ok(())
    }

    /// Returns the current row of the organization with this number.
    #[must_use]
    pub fn organization(&self, tenant: TenantId) -> Option<Arc<Organization>> {
        self.directory.read(|table| table.by_tenant.get(&tenant).map(|entry| Arc::clone(&entry.organization)))
    }

    fn count_failure(&self, error: AuthError, peer: Option<std::net::IpAddr>, now_ms: u64) -> AuthError {
        match error {
            AuthError::Unauthorized(refusal) if refusal != CredentialError::Absent => {
                match self.failures.count(peer, now_ms) {
                    Ok(()) => error,
                    Err(retry_after) => AuthError::TooManyFailures { retry_after },
                }
            }
            _ => error,
        }
    }

    fn notify(&self, change: &AuthChange) {
        self.hooks.read().iter().for_each(|hook| hook(change));
    }
}
