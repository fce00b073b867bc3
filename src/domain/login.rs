//! Logins, and password changes, which also return a new session.
//!
//! * All refused logins look the same and take the same time: unknown organization, unknown email, wrong
//!   password, disabled user.
//! * A user is read under their lock, and the time of their token is taken under it. A later change of the
//!   user therefore ends the token (`auth/admin/revoke.rs`).
//! * The limits on guessing and the hashing are in `auth`.

use std::net::IpAddr;
use std::sync::Arc;

use super::users::{EMAIL_BYTES, EMAILS, User, UserError, UserService, end, own_user};
use super::{ResourceError, record};
use crate::auth::{Authenticated, Authorized, IssuedToken, Organization, Password, PasswordProof};
use crate::ids::TenantId;

/// The key that is looked up when no user has the email, so that the same read is done.
const NOBODY: &str = "user-";

/// A user who has just proved their identity, and the token that was issued.
#[derive(Debug)]
pub struct UserSession {
    /// The user.
    pub user: User,
    /// Organization of the user.
    pub organization: Arc<Organization>,
    /// Token of the user.
    pub issued: IssuedToken,
}

/// Logs a user in. Success and refusal take the same work.
///
/// # Errors
/// [`UserError::Unknown`], whatever was wrong; [`UserError::TooMany`], [`UserError::Password`].
pub async fn login(
    service: UserService<'_>,
    peer: Option<IpAddr>,
    org_id: &str,
    email: &str,
    password: Arc<Password>,
) -> Result<UserSession, UserError> {
    password.check_length().map_err(|reason| UserError::invalid("password", reason))?;
    let email = email.to_lowercase();
    service.auth.check_attempt(peer, org_id, &email)?;
    service.auth.passwords().check_login(peer)?;
    let found = find_candidate(service, org_id, &email).await?;
    let account =
        found.as_ref().map(|found| (found.organization.tenant, found.user.id.as_str(), &found.user.password));
    let turn = service.auth.passwords().login(peer)?.acquire().await?;
    let attempt = service.auth.begin_attempt(peer, org_id, &email)?;
    let proven = match service.auth.passwords().verify(turn, password, account).await {
        Ok(proven) => proven,
        Err(error) => {
            attempt.withdraw();
            return Err(error.into());
        }
    };
    match (found, proven) {
        (Some(found), Some(proven))
            if !service.auth.is_disabled(found.organization.tenant, &found.user.id) =>
        {
            attempt.succeeded();
            open_session(service, found.user, &proven, found.read_ms)
        }
        _ => {
            attempt.failed();
            Err(UserError::Unknown)
        }
    }
}

/// A user whose email was given and whose password is not verified yet.
struct LoginCandidate {
    user: User,
    organization: Arc<Organization>,
    /// When the user was read, Unix milliseconds.
    read_ms: u64,
}

/// Reads the user with an email. If there is none, it reads as much.
async fn find_candidate(
    service: UserService<'_>,
    org_id: &str,
    email: &str,
) -> Result<Option<LoginCandidate>, UserError> {
    let organization = service.auth.organization_named(org_id);
    let tenant = organization.as_ref().map_or(TenantId(0), |organization| organization.tenant);
    let known = (1..=EMAIL_BYTES).contains(&email.len());
    let read = service.tenants.store().row(tenant, EMAILS, if known { email } else { NOBODY }).await;
    let id = read.map_err(ResourceError::Read)?.and_then(|id| String::from_utf8(id).ok());
    // The lock keeps the user unchanged, so a token dated now matches what is read now
    // (`auth/admin/revoke.rs`).
    let _guard = service.lock(tenant, "user", id.as_deref().unwrap_or(NOBODY)).await;
    let read_ms = service.now_ms();
    let user: Option<User> =
        record::get(service.tenants.store(), tenant, id.as_deref().unwrap_or(NOBODY)).await?;
    let user = user.filter(|user| known && user.email == email);
    Ok(organization.zip(user).map(|(organization, user)| LoginCandidate { user, organization, read_ms }))
}

fn open_session(
    service: UserService<'_>,
    user: User,
    proven: &PasswordProof,
    now_ms: u64,
) -> Result<UserSession, UserError> {
    let organization = service.auth.organization(proven.tenant()).ok_or(UserError::Unknown)?;
    let issued = service.auth.session(proven, user.role, now_ms.max(user.good_since_ms))?;
    Ok(UserSession { user, organization, issued })
}

/// Sets a user's password, ends all of their tokens, and issues a new one.
///
/// # Errors
/// `Forbidden` if the current password is wrong; [`UserError::TooMany`], as for logins.
pub async fn change_password(
    service: UserService<'_>,
    peer: Option<IpAddr>,
    right: &Authorized<Authenticated>,
    current: Arc<Password>,
    new: Arc<Password>,
) -> Result<UserSession, UserError> {
    current.check_length().map_err(|reason| UserError::invalid("current_password", reason))?;
    new.check_new().map_err(|reason| UserError::invalid("new_password", reason))?;
    let principal = right.principal();
    let tenant = principal.tenant;
    let alone = service.lock(tenant, "user", principal.sub.as_deref().unwrap_or_default()).await;
    let old = own_user(service, principal).await?;
    service.auth.check_attempt(peer, &principal.org_id, &old.email)?;
    let place = service.auth.passwords().setter(tenant)?;
    let turn = place.acquire().await?;
    let attempt = service.auth.begin_attempt(peer, &principal.org_id, &old.email)?;
    let hashed = async {
        let account = Some((tenant, old.id.as_str(), &old.password));
        let proven = service.auth.passwords().verify(turn, current, account).await?;
        match proven {
            Some(proven) => Ok(Some((proven, service.auth.passwords().hash(&place, new).await?))),
            None => Ok(None),
        }
    };
    let (proven, password) = match hashed.await {
        Ok(Some(done)) => {
            attempt.succeeded();
            done
        }
        Ok(None) => {
            attempt.failed();
            return Err(ResourceError::Forbidden("current_password: is wrong").into());
        }
        Err(error) => {
            attempt.withdraw();
            return Err(UserError::Password(error));
        }
    };
    let user =
        end(service, service.auth.actor(right), tenant, &old, alone, |user| user.password = password).await?;
    let since_ms = user.good_since_ms;
    open_session(service, user, &proven, since_ms)
}
