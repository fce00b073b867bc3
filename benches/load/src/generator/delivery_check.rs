//! The events of one subscriber: losses, repeats and order, counted by the numbers of the events.
//!
//! * The counts are exact as long as an event overtakes at most [`AHEAD`] others. An event further ahead
//!   makes the oldest missing one count as lost.
//! * Events of several publishers may overtake each other. From one publisher, an event out of order is a
//!   fault (the mode decides).

use crate::report::DeliveryFaults;

/// Returns losses, repeats and reorderings of the first `end` events over all `tallies`. The mode counts
/// deliveries.
pub(crate) fn delivery_faults(tallies: &[Tally], end: u64) -> DeliveryFaults {
    let sum = |of: &dyn Fn(&Tally) -> u64| tallies.iter().map(of).sum();
    DeliveryFaults {
        deliveries: 0,
        losses: sum(&|tally| tally.lost(end)),
        repeats: sum(&Tally::repeats),
        reordered: sum(&Tally::reordered),
    }
}

/// How many other events an event may overtake. It is also the maximum of outstanding events in a mode.
pub(crate) const AHEAD: u64 = 128;

/// The tally of one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The lowest number that was neither received nor given up.
    next: u64,
    /// Bit i is set if `next + 1 + i` was received.
    ahead: u128,
    /// Number of events given up.
    skipped: u64,
    /// Events received more than once.
    repeats: u32,
    /// Events received after a higher one.
    reordered: u32,
}

impl Tally {
    /// Creates a tally without events. The first event has the number `next`.
    pub(crate) fn from(next: u64) -> Tally {
        Tally { next, ..Tally::default() }
    }

    /// Records event `n`. Returns true if it is the first time.
    pub(crate) fn take(&mut self, n: u64) -> bool {
        if n == self.next {
            self.reordered += u32::from(self.ahead != 0);
            self.advance();
            return true;
        }
        if n < self.next {
            self.repeats += 1;
            return false;
        }
        // This never passes `n`. No received event ahead can be `n`, which is further away than `ahead`
        // reaches.
        while n - self.next > AHEAD {
            self.skipped += 1;
            self.advance();
        }
        if n == self.next {
            self.advance();
            return true;
        }
        let bit = 1u128 << (n - self.next - 1);
        if self.ahead & bit != 0 {
            self.repeats += 1;
            return false;
        }
        self.reordered += u32::from(self.ahead > bit);
        self.ahead |= bit;
        true
    }

    /// Advances past `next` and past all received events directly after it.
    fn advance(&mut self) {
        loop {
            let had = self.ahead & 1 != 0;
            self.next += 1;
            self.ahead >>= 1;
            if !had {
                return;
            }
        }
    }

    /// Returns how many of the first `end` events never arrived.
    pub(crate) fn lost(&self, end: u64) -> u64 {
        self.skipped + end.saturating_sub(self.next).saturating_sub(u64::from(self.ahead.count_ones()))
    }

    /// Returns the events received more than once.
    pub(crate) fn repeats(&self) -> u64 {
        u64::from(self.repeats)
    }

    /// Returns the events that arrived after a later one.
    pub(crate) fn reordered(&self) -> u64 {
        u64::from(self.reordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: impl IntoIterator<Item = u64>, end: u64) -> (u64, u64, u64) {
        let mut tally = Tally::default();
        for n in numbers {
            tally.take(n);
        }
        (tally.lost(end), tally.repeats(), tally.reordered())
    }

    #[test]
    fn all_in_order_is_no_fault() {
        assert_eq!(faults(0..1_000, 1_000), (0, 0, 0));
    }

    #[test]
    fn a_seeded_loss_is_counted_wherever_it_is() {
        for lost in [0, 1, 7, 499, 998, 999] {
            assert_eq!(faults((0..1_000).filter(|n| *n != lost), 1_000), (1, 0, 0), "{lost}");
        }
        assert_eq!(faults((0..1_000).filter(|n| n % 300 < 200), 1_000), (300, 0, 0));
        assert_eq!(faults([], 5), (5, 0, 0));
    }

    #[test]
    fn a_seeded_repeat_is_counted_wherever_it_is() {
        for again in [0u64, 1, 500, 999] {
            let numbers = (0..1_000).flat_map(|n| std::iter::repeat_n(n, 1 + usize::from(n == again)));
            assert_eq!(faults(numbers, 1_000), (0, 1, 0), "{again}");
        }
        assert_eq!(faults([0, 2, 2, 1, 0], 3), (0, 2, 1));
    }

    #[test]
    fn overtaking_is_neither_loss_nor_repeat() {
        assert_eq!(faults([3, 2, 1, 0, 4], 5), (0, 0, 3));
        let far = (1..=AHEAD).chain([0]).chain(AHEAD + 1..300);
        assert_eq!(faults(far, 300), (0, 0, 1));
    }
}
