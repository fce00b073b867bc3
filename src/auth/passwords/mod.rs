//! Passwords of users: hashing, and limits of guessing.
//!
//! * [`password`]: a password as it was sent, and its stored hash.
//! * [`hasher`]: hashes and verifies passwords; [`hash_queue`] limits how many hashes run and wait, and
//!   decides whose turn is next.
//! * [`login_attempt`]: an attempt to log in; [`attempt_limiter`] counts the wrong ones of an address.

pub(super) mod attempt_limiter;
pub(super) mod hash_queue;
pub(super) mod hasher;
pub(super) mod login_attempt;
pub(super) mod password;
