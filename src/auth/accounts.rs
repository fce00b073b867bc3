//! How often a wrong password may be tried for one account.
//!
//! * An account is an organization and an email as they were sent, whether or not there is such a user: a refusal tells nothing.
//! * An attempt is counted before it is made, so attempts side by side cannot pass the limit; one that succeeds clears the count.
//! * At most [`ACCOUNTS`] are counted; when full, the one counted longest goes. To push one out costs as many attempts, each a
//!   password hash, as there are places.

use std::collections::{HashMap, VecDeque};

use crate::sync::Mutex;

/// Accounts counted at once; stops a spray of names from filling memory (about 8 MiB).
pub const ACCOUNTS: usize = 65_536;
/// Wrong passwords of one account before further attempts are refused.
pub const ACCOUNT_FAILURES: u32 = 10;
/// A count starts at an account's first failure and ends after this many milliseconds: 15 minutes.
pub const ACCOUNT_WINDOW_MS: u64 = 15 * 60_000;

/// Digest of organization and email.
type Account = [u8; 32];

/// Counts of failed logins by account.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<Account, Count>,
    /// In the order they came; each account of `counts` once.
    order: VecDeque<Account>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since_ms: u64,
    failures: u32,
}

impl Count {
    fn ended(&self, now_ms: u64) -> bool {
        // A clock set back ends a count too, rather than prolonging it.
        now_ms < self.since_ms || now_ms - self.since_ms >= ACCOUNT_WINDOW_MS
    }
}

impl Accounts {
    /// Counts an attempt. `Err(seconds)`: too many failed; the next may be made after that many.
    pub(super) fn begin(&self, account: Account, now_ms: u64) -> Result<(), u64> {
        let mut table = self.0.lock();
        table.sweep(now_ms);
        if let Some(count) = table.counts.get_mut(&account) {
            if count.ended(now_ms) {
                *count = Count { since_ms: now_ms, failures: 0 };
            }
            if count.failures >= ACCOUNT_FAILURES {
                let left_ms = (count.since_ms + ACCOUNT_WINDOW_MS).saturating_sub(now_ms);
                return Err(left_ms.div_ceil(1_000).max(1));
            }
            count.failures += 1;
            return Ok(());
        }
        if table.counts.len() >= ACCOUNTS
            && let Some(oldest) = table.order.pop_front()
        {
            table.counts.remove(&oldest);
        }
        table.counts.insert(account, Count { since_ms: now_ms, failures: 1 });
        table.order.push_back(account);
        Ok(())
    }

    /// An attempt that was begun was not made.
    pub(super) fn give_back(&self, account: &Account) {
        if let Some(count) = self.0.lock().counts.get_mut(account) {
            count.failures = count.failures.saturating_sub(1);
        }
    }

    /// An attempt succeeded.
    pub(super) fn clear(&self, account: &Account) {
        // The entry stays until it is over: one without failures refuses nothing.
        if let Some(count) = self.0.lock().counts.get_mut(account) {
            count.failures = 0;
        }
    }
}

impl Table {
    /// Forgets what has ended; each entry is passed once.
    fn sweep(&mut self, now_ms: u64) {
        while let Some(first) = self.order.front()
            && self.counts.get(first).is_none_or(|count| count.ended(now_ms))
        {
            self.counts.remove(first);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Account = [1; 32];

    #[test]
    fn an_account_has_its_failures_and_gets_them_back() {
        let accounts = Accounts::default();
        for _ in 0..ACCOUNT_FAILURES {
            assert_eq!(accounts.begin(ANN, 1_000), Ok(()));
        }
        assert_eq!(accounts.begin(ANN, 1_000), Err(900));
        assert_eq!(accounts.begin([2; 32], 1_000), Ok(()), "another account");
        assert_eq!(accounts.begin(ANN, 1_000 + ACCOUNT_WINDOW_MS - 500), Err(1));
        assert_eq!(accounts.begin(ANN, 1_000 + ACCOUNT_WINDOW_MS), Ok(()));
        assert_eq!(accounts.0.lock().counts.len(), 1, "what has ended was forgotten");
    }

    #[test]
    fn a_success_clears_and_an_attempt_not_made_does_not_count() {
        let accounts = Accounts::default();
        for _ in 0..100 {
            assert_eq!(accounts.begin(ANN, 0), Ok(()));
            accounts.give_back(&ANN);
        }
        for _ in 0..3 {
            for _ in 0..ACCOUNT_FAILURES {
                assert_eq!(accounts.begin(ANN, 0), Ok(()));
            }
            accounts.clear(&ANN);
        }
    }

    #[test]
    fn a_full_table_stays_full() {
        let accounts = Accounts::default();
        for n in 0..ACCOUNTS as u32 + 10 {
            let mut account = [0; 32];
            account[..4].copy_from_slice(&n.to_be_bytes());
            assert_eq!(accounts.begin(account, u64::from(n)), Ok(()));
        }
        let table = accounts.0.lock();
        assert_eq!((table.counts.len(), table.order.len()), (ACCOUNTS, ACCOUNTS));
    }
}
