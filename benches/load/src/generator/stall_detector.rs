//! Stops a run that makes no progress.

use std::time::{Duration, Instant};

use crate::error::BenchError;

/// Detects that a number has not changed for too long.
#[derive(Debug)]
pub(crate) struct StallDetector {
    patience: Duration,
    value: u64,
    since: Instant,
}

impl StallDetector {
    /// Starts now.
    pub(crate) fn new(patience: Duration) -> StallDetector {
        StallDetector { patience, value: u64::MAX, since: Instant::now() }
    }

    /// Checks the current number.
    pub(crate) fn check(&mut self, value: u64, waiting: impl FnOnce() -> String) -> Result<(), BenchError> {
        if value != self.value {
            self.value = value;
            self.since = Instant::now();
        } else if self.since.elapsed() > self.patience {
            return Err(BenchError::Stalled { seconds: self.patience.as_secs(), waiting: waiting() });
        }
        Ok(())
    }
}
