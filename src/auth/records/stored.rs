//! [`Records`] in the real store.
//!
//! * A deleted organization's row stays, with a mark, so that its number is never used again. The store
//!   erases its other rows in the background; they are ignored here as soon as the mark is written.
//! * A revocation without a known end is stored with the latest possible end.
//! * Reading blocks on the disk, so it is done at start only.

use super::rows::{CommitFuture, KeyRow, Organization, RecordChange, Records, Snapshot};
use super::scope_migration;
use crate::auth::error::RecordsError;
use crate::auth::rights::scope::ScopeSet;
use crate::ids::TenantId;
use crate::store::{
    ApiKey, CommitError, DisabledUser, Organization as StoredOrganization, RevokedToken, Rows, Store,
    TokensValidSince, TooLong,
};

/// A time that never comes.
const NEVER_MS: u64 = u64::MAX;

/// [`Records`] of an open store.
pub struct StoredRecords {
    store: Store,
    clock: std::sync::Arc<dyn crate::time::Clock>,
}

impl StoredRecords {
    /// Creates the records of `store`. The clock gives the time at which a user was disabled.
    #[must_use]
    pub fn new(store: Store, clock: std::sync::Arc<dyn crate::time::Clock>) -> Self {
        StoredRecords { store, clock }
    }
}

impl Records for StoredRecords {
    fn load(&self) -> Result<Snapshot, RecordsError> {
        let organizations = self.store.organizations_blocking()?;
        let mut keys = self.store.api_keys_blocking()?;
        let rewritten_keys = scope_migration::run(&self.store, &mut keys)?;
        let next_tenant = organizations.iter().map(|row| row.tenant.0 + 1).max().unwrap_or(1);
        let revoked = self.store.revoked_blocking()?;
        let until = |row: &RevokedToken| Some(row.expires_ms).filter(|end| *end != NEVER_MS);
        Ok(Snapshot {
            next_tenant,
            rewritten_keys,
            organizations: organizations
                .into_iter()
                .filter(|row| !row.deleted)
                .map(organization_row)
                .collect(),
            keys: keys.into_iter().map(key_row).collect(),
            revocations: revoked.into_iter().map(|row| (row.tenant, row.jti.clone(), until(&row))).collect(),
            disabled: {
                let users = self.store.disabled_users_blocking()?;
                users.into_iter().map(|user| (user.tenant, user.sub)).collect()
            },
            ended: {
                let users = self.store.users_since_blocking()?;
                users.into_iter().map(|user| (user.tenant, user.sub, user.since_ms)).collect()
            },
        })
    }

    fn commit(&self, writes: Vec<RecordChange>, beside: Rows) -> CommitFuture<'_> {
        let now_ms = self.clock.now_ms();
        Box::pin(async move {
            let mut rows = beside;
            for write in writes {
                add(&mut rows, write, now_ms).map_err(|TooLong { .. }| RecordsError::TooLong)?;
            }
            self.store.write(rows).await.map_err(|error| match error {
                CommitError::Unknown => RecordsError::Unknown,
                CommitError::TooLarge => RecordsError::TooLong,
                CommitError::Deleted => RecordsError::Deleted,
                CommitError::Unavailable | CommitError::OutOfOrder => RecordsError::Unavailable,
            })
        })
    }
}

fn add(rows: &mut Rows, write: RecordChange, now_ms: u64) -> Result<(), TooLong> {
    match write {
        RecordChange::PutOrganization(row) => rows.put_organization(&organization(row, false)),
        RecordChange::DeleteOrganization(row) => {
            let tenant = row.tenant;
            rows.put_organization(&organization(row, true))?;
            rows.erase_tenant(tenant);
            Ok(())
        }
        RecordChange::PutKey(row) => rows.put_api_key(&api_key(row)),
        RecordChange::DeleteKey(tenant, id) => {
            rows.delete_api_key(tenant, &id);
            Ok(())
        }
        RecordChange::Revoke { tenant, jti, until_ms } => {
            rows.put_revoked(&RevokedToken { tenant, jti, expires_ms: until_ms.unwrap_or(NEVER_MS) })
        }
        RecordChange::ForgetRevocation(tenant, jti) => {
            rows.delete_revoked(tenant, &jti);
            Ok(())
        }
        RecordChange::EndTokens { tenant, sub, since_ms } => {
            rows.put_user_since(&TokensValidSince { tenant, sub, since_ms })
        }
        RecordChange::ForgetEnd(tenant, sub) => {
            rows.delete_user_since(tenant, &sub);
            Ok(())
        }
        RecordChange::SetDisabled { tenant, sub, disabled } => {
            set_disabled(rows, tenant, sub, disabled, now_ms)
        }
    }
}

fn set_disabled(
    rows: &mut Rows,
    tenant: TenantId,
    sub: String,
    disabled: bool,
    now_ms: u64,
) -> Result<(), TooLong> {
    if disabled {
        return rows.put_disabled_user(&DisabledUser { tenant, sub, since_ms: now_ms });
    }
    rows.delete_disabled_user(tenant, &sub);
    Ok(())
}

fn organization(row: Organization, deleted: bool) -> StoredOrganization {
    StoredOrganization {
        tenant: row.tenant,
        org_id: row.id,
        name: row.name,
        visibility: row.visibility,
        presence: row.presence,
        created_ms: row.created_at_ms,
        deleted,
    }
}

fn organization_row(row: StoredOrganization) -> Organization {
    Organization {
        tenant: row.tenant,
        id: row.org_id,
        name: row.name,
        visibility: row.visibility,
        presence: row.presence,
        created_at_ms: row.created_ms,
    }
}

fn api_key(row: KeyRow) -> ApiKey {
    ApiKey {
        tenant: row.tenant,
        key_id: row.id,
        digest: row.digest,
        scopes: row.scopes.names().into_iter().map(str::to_owned).collect(),
        narrowing: row.narrowing,
        name: row.name,
        created_ms: row.created_at_ms,
        expires_ms: row.expires_at_ms,
        last_used_ms: row.last_used_ms,
    }
}

fn key_row(row: ApiKey) -> KeyRow {
    KeyRow {
        tenant: row.tenant,
        id: row.key_id,
        digest: row.digest,
        name: row.name,
        scopes: ScopeSet::from_stored(&row.scopes),
        narrowing: row.narrowing,
        created_at_ms: row.created_ms,
        expires_at_ms: row.expires_ms,
        last_used_ms: row.last_used_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::*;
    use crate::filter::Narrowing;
    use crate::store::StoreOptions;
    use crate::time::ManualClock;

    fn open(dir: &std::path::Path, clock: &Arc<ManualClock>) -> (Store, Auth) {
        let mut options = StoreOptions::new(dir);
        options.reserve_bytes = 0;
        let store = Store::open(options).expect("opened");
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        let records = Arc::new(StoredRecords::new(store.clone(), Arc::clone(&clock)));
        let own = OwnKey::load_or_make(dir).expect("its key");
        let auth = Auth::new(&AuthSettings::default(), own, records, clock).expect("valid");
        (store, auth)
    }

    fn enter(auth: &Auth, text: &str) -> Result<Arc<Principal>, AuthError> {
        crate::auth::tests::enter(
            auth,
            &[("authorization", &format!("Bearer {text}"))],
            "",
            CredentialUse::Rest,
        )
    }

    /// All changes by an administrator are still there after a restart on the same directory.
    #[tokio::test]
    async fn a_restart_keeps_every_administrative_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let (store, auth) = open(dir.path(), &clock);
        let (_, bootstrap) = auth.bootstrap().await.expect("created").expect("an empty store");
        let operator = enter(&auth, bootstrap.api_key.expose()).expect("genuine");
        let (operate, manage) =
            (operator.authorize::<Operate>().expect("operator"), operator.authorize().expect("manager"));
        let new = NewOrganization { id: Some("acme".into()), first_key: true, ..Default::default() };
        let acme = auth.create_organization(&operate, new.clone()).await.expect("created");
        let change = OrganizationChange {
            name: Some("Acme".into()),
            visibility: Some(Visibility::Org),
            presence: Some(true),
        };
        auth.change_organization(&manage, Some("acme"), None, change).await.expect("changed");
        let mint = |sub: &str| {
            let new = NewToken { sub: sub.into(), ..NewToken::default() };
            auth.mint_token(&manage, Some("acme"), &new).expect("minted")
        };
        let (kept, revoked, disabled) = (mint("kept"), mint("revoked"), mint("disabled"));
        auth.revoke_token(&manage, Some("acme"), &revoked.jti).await.expect("revoked");
        auth.revoke_token(&manage, Some("acme"), "foreign").await.expect("revoked");
        auth.set_disabled(&manage, Some("acme"), "disabled", None, true).await.expect("disabled");
        let narrowing =
            NarrowingClaims { agents: Some(vec!["a".into()]), types: Some(vec![]), ..Default::default() };
        let expires_at_ms = Some(clock.now_ms() + 5_000);
        let new_key = NewKey { name: "n".into(), scopes: vec!["subscribe".into()], narrowing, expires_at_ms };
        let key = auth.create_key(&manage, Some("acme"), new_key).await.expect("created");
        enter(&auth, key.api_key.expose()).expect("genuine");
        auth.maintain().await.expect("stored");
        let gone = NewOrganization { id: Some("gone".into()), first_key: true, ..Default::default() };
        let gone = auth.create_organization(&operate, gone).await.expect("created");
        auth.delete_organization(&operate, "gone").await.expect("deleted");
        drop(auth);
        store.close().await;
        drop(store);

        let (store, auth) = open(dir.path(), &clock);
        assert!(auth.bootstrap().await.expect("nothing to do").is_none());
        let operator = enter(&auth, bootstrap.api_key.expose()).expect("genuine");
        let operate = operator.authorize::<Operate>().expect("still the operator");
        let first = acme.key.expect("its first key");
        let rights = auth.still_valid(&enter(&auth, first.api_key.expose()).expect("genuine"));
        assert!(rights.expect("valid").sees_all_users);
        assert_eq!(auth.with_presence(), [acme.organization.tenant]);
        assert!(enter(&auth, kept.token.expose()).is_ok(), "the own key was kept");
        let refused = |refusal| Err(AuthError::Unauthorized(refusal));
        assert_eq!(enter(&auth, revoked.token.expose()), refused(CredentialError::Revoked));
        assert_eq!(enter(&auth, disabled.token.expose()), refused(CredentialError::Disabled));
        let gone_key = gone.key.expect("its first key");
        assert_eq!(enter(&auth, gone_key.api_key.expose()), refused(CredentialError::NotGenuine));
        let manage = operator.authorize::<Manage>().expect("manager");
        let listed = auth.keys(&manage, Some("acme"), None, 10).expect("listed");
        let listed = listed.into_iter().find(|row| row.id == key.row.id).expect("the narrowed key");
        assert_eq!(listed, KeyRow { last_used_ms: Some(clock.now_ms()), ..key.row });
        let again = auth
            .create_organization(&operate, NewOrganization { id: Some("gone".into()), ..Default::default() });
        let again = again.await.expect("created");
        assert!(again.organization.tenant > gone.organization.tenant, "a number is never used again");
        drop(auth);
        store.close().await;
    }

    /// Keys that an older daemon stored, byte for byte as it wrote them, keep their rights. A second start
    /// changes nothing.
    #[tokio::test]
    async fn keys_stored_before_the_write_scope_are_rewritten_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let mut options = StoreOptions::new(dir.path());
        options.reserve_bytes = 0;
        let store = Store::open(options).expect("opened");
        let tenant = store.new_tenant();
        let old = |scopes: &str| {
            let made = api_key::generate(&SystemRandom::new()).expect("random bytes");
            let scopes = scopes.split_whitespace().map(str::to_owned).collect();
            let key = ApiKey {
                tenant,
                key_id: made.id,
                digest: made.digest,
                scopes,
                narrowing: Narrowing::new(Some(vec!["a".into()]), None, None).expect("valid"),
                name: "of old".into(),
                created_ms: 5,
                expires_ms: None,
                last_used_ms: None,
            };
            (key, made.text)
        };
        let star = "publish publish:org subscribe read:all manage";
        let all = "subscribe publish write agents publish:org read:all mint manage";
        let keys = [
            (old("publish"), "publish write agents"),
            (old("subscribe publish:org"), "subscribe write agents publish:org"),
            (old("subscribe read:all manage"), "subscribe read:all manage"),
            (old(star), all),
            (old(&format!("{star} operator")), &format!("{all} operator")),
        ];
        let mut rows = Rows::new();
        let organization = crate::store::Organization {
            tenant,
            org_id: "acme".into(),
            name: String::new(),
            visibility: Visibility::Private,
            presence: false,
            created_ms: 5,
            deleted: false,
        };
        rows.put_organization(&organization).expect("fits");
        keys.iter().for_each(|((key, _), _)| rows.put_api_key(key).expect("fits"));
        store.write(rows).await.expect("written");
        store.close().await;
        drop(store);

        let mut later = None;
        for life in 0..2 {
            let (store, auth) = open(dir.path(), &clock);
            for ((key, text), scopes) in &keys {
                let who = enter(&auth, text.expose()).expect("genuine");
                assert_eq!(who.scopes.names().join(" "), *scopes, "life {life}");
                assert_eq!(who.narrowing, key.narrowing);
                let stored = store.api_keys_blocking().expect("read");
                let row = stored.into_iter().find(|row| row.key_id == key.key_id).expect("still there");
                assert_eq!(
                    row,
                    ApiKey { scopes: row.scopes.clone(), last_used_ms: row.last_used_ms, ..key.clone() }
                );
                assert_eq!(row.scopes.join(" "), *scopes, "on disk, life {life}");
            }
            let manager = Principal::local_operator().authorize::<Manage>().expect("manager");
            // A key that is created from now on has exactly its scopes.
            let new = NewKey { scopes: vec!["publish".into()], ..NewKey::default() };
            let made = match later.take() {
                Some(made) => made,
                None => auth.create_key(&manager, Some("acme"), new).await.expect("created").api_key,
            };
            assert_eq!(enter(&auth, made.expose()).expect("genuine").scopes, Scope::Publish.into());
            later = Some(made);
            drop(auth);
            store.close().await;
        }
    }

    /// A repeated request must find its response exactly if the key exists, so one commit holds both.
    #[tokio::test]
    async fn rows_of_the_caller_are_in_the_same_commit() {
        use crate::store::{IdempotencyRecord, StoredResponse, key_digest};
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let (store, auth) = open(dir.path(), &clock);
        let (organization, bootstrap) = auth.bootstrap().await.expect("created").expect("an empty store");
        let manager =
            enter(&auth, bootstrap.api_key.expose()).expect("genuine").authorize().expect("manager");
        let (tenant, place) = (organization.tenant, key_digest(&[b"POST /api-keys", b"k"]));
        let created_ms = crate::time::SystemClock.now_ms();
        let withheld = |row: &KeyRow| {
            let answer = StoredResponse::Withheld { id: row.id.clone() };
            let mut rows = Rows::new();
            let row = IdempotencyRecord { body: [0; 32], answer, created_ms };
            rows.put_idempotency(tenant, &place, &row).expect("short");
            rows
        };
        let new = NewKey { scopes: vec!["manage".into()], ..NewKey::default() };
        let key = auth.create_key_with(&manager, None, new, withheld).await.expect("created");
        let found = store.idempotency(tenant, place).await.expect("read").expect("stored");
        assert_eq!(found.answer, StoredResponse::Withheld { id: key.row.id });
        store.close().await;
        let late = auth.create_key_with(
            &manager,
            None,
            NewKey { scopes: vec!["*".into()], ..NewKey::default() },
            |_| Rows::new(),
        );
        assert!(matches!(late.await, Err(AdminError::Records(RecordsError::Unavailable))));
    }
}
