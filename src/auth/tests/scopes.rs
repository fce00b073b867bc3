//! Tests of scopes in tokens that an older daemon minted.

use super::*;

/// Tokens from before `write` was a scope are recognized by a missing claim. Only the daemon's own tokens are
/// read this way.
#[tokio::test]
async fn own_tokens_minted_before_the_write_scope_keep_a_users_rights() {
    let test = TestAuth::new().await;
    let own = &test.auth.own_key;
    let minted = |scopes: Option<Vec<&'static str>>, roles: &[&str], scopes_version| {
        let narrowing = crate::filter::Narrowing::default();
        let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        let claims = crate::auth::tokens::jwt::NewClaims {
            sub: "ann",
            org_id: "acme",
            exp: T0_S + 60,
            iat: T0_S as f64 + 0.5,
            jti: "j",
            roles: &roles,
            scopes,
            scopes_version,
            narrowing: &narrowing,
        };
        let text = crate::auth::tokens::jwt::sign(&claims, &own.kid, &own.jwt).expect("JSON");
        test.bearer(&text).expect("genuine").scopes.names().join(" ")
    };
    let star = vec!["publish", "publish:org", "subscribe", "read:all", "manage"];
    let all = ScopeSet::ORGANIZATION.names().join(" ");
    assert_eq!(minted(Some(vec!["publish"]), &[], None), "publish write");
    assert_eq!(minted(Some(vec!["publish:org"]), &[], None), "write agents publish:org");
    assert_eq!(minted(Some(vec!["subscribe"]), &["admin"], None), "subscribe");
    assert_eq!(minted(Some(star), &["admin"], None), all);
    assert_eq!(minted(Some(vec!["publish"]), &[], Some(1)), "publish");
    assert_eq!(minted(None, &["user"], None), "subscribe publish write");
    assert_eq!(minted(None, &["admin"], None), all);
    let foreign = test.bearer(&token(json!({"scopes": ["publish"]}))).expect("genuine");
    assert_eq!(foreign.scopes, Scope::Publish.into(), "scopes of another issuer's token are unchanged");
}
