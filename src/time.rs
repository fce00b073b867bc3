//! The injected clock: code that needs the time is given a [`Clock`], so that tests control the time.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of the time.
pub trait Clock: Send + Sync {
    /// Returns milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Returns microseconds since an arbitrary start. It never goes back and is only for durations.
    fn monotonic_us(&self) -> u64 {
        self.now_ms().saturating_mul(1_000)
    }
}

/// The system's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
    fn monotonic_us(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Never 0, which means "no time".
        START.elapsed().as_micros() as u64 + 1
    }
}

/// A clock that does not move until it is set or advanced.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// Creates a clock that shows `now_ms`.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        ManualClock { wall_ms: AtomicU64::new(now_ms), monotonic_ms: AtomicU64::new(now_ms) }
    }
    /// Advances both clocks.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }
    /// Sets the wall clock, forward or back, as an administrator or NTP does. The monotonic clock does not
    /// move.
    pub fn set(&self, now_ms: u64) {
        self.wall_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
    fn monotonic_us(&self) -> u64 {
        self.monotonic_ms.load(Ordering::Relaxed).saturating_mul(1_000)
    }
}

/// The wall clock as far as it can be trusted, for code that removes old data: a clock that is set forward by
/// mistake must not remove everything at once.
///
/// * It is never ahead of the wall clock, and follows it back at once.
/// * If the wall clock jumps ahead of the monotonic clock by more than [`STEP_MS`], this clock continues with
///   the monotonic time, and follows the wall clock once the jump has lasted for [`BELIEVED_MS`].
#[derive(Debug, Default)]
pub struct CautiousClock {
    /// The time it showed last, in Unix milliseconds, and the monotonic clock then; `None` before the first
    /// reading.
    last: Option<(u64, u64)>,
    /// Since when, by the monotonic clock, the wall clock is ahead, and by how many milliseconds.
    doubt: Option<(u64, u64)>,
}

/// The largest jump that is followed at once, in milliseconds.
const STEP_MS: u64 = 60_000;
/// How long a larger jump must last before it is followed, in milliseconds.
pub const BELIEVED_MS: u64 = 24 * 60 * 60 * 1_000;

impl CautiousClock {
    /// Reads `clock`; call it at least every minute. The first reading is trusted.
    pub fn now_ms(&mut self, clock: &dyn Clock) -> u64 {
        let (wall, monotonic) = (clock.now_ms(), clock.monotonic_us() / 1_000);
        let (last, then) = self.last.unwrap_or((wall, monotonic));
        let expected = last.saturating_add(monotonic.saturating_sub(then));
        let ahead = wall.saturating_sub(expected);
        let since = match self.doubt {
            Some((since, known)) if ahead <= known.saturating_add(STEP_MS) => since,
            _ => monotonic,
        };
        let believed = ahead <= STEP_MS || monotonic.saturating_sub(since) >= BELIEVED_MS;
        self.doubt = (!believed).then_some((since, ahead));
        let now = if believed { wall } else { expected };
        self.last = Some((now, monotonic));
        now
    }
}

/// The last time that can be shown, in Unix milliseconds.
const CALENDAR_END_MS: u64 = 253_402_207_200_999;

/// Formats a time as RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`. Times past the year 9999
/// are shown as its end.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms.min(CALENDAR_END_MS)).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => String::from("9999-12-30T22:00:00.999Z"),
    }
}

/// Length of [`rfc3339`] in characters.
pub const RFC3339_LEN: usize = 24;

/// Returns [`rfc3339`] as bytes. Each thread caches the text of the last second: the time of receipt is
/// written once per event, and the calendar computation costs more than the rest of the encoding.
#[must_use]
pub fn rfc3339_bytes(ms: u64) -> [u8; RFC3339_LEN] {
    thread_local! {
        static SECOND: Cell<(u64, [u8; RFC3339_LEN])> = const { Cell::new((u64::MAX, [b'0'; RFC3339_LEN])) };
    }
    SECOND.with(|known| {
        let (second, mut text) = known.get();
        if second != ms / 1_000 || ms >= CALENDAR_END_MS {
            for (to, from) in text.iter_mut().zip(rfc3339(ms).bytes()) {
                *to = from;
            }
            known.set((ms / 1_000, text));
            return text;
        }
        let milli = (ms % 1_000) as u16;
        for (to, place) in text[20..23].iter_mut().zip([100, 10, 1]) {
            *to = b'0' + (milli / place % 10) as u8;
        }
        text
    })
}

/// Parses RFC 3339 into Unix milliseconds. Returns `None` if the text is not RFC 3339 with an offset. Times
/// before 1970 are 0.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    if text.len() > 64 {
        return None;
    }
    let t: jiff::Timestamp = text.parse().ok()?;
    Some(u64::try_from(t.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(parse_rfc3339("2023-11-14T22:13:20.007Z"), Some(1_700_000_000_007));
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.007+01:00"), Some(1_700_000_000_007));
        assert_eq!(rfc3339(u64::MAX).len(), 24);
    }

    #[test]
    fn a_clock_set_far_ahead_is_believed_after_a_day_and_a_clock_set_back_at_once() {
        const YEAR_MS: u64 = 365 * BELIEVED_MS;
        let (clock, mut cautious) = (ManualClock::at(1_000_000), CautiousClock::default());
        assert_eq!(cautious.now_ms(&clock), 1_000_000);
        clock.advance(5_000);
        clock.set(clock.now_ms() + STEP_MS); // a small correction
        assert_eq!(cautious.now_ms(&clock), clock.now_ms());
        let before = clock.now_ms();
        clock.set(before + YEAR_MS);
        assert_eq!(cautious.now_ms(&clock), before);
        clock.advance(1_000);
        assert_eq!(cautious.now_ms(&clock), before + 1_000, "time passes");
        clock.set(before - 7);
        assert_eq!(cautious.now_ms(&clock), before - 7);

        clock.set(before + YEAR_MS);
        cautious.now_ms(&clock);
        clock.advance(BELIEVED_MS - 1);
        assert_eq!(cautious.now_ms(&clock), before - 7 + BELIEVED_MS - 1);
        clock.set(clock.now_ms() + YEAR_MS); // a second mistake is not believed for the first one's age
        clock.advance(1);
        assert_eq!(cautious.now_ms(&clock), before - 7 + BELIEVED_MS);
        clock.advance(BELIEVED_MS);
        assert_eq!(cautious.now_ms(&clock), clock.now_ms());
    }

    #[test]
    fn the_bytes_are_the_text_whatever_came_before() {
        let base = 1_700_000_000_000;
        for ms in [
            base,
            base + 7,
            base + 999,
            base + 1_000,
            base + 1_010,
            base + 500,
            0,
            999,
            CALENDAR_END_MS,
            CALENDAR_END_MS + 1,
            u64::MAX,
            u64::MAX - 1,
            base,
        ] {
            assert_eq!(rfc3339_bytes(ms), rfc3339(ms).as_bytes(), "{ms}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for bad in ["", "yesterday", "2023-11-14", "2023-11-14T22:13:20"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
