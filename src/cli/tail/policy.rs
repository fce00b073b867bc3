//! Whether, and when, to come back after a stream has ended: the client's half of protocol §5's table. No clock, no socket.

use std::time::Duration;

use super::super::outcome::{CliError, Exit};
use crate::client::{ClientError, Refusal};

/// The first wait, doubled with every failure in a row.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait but for one the server asks for.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// What to do after the end of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Come back with the cursor, after a wait at least this long.
    Again(Duration),
    /// Do not come back.
    Stop(CliError),
}

/// After a WebSocket close; `None` for a connection that broke off.
pub(super) fn after_close(close: Option<&(u16, String)>) -> Next {
    let Some((code, reason)) = close else { return Next::Again(Duration::ZERO) };
    let told = if reason.is_empty() {
        format!("closed with {code}")
    } else {
        format!("closed with {code}: {reason}")
    };
    match code {
        1002 | 1003 | 1007..=1009 => Next::Stop(CliError::new(Exit::Failed, told, "")),
        1013 => Next::Again(Duration::from_secs(5)),
        4401 => Next::Stop(CliError::new(Exit::Refused, told, "the credential has expired: give a new one")),
        4403 => {
            let hint = "the credential was revoked, or the connection was closed by an operator";
            Next::Stop(CliError::new(Exit::Refused, told, hint))
        }
        _ => Next::Again(Duration::ZERO),
    }
}

/// After `event: closing`; `retry_ms` is the stream's last `retry` field.
pub(super) fn after_closing(code: &str, message: &str, retry_ms: Option<u64>) -> Next {
    match code {
        "UNAUTHORIZED" | "FORBIDDEN" => {
            let hint = "the credential has expired or was revoked: give a new one";
            Next::Stop(CliError::new(Exit::Refused, format!("closed: {code}: {message}"), hint))
        }
        _ => Next::Again(Duration::from_millis(retry_ms.unwrap_or(0)).min(LONGEST_ASKED)),
    }
}

/// After an error. Before the first connection ever made, an unreachable daemon is told instead of waited for.
pub(super) fn after_error(error: ClientError, ever_connected: bool) -> Next {
    match error {
        ClientError::Refused(refusal) if matches!(refusal.status, 429 | 502..=504) => {
            let Refusal { retry_after, .. } = *refusal;
            Next::Again(Duration::from_secs(retry_after.unwrap_or(1)).min(LONGEST_ASKED))
        }
        ClientError::Refused(_) | ClientError::Shape(_) | ClientError::Request(_) => Next::Stop(error.into()),
        ClientError::Connect { .. } if !ever_connected => Next::Stop(error.into()),
        _ => Next::Again(Duration::ZERO),
    }
}

/// The wait before attempt number `failures` (from 1) since the last event or greeting: exponential, with jitter between
/// half and the whole, never under what was asked for. `random` is any number; its low bits decide.
pub(super) fn wait(failures: u32, asked: Duration, random: u64) -> Duration {
    let exponential =
        FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    let base = exponential.max(asked);
    // Upwards of what was asked for, since the herd was asked for the same.
    let jitter = base / 2 * u32::from(random as u16) / u32::from(u16::MAX);
    if asked > exponential { base + jitter } else { (base / 2 + jitter).max(asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(next: Next) -> Option<std::process::ExitCode> {
        match next {
            Next::Stop(error) => Some(error.exit_code()),
            Next::Again(_) => None,
        }
    }

    fn exit(code: Exit) -> Option<std::process::ExitCode> {
        Some(std::process::ExitCode::from(code as u8))
    }

    /// Row by row the table of protocol §5.
    #[test]
    fn close_codes() {
        let close = |code: u16| after_close(Some(&(code, String::new())));
        for code in [1002, 1003, 1007, 1008, 1009] {
            assert_eq!(stops(close(code)), exit(Exit::Failed), "{code}");
        }
        for code in [4401, 4403] {
            assert_eq!(stops(close(code)), exit(Exit::Refused), "{code}");
        }
        for code in [1000, 1001, 1006, 1011, 1012, 4408, 4440] {
            assert_eq!(close(code), Next::Again(Duration::ZERO), "{code}");
        }
        assert_eq!(close(1013), Next::Again(Duration::from_secs(5)));
        assert_eq!(after_close(None), Next::Again(Duration::ZERO));
    }

    #[test]
    fn closing_events() {
        assert_eq!(stops(after_closing("UNAUTHORIZED", "expired", Some(1))), exit(Exit::Refused));
        assert_eq!(stops(after_closing("FORBIDDEN", "", None)), exit(Exit::Refused));
        assert_eq!(after_closing("UNAVAILABLE", "", Some(2_500)), Next::Again(Duration::from_millis(2_500)));
        assert_eq!(after_closing("QUOTA_EXCEEDED", "", None), Next::Again(Duration::ZERO));
        assert_eq!(after_closing("UNAVAILABLE", "", Some(u64::MAX)), Next::Again(LONGEST_ASKED));
    }

    #[test]
    fn refusals_and_lost_connections() {
        let refused = |status, retry_after| {
            let (code, message) = (String::new(), String::new());
            ClientError::Refused(Box::new(Refusal {
                status,
                code,
                message,
                details: serde_json::Value::Null,
                retry_after,
            }))
        };
        let lost = || ClientError::Connect {
            address: "a".into(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        for status in [401, 403] {
            assert_eq!(stops(after_error(refused(status, None), true)), exit(Exit::Refused));
        }
        for status in [400, 404, 406, 500] {
            assert_eq!(stops(after_error(refused(status, None), true)), exit(Exit::Failed));
        }
        assert_eq!(after_error(refused(503, Some(7)), false), Next::Again(Duration::from_secs(7)));
        assert_eq!(after_error(refused(429, None), false), Next::Again(Duration::from_secs(1)));
        assert_eq!(stops(after_error(lost(), false)), exit(Exit::Unavailable));
        assert_eq!(after_error(lost(), true), Next::Again(Duration::ZERO));
    }

    #[test]
    fn waits_grow_jitter_and_stay_bounded() {
        let ms = Duration::from_millis;
        assert_eq!((wait(1, Duration::ZERO, 0), wait(1, Duration::ZERO, 0xFFFF)), (ms(500), ms(1_000)));
        assert_eq!((wait(3, Duration::ZERO, 0), wait(3, Duration::ZERO, 0xFFFF)), (ms(2_000), ms(4_000)));
        for failures in [6, 31, 32, 33, 64, u32::MAX] {
            assert_eq!(wait(failures, Duration::ZERO, 0xFFFF), LONGEST, "{failures}");
        }
        assert_eq!((wait(1, ms(2_000), 0), wait(1, ms(2_000), 0xFFFF)), (ms(2_000), ms(3_000)));
        assert!(wait(2, ms(1_900), 0) >= ms(1_900));
    }
}
