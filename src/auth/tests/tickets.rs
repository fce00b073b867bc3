//! Tests of both kinds of tickets: used once, bound to a page, ended with the credential that they were made
//! from.

use super::*;

const PAGE: &str = "https://app.example";

fn go(
    auth: &Auth,
    ticket: &Ticket,
    origin: Option<&str>,
    use_: CredentialUse,
) -> Result<Arc<Principal>, AuthError> {
    let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
    enter(auth, &headers, &format!("ticket={}", ticket.ticket.expose()), use_)
}

fn unauthorized<T>(refusal: CredentialError) -> Result<T, AuthError> {
    Err(AuthError::Unauthorized(refusal))
}

async fn ann(test: &TestAuth) -> Arc<Principal> {
    test.bearer(&token(json!({"jti": "j", "agents": ["a"]}))).expect("genuine")
}

/// The principal that a ticket of this principal stands for.
fn as_ticket(of: &Principal) -> Principal {
    Principal { via: CredentialSource::Ticket, scopes: of.scopes.and(ScopeSet::OF_TICKETS), ..of.clone() }
}

#[tokio::test]
async fn a_one_shot_ticket_authenticates_its_maker_once() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let ticket = test.ticket(&ann, Some(PAGE), false).expect("created");
    assert_eq!(ticket.expires_at_ms, T0 + ONE_SHOT_MS);
    let who = go(&test.auth, &ticket, None, CredentialUse::WebSocket).expect("its first use");
    assert_eq!(*who, as_ticket(&ann));
    assert_eq!(
        go(&test.auth, &ticket, None, CredentialUse::WebSocket),
        unauthorized(CredentialError::Ticket)
    );
}

/// A request that is refused must not use up the ticket: only success does.
#[tokio::test]
async fn a_refused_request_does_not_use_up_the_ticket() {
    let test = TestAuth::new().await;
    let ticket = test.ticket(&ann(&test).await, None, false).expect("created");
    let evil = go(&test.auth, &ticket, Some("https://evil.example"), CredentialUse::WebSocket);
    assert_eq!(evil, Err(AuthError::Forbidden(ForbiddenUse::Origin)));
    assert!(go(&test.auth, &ticket, None, CredentialUse::Stream).is_ok());
}

#[tokio::test]
async fn one_of_two_concurrent_uses_succeeds() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    for _ in 0..50 {
        let ticket = test.ticket(&ann, None, false).expect("created");
        let wins = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let won = go(&test.auth, &ticket, None, CredentialUse::Stream).is_ok();
                    wins.fetch_add(usize::from(won), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(wins.into_inner(), 1);
    }
}

#[tokio::test]
async fn a_one_shot_ticket_expires() {
    let test = TestAuth::new().await;
    let ticket = test.ticket(&ann(&test).await, None, false).expect("created");
    test.clock.advance(ONE_SHOT_MS);
    assert_eq!(go(&test.auth, &ticket, None, CredentialUse::Stream), unauthorized(CredentialError::Ticket));
}

#[tokio::test]
async fn a_new_ticket_replaces_only_the_oldest_of_its_own_subject() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let other = |sub: &str| Arc::new(Principal { sub: Some(sub.into()), ..Principal::clone(&ann) });
    let colleague = test.ticket(&other("bob"), None, false).expect("created");
    let first = test.ticket(&ann, None, false).expect("created");
    let second = test.ticket(&ann, None, false).expect("created");
    for _ in 0..TICKETS_PER_SUBJECT - 1 {
        test.ticket(&ann, None, false).expect("created");
    }
    assert_eq!(go(&test.auth, &first, None, CredentialUse::Stream), unauthorized(CredentialError::Ticket));
    for ticket in [&second, &colleague] {
        assert!(go(&test.auth, ticket, None, CredentialUse::Stream).is_ok());
    }
}

/// A full organization gets no further ticket until some are used or expired. Other organizations still get
/// theirs.
#[tokio::test]
async fn a_full_organization_is_refused_and_others_are_not() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let other =
        |n: usize| Arc::new(Principal { sub: Some(format!("u{n}").into()), ..Principal::clone(&ann) });
    let mine = test.ticket(&ann, None, false).expect("created");
    for n in 1..TICKETS_PER_ORGANIZATION {
        test.ticket(&other(n), None, false).expect("created");
    }
    let full = test.ticket(&other(0), None, false).expect_err("full");
    assert!(matches!(full, AdminError::Full { max: TICKETS_PER_ORGANIZATION, .. }), "{full:?}");
    let globex = test.bearer(test.globex.api_key.expose()).expect("genuine");
    test.ticket(&globex, None, false).expect("another organization's");
    assert!(go(&test.auth, &mine, None, CredentialUse::Stream).is_ok(), "no other user's ticket was dropped");
    test.ticket(&other(0), None, false).expect("one was used");
    test.clock.advance(ONE_SHOT_MS);
    test.ticket(&other(1), None, false).expect("the other tickets have expired");
}

#[tokio::test]
async fn a_reconnect_ticket_opens_streams_repeatedly_and_nothing_else() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let ticket = test.ticket(&ann, Some(PAGE), true).expect("created");
    for _ in 0..3 {
        let who = go(&test.auth, &ticket, Some(PAGE), CredentialUse::Stream).expect("its page");
        assert_eq!(*who, as_ticket(&ann));
    }
    for use_ in [CredentialUse::WebSocket, CredentialUse::Rest] {
        let got = go(&test.auth, &ticket, None, use_);
        assert_eq!(got, Err(AuthError::Forbidden(ForbiddenUse::TicketUse)), "{use_:?}");
    }
}

#[tokio::test]
async fn a_reconnect_ticket_is_bound_to_its_origin() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let bound = test.ticket(&ann, Some(PAGE), true).expect("created");
    let elsewhere = go(&test.auth, &bound, Some("https://evil.example"), CredentialUse::Stream);
    assert_eq!(elsewhere, Err(AuthError::Forbidden(ForbiddenUse::Origin)));
    let unnamed = go(&test.auth, &bound, Some("null"), CredentialUse::Stream);
    assert_eq!(unnamed, Err(AuthError::Forbidden(ForbiddenUse::Origin)));
    assert!(
        go(&test.auth, &bound, None, CredentialUse::Stream).is_ok(),
        "a same-origin EventSource sends no Origin"
    );
    // A ticket without an origin was made by a server, for any page that may use the daemon.
    let unbound = test.ticket(&ann, None, true).expect("created");
    assert!(go(&test.auth, &unbound, Some("http://localhost:3000"), CredentialUse::Stream).is_ok());
    let evil = go(&test.auth, &unbound, Some("https://evil.example"), CredentialUse::Stream);
    assert_eq!(evil, Err(AuthError::Forbidden(ForbiddenUse::Origin)));
}

/// EventSource reconnects with the same URL after a `kill -9` of the daemon.
#[tokio::test]
async fn a_reconnect_ticket_survives_a_restart() {
    let test = TestAuth::new().await;
    let ann = ann(&test).await;
    let ticket = test.ticket(&ann, Some(PAGE), true).expect("created");
    let one_shot = test.ticket(&ann, None, false).expect("created");
    let settings = AuthSettings { jwt_keys: vec![hs256("k1", SECRET)], ..AuthSettings::default() };
    let again = test.restarted(&settings);
    assert!(go(&again, &ticket, Some(PAGE), CredentialUse::Stream).is_ok());
    assert_eq!(go(&again, &one_shot, None, CredentialUse::Stream), unauthorized(CredentialError::Ticket));
    // The key was removed from the configuration in the meantime.
    let without = test.restarted(&AuthSettings::default());
    assert_eq!(
        go(&without, &ticket, Some(PAGE), CredentialUse::Stream),
        unauthorized(CredentialError::Revoked)
    );
}

#[tokio::test]
async fn a_reconnect_ticket_ends_with_the_credential_of_its_maker_or_after_an_hour() {
    let test = TestAuth::new().await;
    let brief = test.bearer(&token(json!({"exp": T0_S + 60}))).expect("genuine");
    let brief = test.ticket(&brief, None, true).expect("created");
    assert_eq!(brief.expires_at_ms, T0 + 60_000);
    let key = test.bearer(test.acme.api_key.expose()).expect("genuine");
    let long = test.ticket(&key, None, true).expect("created");
    assert_eq!(long.expires_at_ms, T0 + RECONNECT_MS);
    let stream = go(&test.auth, &long, None, CredentialUse::Stream).expect("in time");
    assert_eq!(stream.expires_at_ms, None, "a connection it opened lives as long as the key");
    test.clock.advance(60_000);
    assert_eq!(go(&test.auth, &brief, None, CredentialUse::Stream), unauthorized(CredentialError::Expired));
    test.clock.advance(RECONNECT_MS - 60_000);
    assert_eq!(go(&test.auth, &long, None, CredentialUse::Stream), unauthorized(CredentialError::Expired));
}

#[tokio::test]
async fn both_kinds_of_tickets_are_revoked_with_the_credential_of_their_maker() {
    let test = TestAuth::new().await;
    let manager = test.manager();
    for reconnect in [false, true] {
        let jti = format!("j{reconnect}");
        let by_token = test.bearer(&token(json!({"jti": jti, "sub": "eve"}))).expect("genuine");
        let by_token = test.ticket(&by_token, None, reconnect).expect("created");
        test.auth.revoke_token(&manager, None, &jti).await.expect("revoked");
        assert_eq!(
            go(&test.auth, &by_token, None, CredentialUse::Stream),
            unauthorized(CredentialError::Revoked)
        );

        let new = NewKey { scopes: vec!["*".into()], ..NewKey::default() };
        let key = test.auth.create_key(&manager, None, new).await.expect("created");
        let by_key = test.bearer(key.api_key.expose()).expect("genuine");
        let by_key = test.ticket(&by_key, None, reconnect).expect("created");
        test.auth.delete_key(&manager, None, &key.row.id).await.expect("deleted");
        assert_eq!(
            go(&test.auth, &by_key, None, CredentialUse::Stream),
            unauthorized(CredentialError::Revoked)
        );

        let eve = test.bearer(&token(json!({"sub": "eve"}))).expect("genuine");
        let by_eve = test.ticket(&eve, None, reconnect).expect("created");
        test.auth.set_disabled(&manager, None, "eve", None, true).await.expect("disabled");
        assert_eq!(
            go(&test.auth, &by_eve, None, CredentialUse::Stream),
            unauthorized(CredentialError::Disabled)
        );
        test.auth.set_disabled(&manager, None, "eve", None, false).await.expect("enabled");
    }
}

#[tokio::test]
async fn a_ticket_reveals_nothing_and_cannot_be_changed() {
    let test = TestAuth::new().await;
    let ticket = test.ticket(&ann(&test).await, Some(PAGE), true).expect("created");
    let text = ticket.ticket.expose();
    let sealed = BASE64.decode(text.strip_prefix("nwt2_").expect("its prefix")).expect("base64url");
    for hidden in ["ann", "acme", "app.example"] {
        assert!(!sealed.windows(hidden.len()).any(|window| window == hidden.as_bytes()), "{hidden}");
    }
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        let forged = format!("ticket=nwt2_{}", BASE64.encode(bytes));
        let got = enter(&test.auth, &[], &forged, CredentialUse::Stream);
        assert!(matches!(
            got,
            Err(AuthError::Unauthorized(CredentialError::Ticket) | AuthError::TooManyFailures { .. })
        ));
    }
    let other = OwnKey::from_bytes(&[43; 32]);
    let records = Arc::clone(&test.memory) as Arc<dyn Records>;
    let clock = Arc::clone(&test.clock) as Arc<dyn Clock>;
    let foreign = Auth::new(&AuthSettings::default(), other, records, clock).expect("another daemon");
    assert_eq!(go(&foreign, &ticket, None, CredentialUse::Stream), unauthorized(CredentialError::Ticket));
}
