//! The reasons for closing a connection: a closed list, each with its WebSocket close code and the text that
//! a client sees.
//!
//! The server never starts a close with 1000 or 1001, because clients take those as "do not reconnect".

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Close {
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
}

impl Close {
    /// Every reason, in the order of their ordinals.
    pub const ALL: [Close; 16] = [
        Close::Protocol,
        Close::Binary,
        Close::BadText,
        Close::TooLarge,
        Close::Policy,
        Close::Restart,
        Close::OverRate,
        Close::Expired,
        Close::Revoked,
        Close::Kicked,
        Close::Stalled,
        Close::HeartbeatMissed,
        Close::Peer,
        Close::Internal,
        Close::Late,
        Close::OverShare,
    ];

    /// Returns the close code (RFC 6455 §7.4, private codes 4400–4499), or `None` if no close frame is sent.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        Some(match self {
            Close::Protocol => 1002,
            Close::Binary => 1003,
            Close::BadText => 1007,
            Close::TooLarge => 1009,
            Close::Policy => 1008,
            Close::Restart => 1012,
            Close::OverRate | Close::OverShare => 1013,
            Close::Expired => 4401,
            Close::Revoked | Close::Kicked => 4403,
            Close::Stalled | Close::Late => 4408,
            Close::HeartbeatMissed => 4440,
            Close::Internal => 1011,
            Close::Peer => return None,
        })
    }

    /// Returns the error code and the message of `event: closing`. The message is also the reason of the
    /// close frame.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Close::Protocol => ("BAD_REQUEST", "protocol error"),
            Close::Binary => ("BAD_REQUEST", "only text messages are accepted"),
            Close::BadText => ("BAD_REQUEST", "text is not UTF-8"),
            Close::TooLarge => ("PAYLOAD_TOO_LARGE", "message over the limit"),
            Close::Policy => ("BAD_REQUEST", "too many bad frames"),
            Close::Restart => ("UNAVAILABLE", "the server restarts: reconnect with your cursor"),
            Close::OverRate => ("QUOTA_EXCEEDED", "over the publish rate"),
            Close::Expired => ("UNAUTHORIZED", "credential expired"),
            Close::Revoked => ("FORBIDDEN", "credential revoked"),
            Close::Kicked => ("FORBIDDEN", "closed by an administrator"),
            Close::Stalled => ("UNAVAILABLE", "no write progress: reconnect with your cursor"),
            Close::HeartbeatMissed => ("UNAVAILABLE", "heartbeat missed"),
            Close::Peer => ("UNAVAILABLE", "closed by the peer"),
            Close::Internal => ("INTERNAL_ERROR", "internal error: reconnect with your cursor"),
            Close::Late => ("UNAVAILABLE", "a message was not complete in time"),
            Close::OverShare => ("QUOTA_EXCEEDED", "the organization has too many incomplete messages"),
        }
    }

    /// Returns the name that metrics use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Close::Protocol => "protocol",
            Close::Binary => "binary",
            Close::BadText => "bad_text",
            Close::TooLarge => "too_large",
            Close::Policy => "policy",
            Close::Restart => "restart",
            Close::OverRate => "over_rate",
            Close::Expired => "expired",
            Close::Revoked => "revoked",
            Close::Kicked => "kicked",
            Close::Stalled => "stalled",
            Close::HeartbeatMissed => "heartbeat_missed",
            Close::Peer => "peer",
            Close::Internal => "internal",
            Close::Late => "late",
            Close::OverShare => "over_share",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_follow_the_list_and_nothing_starts_a_normal_close() {
        for (at, close) in Close::ALL.into_iter().enumerate() {
            assert_eq!(close as usize, at);
            assert!(!matches!(close.code(), Some(1000 | 1001)));
            assert!(close.words().1.len() <= 123, "a close reason fits a control frame");
        }
    }
}
