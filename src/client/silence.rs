//! How long a peer may be silent: a deadline that outlives the calls that wait for it. No socket.
//!
//! * What cancels a wait (a `select!` with a timer) does not reset it, or a dead peer would never be noticed.
//! * Who did not look for a while hears what has piled up first: a deadline found passed is put off once, by [`GRACE`].

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ClientError;

/// For what has arrived while nobody looked to come through.
const GRACE: Duration = Duration::from_secs(1);

/// A peer's silence.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    deadline: Instant,
    /// Whether the deadline was put off since the last sign of life.
    graced: bool,
}

impl Silence {
    /// Beginning now.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit, graced: false }
    }

    /// Changes the limit; counts from now.
    pub(super) fn set(&mut self, limit: Duration) {
        *self = Self::new(limit);
    }

    /// Waits for the peer's next sign of life, `what`.
    pub(super) async fn broken<T>(
        &mut self,
        what: &'static str,
        sign: impl Future<Output = T>,
    ) -> Result<T, ClientError> {
        let now = Instant::now();
        if now >= self.deadline && !self.graced {
            self.graced = true;
            self.deadline = now + GRACE;
        }
        let heard = timeout_at(self.deadline, sign).await;
        let heard = heard.map_err(|_| ClientError::Timeout(what, self.limit))?;
        self.deadline = Instant::now() + self.limit;
        self.graced = false;
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{advance, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn waits_that_are_given_up_add_up() {
        let began = Instant::now();
        let mut silence = Silence::new(LIMIT);
        let mut given_up = 0;
        let error = loop {
            match timeout(Duration::from_secs(3), silence.broken("a byte", pending::<()>())).await {
                Err(_) => given_up += 1,
                Ok(heard) => break heard.unwrap_err(),
            }
        };
        assert!(matches!(error, ClientError::Timeout("a byte", LIMIT)), "{error}");
        assert_eq!((given_up, began.elapsed().as_secs()), (3, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_away_hears_what_has_come_meanwhile() {
        let mut silence = Silence::new(LIMIT);
        advance(LIMIT * 5).await;
        let late = async {
            tokio::time::sleep(GRACE / 2).await;
            7
        };
        assert_eq!(silence.broken("a byte", late).await.unwrap(), 7);
        assert_eq!(silence.broken("a byte", ready(8)).await.unwrap(), 8);
        advance(LIMIT * 5).await;
        let began = Instant::now();
        assert!(silence.broken("a byte", pending::<()>()).await.is_err());
        assert_eq!(began.elapsed(), GRACE);
        assert!(silence.broken("a byte", pending::<()>()).await.is_err(), "and no second grace");
        assert_eq!(began.elapsed(), GRACE);
    }
}
