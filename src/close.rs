//! Why a connection ends: a closed list, each reason with its WebSocket close code and the words a client sees.
//!
//! The server never starts a close with 1000 or 1001, since clients take those as "do not come back".

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Close {
    /// RFC 6455 was violated.
    Protocol = 0,
    /// A binary message, where only JSON text is spoken.
    Binary,
    /// Text that is not UTF-8.
    BadText,
    /// A frame or message over the limit.
    TooLarge,
    /// Repeated bad frames.
    Policy,
    /// The daemon restarts or drains.
    Restart,
    /// Over a publish rate again and again.
    OverRate,
    /// The credential expired.
    Expired,
    /// The credential was revoked, its user disabled, its organization deleted, or a renewal named someone else.
    Revoked,
    /// An administrator or the owner closed it.
    Kicked,
    /// No write progress for `write_timeout`.
    Stalled,
    /// Nothing heard for two heartbeats.
    HeartbeatMissed,
    /// The peer closed it, or went away.
    Peer,
    /// The log could not be read.
    Internal,
    /// A message did not come whole in time.
    Late,
    /// The organization's messages that have come in part are as many as they may be.
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

    /// The close code (RFC 6455 §7.4, private codes 4400–4499); `None` where no close frame is sent.
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

    /// The error code and sentence that `event: closing` carries, and the reason text of the close frame.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Close::Protocol => ("BAD_REQUEST", "protocol error"),
            Close::Binary => ("BAD_REQUEST", "only text messages are spoken here"),
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
            Close::Late => ("UNAVAILABLE", "a message did not come whole in time"),
            Close::OverShare => ("QUOTA_EXCEEDED", "too much of the organization has come in part"),
        }
    }

    /// The name metrics use.
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
