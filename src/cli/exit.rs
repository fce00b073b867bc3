//! How a command ends: its exit code, and the error message and hint for the user. Exit codes are chosen only
//! here.

use std::process::ExitCode;

use nervewire_client::ClientError;

use crate::config::ConfigError;

/// The exit codes. They follow sysexits(3) where it has a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command failed for a reason without its own code.
    Failed = 1,
    /// The stream that was read failed.
    StreamFailed = 3,
    /// Somebody cancelled the stream.
    StreamCancelled = 4,
    /// The stream was abandoned: its producer fell silent.
    StreamAbandoned = 5,
    /// Another producer took the stream over.
    StreamTakenOver = 6,
    /// Wrong usage or configuration (`EX_USAGE`).
    Usage = 64,
    /// No daemon can be reached, or it refuses for now (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The data directory is in use (`EX_CANTCREAT`).
    DataDirInUse = 73,
    /// The credential was refused (`EX_NOPERM`).
    Refused = 77,
    /// Ctrl-C, as shells report it.
    Interrupted = 130,
}

/// A listener of a running daemon, as a command addresses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The listener for clients.
    Clients,
    /// The admin listener.
    Admin,
}

impl Listener {
    /// Returns the flag that takes its address.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Clients => "--url",
            Self::Admin => "--admin-url",
        }
    }

    const fn when_unreachable(self) -> &'static str {
        match self {
            Self::Clients => {
                "is the daemon running there? Start it with `nervewire`, or name another with --url or NERVEWIRE_URL"
            }
            Self::Admin => {
                "is the daemon running, and is this its `admin_listen`? Name another address with --admin-url"
            }
        }
    }

    const fn when_not_found(self) -> &'static str {
        match self {
            Self::Clients => {
                "check the ids (`org list`, `key list` and `connections list` show them), and that --url is the address for clients, not the admin listener's"
            }
            Self::Admin => {
                "check that --admin-url is the daemon's admin listener, not its address for clients"
            }
        }
    }
}

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub enum CliError {
    /// An error to print on standard error.
    Reported {
        /// The exit code.
        exit: Exit,
        /// What happened.
        message: String,
        /// What to do next; empty if there is no hint.
        hint: String,
    },
    /// The reader of standard output has closed it. This is not an error, and nothing is printed.
    StdoutClosed,
}

impl CliError {
    /// Creates an error with a hint.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Reported { exit, message: message.into(), hint: hint.into() }
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Reported { exit, .. } => ExitCode::from(*exit as u8),
            Self::StdoutClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::new(
            Exit::Usage,
            error.to_string(),
            "docs/configuration.md lists every key; `nervewire check-config` checks again",
        )
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::of(&error, Listener::Clients)
    }
}

impl CliError {
    /// Why the daemon did not do what it was asked for on this listener.
    pub fn of(error: &ClientError, listener: Listener) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Connect { .. } | ClientError::Timeout(..) => {
                Self::new(Exit::Unavailable, message, listener.when_unreachable())
            }
            ClientError::Refused(refusal) => match refusal.status {
                401 => Self::new(
                    Exit::Refused,
                    message,
                    "give a valid API key or token with NERVEWIRE_KEY or --key",
                ),
                403 => Self::new(Exit::Refused, message, "use a credential that has the required scope"),
                404 => Self::new(Exit::Failed, message, listener.when_not_found()),
                429 | 503 => {
                    let when = refusal.retry_after.map_or_else(|| "later".into(), |s| format!("in {s} s"));
                    Self::new(Exit::Unavailable, message, format!("try again {when}"))
                }
                _ => Self::new(Exit::Failed, message, ""),
            },
            ClientError::Closed { code: 4401, .. } => {
                Self::new(Exit::Refused, message, "the credential has expired: give a new one")
            }
            ClientError::Closed { code: 4403, .. } => {
                let hint = "the credential was revoked, or the connection was closed by an operator";
                Self::new(Exit::Refused, message, hint)
            }
            ClientError::Closing { code, .. } if matches!(code.as_str(), "UNAUTHORIZED" | "FORBIDDEN") => {
                let hint = "the credential has expired or was revoked: give a new one";
                Self::new(Exit::Refused, message, hint)
            }
            _ => Self::new(Exit::Failed, message, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nervewire_client::ApiError;

    #[test]
    fn what_a_daemon_says_becomes_an_exit_code() {
        let refused = |status| ClientError::Refused(Box::new(ApiError { status, ..ApiError::default() }));
        let closed = |code| ClientError::Closed { code, reason: "said".into() };
        let closing = |code: &str| ClientError::Closing { code: code.into(), message: "said".into() };
        let source = std::io::ErrorKind::ConnectionRefused.into();
        for (error, exit) in [
            (ClientError::Connect { address: "a".into(), source }, Exit::Unavailable),
            (refused(401), Exit::Refused),
            (refused(403), Exit::Refused),
            (refused(429), Exit::Unavailable),
            (refused(503), Exit::Unavailable),
            (refused(400), Exit::Failed),
            (refused(500), Exit::Failed),
            (closed(1002), Exit::Failed),
            (closed(1008), Exit::Failed),
            (closed(4401), Exit::Refused),
            (closed(4403), Exit::Refused),
            (closing("UNAUTHORIZED"), Exit::Refused),
            (closing("FORBIDDEN"), Exit::Refused),
            (ClientError::UnexpectedResponse("x".into()), Exit::Failed),
        ] {
            let text = error.to_string();
            let CliError::Reported { exit: got, message, .. } = error.into() else { panic!("{text}") };
            assert_eq!((got, message), (exit, text));
        }
    }
}
