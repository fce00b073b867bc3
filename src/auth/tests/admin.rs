//! Tests of administration: what is durable before it is visible, what nobody may issue, and what nobody may
//! learn.

use super::*;

fn new_key(scopes: &[&str]) -> NewKey {
    NewKey { scopes: scopes.iter().map(|name| (*name).to_owned()).collect(), ..NewKey::default() }
}

fn new_token(sub: &str) -> NewToken {
    NewToken { sub: sub.into(), ..NewToken::default() }
}

fn list(names: &[&str]) -> Option<Vec<Box<str>>> {
    Some(names.iter().map(|name| (*name).into()).collect())
}

fn operator() -> Authorized<Operate> {
    Principal::local_operator().authorize().expect("the operator")
}

/// A manager of `acme`, authenticated by a key with these scopes, narrowing and lifetime.
async fn manager(test: &TestAuth, new: NewKey) -> Authorized<Manage> {
    let key = test.auth.create_key(&test.manager(), None, new).await.expect("created");
    test.bearer(key.api_key.expose()).expect("genuine").authorize().expect("a manager")
}

#[tokio::test]
async fn only_the_first_start_creates_the_operator_key() {
    let (memory, clock) = (Arc::new(MemoryRecords::default()), Arc::new(ManualClock::at(T0)));
    let auth = open(&AuthSettings::default(), &memory, &clock);
    let (organization, key) = auth.bootstrap().await.expect("created").expect("an empty store");
    assert_eq!((organization.id.as_str(), key.row.scopes), ("default", ScopeSet::OPERATOR));
    assert!(organization.tenant.0 > 0);
    assert!(auth.bootstrap().await.expect("nothing to do").is_none());
    let again = open(&AuthSettings::default(), &memory, &clock);
    assert!(again.bootstrap().await.expect("nothing to do").is_none());
    let header = format!("Bearer {}", key.api_key.expose());
    let who = enter(&again, &[("authorization", &header)], "", CredentialUse::Rest).expect("survived");
    let by = who.authorize::<Operate>().expect("the operator");
    assert!(matches!(again.delete_organization(&by, "default").await, Err(AdminError::Conflict(_))));
}

#[tokio::test]
async fn a_change_is_visible_only_after_it_is_synced() {
    let test = TestAuth::new().await;
    let (manager, ann) = (test.manager(), test.bearer(&token(json!({"jti": "j"}))).expect("genuine"));
    let closed = test.memory.gate.lock().await;
    let mut revoking = Box::pin(test.auth.revoke_token(&manager, None, "j"));
    let pending = tokio::time::timeout(std::time::Duration::from_millis(1), &mut revoking).await;
    assert!(pending.is_err());
    assert!(test.auth.still_valid(&ann).is_ok(), "not durable yet");
    drop(closed);
    revoking.await.expect("revoked");
    assert_eq!(test.auth.still_valid(&ann), Err(CredentialEnded::Revoked));
    assert_eq!(test.refusal(&token(json!({"jti": "j"}))), CredentialError::Revoked);
}

/// The client of `DELETE /tokens/{jti}` hangs up during the write. The row exists after a restart, so the
/// revocation must be in effect now as well.
#[tokio::test]
async fn a_change_whose_caller_was_dropped_is_applied() {
    let test = TestAuth::new().await;
    let (manager, ann) = (test.manager(), test.bearer(&token(json!({"jti": "j"}))).expect("genuine"));
    let closed = test.memory.gate.lock().await;
    let revoking = test.auth.revoke_token(&manager, None, "j");
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), revoking).await.is_err());
    drop(closed);
    assert_eq!(test.auth.still_valid(&ann), Err(CredentialEnded::Revoked));
}

#[tokio::test]
async fn a_failed_write_changes_nothing_and_calls_no_hook() {
    let test = TestAuth::new().await;
    let (manager, ann) = (test.manager(), test.bearer(&token(json!({"jti": "j"}))).expect("genuine"));
    test.auth.on_change(|change| panic!("unexpected hook call: {change:?}"));
    test.memory.failing.store(true, Ordering::Relaxed);
    let failed = |error| matches!(error, AdminError::Records(_));
    assert!(failed(test.auth.revoke_token(&manager, None, "j").await.expect_err("no disk")));
    assert!(failed(test.auth.create_key(&manager, None, new_key(&["*"])).await.expect_err("no disk")));
    assert!(failed(test.auth.delete_organization(&operator(), "globex").await.expect_err("no disk")));
    assert!(test.auth.still_valid(&ann).is_ok());
    assert!(test.bearer(test.globex.api_key.expose()).is_ok());
    assert_eq!(test.auth.keys(&manager, None, None, 10).expect("listed").len(), 1);
}

#[tokio::test]
async fn changes_end_principals_call_hooks_and_survive_a_restart() {
    let test = TestAuth::new().await;
    let changes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&changes);
    test.auth.on_change(move |change| sink.lock().push(change.clone()));
    let (manager, tenant) = (test.manager(), test.acme.row.tenant);
    let key = test.auth.create_key(&manager, None, new_key(&["subscribe"])).await.expect("created");
    let by_key = test.bearer(key.api_key.expose()).expect("genuine");
    let ann = test.bearer(&token(json!({}))).expect("genuine");
    let globex = test.bearer(test.globex.api_key.expose()).expect("genuine");

    test.auth.delete_key(&manager, None, &key.row.id).await.expect("deleted");
    test.auth.set_disabled(&manager, None, "ann", None, true).await.expect("disabled");
    test.auth.set_disabled(&manager, None, "ann", None, true).await.expect("is already");
    test.auth.delete_organization(&operator(), "globex").await.expect("deleted");
    for (who, ended) in [
        (&by_key, CredentialEnded::Revoked),
        (&ann, CredentialEnded::Disabled),
        (&globex, CredentialEnded::OrganizationDeleted),
    ] {
        assert_eq!(test.auth.still_valid(who), Err(ended));
    }
    let expected = [
        AuthChange::KeyRevoked(tenant, key.row.id.clone()),
        AuthChange::UserDisabled(tenant, "ann".into(), true),
        AuthChange::OrganizationDeleted(globex.tenant),
    ];
    assert_eq!(*changes.lock(), expected);
    assert!(test.auth.is_disabled(tenant, "ann"));

    let settings = AuthSettings { jwt_keys: vec![hs256("k1", SECRET)], ..AuthSettings::default() };
    let again = test.restarted(&settings);
    for (who, ended) in [
        (&by_key, CredentialEnded::Revoked),
        (&ann, CredentialEnded::Disabled),
        (&globex, CredentialEnded::OrganizationDeleted),
    ] {
        assert_eq!(again.still_valid(who), Err(ended));
    }
    test.auth.set_disabled(&manager, None, "ann", None, false).await.expect("enabled");
    assert!(test.auth.still_valid(&ann).is_ok());
}

#[tokio::test]
async fn another_organization_and_an_unknown_one_are_both_not_found() {
    let test = TestAuth::new().await;
    let manager = test.manager();
    let theirs = test.globex.row.id.as_str();
    for (org_id, key_id) in [(None, theirs), (None, "nobody"), (Some("globex"), theirs), (Some("none"), "x")]
    {
        let error = test.auth.delete_key(&manager, org_id, key_id).await.expect_err("not ours");
        assert!(matches!(error, AdminError::NotFound), "{org_id:?} {key_id} {error}");
    }
    for org_id in [Some("globex"), Some("none")] {
        let auth = &test.auth;
        let errors = [
            auth.keys(&manager, org_id, None, 10).map(drop),
            auth.find_organization(&manager, org_id).map(drop),
            auth.mint_token(&manager, org_id, &new_token("u")).map(drop),
            auth.create_key(&manager, org_id, new_key(&["*"])).await.map(drop),
            auth.revoke_token(&manager, org_id, "j").await,
            auth.set_disabled(&manager, org_id, "u", None, true).await,
            auth.change_organization(&manager, org_id, Some(1), OrganizationChange::default())
                .await
                .map(drop),
        ];
        assert!(errors.iter().all(|got| matches!(got, Err(AdminError::NotFound))), "{errors:?}");
    }
    assert!(test.bearer(test.globex.api_key.expose()).is_ok());
    assert!(test.auth.keys(&manager, Some("acme"), None, 10).is_ok(), "its own, by name");
}

/// A revoked `jti` or disabled `sub` of one organization has no effect in another.
#[tokio::test]
async fn a_revocation_affects_only_its_organization() {
    let mut both = hs256("k1", SECRET);
    both.organizations.push("globex".into());
    let test = TestAuth::with(AuthSettings { jwt_keys: vec![both], ..AuthSettings::default() }).await;
    let manager = test.manager();
    test.auth.revoke_token(&manager, None, "j").await.expect("revoked");
    test.auth.set_disabled(&manager, None, "ann", None, true).await.expect("disabled");
    assert!(test.bearer(&token(json!({"jti": "j", "org_id": "globex"}))).is_ok());
    assert_eq!(test.refusal(&token(json!({}))), CredentialError::Disabled);
}

#[tokio::test]
async fn organization_ids_are_unique_and_a_successor_accepts_no_old_credential() {
    let test = TestAuth::with(AuthSettings::default()).await;
    let (auth, by) = (&test.auth, operator());
    let named = |id: &str| NewOrganization { id: Some(id.into()), ..Default::default() };
    assert!(matches!(auth.create_organization(&by, named("acme")).await, Err(AdminError::Conflict(_))));
    for bad in ["", "a/b", "ä"] {
        let error = auth.create_organization(&by, named(bad)).await.expect_err(bad);
        assert!(matches!(error, AdminError::Invalid { ref field, .. } if field == "id"));
    }
    let made_up = auth.create_organization(&by, NewOrganization::default()).await.expect("created");
    assert!(made_up.organization.id.starts_with("org-") && made_up.key.is_none());
    let ids = |after, limit| -> Vec<String> {
        auth.organizations(&by, after, limit).iter().map(|organization| organization.id.clone()).collect()
    };
    assert_eq!(ids(None, 2), ["acme", "globex"]);
    assert_eq!(ids(Some("acme"), 1), ["globex"]);

    let manager = Principal::local_operator().authorize::<Manage>().expect("the operator");
    let minted = auth.mint_token(&manager, Some("globex"), &new_token("u")).expect("minted");
    let old = test.bearer(minted.token.expose()).expect("genuine");
    auth.delete_organization(&by, "globex").await.expect("deleted");
    test.clock.advance(2_000);
    let successor = auth.create_organization(&by, named("globex")).await.expect("created").organization;
    assert!(successor.tenant > old.tenant);
    assert_eq!(test.refusal(minted.token.expose()), CredentialError::Organization);
    assert_eq!(auth.still_valid(&old), Err(CredentialEnded::OrganizationDeleted));
    assert_eq!(test.refusal(test.globex.api_key.expose()), CredentialError::NotGenuine);
}

#[tokio::test]
async fn wider_scopes_or_roles_cannot_be_issued() {
    let test = TestAuth::new().await;
    let by = manager(&test, new_key(&["manage", "subscribe", "publish"])).await;
    let forbidden = |got: Result<(), AdminError>| matches!(got, Err(AdminError::Forbidden(_)));
    for scopes in [&["*"][..], &["read:all"], &["subscribe", "publish:org"]] {
        assert!(forbidden(test.auth.create_key(&by, None, new_key(scopes)).await.map(drop)), "{scopes:?}");
        let scopes = Some(scopes.iter().map(|name| (*name).to_owned()).collect());
        let token = NewToken { scopes, ..new_token("u") };
        assert!(forbidden(test.auth.mint_token(&by, None, &token).map(drop)));
    }
    let admin = NewToken { roles: vec!["admin".into()], scopes: Some(vec![]), ..new_token("u") };
    assert!(forbidden(test.auth.mint_token(&by, None, &admin).map(drop)), "a role, even beside scopes");
    assert!(test.auth.create_key(&by, None, new_key(&["subscribe"])).await.is_ok());
    // It may not read or act as every user, so it may not mint a token for one either.
    assert!(forbidden(test.auth.mint_token(&by, None, &new_token("victim")).map(drop)));

    for (field, scopes) in
        [("scopes[0]", &["operator"][..]), ("scopes[1]", &["manage", "x"]), ("scopes", &[])]
    {
        let error = test.auth.create_key(&test.manager(), None, new_key(scopes)).await.expect_err(field);
        assert!(matches!(error, AdminError::Invalid { field: ref got, .. } if got == field), "{error}");
    }
    let unknown = NewToken { roles: vec!["user".into(), "root".into()], ..new_token("u") };
    let error = test.auth.mint_token(&test.manager(), None, &unknown).expect_err("unknown");
    assert!(matches!(error, AdminError::Invalid { ref field, .. } if field == "roles[1]"), "{error}");
}

/// `mint` alone grants what a user has by their role, to any user, within the issuer's narrowing and
/// lifetime, and nothing else.
#[tokio::test]
async fn mint_grants_at_most_the_rights_of_a_user() {
    let test = TestAuth::new().await;
    let narrowing = NarrowingClaims { agents: list(&["a"]), ..Default::default() };
    let end = T0 + 3_600_000;
    let issuer = NewKey { narrowing, expires_at_ms: Some(end), ..new_key(&["mint"]) };
    let key = test.auth.create_key(&test.manager(), None, issuer).await.expect("created");
    let who = test.bearer(key.api_key.expose()).expect("genuine");
    assert!(who.authorize::<Manage>().is_err());
    let by = who.authorize::<Mint>().expect("a minter");
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let token = |roles: &[&str], scopes: Option<&[&str]>| NewToken {
        roles: text(roles),
        scopes: scopes.map(text),
        ..new_token("bob")
    };
    for (new, scopes) in [
        (token(&[], None), "subscribe publish write"),
        (token(&["user"], None), "subscribe publish write"),
        (token(&["viewer"], None), "subscribe"),
        (token(&[], Some(&["write", "publish"])), "publish write"),
    ] {
        let minted = test.auth.mint_token(&by, None, &new).expect("minted");
        let bob = test.bearer(minted.token.expose()).expect("genuine");
        assert_eq!((bob.sub.as_deref(), bob.scopes.names().join(" ")), (Some("bob"), scopes.to_owned()));
        assert_eq!((&bob.narrowing, minted.expires_at_ms), (&who.narrowing, end));
    }
    for new in [
        token(&["admin"], None),
        token(&["admin"], Some(&["subscribe"])),
        token(&[], Some(&["*"])),
        token(&["user"], Some(&["agents"])),
        token(&[], Some(&["publish:org"])),
        token(&[], Some(&["read:all"])),
        token(&[], Some(&["mint"])),
        token(&[], Some(&["manage"])),
        NewToken { expires_in_ms: Some(3_601_000), ..new_token("bob") },
        NewToken {
            narrowing: NarrowingClaims { agents: list(&["b"]), ..Default::default() },
            ..new_token("bob")
        },
    ] {
        let got = test.auth.mint_token(&by, None, &new);
        assert!(matches!(got, Err(AdminError::Forbidden(_))), "{new:?} {got:?}");
    }
    let bob = test.auth.principal_for_ticket(&by, "bob").expect("created");
    assert_eq!((bob.sub.as_deref(), bob.scopes), (Some("bob"), ScopeSet::MINTABLE));
    assert_eq!((&bob.narrowing, bob.expires_at_ms), (&who.narrowing, Some(end)));
    assert!(test.auth.still_valid(&bob).is_ok());
    test.auth.set_disabled(&test.manager(), None, "bob", None, true).await.expect("disabled");
    assert_eq!(test.auth.still_valid(&bob), Err(CredentialEnded::Disabled));
    assert!(matches!(test.auth.principal_for_ticket(&by, ""), Err(AdminError::Invalid { .. })));
}

#[tokio::test]
async fn a_wider_narrowing_cannot_be_issued_and_an_omitted_one_is_inherited() {
    let test = TestAuth::new().await;
    let narrowing = NarrowingClaims { agents: list(&["a", "b"]), channels: list(&["c/*"]), types: None };
    let by = manager(&test, NewKey { narrowing, ..new_key(&["*"]) }).await;
    let ask = |agents: Option<Vec<Box<str>>>, channels: Option<Vec<Box<str>>>| NewToken {
        narrowing: NarrowingClaims { agents, channels, types: list(&["custom"]) },
        ..new_token("u")
    };
    let minted = test.auth.mint_token(&by, None, &ask(list(&["a"]), None)).expect("narrower");
    let who = test.bearer(minted.token.expose()).expect("genuine");
    let shown = serde_json::to_value(&who.narrowing).expect("json");
    assert_eq!(shown, json!({"agents": ["a"], "channels": ["c/*"], "types": ["custom"]}), "inherited");
    for (agents, channels) in [(list(&["z"]), None), (None, list(&["c"])), (list(&["a", "z"]), list(&[]))] {
        let got = test.auth.mint_token(&by, None, &ask(agents.clone(), channels.clone()));
        assert!(matches!(got, Err(AdminError::Forbidden(_))), "{agents:?} {channels:?}");
    }
    let key = test.auth.create_key(&by, None, new_key(&["*"])).await.expect("created");
    assert_eq!(key.row.narrowing, by.principal().narrowing);
}

#[tokio::test]
async fn a_later_expiry_cannot_be_issued() {
    let test = TestAuth::new().await;
    let end = T0 + 3_600_000;
    let by = manager(&test, NewKey { expires_at_ms: Some(end), ..new_key(&["*"]) }).await;
    let expires_at_ms = Some(end + 1);
    let later = test.auth.create_key(&by, None, NewKey { expires_at_ms, ..new_key(&["*"]) }).await;
    assert!(matches!(later, Err(AdminError::Forbidden(_))));
    let inherited = test.auth.create_key(&by, None, new_key(&["*"])).await.expect("created");
    assert_eq!(inherited.row.expires_at_ms, Some(end));
    let minted = test.auth.mint_token(&by, None, &new_token("u")).expect("minted");
    assert_eq!(minted.expires_at_ms, end);
    let longer = NewToken { expires_in_ms: Some(3_601_000), ..new_token("u") };
    assert!(matches!(test.auth.mint_token(&by, None, &longer), Err(AdminError::Forbidden(_))));

    let free = test.manager();
    let minted = test.auth.mint_token(&free, None, &new_token("u")).expect("minted");
    assert_eq!(minted.expires_at_ms, T0 + TOKEN_DEFAULT_MS);
    for expires_in_ms in [Some(0), Some(TOKEN_MAX_MS + 1)] {
        let got = test.auth.mint_token(&free, None, &NewToken { expires_in_ms, ..new_token("u") });
        assert!(matches!(got, Err(AdminError::Invalid { ref field, .. }) if field == "expires_in_seconds"));
    }
    let past = NewKey { expires_at_ms: Some(T0), ..new_key(&["*"]) };
    assert!(matches!(test.auth.create_key(&free, None, past).await, Err(AdminError::Invalid { .. })));
}

#[tokio::test]
async fn a_revocation_is_forgotten_when_its_token_has_expired() {
    let test = TestAuth::new().await;
    let by = test.manager();
    let new = NewToken { roles: vec!["viewer".into()], expires_in_ms: Some(60_000), ..new_token("zoë") };
    let minted = test.auth.mint_token(&by, None, &new).expect("minted");
    let zoe = test.bearer(minted.token.expose()).expect("genuine");
    assert_eq!((zoe.sub.as_deref(), zoe.scopes), (Some("zoë"), Scope::Subscribe.into()));
    assert_eq!(zoe.expires_at_ms, Some(minted.expires_at_ms));

    test.auth.revoke_token(&by, None, &minted.jti).await.expect("revoked");
    assert_eq!(test.refusal(minted.token.expose()), CredentialError::Revoked);
    test.auth.revoke_token(&by, None, "of another issuer").await.expect("revoked");
    let remembered = || test.memory.rows.lock().revocations.len();
    assert_eq!(remembered(), 2);
    test.clock.advance(60_000);
    test.auth.maintain().await.expect("stored");
    assert_eq!(remembered(), 1, "a foreign token's end is unknown, so it is never forgotten");
    assert_eq!(test.refusal(minted.token.expose()), CredentialError::Expired);
}

/// A clock that is set a year ahead by mistake, and then back, does not make a revoked token valid again.
#[tokio::test]
async fn a_revocation_survives_a_clock_that_was_wrong_for_an_hour() {
    let test = TestAuth::new().await;
    let by = test.manager();
    let new = NewToken { expires_in_ms: Some(60_000), ..new_token("zoë") };
    let minted = test.auth.mint_token(&by, None, &new).expect("minted");
    test.auth.revoke_token(&by, None, &minted.jti).await.expect("revoked");
    test.auth.maintain().await.expect("stored");
    let now_ms = test.clock.now_ms();
    test.clock.set(now_ms + 365 * 24 * 3_600_000);
    test.auth.maintain().await.expect("stored");
    test.clock.set(now_ms);
    assert_eq!(test.refusal(minted.token.expose()), CredentialError::Revoked);
    test.clock.advance(60_000);
    test.auth.maintain().await.expect("stored");
    assert_eq!(test.memory.rows.lock().revocations.len(), 0, "time has passed");
}

#[tokio::test]
async fn a_manager_cannot_delete_the_operator_key() {
    let (memory, clock) = (Arc::new(MemoryRecords::default()), Arc::new(ManualClock::at(T0)));
    let auth = open(&AuthSettings::default(), &memory, &clock);
    let (_, bootstrap) = auth.bootstrap().await.expect("created").expect("an empty store");
    let enter_by = |key: &IssuedKey| {
        let header = format!("Bearer {}", key.api_key.expose());
        enter(&auth, &[("authorization", &header)], "", CredentialUse::Rest).expect("genuine")
    };
    let operator = enter_by(&bootstrap).authorize::<Manage>().expect("a manager");
    let star = auth.create_key(&operator, None, new_key(&["*"])).await.expect("created");
    let manager = enter_by(&star).authorize::<Manage>().expect("a manager");
    let got = auth.delete_key(&manager, None, &bootstrap.row.id).await;
    assert!(matches!(got, Err(AdminError::Forbidden(_))));
    auth.delete_key(&operator, None, &star.row.id).await.expect("deleted");
}
