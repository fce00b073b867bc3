//! The event of the bench: a sequence and a time inside a payload of a chosen size, found again by a fixed
//! pattern.
//!
//! * Shape: `{"type":"custom","channel":"bench/<k>","data":{"n":"<12 digits>","t":"<19 digits>","pad":"…"}}`.
//!   Both numbers are strings of fixed width (JSON allows no leading zeros), so a stamped event is made by
//!   overwriting digits.
//! * A server must pass `data` on byte for byte. The bytes around it are not checked.
//! * Any event type may contain the two fields next to each other, `n` first (a `stream_chunk` in its
//!   `metadata`).

use std::time::Duration;

use memchr::memmem::Finder;
use rustix::time::ClockId;

/// Digits of `n`.
const N_DIGITS: usize = 12;
/// Digits of `t`.
const T_DIGITS: usize = 19;
const N_PATTERN: &[u8] = b"\"n\":\"";
const T_PATTERN: &[u8] = b"\",\"t\":\"";
const PAD_PATTERN: &[u8] = b"\",\"pad\":\"";
/// Bytes from the start of [`N_PATTERN`] to the end of `t`.
const STAMP_LEN: usize = N_PATTERN.len() + N_DIGITS + T_PATTERN.len() + T_DIGITS;

/// The stamp of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The number of the event, from 0 in each run.
    pub n: u64,
    /// When the event was published, in CLOCK_MONOTONIC nanoseconds.
    pub t: u64,
}

/// Returns CLOCK_MONOTONIC in nanoseconds. It is the same clock in every process of the machine.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32).as_nanos() as u64
}

/// An event whose stamp is overwritten before each publish.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    text: Vec<u8>,
    /// Where the digits of `n` start. Those of `t` follow at a fixed distance.
    n_at: usize,
}

impl Template {
    /// Creates an event on channel `bench/<lane>`, padded to `size` bytes. If `size` is too small, it is the
    /// shortest possible event.
    pub(crate) fn custom(lane: usize, size: usize) -> Template {
        let zeros = "0".repeat(N_DIGITS);
        let times = "0".repeat(T_DIGITS);
        let start = format!(
            r#"{{"type":"custom","channel":"bench/{lane}","data":{{"n":"{zeros}","t":"{times}","pad":""#
        );
        let end = r#""}}"#;
        let pad = size.saturating_sub(start.len() + end.len());
        let text = format!("{start}{}{end}", "x".repeat(pad)).into_bytes();
        let n_at = start.len() - T_DIGITS - T_PATTERN.len() - N_DIGITS - PAD_PATTERN.len();
        Template { text, n_at }
    }

    /// Returns the event with this stamp.
    pub(crate) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        digits(&mut self.text[self.n_at..self.n_at + N_DIGITS], stamp.n);
        let t_at = self.n_at + N_DIGITS + T_PATTERN.len();
        digits(&mut self.text[t_at..t_at + T_DIGITS], stamp.t);
        &self.text
    }

    /// Writes an array of `count` events, numbered from `first`, into `out`, which is cleared first.
    pub(crate) fn array(&mut self, first: u64, count: u64, t: u64, out: &mut Vec<u8>) {
        out.clear();
        for n in first..first + count {
            out.push(if n == first { b'[' } else { b',' });
            out.extend_from_slice(self.stamped(Stamp { n, t }));
        }
        out.push(b']');
    }

    /// Writes the same events as lines of NDJSON.
    pub(crate) fn lines(&mut self, first: u64, count: u64, t: u64, out: &mut Vec<u8>) {
        out.clear();
        for n in first..first + count {
            out.extend_from_slice(self.stamped(Stamp { n, t }));
            out.push(b'\n');
        }
    }

    /// Returns the number of bytes of the event.
    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }
}

/// Writes `value` in decimal, padded with zeros. Higher digits that do not fit are dropped.
fn digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Finds stamps. There is one for each thread, because it holds a prepared search.
#[derive(Debug)]
pub(crate) struct Scan(Finder<'static>);

impl Scan {
    /// Creates a scanner.
    pub(crate) fn new() -> Scan {
        Scan(Finder::new(N_PATTERN))
    }

    /// Returns the first stamp in `text`.
    pub(crate) fn find(&self, text: &[u8]) -> Option<Stamp> {
        let at = self.0.find(text)?;
        let stamp = text.get(at..at + STAMP_LEN)?;
        let (n, rest) = stamp[N_PATTERN.len()..].split_at(N_DIGITS);
        let t = rest.strip_prefix(T_PATTERN)?;
        Some(Stamp { n: number(n)?, t: number(t)? })
    }
}

impl Scan {
    /// Returns every stamp in `text`, in order.
    pub(crate) fn all<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Stamp> + 'a {
        self.0.find_iter(text).filter_map(move |at| self.find(text.get(at..at + STAMP_LEN)?))
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        digit.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stamped_is_found_and_a_valid_event_of_the_asked_size() {
        let mut template = Template::custom(3, 128);
        for (n, t) in [(0, 0), (7, 1_234_567_890_123), (999_999_999_999, 9_999_999_999_999_999_999)] {
            let text = template.stamped(Stamp { n, t }).to_vec();
            assert_eq!(text.len(), 128);
            let event: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!((&event["type"], &event["channel"]), (&"custom".into(), &"bench/3".into()));
            let digits = [&event["data"]["n"], &event["data"]["t"]];
            assert_eq!(digits, [&format!("{n:012}"), &format!("{t:019}")]);
            assert_eq!(Scan::new().find(&text), Some(Stamp { n, t }));
        }
        assert!(Template::custom(0, 1).size() > 1, "never cut");
    }

    #[test]
    fn an_array_holds_them_all_in_order() {
        let mut body = b"left over".to_vec();
        Template::custom(0, 128).array(5, 3, 9, &mut body);
        let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let numbers: Vec<&str> = events.iter().map(|event| event["data"]["n"].as_str().unwrap()).collect();
        assert_eq!(numbers, ["000000000005", "000000000006", "000000000007"]);
        let stamps: Vec<Stamp> = Scan::new().all(&body).collect();
        assert_eq!(stamps, [5, 6, 7].map(|n| Stamp { n, t: 9 }));
        let mut lines = b"left over".to_vec();
        Template::custom(0, 128).lines(5, 3, 9, &mut lines);
        assert!(lines.ends_with(b"\n"));
        let lines: Vec<&[u8]> = lines.trim_ascii_end().split(|byte| *byte == b'\n').collect();
        assert!(
            lines
                .iter()
                .zip(&events)
                .all(|(line, event)| serde_json::from_slice::<serde_json::Value>(line).unwrap() == *event)
        );
    }

    #[test]
    fn what_is_no_stamp_is_not_taken_for_one() {
        for text in
            ["", "\"n\":\"", "\"n\":\"00000000000x\",\"t\":\"0000000000000000000\"", "{\"type\":\"ready\"}"]
        {
            assert_eq!(Scan::new().find(text.as_bytes()), None, "{text}");
        }
    }
}
