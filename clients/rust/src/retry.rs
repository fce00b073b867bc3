//! Decides whether to reconnect after a stream has ended (the client's part of the table in protocol §5), and
//! whether to repeat a request. It has no clock or socket.
//!
//! * `tests/verdicts.json` has the table's rows; the TypeScript client uses the same file.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::ClientError;

/// Minimum wait after 1013 ("try again later"): several times what a publish rate per second needs to
/// recover.
const AFTER_OVERLOAD: Duration = Duration::from_secs(5);
/// Minimum wait after a refusal for lack of capacity (429, 502–504) that names no wait.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// What to do after a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Reconnect with the cursor, after a wait of at least this long.
    Retry(Duration),
    /// Reconnect with another credential, or not at all.
    Renew,
    /// Do not reconnect.
    Stop,
}

/// Decides what follows `end`. `retry_ms` is the stream's last `retry` field, in milliseconds.
pub(crate) fn after_stream_end(end: &ClientError, retry_ms: Option<u64>) -> Verdict {
    let retry = Duration::from_millis(retry_ms.unwrap_or(0));
    match end {
        _ if end.is_unauthorized() => Verdict::Renew,
        ClientError::Refused(_) => retry_delay(end).map_or(Verdict::Stop, Verdict::Retry),
        ClientError::Closed { code, .. } => match code {
            // 4403 means closed by an administrator, revoked, or changed identity. The others are errors of
            // this client.
            1002 | 1003 | 1007..=1010 | 4403 => Verdict::Stop,
            1013 => Verdict::Retry(AFTER_OVERLOAD),
            _ => Verdict::Retry(Duration::ZERO),
        },
        ClientError::Closing { code, .. } => match code.as_str() {
            "FORBIDDEN" | "BAD_REQUEST" | "VALIDATION_ERROR" | "NOT_FOUND" => Verdict::Stop,
            "QUOTA_EXCEEDED" => Verdict::Retry(retry_ms.map_or(AFTER_BUSY, Duration::from_millis)),
            _ => Verdict::Retry(retry),
        },
        ClientError::Ended => Verdict::Retry(retry),
        ClientError::Connect { .. } | ClientError::Timeout(..) | ClientError::Http(_) => {
            Verdict::Retry(Duration::ZERO)
        }
        ClientError::WebSocket(error) => match **error {
            // The connection was cut in the middle of a handshake or a frame.
            WsError::Protocol(
                ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
            ) => Verdict::Retry(Duration::ZERO),
            // These errors would occur again at the same cursor.
            WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) | WsError::HttpFormat(_) => {
                Verdict::Stop
            }
            _ => Verdict::Retry(Duration::ZERO),
        },
        ClientError::ReadToEnd
        | ClientError::TextMissing { .. }
        | ClientError::Request(_)
        | ClientError::Body(_)
        | ClientError::TooLarge(_)
        | ClientError::UnexpectedResponse(_)
        | ClientError::Sse(_) => Verdict::Stop,
    }
}

/// Returns how long to wait after a temporary refusal by the daemon or a proxy; `None` if the request would
/// be refused again.
fn retry_delay(error: &ClientError) -> Option<Duration> {
    let refusal = error.api_error()?;
    let least = match refusal.status {
        408 | 500 => Duration::ZERO,
        429 | 502..=504 => AFTER_BUSY,
        _ => return None,
    };
    Some(refusal.retry_after.map_or(least, Duration::from_secs))
}

/// Returns the minimum wait before a repeatable request is sent again; `None` if it would fail again.
pub(crate) fn request_delay(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Connect { .. } | ClientError::Http(_) | ClientError::Timeout(..) => Some(Duration::ZERO),
        _ => retry_delay(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::ApiError;

    const AT_ONCE: Verdict = Verdict::Retry(Duration::ZERO);
    /// A code and a status that the tables do not contain.
    const OTHER_CODE: u16 = 4_999;
    const OTHER_STATUS: u16 = 418;

    /// The table that both clients use.
    fn verdicts() -> Value {
        serde_json::from_str(include_str!("../tests/verdicts.json")).unwrap()
    }

    fn rows<'a>(verdicts: &'a Value, table: &str) -> &'a Map<String, Value> {
        let rows = verdicts[table].as_object().unwrap();
        assert!(rows.len() > 5, "{table}");
        rows
    }

    /// What a row of this table requires if the peer names no wait.
    fn expected_verdict(verdicts: &Value, table: &str, verdict: &Value) -> Verdict {
        match verdict.as_str().unwrap() {
            "end" => Verdict::Stop,
            "again" => AT_ONCE,
            "later" => Verdict::Retry(Duration::from_millis(verdicts["later_ms"][table].as_u64().unwrap())),
            "credential" => Verdict::Renew,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn close_codes_follow_the_table() {
        let verdicts = verdicts();
        for (row, verdict) in rows(&verdicts, "close") {
            let code = row.parse().unwrap_or(OTHER_CODE);
            let next = after_stream_end(&ClientError::Closed { code, reason: String::new() }, None);
            assert_eq!(next, expected_verdict(&verdicts, "close", verdict), "{row}");
        }
        assert_eq!(after_stream_end(&ClientError::Ended, None), AT_ONCE);
    }

    #[test]
    fn closing_events_follow_the_table() {
        let verdicts = verdicts();
        for (row, verdict) in rows(&verdicts, "closing") {
            let closing = |retry_ms| {
                after_stream_end(
                    &ClientError::Closing { code: row.clone(), message: String::new() },
                    retry_ms,
                )
            };
            let next = expected_verdict(&verdicts, "closing", verdict);
            assert_eq!(closing(None), next, "{row}");
            if matches!(next, Verdict::Retry(_)) {
                assert_eq!(
                    closing(Some(70)),
                    Verdict::Retry(Duration::from_millis(70)),
                    "{row}: the requested wait"
                );
            }
        }
        assert_eq!(
            after_stream_end(&ClientError::Ended, Some(2_000)),
            Verdict::Retry(Duration::from_secs(2))
        );
    }

    fn refused(status: u16, retry_after: Option<u64>) -> ClientError {
        ClientError::Refused(Box::new(ApiError { status, retry_after, ..ApiError::default() }))
    }

    #[test]
    fn refusals_follow_the_table() {
        let verdicts = verdicts();
        for (row, verdict) in rows(&verdicts, "status") {
            let status = row.parse().unwrap_or(OTHER_STATUS);
            let next = expected_verdict(&verdicts, "status", verdict);
            assert_eq!(after_stream_end(&refused(status, None), None), next, "{row}");
            // The client already used another credential after a 401, before the error came here.
            let repeats = |next| if let Verdict::Retry(wait) = next { Some(wait) } else { None };
            assert_eq!(request_delay(&refused(status, None)), repeats(next), "{row}");
            if repeats(next).is_some() {
                let requested = Duration::from_secs(7);
                assert_eq!(
                    after_stream_end(&refused(status, Some(7)), None),
                    Verdict::Retry(requested),
                    "{row}"
                );
                assert_eq!(request_delay(&refused(status, Some(7))), Some(requested), "{row}");
            }
        }
    }

    #[test]
    fn lost_connections_are_retried() {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        let lost = ClientError::Connect { address: "a".into(), source };
        assert_eq!((after_stream_end(&lost, None), request_delay(&lost)), (AT_ONCE, Some(Duration::ZERO)));
        let silent = ClientError::Timeout("the next byte", Duration::from_secs(1));
        assert_eq!(
            (after_stream_end(&silent, None), request_delay(&silent)),
            (AT_ONCE, Some(Duration::ZERO))
        );
    }

    #[test]
    fn errors_that_would_recur_are_not_retried() {
        for error in [
            ClientError::ReadToEnd,
            ClientError::UnexpectedResponse("x".into()),
            ClientError::Sse(crate::SseError::TooLarge),
            WsError::Capacity(tokio_tungstenite::tungstenite::error::CapacityError::TooManyHeaders).into(),
        ] {
            assert_eq!(
                (after_stream_end(&error, Some(1)), request_delay(&error)),
                (Verdict::Stop, None),
                "{error}"
            );
        }
        for error in [WsError::ConnectionClosed, WsError::Protocol(ProtocolError::HandshakeIncomplete)] {
            assert_eq!(after_stream_end(&error.into(), None), AT_ONCE);
        }
    }
}
