//! Tests of what a verified password grants and what ends it: instants to the millisecond, and the counts of
//! guesses.

use super::*;

/// The proof that the password of a user of `acme` was verified.
fn proven(test: &TestAuth, sub: &str) -> PasswordProof {
    let tenant = test.bearer(test.acme.api_key.expose()).expect("the key of acme").tenant;
    PasswordProof { tenant, sub: sub.into() }
}

async fn end(test: &TestAuth, of: &PasswordProof) -> u64 {
    let since_ms = test.auth.next_valid_since(of.tenant, &of.sub);
    test.auth.end_tokens(Actor::daemon(), of.tenant, &of.sub, since_ms, Rows::new()).await.expect("ended");
    since_ms
}

/// All within one millisecond: the older token ends, the newer one stays valid, also after a restart.
#[tokio::test]
async fn ending_tokens_separates_tokens_of_the_same_instant() {
    let test = TestAuth::new().await;
    let ann = proven(&test, "user-ann");
    let before = test.auth.session(&ann, Role::User, test.clock.now_ms()).expect("issued");
    let principal = test.bearer(before.token.expose()).expect("genuine");
    assert_eq!(principal.scopes, Role::User.scopes());
    let ticket = test.ticket(&principal, None, true).expect("a ticket");
    let once = test.ticket(&principal, None, false).expect("a ticket");
    let other = test.auth.session(&proven(&test, "user-bob"), Role::User, T0).expect("issued");

    let since_ms = end(&test, &ann).await;
    let after = test.auth.session(&ann, Role::Viewer, since_ms).expect("issued");
    let new = NewToken { sub: "user-ann".into(), ..NewToken::default() };
    let minted = test.auth.mint_token(&test.manager(), None, &new).expect("minted");

    let restarted = test.restarted(&AuthSettings::default());
    for auth in [&test.auth, &restarted] {
        let bearer = |text: &str| {
            enter(auth, &[("authorization", &format!("Bearer {text}"))], "", CredentialUse::Rest)
        };
        assert_eq!(bearer(before.token.expose()), Err(AuthError::Unauthorized(CredentialError::Revoked)));
        assert_eq!(auth.still_valid(&principal).err(), Some(CredentialEnded::Revoked));
        let ticket = enter(auth, &[], &format!("ticket={}", ticket.ticket.expose()), CredentialUse::Stream);
        assert_eq!(ticket, Err(AuthError::Unauthorized(CredentialError::Revoked)));
        assert!(bearer(after.token.expose()).is_ok());
        assert!(bearer(minted.token.expose()).is_ok(), "a token minted after the end is valid");
        assert!(bearer(other.token.expose()).is_ok(), "another user's");
    }
    let once = enter(&test.auth, &[], &format!("ticket={}", once.ticket.expose()), CredentialUse::Stream);
    assert_eq!(once, Err(AuthError::Unauthorized(CredentialError::Revoked)));

    let second = end(&test, &ann).await;
    assert!(second > since_ms, "the second end is later, although the clock did not move");
    assert_eq!(test.refusal(after.token.expose()), CredentialError::Revoked);
}

/// A foreign issuer's dates have whole seconds. A token that it issued in the same second as the end counts
/// as older.
#[tokio::test]
async fn ending_tokens_applies_to_every_issuer() {
    let test = TestAuth::new().await;
    let ann = proven(&test, "user-ann");
    test.clock.advance(500);
    end(&test, &ann).await;
    let of = |iat: Value| token(json!({"sub": "user-ann", "iat": iat}));
    assert_eq!(test.refusal(&of(json!(T0_S))), CredentialError::Revoked);
    assert_eq!(test.refusal(&of(Value::Null)), CredentialError::Revoked, "a token without iat");
    assert!(test.bearer(&of(json!(T0_S + 1))).is_ok());
}

/// A user is deleted and created again within a second. Tokens minted before belong to the old user, even if
/// they were minted at a whole second.
#[tokio::test]
async fn an_organization_created_in_the_same_second_accepts_no_older_token() {
    let test = TestAuth::new().await;
    let operator = Principal::local_operator();
    let (operate, manage) =
        (operator.authorize().expect("the operator"), operator.authorize::<Manage>().expect("the operator"));
    let new = NewToken { sub: "ann".into(), ..NewToken::default() };
    for later_ms in [0, 300] {
        test.clock.advance(later_ms);
        let old = test.auth.mint_token(&manage, Some("globex"), &new).expect("minted");
        assert!(test.bearer(old.token.expose()).is_ok());
        test.auth.delete_organization(&operate, "globex").await.expect("deleted");
        test.clock.advance(1);
        let again = NewOrganization { id: Some("globex".into()), ..Default::default() };
        test.auth.create_organization(&operate, again).await.expect("created");
        assert_eq!(test.refusal(old.token.expose()), CredentialError::Organization);
        let of_now = test.auth.mint_token(&manage, Some("globex"), &new).expect("minted");
        assert!(test.bearer(of_now.token.expose()).is_ok(), "minted in the same millisecond");
    }
}

#[tokio::test]
async fn an_end_of_tokens_is_forgotten_when_they_have_expired() {
    let test = TestAuth::new().await;
    let ann = proven(&test, "user-ann");
    end(&test, &ann).await;
    test.clock.advance(TOKEN_MAX_MS);
    test.auth.maintain().await.expect("kept up");
    assert_eq!(test.memory.rows.lock().ended.len(), 1);
    test.clock.advance(1);
    test.auth.maintain().await.expect("kept up");
    assert!(test.memory.rows.lock().ended.is_empty());
    assert_eq!(test.auth.valid_since(ann.tenant, "user-ann"), 0);
}

#[tokio::test]
async fn guesses_are_counted_by_address_in_total_and_for_each_account() {
    let settings = AuthSettings { failures_per_minute: 12, ..AuthSettings::default() };
    let test = TestAuth::with(settings).await;
    let peer = |text: &str| Some(text.parse().expect("an address"));
    let attempt = |from, org, email| test.auth.begin_attempt(from, org, email);
    let (here, there) = (peer("192.0.2.7"), peer("192.0.2.8"));
    for _ in 0..ACCOUNT_FAILURES {
        attempt(here, "acme", "ann@example.org").expect("may be tried").failed();
    }
    let refused = attempt(peer("::ffff:192.0.2.7"), "acme", "ann@example.org").err();
    assert_eq!(
        refused,
        Some(TooManyAttempts { retry_after: ACCOUNT_WINDOW_MS / 1_000 }),
        "the same address as IPv6"
    );
    assert_eq!(test.auth.check_attempt(here, "acme", "ann@example.org").err(), refused);
    attempt(there, "acme", "ann@example.org").expect("the owner has another address").succeeded();
    attempt(None, "acme", "ann@example.org").expect("a unix socket has no address").withdraw();
    attempt(here, "globex", "ann@example.org").expect("another organization's").succeeded();
    for _ in 0..2 {
        attempt(here, "acme", "bob@example.org").expect("may be tried").failed();
    }
    let refused = attempt(here, "acme", "carl@example.org").err();
    assert_eq!(
        refused,
        Some(TooManyAttempts { retry_after: 60 }),
        "the address has reached its limit for this minute"
    );
    assert!(attempt(there, "acme", "carl@example.org").is_ok(), "an attempt that is dropped counts");
    assert_eq!(
        test.refusal("nonsense"),
        CredentialError::Malformed,
        "tokens and keys are counted separately"
    );
}
