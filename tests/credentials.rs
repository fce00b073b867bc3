//! Credentials as a peer presents them (protocol §4): the places where they may be, what makes them valid,
//! what ends them while a connection is open, and that they are never written to a log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use common::http::{Call, Reply};
use common::sse::Sse;
use common::ws::Ws;
use common::{Daemon, custom, until};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";
const NEXT: &str = "the next secret of thirty-two bytes!";
/// "Within about a second" (protocol §4), with a margin for a machine that runs other tests as well.
const SOON: Duration = Duration::from_secs(3);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(with: Value) -> Value {
    let mut claims = json!({"sub": "ann", "org_id": "acme", "roles": ["user"], "exp": now() + 3_600});
    for (name, value) in with.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn hs256(header: Value, claims: &Value, secret: &str) -> String {
    let message = unsigned(&header, claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag.as_ref()))
}

/// A token signed with the configured key `k1`.
fn token(with: Value) -> String {
    hs256(json!({"alg": "HS256", "kid": "k1"}), &claims(with), SECRET)
}

/// Configured keys as the environment variable has them.
fn keys(entries: Value) -> String {
    entries.to_string()
}

fn k1() -> Value {
    json!({"kid": "k1", "alg": "HS256", "secret": SECRET, "organizations": ["acme"]})
}

/// A daemon with the organization `acme`, an API key in it, and `k1`, which is valid for it.
async fn acme() -> (Daemon, String) {
    let daemon = Daemon::with()
        .env("AUTH__JWT_KEYS", keys(json!([k1()])))
        .env("AUTH__FAILURES_PER_MINUTE", 0)
        .start()
        .await;
    let key = daemon.create_org("acme").await;
    (daemon, key)
}

#[track_caller]
fn unauthorized(reply: &Reply) {
    reply.refused(401, "UNAUTHORIZED");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"nervewire\""));
}

async fn ticket(daemon: &Daemon, key: &str, body: Value) -> String {
    let made = daemon.post("/api/v1/tickets").key(key).json(&body).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["data"]["ticket"].as_str().unwrap().to_owned()
}

const EVENTS: &str = "/api/v1/events";

/// Sends a request that has `good` or another credential at each of the five places, the strongest first.
async fn present(daemon: &Daemon, places: [Option<&str>; 5]) -> Reply {
    let [bearer, api_key, ticket, query, cookie] = places;
    let mut path = format!("{EVENTS}?limit=1");
    for (name, value) in [("ticket", ticket), ("token", query)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={value}"));
        }
    }
    let mut call = Call::new(daemon.addr(), "GET", &path);
    for (name, value) in [
        ("authorization", bearer.map(|it| format!("Bearer {it}"))),
        ("x-api-key", api_key.map(str::to_owned)),
        ("cookie", cookie.map(|it| format!("a=b; nervewire_token={it}; c=d"))),
    ] {
        if let Some(value) = value {
            call = call.header(name, value);
        }
    }
    call.send().await
}

/// Every place is accepted. If there are several, only the strongest counts: a wrong one never falls through
/// to a right one below it.
#[tokio::test]
async fn credentials_have_an_order_of_precedence() {
    let (daemon, key) = acme().await;
    let jwt = token(json!({}));
    let reconnect = ticket(&daemon, &key, json!({"reconnect": true})).await;
    let good = [jwt.as_str(), &key, &reconnect, &jwt, &jwt];
    let bad = ["wrong", "nwk_wrong_wrong", "wrong", "wrong", "wrong"];
    for at in 0..5 {
        let mut places = [None; 5];
        places[at] = Some(good[at]);
        assert_eq!(present(&daemon, places).await.status, 200, "place {at}");
        places[at] = Some(bad[at]);
        unauthorized(&present(&daemon, places).await);
        for below in at + 1..5 {
            let mut places = [None; 5];
            (places[at], places[below]) = (Some(bad[at]), Some(good[below]));
            unauthorized(&present(&daemon, places).await);
            (places[at], places[below]) = (Some(good[at]), Some(bad[below]));
            assert_eq!(present(&daemon, places).await.status, 200, "{at} before {below}");
        }
    }
    unauthorized(&present(&daemon, [None; 5]).await);
    // An API key is accepted wherever a token is. X-API-Key accepts only keys.
    for places in [
        [Some(key.as_str()), None, None, None, None],
        [None, None, None, Some(&key), None],
        [None, None, None, None, Some(&key)],
    ] {
        assert_eq!(present(&daemon, places).await.status, 200);
    }
    unauthorized(&present(&daemon, [None, Some(&jwt), None, None, None]).await);
    // An empty parameter counts as absent. An unknown scheme belongs to a proxy.
    let path = format!("{EVENTS}?token=&ticket=");
    let call = Call::new(daemon.addr(), "GET", &path).header("authorization", "Basic dTpw");
    assert_eq!(call.header("x-api-key", &key).send().await.status, 200);
    // A parameter given twice is an error: two parsers could choose differently.
    let path = format!("{EVENTS}?token={jwt}&token={jwt}");
    unauthorized(&Call::new(daemon.addr(), "GET", &path).send().await);
    // The same on WebSocket and SSE.
    for (wrong, right) in [("wrong", &jwt), (jwt.as_str(), &jwt)] {
        let granted = wrong != "wrong";
        let ws = daemon.ws(&format!("/api/v1/ws?token={right}")).key(wrong).ask().await;
        assert_eq!(ws.is_ok(), granted);
        let sse = daemon.sse(&format!("/api/v1/sse?token={right}")).key(wrong).ask().await;
        assert_eq!(sse.status, if granted { 200 } else { 401 });
        assert_eq!(sse.header("www-authenticate").is_some(), !granted);
    }
}

#[tokio::test]
async fn a_token_in_the_query_can_be_switched_off() {
    let daemon = Daemon::with().env("TOKEN_IN_QUERY", false).start().await;
    let key = daemon.key.clone();
    unauthorized(&present(&daemon, [None, None, None, Some(&key), None]).await);
    let one = ticket(&daemon, &key, json!({})).await;
    assert_eq!(present(&daemon, [None, None, Some(&one), None, None]).await.status, 200);
}

/// Every forged token gets the same 401, byte for byte: the response does not say what was wrong.
#[tokio::test]
async fn forged_and_expired_tokens_get_the_same_401() {
    let (daemon, _) = acme().await;
    daemon.create_org("globex").await;
    let good = token(json!({}));
    assert_eq!(daemon.get(EVENTS).key(&good).send().await.status, 200);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let admin = BASE64.encode(claims(json!({"roles": ["admin"]})).to_string());
    let none = |alg: &str| format!("{}.", unsigned(&json!({"alg": alg, "kid": "k1"}), &claims(json!({}))));
    let by = |header: Value| hs256(header, &claims(json!({})), SECRET);
    let mut answers = std::collections::BTreeSet::new();
    for (what, text) in [
        ("none", none("none")),
        ("None", none("None")),
        ("no signature", format!("{message}.")),
        ("tampered payload", format!("{header}.{admin}.{signature}")),
        ("tampered signature", format!("{message}.{}", BASE64.encode([7; 32]))),
        ("another secret", hs256(json!({"alg": "HS256", "kid": "k1"}), &claims(json!({})), NEXT)),
        ("another algorithm", by(json!({"alg": "HS512", "kid": "k1"}))),
        ("an asymmetric algorithm", by(json!({"alg": "RS256", "kid": "k1"}))),
        ("unknown kid", by(json!({"alg": "HS256", "kid": "k9"}))),
        ("crit", by(json!({"alg": "HS256", "kid": "k1", "crit": ["b64"], "b64": false}))),
        ("expired", token(json!({"exp": now() - 1}))),
        ("exp now", token(json!({"exp": now()}))),
        ("not yet", token(json!({"nbf": now() + 60}))),
        ("issued tomorrow", token(json!({"iat": now() + 86_400}))),
        (
            "no exp",
            hs256(json!({"alg": "HS256", "kid": "k1"}), &json!({"sub": "a", "org_id": "acme"}), SECRET),
        ),
        ("exp text", token(json!({"exp": "tomorrow"}))),
        ("sub missing", token(json!({"sub": null}))),
        ("an organization the key may not name", token(json!({"org_id": "globex"}))),
        ("the operator's organization", token(json!({"org_id": "default"}))),
        ("an unknown organization", token(json!({"org_id": "nobody"}))),
        ("narrowing null", token(json!({"agents": null}))),
        ("wrong audience", token(json!({"aud": "another"}))),
        ("two parts", format!("{header}.{payload}")),
        ("an API key nobody has", "nwk_aaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into()),
        ("too long", "x".repeat(9_000)),
        ("empty", String::new()),
    ] {
        let reply = daemon.get(EVENTS).key(&text).send().await;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        unauthorized(&reply);
        let mut body = reply.json();
        body["timestamp"] = Value::Null;
        answers.insert(body.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // `nbf` may be slightly in the future, because clocks differ.
    assert_eq!(daemon.get(EVENTS).key(&token(json!({"nbf": now() + 2}))).send().await.status, 200);
}

/// Tokens without `kid` are verified by the default key, or by the only one. Other keys are never tried.
#[tokio::test]
async fn keys_rotate_by_kid_over_restarts() {
    let mut daemon = Daemon::with()
        .env("AUTH__JWT_KEYS", keys(json!([k1()])))
        .env("AUTH__FAILURES_PER_MINUTE", 0)
        .start()
        .await;
    daemon.create_org("acme").await;
    let old = token(json!({}));
    let new = hs256(json!({"alg": "HS256", "kid": "k2"}), &claims(json!({})), NEXT);
    let (old_bare, new_bare) = (
        hs256(json!({"alg": "HS256"}), &claims(json!({})), SECRET),
        hs256(json!({"alg": "HS256"}), &claims(json!({})), NEXT),
    );
    let own = daemon.mint_token(&daemon.key, "ann", json!({})).await;
    let statuses = async |daemon: &Daemon| {
        let mut statuses = Vec::new();
        for text in [&old, &new, &old_bare, &new_bare, &own] {
            statuses.push(daemon.get(EVENTS).key(text).send().await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses(&daemon).await, [200, 401, 200, 401, 200], "the only key needs no kid");
    let mut k2 =
        json!({"kid": "k2", "default": true, "alg": "HS256", "secret": NEXT, "organizations": ["acme"]});
    daemon.reconfigure("AUTH__JWT_KEYS", keys(json!([k1(), k2])));
    daemon.restart().await;
    assert_eq!(statuses(&daemon).await, [200, 200, 401, 200, 200], "the default is tried, and no other");
    k2["default"] = json!(false);
    daemon.reconfigure("AUTH__JWT_KEYS", keys(json!([k1(), k2])));
    daemon.restart().await;
    assert_eq!(statuses(&daemon).await, [200, 200, 401, 401, 200], "two keys and no default");
    daemon.reconfigure("AUTH__JWT_KEYS", keys(json!([k2])));
    daemon.restart().await;
    assert_eq!(statuses(&daemon).await, [401, 200, 401, 200, 200], "the old key is gone");
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/auth/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn der(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

/// RS256, ES256 and EdDSA keys in PEM and JWKS files. A public key never serves as an HS256 secret.
#[tokio::test]
async fn asymmetric_keys_are_read_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ed, p256) = (der("ed25519.public.pem"), der("p256.public.pem"));
    let point = &p256[p256.len() - 64..];
    let jwks = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "j-ed", "use": "sig", "x": BASE64.encode(&ed[ed.len() - 32..])},
        {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "j-ec",
         "x": BASE64.encode(&point[..32]), "y": BASE64.encode(&point[32..])},
    ]});
    let jwks_file = dir.path().join("jwks.json");
    std::fs::write(&jwks_file, jwks.to_string()).unwrap();
    let pem = |kid: &str, alg: &str, file: &str| json!({"kid": kid, "alg": alg, "public_key_file": fixture(file), "organizations": ["acme"]});
    let entries = json!([
        pem("rs", "RS256", "rsa.public.pem"),
        pem("es", "ES256", "p256.public.pem"),
        pem("ed", "EdDSA", "ed25519.public.pem"),
        {"jwks_file": jwks_file, "organizations": ["acme"]},
    ]);
    let daemon =
        Daemon::with().env("AUTH__JWT_KEYS", keys(entries)).env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    daemon.create_org("acme").await;
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::from_pkcs8(&der("rsa.private.pem")).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der("p256.private.pem"), &random)
        .unwrap();
    let edwards = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der("ed25519.private.pem")).unwrap();
    let sign = |alg: &str, kid: &str| {
        let message = unsigned(&json!({"alg": alg, "kid": kid}), &claims(json!({})));
        let signature = match alg {
            "RS256" => {
                let mut signature = vec![0; rsa.public().modulus_len()];
                rsa.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            "ES256" => ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => edwards.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    };
    for (alg, kid, status) in [
        ("RS256", "rs", 200),
        ("ES256", "es", 200),
        ("EdDSA", "ed", 200),
        ("EdDSA", "j-ed", 200),
        ("ES256", "j-ec", 200),
        ("RS256", "es", 401),
        ("EdDSA", "rs", 401),
        ("ES256", "j-ed", 401),
    ] {
        let reply = daemon.get(EVENTS).key(&sign(alg, kid)).send().await;
        assert_eq!(reply.status.as_u16(), status, "{alg} {kid}: {reply:?}");
    }
    let public = std::fs::read_to_string(fixture("rsa.public.pem")).unwrap();
    let confused = hs256(json!({"alg": "HS256", "kid": "rs"}), &claims(json!({})), &public);
    unauthorized(&daemon.get(EVENTS).key(&confused).send().await);
}

/// A one-shot ticket is used up by its first successful use, and only by that.
#[tokio::test]
async fn a_ticket_is_accepted_once() {
    let (daemon, key) = acme().await;
    let one = ticket(&daemon, &key, json!({})).await;
    let path = |kind: &str| format!("/api/v1/{kind}?ticket={one}");
    // This request is refused before credentials are checked, so the ticket is not used up.
    assert_eq!(Call::new(daemon.addr(), "GET", &path("ws")).send().await.status, 426);
    // A request from a foreign origin is refused and does not use up the ticket either.
    let foreign = daemon.ws(&path("ws")).without("authorization").header("origin", "https://evil.example");
    foreign.refused().await.refused(403, "FORBIDDEN");
    let mut ws = daemon.ws(&path("ws")).without("authorization").open().await;
    ws.expect("ready").await;
    let again = daemon.ws(&path("ws")).without("authorization").refused().await;
    unauthorized(&again);
    for kind in ["events", "stats"] {
        unauthorized(&Call::new(daemon.addr(), "GET", &path(kind)).send().await);
    }
    assert_eq!(daemon.sse(&path("sse")).without("authorization").ask().await.status, 401);
    // Of two concurrent uses, one succeeds.
    let one = ticket(&daemon, &key, json!({})).await;
    let path = format!("{EVENTS}?ticket={one}");
    let uses = (0..8).map(|_| tokio::spawn(Call::new(daemon.addr(), "GET", &path).send()));
    let mut granted = 0;
    for used in uses.collect::<Vec<_>>() {
        granted += usize::from(used.await.unwrap().status == 200);
    }
    assert_eq!(granted, 1);
}

/// A reconnect ticket is only for streams and polling, is bound to its page, survives `kill -9`, and ends
/// with the credential it was created from.
#[tokio::test]
async fn a_reconnect_ticket_survives_a_restart_but_not_its_parents_revocation() {
    let mut daemon = Daemon::with()
        .env("ALLOWED_ORIGINS", "https://a.example,https://b.example")
        .env("AUTH__FAILURES_PER_MINUTE", 0)
        .start()
        .await;
    let acme = daemon.create_org("acme").await;
    let made =
        daemon.post("/api/v1/api-keys").key(&acme).json(&json!({"scopes": ["subscribe"], "channels": ["a"]}));
    let made = made.send().await.json();
    let (key, key_id) = (made["data"]["api_key"].as_str().unwrap(), made["data"]["key_id"].as_str().unwrap());
    let asked = daemon.post("/api/v1/tickets").key(key).header("origin", "https://a.example");
    let reply = asked.json(&json!({"reconnect": true})).send().await;
    let text = reply.json()["data"]["ticket"].as_str().unwrap().to_owned();
    let sse_path = format!("/api/v1/sse?ticket={text}");
    let stream = |daemon: &Daemon, origin: Option<&str>| {
        let request = daemon.sse(&sse_path).without("authorization");
        match origin {
            Some(origin) => request.header("origin", origin).ask(),
            None => request.ask(),
        }
    };
    for _ in 0..2 {
        assert_eq!(stream(&daemon, Some("https://a.example")).await.status, 200);
        assert_eq!(stream(&daemon, None).await.status, 200, "same-origin EventSource sends none");
        assert_eq!(stream(&daemon, Some("https://b.example")).await.status, 403);
        assert_eq!(stream(&daemon, Some("null")).await.status, 403);
        assert_eq!(
            Call::new(daemon.addr(), "GET", &format!("{EVENTS}?ticket={text}")).send().await.status,
            200
        );
        let ws = daemon.ws(&format!("/api/v1/ws?ticket={text}")).without("authorization");
        ws.refused().await.refused(403, "FORBIDDEN");
        let rest = Call::new(daemon.addr(), "POST", &format!("/api/v1/tickets?ticket={text}"));
        rest.json(&json!({})).send().await.refused(403, "FORBIDDEN");
        // The ticket inherits the narrowing.
        let mut sse = stream(&daemon, None).await;
        sse.next().await.named("ready");
        daemon.publish_as(&acme, json!([custom("b", json!(1)), custom("a", json!(2))])).await;
        assert_eq!(sse.next_event().await["data"], 2);
        daemon.restart().await;
    }
    let deleted = daemon.call("DELETE", &format!("/api/v1/api-keys/{key_id}")).key(&acme).send().await;
    assert_eq!(deleted.status, 204);
    assert_eq!(stream(&daemon, None).await.status, 401, "a deleted key takes its tickets along");
}

/// A foreign page cannot use a visitor's cookie: every change, and every WebSocket, needs an allowed origin.
#[tokio::test]
async fn cookies_count_only_with_an_allowed_origin() {
    let daemon = Daemon::with()
        .env("ALLOWED_ORIGINS", "https://app.example")
        .env("AUTH__FAILURES_PER_MINUTE", 0)
        .start()
        .await;
    let cookie = format!("nervewire_token={}", daemon.key);
    let same = daemon.url();
    for (origin, allowed) in [
        (Some("https://app.example"), true),
        (Some(same.as_str()), true),
        (Some("https://evil.example"), false),
        (Some("http://app.example"), false),
        (Some("https://app.example.evil.example"), false),
        (Some("null"), false),
        (None, false),
    ] {
        let with = |method: &str, path: &str| {
            let call = Call::new(daemon.addr(), method, path).header("cookie", &cookie);
            match origin {
                Some(origin) => call.header("origin", origin),
                None => call,
            }
        };
        let posted = with("POST", EVENTS).json(&custom("c", json!(1))).send().await;
        assert_eq!(posted.status.as_u16(), if allowed { 201 } else { 403 }, "{origin:?} {posted:?}");
        let deleted = with("DELETE", "/api/v1/connections?user=nobody").send().await;
        assert_eq!(deleted.status.as_u16(), if allowed { 200 } else { 403 }, "{origin:?}");
        assert_eq!(with("GET", EVENTS).send().await.status, 200, "{origin:?}");
        let mut ws = daemon.ws("/api/v1/ws").without("authorization").header("cookie", &cookie);
        if let Some(origin) = origin {
            ws = ws.header("origin", origin);
        }
        match ws.ask().await {
            Ok(_) => assert!(allowed, "{origin:?}"),
            Err(reply) => {
                assert!(!allowed, "{origin:?}");
                reply.refused(403, "FORBIDDEN");
            }
        }
        // With a credential in a header, a WebSocket still needs an allowed origin if it has one: pages
        // cannot set headers there.
        let mut ws = daemon.ws("/api/v1/ws");
        if let Some(origin) = origin {
            ws = ws.header("origin", origin);
        }
        assert_eq!(ws.ask().await.is_ok(), allowed || origin.is_none(), "{origin:?}");
    }
}

#[tokio::test]
async fn cors_answers_browsers_with_what_is_allowed() {
    let daemon = Daemon::start().await;
    let preflight = async |origin: &str| {
        let call = Call::new(daemon.addr(), "OPTIONS", EVENTS).header("origin", origin);
        call.header("access-control-request-method", "POST").send().await
    };
    let list = |reply: &Reply, name: &str| {
        let text = reply.header(name).unwrap_or_default().to_ascii_lowercase();
        let mut list: Vec<String> = text.split(',').map(|one| one.trim().to_owned()).collect();
        list.sort();
        list
    };
    let sorted = |text: &str| {
        let mut list: Vec<String> = text.split(' ').map(str::to_owned).collect();
        list.sort();
        list
    };
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173"] {
        let reply = preflight(origin).await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(list(&reply, "access-control-allow-methods"), sorted("get post put patch delete"));
        let headers = "authorization content-type x-api-key last-event-id idempotency-key if-match x-producer-token \
                       x-user-id x-organization-id x-request-id traceparent";
        assert_eq!(list(&reply, "access-control-allow-headers"), sorted(headers));
        assert!(list(&reply, "vary").contains(&"origin".to_owned()));
        let exposed = sorted("x-request-id retry-after idempotent-replayed etag");
        let answers = [
            daemon.get(EVENTS).header("origin", origin).send().await,
            Call::new(daemon.addr(), "GET", EVENTS).header("origin", origin).send().await,
            daemon.get("/nowhere").header("origin", origin).send().await,
        ];
        assert_eq!(answers.each_ref().map(|it| it.status.as_u16()), [200, 401, 404]);
        for reply in answers {
            assert_eq!(list(&reply, "access-control-expose-headers"), exposed);
            assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        }
        let sse = daemon.sse("/api/v1/sse").header("origin", origin).ask().await;
        assert_eq!(sse.header("access-control-allow-origin"), Some(origin));
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let reply = preflight(origin).await;
        assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{reply:?}");
        let reply = daemon.get(EVENTS).header("origin", origin).send().await;
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

/// Narrowing applies to reading and publishing, over REST and WebSocket. An empty list matches nothing.
#[tokio::test]
async fn narrowing_limits_reading_and_publishing() {
    let (daemon, key) = acme().await;
    let narrowed = async |with: Value| {
        let mut body = with;
        body["scopes"] = json!(["*"]);
        daemon.mint_token(&key, "ann", body).await
    };
    let events = json!([
        {"type": "agent_update", "agent_id": "a", "status": "idle"},
        {"type": "agent_update", "agent_id": "b", "status": "idle"},
        {"type": "custom", "channel": "c/d", "data": 1},
        {"type": "custom", "channel": "c", "data": 1},
        {"type": "custom", "channel": "c/d", "agent_id": "a", "data": 1},
    ]);
    let ids = daemon.publish_as(&key, events.clone()).await;
    for (with, may) in [
        (json!({}), &[0, 1, 2, 3, 4][..]),
        (json!({"agents": ["a"]}), &[0, 4]),
        (json!({"channels": ["c/*"]}), &[2, 4]),
        (json!({"channels": ["c"]}), &[3]),
        (json!({"types": ["agent_update"]}), &[0, 1]),
        (json!({"types": ["agent_update"], "agents": ["b"]}), &[1]),
        (json!({"agents": ["a"], "channels": ["c/*"]}), &[4]),
        (json!({"agents": []}), &[]),
        (json!({"channels": []}), &[]),
        (json!({"types": []}), &[]),
    ] {
        let token = narrowed(with.clone()).await;
        let page = daemon.get(&format!("{EVENTS}?earliest=true&limit=5")).key(&token).send().await.json();
        let found: Vec<_> =
            page["data"].as_array().unwrap().iter().filter_map(|e| e["id"].as_str()).collect();
        let expected: Vec<_> = may.iter().map(|at| ids[*at].as_str()).collect();
        assert!(found.iter().zip(&expected).all(|(a, b)| a == b) && found.len() >= expected.len(), "{with}");
        assert!(
            ids.iter().enumerate().all(|(at, id)| may.contains(&at) || !found.contains(&id.as_str())),
            "{with}"
        );
        let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(&token).open().await;
        ws.expect("ready").await;
        for (at, event) in events.as_array().unwrap().iter().enumerate() {
            let posted = daemon.post(EVENTS).key(&token).json(event).send().await;
            let answer = ws.ask(&json!({"type": "publish", "ref": 1, "event": event})).await;
            match may.contains(&at) {
                true => assert_eq!(
                    (posted.status.as_u16(), &answer["type"]),
                    (201, &json!("ack")),
                    "{with} {event}"
                ),
                false => {
                    posted.refused(403, "FORBIDDEN");
                    assert_eq!(
                        (&answer["type"], &answer["code"]),
                        (&json!("error"), &json!("FORBIDDEN")),
                        "{with}"
                    );
                }
            }
        }
        // If one event of a batch is not allowed, none is published.
        if may.len() < 5 {
            daemon.post(EVENTS).key(&token).json(&events).send().await.refused(403, "FORBIDDEN");
        }
    }
}

/// Scopes on publishing (protocol §3).
#[tokio::test]
async fn each_credential_publishes_only_what_it_may() {
    let (daemon, key) = acme().await;
    let user = daemon.mint_token(&key, "ann", json!({"roles": ["user"]})).await;
    let viewer = daemon.mint_token(&key, "ann", json!({"roles": ["viewer"]})).await;
    let readonly = daemon.mint_token(&key, "ann", json!({"roles": ["readonly"]})).await;
    let org = daemon.mint_token(&key, "ann", json!({"scopes": ["publish:org"]})).await;
    let reader = daemon.mint_token(&key, "ann", json!({"scopes": ["read:all", "subscribe"]})).await;
    let made = daemon.post("/api/v1/api-keys").key(&key).json(&json!({"scopes": ["publish"]})).send().await;
    let plain = made.json()["data"]["api_key"].as_str().unwrap().to_owned();
    let mine = json!({"type": "message", "agent_id": "a", "user_id": "ann", "content": "x"});
    let nobodys = json!({"type": "custom", "channel": "c", "data": 1});
    let theirs = json!({"type": "message", "agent_id": "a", "user_id": "bob", "content": "x"});
    let typeless = json!({"type": "agent_update", "agent_id": "a", "status": "idle"});
    for (who, statuses) in [
        (&user, [201, 201, 403, 403]),
        (&viewer, [403, 403, 403, 403]),
        (&readonly, [403, 403, 403, 403]),
        (&org, [201, 201, 201, 201]),
        (&reader, [403, 403, 403, 403]),
        (&plain, [403, 403, 403, 403]),
        (&key, [201, 201, 201, 201]),
    ] {
        for (event, status) in [&mine, &nobodys, &theirs, &typeless].into_iter().zip(statuses) {
            let reply = daemon.post(EVENTS).key(who).json(event).send().await;
            assert_eq!(reply.status.as_u16(), status, "{event} {reply:?}");
        }
    }
    // `publish` without `publish:org` publishes as oneself, also if the event names nobody.
    let page = daemon.get(&format!("{EVENTS}?earliest=true&limit=2")).key(&key).send().await.json();
    assert_eq!(page["data"][1]["user_id"], "ann");
    for who in [&org, &plain] {
        daemon.get(EVENTS).key(who).send().await.refused(403, "FORBIDDEN");
        daemon.ws("/api/v1/ws").key(who).refused().await.refused(403, "FORBIDDEN");
        assert_eq!(daemon.sse("/api/v1/sse").key(who).ask().await.status, 403);
        let mut silent = daemon.ws("/api/v1/ws?subscribe=none").key(who).open().await;
        silent.expect("ready").await;
        let asked = silent.ask(&json!({"type": "subscribe", "ref": "s"})).await;
        assert_eq!(
            (&asked["type"], &asked["code"], &asked["ref"]),
            (&json!("error"), &json!("FORBIDDEN"), &json!("s"))
        );
    }
    for who in [&user, &viewer, &org, &plain] {
        for path in ["api-keys", "stats", "organizations/acme"] {
            daemon.get(&format!("/api/v1/{path}")).key(who).send().await.refused(403, "FORBIDDEN");
        }
        daemon
            .post("/api/v1/tokens")
            .key(who)
            .json(&json!({"sub": "x"}))
            .send()
            .await
            .refused(403, "FORBIDDEN");
    }
}

/// No credential can issue one with more rights than its own, and none can grant `operator`.
#[tokio::test]
async fn a_wider_narrowing_cannot_be_issued() {
    let (daemon, key) = acme().await;
    let manager = async |with: Value| daemon.mint_token(&key, "ann", with).await;
    let narrow = manager(
        json!({"scopes": ["manage", "subscribe"], "agents": ["a"], "channels": ["c/*"], "types": []}),
    )
    .await;
    let short = manager(json!({"scopes": ["*"], "expires_in_seconds": 600})).await;
    for (who, path, body) in [
        (&narrow, "api-keys", json!({"scopes": ["publish"]})),
        (&narrow, "api-keys", json!({"scopes": ["*"]})),
        (&narrow, "api-keys", json!({"scopes": ["write"]})),
        (&narrow, "api-keys", json!({"scopes": ["subscribe"], "agents": ["a", "b"]})),
        (&narrow, "api-keys", json!({"scopes": ["subscribe"], "channels": ["c"]})),
        (&narrow, "api-keys", json!({"scopes": ["subscribe"], "types": ["message"]})),
        (&narrow, "tokens", json!({"sub": "ann", "roles": ["admin"]})),
        (&narrow, "tokens", json!({"sub": "ann", "scopes": ["publish"]})),
        (&narrow, "tokens", json!({"sub": "bob", "scopes": ["subscribe"]})),
        (&narrow, "tokens", json!({"sub": "ann", "scopes": ["subscribe"], "agents": ["b"]})),
        (&short, "api-keys", json!({"scopes": ["subscribe"], "expires_in_seconds": 3_600})),
        (&short, "tokens", json!({"sub": "bob", "expires_in_seconds": 3_600})),
    ] {
        let reply = daemon.post(&format!("/api/v1/{path}")).key(who).json(&body).send().await;
        assert_eq!(reply.status, 403, "{path} {body} {reply:?}");
    }
    for (who, path, body) in [
        (&key, "api-keys", json!({"scopes": ["operator"]})),
        (&daemon.key, "api-keys", json!({"scopes": ["operator"]})),
        (&daemon.key, "tokens", json!({"sub": "ann", "scopes": ["operator"]})),
    ] {
        let reply = daemon.post(&format!("/api/v1/{path}")).key(who).json(&body).send().await;
        reply.refused(400, "VALIDATION_ERROR");
    }
    // A field that is left out is inherited: a child never has more than its parent.
    let made =
        daemon.post("/api/v1/api-keys").key(&short).json(&json!({"scopes": ["subscribe"]})).send().await;
    assert!(made.json()["data"]["expires_at"].is_string(), "{made:?}");
    let made =
        daemon.post("/api/v1/api-keys").key(&narrow).json(&json!({"scopes": ["subscribe"]})).send().await;
    let made = made.json();
    assert_eq!((&made["data"]["agents"], &made["data"]["types"]), (&json!(["a"]), &json!([])));

    // `*` does not include `operator`, and a token cannot claim it.
    let claims_it = token(json!({"scopes": ["*", "operator"], "roles": ["admin", "operator"]}));
    let second = daemon.create_key(json!({"scopes": ["*"]})).await;
    for who in [&claims_it, &key, &second] {
        daemon.get("/api/v1/organizations").key(who).send().await.refused(403, "FORBIDDEN");
        let made = daemon.post("/api/v1/organizations").key(who).json(&json!({"id": "x"})).send().await;
        made.refused(403, "FORBIDDEN");
        daemon.call("DELETE", "/api/v1/organizations/acme").key(who).send().await.refused(403, "FORBIDDEN");
    }
    assert_eq!(daemon.get("/api/v1/organizations").send().await.status, 200);
    // A manager of the operator's own organization cannot delete the operator's key either.
    let id = daemon.key.split('_').nth(1).unwrap().to_owned();
    let deleted = daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).key(&second).send().await;
    deleted.refused(403, "FORBIDDEN");
}

/// A connection over each transport with one credential.
struct Live {
    ws: Ws,
    silent: Ws,
    sse: Sse,
}

impl Live {
    async fn open(daemon: &Daemon, credential: &str) -> Live {
        let mut ws = daemon.ws("/api/v1/ws").key(credential).open().await;
        ws.expect("ready").await;
        let mut silent = daemon.ws("/api/v1/ws?subscribe=none").key(credential).open().await;
        silent.expect("ready").await;
        let mut sse = daemon.sse("/api/v1/sse").key(credential).open().await;
        sse.next().await.named("ready");
        Live { ws, silent, sse }
    }

    /// Checks that all end with this code, soon after `since`. Earlier events may come first.
    async fn ended(mut self, code: u16, said: &str, since: Instant) {
        assert_eq!(self.ws.closed().await.0, code);
        assert_eq!(self.silent.closed().await.0, code);
        let mut block = self.sse.next().await;
        while block.name.is_none() {
            block = self.sse.next().await;
        }
        let closing = block.named("closing");
        assert_eq!((&closing["type"], &closing["code"]), (&json!("error"), &json!(said)));
        assert_eq!(self.sse.next_block().await, None);
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }

    /// Checks that all still receive events.
    async fn lives(&mut self, daemon: &Daemon, key: &str) {
        let id = daemon.publish_as(key, custom("lives", json!(1))).await;
        // Other events may have been published before.
        while self.ws.next_json().await["id"] != id[0].as_str() {}
        while self.sse.next_event().await["id"] != id[0].as_str() {}
        assert_eq!(self.silent.ask(&json!({"type": "ping"})).await["type"], "pong");
    }
}

/// The end of a credential ends its connections, and no others.
#[tokio::test]
async fn revocation_ends_live_connections() {
    let (daemon, key) = acme().await;
    let made = daemon.post("/api/v1/api-keys").key(&key).json(&json!({"scopes": ["*"]})).send().await.json();
    let (second, second_id) =
        (made["data"]["api_key"].as_str().unwrap(), made["data"]["key_id"].as_str().unwrap());
    let minted = daemon.post("/api/v1/tokens").key(&key).json(&json!({"sub": "jay"})).send().await.json();
    let (jay, jti) = (minted["data"]["token"].as_str().unwrap(), minted["data"]["jti"].as_str().unwrap());
    let bob = daemon.mint_token(&key, "bob", json!({})).await;
    let foreign = token(json!({"sub": "jay", "jti": "f1"}));
    let mut stays = Live::open(&daemon, &daemon.mint_token(&key, "cat", json!({})).await).await;

    let live = Live::open(&daemon, second).await;
    let since = Instant::now();
    let gone = daemon.call("DELETE", &format!("/api/v1/api-keys/{second_id}")).key(&key).send().await;
    assert_eq!(gone.status, 204);
    live.ended(4403, "FORBIDDEN", since).await;
    unauthorized(&daemon.get(EVENTS).key(second).send().await);

    let (live, mut by_other) = (Live::open(&daemon, jay).await, Live::open(&daemon, &foreign).await);
    let since = Instant::now();
    let revoked = daemon.call("DELETE", &format!("/api/v1/tokens/{jti}")).key(&key).send().await;
    assert_eq!(revoked.status, 204);
    live.ended(4403, "FORBIDDEN", since).await;
    unauthorized(&daemon.get(EVENTS).key(jay).send().await);
    by_other.lives(&daemon, &key).await;
    stays.lives(&daemon, &key).await;
    let since = Instant::now();
    let revoked = daemon.call("DELETE", "/api/v1/tokens/f1").key(&key).send().await;
    assert_eq!(revoked.status, 204);
    by_other.ended(4403, "FORBIDDEN", since).await;

    let live = Live::open(&daemon, &bob).await;
    let since = Instant::now();
    let disable = async |disabled: bool| {
        let call = daemon.call("PUT", "/api/v1/users/bob/disabled").key(&key);
        assert_eq!(call.json(&json!({"disabled": disabled})).send().await.status, 200);
    };
    disable(true).await;
    live.ended(4403, "FORBIDDEN", since).await;
    unauthorized(&daemon.get(EVENTS).key(&bob).send().await);
    disable(false).await;
    Live::open(&daemon, &bob).await.lives(&daemon, &key).await;

    stays.lives(&daemon, &key).await;
    let operator = daemon.key.clone();
    let mut elsewhere = Live::open(&daemon, &operator).await;
    let poll = tokio::spawn(daemon.get(&format!("{EVENTS}?wait=30")).key(&key).send());
    until("the poll to wait", async || {
        let stats = daemon.get("/api/v1/stats").key(&key).send().await.json();
        (stats["data"]["connections"] == 4).then_some(())
    })
    .await;
    let since = Instant::now();
    let deleted = daemon.call("DELETE", "/api/v1/organizations/acme").send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    stays.ended(4403, "FORBIDDEN", since).await;
    unauthorized(&daemon.get(EVENTS).key(&key).send().await);
    elsewhere.lives(&daemon, &operator).await;
    assert_eq!(poll.await.unwrap().status, 401, "a waiting poll ends as well");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

/// Expiry has a close code of its own, which means: reconnect with a new credential.
#[tokio::test]
async fn expiry_ends_live_connections() {
    let (daemon, key) = acme().await;
    // Long enough to open all connections on a busy machine.
    let exp = now() + 5;
    let dying = token(json!({"exp": exp}));
    let made =
        daemon.post("/api/v1/api-keys").key(&key).json(&json!({"scopes": ["*"], "expires_in_seconds": 5}));
    let made = made.send().await.json();
    let (live, by_key) = (
        Live::open(&daemon, &dying).await,
        Live::open(&daemon, made["data"]["api_key"].as_str().unwrap()).await,
    );
    let since = Instant::now() + Duration::from_secs(exp.saturating_sub(now()));
    live.ended(4401, "UNAUTHORIZED", since).await;
    assert!(now() >= exp, "before its time");
    by_key.ended(4401, "UNAUTHORIZED", since).await;
    unauthorized(&daemon.get(EVENTS).key(&dying).send().await);
}

/// `auth` on a WebSocket renews the credential in place: same identity, new expiry and new rights, before the
/// next frame.
#[tokio::test]
async fn a_websocket_renews_its_credential() {
    let (daemon, key) = acme().await;
    let exp = now() + 2;
    let mut ws = daemon.ws("/api/v1/ws").key(&token(json!({"exp": exp}))).open().await;
    ws.expect("ready").await;
    let ask = |token: &str| json!({"type": "auth", "token": token, "ref": "r"});
    // A wrong credential changes nothing.
    let refused = ws.ask(&ask("wrong")).await;
    assert_eq!(
        (&refused["type"], &refused["code"], &refused["ref"]),
        (&json!("error"), &json!("UNAUTHORIZED"), &json!("r"))
    );
    assert!(!refused.to_string().contains("wrong"));
    assert_eq!(ws.ask(&ask(&token(json!({})))).await, json!({"type": "ack", "ref": "r", "ids": []}));
    until("the first credential's end", async || (now() > exp + 1).then_some(())).await;
    let id = daemon.publish_as(&key, custom("c", json!(1))).await;
    assert_eq!(ws.next_json().await["id"], id[0].as_str(), "it outlives its first credential");
    // The new rights apply to the next frame.
    let narrow = token(json!({"channels": ["only"]}));
    assert_eq!(ws.ask(&ask(&narrow)).await["type"], "ack");
    daemon.publish_as(&key, json!([custom("other", json!(1)), custom("only", json!(2))])).await;
    assert_eq!(ws.next_json().await["data"], 2);
    // Another identity ends the connection.
    for other in [token(json!({"sub": "bob"})), key.clone(), daemon.key.clone()] {
        let mut ws = daemon.ws("/api/v1/ws").key(&token(json!({}))).open().await;
        ws.expect("ready").await;
        ws.send(&ask(&other)).await;
        assert_eq!(ws.closed().await.0, 4403);
    }
}

/// `visibility` changes what live connections see, in both directions.
#[tokio::test]
async fn visibility_changes_take_effect_on_live_connections() {
    let (daemon, key) = acme().await;
    let mut ws = daemon.ws("/api/v1/ws").key(&token(json!({}))).open().await;
    ws.expect("ready").await;
    let mut sse = daemon.sse("/api/v1/sse").key(&token(json!({}))).open().await;
    sse.next().await.named("ready");
    let to_bob = json!({"type": "message", "agent_id": "a", "user_id": "bob", "content": "x"});
    let mark = async |n: u64| daemon.publish_as(&key, custom("mark", json!(n))).await;
    let set = async |visibility: &str| {
        let body = json!({"visibility": visibility});
        let call = daemon.call("PATCH", "/api/v1/organizations/acme").key(&key);
        assert_eq!(call.json(&body).send().await.status, 200);
    };
    // The change reaches the workers by message, slightly after the response, so publish until it takes
    // effect.
    for (visibility, seen) in [("org", true), ("private", false), ("org", true)] {
        set(visibility).await;
        let since = Instant::now();
        let mut agreed = false;
        while !agreed {
            assert!(since.elapsed() < SOON, "{visibility} took too long");
            daemon.publish_as(&key, to_bob.clone()).await;
            mark(1).await;
            let mut saw = [false; 2];
            while ws.next_json().await["type"] == "message" {
                saw[0] = true;
            }
            while sse.next_event().await["type"] == "message" {
                saw[1] = true;
            }
            agreed = saw == [seen; 2];
        }
    }
}

/// After sixty failures per minute and address, further failures get 429. Valid and missing credentials never
/// count.
#[tokio::test]
async fn failed_attempts_are_limited_and_successful_ones_are_not() {
    let daemon = Daemon::start().await;
    let fail = async || daemon.get(EVENTS).key("wrong").send().await;
    for at in 0..60 {
        let reply = fail().await;
        assert_eq!(reply.status, 401, "failure {at}");
    }
    let over = fail().await;
    over.refused(429, "QUOTA_EXCEEDED");
    let wait: u64 = over.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(daemon.get(EVENTS).send().await.status, 200);
    unauthorized(&Call::new(daemon.addr(), "GET", EVENTS).send().await);
    daemon.ws("/api/v1/ws").key("wrong").refused().await.refused(429, "QUOTA_EXCEEDED");
    daemon.live_ws("/api/v1/ws").await;
    // EventSource must get the status: the credential is wrong, and the daemon is not full.
    assert_eq!(daemon.sse("/api/v1/sse").key("wrong").ask().await.status, 429);
    assert_eq!(daemon.sse("/api/v1/sse").ask().await.status, 200);
}

/// No credential, right or wrong, in any place, is ever written to the log, a metric or a response.
#[tokio::test]
async fn credentials_never_appear_in_logs_or_on_disk() {
    let daemon = Daemon::with().env("LOG", "trace").env("AUTH__JWT_KEYS", keys(json!([k1()]))).start().await;
    let key = daemon.create_org("acme").await;
    let jwt = token(json!({"sub": "logged-user"}));
    let minted = daemon.mint_token(&key, "ann", json!({})).await;
    let one = ticket(&daemon, &key, json!({})).await;
    let reconnect = ticket(&daemon, &key, json!({"reconnect": true})).await;
    let wrong = "wr0ng-credential-aaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut answers = String::new();
    for text in [key.as_str(), &jwt, &minted, &one, &reconnect, wrong] {
        for at in 0..5 {
            let mut places = [None; 5];
            places[at] = Some(text);
            answers.push_str(&format!("{:?}", present(&daemon, places).await));
        }
        let path = format!("/api/v1/ws?token={text}&ticket={text}");
        if let Err(reply) = daemon.ws(&path).without("authorization").ask().await {
            answers.push_str(&format!("{reply:?}"));
        }
        let mut sse = daemon.sse(&format!("/api/v1/sse?token={text}&nonsense={text}")).key(text).ask().await;
        if sse.status != 200 {
            answers.push_str(&sse.body().await.replace(&format!("nonsense={text}"), ""));
        }
        let mut ws = daemon.ws("/api/v1/ws").key(&jwt).open().await;
        ws.expect("ready").await;
        ws.send_text(&format!("{{\"type\":\"auth\",\"token\":\"{text}\"")).await;
        answers.push_str(&ws.next_json().await.to_string());
        ws.send(&json!({"type": "auth", "token": text})).await;
        // The response is a frame or a close, depending on the credential's owner.
        answers.push_str(&format!("{:?}", ws.try_next_json().await));
        // An invalid request line and an invalid head.
        let path = format!("/api/v1/%zz?token={text}");
        answers.push_str(&format!("{:?}", Call::new(daemon.addr(), "GET", &path).send().await));
        h2_request(&daemon, text).await;
    }
    answers.push_str(&Call::new(daemon.admin_addr(), "GET", "/metrics").send().await.text());
    let log = daemon.log();
    assert!(log.contains("\"level\":\"DEBUG\"") && log.contains("credential refused"), "it logs at all");
    for text in [&key, &jwt, &minted, &one, &reconnect, &daemon.key, &wrong.to_owned(), &SECRET.to_owned()] {
        // A part of a credential would be as bad as the whole.
        for part in [text.as_str(), &text[text.len() - 20..]] {
            let at = |haystack: &str| {
                haystack.find(part).map(|at| {
                    let from = haystack[..at].rfind('\n').map_or(0, |n| n + 1);
                    haystack[from..].lines().next().unwrap().chars().take(300).collect::<String>()
                })
            };
            assert_eq!(at(&log), None, "in the log");
            assert_eq!(at(&answers), None, "in an answer");
        }
    }
    assert!(!log.contains("panicked"), "{log}");
}

/// Sends one request over HTTP/2 whose head has the credential three times.
async fn h2_request(daemon: &Daemon, text: &str) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(daemon.addr()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, http_body_util::Empty<&[u8]>>(
            TokioExecutor::new(),
            TokioIo::new(stream),
        )
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}{EVENTS}?token={text}", daemon.addr()))
        .header("x-api-key", text)
        .header("cookie", format!("nervewire_token={text}"))
        .body(http_body_util::Empty::new())
        .unwrap();
    common::within("an answer over HTTP/2", sender.send_request(request)).await.unwrap();
    driver.abort();
}
