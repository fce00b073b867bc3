//! Users: they log in to an organization with email and password, and have a role in it.
//!
//! * A user's id is the `sub` of their tokens. The email is unique in the organization: a row of its own maps
//!   it to the user's id.
//! * Every change of a user's rights (password, role, deletion) ends the tokens issued before it, in the same
//!   commit.
//! * No event reports a user. `user_erasure.rs` erases the data of deleted users, and `login.rs` has the
//!   logins.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::record::{self, PageRequest, PageStart, Record};
use super::user_erasure::PendingUserErasure;
use super::{NAME_BYTES, ResourceError, check_name, check_version, double_option, lock_key, next_number};
use crate::auth::{
    Actor, AdminError, Auth, Authorized, Manage, Organization, Password, PasswordError, PasswordHash,
    Principal, Role, TooManyAttempts, WriteAsUser,
};
use crate::ids::TenantId;
use crate::store::{Group, List, Rows, Table};
use crate::tenant::Tenants;
use crate::tenant::idempotency::KeyGuards;
use crate::tenant::publish::PublishError;

/// The table that maps an email to the user's id.
pub(super) const EMAILS: Table = Table::Emails;
/// Maximum of bytes of an email (RFC 5321 §4.5.3.1.3).
pub const EMAIL_BYTES: usize = 254;
/// Minimum of characters of a user's name.
pub const NAME_CHARS: usize = 2;

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// Id: `user-<uuid7>`.
    pub id: String,
    number: u64,
    /// Email, in lower case.
    pub email: String,
    /// Name for people.
    pub name: String,
    /// IANA time zone name, for the platform.
    pub timezone: Option<String>,
    /// Role, which determines what the user may do.
    pub role: Role,
    pub(super) password: PasswordHash,
    /// Unix milliseconds. Tokens issued earlier are not valid. `auth` forgets this time when all such tokens
    /// have expired; this row keeps it.
    pub(super) good_since_ms: u64,
    /// Time of registration, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
}

impl Record for User {
    const TABLE: Table = Table::Users;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        vec![Group::new(List::AllUsers, &[])]
    }
}

/// A user to register.
#[derive(Debug)]
pub struct NewUser {
    /// Email, unique in the organization.
    pub email: String,
    /// Password, at least 8 characters.
    pub password: Arc<Password>,
    /// Name, at least 2 characters.
    pub name: String,
    /// IANA time zone name.
    pub timezone: Option<String>,
    /// Role. It cannot exceed the rights of the caller.
    pub role: Role,
}

/// A change that users make to themselves. A field that is left out stays as it is; `null` clears it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = UserChange)]
pub struct UserPatch {
    /// Name, at least 2 characters.
    name: Option<String>,
    /// Time zone, for the platform.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    timezone: Option<Option<String>>,
}

/// Why a user was not read, changed or logged in.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// An error of resources.
    #[error("{0}")]
    Resource(#[from] ResourceError),
    /// An error of the administration.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// The password could not be verified or hashed.
    #[error("{0}")]
    Password(#[from] PasswordError),
    /// The login is wrong: organization, email and password do not match a user who may log in.
    #[error("organization, email or password is wrong")]
    Unknown,
    /// There were too many wrong logins.
    #[error("{0}")]
    TooMany(#[from] TooManyAttempts),
}

impl UserError {
    pub(super) fn invalid(field: &str, reason: impl Into<String>) -> UserError {
        ResourceError::invalid(field, reason).into()
    }
}

/// What the functions on users need.
#[derive(Clone, Copy)]
pub struct UserService<'a> {
    /// All organizations.
    pub tenants: &'a Arc<Tenants>,
    /// Checks credentials and passwords.
    pub auth: &'a Auth,
}

impl UserService<'_> {
    pub(super) fn now_ms(&self) -> u64 {
        self.tenants.clock().now_ms()
    }

    /// The organization that a manager names: its own, or any for the operator.
    fn target(
        &self,
        right: &Authorized<Manage>,
        org_id: Option<&str>,
    ) -> Result<Arc<Organization>, UserError> {
        Ok(self.auth.find_organization(right, org_id)?)
    }

    pub(super) async fn lock(&self, tenant: TenantId, kind: &str, id: &str) -> Arc<KeyGuards> {
        self.tenants.lock_keys(tenant, vec![lock_key(kind, id)]).await
    }

    async fn user(&self, tenant: TenantId, id: &str) -> Result<User, UserError> {
        let found: Option<User> = record::get(self.tenants.store(), tenant, id).await?;
        Ok(found.ok_or(ResourceError::NotFound)?)
    }

    /// Commits rows. They hold the lock of the user that they change.
    async fn commit(&self, actor: Actor<'_>, rows: Rows) -> Result<(), UserError> {
        Ok(self.tenants.write(actor, rows).await.map_err(ResourceError::Publish)?)
    }

    fn writable(&self) -> Result<(), UserError> {
        Ok(self.tenants.check_writable().map_err(ResourceError::Publish)?)
    }
}

/// Registers a user. `response_rows` returns rows to add to the commit.
///
/// # Errors
/// [`UserError`]; `Conflict` if a user has this email already.
pub async fn register(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    new: NewUser,
    response_rows: impl FnOnce(&User, &Organization) -> Rows,
) -> Result<(User, Arc<Organization>), UserError> {
    let organization = service.target(right, org_id)?;
    let tenant = organization.tenant;
    check_role(right, new.role)?;
    right.principal().check_lasting()?;
    let (email, name) = (email(&new.email)?, name(new.name)?);
    let timezone = check_name("timezone", new.timezone)?;
    new.password.check_new().map_err(|reason| UserError::invalid("password", reason))?;
    let guard = service.lock(tenant, "email", &email).await;
    // Checked first, so that no password is hashed for an email that is taken.
    let read = service.tenants.store().row(tenant, EMAILS, &email).await;
    if read.map_err(ResourceError::Read)?.is_some() {
        return Err(ResourceError::Conflict("a user with this email exists".into()).into());
    }
    let place = service.auth.passwords().setter(right.principal().tenant)?;
    let password = service.auth.passwords().hash(&place, new.password).await?;
    drop(place);
    let now_ms = service.now_ms();
    let user = User {
        id: crate::ids::fresh("user"),
        number: next_number(now_ms),
        email,
        name,
        timezone,
        role: new.role,
        password,
        good_since_ms: 0,
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 1,
    };
    let mut rows = response_rows(&user, &organization);
    rows.hold_until_commit(guard);
    record::put(&mut rows, tenant, None, &user)?;
    rows.put_row(tenant, EMAILS, &user.email, user.id.as_bytes()).map_err(ResourceError::TooLarge)?;
    let room = service.tenants.store().reserve(tenant, rows.growth()).map_err(PublishError::from);
    rows.hold_reservation(room.map_err(ResourceError::Publish)?);
    service.commit(service.auth.actor(right), rows).await?;
    Ok((user, organization))
}

/// Returns the caller as a user of the organization.
///
/// # Errors
/// `NotFound` for an API key, and for a token whose `sub` was not registered here.
pub async fn own_user(service: UserService<'_>, principal: &Principal) -> Result<User, UserError> {
    let sub = principal.sub.as_deref().ok_or(ResourceError::NotFound)?;
    service.user(principal.tenant, sub).await
}

/// Changes fields that users may set for themselves, if `version` is still the current one.
///
/// # Errors
/// [`UserError`].
pub async fn change_me(
    service: UserService<'_>,
    right: &Authorized<WriteAsUser>,
    version: Option<u64>,
    patch: UserPatch,
) -> Result<User, UserError> {
    let principal = right.principal();
    let guard = service.lock(principal.tenant, "user", principal.sub.as_deref().unwrap_or_default()).await;
    let old = own_user(service, principal).await?;
    check_version(version, old.version)?;
    let mut user = old.clone();
    user.name = name(patch.name.unwrap_or(user.name))?;
    user.timezone = check_name("timezone", patch.timezone.unwrap_or(user.timezone))?;
    user.updated_ms = service.now_ms();
    user.version += 1;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::put(&mut rows, principal.tenant, Some(&old), &user)?;
    service.commit(service.auth.actor(right), rows).await?;
    Ok(user)
}

/// Sets a user's role. The user's older tokens end.
///
/// # Errors
/// `Forbidden` if the old or the new role exceeds the caller's own rights; `NotFound`;
/// [`ResourceError::Changed`].
pub async fn set_role(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    id: &str,
    version: Option<u64>,
    role: Role,
) -> Result<(User, Arc<Organization>), UserError> {
    let organization = service.target(right, org_id)?;
    let guard = service.lock(organization.tenant, "user", id).await;
    let old = service.user(organization.tenant, id).await?;
    check_version(version, old.version)?;
    check_role(right, role)?;
    check_role(right, old.role)?;
    if !old.role.scopes().covers(role.scopes()) {
        right.principal().check_lasting()?;
    }
    if old.role == role {
        service.auth.actor(right).confirm().map_err(AdminError::Ended)?;
        return Ok((old, organization));
    }
    let user =
        end(service, service.auth.actor(right), organization.tenant, &old, guard, |user| user.role = role)
            .await?;
    Ok((user, organization))
}

/// Changes a user and ends all earlier tokens, in one commit.
pub(super) async fn end(
    service: UserService<'_>,
    actor: Actor<'_>,
    tenant: TenantId,
    old: &User,
    guard: Arc<KeyGuards>,
    change: impl FnOnce(&mut User),
) -> Result<User, UserError> {
    service.writable()?;
    let mut user = old.clone();
    change(&mut user);
    user.good_since_ms =
        service.auth.next_valid_since(tenant, &old.id).max(old.good_since_ms.saturating_add(1));
    user.updated_ms = service.now_ms();
    user.version += 1;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::put(&mut rows, tenant, Some(old), &user)?;
    service.auth.end_tokens(actor, tenant, &old.id, user.good_since_ms, rows).await?;
    Ok(user)
}

/// Disables or enables a user. The user need not be registered here.
///
/// # Errors
/// The same as [`Auth::set_disabled`].
pub async fn set_disabled(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    id: &str,
    disabled: bool,
) -> Result<(), UserError> {
    let tenant = service.target(right, org_id)?.tenant;
    let _guard = service.lock(tenant, "user", id).await; // the lock keeps the user's role unchanged
    let user: Option<User> = record::get(service.tenants.store(), tenant, id).await?;
    Ok(service.auth.set_disabled(right, org_id, id, user.map(|user| user.role), disabled).await?)
}

/// Deletes a user. Their password and tokens are no longer valid, and their data is erased soon.
///
/// # Errors
/// `Forbidden` if the role exceeds the caller's own rights; `NotFound`; [`ResourceError::Changed`].
pub async fn delete(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    id: &str,
    version: Option<u64>,
) -> Result<(), UserError> {
    let tenant = service.target(right, org_id)?.tenant;
    let guard = service.lock(tenant, "user", id).await;
    let user = service.user(tenant, id).await?;
    check_version(version, user.version)?;
    check_role(right, user.role)?;
    service.writable()?;
    // Later the user's events are refused, so nothing could tell readers that these streams have ended.
    service.tenants.cancel_streams_of_user(tenant, id).await.map_err(ResourceError::from)?;
    let since_ms = service.auth.next_valid_since(tenant, id).max(user.good_since_ms.saturating_add(1));
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    // A concurrent registration of the same email either finds it taken or runs after this commit.
    rows.hold_until_commit(service.lock(tenant, "email", &user.email).await);
    record::remove(&mut rows, tenant, &user);
    rows.delete_row(tenant, EMAILS, &user.email);
    rows.erase_user(tenant, id).map_err(ResourceError::TooLarge)?;
    PendingUserErasure::begin(&mut rows, tenant, id, service.now_ms())?;
    service.auth.end_tokens(service.auth.actor(right), tenant, id, since_ms, rows).await?;
    if let Some(tenant) = service.tenants.get(tenant) {
        // connections that are behind read the log from now on, where the user's events are being erased
        service.tenants.forget_frames(&tenant);
    }
    Ok(())
}

/// Gets a user of an organization.
///
/// # Errors
/// `NotFound`.
pub async fn get(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    id: &str,
) -> Result<(User, Arc<Organization>), UserError> {
    let organization = service.target(right, org_id)?;
    Ok((service.user(organization.tenant, id).await?, organization))
}

/// A page of users.
pub type UserPage = (Vec<User>, Option<PageStart>);

/// Lists users of an organization, in the order of registration.
///
/// # Errors
/// `NotFound` for the organization.
pub async fn list(
    service: UserService<'_>,
    right: &Authorized<Manage>,
    org_id: Option<&str>,
    page: &PageRequest,
) -> Result<(UserPage, Arc<Organization>), UserError> {
    let organization = service.target(right, org_id)?;
    let store = service.tenants.store();
    Ok((record::list(store, organization.tenant, Group::new(List::AllUsers, &[]), page).await?, organization))
}

/// Checks that a role does not exceed the caller's rights: no one may grant or take away more than they have.
/// Users are not narrowed, so a narrowed credential may not create or change any.
fn check_role(right: &Authorized<Manage>, role: Role) -> Result<(), UserError> {
    let own = right.principal();
    if !own.narrowing.is_none() {
        return Err(ResourceError::Forbidden("a narrowed credential cannot give or take roles").into());
    }
    match own.scopes.covers(role.scopes()) {
        true => Ok(()),
        false => Err(ResourceError::Forbidden("role: exceeds your own rights").into()),
    }
}

/// Returns an email in the form in which it is stored and looked up.
fn email(text: &str) -> Result<String, UserError> {
    let email = text.to_lowercase();
    let sound = match email.split_once('@') {
        Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
        None => false,
    };
    let plain = !email.chars().any(|c| c.is_whitespace() || c.is_control());
    match sound && plain && email.len() <= EMAIL_BYTES {
        true => Ok(email),
        false => {
            let reason = format!("must be an address like ann@example.org, at most {EMAIL_BYTES} bytes");
            Err(UserError::invalid("email", reason))
        }
    }
}

fn name(text: String) -> Result<String, UserError> {
    if text.trim().chars().count() < NAME_CHARS {
        return Err(UserError::invalid(
            "name",
            format!("must have {NAME_CHARS} characters to {NAME_BYTES} bytes"),
        ));
    }
    Ok(check_name("name", Some(text))?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_stored_normalized() {
        assert_eq!(email("Ann@Example.ORG").ok().as_deref(), Some("ann@example.org"));
        let long = format!("{}@b", "a".repeat(EMAIL_BYTES));
        for wrong in ["", "ann", "@b", "a@", "a@b@c", "a b@c", " a@b", "a@b\n", long.as_str()] {
            assert!(email(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn user_names_need_two_characters() {
        assert!(name("Jo".into()).is_ok() && name("李明".into()).is_ok());
        assert!(name("J".into()).is_err() && name("  J  ".into()).is_err());
        assert!(name("x".repeat(NAME_BYTES + 1)).is_err());
    }
}
