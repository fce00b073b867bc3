//! Limits how many wrong credentials an address may present. Passwords are counted separately (`attempt_limiter`).
//!
//! * Only failures are counted and only failures are refused. A valid credential is always accepted, so
//!   nobody can lock out other clients behind the same address.
//! * IPv6 is counted by /64, the smallest block that a single customer gets. An IPv4 address mapped into IPv6
//!   counts as the IPv4 address.
//! * At most [`ADDRESSES`] addresses have counts of their own. When the table is full, further addresses
//!   share one count and replace no other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use crate::sync::Mutex;

/// Maximum number of addresses with a count. Stops a flood of forged credentials from filling memory (about 2
/// MiB).
pub const ADDRESSES: usize = 65_536;
/// A count starts at an address's first failure and ends after this many milliseconds.
pub(in crate::auth) const WINDOW_MS: u64 = 60_000;
/// A full table is searched for expired counts at most once in this many milliseconds.
const SWEEP_MS: u64 = 1_000;

/// Counts of failed credentials by address.
#[derive(Debug)]
pub(in crate::auth) struct FailureCounts {
    /// Failures a minute before 429; 0 = not counted.
    limit: u32,
    table: Mutex<AddressTable>,
}

#[derive(Debug, Default)]
struct AddressTable {
    by_address: HashMap<u64, Count>,
    /// The shared count of all addresses that found the table full.
    others: Count,
    swept_ms: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    since_ms: u64,
    failures: u32,
}

impl Count {
    fn ended(&self, now_ms: u64) -> bool {
        // A clock that is set back ends a count too; otherwise the count would last longer.
        now_ms < self.since_ms || now_ms - self.since_ms >= WINDOW_MS
    }
    /// Seconds until the count ends, at least 1.
    fn left_s(&self, now_ms: u64) -> u64 {
        (self.since_ms + WINDOW_MS).saturating_sub(now_ms).div_ceil(1_000).max(1)
    }
}

impl FailureCounts {
    pub(in crate::auth) fn new(limit: u32) -> Self {
        FailureCounts { limit, table: Mutex::default() }
    }

    /// Counts one failure. Returns `Err(seconds)` if the address has reached its limit; it may try again
    /// after that time.
    pub(in crate::auth) fn count(&self, address: Option<IpAddr>, now_ms: u64) -> Result<(), u64> {
        if self.limit == 0 {
            return Ok(());
        }
        let key = address.map_or(0, bucket);
        let mut guard = self.table.lock();
        let table = &mut *guard;
        if !table.by_address.contains_key(&key) && table.by_address.len() >= ADDRESSES {
            table.sweep(now_ms);
        }
        let full = table.by_address.len() >= ADDRESSES;
        let count = match table.by_address.entry(key) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(_) if full => &mut table.others,
            Entry::Vacant(free) => free.insert(Count::default()),
        };
        if count.failures == 0 || count.ended(now_ms) {
            *count = Count { since_ms: now_ms, failures: 0 };
        }
        if count.failures >= self.limit {
            return Err(count.left_s(now_ms));
        }
        count.failures += 1;
        Ok(())
    }
}

impl AddressTable {
    fn sweep(&mut self, now_ms: u64) {
        if now_ms.abs_diff(self.swept_ms) >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.by_address.retain(|_, count| !count.ended(now_ms));
        }
    }
}

/// The key under which an address is counted. IPv4 is mapped into `::/64`, which no client uses.
pub(in crate::auth) fn bucket(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_is_refused_until_its_minute_has_ended() {
        let failures = FailureCounts::new(3);
        for _ in 0..3 {
            assert_eq!(failures.count(ip("192.0.2.1"), 1_000), Ok(()));
        }
        assert_eq!(failures.count(ip("192.0.2.1"), 1_000), Err(60));
        assert_eq!(failures.count(ip("192.0.2.1"), 60_500), Err(1));
        assert_eq!(failures.count(ip("192.0.2.2"), 1_000), Ok(()), "another address");
        assert_eq!(failures.count(ip("192.0.2.1"), 61_000), Ok(()));
    }

    #[test]
    fn an_ipv6_network_of_64_bits_counts_as_one_address() {
        let failures = FailureCounts::new(1);
        assert_eq!(failures.count(ip("2001:db8:0:1::1"), 0), Ok(()));
        assert!(failures.count(ip("2001:db8:0:1:ffff::2"), 0).is_err());
        assert_eq!(failures.count(ip("2001:db8:0:2::1"), 0), Ok(()));
        assert_eq!(failures.count(ip("::ffff:192.0.2.1"), 0), Ok(()));
        assert!(failures.count(ip("192.0.2.1"), 0).is_err());
    }

    #[test]
    fn a_limit_of_zero_disables_the_count() {
        let failures = FailureCounts::new(0);
        assert!((0..1_000).all(|_| failures.count(ip("192.0.2.1"), 0).is_ok()));
    }

    #[test]
    fn a_full_table_shares_one_count_until_counts_expire() {
        let failures = FailureCounts::new(1);
        for n in 0..ADDRESSES as u32 {
            assert!(failures.count(Some(IpAddr::from(n.to_be_bytes())), 5_000).is_ok());
        }
        let late = ip("2001:db8:9::1");
        assert_eq!(failures.count(late, 5_000), Ok(()), "the first failure in the shared count");
        assert!(failures.count(ip("2001:db8:8::1"), 5_000).is_err());
        assert_eq!(failures.table.lock().by_address.len(), ADDRESSES);
        assert_eq!(failures.count(late, 65_000), Ok(()));
        assert_eq!(failures.table.lock().by_address.len(), 1);
    }
}
