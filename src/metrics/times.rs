//! A histogram of durations, cheap to add to and exact at every power of two.
//!
//! * There are four buckets per octave, so a percentile is accurate to a quarter of its value.
//! * Adding and reading need no lock; a snapshot may miss durations that are added while it is taken.
//! * It does not know clocks, tenants or labels.

use std::sync::atomic::{AtomicU64, Ordering};

/// Durations below this many microseconds share the first bucket.
const FIRST_US: u64 = 8;
/// Octaves above [`FIRST_US`]; longer durations (16 s and more) share the last bucket.
const OCTAVES: usize = 21;
const BUCKETS: usize = 1 + 4 * OCTAVES + 1;

/// A histogram of durations.
#[derive(Debug)]
pub struct Times {
    buckets: [AtomicU64; BUCKETS],
    /// Sum of all durations in microseconds.
    sum_us: AtomicU64,
}

impl Default for Times {
    fn default() -> Times {
        Times { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Times {
    /// Adds `n` durations of `us` microseconds.
    pub fn record(&self, us: u64, n: u64) {
        self.buckets[bucket(us)].fetch_add(n, Ordering::Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(n), Ordering::Relaxed);
    }

    /// Returns what was recorded so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// A snapshot of [`Times`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    counts: [u64; BUCKETS],
    /// Sum of all durations in microseconds.
    pub sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot { counts: [0; BUCKETS], sum_us: 0 }
    }
}

impl Snapshot {
    /// Adds another snapshot.
    pub fn add(&mut self, other: &Snapshot) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, other)| *own += other);
        self.sum_us += other.sum_us;
    }
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
    /// Returns the bound in microseconds below which a share `q` (0 to 1) of the durations is; 0 if there are
    /// none.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> u64 {
        let rank = ((self.count() as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return bound_us(at).unwrap_or(u64::MAX);
            }
        }
        0
    }
    /// Returns the buckets that are not empty: the bound in microseconds (`None` for no bound), and the
    /// number of durations between this bound and the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| (bound_us(at), *count))
    }
    /// Returns one bucket per octave: the bound in microseconds (`None` for the last), and the number of
    /// durations in it.
    #[must_use]
    pub fn octaves(&self) -> Vec<(Option<u64>, u64)> {
        let (first, rest) = self.counts.split_at(1);
        let (middle, last) = rest.split_at(4 * OCTAVES);
        let octaves =
            middle.chunks(4).enumerate().map(|(at, four)| (bound_us(4 * at + 4), four.iter().sum()));
        std::iter::once((bound_us(0), first[0])).chain(octaves).chain([(None, last[0])]).collect()
    }
}

fn bucket(us: u64) -> usize {
    if us < FIRST_US {
        return 0;
    }
    let octave = us.ilog2() as usize;
    let quarter = (us >> (octave - 2)) as usize & 3;
    (1 + 4 * (octave - FIRST_US.ilog2() as usize) + quarter).min(BUCKETS - 1)
}

/// Returns the upper bound of a bucket; `None` for the last one.
fn bound_us(at: usize) -> Option<u64> {
    match at {
        0 => Some(FIRST_US),
        at if at == BUCKETS - 1 => None,
        at => Some((5 + (at - 1) as u64 % 4) << ((at - 1) / 4 + FIRST_US.ilog2() as usize - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_lies_under_its_bound_and_not_under_the_one_before() {
        for us in (0..100_000).chain([1 << 20, (1 << 24) - 1, 1 << 24, u64::MAX]) {
            let at = bucket(us);
            assert!(bound_us(at).is_none_or(|bound| us < bound), "{us}");
            assert!(at == 0 || bound_us(at - 1).is_some_and(|bound| us >= bound), "{us}");
        }
        assert_eq!(bound_us(BUCKETS - 2), Some(1 << 24));
    }

    #[test]
    fn a_quantile_is_the_bound_of_the_bucket_its_rank_lies_in() {
        let times = Times::default();
        assert_eq!(times.snapshot().quantile_us(0.99), 0);
        times.record(10, 99);
        times.record(2_000, 1);
        let seen = times.snapshot();
        assert_eq!((seen.count(), seen.sum_us), (100, 2_990));
        assert_eq!((seen.quantile_us(0.5), seen.quantile_us(0.99), seen.quantile_us(1.0)), (12, 12, 2_048));
        assert_eq!(seen.octaves().iter().map(|(_, count)| count).sum::<u64>(), 100);
        assert_eq!(seen.octaves()[1], (Some(16), 99));
        assert_eq!(seen.buckets().collect::<Vec<_>>(), [(Some(12), 99), (Some(2_048), 1)]);
    }
}
