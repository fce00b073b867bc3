//! Wait times between attempts: exponential, with jitter, and never shorter than requested. It has no clock
//! or socket.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Wait times between attempts, and the number of attempts for a request.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait. It doubles with every failure in a row.
    pub initial: Duration,
    /// The longest wait, unless the daemon requests a longer one. After a stream that lived this long, waits
    /// start again with `initial`.
    pub max: Duration,
    /// The longest wait that a daemon may request. A longer request is cut, so that no peer can stop a client
    /// for ever.
    pub max_requested: Duration,
    /// The number of attempts for a request that may be repeated. A subscription never stops because of
    /// failures alone.
    pub max_attempts: u32,
    /// Returns a new random number at each call. The low 16 bits select the jitter.
    pub random: fn() -> u64,
}

impl Default for Backoff {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { initial: seconds(1), max: seconds(30), max_requested: seconds(600), max_attempts: 6, random }
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
        let requested = requested.min(self.max_requested);
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let exponential = self.initial.saturating_mul(factor).min(self.max);
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
        initial: Duration::from_secs(1),
        max: Duration::from_secs(30),
        max_requested: Duration::from_secs(600),
        max_attempts: 6,
        random: || 0,
    };
    const HIGH: Backoff = Backoff { random: || 0xFFFF, ..LOW };

    #[test]
    fn waits_grow_up_to_the_maximum() {
        let ms = Duration::from_millis;
        let zero = Duration::ZERO;
        assert_eq!((LOW.wait(1, zero), HIGH.wait(1, zero)), (ms(500), ms(1_000)));
        assert_eq!((LOW.wait(3, zero), HIGH.wait(3, zero)), (ms(2_000), ms(4_000)));
        for failures in [6, 31, 32, 33, 64, u32::MAX] {
            assert_eq!(HIGH.wait(failures, zero), LOW.max, "{failures}");
        }
    }

    #[test]
    fn a_requested_wait_is_kept_and_jitter_is_added() {
        let ms = Duration::from_millis;
        assert_eq!((LOW.wait(1, ms(2_000)), HIGH.wait(1, ms(2_000))), (ms(2_000), ms(3_000)));
        assert!(LOW.wait(2, ms(1_900)) >= ms(1_900));
        assert_eq!(LOW.wait(1, Duration::MAX), LOW.max_requested);
    }

    #[test]
    fn clients_that_fail_together_wait_differently() {
        let backoff = Backoff::default();
        let waits: std::collections::BTreeSet<_> = (0..50).map(|_| backoff.wait(5, Duration::ZERO)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
