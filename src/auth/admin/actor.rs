//! The authority under which a commit is made.
//!
//! * Every function that commits takes an [`Actor`] and calls [`Actor::confirm`] last: after the body is read
//!   and after every wait for a lock or for room, right before it numbers, queues or writes anything. So a
//!   request never commits after its credential has ended.
//! * An actor is created from a right ([`Auth::actor`]) or is the daemon itself ([`Actor::daemon`]), so no
//!   caller can commit without a right.
//! * `confirm` reads memory only. It does no IO and does not wait, because publishing calls it under the
//!   organization's lock.

use std::fmt;

use crate::auth::Auth;
use crate::auth::error::CredentialEnded;
use crate::auth::rights::authorized::Authorized;
use crate::auth::rights::principal::Principal;

/// On whose authority a commit is made: that of a caller, which is checked again right before the commit, or
/// of the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a>(ActorKind<'a>);

#[derive(Clone, Copy)]
enum ActorKind<'a> {
    Daemon,
    Caller { auth: &'a Auth, principal: &'a Principal },
}

impl fmt::Debug for ActorKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActorKind::Daemon => f.write_str("Daemon"),
            ActorKind::Caller { principal, .. } => principal.credential.fmt(f),
        }
    }
}

impl Actor<'_> {
    /// The daemon itself, for commits that no request caused: presence, erasure, maintenance. Never use it
    /// for a request.
    #[must_use]
    pub const fn daemon() -> Actor<'static> {
        Actor(ActorKind::Daemon)
    }

    /// Returns the caller; `None` for the daemon itself.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        match self.0 {
            ActorKind::Daemon => None,
            ActorKind::Caller { principal, .. } => Some(principal),
        }
    }

    /// Returns an error if the caller's credential has ended. A function that commits calls this last.
    ///
    /// # Errors
    /// The reason why the credential has ended.
    pub fn confirm(self) -> Result<(), CredentialEnded> {
        match self.0 {
            ActorKind::Daemon => Ok(()),
            ActorKind::Caller { auth, principal } => auth.confirm(principal),
        }
    }
}

impl Auth {
    /// Returns the caller that was granted `right`, as the actor of a commit.
    #[must_use]
    pub fn actor<'a, R>(&'a self, right: &'a Authorized<R>) -> Actor<'a> {
        Actor(ActorKind::Caller { auth: self, principal: right.principal() })
    }
}
