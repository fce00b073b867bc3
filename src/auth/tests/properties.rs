//! Properties of any input: nothing that a peer sends causes a panic, and only a genuine credential is
//! accepted.

use proptest::prelude::*;

use super::*;
use crate::auth::request::presented;
use crate::auth::tokens::keys::{AllowedOrganizations, KeyMaterial, KeySet, VerifyingKey};
use crate::auth::tokens::{jwt, key_file};

fn keys() -> KeySet {
    let key = VerifyingKey {
        kid: "k1".into(),
        material: KeyMaterial::secret(SECRET).expect("long enough"),
        organizations: AllowedOrganizations::All,
        issuer: None,
        audience: None,
        max_token_ms: None,
    };
    KeySet::new(key, vec![]).expect("valid")
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z*:]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in "\\PC{0,200}", dots in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,4}") {
        prop_assert!(jwt::verify(&text, &keys(), T0).is_err());
        prop_assert!(jwt::verify(&dots, &keys(), T0).is_err());
    }

    /// Even the holder of the key cannot make the reader panic, or make it accept a token without the
    /// required claims.
    #[test]
    fn signed_tokens_with_invalid_claims_are_refused(
        header in json_value(), payload in json_value(), name in "sub|org_id|exp|nbf|iat|aud|roles|scopes|agents|types|jti",
        value in json_value(),
    ) {
        prop_assert!(jwt::verify(&sign(unsigned(&header, &payload), SECRET), &keys(), T0).is_err());
        let mut with = claims(json!({}));
        with[name.as_str()] = value.clone();
        let text = sign(unsigned(&json!({"alg": "HS256", "kid": "k1"}), &with), SECRET);
        if let Ok((claims, _)) = jwt::verify(&text, &keys(), T0) {
            prop_assert!(claims.expires_at_ms > T0);
            prop_assert!(jwt::is_id(&claims.sub) && crate::ids::is_org_id(&claims.org_id));
            prop_assert!(!claims.scopes.has(Scope::Operate));
        }
    }

    /// Every bit of a token matters, including the unused bits of the last character.
    #[test]
    fn a_token_with_a_changed_character_is_refused(at in any::<prop::sample::Index>(), by in "[A-Za-z0-9_.-]") {
        let good = token(json!({}));
        prop_assert!(jwt::verify(&good, &keys(), T0).is_ok());
        let at = at.index(good.len());
        let mut changed = good.clone();
        changed.replace_range(at..=at, &by);
        prop_assume!(changed != good);
        prop_assert!(jwt::verify(&changed, &keys(), T0).is_err());
    }

    #[test]
    fn key_files_of_any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = key_file::from_jwks(&bytes, None);
        let pem = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
        let _ = key_file::from_pem(pem.as_bytes());
    }

    /// The logged form of a query never contains a value that would be read as a credential.
    #[test]
    fn a_credential_in_the_query_is_redacted(
        before in "[a-z=&%0-9]{0,20}", escaped in any::<bool>(), secret in "[A-Z]{24}", after in "[a-z=&%0-9]{0,20}",
    ) {
        let name = if escaped { "t%6Fken" } else { "ticket" };
        let query = format!("{before}&{name}={secret}&{after}");
        prop_assert!(!presented::redact_query(&query).contains(&secret));
    }

    #[test]
    fn any_origin_text_is_checked_without_panic(origin in "\\PC{0,40}", host in "\\PC{0,40}") {
        let policy = OriginPolicy::new(&[]).expect("empty");
        let allowed = policy.allows(&origin, Some(&host));
        prop_assert!(!allowed || origin.contains("://"));
    }
}
