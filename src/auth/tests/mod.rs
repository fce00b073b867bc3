//! Tests of the whole module, with records in memory and a clock that is set by hand.

mod admin;
mod jwt;
mod properties;
mod requests;
mod scopes;
mod sessions;
mod tickets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{HeaderMap, HeaderValue, Method};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::store::Rows;
use crate::sync::Mutex;
use crate::time::ManualClock;

/// The time at which every test begins, in Unix milliseconds.
pub(super) const T0: u64 = 1_800_000_000_000;
/// The same time in seconds, as in JWTs.
pub(super) const T0_S: u64 = T0 / 1_000;
pub(super) const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Records in memory that can be made to fail or to wait.
#[derive(Default)]
pub(super) struct MemoryRecords {
    pub(super) rows: Mutex<Snapshot>,
    pub(super) failing: AtomicBool,
    pub(super) commits: AtomicUsize,
    /// Commits wait while this is locked.
    pub(super) gate: tokio::sync::Mutex<()>,
}

impl Records for MemoryRecords {
    fn load(&self) -> Result<Snapshot, RecordsError> {
        Ok(self.rows.lock().clone())
    }

    fn commit(&self, writes: Vec<RecordChange>, _beside: Rows) -> CommitFuture<'_> {
        Box::pin(async move {
            let _open = self.gate.lock().await;
            if self.failing.load(Ordering::Relaxed) {
                return Err(RecordsError::Unknown);
            }
            self.commits.fetch_add(1, Ordering::Relaxed);
            let mut rows = self.rows.lock();
            writes.into_iter().for_each(|write| keep(&mut rows, write));
            Ok(())
        })
    }
}

fn keep(rows: &mut Snapshot, write: RecordChange) {
    match write {
        RecordChange::PutOrganization(row) => {
            rows.next_tenant = rows.next_tenant.max(row.tenant.0 + 1);
            rows.organizations.retain(|old| old.tenant != row.tenant);
            rows.organizations.push(row);
        }
        RecordChange::DeleteOrganization(Organization { tenant, .. }) => {
            rows.organizations.retain(|row| row.tenant != tenant);
            rows.keys.retain(|row| row.tenant != tenant);
            rows.revocations.retain(|row| row.0 != tenant);
            rows.disabled.retain(|row| row.0 != tenant);
            rows.ended.retain(|row| row.0 != tenant);
        }
        RecordChange::PutKey(row) => {
            rows.keys.retain(|old| old.id != row.id);
            rows.keys.push(row);
        }
        RecordChange::DeleteKey(tenant, id) => rows.keys.retain(|row| (row.tenant, &row.id) != (tenant, &id)),
        RecordChange::Revoke { tenant, jti, until_ms } => rows.revocations.push((tenant, jti, until_ms)),
        RecordChange::ForgetRevocation(tenant, jti) => {
            rows.revocations.retain(|row| (row.0, &row.1) != (tenant, &jti));
        }
        RecordChange::EndTokens { tenant, sub, since_ms } => {
            rows.ended.retain(|row| (row.0, &row.1) != (tenant, &sub));
            rows.ended.push((tenant, sub, since_ms));
        }
        RecordChange::ForgetEnd(tenant, sub) => rows.ended.retain(|row| (row.0, &row.1) != (tenant, &sub)),
        RecordChange::SetDisabled { tenant, sub, disabled: true } => rows.disabled.push((tenant, sub)),
        RecordChange::SetDisabled { tenant, sub, disabled: false } => {
            rows.disabled.retain(|row| *row != (tenant, sub.clone()));
        }
    }
}

/// The credentials of a daemon: organizations `acme` and `globex`, and one configured HS256 key `k1` for
/// `acme`.
pub(super) struct TestAuth {
    pub(super) auth: Auth,
    pub(super) clock: Arc<ManualClock>,
    pub(super) memory: Arc<MemoryRecords>,
    /// Keys with `*` of the two organizations.
    pub(super) acme: IssuedKey,
    pub(super) globex: IssuedKey,
}

pub(super) const OWN: [u8; 32] = [42; 32];

impl TestAuth {
    pub(super) async fn new() -> TestAuth {
        TestAuth::with(AuthSettings { jwt_keys: vec![hs256("k1", SECRET)], ..AuthSettings::default() }).await
    }

    pub(super) async fn with(settings: AuthSettings) -> TestAuth {
        let (memory, clock) = (Arc::new(MemoryRecords::default()), Arc::new(ManualClock::at(T0)));
        let auth = open(&settings, &memory, &clock);
        let operator = Principal::local_operator().authorize().expect("the operator");
        let make = |id: &str| NewOrganization { id: Some(id.into()), first_key: true, ..Default::default() };
        let acme = auth.create_organization(&operator, make("acme")).await.expect("acme");
        let globex = auth.create_organization(&operator, make("globex")).await.expect("globex");
        let key = |made: CreatedOrganization| made.key.expect("its first key");
        TestAuth { auth, clock, memory, acme: key(acme), globex: key(globex) }
    }

    /// A daemon that was restarted on the same data.
    pub(super) fn restarted(&self, settings: &AuthSettings) -> Auth {
        open(settings, &self.memory, &self.clock)
    }

    pub(super) fn bearer(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        enter(&self.auth, &[("authorization", &format!("Bearer {text}"))], "", CredentialUse::Rest)
    }

    pub(super) fn refusal(&self, text: &str) -> CredentialError {
        match self.bearer(text) {
            Err(AuthError::Unauthorized(refusal)) => refusal,
            other => panic!("expected a 401, got {other:?}"),
        }
    }

    pub(super) fn ticket(
        &self,
        of: &Arc<Principal>,
        origin: Option<&str>,
        reconnect: bool,
    ) -> Result<Ticket, AdminError> {
        self.auth.ticket(&of.authorize().expect("every principal"), origin, reconnect)
    }

    pub(super) fn manager(&self) -> Authorized<Manage> {
        let principal = self.bearer(self.acme.api_key.expose()).expect("the key of acme");
        principal.authorize().expect("a manager")
    }
}

pub(super) fn open(settings: &AuthSettings, memory: &Arc<MemoryRecords>, clock: &Arc<ManualClock>) -> Auth {
    let records = Arc::clone(memory) as Arc<dyn Records>;
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Auth::new(settings, OwnKey::from_bytes(&OWN), records, clock).expect("valid settings")
}

/// Authenticates a request with these headers: GET, or POST for [`CredentialUse::Rest`].
pub(super) fn enter(
    auth: &Auth,
    pairs: &[(&'static str, &str)],
    query: &str,
    use_: CredentialUse,
) -> Result<Arc<Principal>, AuthError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).expect("a header value"));
    }
    let method = if use_ == CredentialUse::Rest { Method::POST } else { Method::GET };
    let peer = Some("192.0.2.7".parse().expect("an address"));
    let cx = RequestContext::of(&headers, Some("nw.example"), &method, peer, use_);
    auth.authenticate(&auth.present(&headers, query), &cx)
}

pub(super) fn hs256(kid: &str, secret: &[u8]) -> JwtKeySettings {
    JwtKeySettings {
        kid: Some(kid.into()),
        default: false,
        source: KeySource::Secret(zeroize::Zeroizing::new(secret.to_vec())),
        organizations: vec!["acme".into()],
        issuer: None,
        audience: None,
    }
}

pub(super) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/auth").join(name)
}

/// Claims of user `ann` of `acme` for an hour, changed by `with` (`null` removes a claim).
pub(super) fn claims(with: Value) -> Value {
    let mut claims = json!({"sub": "ann", "org_id": "acme", "exp": T0_S + 3_600, "roles": ["user"]});
    for (name, value) in with.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

/// `header.payload`, ready to be signed.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

pub(super) fn sign(message: String, secret: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag.as_ref()))
}

/// A token signed by the configured key `k1`.
pub(super) fn token(with: Value) -> String {
    sign(unsigned(&json!({"alg": "HS256", "kid": "k1"}), &claims(with)), SECRET)
}
