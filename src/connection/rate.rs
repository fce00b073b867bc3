//! The publish rate of one connection: a token bucket over injected time.

/// Refusals in a row before the connection is closed (1013).
pub const REFUSALS: u8 = 100;

/// A token bucket that holds two seconds' worth.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Events in a second.
    per_second: u32,
    /// Events that may go now, in thousandths.
    milli_tokens: u64,
    /// Unix milliseconds of the last refill.
    refilled_ms: u64,
    /// Refusals in a row.
    refused: u8,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, now_ms: u64) -> Rate {
        let per_second = per_second.max(1);
        Rate { per_second, milli_tokens: u64::from(per_second) * 2_000, refilled_ms: now_ms, refused: 0 }
    }

    /// Takes `events` tokens.
    ///
    /// A batch larger than the whole bucket passes once the bucket is full, and leaves it empty.
    ///
    /// # Errors
    /// Milliseconds until the same would pass.
    pub fn take(&mut self, events: usize, now_ms: u64) -> Result<(), u64> {
        let full = u64::from(self.per_second) * 2_000;
        let gained = now_ms.saturating_sub(self.refilled_ms).min(2_000) * u64::from(self.per_second);
        self.milli_tokens = (self.milli_tokens + gained).min(full);
        self.refilled_ms = now_ms;
        let cost = (events as u64 * 1_000).min(full);
        if self.milli_tokens < cost {
            self.refused = self.refused.saturating_add(1);
            return Err((cost - self.milli_tokens).div_ceil(u64::from(self.per_second)));
        }
        self.milli_tokens -= cost;
        self.refused = 0;
        Ok(())
    }

    /// Whether it was refused so often in a row that the connection is closed.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.refused >= REFUSALS
    }
}

/// Charges `events` to a connection's bucket, made when it first publishes; `per_second` 0: no limit.
///
/// # Errors
/// Milliseconds until the same would pass.
pub fn charge(rate: &mut Option<Box<Rate>>, per_second: u64, events: usize, now_ms: u64) -> Result<(), u64> {
    if per_second == 0 {
        return Ok(());
    }
    let per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
    rate.get_or_insert_with(|| Box::new(Rate::new(per_second, now_ms))).take(events, now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seconds_worth_may_burst_and_then_the_rate_holds() {
        let mut rate = Rate::new(10, 0);
        assert!((0..20).all(|_| rate.take(1, 0).is_ok()));
        assert_eq!(rate.take(1, 0), Err(100));
        assert_eq!(rate.take(1, 100), Ok(()));
        assert_eq!(rate.take(1, 100), Err(100));
    }

    #[test]
    fn a_hundred_refusals_in_a_row_exhaust_it() {
        let mut rate = Rate::new(1, 0);
        assert!(rate.take(2, 0).is_ok());
        for _ in 0..REFUSALS {
            assert!(!rate.exhausted());
            assert!(rate.take(1, 0).is_err());
        }
        assert!(rate.exhausted());
        assert!(rate.take(1, 5_000).is_ok());
        assert!(!rate.exhausted());
    }

    #[test]
    fn a_batch_larger_than_the_bucket_passes_when_it_is_full() {
        let mut rate = Rate::new(10, 0);
        assert!(rate.take(1_000, 0).is_ok());
        assert_eq!(rate.take(1, 0), Err(100));
    }
}
