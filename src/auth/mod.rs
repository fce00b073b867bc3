//! Authentication and authorization: from a credential to a [`Principal`], and from a principal to a right
//! (protocol §1, §3, §4).
//!
//! | what | where |
//! |---|---|
//! | scopes, roles, principals, the proof of a right | `rights` |
//! | JWTs and the keys that verify them | `tokens` |
//! | API keys, tickets, passwords | `api_key`, `tickets`, `passwords` |
//! | organizations, keys and revocations on disk and in memory | `records` |
//! | from a request to a principal; whether it is still valid | `request` |
//! | creating, changing, minting, revoking | `admin` |
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
pub use admin::api_keys::{IssuedKey, NewKey};
pub use admin::change::AuthChange;
pub use admin::delegation::NarrowingClaims;
pub use admin::fields::NAME_BYTES;
pub use admin::first_key::{FirstKey, FirstKeyError, pending_file as unseen_first_key};
pub use admin::mint::{IssuedToken, NewToken};
pub use admin::organizations::{CreatedOrganization, NewOrganization, OrganizationChange};
pub use api_key::PREFIX as API_KEY_PREFIX;
pub use error::{
    AdminError, AuthConfigError, AuthError, CredentialEnded, CredentialError, ForbiddenUse, MissingScope,
    PublishDenied, RecordsError, RenewError,
};
pub use passwords::attempt_limiter::{ACCOUNT_FAILURES, ACCOUNT_WINDOW_MS, GUESS_COUNTS};
pub use passwords::hash_queue::{
    HashTurn, LOGINS_PER_ADDRESS, LOGINS_WAITING, QueuePermit, SETTERS, SETTERS_PER_ORGANIZATION,
};
pub use passwords::hasher::{HASHES_AT_ONCE, PasswordProof, Passwords};
pub use passwords::login_attempt::{LoginAttempt, TooManyAttempts};
pub use passwords::password::{PASSWORD_BYTES, PASSWORD_CHARS, Password, PasswordError, PasswordHash};
pub use records::directory::{
    DISABLED_PER_ORGANIZATION, ENDED_PER_ORGANIZATION, KEYS_PER_ORGANIZATION, ORGANIZATIONS,
    REVOCATIONS_PER_ORGANIZATION,
};
pub use records::rows::{CommitFuture, KeyRow, Organization, RecordChange, Records, Snapshot, Visibility};
pub use records::scope_migration::REWRITTEN_KEYS;
pub use records::stored::StoredRecords;
pub use request::failure_counts::ADDRESSES;
pub use request::origin::{
    ALLOW_HEADERS, ALLOW_METHODS, EXPOSE_HEADERS, OriginPolicy, PREFLIGHT_MAX_AGE_SECONDS,
};
pub use request::presented::{
    COOKIE, CredentialUse, PresentedCredential, QUERY_PARAMETERS, RequestContext, redact_query,
};
pub use rights::authorized::{
    Authenticated, Authorized, Manage, Mint, MintsTokens, NamesUsers, Operate, Publish, Right, Subscribe,
    WriteAsUser, WriteOwned,
};
pub use rights::credential::{CredentialId, CredentialSource, KeyDigest};
pub use rights::permissions::{self, Role};
pub use rights::principal::Principal;
pub use rights::scope::{Scope, ScopeSet};
pub use secret::Secret;
pub use settings::AuthSettings;
pub use tickets::one_shot::{ONE_SHOT_MS, TICKETS, TICKETS_PER_ORGANIZATION, TICKETS_PER_SUBJECT};
pub use tickets::reconnect::RECONNECT_MS;
pub use tickets::ticket::Ticket;
pub use tokens::configured_keys::{JwtKeySettings, KeySource};
pub use tokens::jwt::{CLOCK_SKEW_MS, TOKEN_BYTES, TOKEN_DEFAULT_MS, TOKEN_MAX_MS};
pub use tokens::keys::Algorithm;
pub use tokens::own_key::OwnKey;

use crate::ids::TenantId;
use crate::sync::{Mutex, RwLock};
use crate::time::{CautiousClock, Clock};
use admin::change_locks::ChangeLocks;
use passwords::attempt_limiter::AttemptLimiter;
use records::directory::Directory;
use request::failure_counts::FailureCounts;
use request::origin::RefusedOrigins;
use tickets::one_shot::OneShotTickets;
use tickets::reconnect::TicketSealer;
use tokens::keys::KeySet;
use tokens::{configured_keys, own_key};

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
        let keys = configured_keys::key_set(&own_key, &settings.jwt_keys, settings.max_token_ms)?;
        let origins = OriginPolicy::new(&settings.allowed_origins).map_err(AuthConfigError::Origin)?;
        let snapshot = records.load().map_err(AuthConfigError::Records)?;
        let rewritten_keys = snapshot.rewritten_keys;
        if rewritten_keys > 0 {
            tracing::info!(keys = rewritten_keys, "{REWRITTEN_KEYS}");
        }
        let seal = TicketSealer::new(&own_key.seal).map_err(|_| AuthConfigError::KeyFile {
            path: own_key::FILE.into(),
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
        let keys = configured_keys::key_set(&self.own_key, settings, self.max_token_ms)?;
        *self.keys.write() = Arc::new(keys);
        self.notify(&AuthChange::KeysReloaded);
        Ok(())
    }

    fn notify(&self, change: &AuthChange) {
        self.hooks.read().iter().for_each(|hook| hook(change));
    }
}
