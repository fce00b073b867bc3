//! The one clock, injected: whoever needs the time is handed a [`Clock`], so tests decide what time it is.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Microseconds since some start, never going back: for lengths of time only.
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
        // Never 0, which says "no time".
        START.elapsed().as_micros() as u64 + 1
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        ManualClock { wall_ms: AtomicU64::new(now_ms), monotonic_ms: AtomicU64::new(now_ms) }
    }
    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }
    /// Sets the wall clock, forward or back, as an administrator or NTP does; no time passes.
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

/// The wall clock as far as it can be believed, for whatever forgets old things: a clock that is set forward by mistake must not
/// make it forget everything at once.
///
/// * It is never ahead of the wall clock, and follows it back at once.
/// * Where the wall clock steps ahead of the time that has passed by more than [`STEP_MS`], this one goes on by the time that
///   passes, and follows once the step has lasted for [`BELIEVED_MS`].
#[derive(Debug, Default)]
pub struct CautiousClock {
    /// What it showed last, Unix milliseconds, and the monotonic clock then; `None`: not read yet.
    last: Option<(u64, u64)>,
    /// Since when, by the monotonic clock, the wall clock is so many milliseconds ahead.
    doubt: Option<(u64, u64)>,
}

/// A step that is believed at once, milliseconds.
const STEP_MS: u64 = 60_000;
/// How long a larger step must last to be believed, milliseconds.
pub const BELIEVED_MS: u64 = 24 * 60 * 60 * 1_000;

impl CautiousClock {
    /// Reads `clock`; to be called every minute at least. The first reading is believed.
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

/// The last instant that can be shown, Unix milliseconds.
const CALENDAR_END_MS: u64 = 253_402_207_200_999;

/// RFC 3339 in UTC with milliseconds, `2026-01-02T03:04:05.678Z`. Times past year 9999 are shown as its end.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms.min(CALENDAR_END_MS)).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => String::from("9999-12-30T22:00:00.999Z"),
    }
}

/// Characters of [`rfc3339`].
pub const RFC3339_LEN: usize = 24;

/// [`rfc3339`] as bytes. Times within one second are written by thread from that second's text: an event's time of receipt
/// is written once an event, and the calendar behind it costs more than the rest of the encoding.
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

/// Reads RFC 3339 into Unix milliseconds; `None` when it is not RFC 3339 with an offset. Times before 1970 are 0.
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
