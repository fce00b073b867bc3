//! The counters row of a log: where the log ends and how much is in it. The row may be behind the log; then
//! the log itself is right.

use super::piece::Head;
use crate::ids::Sequence;

/// Number of values after which a tenant's counters row is written again. It bounds how much of a log
/// recovery reads.
pub(crate) const COUNTERS_EVERY: u32 = 64;

/// The counters of one tenant's log. Its row is `version u8 ‖ end ‖ oldest ‖ last
/// received ‖ trimmed received ‖ oldest received ‖ events ‖ bytes`, each u64 BE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogCounters {
    /// The last event.
    pub(crate) end: Sequence,
    /// The last trimmed event.
    pub(crate) oldest: Sequence,
    /// Receive time of the last event, Unix milliseconds.
    pub(crate) last_received_ms: u64,
    /// Receive time of the last trimmed event, Unix milliseconds.
    pub(crate) trimmed_ms: u64,
    /// Latest receive time in the oldest retained value, Unix milliseconds; 0 if nothing is retained.
    pub(crate) oldest_ms: u64,
    /// Number of retained events.
    pub(crate) events: u64,
    /// Retained bytes, including keys.
    pub(crate) bytes: u64,
}

impl LogCounters {
    const VERSION: u8 = 1;
    const LEN: usize = 1 + 7 * 8;

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(Self::LEN);
        row.push(Self::VERSION);
        for n in [
            self.end.0,
            self.oldest.0,
            self.last_received_ms,
            self.trimmed_ms,
            self.oldest_ms,
            self.events,
            self.bytes,
        ] {
            row.extend_from_slice(&n.to_be_bytes());
        }
        row
    }

    pub(crate) fn read(row: &[u8]) -> Option<LogCounters> {
        if row.len() != Self::LEN || row[0] != Self::VERSION {
            return None;
        }
        let n = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[1 + 8 * at..9 + 8 * at]);
            u64::from_be_bytes(bytes)
        };
        Some(LogCounters {
            end: Sequence(n(0)),
            oldest: Sequence(n(1)),
            last_received_ms: n(2),
            trimmed_ms: n(3),
            oldest_ms: n(4),
            events: n(5),
            bytes: n(6),
        })
    }

    /// Counts one more value, `bytes` long with its key.
    pub(crate) fn add(&mut self, first: Sequence, head: &Head, bytes: u64) {
        self.end = self.end.max(head.last(first));
        self.last_received_ms = self.last_received_ms.max(head.max_ms);
        if self.events == 0 {
            self.oldest_ms = head.max_ms;
        }
        self.events += u64::from(head.count);
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_row_round_trips_and_refuses_other_lengths() {
        let row = LogCounters {
            end: Sequence(1),
            oldest: Sequence(2),
            last_received_ms: 3,
            trimmed_ms: 4,
            oldest_ms: 5,
            events: 6,
            bytes: 7,
        };
        let written = row.write();
        assert_eq!(LogCounters::read(&written), Some(row));
        assert_eq!(LogCounters::read(&written[1..]), None);
        assert_eq!(LogCounters::read(&[&[9], &written[1..]].concat()), None);
    }
}
