//! The timer wheel of a worker: every deadline of every connection, to the second, without a timer each.
//!
//! * Time is a tick count (seconds since the worker began) that the caller passes in.
//! * An entry is a token. Code that takes it out checks whether it is still valid and puts it back if so. So
//!   a closed connection's entry need not be removed.

use crate::connection::Tick;

use super::sockets::Token;

/// Number of buckets, and so the farthest deadline in ticks. Later ones are checked on the way and put back.
pub const BUCKETS: Tick = 64;
/// With fewer dead entries than this no clean-up begins.
const DEAD: usize = 256;

/// The timer wheel.
#[derive(Debug)]
pub struct Wheel {
    buckets: Box<[Vec<Token>]>,
    /// The tick that was taken last.
    now: Tick,
    /// The most dead entries there can be: connections that ended since the last round of [`Wheel::cleanup_step`].
    dead: usize,
    /// Buckets that this round has yet to clean up; the last of them is being cleaned up now.
    untidy: Tick,
    /// Index of the next entry of that bucket.
    place: usize,
}

impl Wheel {
    /// Creates an empty wheel at tick 0.
    #[must_use]
    pub fn new() -> Wheel {
        Wheel { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), now: 0, dead: 0, untidy: 0, place: 0 }
    }

    /// Returns the present tick.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Adds an entry for `token` in `ticks` ticks, at the earliest in the next one and at the latest after
    /// one round. Returns the tick at which it is due.
    pub fn schedule(&mut self, ticks: Tick, token: Token) -> Tick {
        let at = Wheel::tick_of(self.now, ticks);
        self.buckets[(at % BUCKETS) as usize].push(token);
        at
    }

    /// Returns the tick at which an entry is due that is added at tick `now` for `ticks` later.
    #[must_use]
    pub fn tick_of(now: Tick, ticks: Tick) -> Tick {
        now + ticks.clamp(1, BUCKETS - 1)
    }

    /// Records that a connection with an entry has ended.
    pub fn on_entry_dead(&mut self) {
        self.dead += 1;
    }

    /// Begins a round of [`Wheel::cleanup_step`] if many connections have ended and no round is in progress.
    pub fn begin_cleanup(&mut self) {
        let entries = || self.buckets.iter().map(Vec::len).sum::<usize>();
        if self.untidy == 0 && self.dead >= DEAD && self.dead >= entries() / 4 {
            (self.untidy, self.dead, self.place) = (BUCKETS, 0, 0);
        }
    }

    /// Checks up to `most` more entries of the round and removes those that are not `wanted` (given the token
    /// and the tick at which it is due) early. Returns false if there is no round, or it has ended.
    pub fn cleanup_step(&mut self, most: usize, mut wanted: impl FnMut(Token, Tick) -> bool) -> bool {
        let mut left = most;
        while self.untidy > 0 {
            let number = self.untidy - 1;
            // All entries of a bucket are due within one round from now.
            let at = self.now + 1 + (number.wrapping_sub(self.now + 1) % BUCKETS);
            let bucket = &mut self.buckets[(number % BUCKETS) as usize];
            while let Some(token) = bucket.get(self.place).copied() {
                if left == 0 {
                    return true;
                }
                left -= 1;
                match wanted(token, at) {
                    true => self.place += 1,
                    false => drop(bucket.swap_remove(self.place)),
                }
            }
            bucket.shrink_to_fit();
            (self.untidy, self.place) = (number, 0);
        }
        false
    }

    /// Returns the number of entries in all buckets.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    /// Advances by one tick and takes the entries that are due.
    pub fn tick(&mut self) -> Vec<Token> {
        self.now += 1;
        std::mem::take(&mut self.buckets[(self.now % BUCKETS) as usize])
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_returned_once_when_it_is_due() {
        let mut wheel = Wheel::new();
        let token = Token { slot: 7, generation: 1 };
        wheel.schedule(3, token);
        assert!(wheel.tick().is_empty() && wheel.tick().is_empty());
        assert_eq!(wheel.tick(), [token]);
        assert!((0..BUCKETS).all(|_| wheel.tick().is_empty()));
    }

    #[test]
    fn dead_entries_of_many_connections_are_removed_before_they_are_due() {
        let mut wheel = Wheel::new();
        (0..5).for_each(|_| drop(wheel.tick()));
        let token = |slot| Token { slot, generation: 1 };
        let due: Vec<Tick> =
            (0..10 * DEAD as u32).map(|slot| wheel.schedule(1 + slot % 60, token(slot))).collect();
        let lives = |token: Token| token.slot.is_multiple_of(10);
        wheel.begin_cleanup();
        assert!(!wheel.cleanup_step(1, |_, _| panic!("nobody has died")));
        (0..9 * DEAD).for_each(|_| wheel.on_entry_dead());
        wheel.begin_cleanup();
        let mut looked = 0;
        loop {
            let mut now = 0;
            let more = wheel.cleanup_step(100, |token, at| {
                now += 1;
                assert_eq!(due[token.slot as usize], at);
                lives(token)
            });
            assert!(now <= 100);
            looked += now;
            if !more {
                break;
            }
        }
        assert_eq!(looked, 10 * DEAD);
        assert_eq!(wheel.buckets.iter().map(Vec::len).sum::<usize>(), DEAD);
        wheel.begin_cleanup();
        assert!(!wheel.cleanup_step(1, |_, _| panic!("nobody has died since")));
        let seen: usize =
            (0..BUCKETS).map(|_| wheel.tick().into_iter().filter(|it| lives(*it)).count()).sum();
        assert_eq!(seen, DEAD);
    }

    #[test]
    fn a_far_deadline_is_checked_within_a_round() {
        let mut wheel = Wheel::new();
        wheel.schedule(1_000_000, Token { slot: 1, generation: 1 });
        assert_eq!((0..BUCKETS).map(|_| wheel.tick().len()).sum::<usize>(), 1);
    }
}
