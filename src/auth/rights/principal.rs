//! Who a credential stands for, and what it allows.
//!
//! * Only this folder creates a [`Principal`], and only from a verified credential. Only this folder creates
//!   [`Authorized`], so a function that takes an `Authorized<Publish>` does not check the right again.
//! * A principal is a snapshot; `Auth::still_valid` says whether it is still valid.
//! * This module does not know connections or logged events.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use super::permissions;
use super::scope::{Scope, ScopeSet};
use crate::auth::error::{MissingScope, PublishDenied};
use crate::auth::records::directory::Organization;
use crate::auth::records::rows::Visibility;
use crate::auth::request::presented::CredentialSource;
use crate::auth::tokens::jti::{self, MintedBy};
use crate::auth::tokens::keys::KeyDigest;
use crate::event::Event;
use crate::filter::{Narrowing, Rights};
use crate::ids::TenantId;

/// Who a verified credential stands for. Only `auth` creates it, and it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// The organization's number, the key of every lookup.
    pub tenant: TenantId,
    /// The organization's public id.
    pub org_id: Arc<str>,
    /// The user's id; `None` for an API key.
    pub sub: Option<Box<str>>,
    /// The roles that the token names. The scopes that they grant are already in `scopes`.
    pub roles: Box<[Box<str>]>,
    /// What the principal may do.
    pub scopes: ScopeSet,
    /// What the principal is limited to.
    pub narrowing: Narrowing,
    /// Expiry in Unix milliseconds: it is invalid from then on. `None`: it does not expire. For a ticket it
    /// is the expiry of the credential that the ticket was made from.
    pub expires_at_ms: Option<u64>,
    /// The credential that is revoked to end this principal. For a ticket it is the credential that the
    /// ticket was made from.
    pub credential: CredentialId,
    /// Where in the request the credential was.
    pub via: CredentialSource,
}

/// Identifies a credential. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialId {
    /// An API key.
    Key {
        /// The key id.
        key_id: Arc<str>,
        /// Unix milliseconds at which the key made a ticket in the name of a user; 0 if the key itself was
        /// presented.
        issued_at_ms: u64,
    },
    /// A JWT.
    Token {
        /// The key that verified it.
        key: KeyDigest,
        /// Its `jti`, by which it is revoked.
        jti: Option<Box<str>>,
        /// Unix milliseconds; 0 if the token does not say.
        issued_at_ms: u64,
        /// True if it was issued for a password: it stands for a registered user, who outlasts the token.
        session: bool,
    },
    /// The command line with direct access to the data directory.
    Local,
}

impl Principal {
    /// The command line on a data directory that no daemon has open. It has every scope in every
    /// organization. It belongs to no organization, so it can only administer. Never use it for a request.
    #[must_use]
    pub fn local_operator() -> Arc<Principal> {
        Arc::new(Principal {
            tenant: TenantId(0),
            org_id: "".into(),
            sub: None,
            roles: Box::default(),
            scopes: ScopeSet::OPERATOR,
            narrowing: Narrowing::default(),
            expires_at_ms: None,
            credential: CredentialId::Local,
            via: CredentialSource::Bearer,
        })
    }

    /// Returns what the principal may read now, given the current row of its organization.
    #[must_use]
    pub fn rights(&self, organization: &Organization) -> Rights {
        Rights {
            sub: self.sub.clone(),
            sees_all_users: self.scopes.has(Scope::ReadAll) || organization.visibility == Visibility::Org,
            narrowing: self.narrowing.clone(),
        }
    }

    /// The identity that makes a repeated request the same request: the user, or else the key, with the same
    /// narrowing. So a stored response is never repeated to a credential that may not see its contents.
    #[must_use]
    pub fn subject(&self) -> Cow<'_, str> {
        let narrowing = match self.narrowing.is_none() {
            true => String::new(),
            // No `sub` and no key id contains a line feed. A narrowing consists of names, so serializing it
            // cannot fail.
            false => format!("\n{}", serde_json::to_string(&self.narrowing).unwrap_or_default()),
        };
        match (&self.sub, &self.credential) {
            (Some(sub), _) => Cow::Owned(format!("user:{sub}{narrowing}")),
            (None, CredentialId::Key { key_id, .. }) => Cow::Owned(format!("key:{key_id}{narrowing}")),
            (None, CredentialId::Token { .. } | CredentialId::Local) => Cow::Borrowed("local"),
        }
    }

    /// The id of the API key that authenticated the principal, if it was one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        match &self.credential {
            CredentialId::Key { key_id, .. } => Some(key_id),
            CredentialId::Token { .. } | CredentialId::Local => None,
        }
    }

    /// The rate at which this principal may publish and write, over all of its connections: `limit`, or 0 (no
    /// limit) for a principal that may publish for the whole organization. Only services have that right.
    #[must_use]
    pub fn publish_rate(&self, limit: u64) -> u64 {
        if self.scopes.has(Scope::PublishOrg) { 0 } else { limit }
    }

    /// Returns true if the principal may change and delete an agent or tool with this owner. Without an
    /// owner, that needs the scope `agents`.
    #[must_use]
    pub fn may_change_owned_by(&self, owner: Option<&str>) -> bool {
        let owns = owner.is_some() && owner == self.sub.as_deref();
        self.scopes.has(Scope::Agents) || (owns && self.scopes.has(Scope::Write))
    }

    /// The API key that minted the token, or that minted the token's own maker. The token ends with it.
    #[must_use]
    pub fn made_by_key(&self) -> Option<&str> {
        match self.maker()? {
            MintedBy::Key(key_id) => Some(key_id),
            MintedBy::Token(..) => None,
        }
    }

    /// The user whose token minted this one. This token ends when that user's tokens end.
    #[must_use]
    pub fn made_by_user(&self) -> Option<String> {
        match self.maker()? {
            MintedBy::Key(_) => None,
            MintedBy::Token(_, sub) => sub,
        }
    }

    fn maker(&self) -> Option<MintedBy<'_>> {
        match &self.credential {
            CredentialId::Token { jti, .. } => jti.as_deref().and_then(jti::maker),
            CredentialId::Key { .. } | CredentialId::Local => None,
        }
    }

    /// Grants the right `R`.
    ///
    /// # Errors
    /// The missing scope: 403.
    pub fn authorize<R: Right>(self: &Arc<Self>) -> Result<Authorized<R>, MissingScope> {
        match R::is_granted_by(self.scopes) {
            true => Ok(Authorized { principal: Arc::clone(self), right: PhantomData }),
            false => Err(MissingScope(R::NAME)),
        }
    }
}

/// Proof that a principal has the right `R`. Only [`Principal::authorize`] creates one.
#[derive(Debug)]
pub struct Authorized<R> {
    principal: Arc<Principal>,
    right: PhantomData<fn() -> R>,
}

impl<R> Authorized<R> {
    /// The principal that has the right.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
}

impl<R> Clone for Authorized<R> {
    fn clone(&self) -> Self {
        Authorized { principal: Arc::clone(&self.principal), right: PhantomData }
    }
}

impl<R: NamesUsers> Authorized<R> {
    /// Checks that `event` may be published (protocol §3), or the message or memory in it be written. Fills
    /// in the caller's `user_id` if the caller may only act for itself.
    ///
    /// # Errors
    /// [`PublishDenied`]: 403. The event is unchanged in this case.
    pub fn check(&self, event: &mut Event<'_>) -> Result<(), PublishDenied> {
        self.principal.check_publish(event)
    }
}

impl Principal {
    fn check_publish(&self, event: &mut Event<'_>) -> Result<(), PublishDenied> {
        let channel = event.channel.as_deref();
        if !self.narrowing.permits(event.kind, event.agent_id.as_deref(), channel) {
            return Err(PublishDenied::Narrowed);
        }
        if self.scopes.has(Scope::PublishOrg) {
            return Ok(());
        }
        if !event.kind.has_user() {
            return Err(PublishDenied::WholeOrganization);
        }
        let Some(sub) = &self.sub else { return Err(PublishDenied::NoUser) };
        match &event.user_id {
            Some(user) if user.as_ref() != sub.as_ref() => Err(PublishDenied::OtherUser),
            Some(_) => Ok(()),
            None => {
                event.user_id = Some(Cow::Owned(sub.to_string()));
                Ok(())
            }
        }
    }
}

/// A kind of right, the parameter of [`Authorized`].
pub trait Right: sealed::Sealed {
    /// One of these scopes is enough.
    const ANY_OF: ScopeSet;
    /// The scope that the error names.
    const NAME: &'static str;

    /// Returns true if a principal with these scopes has the right.
    #[must_use]
    fn is_granted_by(scopes: ScopeSet) -> bool {
        scopes.intersects(Self::ANY_OF)
    }
}

/// The right that every valid credential has, whatever its scopes: to manage itself.
#[derive(Debug, Clone, Copy)]
pub enum Authenticated {}
impl sealed::Sealed for Authenticated {}
impl Right for Authenticated {
    const ANY_OF: ScopeSet = ScopeSet::NONE;
    const NAME: &'static str = "";

    fn is_granted_by(_scopes: ScopeSet) -> bool {
        true
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident = $permission:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Right for $name {
            const ANY_OF: ScopeSet = $permission.any_of;
            const NAME: &'static str = $permission.gives.name();
        }
    )*};
}

/// A right to act in the name of one user or of all users.
pub trait NamesUsers: Right {}
impl NamesUsers for Publish {}
impl NamesUsers for WriteAsUser {}

/// A right to mint tokens for users. The principal's scopes limit the rights in those tokens.
pub trait MintsTokens: Right {}
impl MintsTokens for Mint {}
impl MintsTokens for Manage {}

rights! {
    /// May publish events. [`Authorized::check`] decides for each event.
    Publish = permissions::PUBLISH;
    /// May write messages, memories and its own profile. [`Authorized::check`] decides for the event of each
    /// write.
    WriteAsUser = permissions::WRITE;
    /// May write agents and tools. [`Principal::may_change_owned_by`] decides for each.
    WriteOwned = permissions::WRITE_OWN;
    /// May open subscriptions and read history and resources.
    Subscribe = permissions::READ;
    /// May mint tokens and tickets for users.
    Mint = permissions::MINT;
    /// May manage its organization's keys, tokens, users and connections.
    Manage = permissions::MANAGE;
    /// May create, list and delete organizations.
    Operate = permissions::OPERATE;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[&str], sub: Option<&str>, narrowing: &str) -> Arc<Principal> {
        Arc::new(Principal {
            tenant: TenantId(1),
            org_id: "acme".into(),
            sub: sub.map(Into::into),
            roles: Box::default(),
            scopes: scopes.iter().map(|name| ScopeSet::from_claim(name)).collect(),
            narrowing: serde_json::from_str(narrowing).expect("a narrowing"),
            expires_at_ms: None,
            credential: CredentialId::Key { key_id: "k".into(), issued_at_ms: 0 },
            via: CredentialSource::Bearer,
        })
    }

    fn publish(who: &Arc<Principal>, json: &str) -> Result<Option<String>, PublishDenied> {
        let mut event = Event::parse(json).expect(json);
        let right = who.authorize::<Publish>().expect("a publisher");
        right.check(&mut event).map(|()| event.user_id.map(Cow::into_owned))
    }

    const MINE: &str = r#"{"type":"message","agent_id":"a","content":"x","user_id":"ann"}"#;
    const THEIRS: &str = r#"{"type":"message","agent_id":"a","content":"x","user_id":"bob"}"#;
    const NOBODYS: &str = r#"{"type":"message","agent_id":"a","content":"x"}"#;
    const UPDATE: &str = r#"{"type":"agent_update","agent_id":"a","status":"idle"}"#;

    #[test]
    fn publish_speaks_for_oneself_only() {
        let ann = principal(&["publish"], Some("ann"), "{}");
        assert_eq!(publish(&ann, NOBODYS), Ok(Some("ann".into())));
        assert_eq!(publish(&ann, MINE), Ok(Some("ann".into())));
        assert_eq!(publish(&ann, THEIRS), Err(PublishDenied::OtherUser));
        assert_eq!(publish(&ann, UPDATE), Err(PublishDenied::WholeOrganization));
        let key = principal(&["publish", "read:all"], None, "{}");
        assert_eq!(publish(&key, NOBODYS), Err(PublishDenied::NoUser));
        assert_eq!(publish(&key, MINE), Err(PublishDenied::NoUser));
    }

    #[test]
    fn publish_org_speaks_for_anyone_and_everyone() {
        for who in [principal(&["publish:org"], None, "{}"), principal(&["publish:org"], Some("ann"), "{}")] {
            assert_eq!(publish(&who, NOBODYS), Ok(None));
            assert_eq!(publish(&who, THEIRS), Ok(Some("bob".into())));
            assert_eq!(publish(&who, UPDATE), Ok(None));
        }
    }

    #[test]
    fn narrowing_binds_publishing_whatever_the_scope() {
        let custom = r#"{"type":"custom","channel":"a/b","data":1}"#;
        for (narrowing, json, allowed) in [
            (r#"{"agents":["a"]}"#, NOBODYS, true),
            (r#"{"agents":["b"]}"#, NOBODYS, false),
            (r#"{"agents":[]}"#, NOBODYS, false),
            (r#"{"agents":["a"]}"#, custom, false),
            (r#"{"channels":["a/*"]}"#, custom, true),
            (r#"{"channels":["a"]}"#, custom, false),
            (r#"{"channels":["a/*"]}"#, NOBODYS, false),
            (r#"{"types":["message"]}"#, NOBODYS, true),
            (r#"{"types":["message"]}"#, custom, false),
        ] {
            let result = publish(&principal(&["*"], None, narrowing), json);
            assert_eq!(result.is_ok(), allowed, "{narrowing} {json}");
            assert!(allowed || result == Err(PublishDenied::Narrowed));
        }
    }

    #[test]
    fn an_owner_with_write_and_anyone_with_agents_may_change() {
        for (scopes, sub, owner, allowed) in [
            (["write"], Some("ann"), Some("ann"), true),
            (["write"], Some("ann"), Some("bob"), false),
            (["write"], Some("ann"), None, false),
            (["write"], None, None, false),
            (["publish:org"], Some("ann"), Some("ann"), false),
            (["agents"], Some("ann"), Some("bob"), true),
            (["agents"], None, None, true),
        ] {
            let may = principal(&scopes, sub, "{}").may_change_owned_by(owner);
            assert_eq!(may, allowed, "{scopes:?} {sub:?} {owner:?}");
        }
    }

    #[test]
    fn a_right_needs_its_scope() {
        let reader = principal(&["read:all"], None, "{}");
        assert_eq!(reader.authorize::<Publish>().err(), Some(MissingScope("publish")));
        assert_eq!(reader.authorize::<Subscribe>().err(), Some(MissingScope("subscribe")));
        let star = principal(&["*"], None, "{}");
        assert!(star.authorize::<Manage>().is_ok());
        assert_eq!(star.authorize::<Operate>().err(), Some(MissingScope("operator")));
    }
}
