//! Rights, and the proof that a principal has one.
//!
//! * Only [`Principal::authorize`] creates an [`Authorized`], so a function that takes an
//!   `Authorized<Publish>` does not check the right again.
//! * The scopes that a right needs are in `permissions.rs`.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use super::permissions;
use super::principal::Principal;
use super::scope::{Scope, ScopeSet};
use crate::auth::error::{MissingScope, PublishDenied};
use crate::event::Event;

impl Principal {
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
pub(super) mod tests {
    use super::*;
    use crate::auth::rights::credential::{CredentialId, CredentialSource};
    use crate::ids::TenantId;

    pub(in crate::auth::rights) fn principal(
        scopes: &[&str],
        sub: Option<&str>,
        narrowing: &str,
    ) -> Arc<Principal> {
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
    fn publish_allows_events_in_ones_own_name_only() {
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
    fn publish_org_allows_events_for_any_user_and_for_all() {
        for who in [principal(&["publish:org"], None, "{}"), principal(&["publish:org"], Some("ann"), "{}")] {
            assert_eq!(publish(&who, NOBODYS), Ok(None));
            assert_eq!(publish(&who, THEIRS), Ok(Some("bob".into())));
            assert_eq!(publish(&who, UPDATE), Ok(None));
        }
    }

    #[test]
    fn narrowing_limits_publishing_with_every_scope() {
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
    fn a_right_needs_its_scope() {
        let reader = principal(&["read:all"], None, "{}");
        assert_eq!(reader.authorize::<Publish>().err(), Some(MissingScope("publish")));
        assert_eq!(reader.authorize::<Subscribe>().err(), Some(MissingScope("subscribe")));
        let star = principal(&["*"], None, "{}");
        assert!(star.authorize::<Manage>().is_ok());
        assert_eq!(star.authorize::<Operate>().err(), Some(MissingScope("operator")));
    }
}
