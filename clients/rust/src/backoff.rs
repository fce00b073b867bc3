//! Wait times between attempts: exponential, with jitter, and never shorter than requested. It has no clock
//! or socket.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Wait times between attempts, and the number of attempts for a request.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait. It doubles with every failure in a row.
    pub first: Duration,
    /// The longest wait, unless the daemon requests a longer one. After a stream that lived this long, waits
    /// start again with `first`.
    pub longest: Duration,
    /// The longest wait that a daemon may request. A longer request is cut, so that no peer can stop a client
    /// for ever.
    pub longest_requested: Duration,
    /// The number of attempts for a request that may be repeated. A subscription never stops because of
    /// failures alone.
    pub attempts: u32,
    /// Returns a new random number at each call. The low 16 bits select the jitter.
    pub random: fn() -> u64,
}

impl Default for Backoff {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first: seconds(1), longest: seconds(30), longest_requested: seconds(600), attempts: 6, random }
    }
}

/// The standard library's hasher is created with fresh random keys.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl Backoff {
    /// Returns the wait after `failures` failures in a row (from 1): exponential, with jitter between half
    /// and the whole, and never shorter than `requested`.
    pub(crate) fn wait(&self, failures: u32, requested: Duration) -> Duration {
        let requested = requested.min(self.longest_requested);
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let exponential = self.first.saturating_mul(factor).min(self.longest);
        let base = exponential.max(requested);
        // The jitter is added to the requested wait, because the daemon requested the same wait from all
        // clients.
        let jitter = base / 2 * u32::from((self.random)() as u16) / u32::from(u16::MAX);
        if requested > exponential { base + jitter } else { (base / 2 + jitter).max(requested) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Backoff = Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        longest_requested: Duration::from_secs(600),
        attempts: 6,
        random: || 0,
    };
    const HIGH: Backoff = Backoff { random: || 0xFFFF, ..LOW };

    #[test]
    fn waits_grow_jitter_and_stay_bounded() {
        let ms = Duration::from_millis;
        let zero = Duration::ZERO;
        assert_eq!((LOW.wait(1, zero), HIGH.wait(1, zero)), (ms(500), ms(1_000)));
        assert_eq!((LOW.wait(3, zero), HIGH.wait(3, zero)), (ms(2_000), ms(4_000)));
        for failures in [6, 31, 32, 33, 64, u32::MAX] {
            assert_eq!(HIGH.wait(failures, zero), LOW.longest, "{failures}");
        }
    }

    #[test]
    fn what_is_asked_for_is_waited_for_and_then_spread() {
        let ms = Duration::from_millis;
        assert_eq!((LOW.wait(1, ms(2_000)), HIGH.wait(1, ms(2_000))), (ms(2_000), ms(3_000)));
        assert!(LOW.wait(2, ms(1_900)) >= ms(1_900));
        assert_eq!(LOW.wait(1, Duration::MAX), LOW.longest_requested);
    }

    #[test]
    fn two_clients_do_not_come_back_together() {
        let backoff = Backoff::default();
        let waits: std::collections::BTreeSet<_> = (0..50).map(|_| backoff.wait(5, Duration::ZERO)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
