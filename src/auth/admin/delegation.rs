//! Limits of what a principal may grant to others, and of its rights over their credentials.
//!
//! * Nobody issues a scope, role, claim or expiry wider than their own (protocol §3). A token that acts or
//!   reads as another user is wider than one's own, unless the issuer may publish for, or read the events of,
//!   everyone. The scope `mint` is the right to issue to any user what a user has by their role, and nothing
//!   more.
//! * A field that the request omits is inherited from the issuer, so an omitted narrowing never widens the
//!   rights.
//! * Nobody disables, enables, revokes or deletes a credential or user with wider rights than their own. The
//!   daemon does not know the rights of tokens and users that it did not create. They may be an admin's, so
//!   every scope of the organization is needed.
//! * A user lasts until somebody deletes them. So only a credential that lasts as long may create one, raise
//!   one's role or enable one again: an API key without expiry, or an admin who logged in. Otherwise a
//!   credential that expires would leave rights that do not.

use crate::auth::error::AdminError;
use crate::auth::rights::credential::CredentialId;
use crate::auth::rights::permissions::Role;
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::{Scope, ScopeSet};
use crate::auth::tokens::jti;
use crate::auth::tokens::jwt::{ROLES, TOKEN_DEFAULT_MS, TOKEN_MAX_MS};
use crate::filter::{Names, Narrowing};

/// Narrowing claims of a request. `None` inherits the issuer's.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct NarrowingClaims {
    /// Agent ids.
    #[serde(default)]
    pub agents: Option<Vec<Box<str>>>,
    /// Channels and patterns (`a/*`).
    #[serde(default)]
    pub channels: Option<Vec<Box<str>>>,
    /// Event types.
    #[serde(default)]
    pub types: Option<Vec<Box<str>>>,
}

impl Principal {
    /// Returns true if rights of this extent are not wider than the principal's own.
    pub(in crate::auth) fn reaches(&self, scopes: ScopeSet, narrowing: &Narrowing) -> bool {
        self.scopes.covers(scopes) && narrowing.within(&self.narrowing)
    }

    /// Returns an error if this principal expires while a user that it creates would not.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_lasting(&self) -> Result<(), AdminError> {
        let lasting = match &self.credential {
            CredentialId::Key { .. } => self.expires_at_ms.is_none(),
            CredentialId::Token { session, .. } => *session,
            CredentialId::Local => true,
        };
        match lasting {
            true => Ok(()),
            false => Err(AdminError::Forbidden(
                "this credential ends and what it would give to a user does not: use an API key without expiry, or log in as an \
                 admin",
            )),
        }
    }

    /// Checks that the principal may revoke the token with this `jti`.
    pub(in crate::auth) fn may_revoke_token(&self, jti: &str) -> Result<(), AdminError> {
        if matches!(&self.credential, CredentialId::Token { jti: Some(own), .. } if own.as_ref() == jti) {
            return Ok(());
        }
        let reached = match jti::read(jti).and_then(|of| of.rights) {
            Some((scopes, narrowed)) => self.scopes.covers(scopes) && (narrowed || self.narrowing.is_none()),
            None => self.reaches(ScopeSet::ORGANIZATION, &Narrowing::default()),
        };
        match reached {
            true => Ok(()),
            false => Err(AdminError::Forbidden("this token is, or may be, wider than your own rights")),
        }
    }

    /// Checks that the principal may disable or enable a user with this role; `None`: a user who is not
    /// registered here.
    pub(in crate::auth) fn may_disable(&self, role: Option<Role>, disabled: bool) -> Result<(), AdminError> {
        let scopes = role.map_or(ScopeSet::ORGANIZATION, Role::scopes);
        if !self.reaches(scopes, &Narrowing::default()) {
            return Err(AdminError::Forbidden("this user has, or may have, wider rights than your own"));
        }
        if disabled { Ok(()) } else { self.check_lasting() }
    }
}

pub(super) fn requested_scopes(names: &[String]) -> Result<ScopeSet, AdminError> {
    let known = || format!("must be {}", Scope::REQUESTABLE);
    let one = |(index, name): (usize, &String)| {
        ScopeSet::from_request(name).ok_or_else(|| AdminError::invalid(format!("scopes[{index}]"), known()))
    };
    names.iter().enumerate().map(one).collect()
}

pub(super) fn role_scopes(roles: &[String]) -> Result<ScopeSet, AdminError> {
    if roles.len() > ROLES {
        return Err(AdminError::invalid("roles", format!("must be at most {ROLES}")));
    }
    let known = "must be admin, user, viewer or readonly";
    let one = |(index, role): (usize, &String)| {
        Role::scopes_of(role).ok_or_else(|| AdminError::invalid(format!("roles[{index}]"), known))
    };
    roles.iter().enumerate().map(one).collect()
}

/// Checks whether `issuer` may issue these scopes, or else the scopes of these roles, to the user `sub`.
pub(super) fn may_mint(
    issuer: &Principal,
    sub: &str,
    of_roles: ScopeSet,
    scopes: Option<ScopeSet>,
) -> Result<(), AdminError> {
    // A role is checked even if scopes are given, because other readers of the token may use the role.
    let all = of_roles | scopes.unwrap_or_default();
    if issuer.scopes.has(Scope::Mint) && ScopeSet::MINTABLE.covers(all) {
        return Ok(());
    }
    if !issuer.scopes.has(Scope::Manage) {
        return Err(AdminError::Forbidden(
            "roles, scopes: mint grants at most subscribe, publish and write, and no role above user",
        ));
    }
    if !issuer.scopes.covers(all) {
        return Err(AdminError::Forbidden("roles, scopes: wider than your own"));
    }
    check_user(issuer, sub, scopes.unwrap_or(of_roles))
}

/// Checks the right to issue a token for another user. Such a token reads that user's events, publishes and
/// writes in that user's name, and changes the user's agents.
fn check_user(issuer: &Principal, sub: &str, scopes: ScopeSet) -> Result<(), AdminError> {
    let oneself = issuer.sub.as_deref() == Some(sub);
    let wider = |own: Scope, given: Scope| scopes.has(given) && !issuer.scopes.has(own);
    let reads = wider(Scope::ReadAll, Scope::Subscribe);
    let speaks = wider(Scope::PublishOrg, Scope::Publish) || wider(Scope::PublishOrg, Scope::Write);
    match !oneself && (reads || speaks || wider(Scope::Agents, Scope::Write)) {
        true => Err(AdminError::Forbidden(
            "sub: a token for another user needs mint, or read:all to subscribe, publish:org to publish and write, and agents to write",
        )),
        false => Ok(()),
    }
}

/// Returns the requested narrowing, with each absent claim taken from the issuer.
pub(super) fn inherited(claims: &NarrowingClaims, issuer: &Principal) -> Result<Narrowing, AdminError> {
    let outer = &issuer.narrowing;
    let names = |names: &Names| names.iter().map(Into::into).collect();
    let kinds = || outer.types().map(|kinds| kinds.iter().map(|kind| kind.name().into()).collect());
    let narrowing = Narrowing::new(
        claims.agents.clone().or_else(|| outer.agents().map(names)),
        claims.channels.clone().or_else(|| outer.channels().map(names)),
        claims.types.clone().or_else(kinds),
    );
    let narrowing = narrowing.map_err(|error| AdminError::invalid(error.field, error.reason))?;
    match narrowing.within(outer) {
        true => Ok(narrowing),
        false => Err(AdminError::Forbidden("agents, channels, types: wider than your own")),
    }
}

/// Returns the requested expiry, or else the issuer's own.
pub(super) fn within_own(requested: Option<u64>, issuer: &Principal) -> Result<Option<u64>, AdminError> {
    match (requested, issuer.expires_at_ms) {
        (Some(end), Some(own)) if end > own => {
            Err(AdminError::Forbidden("expires_in_seconds: later than your own"))
        }
        (requested, own) => Ok(requested.or(own)),
    }
}

pub(super) fn token_end(
    expires_in_ms: Option<u64>,
    issuer: &Principal,
    now_ms: u64,
) -> Result<u64, AdminError> {
    let reason = "must be 1 second to 30 days";
    match expires_in_ms {
        Some(ms) if !(1_000..=TOKEN_MAX_MS).contains(&ms) => {
            Err(AdminError::invalid("expires_in_seconds", reason))
        }
        Some(ms) => Ok(within_own(Some(now_ms.saturating_add(ms)), issuer)?.unwrap_or(now_ms)),
        None => Ok((now_ms + TOKEN_DEFAULT_MS).min(issuer.expires_at_ms.unwrap_or(u64::MAX))),
    }
}
