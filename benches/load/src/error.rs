//! Errors that stop a bench. A missed bar or a lost event is not an error: the report shows it.

use std::io;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The settings contradict each other. The text is for people.
    #[error("{0}")]
    Usage(String),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as an infinitive.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A server to be measured does not start.
    #[error("the {server} did not start: {why}")]
    Start {
        /// `daemon`, `floor` or `naive`.
        server: &'static str,
        /// The last lines of its output.
        why: String,
    },
    /// The server's response is not usable.
    #[error("{0}")]
    Server(String),
    /// There was no progress for longer than `--patience`.
    #[error("no progress for {seconds} s: {waiting}")]
    Stalled {
        /// The patience, in seconds.
        seconds: u64,
        /// What was awaited.
        waiting: String,
    },
}

impl BenchError {
    /// For `map_err`: adds what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source }
    }

    /// Returns a stalled load as a value, so that it is reported with its figures. Every other error ends the
    /// bench.
    ///
    /// # Errors
    /// Any error except [`BenchError::Stalled`].
    pub fn or_stalled(load: Result<(), BenchError>) -> Result<Option<BenchError>, BenchError> {
        match load {
            Ok(()) => Ok(None),
            Err(stalled @ BenchError::Stalled { .. }) => Ok(Some(stalled)),
            Err(error) => Err(error),
        }
    }

    /// The same for system calls that return an errno.
    pub fn sys(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source: source.into() }
    }
}
