//! Tests of JWTs that a peer may send: genuine, forged, expired, foreign and oversized.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use super::*;
use crate::auth::tokens::key_file::from_jwks;

#[tokio::test]
async fn a_genuine_token_authenticates_its_user() {
    let test = TestAuth::new().await;
    let text = token(json!({"jti": "j", "agents": ["a"], "roles": ["user", "unknown"], "iat": T0_S}));
    let ann = test.bearer(&text).expect("genuine");
    assert_eq!((ann.sub.as_deref(), ann.org_id.as_ref()), (Some("ann"), "acme"));
    assert_eq!(ann.tenant, test.acme.row.tenant);
    assert_eq!(ann.scopes, ScopeSet::MINTABLE);
    assert_eq!(ann.expires_at_ms, Some(T0 + 3_600_000));
    assert!(ann.narrowing.agents().is_some_and(|agents| agents.contains("a")));
    let CredentialId::Token { jti, issued_at_ms, .. } = &ann.credential else { panic!("{ann:?}") };
    assert_eq!((jti.as_deref(), *issued_at_ms), (Some("j"), T0));
    let rights = test.auth.still_valid(&ann).expect("valid");
    assert_eq!((rights.sub.as_deref(), rights.sees_all_users), (Some("ann"), false));
}

#[tokio::test]
async fn scopes_replace_the_scopes_of_the_roles() {
    let test = TestAuth::new().await;
    let scopes = |with| test.bearer(&token(with)).expect("genuine").scopes;
    assert_eq!(scopes(json!({"roles": ["admin"]})), ScopeSet::ORGANIZATION);
    assert_eq!(scopes(json!({"roles": ["readonly"]})), Scope::Subscribe.into());
    assert_eq!(scopes(json!({"roles": ["root"]})), ScopeSet::NONE);
    assert_eq!(scopes(json!({"roles": null})), ScopeSet::NONE);
    assert_eq!(scopes(json!({"roles": ["admin"], "scopes": []})), ScopeSet::NONE);
    assert_eq!(scopes(json!({"roles": ["admin"], "scopes": ["publish", "x"]})), Scope::Publish.into());
    assert_eq!(scopes(json!({"scopes": ["*", "operator"]})), ScopeSet::ORGANIZATION);
}

#[tokio::test]
async fn forgeries_are_refused() {
    let test = TestAuth::new().await;
    let good = token(json!({}));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    let claims = claims(json!({}));
    let by = |header: Value| sign(unsigned(&header, &claims), SECRET);
    for (text, expected) in [
        (format!("{message}.{}", BASE64.encode([0; 32])), CredentialError::NotGenuine),
        (format!("{message}."), CredentialError::NotGenuine),
        (format!("{header}.{}.{signature}", BASE64.encode(r#"{"sub":"bob"}"#)), CredentialError::NotGenuine),
        (sign(message.to_owned(), b"another secret of thirty-two bytes"), CredentialError::NotGenuine),
        (format!("{}.", unsigned(&json!({"alg": "none"}), &claims)), CredentialError::Algorithm),
        (format!("{}.", unsigned(&json!({"alg": "none", "kid": "k1"}), &claims)), CredentialError::Algorithm),
        (by(json!({"alg": "HS384", "kid": "k1"})), CredentialError::Algorithm),
        (by(json!({"alg": "hs256", "kid": "k1"})), CredentialError::Algorithm),
        (by(json!({"alg": "HS256", "kid": "k2"})), CredentialError::UnknownKey),
        (by(json!({"alg": "HS256", "kid": "k1", "crit": ["exp"]})), CredentialError::Malformed),
        (by(json!({"alg": "HS256", "kid": null})), CredentialError::Malformed),
        (by(json!({"kid": "k1"})), CredentialError::Malformed),
        (by(json!(["HS256", "k1"])), CredentialError::Malformed),
        (format!("{good}="), CredentialError::Malformed),
        (format!("{good}.{signature}"), CredentialError::NotGenuine),
        (format!("{header}.{signature}"), CredentialError::Malformed),
        (String::new(), CredentialError::Malformed),
        ("..".to_owned(), CredentialError::Malformed),
        ("x".repeat(TOKEN_BYTES + 1), CredentialError::TooLong),
    ] {
        assert_eq!(test.refusal(&text), expected, "{text}");
    }
    // A token without `kid` is verified by the only key.
    assert!(test.bearer(&by(json!({"alg": "HS256"}))).is_ok());
}

#[tokio::test]
async fn time_and_claims_are_checked_after_the_signature() {
    let test = TestAuth::with(AuthSettings {
        jwt_keys: vec![hs256("k1", SECRET)],
        failures_per_minute: 0,
        ..AuthSettings::default()
    })
    .await;
    let skew = CLOCK_SKEW_MS / 1_000;
    for (with, expected) in [
        (json!({"exp": T0_S}), Some(CredentialError::Expired)),
        (json!({"exp": T0_S + 1}), None),
        (json!({"exp": T0_S as f64 + 0.5}), None),
        (json!({"exp": -1}), Some(CredentialError::Claims)),
        (json!({"exp": "1900000000"}), Some(CredentialError::Claims)),
        (json!({"exp": u64::MAX}), Some(CredentialError::Lifetime)),
        (json!({"exp": u64::MAX, "iat": T0_S}), None),
        (json!({"exp": 1e300, "iat": T0_S}), None),
        (json!({"exp": 1e-300}), Some(CredentialError::Expired)),
        (json!({"exp": -0.0}), Some(CredentialError::Expired)),
        (json!({"exp": true}), Some(CredentialError::Claims)),
        (json!({"iat": -1}), Some(CredentialError::Claims)),
        (json!({"nbf": -0.5}), Some(CredentialError::Claims)),
        (json!({"nbf": 1e300}), Some(CredentialError::NotYet)),
        (json!({"iat": T0_S as f64 - 0.25}), None),
        (json!({"exp": null}), Some(CredentialError::Claims)),
        (json!({"nbf": T0_S + skew}), None),
        (json!({"nbf": T0_S + skew + 1}), Some(CredentialError::NotYet)),
        (json!({"iat": T0_S + skew + 1}), Some(CredentialError::NotYet)),
        (json!({"sub": null}), Some(CredentialError::Claims)),
        (json!({"sub": ""}), Some(CredentialError::Claims)),
        (json!({"sub": 7}), Some(CredentialError::Claims)),
        (json!({"sub": "a\nb"}), Some(CredentialError::Claims)),
        (json!({"sub": "x".repeat(257)}), Some(CredentialError::Claims)),
        (json!({"org_id": null}), Some(CredentialError::Claims)),
        (json!({"org_id": "a/b"}), Some(CredentialError::Claims)),
        (json!({"roles": "admin"}), Some(CredentialError::Claims)),
        (json!({"scopes": "publish"}), Some(CredentialError::Claims)),
        (json!({"types": ["nope"]}), Some(CredentialError::Claims)),
        (json!({"agents": "a"}), Some(CredentialError::Claims)),
        (json!({"aud": "nervewire"}), None),
        (json!({"aud": ["x", "nervewire"]}), None),
        (json!({"aud": "x"}), Some(CredentialError::Audience)),
        (json!({"aud": []}), Some(CredentialError::Audience)),
        (json!({"iss": "anyone", "project_id": "ignored"}), None),
    ] {
        let got = test.bearer(&token(with.clone())).err();
        assert_eq!(got, expected.map(AuthError::Unauthorized), "{with}");
    }
}

/// An issuer that writes `"agents": null` means something. To read it as "not narrowed" would widen the
/// rights.
#[tokio::test]
async fn null_and_repeated_claims_refuse_the_token() {
    let test = TestAuth::new().await;
    for extra in
        [r#""agents":null"#, r#""scopes":null"#, r#""roles":null"#, r#""sub":"bob""#, r#""aud":null"#]
    {
        let exp = T0_S + 60;
        let payload = format!(r#"{{"sub":"ann","org_id":"acme","exp":{exp},{extra}}}"#);
        let header = BASE64.encode(r#"{"alg":"HS256"}"#);
        let text = sign(format!("{header}.{}", BASE64.encode(payload)), SECRET);
        assert_eq!(test.refusal(&text), CredentialError::Claims, "{extra}");
    }
}

#[tokio::test]
async fn issuer_and_audience_can_be_pinned() {
    let key = JwtKeySettings {
        issuer: Some("https://id.example".into()),
        audience: Some("agents".into()),
        ..hs256("k1", SECRET)
    };
    let test = TestAuth::with(AuthSettings { jwt_keys: vec![key], ..AuthSettings::default() }).await;
    for (iss, aud, expected) in [
        (json!("https://id.example"), json!("agents"), None),
        (json!("https://id.example"), json!(["x", "agents"]), None),
        (json!("https://id.example"), Value::Null, Some(CredentialError::Audience)),
        (json!("https://id.example"), json!("nervewire"), Some(CredentialError::Audience)),
        (json!("https://id.example"), json!(["agents2", "AGENTS"]), Some(CredentialError::Audience)),
        (json!("https://id.example"), json!({"agents": true}), Some(CredentialError::Claims)),
        (json!("https://evil.example"), json!("agents"), Some(CredentialError::Issuer)),
        (json!("https://id.example/"), json!("agents"), Some(CredentialError::Issuer)),
        (json!(["https://id.example"]), json!("agents"), Some(CredentialError::Claims)),
        (Value::Null, json!("agents"), Some(CredentialError::Issuer)),
    ] {
        let got = test.bearer(&token(json!({"iss": iss, "aud": aud}))).err();
        assert_eq!(got, expected.map(AuthError::Unauthorized), "{iss} {aud}");
    }
}

/// A token without an end is valid for 30 days from its `iat`, however often it is presented.
#[tokio::test]
async fn the_lifetime_of_a_foreign_token_is_limited() {
    let test = TestAuth::new().await;
    let cap_s = AuthSettings::default().max_token_ms / 1_000;
    let year_9999 = 253_402_300_799_u64;
    let until = |with| test.bearer(&token(with)).map(|principal| principal.expires_at_ms);
    let lifetime = || Err(AuthError::Unauthorized(CredentialError::Lifetime));
    for (claims, expected) in [
        (json!({"exp": year_9999, "iat": T0_S}), Ok(Some(T0 + cap_s * 1_000))),
        (json!({"exp": year_9999, "iat": T0_S - 60}), Ok(Some(T0 + (cap_s - 60) * 1_000))),
        (json!({"exp": T0_S + 60, "iat": T0_S}), Ok(Some(T0 + 60_000))),
        (json!({"exp": year_9999, "iat": T0_S - cap_s}), lifetime()),
        (json!({"exp": year_9999, "iat": 0}), lifetime()),
        (json!({"exp": year_9999}), lifetime()),
        (json!({"exp": T0_S + cap_s + 1}), lifetime()),
        (json!({"exp": T0_S + cap_s}), Ok(Some(T0 + cap_s * 1_000))),
    ] {
        assert_eq!(until(claims.clone()), expected, "{claims}");
    }
    let for_ever = token(json!({"exp": year_9999, "iat": T0_S}));
    let early = test.bearer(&for_ever).expect("new");
    test.clock.advance(cap_s * 1_000 - 1);
    let late = test.bearer(&for_ever).expect("not expired yet");
    assert_eq!(late.expires_at_ms, early.expires_at_ms, "presenting it again does not renew it");
    test.clock.advance(1);
    assert_eq!(test.refusal(&for_ever), CredentialError::Lifetime);
    assert_eq!(test.auth.still_valid(&late), Err(CredentialEnded::Expired));
}

/// The daemon's own tokens are not capped here (`POST /tokens` has its own limit) and stay valid after the
/// clock is set back.
#[tokio::test]
async fn own_tokens_have_no_lifetime_limit_and_survive_a_clock_set_back() {
    let test = TestAuth::new().await;
    let header = json!({"alg": "HS256", "kid": OwnKey::from_bytes(&OWN).kid.as_ref()});
    let own = |with| sign(unsigned(&header, &claims(with)), &OWN);
    let year = T0_S + 366 * 24 * 3_600;
    let principal = test.bearer(&own(json!({"iat": T0_S, "exp": year}))).expect("own");
    assert_eq!(principal.expires_at_ms, Some(year * 1_000));
    assert!(test.bearer(&own(json!({"iat": T0_S + 600, "exp": year}))).is_ok());
    assert_eq!(test.refusal(&own(json!({"iat": T0_S, "exp": T0_S}))), CredentialError::Expired);
}

/// Replacing a key under the same `kid` ends everything it authenticated: sessions, and tickets of both
/// kinds.
#[tokio::test]
async fn replacing_a_key_ends_the_sessions_of_the_old_one() {
    let next = hs256("k1", b"the next secret of thirty-two bytes!");
    let renamed = hs256("k2", SECRET);
    let pinned = JwtKeySettings { issuer: Some("https://id.example".into()), ..hs256("k1", SECRET) };
    let elsewhere = JwtKeySettings { organizations: vec!["globex".into()], ..hs256("k1", SECRET) };
    for replacement in [vec![next], vec![renamed], vec![pinned], vec![elsewhere], vec![]] {
        let test = TestAuth::new().await;
        let ann = test.bearer(&token(json!({}))).expect("by k1");
        let own = test.bearer(test.acme.api_key.expose()).expect("a key");
        let ticket = |reconnect| {
            let made = test.ticket(&ann, None, reconnect).expect("a ticket");
            format!("ticket={}", made.ticket.expose())
        };
        let tickets = [ticket(true), ticket(false)];
        test.auth.reload_keys(&[hs256("k0", SECRET), hs256("k1", SECRET)]).expect("valid");
        assert!(test.auth.still_valid(&ann).is_ok(), "the same key, with another one added");
        assert!(enter(&test.auth, &[], &tickets[0], CredentialUse::Stream).is_ok());

        test.auth.reload_keys(&replacement).expect("valid");
        assert_eq!(test.auth.still_valid(&ann), Err(CredentialEnded::Revoked), "{replacement:?}");
        for query in &tickets {
            let refused = enter(&test.auth, &[], query, CredentialUse::Stream).expect_err(query);
            assert_eq!(refused, AuthError::Unauthorized(CredentialError::Revoked));
        }
        assert!(test.auth.still_valid(&own).is_ok(), "API keys are not affected");
        // After a restart with the same keys the reconnect ticket is read again, and refused again.
        let settings = AuthSettings { jwt_keys: replacement, ..AuthSettings::default() };
        assert!(enter(&test.restarted(&settings), &[], &tickets[0], CredentialUse::Stream).is_err());
    }
}

/// What a header may try: an unknown algorithm, extensions, keys of its own.
#[tokio::test]
async fn a_key_in_the_token_header_is_ignored() {
    let test = TestAuth::with(AuthSettings {
        jwt_keys: vec![hs256("k1", SECRET)],
        failures_per_minute: 0,
        ..AuthSettings::default()
    })
    .await;
    let jwk = json!({"kty": "oct", "k": BASE64.encode(b"a key that the attacker chose, long")});
    for (header, expected) in [
        (json!({"alg": "HS256", "kid": ""}), Some(CredentialError::UnknownKey)),
        (json!({"alg": "HS256", "kid": "K1"}), Some(CredentialError::UnknownKey)),
        (json!({"alg": "HS256", "kid": "k1\u{0}"}), Some(CredentialError::UnknownKey)),
        (json!({"alg": "HS256", "kid": "../../auth.key"}), Some(CredentialError::UnknownKey)),
        (json!({"alg": "HS256", "kid": ["k1"]}), Some(CredentialError::Malformed)),
        (json!({"alg": "HS256", "kid": 1}), Some(CredentialError::Malformed)),
        (json!({"alg": ["HS256"], "kid": "k1"}), Some(CredentialError::Malformed)),
        (json!({"alg": "HS256", "kid": "k1", "crit": []}), Some(CredentialError::Malformed)),
        (json!({"alg": "HS256", "kid": "k1", "crit": null}), Some(CredentialError::Malformed)),
        (
            json!({"alg": "HS256", "kid": "k1", "crit": ["b64"], "b64": false}),
            Some(CredentialError::Malformed),
        ),
        (json!({"alg": "HS256", "kid": "k1", "jwk": jwk, "jku": "https://evil.example", "x5u": "x"}), None),
    ] {
        let text = sign(unsigned(&header, &claims(json!({}))), SECRET);
        assert_eq!(test.bearer(&text).err(), expected.map(AuthError::Unauthorized), "{header}");
    }
    for header in [r#"{"alg":"HS256","kid":"k1","kid":"k2"}"#, r#"{"alg":"none","alg":"HS256"}"#] {
        let payload = BASE64.encode(claims(json!({})).to_string());
        let text = sign(format!("{}.{payload}", BASE64.encode(header)), SECRET);
        assert_eq!(test.refusal(&text), CredentialError::Malformed, "{header}");
    }
}

#[tokio::test]
async fn a_key_is_valid_only_for_its_configured_organizations() {
    let mut ghost = hs256("k1", SECRET);
    ghost.organizations.push("ghost".into());
    let test = TestAuth::with(AuthSettings { jwt_keys: vec![ghost], ..AuthSettings::default() }).await;
    // `globex` exists and `ghost` does not. The peer cannot see the difference, because every 401 is the
    // same.
    assert_eq!(test.refusal(&token(json!({"org_id": "globex"}))), CredentialError::Organization);
    assert_eq!(test.refusal(&token(json!({"org_id": "ghost"}))), CredentialError::Organization);
    assert_eq!(test.refusal(&token(json!({"org_id": "ACME"}))), CredentialError::Organization);
}

/// Rotation: the new key is added, signs and becomes the default; the old key is removed, and its tokens end.
#[tokio::test]
async fn keys_rotate_by_kid() {
    let test = TestAuth::new().await;
    let other = b"the next secret of thirty-two bytes!";
    let old = test.bearer(&token(json!({}))).expect("by k1");
    let by_k2 = |kid: Value| {
        let mut header = json!({"alg": "HS256"});
        if !kid.is_null() {
            header["kid"] = kid;
        }
        sign(unsigned(&header, &claims(json!({}))), other)
    };
    assert_eq!(test.refusal(&by_k2(json!("k2"))), CredentialError::UnknownKey);

    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    test.auth.on_change(move |change| {
        assert_eq!((change, change.tenant()), (&AuthChange::KeysReloaded, None));
        count.fetch_add(1, Ordering::Relaxed);
    });
    let k2 = JwtKeySettings { default: true, ..hs256("k2", other) };
    test.auth.reload_keys(&[hs256("k1", SECRET), k2.clone()]).expect("both");
    for kid in [json!("k2"), Value::Null] {
        assert!(test.bearer(&by_k2(kid)).is_ok());
    }
    assert!(test.bearer(&token(json!({}))).is_ok());
    assert!(test.auth.still_valid(&old).is_ok());

    test.auth.reload_keys(&[k2]).expect("the new one");
    assert_eq!(test.refusal(&token(json!({}))), CredentialError::UnknownKey);
    assert_eq!(test.auth.still_valid(&old), Err(CredentialEnded::Revoked));
    assert_eq!(calls.load(Ordering::Relaxed), 2);

    let bad = test.auth.reload_keys(&[hs256("k3", b"short")]).expect_err("too short");
    assert_eq!(bad.to_string(), "auth.jwt_keys[0]: an HS256 secret has at least 32 bytes (RFC 7518, 3.2)");
    assert!(test.bearer(&by_k2(json!("k2"))).is_ok(), "the keys stay as they were");
}

/// With two keys and no default, a token without `kid` is refused: keys are never tried in turn.
#[tokio::test]
async fn without_a_default_a_token_needs_a_kid() {
    let keys = vec![hs256("k1", SECRET), hs256("k2", SECRET)];
    let test = TestAuth::with(AuthSettings { jwt_keys: keys, ..AuthSettings::default() }).await;
    let nameless = sign(unsigned(&json!({"alg": "HS256"}), &claims(json!({}))), SECRET);
    assert_eq!(test.refusal(&nameless), CredentialError::UnknownKey);
    assert!(test.bearer(&token(json!({}))).is_ok());
}

#[tokio::test]
async fn without_configured_keys_the_own_key_is_the_only_one() {
    let test = TestAuth::with(AuthSettings::default()).await;
    let nameless = |with| sign(unsigned(&json!({"alg": "HS256"}), &claims(with)), &OWN);
    assert!(test.bearer(&nameless(json!({"iat": T0_S, "org_id": "globex"}))).is_ok());
    assert_eq!(test.refusal(&nameless(json!({}))), CredentialError::Organization, "own tokens have iat");
    // Once other keys are configured, the token must name the key.
    test.auth.reload_keys(&[hs256("k1", SECRET)]).expect("valid");
    assert_eq!(test.refusal(&nameless(json!({"iat": T0_S}))), CredentialError::NotGenuine);
}

struct Signer(&'static str, Algorithm);

const SIGNERS: [Signer; 3] =
    [Signer("rsa", Algorithm::Rs256), Signer("p256", Algorithm::Es256), Signer("ed25519", Algorithm::EdDsa)];

impl Signer {
    fn sign(&self, kid: &str) -> String {
        let header = json!({"alg": self.1.name(), "kid": kid});
        let message = unsigned(&header, &claims(json!({})));
        let pem = std::fs::read(fixture(&format!("{}.private.pem", self.0))).expect("a fixture");
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("PKCS#8");
        let (der, random) = (der.secret_pkcs8_der(), SystemRandom::new());
        let signature = match self.1 {
            Algorithm::Rs256 => {
                let key = RsaKeyPair::from_pkcs8(der).expect("an RSA key");
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut out).expect("signed");
                out
            }
            Algorithm::Es256 => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
                let key = key.expect("a P-256 key");
                key.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec()
            }
            _ => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).expect("an Ed25519 key");
                key.sign(message.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn settings(&self, algorithm: Algorithm) -> JwtKeySettings {
        let path = fixture(&format!("{}.public.pem", self.0));
        JwtKeySettings { source: KeySource::PublicKeyFile(path, algorithm), ..hs256(self.0, &[]) }
    }
}

#[tokio::test]
async fn public_keys_from_pem_verify_their_own_algorithm_only() {
    let keys = SIGNERS.iter().map(|signer| signer.settings(signer.1)).collect();
    let test = TestAuth::with(AuthSettings { jwt_keys: keys, ..AuthSettings::default() }).await;
    for signer in &SIGNERS {
        let text = signer.sign(signer.0);
        assert!(test.bearer(&text).is_ok(), "{}", signer.0);
        let (message, signature) = text.rsplit_once('.').expect("three parts");
        let mut bytes = BASE64.decode(signature).expect("base64url");
        *bytes.last_mut().expect("a signature") ^= 1;
        let tampered = format!("{message}.{}", BASE64.encode(&bytes));
        assert_eq!(test.refusal(&tampered), CredentialError::NotGenuine, "{}", signer.0);
        for other in &SIGNERS {
            if other.0 != signer.0 {
                assert_eq!(test.refusal(&signer.sign(other.0)), CredentialError::Algorithm);
            }
        }
        // The classic attack: the public key, which everyone has, used as an HMAC secret.
        let pem = std::fs::read(fixture(&format!("{}.public.pem", signer.0))).expect("a fixture");
        let header = json!({"alg": "HS256", "kid": signer.0});
        let confused = sign(unsigned(&header, &claims(json!({}))), &pem);
        assert_eq!(test.refusal(&confused), CredentialError::Algorithm);
    }
}

#[test]
fn unusable_key_files_are_refused_by_name() {
    let settings = |name: &str, algorithm| JwtKeySettings {
        source: KeySource::PublicKeyFile(fixture(name), algorithm),
        ..hs256("k", &[])
    };
    let (memory, clock) = (Arc::new(MemoryRecords::default()), Arc::new(ManualClock::at(T0)));
    let auth = open(&AuthSettings::default(), &memory, &clock);
    for (key, expected) in [
        (settings("rsa.public.pem", Algorithm::Es256), "is not a key for ES256"),
        (settings("rsa1024.public.pem", Algorithm::Rs256), "holds no RSA, P-256"),
        (settings("p384.public.pem", Algorithm::Es256), "holds no RSA, P-256"),
        (settings("rsa.private.pem", Algorithm::Rs256), "holds no PEM section PUBLIC KEY"),
        (settings("missing.pem", Algorithm::Rs256), "missing.pem"),
        (JwtKeySettings { organizations: vec!["*".into()], ..hs256("k", SECRET) }, "names no organizations"),
        (JwtKeySettings { organizations: vec![], ..hs256("k", SECRET) }, "names no organizations"),
    ] {
        let error = auth.reload_keys(&[key]).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[tokio::test]
async fn a_jwks_file_provides_keys_with_their_kids() {
    let jwk = |name: &str| {
        let pem = std::fs::read(fixture(&format!("{name}.public.pem"))).expect("a fixture");
        match crate::auth::tokens::key_file::from_pem(&pem).expect("a key") {
            crate::auth::tokens::keys::KeyMaterial::Rsa(n, e) => {
                json!({"kty": "RSA", "kid": name, "use": "sig", "n": BASE64.encode(n), "e": BASE64.encode(e)})
            }
            crate::auth::tokens::keys::KeyMaterial::P256(point) => {
                let (x, y) = point[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": name, "alg": "ES256", "x": BASE64.encode(x), "y": BASE64.encode(y)})
            }
            crate::auth::tokens::keys::KeyMaterial::Ed25519(x) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": name, "x": BASE64.encode(x)})
            }
            crate::auth::tokens::keys::KeyMaterial::Hmac(_) => unreachable!("no secret in PEM"),
        }
    };
    let set = json!({"keys": [jwk("rsa"), jwk("p256"), jwk("ed25519"),
        {"kty": "oct", "kid": "k1", "k": BASE64.encode(SECRET)}]});
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, set.to_string()).expect("written");
    let settings = |only| JwtKeySettings {
        kid: None,
        source: KeySource::JwksFile(path.clone(), only),
        ..hs256("", &[])
    };
    let test =
        TestAuth::with(AuthSettings { jwt_keys: vec![settings(None)], ..AuthSettings::default() }).await;
    for signer in &SIGNERS {
        assert!(test.bearer(&signer.sign(signer.0)).is_ok(), "{}", signer.0);
    }
    assert!(test.bearer(&token(json!({}))).is_ok());
    test.auth.reload_keys(&[settings(Some(Algorithm::Es256))]).expect("one key is left");
    assert!(test.bearer(&SIGNERS[1].sign("p256")).is_ok());
    assert_eq!(test.refusal(&SIGNERS[0].sign("rsa")), CredentialError::UnknownKey);
}

/// RFC 7515 A.1 and A.3, RFC 8037 A.4: signatures that this code did not make.
#[test]
fn the_example_signatures_of_the_standards_verify() {
    let joe =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (key, message, signature) in [
        (
            json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{joe}"),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            format!("eyJhbGciOiJFUzI1NiJ9.{joe}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = from_jwks(json!({ "keys": [key] }).to_string().as_bytes(), None).expect("usable");
        let signature = BASE64.decode(signature).expect("base64url");
        assert!(keys[0].material.verifies(message.as_bytes(), &signature), "{key}");
        assert!(!keys[0].material.verifies(&message.as_bytes()[1..], &signature), "{key}");
    }
}
