//! Users: how they enter, and what they say of themselves.

use http::Method;

use super::super::event::{wire, words};
use super::super::resource::{Resource, Resources, Versioned, if_match, versioned};
use super::super::{Client, ClientError, Credential, Request};

impl Client {
    /// An organization's users, for whoever manages it.
    pub fn users(&self) -> Resources<'_, User> {
        self.resource()
    }
}

words! {
    "lowercase"
    /// What a user is in an organization.
    UserRole {
        /// Reads, and writes in their own name.
        User,
        /// Everything inside the organization.
        Admin,
        /// Reads.
        Viewer,
    }
}

wire! {
    /// A user.
    User {
        /// `user-…`; the `sub` of their tokens.
        id: String,
        /// Whose.
        organization_id: String,
        /// Theirs alone within the organization.
        email: String,
        /// For people.
        name: String,
        /// What they may do.
        role: UserRole,
        /// Whether they are kept out.
        disabled: bool,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// An IANA name.
        timezone: String,
    }
}

/// A user to be registered.
#[derive(Clone, serde::Serialize)]
pub struct NewUser {
    /// Theirs alone within the organization.
    pub email: String,
    /// At least 8 characters.
    pub password: String,
    /// At least 2 characters.
    pub name: String,
    /// What they may do; not wider than the registrar's own rights.
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

wire! {
    /// What users change of themselves.
    Profile {} maybe {
        /// At least 2 characters.
        name: String,
        /// An IANA name.
        timezone: Option<String>,
    }
}

impl Resource for User {
    const PATH: &'static str = "/api/v1/users";
    type Of = ();
}

/// What a login gives.
#[derive(Debug)]
pub struct Session {
    /// Shows who it is for 24 hours.
    pub token: Credential,
    /// RFC 3339.
    pub expires_at: String,
    /// Whose it is.
    pub user: User,
}

impl Client {
    /// Enters an organization with an email and a password; the client's own credential is not looked at. Give the token to a
    /// client of its own.
    ///
    /// # Errors
    /// [`ClientError`]; 401 for whatever is wrong with the three, 429 after too many that were.
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
        let Body { token, expires_at, user } = self.send(&request).await?.accepted()?.data()?;
        Ok(Session { token: token.into(), expires_at, user })
    }
}

impl Resources<'_, User> {
    /// Registers one. Sent once: after a lost connection the email may be taken.
    ///
    /// # Errors
    /// [`ClientError`]; 409 for an email that is taken.
    pub async fn register(&self, new: &NewUser) -> Result<Versioned<User>, ClientError> {
        let request = Request::new(Method::POST, format!("{}/register", User::PATH)).json(new)?;
        versioned(self.client.send(&request).await?.accepted()?)
    }

    /// Whoever asks.
    ///
    /// # Errors
    /// [`ClientError`]; 404 for an API key and for users of elsewhere.
    pub async fn me(&self) -> Result<Versioned<User>, ClientError> {
        versioned(self.client.repeated(&Request::new(Method::GET, self.at("me"))).await?)
    }

    /// Changes what one says of oneself, if it is still of `version`, where one is named.
    ///
    /// # Errors
    /// [`ClientError`]; 412 if it has changed.
    pub async fn change_me(
        &self,
        version: Option<u64>,
        profile: &Profile,
    ) -> Result<Versioned<User>, ClientError> {
        let request = if_match(Request::new(Method::PUT, self.at("me")).json(profile)?, version);
        versioned(self.client.send(&request).await?.accepted()?)
    }

    /// Changes one's password: every older token ends, the answer has a fresh one.
    ///
    /// # Errors
    /// [`ClientError`]; 401 if `current` is not the password.
    pub async fn change_password(&self, current: &str, new: &str) -> Result<Session, ClientError> {
        let body = serde_json::json!({"current_password": current, "new_password": new});
        let path = format!("{}/password", self.at("me"));
        self.client.session(Request::new(Method::PUT, path).json(&body)?).await
    }
}
