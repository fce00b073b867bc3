//! Mints tokens. Nothing is stored.
//!
//! * Nobody mints a token with wider rights than their own (`delegation`).
//! * A token's `jti` contains its expiry, so its revocation can be forgotten after it.

use super::delegation::{NarrowingClaims, inherited, may_mint, requested_scopes, role_scopes, token_end};
use super::fields::check_id;
use crate::auth::error::AdminError;
use crate::auth::passwords::hasher::PasswordProof;
use crate::auth::rights::authorized::{Authorized, MintsTokens};
use crate::auth::rights::permissions::Role;
use crate::auth::rights::scope::ScopeSet;
use crate::auth::secret::Secret;
use crate::auth::tokens::jti::{self, MintedBy};
use crate::auth::tokens::jwt::{self, NewClaims, TOKEN_DEFAULT_MS};
use crate::auth::{Auth, api_key};
use crate::filter::Narrowing;

/// Fields of a new token.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// The user's id.
    pub sub: String,
    /// `admin`, `user`, `viewer` or `readonly`. Without roles and scopes the role is `user`.
    pub roles: Vec<String>,
    /// Names of scopes, or `*`. `None` takes the scopes of the roles.
    pub scopes: Option<Vec<String>>,
    /// What the token is limited to.
    pub narrowing: NarrowingClaims,
    /// Lifetime in milliseconds, at most [`jwt::TOKEN_MAX_MS`]. `None` takes [`TOKEN_DEFAULT_MS`], or the issuer's
    /// expiry if that is earlier.
    pub expires_in_ms: Option<u64>,
}

/// Contents of a token to sign.
struct TokenContents<'a> {
    sub: &'a str,
    org_id: &'a str,
    roles: &'a [String],
    /// `None` takes the scopes of the roles.
    scopes: Option<ScopeSet>,
    narrowing: &'a Narrowing,
    /// Unix milliseconds.
    issued_at_ms: u64,
    /// Unix milliseconds, rounded down to whole seconds.
    expires_at_ms: u64,
    /// True if the token is issued for a password.
    session: bool,
    /// The credential that mints the token. The token ends with it.
    maker: Option<MintedBy<'a>>,
}

/// A token that was minted.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The JWT.
    pub token: Secret,
    /// The `jti`, by which the token is revoked.
    pub jti: String,
    /// Expiry in Unix milliseconds, in whole seconds.
    pub expires_at_ms: u64,
}

impl Auth {
    /// Mints a token for a user of `org_id`, or of the caller's own organization. Nothing is stored.
    ///
    /// # Errors
    /// `Invalid`, `Forbidden` if the token would be wider than the caller's own rights, `NotFound`, `Ended`.
    pub fn mint_token(
        &self,
        by: &Authorized<impl MintsTokens>,
        org_id: Option<&str>,
        new: &NewToken,
    ) -> Result<IssuedToken, AdminError> {
        self.actor(by).confirm()?;
        let issuer = by.principal();
        check_id("sub", &new.sub)?;
        let default_role = ["user".to_owned()];
        let roles = match new.roles.is_empty() && new.scopes.is_none() {
            true => default_role.as_slice(),
            false => new.roles.as_slice(),
        };
        let of_roles = role_scopes(roles)?;
        let scopes = new.scopes.as_deref().map(requested_scopes).transpose()?;
        may_mint(issuer, &new.sub, of_roles, scopes)?;
        let narrowing = inherited(&new.narrowing, issuer)?;
        let now_ms = self.clock.now_ms();
        let expires_at_ms = token_end(new.expires_in_ms, issuer, now_ms)?;
        let organization = self.target(issuer, org_id)?;
        // A token minted now is newer than every end of tokens so far, also than one that is a moment ahead
        // of the clock.
        let issued_at_ms = now_ms.max(self.valid_since(organization.tenant, &new.sub));
        self.sign(TokenContents {
            sub: &new.sub,
            org_id: &organization.id,
            roles,
            scopes,
            narrowing: &narrowing,
            issued_at_ms,
            expires_at_ms,
            session: false,
            maker: issuer.as_maker(),
        })
    }

    /// Issues a token to the user whose password was verified: 24 hours, with the rights of the role.
    ///
    /// # Errors
    /// `NotFound`: the organization was deleted; `Random`.
    pub fn session(
        &self,
        of: &PasswordProof,
        role: Role,
        issued_at_ms: u64,
    ) -> Result<IssuedToken, AdminError> {
        let organization = self.organization(of.tenant).ok_or(AdminError::NotFound)?;
        self.sign(TokenContents {
            sub: &of.sub,
            org_id: &organization.id,
            roles: &[role.name().to_owned()],
            scopes: None,
            narrowing: &Narrowing::default(),
            issued_at_ms,
            expires_at_ms: self.clock.now_ms().saturating_add(TOKEN_DEFAULT_MS),
            session: true,
            maker: None,
        })
    }

    /// Signs a token with these contents, without checks.
    fn sign(&self, new: TokenContents<'_>) -> Result<IssuedToken, AdminError> {
        let exp = new.expires_at_ms / 1_000;
        let scopes = new.scopes.map_or_else(|| role_scopes(new.roles), Ok)?;
        let random = api_key::letters(&self.random, jti::RANDOM_CHARS).map_err(|_| AdminError::Random)?;
        let jti = jti::of(new.session, scopes, new.narrowing, new.expires_at_ms, &random, new.maker.as_ref());
        let claims = NewClaims {
            sub: new.sub,
            org_id: new.org_id,
            exp,
            iat: new.issued_at_ms as f64 / 1_000.0,
            jti: &jti,
            roles: new.roles,
            scopes: new.scopes.map(ScopeSet::names),
            scopes_version: new.scopes.map(|_| jwt::SCOPES_VERSION),
            narrowing: new.narrowing,
        };
        let token = jwt::sign(&claims, &self.own_key.kid, &self.own_key.jwt).ok_or(AdminError::Random)?;
        match token.len() <= jwt::TOKEN_BYTES {
            true => Ok(IssuedToken { token: Secret::new(token), jti, expires_at_ms: exp * 1_000 }),
            false => Err(AdminError::invalid("agents", "agents, channels and types make the token too long")),
        }
    }
}
