//! On whose authority something is committed.
//!
//! * Every function that commits takes an [`Actor`] and calls [`Actor::confirm`] last: after the body was read, after every wait
//!   for a lock or for room, right before it numbers, queues or writes anything. A request therefore never outlives the
//!   credential that it came with.
//! * An actor is made of a right ([`Auth::actor`]) or is the daemon itself ([`Actor::daemon`]), so no caller's commit can be
//!   written down without a right.
//! * Confirming reads memory alone: no IO and no wait. Publishing does it under the organization's lock.

use std::fmt;

use super::error::Ended;
use super::principal::{Authorized, Credential, Principal};
use super::{Auth, verify};

/// Who commits something: a caller whose credential is looked at again right before the commit, or the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a>(Kind<'a>);

#[derive(Clone, Copy)]
enum Kind<'a> {
    Daemon,
    Caller { auth: &'a Auth, principal: &'a Principal },
}

impl fmt::Debug for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Daemon => f.write_str("Daemon"),
            Kind::Caller { principal, .. } => principal.credential.fmt(f),
        }
    }
}

impl Actor<'_> {
    /// The daemon itself, for what no request asked for: presence, erasure, upkeep. Never for a request.
    #[must_use]
    pub const fn daemon() -> Actor<'static> {
        Actor(Kind::Daemon)
    }

    /// Returns an error if the caller's credential has ended by now. What commits calls this last.
    ///
    /// # Errors
    /// Why the credential has ended.
    pub fn confirm(self) -> Result<(), Ended> {
        match self.0 {
            Kind::Daemon => Ok(()),
            Kind::Caller { auth, principal } => auth.confirm(principal),
        }
    }
}

impl Auth {
    /// The caller who was granted `right`, for what it commits.
    #[must_use]
    pub fn actor<'a, R>(&'a self, right: &'a Authorized<R>) -> Actor<'a> {
        Actor(Kind::Caller { auth: self, principal: right.principal() })
    }

    /// Returns an error if a principal does not hold any more. The command line on a stopped store always holds.
    ///
    /// # Errors
    /// Why its credential has ended.
    pub fn confirm(&self, principal: &Principal) -> Result<(), Ended> {
        if principal.credential == Credential::Local {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let keys = self.keys.read();
        self.directory.read(|table| verify::holds(table, &keys, principal, now_ms).map(drop))
    }
}
