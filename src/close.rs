//! The reasons for closing a connection: a closed list, each with its WebSocket close code and the text that
//! a client sees.
//!
//! The server never starts a close with 1000 or 1001, because clients take those as "do not reconnect".

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// RFC 6455 was violated.
    Protocol = 0,
    /// The client sent a binary message; only JSON text is accepted.
    Binary,
    /// A text message is not UTF-8.
    BadText,
    /// A frame or message is larger than the limit.
    TooLarge,
    /// The client sent too many bad frames in a row.
    Policy,
    /// The daemon is restarting or draining.
    Restart,
    /// The client exceeded its publish rate too many times in a row.
    OverRate,
    /// The credential expired.
    Expired,
    /// The credential was revoked, its user disabled, its organization deleted, or a renewal named another
    /// subject.
    Revoked,
    /// An administrator or the owner closed the connection.
    Kicked,
    /// The client read nothing for `write_timeout`.
    Stalled,
    /// Nothing was received from the client for two heartbeats.
    HeartbeatMissed,
    /// The peer closed the connection or disappeared.
    Peer,
    /// The log could not be read.
    Internal,
    /// A message was not complete in time.
    Late,
    /// The incomplete messages of the organization use up its share of memory.
    OverShare,
    /// Every stream that the client asked for has ended and was sent.
    Done,
    /// A stream that the client asked for was not opened in time.
    UnknownStream,
}

impl CloseReason {
    /// Every reason, in the order of their ordinals.
    pub const ALL: [CloseReason; 18] = [
        CloseReason::Protocol,
        CloseReason::Binary,
        CloseReason::BadText,
        CloseReason::TooLarge,
        CloseReason::Policy,
        CloseReason::Restart,
        CloseReason::OverRate,
        CloseReason::Expired,
        CloseReason::Revoked,
        CloseReason::Kicked,
        CloseReason::Stalled,
        CloseReason::HeartbeatMissed,
        CloseReason::Peer,
        CloseReason::Internal,
        CloseReason::Late,
        CloseReason::OverShare,
        CloseReason::Done,
        CloseReason::UnknownStream,
    ];

    /// Returns the close code (RFC 6455 §7.4, private codes 4400–4499), or `None` if no close frame is sent.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        Some(match self {
            CloseReason::Protocol => 1002,
            CloseReason::Binary => 1003,
            CloseReason::BadText => 1007,
            CloseReason::TooLarge => 1009,
            CloseReason::Policy => 1008,
            CloseReason::Restart => 1012,
            CloseReason::OverRate | CloseReason::OverShare => 1013,
            CloseReason::Expired => 4401,
            CloseReason::Revoked | CloseReason::Kicked => 4403,
            CloseReason::Stalled | CloseReason::Late => 4408,
            CloseReason::HeartbeatMissed => 4440,
            CloseReason::Internal => 1011,
            CloseReason::Peer | CloseReason::Done | CloseReason::UnknownStream => return None,
        })
    }

    /// Returns the error code and the message of `event: closing`. The message is also the reason of the
    /// close frame.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            CloseReason::Protocol => ("BAD_REQUEST", "protocol error"),
            CloseReason::Binary => ("BAD_REQUEST", "only text messages are accepted"),
            CloseReason::BadText => ("BAD_REQUEST", "text is not UTF-8"),
            CloseReason::TooLarge => ("PAYLOAD_TOO_LARGE", "message over the limit"),
            CloseReason::Policy => ("BAD_REQUEST", "too many bad frames"),
            CloseReason::Restart => ("UNAVAILABLE", "the server restarts: reconnect with your cursor"),
            CloseReason::OverRate => ("QUOTA_EXCEEDED", "over the publish rate"),
            CloseReason::Expired => ("UNAUTHORIZED", "credential expired"),
            CloseReason::Revoked => ("FORBIDDEN", "credential revoked"),
            CloseReason::Kicked => ("FORBIDDEN", "closed by an administrator"),
            CloseReason::Stalled => ("UNAVAILABLE", "no write progress: reconnect with your cursor"),
            CloseReason::HeartbeatMissed => ("UNAVAILABLE", "heartbeat missed"),
            CloseReason::Peer => ("UNAVAILABLE", "closed by the peer"),
            CloseReason::Internal => ("INTERNAL_ERROR", "internal error: reconnect with your cursor"),
            CloseReason::Late => ("UNAVAILABLE", "a message was not complete in time"),
            CloseReason::OverShare => ("QUOTA_EXCEEDED", "the organization has too many incomplete messages"),
            CloseReason::Done => ("UNAVAILABLE", "the streams have ended"),
            CloseReason::UnknownStream => ("NOT_FOUND", "no stream with this request_id was opened in time"),
        }
    }

    /// Returns the name that metrics use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::Protocol => "protocol",
            CloseReason::Binary => "binary",
            CloseReason::BadText => "bad_text",
            CloseReason::TooLarge => "too_large",
            CloseReason::Policy => "policy",
            CloseReason::Restart => "restart",
            CloseReason::OverRate => "over_rate",
            CloseReason::Expired => "expired",
            CloseReason::Revoked => "revoked",
            CloseReason::Kicked => "kicked",
            CloseReason::Stalled => "stalled",
            CloseReason::HeartbeatMissed => "heartbeat_missed",
            CloseReason::Peer => "peer",
            CloseReason::Internal => "internal",
            CloseReason::Late => "late",
            CloseReason::OverShare => "over_share",
            CloseReason::Done => "done",
            CloseReason::UnknownStream => "unknown_stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_follow_the_list_and_nothing_starts_a_normal_close() {
        for (at, close) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(close as usize, at);
            assert!(!matches!(close.code(), Some(1000 | 1001)));
            assert!(close.words().1.len() <= 123, "a close reason fits a control frame");
        }
    }
}
