//! Identity of clients: keys of other issuers that change at run time, passwords under attack, and addresses
//! behind proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use common::http::{Call, Reply};
use common::{Daemon, until, within};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

const EVENTS: &str = "/api/v1/events";
/// "Within a second" (protocol §4), with a margin for a machine that runs other tests as well.
const SOON: Duration = Duration::from_secs(3);

/// A token issuer outside of the daemon.
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

    /// A token of user `ann` in the organization `default`, valid for an hour. `with` changes claims; `null`
    /// removes one.
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

/// Each token must meet the demands of its key entry, and no token is valid longer than
/// `auth.max_token_seconds`.
#[tokio::test]
async fn issuer_audience_and_longest_lifetime_are_enforced() {
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

    // Connections end with their token: this one is valid "for ever", but has a second left.
    let short = issuer.token("k", json!({"iss": iss, "aud": "chat", "exp": year_9999, "iat": now - 597}));
    let mut ws = daemon.ws("/api/v1/ws").key(&short).open().await;
    ws.expect("ready").await;
    assert_eq!(ws.closed().await.0, 4401);
}

/// When a key is removed, or replaced under the same `kid`, its sessions end, tickets included. A broken file
/// changes nothing.
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

    // A broken file changes nothing, and the log names the file.
    std::fs::write(&pem, "not a key").unwrap();
    daemon.signal(Signal::HUP);
    until("the complaint", async || {
        let log = daemon.log();
        (log.contains("auth.jwt_keys not reloaded") && log.contains("key.pem")).then_some(())
    })
    .await;
    for token in [&by_pem, &by_gone, &by_other] {
        assert_eq!(daemon.get(EVENTS).key(token).send().await.status, 200);
    }
    // The same holds for a broken configuration.
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

const PASSWORD: &str = "correct horse battery";
const OWNER: &str = "192.0.2.1";

async fn register(daemon: &Daemon, email: &str) {
    let body = json!({"email": email, "password": PASSWORD, "name": "Somebody"});
    let made = daemon.post("/api/v1/users/register").json(&body).send().await;
    assert_eq!(made.status, 201, "{made:?}");
}

/// Sends a login of a client at `address` through a proxy, whose role the test plays.
async fn login(daemon: &Daemon, address: &str, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password, "organization_id": "default"});
    let call = daemon.post("/api/v1/users/login").anonymous().header("x-forwarded-for", address);
    call.json(&body).send().await
}

#[track_caller]
fn retry_after(reply: &Reply) -> u64 {
    reply.refused(429, "QUOTA_EXCEEDED");
    reply.header("retry-after").unwrap().parse().unwrap()
}

/// Ten wrong passwords for an account block the address that sent them, and no other.
#[tokio::test]
async fn wrong_passwords_lock_no_account_for_its_owner() {
    let daemon = Daemon::with().env("TRUSTED_PROXIES", "127.0.0.1").start().await;
    register(&daemon, "ann@example.org").await;
    register(&daemon, "bob@example.org").await;
    let attacker = "2001:db8:0:1::1";
    let mut over = Vec::new();
    for email in ["ann@example.org", "nobody@example.org"] {
        for _ in 0..10 {
            login(&daemon, attacker, email, "a guess").await.refused(401, "UNAUTHORIZED");
        }
        let reply = login(&daemon, "2001:db8:0:1:ffff::2", email, PASSWORD).await;
        assert!((600..=900).contains(&retry_after(&reply)), "the same /64 {reply:?}");
        over.push(reply.json()["message"].clone());
    }
    assert_eq!(over[0], over[1], "whether there is such an account is not said");
    assert_eq!(login(&daemon, OWNER, "ann@example.org", PASSWORD).await.status, 200);
    assert_eq!(login(&daemon, "2001:db8:0:2::1", "ann@example.org", PASSWORD).await.status, 200);
    assert_eq!(login(&daemon, attacker, "bob@example.org", PASSWORD).await.status, 200);
}

/// For an address over its limit no password is verified, not even a right one, but its tokens and keys still
/// work.
#[tokio::test]
async fn an_address_past_its_limit_gets_no_password_verified() {
    let daemon =
        Daemon::with().env("TRUSTED_PROXIES", "127.0.0.1").env("AUTH__FAILURES_PER_MINUTE", 5).start().await;
    register(&daemon, "ann@example.org").await;
    let attacker = "198.51.100.7";
    for n in 0..5 {
        let email = format!("user{n}@example.org");
        login(&daemon, attacker, &email, "a guess").await.refused(401, "UNAUTHORIZED");
    }
    for address in [attacker, "::ffff:198.51.100.7", "[::ffff:198.51.100.7]:4711"] {
        let reply = login(&daemon, address, "ann@example.org", PASSWORD).await;
        assert!((1..=60).contains(&retry_after(&reply)), "{address} {reply:?}");
    }
    let key = daemon.get(EVENTS).header("x-forwarded-for", attacker).send().await;
    assert_eq!(key.status, 200, "valid keys and tokens always pass");
    assert_eq!(login(&daemon, OWNER, "ann@example.org", PASSWORD).await.status, 200);

    // Invalid keys are counted by client as well.
    let wrong = async |address: &str| {
        let call = daemon.get(EVENTS).key("nwk_wrong_wrong").header("x-forwarded-for", address);
        call.send().await.status.as_u16()
    };
    for expected in [401, 401, 401, 401, 401, 429] {
        assert_eq!(wrong(attacker).await, expected);
    }
    assert_eq!(wrong(OWNER).await, 401);
}

/// Four addresses send more guesses than may wait. A login from a fifth address still succeeds.
#[tokio::test]
async fn a_flood_of_guesses_does_not_block_logins() {
    let daemon =
        Daemon::with().env("TRUSTED_PROXIES", "127.0.0.1").env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    register(&daemon, "ann@example.org").await;
    let flood =
        futures_util::future::join_all((0..120).map(|n| {
            let (daemon, address) = (&daemon, format!("198.51.100.{}", n % 4));
            async move {
                login(daemon, &address, &format!("user{n}@example.org"), "a guess").await.status.as_u16()
            }
        }));
    let owner = async {
        for _ in 0..3 {
            let reply = login(&daemon, OWNER, "ann@example.org", PASSWORD).await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    };
    let (statuses, ()) = tokio::join!(flood, owner);
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
}

/// The addresses of the connections that the daemon lists.
async fn peers(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.get("/api/v1/connections").send().await.json();
    let peers = listed["data"].as_array().unwrap().iter();
    let mut peers: Vec<_> = peers.map(|it| it["peer"].as_str().unwrap_or("unix").to_owned()).collect();
    peers.sort();
    peers
}

/// A PROXY header of version 2 for an IPv4 client, with an extra field after its addresses.
fn proxy_v2(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend_from_slice(&client);
    header.extend_from_slice(&[10, 0, 0, 1, 0x12, 0x67, 0, 80]);
    header.extend_from_slice(&[4, 0, 1, 0xff]);
    header
}

async fn connected(daemon: &Daemon, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    within("the end of the connection", stream.read_to_string(&mut text)).await.unwrap();
    text
}

/// Behind a trusted proxy, connections are listed and limited by the addresses of their clients.
#[tokio::test]
async fn a_trusted_proxy_names_its_clients() {
    let daemon = Daemon::with()
        .env("TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8")
        .env("LIMITS__CONNECTIONS_PER_ADDRESS", 2)
        .env("LIMITS__CONNECTIONS_PER_USER", 0)
        .start()
        .await;
    let through = |name: &str, value: &str| daemon.ws("/api/v1/ws").header(name, value);
    let mut open = vec![
        through("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.0.0.1").open().await,
        through("forwarded", "for=\"[2001:db8::1]:4711\";proto=https").open().await,
        daemon.ws("/api/v1/ws").ask_on(connected(&daemon, &proxy_v2([192, 0, 2, 1])).await).await.unwrap(),
    ];
    for ws in &mut open {
        ws.expect("ready").await;
    }
    assert_eq!(peers(&daemon).await, ["192.0.2.1", "192.0.2.1", "2001:db8::1"]);
    through("x-forwarded-for", "192.0.2.1").refused().await.refused(429, "QUOTA_EXCEEDED");
    let mut sse = daemon.sse("/api/v1/sse").header("x-forwarded-for", "192.0.2.2").open().await;
    sse.next().await.named("ready");
    // A client may send the header that its proxy does not set. It then counts for the proxy's address and
    // does not escape the limit.
    for expected in [true, true, false] {
        let both = through("x-forwarded-for", "192.0.2.1").header("forwarded", "for=203.0.113.9").ask().await;
        assert_eq!(both.is_ok(), expected);
        open.extend(both.ok());
    }
    assert!(peers(&daemon).await.contains(&"127.0.0.1".to_owned()));
}

/// From an untrusted peer the same bytes name no client.
#[tokio::test]
async fn an_untrusted_peers_forwarding_header_is_ignored() {
    let daemon = Daemon::with().env("TRUSTED_PROXIES", "10.0.0.0/8").start().await;
    let ws =
        daemon.ws("/api/v1/ws").header("x-forwarded-for", "192.0.2.1").header("forwarded", "for=192.0.2.1");
    let mut ws = ws.open().await;
    ws.expect("ready").await;
    assert_eq!(peers(&daemon).await, ["127.0.0.1"]);
    until("the hint", async || daemon.log().contains("not in trusted_proxies").then_some(())).await;
    let mut stream = connected(&daemon, &proxy_v2([192, 0, 2, 1])).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.1 400 "));
}

/// A PROXY header may arrive in parts, but only for a limited time. A broken one is a bad request; one
/// without an address names no client.
#[tokio::test]
async fn proxy_headers_are_bounded() {
    let daemon =
        Daemon::with().env("TRUSTED_PROXIES", "127.0.0.1").env("HEADER_TIMEOUT_MS", 500).start().await;
    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let header = proxy_v2([192, 0, 2, 1]);
    let local = [&header[..12], b"\x20\0\0\0"].concat();
    let mut broken = header.clone();
    broken[12] = 0x41;
    let mut long = header.clone();
    (long[14], long[15]) = (0xff, 0xff);
    for (first, status) in [(&header, "200"), (&local, "200"), (&broken, "400"), (&long, "400")] {
        let answer = rest(connected(&daemon, &[first.as_slice(), REQUEST].concat()).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{first:?}: {answer}");
    }
    let mut stream = connected(&daemon, &header[..13]).await;
    for byte in header[13..].iter().chain(REQUEST) {
        stream.write_all(&[*byte]).await.unwrap();
    }
    assert!(rest(stream).await.starts_with("HTTP/1.1 200 "));
    for end in [1, 13, 20] {
        let since = Instant::now();
        assert_eq!(rest(connected(&daemon, &header[..end]).await).await, "", "closed");
        assert!(since.elapsed() >= Duration::from_millis(450), "{:?}", since.elapsed());
    }
}

/// Clients of a unix socket have no address, unless its peer is trusted to name them.
#[tokio::test]
async fn clients_behind_a_unix_socket_have_their_forwarded_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let daemon = Daemon::with()
        .env("TRUSTED_PROXIES", "unix")
        .flags(&["--listen", &format!("unix:{}", path.display())])
        .start()
        .await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "GET /api/v1/sse HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nx-forwarded-for: 192.0.2.9\r\n\r\n",
        daemon.key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    within("ready", async {
        while !String::from_utf8_lossy(&seen).contains("event: ready") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
    })
    .await;
    assert_eq!(peers(&daemon).await, ["192.0.2.9"]);
    let health = Call::new(daemon.addr(), "GET", "/health").send().await;
    assert_eq!(health.status, 200);
}
