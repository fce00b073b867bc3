//! Tests of requests: API keys, precedence, browsers and failures; and of how a live principal ends.

use super::*;

const OWN_PAGE: (&str, &str) = ("origin", "https://nw.example");
const EVIL_PAGE: (&str, &str) = ("origin", "https://evil.example");

#[tokio::test]
async fn an_api_key_is_taken_as_bearer_header_query_and_cookie() {
    let test = TestAuth::new().await;
    let key = test.acme.api_key.expose();
    let bearer = format!("Bearer {key}");
    let cookie = format!("{COOKIE}={key}");
    for (headers, query, via) in [
        (vec![("authorization", bearer.as_str())], String::new(), CredentialSource::Bearer),
        (vec![("x-api-key", key)], String::new(), CredentialSource::ApiKeyHeader),
        (vec![], format!("token={key}"), CredentialSource::Query),
        (vec![("cookie", cookie.as_str())], String::new(), CredentialSource::Cookie),
    ] {
        let who = enter(&test.auth, &headers, &query, CredentialUse::Stream).expect("genuine");
        assert_eq!((who.via, who.sub.as_deref(), who.scopes), (via, None, ScopeSet::ORGANIZATION));
        assert_eq!(who.key_id(), Some(test.acme.row.id.as_str()));
    }
}

#[tokio::test]
async fn an_unknown_key_a_wrong_secret_and_a_jwt_in_the_key_header_are_401() {
    let test = TestAuth::new().await;
    let key = test.acme.api_key.expose();
    let other_secret = test.globex.api_key.expose().rsplit('_').next().expect("a secret");
    for bad in [
        format!("nwk_{}_{other_secret}", test.acme.row.id),
        format!("nwk_unknown00000_{other_secret}"),
        key[..key.len() - 1].to_owned(),
        format!("{key}x"),
    ] {
        assert_eq!(test.refusal(&bad), CredentialError::NotGenuine, "{bad}");
    }
    let jwt = token(json!({}));
    let got = enter(&test.auth, &[("x-api-key", &jwt)], "", CredentialUse::Rest);
    assert_eq!(got, Err(AuthError::Unauthorized(CredentialError::Malformed)));
}

#[tokio::test]
async fn a_failing_credential_does_not_fall_through_to_a_valid_one() {
    let test = TestAuth::new().await;
    let key = test.acme.api_key.expose();
    let headers = [("authorization", "Bearer wrong"), ("x-api-key", key)];
    let got = enter(&test.auth, &headers, &format!("token={key}"), CredentialUse::Stream);
    assert_eq!(got, Err(AuthError::Unauthorized(CredentialError::Malformed)));
    assert!(enter(&test.auth, &headers[1..], "token=wrong", CredentialUse::Stream).is_ok());
}

#[tokio::test]
async fn token_in_query_can_be_switched_off() {
    let test = TestAuth::with(AuthSettings { token_in_query: false, ..AuthSettings::default() }).await;
    let query = format!("token={}", test.acme.api_key.expose());
    let got = enter(&test.auth, &[], &query, CredentialUse::Stream);
    assert_eq!(got, Err(AuthError::Unauthorized(CredentialError::Absent)));
}

#[tokio::test]
async fn no_credential_is_401_and_not_counted_as_a_failure() {
    let test = TestAuth::with(AuthSettings { failures_per_minute: 1, ..AuthSettings::default() }).await;
    for _ in 0..10 {
        let got = enter(&test.auth, &[], "", CredentialUse::Rest);
        assert_eq!(got, Err(AuthError::Unauthorized(CredentialError::Absent)));
    }
    assert_eq!(test.refusal("wrong"), CredentialError::Malformed);
}

#[tokio::test]
async fn a_valid_credential_is_accepted_despite_failures_of_its_address() {
    let test = TestAuth::with(AuthSettings { failures_per_minute: 3, ..AuthSettings::default() }).await;
    let query = format!("ticket={}", "x".repeat(40));
    for _ in 0..2 {
        assert_eq!(test.refusal("wrong"), CredentialError::Malformed);
    }
    let third = enter(&test.auth, &[], &query, CredentialUse::Stream);
    assert_eq!(third, Err(AuthError::Unauthorized(CredentialError::Ticket)));
    assert_eq!(test.bearer("wrong"), Err(AuthError::TooManyFailures { retry_after: 60 }));
    let manager = test.manager();
    let renewed = test.auth.renew(manager.principal(), "wrong", Some("192.0.2.7".parse().expect("ip")));
    assert_eq!(renewed, Err(RenewError::Refused(AuthError::TooManyFailures { retry_after: 60 })));
    test.clock.advance(60_000);
    assert_eq!(test.refusal("wrong"), CredentialError::Malformed);
}

/// RFC 6455 §10.2: any page can open a WebSocket to any host, and the browser attaches cookies.
#[tokio::test]
async fn a_websocket_from_a_foreign_page_is_refused_whatever_its_credential() {
    let test = TestAuth::new().await;
    let key = test.acme.api_key.expose();
    let query = format!("token={key}");
    let got = enter(&test.auth, &[EVIL_PAGE], &query, CredentialUse::WebSocket);
    assert_eq!(got, Err(AuthError::Forbidden(ForbiddenUse::Origin)));
    for page in [("origin", "http://localhost:3000"), OWN_PAGE] {
        assert!(enter(&test.auth, &[page], &query, CredentialUse::WebSocket).is_ok());
    }
    assert!(enter(&test.auth, &[], &query, CredentialUse::WebSocket).is_ok(), "no browser");
    // `fetch` obeys CORS by itself, and the credential is explicit.
    assert!(enter(&test.auth, &[EVIL_PAGE], &query, CredentialUse::Stream).is_ok());
    let wrong = enter(&test.auth, &[EVIL_PAGE], "token=wrong", CredentialUse::WebSocket);
    assert_eq!(wrong, Err(AuthError::Unauthorized(CredentialError::Malformed)), "401 comes before 403");
}

#[tokio::test]
async fn a_cookie_is_accepted_for_reading_or_from_an_allowed_page() {
    let test = TestAuth::new().await;
    let cookie = format!("a=b; {COOKIE}={}", token(json!({})));
    let cookie = ("cookie", cookie.as_str());
    let forbidden = Err(AuthError::Forbidden(ForbiddenUse::Origin));
    for page in [None, Some(EVIL_PAGE), Some(("origin", "null"))] {
        let headers: Vec<_> = page.into_iter().chain([cookie]).collect();
        assert_eq!(enter(&test.auth, &headers, "", CredentialUse::Rest), forbidden, "POST {page:?}");
        assert_eq!(
            enter(&test.auth, &headers, "", CredentialUse::WebSocket),
            forbidden,
            "WebSocket {page:?}"
        );
        assert!(enter(&test.auth, &headers, "", CredentialUse::Stream).is_ok(), "GET {page:?}");
    }
    for use_ in [CredentialUse::Rest, CredentialUse::WebSocket, CredentialUse::Stream] {
        assert!(enter(&test.auth, &[OWN_PAGE, cookie], "", use_).is_ok(), "{use_:?}");
    }
}

#[tokio::test]
async fn a_principal_ends_at_its_expiry() {
    let test = TestAuth::new().await;
    let ann = test.bearer(&token(json!({}))).expect("genuine");
    test.clock.advance(3_599_999);
    assert!(test.auth.still_valid(&ann).is_ok());
    test.clock.advance(1);
    assert_eq!(test.auth.still_valid(&ann), Err(CredentialEnded::Expired));

    let manager = test.manager();
    let expires_at_ms = Some(test.clock.now_ms() + 10);
    let new = NewKey { scopes: vec!["subscribe".into()], expires_at_ms, ..NewKey::default() };
    let short = test.auth.create_key(&manager, None, new).await.expect("created");
    let who = test.bearer(short.api_key.expose()).expect("in time");
    test.clock.advance(10);
    assert_eq!(test.auth.still_valid(&who), Err(CredentialEnded::Expired));
    assert_eq!(test.refusal(short.api_key.expose()), CredentialError::Expired);
}

#[tokio::test]
async fn visibility_and_read_all_show_everyone_s_events() {
    let test = TestAuth::new().await;
    let ann = test.bearer(&token(json!({}))).expect("genuine");
    let auditor = test.bearer(&token(json!({"scopes": ["subscribe", "read:all"]}))).expect("genuine");
    let sees = |who: &Principal| test.auth.still_valid(who).expect("valid").sees_all_users;
    assert_eq!((sees(&ann), sees(&auditor)), (false, true));
    let change = OrganizationChange { visibility: Some(Visibility::Org), ..Default::default() };
    test.auth.change_organization(&test.manager(), None, None, change).await.expect("changed");
    assert!(sees(&ann));
}

#[tokio::test]
async fn renewing_keeps_the_identity_or_ends_the_connection() {
    let test = TestAuth::new().await;
    let ann = test.bearer(&token(json!({}))).expect("genuine");
    let renew = |text: &str| test.auth.renew(&ann, text, None);
    let longer = renew(&token(json!({"exp": T0_S + 7_200, "roles": ["viewer"]}))).expect("the same user");
    assert_eq!(longer.expires_at_ms, Some(T0 + 7_200_000));
    assert_eq!(longer.scopes, Scope::Subscribe.into());
    assert_eq!(renew(&token(json!({"sub": "bob"}))), Err(RenewError::ChangedIdentity));
    assert_eq!(renew(test.acme.api_key.expose()), Err(RenewError::ChangedIdentity));
    assert_eq!(renew(test.globex.api_key.expose()), Err(RenewError::ChangedIdentity));
    let expired = AuthError::Unauthorized(CredentialError::Expired);
    assert_eq!(renew(&token(json!({"exp": T0_S}))), Err(RenewError::Refused(expired)));

    let key = test.manager();
    let again = test.auth.renew(key.principal(), test.acme.api_key.expose(), None);
    assert!(again.is_ok_and(|new| new.sub.is_none()));
}

#[tokio::test]
async fn the_last_use_is_recorded_once_a_minute_and_stored_in_batches() {
    let test = TestAuth::new().await;
    let stored = || {
        let rows = test.memory.rows.lock();
        rows.keys.iter().find(|row| row.id == test.acme.row.id).and_then(|row| row.last_used_ms)
    };
    let commits = || test.memory.commits.load(Ordering::Relaxed);
    let use_it = || drop(test.bearer(test.acme.api_key.expose()).expect("genuine"));
    let before = commits();
    for _ in 0..100 {
        use_it();
    }
    assert_eq!((stored(), commits()), (None, before), "authentication writes nothing");
    test.auth.maintain().await.expect("stored");
    assert_eq!((stored(), commits()), (Some(T0), before + 1));
    test.clock.advance(59_999);
    use_it();
    test.auth.maintain().await.expect("nothing to do");
    assert_eq!(commits(), before + 1);
    test.clock.advance(1);
    use_it();
    test.memory.failing.store(true, Ordering::Relaxed);
    assert!(test.auth.maintain().await.is_err());
    test.memory.failing.store(false, Ordering::Relaxed);
    test.auth.maintain().await.expect("due again");
    assert_eq!(stored(), Some(T0 + 60_000));
    let listed = test.auth.keys(&test.manager(), None, None, 10).expect("listed");
    assert_eq!(listed[0].last_used_ms, Some(T0 + 60_000));
}

#[tokio::test]
async fn debug_and_display_never_show_a_credential() {
    let test = TestAuth::new().await;
    let key = test.acme.api_key.expose();
    let secret = key.rsplit('_').next().expect("a secret");
    let principal = test.bearer(key).expect("genuine");
    let ticket = test.ticket(&principal, None, true).expect("created");
    let minted =
        test.auth.mint_token(&test.manager(), None, &NewToken { sub: "u".into(), ..Default::default() });
    let minted = minted.expect("minted");
    let settings = AuthSettings { jwt_keys: vec![hs256("k", SECRET)], ..AuthSettings::default() };
    let shown = format!(
        "{:?} {:?} {principal:?} {ticket:?} {minted:?} {settings:?} {:?}",
        test.auth,
        test.acme,
        test.bearer(&format!("{key}x"))
    );
    let secrets =
        [secret, ticket.ticket.expose(), minted.token.expose(), std::str::from_utf8(SECRET).expect("text")];
    for hidden in secrets {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(!shown.contains("[97, 32, 115"), "the secret as bytes: {shown}");
}
