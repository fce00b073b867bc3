//! Users over REST (protocol §9): registration by a manager, login with email and password, their rights, and
//! the end of both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::Reply;
use common::rest::data;
use common::{Daemon, custom, is_timestamp, until};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

async fn register(daemon: &Daemon, key: &str, email: &str, role: &str) -> Value {
    let body = json!({"email": email, "password": PASSWORD, "name": "Somebody", "role": role});
    data(&daemon.post("/api/v1/users/register").key(key).json(&body).send().await, 201)
}

fn id(user: &Value) -> String {
    user["id"].as_str().unwrap().to_owned()
}

async fn try_login(daemon: &Daemon, organization: &str, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password, "organization_id": organization});
    daemon.post("/api/v1/users/login").anonymous().json(&body).send().await
}

async fn login(daemon: &Daemon, organization: &str, email: &str) -> String {
    let reply = try_login(daemon, organization, email, PASSWORD).await;
    data(&reply, 200)["token"].as_str().unwrap().to_owned()
}

/// The body of a refusal, without its time.
#[track_caller]
fn refusal(reply: &Reply, status: u16, code: &str) -> Value {
    let mut body = reply.refused(status, code);
    body["timestamp"] = Value::Null;
    body
}

#[tokio::test]
async fn a_registered_user_logs_in_and_subscribes() {
    let daemon = Daemon::start().await;
    let asked =
        json!({"email": "Ann@Example.ORG", "password": PASSWORD, "name": "Ann", "timezone": "Europe/Vienna"});
    let call = daemon.post("/api/v1/users/register").json(&asked);
    let reply = call.clone().header("idempotency-key", "k1").send().await;
    let ann = data(&reply, 201);
    assert!(id(&ann).starts_with("user-"), "{ann}");
    assert_eq!(
        (
            &ann["email"],
            &ann["name"],
            &ann["timezone"],
            &ann["role"],
            &ann["disabled"],
            &ann["organization_id"]
        ),
        (
            &json!("ann@example.org"),
            &json!("Ann"),
            &json!("Europe/Vienna"),
            &json!("user"),
            &json!(false),
            &json!("default")
        )
    );
    assert!(is_timestamp(ann["created_at"].as_str().unwrap()));
    assert_eq!(reply.header("etag"), Some("\"1\""));
    assert_eq!(ann.as_object().unwrap().len(), 9, "nothing besides: {ann}");

    // A repeat gets the stored response. Another password with the same key is another request. The email is
    // taken.
    let again = call.clone().header("idempotency-key", "k1").send().await;
    assert_eq!((data(&again, 201), again.header("idempotent-replayed")), (ann.clone(), Some("true")));
    assert_eq!(again.header("etag"), Some("\"1\""));
    let mut other = asked.clone();
    other["password"] = "another password".into();
    let other = daemon.post("/api/v1/users/register").json(&other);
    other.header("idempotency-key", "k1").send().await.refused(409, "CONFLICT");
    call.send().await.refused(409, "CONFLICT");

    let reply = try_login(&daemon, "default", "ann@example.org", PASSWORD).await;
    let entered = data(&reply, 200);
    assert_eq!((&entered["user"], reply.header("cache-control")), (&ann, Some("no-store")));
    for field in ["token", "user", "expires_at"] {
        assert_eq!(reply.json()[field], entered[field], "AgentMem's clients read it beside the envelope");
    }
    let token = entered["token"].as_str().unwrap();
    let mut sse = daemon.sse("/api/v1/sse").key(token).open().await;
    assert_eq!(sse.next().await.name.as_deref(), Some("ready"));
    for user in ["user-somebody", &id(&ann)] {
        daemon.publish(json!({"type": "message", "agent_id": "a", "user_id": user, "content": user})).await;
    }
    assert_eq!(sse.next_event().await["user_id"], ann["id"], "theirs, and no other's");
    daemon.publish_as(token, custom("c", json!(1))).await;
    assert_eq!(sse.next_event().await["user_id"], ann["id"]);

    for secret in [PASSWORD, "another password", token, "argon2"] {
        assert!(!daemon.log().contains(secret), "logged: {secret}");
    }
}

#[tokio::test]
async fn invalid_users_are_refused_by_field() {
    let daemon = Daemon::start().await;
    for (change, field) in [
        (json!({"email": "ann"}), "email"),
        (json!({"password": "seven77"}), "password"),
        (json!({"password": "x".repeat(1_025)}), "password"),
        (json!({"name": "A"}), "name"),
        (json!({"timezone": " "}), "timezone"),
        (json!({"role": "root"}), "role"),
        (json!({"shoe_size": 42}), "shoe_size"),
        (json!({"password": 3_141_592_653_u64}), "password"),
    ] {
        let mut body = json!({"email": "ann@example.org", "password": PASSWORD, "name": "Ann"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = daemon.post("/api/v1/users/register").json(&body).send().await;
        let refused = refusal(&reply, 400, "VALIDATION_ERROR");
        assert_eq!(refused["details"]["field"], field, "{change}: {refused}");
        assert!(!reply.text().contains("3141592653"), "a password comes back: {reply:?}");
    }
    let long = json!({"email": "a@b", "password": "x".repeat(9_000), "organization_id": "default"});
    let reply = daemon.post("/api/v1/users/login").anonymous().json(&long).send().await;
    reply.refused(413, "PAYLOAD_TOO_LARGE");
    assert!(daemon.get("/api/v1/users").send().await.json()["data"].as_array().unwrap().is_empty());
}

/// A refused login reveals nothing in its response.
#[tokio::test]
async fn every_refused_login_gets_the_same_response() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    register(&daemon, &daemon.key, "ann@example.org", "user").await;
    let bob = register(&daemon, &daemon.key, "bob@example.org", "user").await;
    let disable = format!("/api/v1/users/{}/disabled", id(&bob));
    data(&daemon.call("PUT", &disable).json(&json!({"disabled": true})).send().await, 200);
    let mut refusals = Vec::new();
    for (organization, email, password) in [
        ("default", "ann@example.org", "wrong password"),
        ("default", "ann@example.org", ""),
        ("default", "nobody@example.org", PASSWORD),
        ("default", "", PASSWORD),
        ("default", "bob@example.org", PASSWORD),
        ("acme", "ann@example.org", PASSWORD),
        ("nowhere", "ann@example.org", PASSWORD),
        ("", "ann@example.org", PASSWORD),
    ] {
        let reply = try_login(&daemon, organization, email, password).await;
        assert!(reply.header("www-authenticate").is_some());
        let mut headers: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        refusals.push((refusal(&reply, 401, "UNAUTHORIZED").to_string(), headers));
    }
    assert!(refusals.windows(2).all(|two| two[0] == two[1]), "{refusals:#?}");

    // The same email in two organizations belongs to two users.
    let body = json!({"email": "ann@example.org", "password": "another password", "name": "Another"});
    let other = data(&daemon.post("/api/v1/users/register").key(&acme).json(&body).send().await, 201);
    let entered = data(&try_login(&daemon, "acme", "ann@example.org", "another password").await, 200);
    assert_eq!(entered["user"], other);
    refusal(&try_login(&daemon, "default", "ann@example.org", "another password").await, 401, "UNAUTHORIZED");
    let unseen = daemon.get(&format!("/api/v1/users/{}", id(&bob))).key(&acme).send().await;
    unseen.refused(404, "NOT_FOUND");

    data(&daemon.call("PUT", &disable).json(&json!({"disabled": false})).send().await, 200);
    login(&daemon, "default", "bob@example.org").await;
}

/// Guesses are counted per account, whether or not the account exists, with the same response.
#[tokio::test]
async fn guesses_are_limited_by_account() {
    let daemon = Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    register(&daemon, &daemon.key, "ann@example.org", "user").await;
    register(&daemon, &daemon.key, "bob@example.org", "user").await;
    let mut over = Vec::new();
    for email in ["ann@example.org", "nobody@example.org"] {
        for _ in 0..10 {
            refusal(&try_login(&daemon, "default", email, "a guess").await, 401, "UNAUTHORIZED");
        }
        let reply = try_login(&daemon, "default", email, PASSWORD).await;
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((600..=900).contains(&seconds), "{seconds}");
        over.push(refusal(&reply, 429, "QUOTA_EXCEEDED"));
    }
    assert_eq!(over[0], over[1]);
    refusal(&try_login(&daemon, "default", "ANN@example.org", PASSWORD).await, 429, "QUOTA_EXCEEDED");
    login(&daemon, "default", "bob@example.org").await;
}

/// A manager who registers many users at once gets a refusal with a time to wait. Logins still succeed
/// meanwhile.
#[tokio::test]
async fn many_registrations_do_not_block_logins() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    register(&daemon, &daemon.key, "ann@example.org", "user").await;
    let registers = futures_util::future::join_all((0..70).map(|n| {
        let body = json!({"email": format!("user{n}@x"), "password": PASSWORD, "name": "Somebody"});
        daemon.post("/api/v1/users/register").key(&acme).json(&body).send()
    }));
    let logins = futures_util::future::join_all((0..8).map(|_| login(&daemon, "default", "ann@example.org")));
    let (registers, _) = tokio::join!(registers, logins);
    let (made, refused): (Vec<_>, Vec<_>) = registers.into_iter().partition(|reply| reply.status == 201);
    assert!(made.len() >= 4, "{}", made.len());
    for reply in &refused {
        refusal(reply, 429, "QUOTA_EXCEEDED");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    register(&daemon, &acme, "late@x", "user").await;
}

#[tokio::test]
async fn a_new_password_ends_earlier_sessions() {
    let mut daemon = Daemon::start().await;
    let ann = register(&daemon, &daemon.key, "ann@example.org", "viewer").await;
    register(&daemon, &daemon.key, "bob@example.org", "user").await;
    let (old, bobs) = (
        login(&daemon, "default", "ann@example.org").await,
        login(&daemon, "default", "bob@example.org").await,
    );
    let mut ws = daemon.ws("/api/v1/ws").key(&old).open().await;
    ws.expect("ready").await;
    let mut sse = daemon.sse("/api/v1/sse").key(&old).open().await;
    assert_eq!(sse.next().await.name.as_deref(), Some("ready"));
    let mut others = daemon.ws("/api/v1/ws").key(&bobs).open().await;
    others.expect("ready").await;
    let ticket = daemon.post("/api/v1/tickets").key(&old).json(&json!({"reconnect": true})).send().await;
    let ticket = data(&ticket, 201)["ticket"].as_str().unwrap().to_owned();

    let change = |current: &str, new: &str| {
        daemon
            .call("PUT", "/api/v1/users/me/password")
            .json(&json!({"current_password": current, "new_password": new}))
    };
    change("a guess", "another password").key(&old).send().await.refused(403, "FORBIDDEN");
    change(PASSWORD, "short").key(&old).send().await.refused(400, "VALIDATION_ERROR");
    change(PASSWORD, "another password").send().await.refused(404, "NOT_FOUND"); // an API key is not a user
    let changed = data(&change(PASSWORD, "another password").key(&old).send().await, 200);
    let new = changed["token"].as_str().unwrap().to_owned();
    assert_eq!(changed["user"]["id"], ann["id"]);

    assert_eq!(ws.closed().await.0, 4403);
    assert_eq!(sse.next().await.name.as_deref(), Some("closing"));
    for life in 0..2 {
        daemon.get("/api/v1/users/me").key(&old).send().await.refused(401, "UNAUTHORIZED");
        let by_ticket = daemon.get(&format!("/api/v1/events?ticket={ticket}")).anonymous().send().await;
        by_ticket.refused(401, "UNAUTHORIZED");
        assert_eq!(data(&daemon.get("/api/v1/users/me").key(&new).send().await, 200)["id"], ann["id"]);
        refusal(&try_login(&daemon, "default", "ann@example.org", PASSWORD).await, 401, "UNAUTHORIZED");
        data(&try_login(&daemon, "default", "ann@example.org", "another password").await, 200);
        data(&daemon.get("/api/v1/users/me").key(&bobs).send().await, 200);
        if life == 0 {
            let pong = others.ask(&json!({"type": "ping"})).await;
            assert_eq!(pong["type"], "pong", "another user's connection goes on");
            daemon.restart().await;
        }
    }
}

/// A login with the old password during the change is either refused or gets a token that ends: no token
/// survives.
#[tokio::test]
async fn no_token_of_the_old_password_survives_its_change() {
    let daemon = Daemon::start().await;
    register(&daemon, &daemon.key, "ann@x", "user").await;
    let (mut old, mut new) = (PASSWORD.to_owned(), "password number 0".to_owned());
    for round in 1..=5 {
        let reply = try_login(&daemon, "default", "ann@x", &old).await;
        let token = data(&reply, 200)["token"].as_str().unwrap().to_owned();
        let body = json!({"current_password": old, "new_password": new});
        let change = daemon.call("PUT", "/api/v1/users/me/password").key(&token).json(&body).send();
        let logins =
            futures_util::future::join_all((0..8).map(|_| try_login(&daemon, "default", "ann@x", &old)));
        let (changed, logins) = tokio::join!(change, logins);
        let fresh = data(&changed, 200)["token"].as_str().unwrap().to_owned();
        for reply in logins {
            match reply.status.as_u16() {
                200 => {
                    let token = data(&reply, 200)["token"].as_str().unwrap().to_owned();
                    daemon.get("/api/v1/users/me").key(&token).send().await.refused(401, "UNAUTHORIZED");
                }
                _ => drop(refusal(&reply, 401, "UNAUTHORIZED")),
            }
        }
        data(&daemon.get("/api/v1/users/me").key(&fresh).send().await, 200);
        old = std::mem::replace(&mut new, format!("password number {round}"));
    }
}

#[tokio::test]
async fn roles_decide_what_users_may_do() {
    let daemon = Daemon::start().await;
    for (email, role) in [("ada@x", "admin"), ("ann@x", "user"), ("vic@x", "readonly")] {
        register(&daemon, &daemon.key, email, role).await;
    }
    let (ada, ann, vic) = (
        login(&daemon, "default", "ada@x").await,
        login(&daemon, "default", "ann@x").await,
        login(&daemon, "default", "vic@x").await,
    );
    let tool = json!({"name": "hammer"});
    let member = json!({"email": "new@x", "password": PASSWORD, "name": "New"});
    for (who, write, manage) in [(&ada, 201, 201), (&ann, 201, 403), (&vic, 403, 403)] {
        for path in ["/api/v1/agents", "/api/v1/messages", "/api/v1/tools", "/api/v1/users/me"] {
            assert_eq!(daemon.get(path).key(who).send().await.status, 200, "{path}");
        }
        let made = daemon.post("/api/v1/tools").key(who).json(&tool).send().await;
        assert_eq!(made.status, write, "{made:?}");
        let me =
            daemon.call("PUT", "/api/v1/users/me").key(who).json(&json!({"timezone": "UTC"})).send().await;
        assert_eq!(me.status, if write == 201 { 200 } else { 403 }, "{me:?}");
        let made = daemon.post("/api/v1/users/register").key(who).json(&member).send().await;
        assert_eq!(made.status, manage, "{made:?}");
        for path in ["/api/v1/users", "/api/v1/organizations/default/members"] {
            assert_eq!(daemon.get(path).key(who).send().await.status, if manage == 201 { 200 } else { 403 });
        }
    }

    // Nobody can grant or remove more than they have; a narrowed credential can grant nothing.
    let keeper = daemon.create_key(json!({"scopes": ["manage", "subscribe"]})).await;
    let narrow = daemon.create_key(json!({"scopes": ["*"], "agents": ["a"]})).await;
    for (key, role, status) in
        [(&keeper, "admin", 403), (&keeper, "user", 403), (&keeper, "viewer", 201), (&narrow, "viewer", 403)]
    {
        let body = json!({"email": format!("{role}@y"), "password": PASSWORD, "name": "Some", "role": role});
        let made = daemon.post("/api/v1/users/register").key(key).json(&body).send().await;
        assert_eq!(made.status, status, "{role}: {made:?}");
    }
    let me = data(&daemon.get("/api/v1/users/me").key(&ada).send().await, 200);
    let path = format!("/api/v1/organizations/default/members/{}", id(&me));
    let lower = daemon.call("PUT", &path).key(&keeper).json(&json!({"role": "viewer"})).send().await;
    lower.refused(403, "FORBIDDEN");
}

/// A principal without the right to see everything cannot make everything visible, neither to others nor to
/// itself.
#[tokio::test]
async fn changing_the_visibility_needs_read_all() {
    let daemon = Daemon::start().await;
    let keeper = daemon.create_key(json!({"scopes": ["manage", "subscribe"]})).await;
    let narrow = daemon.create_key(json!({"scopes": ["*"], "types": ["message"]})).await;
    for method in ["PUT", "PATCH"] {
        let change = |key: &str, body: Value| {
            daemon.call(method, "/api/v1/organizations/default").key(key).json(&body).send()
        };
        let refused = change(&keeper, json!({"visibility": "org"})).await;
        assert!(refused.refused(403, "FORBIDDEN")["message"].as_str().unwrap().contains("read:all"));
        for body in [json!({"name": "x"}), json!({"visibility": "org"}), json!({"presence": true})] {
            let refused = change(&narrow, body).await;
            assert!(refused.refused(403, "FORBIDDEN")["message"].as_str().unwrap().contains("narrowed"));
        }
        let same = data(&change(&keeper, json!({"visibility": "private", "name": method})).await, 200);
        assert_eq!((&same["visibility"], &same["name"]), (&json!("private"), &json!(method)));
        for visibility in ["org", "private"] {
            let changed = data(&change(&daemon.key, json!({"visibility": visibility})).await, 200);
            assert_eq!(changed["visibility"], visibility);
        }
    }
}

#[tokio::test]
async fn an_organization_is_changed_only_in_the_version_that_was_read() {
    let mut daemon = Daemon::start().await;
    let make = |daemon: &Daemon| {
        let call = daemon.post("/api/v1/organizations").json(&json!({"id": "acme"}));
        call.header("idempotency-key", "acme")
    };
    let made = make(&daemon).send().await;
    data(&made, 201);
    let tag = |reply: &Reply| reply.header("etag").expect("an ETag").to_owned();
    let first = tag(&made);
    daemon.restart().await;
    let at = "/api/v1/organizations/acme";
    let change = |body: Value, tag: &str| daemon.call("PATCH", at).json(&body).header("if-match", tag).send();
    assert_eq!(tag(&daemon.get(at).send().await), first);
    let refused = change(json!({"name": "x"}), "\"1\"").await.refused(412, "CONFLICT");
    assert_eq!(format!("\"{}\"", refused["details"]["version"]), first);
    change(json!({"name": "x"}), "x").await.refused(400, "BAD_REQUEST");

    // Of many concurrent changes, only one has the version that they read.
    let names: Vec<_> = (0..8).map(|n| json!({"name": format!("name {n}")})).collect();
    let all = futures_util::future::join_all(names.iter().map(|body| change(body.clone(), &first))).await;
    assert_eq!(all.iter().filter(|reply| reply.status == 200).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|reply| reply.status == 412).count(), 7, "{all:?}");
    let mut seen = vec![first, tag(&daemon.get(at).send().await)];
    for body in [json!({"visibility": "org"}), json!({"presence": true})] {
        let changed = change(body, &seen[seen.len() - 1]).await;
        data(&changed, 200);
        assert!(!seen.contains(&tag(&changed)), "{changed:?}");
        seen.push(tag(&changed));
    }
    assert_eq!(change(json!({"presence": false}), "*").await.status, 200);

    // A repeat returns the created state, and its version cannot change anything newer.
    let again = make(&daemon).send().await;
    assert_eq!((data(&again, 201), tag(&again)), (data(&made, 201), tag(&made)));
    change(json!({"name": "y"}), &tag(&again)).await.refused(412, "CONFLICT");
}

/// A ticket is a secret: a repeat gets the fact that it was created, but not the ticket.
#[tokio::test]
async fn a_ticket_is_created_once_per_idempotency_key() {
    let mut daemon = Daemon::start().await;
    for reconnect in [false, true] {
        let make = |daemon: &Daemon, reconnect: bool| {
            let call = daemon.post("/api/v1/tickets").json(&json!({"reconnect": reconnect}));
            call.header("idempotency-key", if reconnect { "r" } else { "o" }).send()
        };
        let made = data(&make(&daemon, reconnect).await, 201);
        let ticket = made["ticket"].as_str().unwrap();
        for _ in 0..2 {
            let again = make(&daemon, reconnect).await;
            let refused = refusal(&again, 409, "CONFLICT");
            assert!(refused["details"].is_null() && !again.text().contains(ticket), "{refused}");
            daemon.restart().await;
        }
    }
    let first = daemon.post("/api/v1/tickets").header("idempotency-key", "o");
    refusal(&first.json(&json!({"reconnect": true})).send().await, 409, "CONFLICT");
}

#[tokio::test]
async fn members_are_added_changed_and_removed() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let members = "/api/v1/organizations/acme/members";
    let mut made = Vec::new();
    for n in 0..7 {
        let body = json!({"email": format!("u{n}@x"), "password": PASSWORD, "name": format!("User {n}")});
        made.push(data(&daemon.post(members).key(&acme).json(&body).send().await, 201));
    }
    assert!(made.iter().all(|user| user["organization_id"] == "acme"));

    // As the operator and as a manager, by members and by users, page by page.
    for (path, key) in [
        (format!("{members}?limit=3"), &acme),
        (format!("{members}?limit=3"), &daemon.key),
        ("/api/v1/users?limit=3".to_owned(), &acme),
        ("/api/v1/users?limit=3&org_id=acme".to_owned(), &daemon.key),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = daemon.get(&format!("{path}&cursor={cursor}&order=asc")).key(key).send().await;
            let rows = data(&page, 200).as_array().unwrap().clone();
            assert!(rows.len() <= 3);
            found.extend(rows);
            match page.json()["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(found, made, "{path}");
    }
    let globex = daemon.create_org("globex").await;
    daemon.get(members).key(&globex).send().await.refused(404, "NOT_FOUND");
    daemon.get("/api/v1/users?org_id=acme").key(&globex).send().await.refused(404, "NOT_FOUND");

    // After a change of role, older tokens end and new ones have the new role.
    let path = format!("{members}/{}", id(&made[0]));
    let token = login(&daemon, "acme", "u0@x").await;
    let mut ws = daemon.ws("/api/v1/ws").key(&token).open().await;
    ws.expect("ready").await;
    let role = |role: &str| daemon.call("PUT", &path).key(&acme).json(&json!({"role": role}));
    role("admin").header("if-match", "\"7\"").send().await.refused(412, "CONFLICT");
    role("admin").key(&globex).send().await.refused(404, "NOT_FOUND");
    let changed = role("admin").header("if-match", "\"1\"").send().await;
    assert_eq!(
        (data(&changed, 200)["role"].clone(), changed.header("etag")),
        (json!("admin"), Some("\"2\""))
    );
    assert_eq!(ws.closed().await.0, 4403);
    daemon.get("/api/v1/agents").key(&token).send().await.refused(401, "UNAUTHORIZED");
    let token = login(&daemon, "acme", "u0@x").await;
    assert_eq!(daemon.get(members).key(&token).send().await.status, 200);

    assert_eq!(daemon.call("DELETE", &path).key(&globex).send().await.status, 404);
    assert_eq!(daemon.call("DELETE", &path).key(&acme).send().await.status, 204);
    for gone in
        [daemon.call("DELETE", &path), role("user"), daemon.get(&format!("/api/v1/users/{}", id(&made[0])))]
    {
        gone.key(&acme).send().await.refused(404, "NOT_FOUND");
    }
    daemon.get("/api/v1/agents").key(&token).send().await.refused(401, "UNAUTHORIZED");
    refusal(&try_login(&daemon, "acme", "u0@x", PASSWORD).await, 401, "UNAUTHORIZED");
    assert_eq!(data(&daemon.get(members).key(&acme).send().await, 200).as_array().unwrap().len(), 6);
    let again = json!({"email": "u0@x", "password": PASSWORD, "name": "Somebody else"});
    let again = data(&daemon.post(members).key(&acme).json(&again).send().await, 201);
    assert_ne!(again["id"], made[0]["id"], "the email is free, the id is not given again");
}

/// The data of a deleted user is erased soon, even if the daemon was killed before it began. Data of others
/// stays.
#[tokio::test]
async fn the_data_of_a_deleted_user_is_erased() {
    let mut daemon = Daemon::start().await;
    let ann = register(&daemon, &daemon.key, "ann@x", "user").await;
    let agent = data(&daemon.post("/api/v1/agents").json(&json!({"name": "a"})).send().await, 201);
    let agent = agent["id"].as_str().unwrap();
    for n in 0..150 {
        let user = if n % 10 == 0 { "user-other".to_owned() } else { id(&ann) };
        let body = json!({"agent_id": agent, "user_id": user, "content": "x"});
        data(&daemon.post("/api/v1/messages").json(&body).send().await, 201);
    }
    for user in ["user-other", &id(&ann)] {
        let path = format!("/api/v1/agents/{agent}/core-memory/human?user_id={user}");
        data(&daemon.call("PUT", &path).json(&json!({"value": "x"})).send().await, 201);
        let memory = json!({"user_id": user, "content": "drinks tea"});
        data(&daemon.post("/api/v1/memories").json(&memory).send().await, 201);
    }
    let user = format!("/api/v1/users/{}", id(&ann));
    let events = async |daemon: &Daemon, user: &str| {
        let found =
            daemon.get(&format!("/api/v1/events?earliest=true&limit=1000&user_id={user}")).send().await;
        data(&found, 200).as_array().unwrap().len()
    };
    assert_eq!(events(&daemon, &id(&ann)).await, 137);
    assert_eq!(daemon.call("DELETE", &user).send().await.status, 204);
    daemon.restart().await;
    let gone = async || (events(&daemon, &id(&ann)).await == 0).then_some(());
    until("the end of their events", gone).await;
    assert_eq!(events(&daemon, "user-other").await, 17);
    let empty = async |path: String| {
        let rows = data(&daemon.get(&path).send().await, 200);
        rows.as_array().unwrap().is_empty().then_some(())
    };
    until("the end of their messages", || empty(format!("/api/v1/messages?user_id={}", id(&ann)))).await;
    let blocks = format!("/api/v1/agents/{agent}/core-memory?user_id=");
    until("the end of their core memory", || empty(format!("{blocks}{}", id(&ann)))).await;
    until("the end of their memories", || empty(format!("/api/v1/memories?user_id={}", id(&ann)))).await;
    let found = data(&daemon.get("/api/v1/memories/search?query=tea").send().await, 200);
    assert_eq!((&found["total"], &found["results"][0]["user_id"]), (&json!(1), &json!("user-other")));
    let left = daemon.get("/api/v1/messages?limit=100").send().await;
    assert_eq!(data(&left, 200).as_array().unwrap().len(), 15);
    assert_eq!(
        data(&daemon.get(&format!("{blocks}user-other")).send().await, 200).as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn users_read_their_own_profile() {
    let daemon = Daemon::start().await;
    register(&daemon, &daemon.key, "ann@x", "user").await;
    let token = login(&daemon, "default", "ann@x").await;
    let me = || daemon.get("/api/v1/users/me").key(&token);
    let change = |body: Value| daemon.call("PUT", "/api/v1/users/me").key(&token).json(&body);
    let reply = change(json!({"name": "Ann B.", "timezone": "UTC"})).header("if-match", "\"1\"").send().await;
    let changed = data(&reply, 200);
    assert_eq!((&changed["name"], &changed["timezone"]), (&json!("Ann B."), &json!("UTC")));
    assert_eq!(data(&me().send().await, 200), changed, "the token goes on");
    change(json!({"name": "Ann C."})).header("if-match", "\"1\"").send().await.refused(412, "CONFLICT");
    assert_eq!(data(&change(json!({"timezone": null})).send().await, 200)["timezone"], Value::Null);
    for refused in [json!({"role": "admin"}), json!({"email": "x@y"}), json!({"name": "A"})] {
        change(refused).send().await.refused(400, "VALIDATION_ERROR");
    }
    // Neither a key nor an unregistered user has a profile.
    daemon.get("/api/v1/users/me").send().await.refused(404, "NOT_FOUND");
    let stranger = daemon.user_token("stranger").await;
    daemon.get("/api/v1/users/me").key(&stranger).send().await.refused(404, "NOT_FOUND");
}
