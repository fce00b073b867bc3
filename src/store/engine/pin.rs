//! Pins: prevent the removal of journal segments while somebody reads or copies them.
//!
//! * There is one pin at a time, each for a limited time: a reader that hangs must not fill the disk.
//! * The applier checks for a pin before it removes a segment. A segment that was found dead before the pin
//!   was taken may still be removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// The pin of one journal, if it is held.
#[derive(Default)]
pub(super) struct Pins {
    state: Mutex<PinState>,
}

#[derive(Default)]
struct PinState {
    /// The end of the pin's time, and the number of the pin.
    until: Option<(Instant, u64)>,
    /// Number of pins taken so far.
    taken: u64,
}

/// While this exists and its time has not passed, no segment is removed.
pub(crate) struct Pin {
    pins: Arc<Pins>,
    number: u64,
    until: Instant,
}

impl Pins {
    /// Takes the pin for `limit`; `None` while another is held.
    pub(crate) fn take(self: &Arc<Self>, limit: Duration) -> Option<Pin> {
        if self.is_pinned() {
            return None;
        }
        let mut state = self.state.lock();
        state.taken += 1;
        let (number, until) = (state.taken, Instant::now() + limit);
        state.until = Some((until, number));
        drop(state);
        Some(Pin { pins: self.clone(), number, until })
    }

    /// Returns true if segments must not be removed.
    pub(super) fn is_pinned(&self) -> bool {
        self.state.lock().until.is_some_and(|(until, _)| Instant::now() < until)
    }
}

impl Pin {
    /// Returns true if the pin was held without interruption until now.
    pub(crate) fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock();
        if state.until.is_some_and(|(_, number)| number == self.number) {
            state.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_pin_is_held_until_it_is_dropped_or_expires() {
        let pins = Arc::<Pins>::default();
        let pin = pins.take(Duration::from_secs(600)).expect("free");
        assert!(pins.is_pinned() && pin.holds());
        assert!(pins.take(Duration::from_secs(600)).is_none());
        drop(pin);
        assert!(!pins.is_pinned());
        let over = pins.take(Duration::ZERO).expect("free");
        assert!(!over.holds() && !pins.is_pinned());
        let next = pins.take(Duration::from_secs(600)).expect("the other pin has expired");
        drop(over);
        assert!(pins.is_pinned() && next.holds(), "dropping the expired pin does not release this one");
    }
}
