//! Administration on the data directory of a stopped daemon.
//!
//! * It calls the same functions as REST, as the local operator. It asks for no credential, because a process
//!   that can read the data directory can forge every credential in it.
//! * Only `init` creates a store. Every other command reports a missing store and leaves the directory
//!   unchanged.
//! * The directory is locked as long as the backend exists. Every change is on disk before it is reported.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::backend::{
    AdminBackend, CreatedKey, Grant, KeyInfo, MintedToken, NewKey, NewOrganization, NewToken, Organization,
};
use super::exit::{CliError, Exit};
use crate::auth::{
    self, AdminError, Auth, AuthConfigError, AuthSettings, Authorized, FirstKey, IssuedKey, KeyRow, Manage,
    NarrowingClaims, Operate, OwnKey, Principal, StoredRecords,
};
use crate::config::Config;
use crate::store::{self, OpenError, Store, StoreOptions, Visibility};
use crate::time::{Clock, SystemClock, rfc3339};

/// The organization used if none is given. `init` creates it.
const DEFAULT_ORG: &str = "default";
/// Maximum number of organizations listed in the error for an unknown one.
const NAMED: usize = 10;
/// Rows of a list that are read under one lock.
const PAGE: usize = 1_000;

/// Result of `compact`: bytes of the store's file.
pub(super) struct Compacted {
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
}

/// Locks the data directory as long as the result exists.
pub(super) fn open(config: &Config) -> Result<Box<dyn AdminBackend>, CliError> {
    require_data_dir(config, "`nervewire init` makes one; for a running daemon give --url and --key")?;
    let opened = Offline::open(config).map_err(|error| match error {
        CliError::Reported { exit: Exit::DataDirInUse, message, .. } => {
            let hint =
                "use that daemon: give --url and --key (or NERVEWIRE_URL and NERVEWIRE_KEY), or stop it first";
            CliError::new(Exit::DataDirInUse, message, hint)
        }
        error => error,
    });
    Ok(Box::new(opened?))
}

/// Creates the store, its first organization and its first key.
pub(super) fn init(config: &Config) -> Result<FirstKey, CliError> {
    let offline = Offline::open(config)?;
    let made = offline.runtime.block_on(offline.auth.make_first_key(&config.data_dir));
    let made = made.map_err(|error| {
        CliError::new(
            Exit::Failed,
            error.to_string(),
            "is the disk full, or the data directory not writable?",
        )
    })?;
    made.ok_or_else(|| {
        let hint = match auth::unseen_first_key(&config.data_dir) {
            Some(file) => format!("its first key has not been shown yet: it is in {}", file.display()),
            None => "`nervewire key create --operator` creates another key like the first; --data-dir selects another directory"
                .to_owned(),
        };
        let what = format!("{} is already initialised; nothing was changed", config.data_dir.display());
        CliError::new(Exit::Failed, what, hint)
    })
}

/// Rewrites the store into a smaller file.
pub(super) fn compact(config: &Config) -> Result<Compacted, CliError> {
    require_data_dir(config, "`nervewire init` makes one; --data-dir names another directory")?;
    let done = store::compact(&config.data_dir).map_err(|error| refused(config, &error))?;
    Ok(Compacted { bytes_before: done.before, bytes_after: done.after })
}

/// A locked data directory.
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
            super::output::print_note(&format!("{} {}", auth.rewritten_keys(), auth::REWRITTEN_KEYS));
        }
        Ok(Offline { runtime: super::rest::runtime()?, store, auth, clock, operate, manage })
    }

    /// Returns the id of a key's organization.
    fn org_of(&self, key: &KeyRow) -> Option<String> {
        self.auth.organization(key.tenant).map(|organization| organization.id.clone())
    }

    /// Fails if the organization `org_id` does not exist. The error lists existing ones.
    fn require_organization(&self, org_id: &str) -> Result<(), CliError> {
        if self.auth.find_organization(&self.manage, Some(org_id)).is_ok() {
            return Ok(());
        }
        let known = self.auth.organizations(&self.operate, None, NAMED + 1);
        let mut names: Vec<&str> = known.iter().take(NAMED).map(|it| it.id.as_str()).collect();
        if known.len() > NAMED {
            names.push("…");
        }
        let what = format!("there is no organization {org_id:?} in this store");
        let hint = match names.is_empty() {
            true => "there are no organizations: `nervewire init` creates the first one".to_owned(),
            false => format!(
                "existing organizations: {}; `nervewire org create` creates another",
                names.join(", ")
            ),
        };
        Err(CliError::new(Exit::Failed, what, hint))
    }

    fn created(&self, made: IssuedKey) -> CreatedKey {
        CreatedKey {
            org_id: self.org_of(&made.row),
            scopes: scope_names(&made.row),
            expires_at: made.row.expires_at_ms.map(rfc3339),
            key_id: made.row.id,
            api_key: made.api_key.expose().to_owned(),
        }
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
        self.require_organization(id)?;
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
        self.require_organization(org_id)?;
        let made = self.runtime.block_on(self.auth.create_key(&self.manage, Some(org_id), key));
        Ok(self.created(made.map_err(failed)?))
    }

    fn create_operator_key(&mut self, new: &NewKey) -> Result<CreatedKey, CliError> {
        let org_id = new.org_id.as_deref().unwrap_or(DEFAULT_ORG);
        self.require_organization(org_id)?;
        let name = new.name.clone().unwrap_or_else(|| "operator".into());
        let made = self.auth.create_operator_key(&self.operate, org_id, name, self.expiry(&new.grant));
        Ok(self.created(self.runtime.block_on(made).map_err(failed)?))
    }

    fn warning_of_key(&mut self, key_id: &str) -> Option<String> {
        let is_last = self.auth.is_last_operator_key(key_id);
        is_last.then(|| {
            format!(
                "{key_id} is the last operator key: without one, organizations cannot be managed over the network"
            )
        })
    }

    fn list_keys(&mut self, org_id: Option<&str>) -> Result<Vec<KeyInfo>, CliError> {
        let org_id = org_id.unwrap_or(DEFAULT_ORG);
        self.require_organization(org_id)?;
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
        self.require_organization(org_id)?;
        self.runtime.block_on(self.auth.delete_key(&self.manage, Some(org_id), key_id)).map_err(failed)
    }

    fn mint_token(&mut self, new: &NewToken) -> Result<MintedToken, CliError> {
        let token = auth::NewToken {
            sub: new.sub.clone(),
            roles: new.roles.clone(),
            scopes: new.grant.scopes.clone(),
            narrowing: narrowing(&new.grant),
            expires_in_ms: new.grant.expires_in_seconds.map(|seconds| seconds.saturating_mul(1_000)),
        };
        let org_id = new.org_id.as_deref().unwrap_or(DEFAULT_ORG);
        self.require_organization(org_id)?;
        let made = self.auth.mint_token(&self.manage, Some(org_id), &token).map_err(failed)?;
        Ok(MintedToken {
            token: made.token.expose().to_owned(),
            jti: made.jti,
            expires_at: rfc3339(made.expires_at_ms),
        })
    }

    fn revoke_token(&mut self, org_id: Option<&str>, jti: &str) -> Result<(), CliError> {
        let org_id = org_id.unwrap_or(DEFAULT_ORG);
        self.require_organization(org_id)?;
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

/// Fails with this `hint` where there is no store.
pub(super) fn require_data_dir(config: &Config, hint: &str) -> Result<(), CliError> {
    store::find(&config.data_dir).map_err(|error| {
        let is_missing = matches!(error, OpenError::Missing { .. });
        CliError::new(Exit::Failed, error.to_string(), if is_missing { hint } else { "" })
    })
}

/// Returns the error for a data directory that could not be opened.
fn refused(config: &Config, error: &OpenError) -> CliError {
    match error {
        OpenError::InUse { pid, .. } => in_use(config, *pid),
        _ => CliError::new(Exit::Failed, error.to_string(), ""),
    }
}

/// Returns the error for a data directory that a daemon is using.
fn in_use(config: &Config, pid: Option<u32>) -> CliError {
    let who = pid.map_or_else(|| "a daemon".to_owned(), |pid| format!("process {pid}"));
    let what = format!("{who} is using {}", config.data_dir.display());
    CliError::new(Exit::DataDirInUse, what, "stop it first, or select another directory with --data-dir")
}

/// Returns the error for a change that was not made.
fn failed(error: AdminError) -> CliError {
    let hint = match &error {
        AdminError::NotFound => "`nervewire key list --org …` lists the keys",
        AdminError::Records(_) => "is the disk full, or the data directory not writable?",
        _ => "",
    };
    CliError::new(Exit::Failed, error.to_string(), hint)
}
