//! Limits of rights (protocol §3, §4): a credential never outlives or exceeds its issuer, nobody takes away
//! wider rights than their own, and a ticket only opens streams and reads history.
//!
//! The cases are products of issuers, ways and targets. The expected result of each follows from the rights
//! of both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::http::Reply;
use common::rest::data;
use common::{Daemon, custom};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

async fn daemon() -> Daemon {
    Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 0).start().await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn register(daemon: &Daemon, key: &str, email: &str, role: &str) -> Reply {
    let body = json!({"email": email, "password": PASSWORD, "name": "Somebody", "role": role});
    daemon.post("/api/v1/users/register").key(key).json(&body).send().await
}

async fn user(daemon: &Daemon, email: &str, role: &str) -> String {
    text(&data(&register(daemon, &daemon.key, email, role).await, 201)["id"])
}

async fn login(daemon: &Daemon, email: &str) -> Reply {
    let body = json!({"email": email, "password": PASSWORD, "organization_id": "default"});
    daemon.post("/api/v1/users/login").anonymous().json(&body).send().await
}

async fn session(daemon: &Daemon, email: &str) -> String {
    text(&data(&login(daemon, email).await, 200)["token"])
}

async fn set_role(daemon: &Daemon, key: &str, sub: &str, role: &str) -> u16 {
    let path = format!("/api/v1/organizations/default/members/{sub}");
    daemon.call("PUT", &path).key(key).json(&json!({"role": role})).send().await.status.as_u16()
}

async fn set_disabled(daemon: &Daemon, key: &str, sub: &str, disabled: bool) -> u16 {
    let path = format!("/api/v1/users/{sub}/disabled");
    let call = daemon.call("PUT", &path).key(key).json(&json!({"disabled": disabled}));
    call.send().await.status.as_u16()
}

/// For each kind of issuer, expiring or not, and each way to create a user: whether it may create what lasts
/// longer than itself.
#[tokio::test]
async fn an_expiring_credential_cannot_create_a_lasting_user() {
    let daemon = daemon().await;
    let admin = user(&daemon, "admin@x", "admin").await;
    let roles = json!({"roles": ["admin"]});
    let issuers = [
        (
            "an expiring key",
            daemon.create_key(json!({"scopes": ["*"], "expires_in_seconds": 600})).await,
            false,
        ),
        ("a token", daemon.mint_token(&daemon.key, "somebody", roles.clone()).await, false),
        ("a token of a registered admin", daemon.mint_token(&daemon.key, &admin, roles).await, false),
        ("a lasting key", daemon.create_key(json!({"scopes": ["*"]})).await, true),
        ("a session", session(&daemon, "admin@x").await, true),
    ];
    for (at, (who, key, lasts)) in issuers.iter().enumerate() {
        let (made, done) = if *lasts { (201, 200) } else { (403, 403) };
        for role in ["admin", "viewer"] {
            let email = format!("registered-{role}-{at}@x");
            assert_eq!(register(&daemon, key, &email, role).await.status, made, "{who} registers a {role}");
            let entered = login(&daemon, &email).await.status;
            assert_eq!(entered, if *lasts { 200 } else { 401 }, "{who}: {email}");

            let email = format!("member-{role}-{at}@x");
            let body = json!({"email": email, "password": PASSWORD, "name": "Member", "role": role});
            let members = daemon.post("/api/v1/organizations/default/members").key(key).json(&body);
            assert_eq!(members.send().await.status, made, "{who} adds a {role}");
        }
        for (from, to) in [("viewer", "user"), ("viewer", "admin"), ("user", "admin")] {
            let sub = user(&daemon, &format!("{from}-{to}-{at}@x"), from).await;
            assert_eq!(set_role(&daemon, key, &sub, to).await, done, "{who} makes a {from} a {to}");
            let now = data(&daemon.get(&format!("/api/v1/users/{sub}")).send().await, 200);
            assert_eq!(now["role"], if *lasts { to } else { from }, "{who}");
        }
        let sub = user(&daemon, &format!("out-{at}@x"), "admin").await;
        assert_eq!(set_disabled(&daemon, key, &sub, true).await, 200, "{who} disables");
        assert_eq!(set_disabled(&daemon, key, &sub, false).await, done, "{who} enables");
        // A user with fewer rights is always allowed.
        let sub = user(&daemon, &format!("less-{at}@x"), "admin").await;
        assert_eq!(set_role(&daemon, key, &sub, "viewer").await, 200, "{who} makes an admin a viewer");
    }
}

fn seconds(timestamp: &Value) -> u64 {
    timestamp.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second() as u64
}

/// Keys, tokens and tickets expire no later than the credential that created them, whether or not an expiry
/// is requested.
#[tokio::test]
async fn issued_credentials_end_with_their_issuer() {
    let daemon = daemon().await;
    user(&daemon, "admin@x", "admin").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let roles = json!({"roles": ["admin"], "expires_in_seconds": 600});
    for (who, key, within) in [
        ("a key", daemon.create_key(json!({"scopes": ["*"], "expires_in_seconds": 600})).await, 600),
        ("a token", daemon.mint_token(&daemon.key, "somebody", roles).await, 600),
        ("a session", session(&daemon, "admin@x").await, 24 * 3_600),
    ] {
        for (path, body) in [
            ("/api/v1/api-keys", json!({"scopes": ["*"]})),
            ("/api/v1/tokens", json!({"sub": "ann", "roles": ["admin"]})),
            ("/api/v1/tickets", json!({})),
            ("/api/v1/tickets", json!({"reconnect": true})),
        ] {
            let made = data(&daemon.post(path).key(&key).json(&body).send().await, 201);
            let end = seconds(&made["expires_at"]);
            assert!(end <= now + within + 60, "{who}, {path}: {made}");
        }
        let later = json!({"scopes": ["*"], "expires_in_seconds": within + 3_600});
        daemon.post("/api/v1/api-keys").key(&key).json(&later).send().await.refused(403, "FORBIDDEN");
        let later = json!({"sub": "ann", "expires_in_seconds": within + 3_600});
        daemon.post("/api/v1/tokens").key(&key).json(&later).send().await.refused(403, "FORBIDDEN");
    }
}

/// Tokens cannot be listed, so those minted with a stolen credential would stay valid for a month. They end
/// at once with the credential that minted them, over any number of steps, and so do live connections.
#[tokio::test]
async fn minted_tokens_end_with_the_credential_that_minted_them() {
    let daemon = daemon().await;
    let sub = user(&daemon, "admin@x", "admin").await;
    let admin = json!({"roles": ["admin"]});
    let works = async |token: &str| daemon.get("/api/v1/agents").key(token).send().await.status.as_u16();

    let key = daemon.create_key(json!({"scopes": ["*"]})).await;
    let first = daemon.mint_token(&key, "somebody", admin.clone()).await;
    let brief = json!({"roles": ["admin"], "expires_in_seconds": 600});
    let second = daemon.mint_token(&first, "other", brief.clone()).await;
    let untouched = daemon.mint_token(&daemon.key, "somebody", admin.clone()).await;
    let mut live = daemon.ws("/api/v1/ws").key(&second).open().await;
    assert_eq!((works(&first).await, works(&second).await), (200, 200));
    let id = key.split('_').nth(1).unwrap();
    assert_eq!(daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).send().await.status, 204);
    assert_eq!((works(&first).await, works(&second).await), (401, 401));
    assert_eq!(live.closed().await.0, 4403);
    assert_eq!(works(&untouched).await, 200, "it is another key's");

    let of_session = daemon.mint_token(&session(&daemon, "admin@x").await, "third", brief).await;
    assert_eq!(works(&of_session).await, 200);
    assert_eq!(set_disabled(&daemon, &daemon.key, &sub, true).await, 200);
    assert_eq!(works(&of_session).await, 401);
    assert_eq!(set_disabled(&daemon, &daemon.key, &sub, false).await, 200);
    assert_eq!(works(&of_session).await, 200, "as the session itself, which was only kept out");
    assert_eq!(set_role(&daemon, &daemon.key, &sub, "user").await, 200);
    assert_eq!(works(&of_session).await, 401);
    assert_eq!(works(&untouched).await, 200);
}

/// A manager: the scopes of its key, and whether it is narrowed.
struct Manager {
    scopes: &'static [&'static str],
    narrowed: bool,
}

const MANAGERS: [Manager; 5] = [
    Manager { scopes: &["manage"], narrowed: false },
    Manager { scopes: &["manage", "subscribe"], narrowed: false },
    Manager { scopes: &["manage", "subscribe", "publish:org"], narrowed: false },
    Manager { scopes: &["*"], narrowed: true },
    Manager { scopes: &["*"], narrowed: false },
];

impl Manager {
    fn covers(&self, scopes: &[&str], narrowed: bool) -> bool {
        let all = self.scopes.contains(&"*");
        (all || scopes.iter().all(|scope| self.scopes.contains(scope))) && (narrowed || !self.narrowed)
    }

    async fn key(&self, daemon: &Daemon) -> String {
        let agents = if self.narrowed { json!(["a"]) } else { Value::Null };
        let mut body = json!({"scopes": self.scopes, "agents": agents});
        body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        daemon.create_key(body).await
    }
}

/// Scopes, and whether they are narrowed to the agent `a`.
const EXTENTS: [(&[&str], bool); 6] = [
    (&["subscribe"], false),
    (&["subscribe"], true),
    (&["manage"], false),
    (&["subscribe", "publish:org"], false),
    (&["*"], false),
    (&["*"], true),
];

/// Every manager deletes and revokes keys and tokens of every extent.
#[tokio::test]
async fn a_wider_credential_cannot_be_revoked() {
    let daemon = daemon().await;
    for (at, manager) in MANAGERS.iter().enumerate() {
        let by = manager.key(&daemon).await;
        for (scopes, narrowed) in EXTENTS {
            let case = format!("manager {at}: {scopes:?} {narrowed}");
            let allowed = manager.covers(scopes, narrowed);
            let expected = if allowed { 204 } else { 403 };
            let mut key = json!({"scopes": scopes});
            let mut token = json!({"sub": "ann", "scopes": scopes});
            if narrowed {
                (key["agents"], token["agents"]) = (json!(["a"]), json!(["a"]));
            }
            for (path, body, name, secret) in
                [("/api/v1/api-keys", key, "key_id", "api_key"), ("/api/v1/tokens", token, "jti", "token")]
            {
                let made = data(&daemon.post(path).json(&body).send().await, 201);
                let (name, secret) = (text(&made[name]), text(&made[secret]));
                let gone = daemon.call("DELETE", &format!("{path}/{name}")).key(&by).send().await;
                // A key outside of the manager's narrowing is reported as not existing.
                let hidden = path == "/api/v1/api-keys" && manager.narrowed && !narrowed;
                assert_eq!(gone.status, if hidden { 404 } else { expected }, "{case} {path}: {gone:?}");
                let works = daemon.get("/api/v1/connections").key(&secret).send().await.status;
                assert_eq!(works, if allowed { 401 } else { 200 }, "{case} {path}");
            }
        }
        // The rights of a token that the daemon did not mint are unknown: it may belong to an admin.
        let expected = if manager.covers(&["*"], false) { 204 } else { 403 };
        let gone =
            daemon.call("DELETE", &format!("/api/v1/tokens/made-elsewhere-{at}")).key(&by).send().await;
        assert_eq!(gone.status, expected, "manager {at}");
    }
}

/// Every manager disables, enables, demotes and deletes users of every role, and one who is not registered.
#[tokio::test]
async fn users_with_wider_rights_cannot_be_restricted() {
    let daemon = daemon().await;
    for (at, manager) in MANAGERS.iter().enumerate() {
        let by = manager.key(&daemon).await;
        for (role, scopes) in [("viewer", &["subscribe"][..]), ("user", &["*"]), ("admin", &["*"])] {
            let case = format!("manager {at}: {role}");
            let allowed = manager.covers(scopes, false);
            let expected = if allowed { 200 } else { 403 };
            let email = format!("{role}-{at}@x");
            let sub = user(&daemon, &email, role).await;
            assert_eq!(set_disabled(&daemon, &by, &sub, true).await, expected, "{case} is disabled");
            assert_eq!(login(&daemon, &email).await.status, if allowed { 401 } else { 200 }, "{case}");
            set_disabled(&daemon, &daemon.key, &sub, true).await;
            assert_eq!(set_disabled(&daemon, &by, &sub, false).await, expected, "{case} is enabled");
            set_disabled(&daemon, &daemon.key, &sub, false).await;
            assert_eq!(set_role(&daemon, &by, &sub, "viewer").await, expected, "{case} becomes a viewer");
            set_role(&daemon, &daemon.key, &sub, role).await;
            let gone = daemon.call("DELETE", &format!("/api/v1/users/{sub}")).key(&by).send().await;
            assert_eq!(gone.status, if allowed { 204 } else { 403 }, "{case} is deleted");
        }
        let expected = if manager.covers(&["*"], false) { 200 } else { 403 };
        let unknown = format!("unknown-{at}");
        assert_eq!(set_disabled(&daemon, &by, &unknown, true).await, expected, "manager {at}");
        assert_eq!(set_disabled(&daemon, &by, &unknown, false).await, expected, "manager {at}");
    }
}

async fn ticket(daemon: &Daemon, key: &str, reconnect: bool) -> String {
    let made = daemon.post("/api/v1/tickets").key(key).json(&json!({"reconnect": reconnect})).send().await;
    text(&data(&made, 201)["ticket"])
}

/// Every operation of the API document except streams and history, with a ticket of either kind.
#[tokio::test]
async fn a_ticket_opens_only_streams_and_history() {
    const READERS: [&str; 4] = ["openEventStream", "openLlmEventStream", "openWebSocket", "listEvents"];
    let daemon = daemon().await;
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let (once, again) = (ticket(&daemon, &daemon.key, false).await, ticket(&daemon, &daemon.key, true).await);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            if operation["security"] == json!([]) || READERS.contains(&id) {
                continue;
            }
            let path = path.replace(['{', '}'], "");
            for ticket in [&once, &again] {
                let call =
                    daemon.call(&method.to_uppercase(), &format!("{path}?ticket={ticket}")).anonymous();
                let body = &operation["requestBody"]["content"]["application/json"]["example"];
                let call = if body.is_null() { call } else { call.json(body) };
                let refused = call.send().await;
                assert_eq!(refused.status, 403, "{id}: {refused:?}");
            }
        }
    }
    // None of these requests has used up the ticket.
    let history = daemon.get(&format!("/api/v1/events?ticket={once}")).anonymous().send().await;
    assert_eq!(history.status, 200, "{history:?}");
    let mut sse = daemon.sse(&format!("/api/v1/sse?ticket={again}")).without("authorization").open().await;
    sse.next().await.named("ready");
}

/// A WebSocket opened with a ticket only receives. It may publish once it has sent the credential itself.
#[tokio::test]
async fn a_ticket_does_not_publish_over_a_websocket() {
    let daemon = daemon().await;
    let ann = daemon.user_token("ann").await;
    let once = ticket(&daemon, &ann, false).await;
    let mut ws =
        daemon.ws(&format!("/api/v1/ws?echo=false&ticket={once}")).without("authorization").open().await;
    ws.expect("ready").await;
    let publish = json!({"type": "publish", "ref": 1,
        "event": {"type": "message", "agent_id": "a", "user_id": "ann", "content": "hi"}});
    assert_eq!(ws.ask(&publish).await["code"], "FORBIDDEN");
    let seen = daemon.publish(custom("c", json!(1))).await;
    assert_eq!(ws.next_json().await["id"], seen[0].as_str());
    assert_eq!(ws.ask(&json!({"type": "auth", "token": ann, "ref": 2})).await["type"], "ack");
    assert_eq!(ws.ask(&publish).await["type"], "ack");
}

/// A ticket in a user's name ends with the key that created it, also on open streams.
#[tokio::test]
async fn a_ticket_for_a_user_ends_with_its_creator() {
    let daemon = daemon().await;
    let made = data(&daemon.post("/api/v1/api-keys").json(&json!({"scopes": ["mint"]})).send().await, 201);
    let body = json!({"sub": "zed", "reconnect": true});
    let ticket = daemon.post("/api/v1/tickets").key(&text(&made["api_key"])).json(&body).send().await;
    let path = format!("/api/v1/sse?ticket={}", text(&data(&ticket, 201)["ticket"]));
    let mut sse = daemon.sse(&path).without("authorization").open().await;
    sse.next().await.named("ready");
    let key = format!("/api/v1/api-keys/{}", text(&made["key_id"]));
    assert_eq!(daemon.call("DELETE", &key).send().await.status, 204);
    sse.next().await.named("closing");
    let again = daemon.get(&path.replace("sse?", "events?")).anonymous().send().await;
    again.refused(401, "UNAUTHORIZED");
}

/// One subject's tickets never displace another's. Beyond its limit, its own oldest tickets end.
#[tokio::test]
async fn a_flood_of_tickets_evicts_only_the_callers_tickets() {
    let daemon = daemon().await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let colleagues = ticket(&daemon, &bob, false).await;
    let first = ticket(&daemon, &ann, false).await;
    let second = ticket(&daemon, &ann, false).await;
    for _ in 0..99 {
        ticket(&daemon, &ann, false).await;
    }
    for (ticket, status) in [(&colleagues, 200), (&first, 401), (&second, 200)] {
        let reply = daemon.get(&format!("/api/v1/events?ticket={ticket}")).anonymous().send().await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

/// `auth` with a credential that may not subscribe ends every kind of subscription. A publish-only connection
/// continues.
#[tokio::test]
async fn a_subscription_does_not_survive_the_right_to_it() {
    let daemon = daemon().await;
    let auth = |token: &str| json!({"type": "auth", "token": token, "ref": 1});
    let token = async |scopes: Value| daemon.mint_token(&daemon.key, "ann", json!({"scopes": scopes})).await;
    let key = async |scopes: Value| daemon.create_key(json!({"scopes": scopes})).await;
    let (reader, reading_key) = (token(json!(["subscribe"])).await, key(json!(["subscribe"])).await);
    for (own, other) in [
        (&reader, token(json!([])).await),
        (&reader, token(json!(["publish"])).await),
        (&reader, key(json!(["subscribe"])).await),
        (&reading_key, key(json!(["publish"])).await),
        (&reading_key, reader.clone()),
    ] {
        let mut ws = daemon.ws("/api/v1/ws").key(own).open().await;
        ws.expect("ready").await;
        ws.send(&auth(&other)).await;
        assert_eq!(ws.closed().await.0, 4403);
    }
    let both = token(json!(["subscribe", "publish"])).await;
    let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(&both).open().await;
    ws.expect("ready").await;
    assert_eq!(ws.ask(&auth(&token(json!(["publish"])).await)).await["type"], "ack");
    let refused = ws.ask(&json!({"type": "subscribe", "ref": 2})).await;
    assert_eq!(refused["code"], "FORBIDDEN", "{refused}");
}
