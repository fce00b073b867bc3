//! Tests of what a verified password grants and what ends it: instants to the millisecond, and the counts of
//! guesses.

use super::*;

/// The proof that the password of a user of `acme` was verified.
fn proven(world: &World, sub: &str) -> PasswordProof {
    let tenant = world.bearer(world.acme.api_key.expose()).expect("the key of acme").tenant;
    PasswordProof { tenant, sub: sub.into() }
}

async fn end(world: &World, of: &PasswordProof) -> u64 {
    let since_ms = world.auth.next_valid_since(of.tenant, &of.sub);
    world.auth.end_tokens(Actor::daemon(), of.tenant, &of.sub, since_ms, Rows::new()).await.expect("ended");
    since_ms
}

/// All within one millisecond: the older token ends, the newer one stays valid, also after a restart.
#[tokio::test]
async fn an_end_parts_tokens_of_the_same_instant() {
    let world = World::new().await;
    let ann = proven(&world, "user-ann");
    let before = world.auth.session(&ann, Role::User, world.clock.now_ms()).expect("issued");
    let principal = world.bearer(before.token.expose()).expect("genuine");
    assert_eq!(principal.scopes, Role::User.scopes());
    let ticket = world.ticket(&principal, None, true).expect("a ticket");
    let once = world.ticket(&principal, None, false).expect("a ticket");
    let other = world.auth.session(&proven(&world, "user-bob"), Role::User, T0).expect("issued");

    let since_ms = end(&world, &ann).await;
    let after = world.auth.session(&ann, Role::Viewer, since_ms).expect("issued");
    let new = NewToken { sub: "user-ann".into(), ..NewToken::default() };
    let minted = world.auth.mint_token(&world.manager(), None, &new).expect("minted");

    let restarted = world.restarted(&AuthSettings::default());
    for auth in [&world.auth, &restarted] {
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
    let once = enter(&world.auth, &[], &format!("ticket={}", once.ticket.expose()), CredentialUse::Stream);
    assert_eq!(once, Err(AuthError::Unauthorized(CredentialError::Revoked)));

    let second = end(&world, &ann).await;
    assert!(second > since_ms, "the second end is later, although the clock did not move");
    assert_eq!(world.refusal(after.token.expose()), CredentialError::Revoked);
}

/// A foreign issuer's dates have whole seconds. A token that it issued in the same second as the end counts
/// as older.
#[tokio::test]
async fn an_end_holds_for_every_issuer() {
    let world = World::new().await;
    let ann = proven(&world, "user-ann");
    world.clock.advance(500);
    end(&world, &ann).await;
    let of = |iat: Value| token(json!({"sub": "user-ann", "iat": iat}));
    assert_eq!(world.refusal(&of(json!(T0_S))), CredentialError::Revoked);
    assert_eq!(world.refusal(&of(Value::Null)), CredentialError::Revoked, "a token without iat");
    assert!(world.bearer(&of(json!(T0_S + 1))).is_ok());
}

/// A user is deleted and created again within a second. Tokens minted before belong to the old user, even if
/// they were minted at a whole second.
#[tokio::test]
async fn a_successor_of_the_same_second_takes_no_older_token() {
    let world = World::new().await;
    let operator = Principal::local_operator();
    let (operate, manage) =
        (operator.authorize().expect("the operator"), operator.authorize::<Manage>().expect("the operator"));
    let new = NewToken { sub: "ann".into(), ..NewToken::default() };
    for later_ms in [0, 300] {
        world.clock.advance(later_ms);
        let old = world.auth.mint_token(&manage, Some("globex"), &new).expect("minted");
        assert!(world.bearer(old.token.expose()).is_ok());
        world.auth.delete_organization(&operate, "globex").await.expect("deleted");
        world.clock.advance(1);
        let again = NewOrganization { id: Some("globex".into()), ..Default::default() };
        world.auth.create_organization(&operate, again).await.expect("created");
        assert_eq!(world.refusal(old.token.expose()), CredentialError::Organization);
        let of_now = world.auth.mint_token(&manage, Some("globex"), &new).expect("minted");
        assert!(world.bearer(of_now.token.expose()).is_ok(), "minted in the same millisecond");
    }
}

#[tokio::test]
async fn an_end_is_forgotten_when_what_it_ended_has_expired() {
    let world = World::new().await;
    let ann = proven(&world, "user-ann");
    end(&world, &ann).await;
    world.clock.advance(TOKEN_MAX_MS);
    world.auth.maintain().await.expect("kept up");
    assert_eq!(world.memory.rows.lock().ended.len(), 1);
    world.clock.advance(1);
    world.auth.maintain().await.expect("kept up");
    assert!(world.memory.rows.lock().ended.is_empty());
    assert_eq!(world.auth.valid_since(ann.tenant, "user-ann"), 0);
}

#[tokio::test]
async fn guesses_are_counted_by_address_in_all_and_for_an_account() {
    let settings = AuthSettings { failures_per_minute: 12, ..AuthSettings::default() };
    let world = World::with(settings).await;
    let peer = |text: &str| Some(text.parse().expect("an address"));
    let attempt = |from, org, email| world.auth.begin_attempt(from, org, email);
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
    assert_eq!(world.auth.check_attempt(here, "acme", "ann@example.org").err(), refused);
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
        world.refusal("nonsense"),
        CredentialError::Malformed,
        "tokens and keys are counted separately"
    );
}
