//! Administration of a stopped daemon, on its data directory.
//!
//! * It runs the very functions that REST runs, as the local operator: whoever can read the data directory could forge
//!   every credential in it, so nothing is gained by asking for one.
//! * Only `init` makes a store; whatever else meets none says so and leaves the directory as it was.
//! * The directory is held as long as the backend lives, and every change is on disk before it is reported.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::backend::{
    AdminBackend, CreatedKey, Grant, KeyInfo, MintedToken, NewKey, NewOrganization, NewToken, Organization,
};
use super::outcome::{CliError, Exit};
use crate::auth::{
    self, AdminError, Auth, AuthConfigError, AuthSettings, Authorized, KeyRow, Manage, NarrowingClaims,
    Operate, OwnKey, Principal, StoredRecords,
};
use crate::config::Config;
use crate::store::{self, OpenError, Store, StoreOptions, Visibility};
use crate::time::{Clock, SystemClock, rfc3339};

/// The organization meant where none is named: the one that `init` makes.
const DEFAULT_ORG: &str = "default";
/// Rows of a list read under one lock.
const PAGE: usize = 1_000;

/// What `init` made.
pub(super) struct Initialized {
    pub(super) org_id: String,
    pub(super) key_id: String,
    /// Shown once.
    pub(super) api_key: String,
}

/// What `compact` did, in bytes of the store's file.
pub(super) struct Compacted {
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
}

/// Takes the data directory, for as long as the result lives.
pub(super) fn open(config: &Config) -> Result<Box<dyn AdminBackend>, CliError> {
    must_exist(config)?;
    Ok(Box::new(Offline::open(config)?))
}

/// Makes the store, its first organization and key.
pub(super) fn init(config: &Config) -> Result<Initialized, CliError> {
    let offline = Offline::open(config)?;
    let made = offline.runtime.block_on(offline.auth.bootstrap()).map_err(failed)?;
    let (organization, key) = made.ok_or_else(|| {
        CliError::new(
            Exit::Failed,
            format!("{} is initialised already; nothing was changed", config.data_dir.display()),
            "`nervewire key create` makes another key; `--data-dir` names another directory",
        )
    })?;
    Ok(Initialized { org_id: organization.id, key_id: key.row.id, api_key: key.api_key.expose().to_owned() })
}

/// Rewrites the store.
pub(super) fn compact(config: &Config) -> Result<Compacted, CliError> {
    must_exist(config)?;
    let done = store::compact(&config.data_dir).map_err(|error| refused(config, &error))?;
    Ok(Compacted { bytes_before: done.before, bytes_after: done.after })
}

/// A data directory nobody else has open.
struct Offline {
    runtime: Runtime,
    store: Store,
    auth: Auth,
    clock: Arc<dyn Clock>,
    operate: Authorized<Operate>,
    manage: Authorized<Manage>,
}

impl Drop for Offline {
    fn drop(&mut self) {
        self.store.close_blocking();
    }
}

impl Offline {
    fn open(config: &Config) -> Result<Offline, CliError> {
        let operator = Principal::local_operator();
        let lacking = |_| CliError::new(Exit::Failed, "the local operator lacks a right", "");
        let operate = operator.authorize::<Operate>().map_err(lacking)?;
        let manage = operator.authorize::<Manage>().map_err(lacking)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = StoreOptions { clock: clock.clone(), ..StoreOptions::from(config) };
        let store = Store::open(options).map_err(|error| refused(config, &error))?;
        let open_auth = || {
            let own = OwnKey::load_or_make(&config.data_dir)?;
            let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
            Auth::new(&AuthSettings::from(config), own, records, clock.clone())
        };
        let auth = open_auth().map_err(|error: AuthConfigError| {
            CliError::new(Exit::Usage, error.to_string(), "`nervewire check-config` checks the configuration")
        })?;
        if auth.rewritten_keys() > 0 {
            super::output::note(&format!("{} {}", auth.rewritten_keys(), auth::REWRITTEN_KEYS));
        }
        Ok(Offline { runtime: super::rest::runtime()?, store, auth, clock, operate, manage })
    }

    /// The id of a key's organization.
    fn org_of(&self, key: &KeyRow) -> Option<String> {
        self.auth.organization(key.tenant).map(|organization| organization.id.clone())
    }

    fn expiry(&self, grant: &Grant) -> Option<u64> {
        let seconds = grant.expires_in_seconds?;
        Some(self.clock.now_ms().saturating_add(seconds.saturating_mul(1_000)))
    }
}

impl AdminBackend for Offline {
    fn create_org(&mut self, new: &NewOrganization) -> Result<Organization, CliError> {
        let new = auth::NewOrganization {
            id: new.id.clone(),
            name: new.name.clone().unwrap_or_default(),
            visibility: match new.visibility.as_deref() {
                Some("org") => Visibility::Org,
                _ => Visibility::Private,
            },
            presence: new.presence,
            first_key: false,
        };
        let made = self.runtime.block_on(self.auth.create_organization(&self.operate, new));
        Ok(organization(&made.map_err(failed)?.organization))
    }

    fn list_orgs(&mut self) -> Result<Vec<Organization>, CliError> {
        let mut rows: Vec<Organization> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id.clone());
            let page = self.auth.organizations(&self.operate, after.as_deref(), PAGE);
            rows.extend(page.iter().map(|it| organization(it)));
            if page.len() < PAGE {
                return Ok(rows);
            }
        }
    }

    fn delete_org(&mut self, id: &str) -> Result<(), CliError> {
        let deleted = self.runtime.block_on(self.auth.delete_organization(&self.operate, id));
        deleted.map(drop).map_err(failed)
    }

    fn create_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError> {
        let expires_at_ms = self.expiry(&new.grant);
        let scopes = new.grant.scopes.clone().unwrap_or_default();
        let key = auth::NewKey {
            name: new.name.clone().unwrap_or_default(),
            scopes,
            narrowing: narrowing(&new.grant),
            expires_at_ms,
        };
        let org_id = new.org_id.as_deref().unwrap_or(DEFAULT_ORG);
        let made = self.runtime.block_on(self.auth.create_key(&self.manage, Some(org_id), key));
        let made = made.map_err(failed)?;
        Ok(CreatedKey {
            org_id: self.org_of(&made.row),
            scopes: scope_names(&made.row),
            expires_at: made.row.expires_at_ms.map(rfc3339),
            key_id: made.row.id,
            api_key: made.api_key.expose().to_owned(),
        })
    }

    fn list_keys(&mut self, org_id: Option<&str>) -> Result<Vec<KeyInfo>, CliError> {
        let org_id = org_id.unwrap_or(DEFAULT_ORG);
        let mut rows: Vec<KeyInfo> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.key_id.clone());
            let page = self.auth.keys(&self.manage, Some(org_id), after.as_deref(), PAGE).map_err(failed)?;
            rows.extend(page.iter().map(|key| KeyInfo {
                key_id: key.id.clone(),
                name: Some(key.name.clone()),
                org_id: self.org_of(key),
                scopes: scope_names(key),
                expires_at: key.expires_at_ms.map(rfc3339),
                last_used_at: key.last_used_ms.map(rfc3339),
                created_at: Some(rfc3339(key.created_at_ms)),
            }));
            if page.len() < PAGE {
                return Ok(rows);
            }
        }
    }

    fn delete_key(&mut self, org_id: Option<&str>, key_id: &str) -> Result<(), CliError> {
        let org_id = org_id.unwrap_or(DEFAULT_ORG);
        self.runtime.block_on(self.auth.delete_key(&self.manage, Some(org_id), key_id)).map_err(failed)
    }

    fn mint_token(&mut self, new: &NewToken) -> Result<MintedToken, CliError> {
        let token = auth::NewToken {
            sub: new.sub.clone().ok_or_else(|| {
                let hint =
                    "name the user with --user; a service without one is better served by `key create`";
                CliError::new(Exit::Usage, "a token needs a user", hint)
            })?,
            roles: new.roles.clone(),
            scopes: new.grant.scopes.clone(),
            narrowing: narrowing(&new.grant),
            expires_in_ms: new.grant.expires_in_seconds.map(|seconds| seconds.saturating_mul(1_000)),
        };
        let org_id = new.org_id.as_deref().unwrap_or(DEFAULT_ORG);
        let made = self.auth.mint_token(&self.manage, Some(org_id), &token).map_err(failed)?;
        Ok(MintedToken {
            token: made.token.expose().to_owned(),
            jti: made.jti,
            expires_at: rfc3339(made.expires_at_ms),
        })
    }

    fn revoke_token(&mut self, org_id: Option<&str>, jti: &str) -> Result<(), CliError> {
        let org_id = org_id.unwrap_or(DEFAULT_ORG);
        self.runtime.block_on(self.auth.revoke_token(&self.manage, Some(org_id), jti)).map_err(failed)
    }
}

fn organization(row: &auth::Organization) -> Organization {
    Organization {
        id: row.id.clone(),
        name: Some(row.name.clone()),
        visibility: Some(
            match row.visibility {
                Visibility::Private => "private",
                Visibility::Org => "org",
            }
            .into(),
        ),
        presence: row.presence,
        created_at: Some(rfc3339(row.created_at_ms)),
    }
}

fn scope_names(key: &KeyRow) -> Vec<String> {
    key.scopes.names().into_iter().map(str::to_owned).collect()
}

fn narrowing(grant: &Grant) -> NarrowingClaims {
    let names = |given: &Option<Vec<String>>| {
        given.as_ref().map(|names| names.iter().map(|name| name.as_str().into()).collect())
    };
    NarrowingClaims {
        agents: names(&grant.agents),
        channels: names(&grant.channels),
        types: names(&grant.types),
    }
}

fn must_exist(config: &Config) -> Result<(), CliError> {
    match store::exists(&config.data_dir) {
        true => Ok(()),
        false => Err(refused(config, &OpenError::Missing { dir: config.data_dir.clone() })),
    }
}

/// Why the data directory could not be had.
fn refused(config: &Config, error: &OpenError) -> CliError {
    match error {
        OpenError::InUse { pid, .. } => in_use(config, *pid),
        OpenError::Missing { .. } => CliError::new(
            Exit::Failed,
            error.to_string(),
            "`nervewire init` makes one; for a running daemon give --url and --key",
        ),
        _ => CliError::new(Exit::Failed, error.to_string(), ""),
    }
}

/// The error for a data directory that a daemon holds.
fn in_use(config: &Config, pid: Option<u32>) -> CliError {
    let who = pid.map_or_else(|| "a daemon".to_owned(), |pid| format!("process {pid}"));
    CliError::new(
        Exit::DataDirInUse,
        format!("{who} is using {}", config.data_dir.display()),
        "ask that daemon: give --url and --key (or NERVEWIRE_URL and NERVEWIRE_KEY), or stop it first",
    )
}

/// Why a change was not made.
fn failed(error: AdminError) -> CliError {
    let hint = match &error {
        AdminError::NotFound => "`nervewire org list` and `nervewire key list --org …` show what there is",
        AdminError::Records(_) => "is the disk full, or the data directory not writable?",
        _ => "",
    };
    CliError::new(Exit::Failed, error.to_string(), hint)
}
