//! A read timeout that outlives the calls that wait: the time since the peer last sent something. It has no
//! socket.
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
/// Time to read what arrived while the caller did not read.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ReadTimeout {
    limit: Duration,
    deadline: Instant,
    /// Whether the deadline was extended since the last successful read.
    extended: bool,
}

impl ReadTimeout {
    /// Starts counting now.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit, extended: false }
    }

    /// Changes the limit and starts counting from now.
    pub(crate) fn set(&mut self, limit: Duration) {
        *self = Self::new(limit);
    }

    /// Waits for a read to complete; `what` names it in the error.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &'static str,
        read: impl Future<Output = T>,
    ) -> Result<T, ClientError> {
        let now = Instant::now();
        if now >= self.deadline && !self.extended {
            self.extended = true;
            self.deadline = now + GRACE;
        }
        let read = timeout_at(self.deadline, read).await;
        let read = read.map_err(|_| ClientError::Timeout(what, self.limit))?;
        self.deadline = Instant::now() + self.limit;
        self.extended = false;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{advance, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn cancelled_waits_do_not_reset_the_deadline() {
        let began = Instant::now();
        let mut reads = ReadTimeout::new(LIMIT);
        let mut cancelled = 0;
        let error = loop {
            match timeout(Duration::from_secs(3), reads.wait("a byte", pending::<()>())).await {
                Err(_) => cancelled += 1,
                Ok(read) => break read.unwrap_err(),
            }
        };
        assert!(matches!(error, ClientError::Timeout("a byte", LIMIT)), "{error}");
        assert_eq!((cancelled, began.elapsed().as_secs()), (3, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_reader_first_gets_what_has_arrived() {
        let mut reads = ReadTimeout::new(LIMIT);
        advance(LIMIT * 5).await;
        let late = async {
            tokio::time::sleep(GRACE / 2).await;
            7
        };
        assert_eq!(reads.wait("a byte", late).await.unwrap(), 7);
        assert_eq!(reads.wait("a byte", ready(8)).await.unwrap(), 8);
        advance(LIMIT * 5).await;
        let began = Instant::now();
        assert!(reads.wait("a byte", pending::<()>()).await.is_err());
        assert_eq!(began.elapsed(), GRACE);
        assert!(reads.wait("a byte", pending::<()>()).await.is_err(), "there is no second extension");
        assert_eq!(began.elapsed(), GRACE);
    }
}
