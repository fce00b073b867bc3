//! Passwords of users: hashing, its queue, and limits of guessing.
//!
//! * [`password`]: reads, hashes and verifies passwords.
//! * [`hash_queue`]: limits how many hashes run and wait, and whose turn is next.
//! * [`attempt_limiter`]: limits how many wrong passwords an address may send.

pub(super) mod attempt_limiter;
pub(super) mod hash_queue;
pub(super) mod password;
