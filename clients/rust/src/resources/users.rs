//! Users: registration, login, profile and password.

use http::Method;

use super::collection::{Collection, Resource, Versioned, if_match, versioned};
use crate::macros::{protocol_struct, string_enum};
use crate::{Client, ClientError, Credential, Request};

impl Client {
    /// Returns the organization's users, for its managers.
    pub fn users(&self) -> Collection<'_, User> {
        self.resource()
    }
}

string_enum! {
    "lowercase"
    /// The role of a user in an organization.
    UserRole {
        /// May read, and write in their own name.
        User,
        /// May do everything inside the organization.
        Admin,
        /// May read only.
        Viewer,
    }
}

protocol_struct! {
    /// A user.
    User {
        /// The id, `user-…`, which is the `sub` of the user's tokens.
        id: String,
        /// The organization of the user.
        organization_id: String,
        /// The email, unique within the organization.
        email: String,
        /// Display name.
        name: String,
        /// What the user may do.
        role: UserRole,
        /// Whether the user is disabled and cannot log in.
        disabled: bool,
        /// Time of creation, RFC 3339.
        created_at: String,
        /// Time of the last change, RFC 3339.
        updated_at: String,
    } optional {
        /// IANA name of the time zone.
        timezone: String,
    }
}

/// Fields of a new user.
#[derive(Clone, serde::Serialize)]
pub struct NewUser {
    /// The email, unique within the organization.
    pub email: String,
    /// The password, at least 8 characters.
    pub password: String,
    /// Display name, at least 2 characters.
    pub name: String,
    /// What the user may do; not wider than the caller's own rights.
    pub role: UserRole,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("email", &self.email)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

protocol_struct! {
    /// Fields that users may change in their own profile.
    ProfileChange {} optional {
        /// Display name, at least 2 characters.
        name: String,
        /// IANA name of the time zone.
        timezone: Option<String>,
    }
}

impl Resource for User {
    const PATH: &'static str = "/api/v1/users";
    type Filter = ();
}

/// The result of a login.
#[derive(Debug)]
pub struct Session {
    /// The credential of the user, valid for 24 hours.
    pub token: Credential,
    /// Expiry, RFC 3339.
    pub expires_at: String,
    /// The user who logged in.
    pub user: User,
}

impl Client {
    /// Logs in to an organization with an email and a password. The client's own credential is not used. Give
    /// the token to a separate client.
    ///
    /// # Errors
    /// [`ClientError`]; 401 if the organization, email or password is wrong, 429 after too many failed
    /// logins.
    pub async fn login(
        &self,
        organization_id: &str,
        email: &str,
        password: &str,
    ) -> Result<Session, ClientError> {
        let body =
            serde_json::json!({"organization_id": organization_id, "email": email, "password": password});
        self.session(Request::new(Method::POST, format!("{}/login", User::PATH)).json(&body)?).await
    }

    async fn session(&self, request: Request) -> Result<Session, ClientError> {
        #[derive(serde::Deserialize)]
        struct Body {
            token: String,
            expires_at: String,
            user: User,
        }
        let Body { token, expires_at, user } =
            self.send(&request).await?.error_for_status()?.decode_data()?;
        Ok(Session { token: token.into(), expires_at, user })
    }
}

impl Collection<'_, User> {
    /// Registers a user. The request is sent once: after a lost connection the user may have been created.
    ///
    /// # Errors
    /// [`ClientError`]; 409 if the email is taken.
    pub async fn register(&self, new: &NewUser) -> Result<Versioned<User>, ClientError> {
        let request = Request::new(Method::POST, format!("{}/register", User::PATH)).json(new)?;
        versioned(self.client.send(&request).await?.error_for_status()?)
    }

    /// Gets the calling user.
    ///
    /// # Errors
    /// [`ClientError`]; 404 for an API key and for users who are not registered here.
    pub async fn me(&self) -> Result<Versioned<User>, ClientError> {
        versioned(self.client.send_retrying(&Request::new(Method::GET, self.at("me"))).await?)
    }

    /// Updates the calling user's profile. If `version` is set, only if it still has that version.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn update_me(
        &self,
        version: Option<u64>,
        profile: &ProfileChange,
    ) -> Result<Versioned<User>, ClientError> {
        let request = if_match(Request::new(Method::PUT, self.at("me")).json(profile)?, version);
        versioned(self.client.send(&request).await?.error_for_status()?)
    }

    /// Changes the calling user's password. All older tokens end; the result has a new one.
    ///
    /// # Errors
    /// [`ClientError`]; 401 if `current` is not the password.
    pub async fn change_password(&self, current: &str, new: &str) -> Result<Session, ClientError> {
        let body = serde_json::json!({"current_password": current, "new_password": new});
        let path = format!("{}/password", self.at("me"));
        self.client.session(Request::new(Method::PUT, path).json(&body)?).await
    }
}
