//! Keeps segments of the journal from being removed while somebody reads or copies them.
//!
//! * One pin at a time, and each for a limited time: a reader that hangs must not fill the disk.
//! * The applier asks before it removes; a segment that was found dead before the pin was taken may still go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// The pin of one journal, if somebody holds it.
#[derive(Default)]
pub(super) struct Pins {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Until when, and by which pin.
    until: Option<(Instant, u64)>,
    /// Pins taken so far.
    taken: u64,
}

/// No segment is removed while this lives and its time has not passed.
pub(crate) struct Pin {
    pins: Arc<Pins>,
    number: u64,
    until: Instant,
}

impl Pins {
    /// Takes the pin for `limit`; `None` while another is held.
    pub(super) fn take(self: &Arc<Self>, limit: Duration) -> Option<Pin> {
        if self.are_held() {
            return None;
        }
        let mut held = self.held.lock();
        held.taken += 1;
        let (number, until) = (held.taken, Instant::now() + limit);
        held.until = Some((until, number));
        drop(held);
        Some(Pin { pins: self.clone(), number, until })
    }

    /// Whether segments must stay.
    pub(super) fn are_held(&self) -> bool {
        self.held.lock().until.is_some_and(|(until, _)| Instant::now() < until)
    }
}

impl Pin {
    /// Whether it held up to now.
    pub(crate) fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held.lock();
        if held.until.is_some_and(|(_, number)| number == self.number) {
            held.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_pin_and_dropping_it_or_its_time_ends_it() {
        let pins = Arc::<Pins>::default();
        let pin = pins.take(Duration::from_secs(600)).expect("free");
        assert!(pins.are_held() && pin.holds());
        assert!(pins.take(Duration::from_secs(600)).is_none());
        drop(pin);
        assert!(!pins.are_held());
        let over = pins.take(Duration::ZERO).expect("free");
        assert!(!over.holds() && !pins.are_held());
        let next = pins.take(Duration::from_secs(600)).expect("the other's time is over");
        drop(over);
        assert!(pins.are_held() && next.holds(), "only its own pin ends");
    }
}
