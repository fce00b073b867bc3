//! Limits how many wrong passwords an address may send, in total and for one account.
//!
//! * An address over either limit is refused before its password is verified, so a refused attempt costs no
//!   hash.
//! * Counts belong to addresses. One address cannot cause refusals for another, so nobody can lock the owner
//!   out of an account.
//! * An account is an organization and an email as they were sent, whether or not such a user exists. So a
//!   refusal does not reveal whether a user exists.
//! * An attempt counts as wrong from its start until it succeeds. So parallel attempts cannot exceed a limit,
//!   and an attempt whose client hung up is still counted.
//! * A full table drops its oldest count. To make it drop a given count takes as many attempts as the table
//!   has rows, and each attempt costs a hash.
//!
//! Guesses for one account from many addresses are not limited here, because each address has its own count.
//! The number of hashes that run at once (`hash_queue`) limits them together.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::store::key_digest;
use crate::sync::Mutex;

/// Maximum number of counts, for addresses and for accounts each. Stops a flood of names from filling memory
/// (about 12 MiB).
pub const GUESS_COUNTS: usize = 65_536;
/// Wrong passwords of one address for one account before further ones are refused.
pub const ACCOUNT_FAILURES: u32 = 10;
/// Milliseconds from the first failure until the count of an account ends: 15 minutes.
pub const ACCOUNT_WINDOW_MS: u64 = 15 * 60_000;
/// Milliseconds from the first failure until the count of an address ends.
const ADDRESS_WINDOW_MS: u64 = 60_000;

/// What an attempt is counted under: the address, and the address together with the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct AttemptKey {
    address: u64,
    account: [u8; 32],
}

impl AttemptKey {
    /// `address` is a value of `failure_counts::bucket`.
    pub(in crate::auth) fn new(address: u64, org_id: &str, email: &str) -> AttemptKey {
        let account = key_digest(&[org_id.as_bytes(), email.as_bytes(), &address.to_be_bytes()]);
        AttemptKey { address, account }
    }
}

/// The counts of wrong passwords.
#[derive(Debug)]
pub(in crate::auth) struct AttemptLimiter(Mutex<AttemptTables>);

#[derive(Debug)]
struct AttemptTables {
    addresses: Counts<u64>,
    accounts: Counts<[u8; 32]>,
}

impl AttemptLimiter {
    /// `per_minute` is the limit of wrong passwords for one address; 0 disables the count by address alone.
    pub(in crate::auth) fn new(per_minute: u32) -> AttemptLimiter {
        AttemptLimiter(Mutex::new(AttemptTables {
            addresses: Counts::new(per_minute, ADDRESS_WINDOW_MS),
            accounts: Counts::new(ACCOUNT_FAILURES, ACCOUNT_WINDOW_MS),
        }))
    }

    /// Returns `Err(seconds)` if the guess is refused; the next one may be made after that time.
    pub(in crate::auth) fn check(&self, key: &AttemptKey, now_ms: u64) -> Result<(), u64> {
        self.0.lock().check(key, now_ms)
    }

    /// Like `check`, and counts the guess as wrong unless it is refused.
    pub(in crate::auth) fn begin(&self, key: &AttemptKey, now_ms: u64) -> Result<(), u64> {
        let mut tables = self.0.lock();
        tables.check(key, now_ms)?;
        tables.addresses.add(key.address, now_ms);
        tables.accounts.add(key.account, now_ms);
        Ok(())
    }

    /// Removes a guess from the counts, because its password was not verified.
    pub(in crate::auth) fn withdraw(&self, key: &AttemptKey) {
        let mut tables = self.0.lock();
        tables.addresses.subtract(key.address);
        tables.accounts.subtract(key.account);
    }

    /// Records that the password was right: resets the count of this address for this account.
    pub(in crate::auth) fn reset(&self, key: &AttemptKey) {
        let mut tables = self.0.lock();
        tables.addresses.subtract(key.address);
        tables.accounts.clear(key.account);
    }
}

impl AttemptTables {
    fn check(&self, key: &AttemptKey, now_ms: u64) -> Result<(), u64> {
        self.addresses.check(key.address, now_ms)?;
        self.accounts.check(key.account, now_ms)
    }
}

/// Counts of one kind, at most [`GUESS_COUNTS`].
#[derive(Debug)]
struct Counts<K> {
    /// Failures before a refusal; 0 = nothing is counted.
    limit: u32,
    window_ms: u64,
    counts: HashMap<K, Count>,
    /// The keys in the order in which their counts began; each key of `counts` occurs once.
    order: VecDeque<K>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since_ms: u64,
    failures: u32,
}

impl<K: Copy + Eq + Hash> Counts<K> {
    fn new(limit: u32, window_ms: u64) -> Counts<K> {
        Counts { limit, window_ms, counts: HashMap::new(), order: VecDeque::new() }
    }

    /// Milliseconds until the count ends; `None` if it has ended. A clock that is set back ends it too;
    /// otherwise the count would last longer.
    fn left_ms(&self, count: &Count, now_ms: u64) -> Option<u64> {
        let age_ms = now_ms.checked_sub(count.since_ms)?;
        self.window_ms.checked_sub(age_ms).filter(|left| *left > 0)
    }

    fn check(&self, key: K, now_ms: u64) -> Result<(), u64> {
        let full = self.counts.get(&key).filter(|count| self.limit > 0 && count.failures >= self.limit);
        match full.and_then(|count| self.left_ms(count, now_ms)) {
            Some(left_ms) => Err(left_ms.div_ceil(1_000).max(1)),
            None => Ok(()),
        }
    }

    fn add(&mut self, key: K, now_ms: u64) {
        if self.limit == 0 {
            return;
        }
        self.drop_ended(now_ms);
        if let Some(count) = self.counts.get(&key).copied() {
            let count = match self.left_ms(&count, now_ms) {
                Some(_) => Count { failures: count.failures.saturating_add(1), ..count },
                None => Count { since_ms: now_ms, failures: 1 },
            };
            self.counts.insert(key, count);
            return;
        }
        if self.counts.len() >= GUESS_COUNTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.counts.insert(key, Count { since_ms: now_ms, failures: 1 });
        self.order.push_back(key);
    }

    fn subtract(&mut self, key: K) {
        if let Some(count) = self.counts.get_mut(&key) {
            count.failures = count.failures.saturating_sub(1);
        }
    }

    /// Sets a count to 0. Its row stays until it is dropped; a row without failures refuses nothing.
    fn clear(&mut self, key: K) {
        if let Some(count) = self.counts.get_mut(&key) {
            count.failures = 0;
        }
    }

    /// Drops the expired counts at the front of the order.
    fn drop_ended(&mut self, now_ms: u64) {
        while let Some(first) = self.order.front()
            && self.counts.get(first).is_none_or(|count| self.left_ms(count, now_ms).is_none())
        {
            self.counts.remove(first);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ann@example.org";
    const BOB: &str = "bob@example.org";

    fn guess(address: u64, email: &str) -> AttemptKey {
        AttemptKey::new(address, "acme", email)
    }

    #[test]
    fn an_address_over_a_limit_is_refused_and_no_other_is() {
        let guesses = AttemptLimiter::new(15);
        for _ in 0..ACCOUNT_FAILURES {
            assert_eq!(guesses.begin(&guess(1, ANN), 1_000), Ok(()));
        }
        assert_eq!(guesses.check(&guess(1, ANN), 1_000), Err(900), "too many for this account");
        assert_eq!(guesses.begin(&guess(1, ANN), 1_000), Err(900));
        assert_eq!(guesses.check(&guess(2, ANN), 1_000), Ok(()), "another address is not refused");
        for _ in 0..5 {
            assert_eq!(guesses.begin(&guess(1, BOB), 2_000), Ok(()));
        }
        assert_eq!(guesses.begin(&guess(1, BOB), 2_000), Err(59), "too many from this address");
        assert_eq!(guesses.begin(&guess(2, BOB), 2_000), Ok(()));
        assert_eq!(guesses.check(&guess(1, BOB), 61_000), Ok(()), "the minute has ended");
        assert_eq!(
            guesses.check(&guess(1, ANN), 61_000),
            Err(840),
            "the account's 15 minutes have not ended"
        );
        assert_eq!(guesses.check(&guess(1, ANN), 1_000 + ACCOUNT_WINDOW_MS - 500), Err(1));
        assert_eq!(guesses.begin(&guess(1, ANN), 1_000 + ACCOUNT_WINDOW_MS), Ok(()));
        assert_eq!(guesses.check(&guess(1, ANN), 500), Ok(()), "a clock set back ends a count");
    }

    #[test]
    fn right_passwords_and_unverified_ones_do_not_count() {
        let guesses = AttemptLimiter::new(12);
        for _ in 0..100 {
            assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(()));
            guesses.withdraw(&guess(1, ANN));
            assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(()));
            guesses.reset(&guess(1, ANN));
        }
        // A success for the attacker's own account must not allow more guesses for another account.
        for _ in 0..ACCOUNT_FAILURES {
            assert_eq!(guesses.begin(&guess(1, BOB), 0), Ok(()));
            assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(()));
            guesses.reset(&guess(1, ANN));
        }
        assert_eq!(guesses.check(&guess(1, BOB), 0), Err(900));
        assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(()));
        assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(()));
        assert_eq!(guesses.begin(&guess(1, ANN), 0), Err(60));
    }

    #[test]
    fn a_limit_of_zero_counts_by_account_only() {
        let guesses = AttemptLimiter::new(0);
        for n in 0..1_000 {
            assert_eq!(guesses.begin(&guess(1, &n.to_string()), 0), Ok(()));
        }
        (0..ACCOUNT_FAILURES).for_each(|_| assert_eq!(guesses.begin(&guess(1, ANN), 0), Ok(())));
        assert!(guesses.begin(&guess(1, ANN), 0).is_err());
        assert!(guesses.0.lock().addresses.counts.is_empty());
    }

    /// A flood of addresses drops one old count for each new one and refuses nobody.
    #[test]
    fn a_full_table_stays_full_and_refuses_no_attempt() {
        let mut counts = Counts::new(2, 60_000);
        for key in 0..GUESS_COUNTS + 10 {
            assert_eq!(counts.check(key, 5), Ok(()));
            counts.add(key, 5);
        }
        assert_eq!((counts.counts.len(), counts.order.len()), (GUESS_COUNTS, GUESS_COUNTS));
        assert!(!counts.counts.contains_key(&9) && counts.counts.contains_key(&10));
        counts.add(10, 60_005);
        assert_eq!((counts.counts.len(), counts.order.len()), (1, 1), "the expired count was dropped");
    }
}
