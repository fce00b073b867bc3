//! How long a peer may be silent: a deadline that outlives the calls that wait for it. It has no socket.
//!
//! * Cancelling a wait (a `select!` with a timer) does not reset the deadline; otherwise a dead peer would
//!   never be noticed.
//! * A caller that did not wait for a while first gets what has arrived in the meantime: a deadline that has
//!   passed is extended once, by [`GRACE`].

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::ClientError;

/// The read timeout of a stream until its `ready` frame names the heartbeat interval: three default intervals.
pub(crate) const READ_TIMEOUT_BEFORE_READY: Duration = Duration::from_secs(90);
/// Time to read what arrived while nobody was reading.
const GRACE: Duration = Duration::from_secs(1);

/// The silence of a peer.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    deadline: Instant,
    /// Whether the deadline was extended since the peer was last heard.
    graced: bool,
}

impl Silence {
    /// Starts counting now.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit, graced: false }
    }

    /// Changes the limit and starts counting from now.
    pub(crate) fn set(&mut self, limit: Duration) {
        *self = Self::new(limit);
    }

    /// Waits for the next sign of life from the peer; `what` names it in the error.
    pub(crate) async fn next_within<T>(
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
            match timeout(Duration::from_secs(3), silence.next_within("a byte", pending::<()>())).await {
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
        assert_eq!(silence.next_within("a byte", late).await.unwrap(), 7);
        assert_eq!(silence.next_within("a byte", ready(8)).await.unwrap(), 8);
        advance(LIMIT * 5).await;
        let began = Instant::now();
        assert!(silence.next_within("a byte", pending::<()>()).await.is_err());
        assert_eq!(began.elapsed(), GRACE);
        assert!(silence.next_within("a byte", pending::<()>()).await.is_err(), "there is no second grace");
        assert_eq!(began.elapsed(), GRACE);
    }
}
