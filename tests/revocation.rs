//! A right is checked where it is used: a request that waits does not keep a right that is removed meanwhile
//! (protocol §3).
//!
//! * The operations come from the API document, with its examples as bodies, so a new operation is covered
//!   without a change here.
//! * Each request is sent up to the middle of its body with a valid credential. Then the rights change, and
//!   the rest is sent. The request must be refused and must change nothing.
//! * With `Expect: 100-continue` the daemon signals that it has accepted the credential and waits for the
//!   body.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use common::http::Call;
use common::rest::{agent, data};
use common::{Daemon, until, within};
use futures_util::future::join_all;
use ring::signature::Ed25519KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The password in the document's examples.
const PASSWORD: &str = "correct horse battery";
/// Operations that need a right which only the bootstrap key has. They are refused before a body is read.
const OF_THE_OPERATOR: &[&str] = &["createOrganization"];
/// "Within one second" (protocol §4), with a margin for a machine that runs other tests as well.
const SOON: Duration = Duration::from_secs(5);

/// An operation of the API document.
#[derive(Clone, Debug)]
struct Operation {
    id: String,
    method: String,
    path: String,
    /// The example of its body; `None` if it has no body.
    body: Option<Value>,
}

/// Every operation of the document that needs a credential.
fn operations() -> Vec<Operation> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let body = operation.get("requestBody").map(|body| {
                let example = &body["content"]["application/json"]["example"];
                assert!(!example.is_null(), "{id}: the document has no example of its body");
                example.clone()
            });
            found.push(Operation { id, method: method.to_uppercase(), path: path.clone(), body });
        }
    }
    found
}

/// An organization with one resource of every kind that a path or an example body names.
struct Organization<'a> {
    daemon: &'a Daemon,
    id: String,
    /// A key with all scopes. No change affects it.
    key: String,
    /// The email of an admin who may log in.
    admin: String,
    agent: String,
    memories: [String; 2],
    message: String,
    tool: String,
    /// Another user.
    user: String,
    /// An open stream for each operation on streams with a body, with its producer's token.
    streams: Vec<(&'static str, String)>,
}

/// The operations on a stream that have a body.
const ON_STREAMS: [&str; 4] = ["cancel", "chunks", "fail", "finish"];

impl<'a> Organization<'a> {
    async fn new(daemon: &'a Daemon, id: &str) -> Organization<'a> {
        let key = daemon.create_org(id).await;
        let made = async |path: &str, body: Value| {
            let reply = daemon.post(path).key(&key).json(&body).send().await;
            data(&reply, 201)["id"].as_str().unwrap().to_owned()
        };
        let user = |email: &str, role: &str| json!({"email": email, "name": "Name", "password": PASSWORD, "role": role});
        let admin = made("/api/v1/users/register", user("admin@example.org", "admin")).await;
        let target = made("/api/v1/users/register", user("target@example.org", "user")).await;
        let agent = agent(daemon, &key, "first").await;
        let memory = json!({"content": "window seats", "agent_id": agent});
        let memories =
            [made("/api/v1/memories", memory.clone()).await, made("/api/v1/memories", memory).await];
        let message = made("/api/v1/messages", json!({"content": "hi", "agent_id": agent})).await;
        let tool = made("/api/v1/tools", json!({"name": "hammer"})).await;
        let block = format!("/api/v1/agents/{agent}/core-memory/persona");
        let put = daemon.call("PUT", &block).key(&key).json(&json!({"value": "kind"})).send().await;
        assert_eq!(put.status, 201, "{put:?}");
        let mut streams = Vec::new();
        for operation in ON_STREAMS {
            let body = json!({"request_id": operation, "lease_seconds": 600});
            let opened = data(&daemon.post("/api/v1/streams").key(&key).json(&body).send().await, 201);
            streams.push((operation, opened["producer_token"].as_str().unwrap().to_owned()));
        }
        Organization {
            daemon,
            id: id.into(),
            key,
            admin,
            agent,
            memories,
            message,
            tool,
            user: target,
            streams,
        }
    }

    /// A path whose names are replaced by those of this organization.
    fn path(&self, path: &str) -> String {
        if let Some(operation) = path.strip_prefix("/api/v1/streams/{id}/") {
            return format!("/api/v1/streams/{operation}/{operation}");
        }
        let mut before = "";
        let segments = path.split('/').map(|segment| {
            let value = match (before, segment) {
                ("agents", "{id}") => &self.agent,
                ("memories", "{id}") => &self.memories[0],
                ("messages", "{id}") => &self.message,
                ("tools", "{id}") => &self.tool,
                ("organizations", "{id}") => &self.id,
                ("members" | "users", "{sub}") => &self.user,
                ("core-memory", "{label}") => "persona",
                (_, segment) if segment.starts_with('{') => "nobody",
                (_, segment) => segment,
            };
            before = segment;
            value
        });
        segments.collect::<Vec<_>>().join("/")
    }

    /// An example body whose ids are replaced in the same way.
    fn body(&self, example: &Value) -> String {
        fn replace(value: &mut Value, with: &impl Fn(&str) -> Option<String>) {
            match value {
                Value::String(text) => {
                    if let Some(new) = with(text) {
                        *text = new;
                    }
                }
                Value::Array(items) => items.iter_mut().for_each(|item| replace(item, with)),
                Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, with)),
                _ => {}
            }
        }
        let mut body = example.clone();
        replace(&mut body, &|text| match text {
            "acme" => Some(self.id.clone()),
            text if text.starts_with("agent-0198") => Some(self.agent.clone()),
            text if text.starts_with("memory-0198") => Some(self.memories[1].clone()),
            _ => None,
        });
        body.to_string()
    }

    async fn login(&self) -> String {
        let body = json!({"email": "admin@example.org", "password": PASSWORD, "organization_id": self.id});
        let reply = self.daemon.post("/api/v1/users/login").anonymous().json(&body).send().await;
        data(&reply, 200)["token"].as_str().unwrap().to_owned()
    }

    /// Everything that another admin can read: each `GET` of the document that returns data.
    async fn contents(&self, operations: &[Operation]) -> Vec<(String, Value)> {
        let reads = operations.iter().filter(|operation| operation.method == "GET");
        // Live state is left out: open streams, connected users, times.
        let reads = reads.filter(|it| {
            !["openEventStream", "openLlmEventStream", "openWebSocket", "listConnections", "getStats"]
                .contains(&it.id.as_str())
        });
        let mut found = Vec::new();
        for read in reads {
            let query = match read.id.as_str() {
                "listEvents" => "?earliest=true&limit=1000",
                "searchMemoriesByQuery" => "?query=window",
                _ => "",
            };
            let path = format!("{}{query}", self.path(&read.path));
            let mut json = self.daemon.get(&path).key(&self.key).send().await.json();
            json.as_object_mut().unwrap().remove("timestamp");
            for row in json["data"].as_array_mut().into_iter().flatten() {
                row.as_object_mut().unwrap().remove("last_used_at");
            }
            found.push((path, json));
        }
        found
    }
}

/// A request of whose body half was sent.
struct Half {
    operation: Operation,
    stream: TcpStream,
    rest: Vec<u8>,
}

/// Sends the head and half of the body. `Err` is the status of a response that came before the daemon asked
/// for the body.
async fn begin(of: &Organization<'_>, operation: &Operation, credential: &str) -> Result<Half, u16> {
    let body = of.body(operation.body.as_ref().unwrap()).into_bytes();
    let stream = of.streams.iter().find(|(name, _)| operation.path.ends_with(&format!("/{{id}}/{name}")));
    let producer = stream.map(|(_, token)| format!("x-producer-token: {token}\r\n")).unwrap_or_default();
    let head = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {credential}\r\ncontent-type: application/json\r\n\
         {producer}content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        operation.method,
        of.path(&operation.path),
        body.len()
    );
    within(&format!("the leave to send the body of {}", operation.id), async {
        let mut stream = TcpStream::connect(of.daemon.addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        match status(&answer) {
            100 => {
                let (half, rest) = body.split_at(body.len() / 2);
                stream.write_all(half).await.unwrap();
                Ok(Half { operation: operation.clone(), stream, rest: rest.to_vec() })
            }
            status => Err(status),
        }
    })
    .await
}

impl Half {
    /// Sends the rest and reads the response.
    async fn finish(mut self) -> (String, u16, String) {
        let answer = within(&format!("the answer to {}", self.operation.id), async {
            self.stream.write_all(&self.rest).await.unwrap();
            let mut answer = Vec::new();
            self.stream.read_to_end(&mut answer).await.unwrap();
            answer
        })
        .await;
        (self.operation.id, status(&answer), String::from_utf8_lossy(&answer).into_owned())
    }
}

fn status(answer: &[u8]) -> u16 {
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

/// The ways in which a credential loses its rights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    KeyDeleted,
    KeyExpired,
    TokenRevoked,
    UserDisabled,
    RoleChanged,
    PasswordChanged,
    UserDeleted,
    OrganizationDeleted,
    SigningKeyRemoved,
}

const CHANGES: [Change; 9] = [
    Change::KeyDeleted,
    Change::KeyExpired,
    Change::TokenRevoked,
    Change::UserDisabled,
    Change::RoleChanged,
    Change::PasswordChanged,
    Change::UserDeleted,
    Change::OrganizationDeleted,
    Change::SigningKeyRemoved,
];

/// A key set of another issuer, with an Ed25519 key that signs tokens.
struct Federation {
    file: PathBuf,
    pair: Ed25519KeyPair,
    jwk: Value,
}

fn der(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/auth/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

impl Federation {
    fn new(dir: &std::path::Path) -> Federation {
        let (pair, public) = (der("ed25519.private.pem"), der("ed25519.public.pem"));
        let x = BASE64.encode(&public[public.len() - 32..]);
        let jwk =
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "elsewhere", "use": "sig", "x": x});
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pair).unwrap();
        let federation = Federation { file: dir.join("jwks.json"), pair, jwk };
        federation.publish(true);
        federation
    }

    /// Writes the key set, with the key or with another instead.
    fn publish(&self, with_key: bool) {
        let mut key = self.jwk.clone();
        if !with_key {
            key["kid"] = json!("another");
        }
        std::fs::write(&self.file, json!({"keys": [key]}).to_string()).unwrap();
    }

    fn token(&self, sub: &str, org_id: &str) -> String {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3_600;
        let header = json!({"alg": "EdDSA", "kid": "elsewhere"});
        let claims = json!({"sub": sub, "org_id": org_id, "roles": ["admin"], "exp": exp});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        format!("{message}.{}", BASE64.encode(self.pair.sign(message.as_bytes())))
    }
}

impl Change {
    /// The id of its organization.
    fn organization(self) -> String {
        format!("{self:?}")
    }

    /// A credential that this change ends, and the name of that credential.
    async fn credential(
        self,
        of: &Organization<'_>,
        federation: &Federation,
        seconds: u64,
    ) -> (String, String) {
        let key = async |seconds: u64| {
            let body = json!({"scopes": ["*"], "expires_in_seconds": seconds});
            let reply = of.daemon.post("/api/v1/api-keys").key(&of.key).json(&body).send().await;
            let made = data(&reply, 201);
            (made["api_key"].as_str().unwrap().to_owned(), made["key_id"].as_str().unwrap().to_owned())
        };
        match self {
            Change::KeyDeleted => key(3_600).await,
            Change::KeyExpired => key(seconds).await,
            Change::TokenRevoked => {
                let body = json!({"sub": of.admin, "roles": ["admin"]});
                let minted =
                    data(&of.daemon.post("/api/v1/tokens").key(&of.key).json(&body).send().await, 201);
                (minted["token"].as_str().unwrap().to_owned(), minted["jti"].as_str().unwrap().to_owned())
            }
            Change::SigningKeyRemoved => (federation.token(&of.admin, &of.id), String::new()),
            _ => (of.login().await, of.admin.clone()),
        }
    }

    async fn make(self, of: &Organization<'_>, name: &str, federation: &Federation) {
        let call = |method: &str, path: &str| of.daemon.call(method, path).key(&of.key);
        let admin = format!("/api/v1/users/{}", of.admin);
        let request = match self {
            Change::KeyExpired => return,
            Change::SigningKeyRemoved => {
                federation.publish(false);
                of.daemon.signal(Signal::HUP);
                return;
            }
            Change::KeyDeleted => call("DELETE", &format!("/api/v1/api-keys/{name}")),
            Change::TokenRevoked => call("DELETE", &format!("/api/v1/tokens/{name}")),
            Change::UserDisabled => {
                call("PUT", &format!("{admin}/disabled")).json(&json!({"disabled": true}))
            }
            Change::RoleChanged => {
                call("PUT", &format!("/api/v1/organizations/{}/members/{}", of.id, of.admin))
                    .json(&json!({"role": "viewer"}))
            }
            Change::PasswordChanged => {
                let body = json!({"current_password": PASSWORD, "new_password": "quite another one"});
                call("PUT", "/api/v1/users/me/password").key(&of.login().await).json(&body)
            }
            Change::UserDeleted => call("DELETE", &admin),
            Change::OrganizationDeleted => {
                of.daemon.call("DELETE", &format!("/api/v1/organizations/{}", of.id))
            }
        };
        let reply = request.send().await;
        assert!(reply.status.is_success(), "{self:?}: {reply:?}");
    }
}

async fn daemon_with(federation: &Federation, organizations: &[String]) -> Daemon {
    let keys = json!([{"jwks_file": federation.file, "organizations": organizations}]);
    Daemon::with().env("AUTH__JWT_KEYS", keys).env("AUTH__FAILURES_PER_MINUTE", 0).start().await
}

/// Without a change in between each of these requests succeeds. So a refusal in the matrix is caused by the
/// change.
#[tokio::test]
async fn a_slow_request_succeeds_while_its_credential_is_valid() {
    let daemon = Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    let of = Organization::new(&daemon, "acme").await;
    for operation in operations().into_iter().filter(|operation| operation.body.is_some()) {
        // An API key has no profile and no password.
        let credential = match operation.path.contains("/users/me") {
            true => daemon.mint_token(&of.key, &of.admin, json!({"roles": ["admin"]})).await,
            false => of.key.clone(),
        };
        match begin(&of, &operation, &credential).await {
            Ok(half) => {
                let (id, status, answer) = half.finish().await;
                assert!((200..300).contains(&status), "{id}: {answer}");
            }
            Err(status) => {
                assert_eq!(status, 403, "{}", operation.id);
                assert!(OF_THE_OPERATOR.contains(&operation.id.as_str()), "{}", operation.id);
            }
        }
    }
}

/// Every operation with a body, and a waiting poll, for every change of rights.
#[tokio::test]
async fn no_request_outlives_its_credential() {
    let dir = tempfile::tempdir().unwrap();
    let federation = Federation::new(dir.path());
    let names: Vec<String> = CHANGES.iter().map(|change| change.organization()).collect();
    let daemon = daemon_with(&federation, &names).await;
    join_all(CHANGES.map(|change| case(&daemon, &federation, change))).await;
}

async fn case(daemon: &Daemon, federation: &Federation, change: Change) {
    let operations = operations();
    let of = Organization::new(daemon, &change.organization()).await;
    let with_body: Vec<_> = operations.iter().filter(|operation| operation.body.is_some()).collect();
    let mut lifetime = 1;
    let (credential, name, begun) = loop {
        lifetime *= 2;
        let (credential, name) = change.credential(&of, federation, lifetime).await;
        let begun = join_all(with_body.iter().map(|operation| begin(&of, operation, &credential))).await;
        let refused: Vec<u16> = begun.iter().filter_map(|begun| begun.as_ref().err().copied()).collect();
        if change == Change::KeyExpired && refused.contains(&401) {
            continue; // the machine was slower than the short life of the key
        }
        assert_eq!(refused, vec![403; OF_THE_OPERATOR.len()], "{change:?}");
        break (credential, name, begun);
    };
    let poll = Call::new(daemon.addr(), "GET", "/api/v1/events?wait=60").key(&credential);
    let poll = tokio::spawn(async move { (poll.send().await, Instant::now()) });

    change.make(&of, &name, federation).await;
    until("the end of the credential", async || {
        let reply = daemon.get("/api/v1/agents").key(&credential).send().await;
        (reply.status == 401).then_some(())
    })
    .await;
    let ended = Instant::now();
    let before = of.contents(&operations).await;

    for (id, status, answer) in join_all(begun.into_iter().flatten().map(Half::finish)).await {
        assert_eq!(status, 401, "{change:?}, {id}: {answer}");
    }
    let (polled, at) = poll.await.unwrap();
    polled.refused(401, "UNAUTHORIZED");
    assert!(at.saturating_duration_since(ended) < SOON, "{change:?}: the poll went on");
    assert_eq!(of.contents(&operations).await, before, "{change:?}");
}
