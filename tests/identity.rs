//! Who somebody is: keys of other issuers while the daemon runs, passwords under attack, and addresses behind proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use common::{Daemon, until};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::process::Signal;
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
/// "Within a second" (protocol §4), on a machine that runs other tests as well.
const SOON: Duration = Duration::from_secs(3);

/// An issuer outside of the daemon.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Issuer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Issuer(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    /// SubjectPublicKeyInfo of RFC 8410 as PEM.
    fn pem(&self) -> String {
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(self.0.public_key().as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn jwk(&self, kid: &str) -> Value {
        let x = BASE64.encode(self.0.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
    }

    /// A token of user `ann` in the organization `default` for an hour, changed by `with` (`null` removes a claim).
    fn token(&self, kid: &str, with: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims =
            json!({"sub": "ann", "org_id": "default", "roles": ["user"], "exp": now + 3_600, "iat": now});
        claims.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let header = json!({"alg": "EdDSA", "kid": kid});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.0.sign(message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }
}

/// What a key entry demands is demanded of each token, and no token outlives `auth.max_token_seconds`.
#[tokio::test]
async fn issuer_audience_and_the_longest_life_are_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, json!({"keys": [issuer.jwk("k")]}).to_string()).unwrap();
    let key = json!({"jwks_file": file, "organizations": ["default"], "issuer": "https://id.example", "audience": "chat"});
    let daemon = Daemon::with()
        .env("AUTH__JWT_KEYS", json!([key]))
        .env("AUTH__FAILURES_PER_MINUTE", 0)
        .env("AUTH__MAX_TOKEN_SECONDS", 600)
        .env("LOG__LEVEL", "debug")
        .start()
        .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (iss, year_9999) = ("https://id.example", 253_402_300_799_u64);
    for (claims, status) in [
        (json!({"iss": iss, "aud": "chat"}), 200),
        (json!({"iss": iss, "aud": ["other", "chat"]}), 200),
        (json!({"iss": iss}), 401),
        (json!({"iss": iss, "aud": "nervewire"}), 401),
        (json!({"iss": "https://evil.example", "aud": "chat"}), 401),
        (json!({"aud": "chat"}), 401),
        (json!({"iss": iss, "aud": "chat", "exp": year_9999}), 200),
        (json!({"iss": iss, "aud": "chat", "exp": year_9999, "iat": null}), 401),
        (json!({"iss": iss, "aud": "chat", "exp": year_9999, "iat": now - 601}), 401),
        (json!({"iss": iss, "aud": "chat", "exp": now + 500, "iat": null}), 200),
    ] {
        let reply = daemon.get(EVENTS).key(&issuer.token("k", claims.clone())).send().await;
        assert_eq!(reply.status.as_u16(), status, "{claims} {reply:?}");
    }
    assert!(daemon.log().contains("lives longer than auth.max_token_seconds"), "{}", daemon.log());

    // What it opened ends with it: a token "for ever" that has a second left.
    let short = issuer.token("k", json!({"iss": iss, "aud": "chat", "exp": year_9999, "iat": now - 597}));
    let mut ws = daemon.ws("/api/v1/ws").key(&short).open().await;
    ws.expect("ready").await;
    assert_eq!(ws.closed().await.0, 4401);
}

/// A key that goes, or is replaced under the same `kid`, takes its sessions along, tickets included; a broken file changes
/// nothing.
#[tokio::test]
async fn a_reload_ends_the_sessions_of_keys_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new, other) = (Issuer::new(), Issuer::new(), Issuer::new());
    let (pem, jwks) = (dir.path().join("key.pem"), dir.path().join("jwks.json"));
    std::fs::write(&pem, old.pem()).unwrap();
    std::fs::write(&jwks, json!({"keys": [other.jwk("stays"), old.jwk("goes")]}).to_string()).unwrap();
    let entry = |fields: &str| format!("[[auth.jwt_keys]]\n{fields}\norganizations = [\"default\"]\n");
    let pem_key = entry(&format!("kid = \"pem\"\nalg = \"EdDSA\"\npublic_key_file = {pem:?}"));
    let jwks_key = entry(&format!("jwks_file = {jwks:?}"));
    let secret = |secret: &str| entry(&format!("kid = \"secret\"\nsecret = \"{secret}{}\"", "x".repeat(32)));
    let toml = format!("auth.failures_per_minute = 0\n{pem_key}{jwks_key}{}", secret("one"));
    let daemon = Daemon::with().toml(&toml).start().await;
    let config = daemon.data_dir().parent().unwrap().join("test.toml");

    let by_pem = old.token("pem", json!({}));
    let by_gone = old.token("goes", json!({}));
    let by_other = other.token("stays", json!({}));
    let open = async |token: &str| {
        let mut ws = daemon.ws("/api/v1/ws").key(token).open().await;
        ws.expect("ready").await;
        ws
    };
    let ticket = async |token: &str| {
        let made = daemon.post("/api/v1/tickets").key(token).json(&json!({"reconnect": true})).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        format!("/api/v1/sse?ticket={}", made.json()["data"]["ticket"].as_str().unwrap())
    };
    let (mut replaced, mut removed, mut kept) =
        (open(&by_pem).await, open(&by_gone).await, open(&by_other).await);
    let path = ticket(&by_pem).await;
    let mut ticketed = daemon.sse(&path).without("authorization").open().await;
    ticketed.next().await.named("ready");

    // A broken file changes nothing, and the log names it and says so.
    std::fs::write(&pem, "not a key").unwrap();
    daemon.signal(Signal::HUP);
    until("the complaint", async || {
        let log = daemon.log();
        (log.contains("the keys stay as they were") && log.contains("key.pem")).then_some(())
    })
    .await;
    for token in [&by_pem, &by_gone, &by_other] {
        assert_eq!(daemon.get(EVENTS).key(token).send().await.status, 200);
    }
    // So does a broken configuration.
    std::fs::write(&config, format!("{toml}\nlisten = 7")).unwrap();
    daemon.signal(Signal::HUP);
    until("the complaint", async || daemon.log().contains("test.toml line").then_some(())).await;
    assert_eq!(daemon.get(EVENTS).key(&by_pem).send().await.status, 200);

    std::fs::write(&config, format!("auth.failures_per_minute = 0\n{pem_key}{jwks_key}{}", secret("two")))
        .unwrap();
    std::fs::write(&pem, new.pem()).unwrap();
    std::fs::write(&jwks, json!({"keys": [other.jwk("stays")]}).to_string()).unwrap();
    let since = Instant::now();
    daemon.signal(Signal::HUP);
    assert_eq!(replaced.closed().await.0, 4403);
    assert_eq!(removed.closed().await.0, 4403);
    let closing = ticketed.next().await.named("closing");
    assert_eq!(closing["code"], "FORBIDDEN", "{closing}");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());

    let refused = daemon.sse(&path).without("authorization").ask().await;
    assert_eq!(refused.status, 401, "a reconnect ticket does not outlive the key");
    for (token, status) in
        [(by_pem, 401), (by_gone, 401), (by_other, 200), (new.token("pem", json!({})), 200)]
    {
        assert_eq!(daemon.get(EVENTS).key(&token).send().await.status.as_u16(), status);
    }
    let pong = kept.ask(&json!({"type": "ping"})).await;
    assert_eq!(pong["type"], "pong", "who has another key notices nothing");
}
