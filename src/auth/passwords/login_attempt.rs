//! Attempts to log in: guesses are limited by address, in total and for one account, before the password is
//! verified (`attempt_limiter`).

use std::net::IpAddr;

use super::attempt_limiter::AttemptKey;
use super::hasher::Passwords;
use crate::auth::Auth;
use crate::auth::request::failure_counts::bucket;

/// Too many wrong passwords from this address: 429. It does not say for which account, nor whether the
/// account exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins")]
pub struct TooManyAttempts {
    /// `Retry-After` in seconds, at least 1.
    pub retry_after: u64,
}

/// A password that is about to be verified. It counts as wrong until [`LoginAttempt::succeeded`] is called.
#[derive(Debug)]
#[must_use]
pub struct LoginAttempt<'a> {
    auth: &'a Auth,
    key: AttemptKey,
}

impl LoginAttempt<'_> {
    /// Records that the password was right.
    pub fn succeeded(self) {
        self.auth.guesses.reset(&self.key);
    }
    /// Records that the password was wrong, or that there is no such user. The attempt stays counted.
    pub fn failed(self) {}
    /// Removes the attempt from the counts, because the password was not verified.
    pub fn withdraw(self) {
        self.auth.guesses.withdraw(&self.key);
    }
}

impl Auth {
    /// The password hasher.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Checks whether this peer may try a password of this account. It is called before any work is done for
    /// the login.
    ///
    /// # Errors
    /// [`TooManyAttempts`].
    pub fn check_attempt(
        &self,
        peer: Option<IpAddr>,
        org_id: &str,
        email: &str,
    ) -> Result<(), TooManyAttempts> {
        let guess = AttemptKey::new(peer.map_or(0, bucket), org_id, email);
        self.guesses.check(&guess, self.clock.now_ms()).map_err(|retry_after| TooManyAttempts { retry_after })
    }

    /// Starts an attempt. It is called when its turn to hash has come, so that failures during the wait count
    /// too.
    ///
    /// # Errors
    /// [`TooManyAttempts`].
    pub fn begin_attempt(
        &self,
        peer: Option<IpAddr>,
        org_id: &str,
        email: &str,
    ) -> Result<LoginAttempt<'_>, TooManyAttempts> {
        let guess = AttemptKey::new(peer.map_or(0, bucket), org_id, email);
        let begun = self.guesses.begin(&guess, self.clock.now_ms());
        begun.map_err(|retry_after| TooManyAttempts { retry_after })?;
        Ok(LoginAttempt { auth: self, key: guess })
    }
}
