//! Whether to come back after a stream has ended: the client's half of protocol §5's table. No clock, no socket.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::ClientError;

/// The least wait after 1013, "later": what one second's publish rate needs to recover several times over.
const AFTER_OVERLOAD: Duration = Duration::from_secs(5);
/// The least wait after a 429 or 503 that names none.
const AFTER_BUSY: Duration = Duration::from_secs(1);

/// What to do after the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Come back with the cursor, after a wait at least this long.
    Again(Duration),
    /// Come back with another credential, or not at all.
    Renew,
    /// Do not come back.
    Stop,
}

/// After this end; `asked`: milliseconds of the stream's last `retry` field.
pub(super) fn after(end: &ClientError, retry_ms: Option<u64>) -> Next {
    let retry = Duration::from_millis(retry_ms.unwrap_or(0));
    match end {
        _ if end.is_unauthorized() => Next::Renew,
        ClientError::Refused(_) => busy(end).map_or(Next::Stop, Next::Again),
        ClientError::Closed { code, .. } => match code {
            // The last is "kicked, revoked, changed identity"; the rest are this client's own faults.
            1002 | 1003 | 1007..=1009 | 4403 => Next::Stop,
            1013 => Next::Again(AFTER_OVERLOAD),
            _ => Next::Again(Duration::ZERO),
        },
        ClientError::Closing { code, .. } if code == "FORBIDDEN" => Next::Stop,
        ClientError::Closing { .. } | ClientError::Ended => Next::Again(retry),
        ClientError::Connect { .. } | ClientError::Timeout(..) | ClientError::Http(_) => {
            Next::Again(Duration::ZERO)
        }
        ClientError::WebSocket(error) => match **error {
            // Cut in the middle of a handshake or a frame.
            WsError::Protocol(
                ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
            ) => Next::Again(Duration::ZERO),
            // What would meet the client again at the same cursor.
            WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) | WsError::HttpFormat(_) => {
                Next::Stop
            }
            _ => Next::Again(Duration::ZERO),
        },
        ClientError::Request(_)
        | ClientError::Body(_)
        | ClientError::TooLarge(_)
        | ClientError::Shape(_)
        | ClientError::Sse(_) => Next::Stop,
    }
}

/// How long the daemon, or what stands before it, asks to be left alone, if that is what it refused for.
pub(super) fn busy(error: &ClientError) -> Option<Duration> {
    let refusal = error.refusal().filter(|refusal| matches!(refusal.status, 429 | 502..=504))?;
    Some(refusal.retry_after.map_or(AFTER_BUSY, Duration::from_secs))
}

/// The least wait before a request that may be repeated is; `None`: what failed would fail again.
pub(super) fn repeat(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Connect { .. } | ClientError::Http(_) | ClientError::Timeout(..) => Some(Duration::ZERO),
        _ => busy(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use super::*;

    const AT_ONCE: Next = Next::Again(Duration::ZERO);

    /// Row by row the table of protocol §5.
    #[test]
    fn close_codes() {
        let close = |code| after(&ClientError::Closed { code, reason: String::new() }, None);
        for code in [1002, 1003, 1007, 1008, 1009, 4403] {
            assert_eq!(close(code), Next::Stop, "{code}");
        }
        assert_eq!(close(4401), Next::Renew);
        for code in [1000, 1001, 1006, 1011, 1012, 4408, 4440, 4999] {
            assert_eq!(close(code), AT_ONCE, "{code}");
        }
        assert_eq!(close(1013), Next::Again(Duration::from_secs(5)));
        assert_eq!(after(&ClientError::Ended, None), AT_ONCE);
    }

    #[test]
    fn closing_events() {
        let closing = |code: &str, retry_ms| {
            after(&ClientError::Closing { code: code.into(), message: String::new() }, retry_ms)
        };
        assert_eq!(closing("UNAUTHORIZED", Some(1)), Next::Renew);
        assert_eq!(closing("FORBIDDEN", None), Next::Stop);
        assert_eq!(closing("UNAVAILABLE", Some(2_500)), Next::Again(Duration::from_millis(2_500)));
        assert_eq!(closing("INTERNAL_ERROR", None), AT_ONCE);
        assert_eq!(after(&ClientError::Ended, Some(2_000)), Next::Again(Duration::from_secs(2)));
    }

    fn refused(status: u16, retry_after: Option<u64>) -> ClientError {
        ClientError::Refused(Box::new(Refusal { status, retry_after, ..Refusal::default() }))
    }

    #[test]
    fn refusals_and_lost_connections() {
        assert_eq!(after(&refused(401, None), None), Next::Renew);
        for status in [400, 403, 404, 406, 426, 500] {
            assert_eq!(after(&refused(status, Some(1)), None), Next::Stop, "{status}");
            assert_eq!(repeat(&refused(status, Some(1))), None, "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert_eq!(after(&refused(status, Some(7)), None), Next::Again(Duration::from_secs(7)));
            assert_eq!(after(&refused(status, None), None), Next::Again(AFTER_BUSY));
            assert_eq!(repeat(&refused(status, Some(7))), Some(Duration::from_secs(7)));
        }
        let source = std::io::ErrorKind::ConnectionRefused.into();
        let lost = ClientError::Connect { address: "a".into(), source };
        assert_eq!((after(&lost, None), repeat(&lost)), (AT_ONCE, Some(Duration::ZERO)));
        let mute = ClientError::Timeout("the next byte", Duration::from_secs(1));
        assert_eq!((after(&mute, None), repeat(&mute)), (AT_ONCE, Some(Duration::ZERO)));
    }

    #[test]
    fn what_would_be_met_again_is_not_met_again() {
        for error in [
            ClientError::Shape("x".into()),
            ClientError::Sse(super::super::SseError::TooLarge),
            WsError::Capacity(tokio_tungstenite::tungstenite::error::CapacityError::TooManyHeaders).into(),
        ] {
            assert_eq!((after(&error, Some(1)), repeat(&error)), (Next::Stop, None), "{error}");
        }
        for error in [WsError::ConnectionClosed, WsError::Protocol(ProtocolError::HandshakeIncomplete)] {
            assert_eq!(after(&error.into(), None), AT_ONCE);
        }
    }
}
