//! Why a bench could not be run to its end. A bar that was missed or an event that was lost is no error: the report tells it.

use std::io;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Settings that contradict each other, for a person.
    #[error("{0}")]
    Usage(String),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, an infinitive.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A server that was to be measured does not come up.
    #[error("the {server} did not start: {why}")]
    Start {
        /// `daemon`, `floor` or `naive`.
        server: &'static str,
        /// Its last words.
        why: String,
    },
    /// The server answered what the bench cannot use.
    #[error("{0}")]
    Server(String),
    /// Nothing moved for longer than `--patience`.
    #[error("nothing moved for {seconds} s: {waiting}")]
    Stalled {
        /// The patience.
        seconds: u64,
        /// What was waited for.
        waiting: String,
    },
}

impl BenchError {
    /// For `map_err`: says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source }
    }

    /// A load that stood still is told with what it had reached; every other failure ends the bench.
    ///
    /// # Errors
    /// Any but [`BenchError::Stalled`].
    pub fn or_stalled(load: Result<(), BenchError>) -> Result<Option<BenchError>, BenchError> {
        match load {
            Ok(()) => Ok(None),
            Err(stalled @ BenchError::Stalled { .. }) => Ok(Some(stalled)),
            Err(error) => Err(error),
        }
    }

    /// The same for the system calls that answer an errno.
    pub fn sys(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source: source.into() }
    }
}
