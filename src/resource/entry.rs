//! Logins, and password changes, which also return a new session.
//!
//! * All refused logins look the same and take the same time: unknown organization, unknown email, wrong
//!   password, disabled user.
//! * A user is read under their lock, and the time of their token is taken under it. A later change of the
//!   user therefore ends the token (`auth/session.rs`).
//! * The limits on guessing and the hashing are in `auth`.

use std::net::IpAddr;
use std::sync::Arc;

use super::users::{Desk, EMAIL_BYTES, EMAILS, User, UserError, end, own};
use super::{ResourceError, record};
use crate::auth::{Authenticated, Authorized, IssuedToken, Organization, Password, Proven};
use crate::ids::TenantId;

/// The key that is looked up when no user has the email, so that the same read is done.
const NOBODY: &str = "user-";

/// A user who has just proved their identity, and the token that was issued.
#[derive(Debug)]
pub struct Entered {
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
    desk: Desk<'_>,
    peer: Option<IpAddr>,
    org_id: &str,
    email: &str,
    password: Arc<Password>,
) -> Result<Entered, UserError> {
    password.check_length().map_err(|reason| UserError::invalid("password", reason))?;
    let email = email.to_lowercase();
    desk.auth.may_attempt(peer, org_id, &email)?;
    desk.auth.passwords().check_login(peer)?;
    let found = claimed(desk, org_id, &email).await?;
    let whose =
        found.as_ref().map(|found| (found.organization.tenant, found.user.id.as_str(), &found.user.password));
    let turn = desk.auth.passwords().login(peer)?.turn().await?;
    let attempt = desk.auth.attempt(peer, org_id, &email)?;
    let proven = match desk.auth.passwords().verify(turn, password, whose).await {
        Ok(proven) => proven,
        Err(error) => {
            attempt.void();
            return Err(error.into());
        }
    };
    match (found, proven) {
        (Some(found), Some(proven)) if !desk.auth.is_disabled(found.organization.tenant, &found.user.id) => {
            attempt.succeeded();
            enter(desk, found.user, &proven, found.read_ms)
        }
        _ => {
            attempt.failed();
            Err(UserError::Unknown)
        }
    }
}

/// A user whose email was given and whose password is not verified yet.
struct Claimed {
    user: User,
    organization: Arc<Organization>,
    /// When the user was read, Unix milliseconds.
    read_ms: u64,
}

/// Reads the user with an email. If there is none, it reads as much.
async fn claimed(desk: Desk<'_>, org_id: &str, email: &str) -> Result<Option<Claimed>, UserError> {
    let organization = desk.auth.organization_named(org_id);
    let tenant = organization.as_ref().map_or(TenantId(0), |organization| organization.tenant);
    let known = (1..=EMAIL_BYTES).contains(&email.len());
    let read = desk.tenants.store().row(tenant, EMAILS, if known { email } else { NOBODY }).await;
    let id = read.map_err(ResourceError::Read)?.and_then(|id| String::from_utf8(id).ok());
    // The lock keeps the user unchanged, so a token dated now matches what is read now (`auth/session.rs`).
    let _alone = desk.alone(tenant, "user", id.as_deref().unwrap_or(NOBODY)).await;
    let read_ms = desk.now_ms();
    let user: Option<User> =
        record::get(desk.tenants.store(), tenant, id.as_deref().unwrap_or(NOBODY)).await?;
    let user = user.filter(|user| known && user.email == email);
    Ok(organization.zip(user).map(|(organization, user)| Claimed { user, organization, read_ms }))
}

fn enter(desk: Desk<'_>, user: User, proven: &Proven, now_ms: u64) -> Result<Entered, UserError> {
    let organization = desk.auth.organization(proven.tenant()).ok_or(UserError::Unknown)?;
    let issued = desk.auth.session(proven, user.role, now_ms.max(user.good_since_ms))?;
    Ok(Entered { user, organization, issued })
}

/// Sets a user's password, ends all of their tokens, and issues a new one.
///
/// # Errors
/// `Forbidden` if the current password is wrong; [`UserError::TooMany`], as for logins.
pub async fn change_password(
    desk: Desk<'_>,
    peer: Option<IpAddr>,
    right: &Authorized<Authenticated>,
    current: Arc<Password>,
    new: Arc<Password>,
) -> Result<Entered, UserError> {
    current.check_length().map_err(|reason| UserError::invalid("current_password", reason))?;
    new.check_new().map_err(|reason| UserError::invalid("new_password", reason))?;
    let principal = right.principal();
    let tenant = principal.tenant;
    let alone = desk.alone(tenant, "user", principal.sub.as_deref().unwrap_or_default()).await;
    let old = own(desk, principal).await?;
    desk.auth.may_attempt(peer, &principal.org_id, &old.email)?;
    let place = desk.auth.passwords().setter(tenant)?;
    let turn = place.turn().await?;
    let attempt = desk.auth.attempt(peer, &principal.org_id, &old.email)?;
    let hashed = async {
        let whose = Some((tenant, old.id.as_str(), &old.password));
        let proven = desk.auth.passwords().verify(turn, current, whose).await?;
        match proven {
            Some(proven) => Ok(Some((proven, desk.auth.passwords().hash(&place, new).await?))),
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
            attempt.void();
            return Err(UserError::Password(error));
        }
    };
    let user =
        end(desk, desk.auth.actor(right), tenant, &old, alone, |user| user.password = password).await?;
    let since_ms = user.good_since_ms;
    enter(desk, user, &proven, since_ms)
}
