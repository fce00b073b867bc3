//! Measures the credential of a request by kind: the whole of `Auth::authenticate`, from headers to
//! principal. Baseline: the bare signature or digest, checked by ring, without parsing, claims, revocation or
//! rights.

#![allow(clippy::expect_used, missing_docs)] // a bench's own inputs

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use nervewire::auth::{
    Algorithm, Auth, AuthSettings, CommitFuture, CredentialUse, JwtKeySettings, KeySource, NewToken, OwnKey,
    Principal, RecordChange, Records, RecordsError, RequestContext, Snapshot,
};
use nervewire::store::Rows;
use nervewire::time::{Clock as _, SystemClock};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use ring::{digest, hmac};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

/// Stores nothing, because only work in memory is measured.
struct Nowhere;

impl Records for Nowhere {
    fn load(&self) -> Result<Snapshot, RecordsError> {
        Ok(Snapshot::default())
    }
    fn commit(&self, _: Vec<RecordChange>, _: Rows) -> CommitFuture<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

const SIGNED: [(&str, Algorithm); 3] =
    [("rsa", Algorithm::Rs256), ("p256", Algorithm::Es256), ("ed25519", Algorithm::EdDsa)];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/auth").join(name)
}

fn signed(name: &str, algorithm: Algorithm) -> String {
    let exp = SystemClock.now_ms() / 1_000 + 86_400;
    let header = format!(r#"{{"alg":"{}","kid":"{name}"}}"#, algorithm.name());
    let claims = format!(r#"{{"sub":"user-7","org_id":"default","exp":{exp},"roles":["user"],"jti":"j"}}"#);
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let pem = std::fs::read(fixture(&format!("{name}.private.pem"))).expect("a fixture");
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("PKCS#8");
    let (der, random) = (der.secret_pkcs8_der(), SystemRandom::new());
    let signature = match algorithm {
        Algorithm::Rs256 => {
            let key = RsaKeyPair::from_pkcs8(der).expect("RSA");
            let mut out = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut out).expect("signed");
            out
        }
        Algorithm::Es256 => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
            key.expect("P-256").sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec()
        }
        _ => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).expect("Ed25519");
            key.sign(message.as_bytes()).as_ref().to_vec()
        }
    };
    format!("{message}.{}", BASE64.encode(signature))
}

/// Returns the public key for checking with ring alone.
fn public_key(name: &str, algorithm: Algorithm) -> UnparsedPublicKey<Vec<u8>> {
    let pem = std::fs::read(fixture(&format!("{name}.private.pem"))).expect("a fixture");
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("PKCS#8");
    let (der, random) = (der.secret_pkcs8_der(), SystemRandom::new());
    match algorithm {
        Algorithm::Rs256 => {
            let key = RsaKeyPair::from_pkcs8(der).expect("RSA");
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref().to_vec())
        }
        Algorithm::Es256 => {
            let key =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).expect("P-256");
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref().to_vec())
        }
        _ => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).expect("Ed25519");
            UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec())
        }
    }
}

fn credentials(c: &mut Criterion) {
    let key = |&(name, algorithm): &(&str, Algorithm)| JwtKeySettings {
        kid: Some(name.into()),
        default: false,
        source: KeySource::PublicKeyFile(fixture(&format!("{name}.public.pem")), algorithm),
        organizations: vec!["default".into()],
        issuer: None,
        audience: None,
    };
    let settings = AuthSettings { jwt_keys: SIGNED.iter().map(key).collect(), ..AuthSettings::default() };
    let own = OwnKey::from_bytes(&[7; 32]);
    let auth = Auth::new(&settings, own, Arc::new(Nowhere), Arc::new(SystemClock)).expect("valid settings");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (_, bootstrap) = runtime.block_on(auth.bootstrap()).expect("made").expect("an empty store");
    let local = Principal::local_operator().authorize::<nervewire::auth::Manage>().expect("the operator");
    let new = NewToken { sub: "user-7".into(), ..NewToken::default() };
    let minted = auth.mint_token(&local, Some("default"), &new).expect("minted");

    let mut group = c.benchmark_group("authenticate");
    group.throughput(Throughput::Elements(1));
    let mut measure = |name: &str, text: &str, query: &str| {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert("authorization", format!("Bearer {text}").parse().expect("a header value"));
        }
        let cx = RequestContext::of(&headers, Some("nw.example"), &Method::GET, None, CredentialUse::Stream);
        group.bench_function(name, |b| {
            b.iter(|| auth.authenticate(&auth.present(&headers, query), &cx).expect("genuine"));
        });
    };
    measure("api_key", bootstrap.api_key.expose(), "");
    measure("jwt_hs256", minted.token.expose(), "");
    for (name, algorithm) in SIGNED {
        measure(&format!("jwt_{}", algorithm.name().to_lowercase()), &signed(name, algorithm), "");
    }
    let headers = HeaderMap::new();
    let query = format!("token={}", minted.token.expose());
    let cx = RequestContext::of(&headers, None, &Method::GET, None, CredentialUse::Stream);
    let who = auth.authenticate(&auth.present(&headers, &query), &cx).expect("genuine");
    let ticket = auth.ticket(&who.authorize().expect("always"), None, true).expect("made");
    measure("reconnect_ticket", "", &format!("ticket={}", ticket.ticket.expose()));
    for (name, algorithm) in SIGNED {
        let token = signed(name, algorithm);
        let (message, signature) = token.rsplit_once('.').expect("a token");
        let signature = BASE64.decode(signature).expect("base64");
        let key = public_key(name, algorithm);
        group.bench_function(format!("bare_ring_{}", algorithm.name().to_lowercase()), |b| {
            b.iter(|| key.verify(message.as_bytes(), &signature).expect("genuine"));
        });
    }
    let (message, key) = (minted.token.expose(), hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]));
    group.bench_function("bare_ring_hs256", |b| b.iter(|| hmac::sign(&key, message.as_bytes())));
    let text = bootstrap.api_key.expose();
    group.bench_function("bare_ring_sha256", |b| b.iter(|| digest::digest(&digest::SHA256, text.as_bytes())));
    group.bench_function("still_valid", |b| b.iter(|| auth.still_valid(&who).expect("valid")));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = credentials
}
criterion_main!(benches);
