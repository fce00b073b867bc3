//! One bucket wheel per worker: every deadline of every connection, a second apart, without a timer each.
//!
//! * Time is a tick count (seconds since the worker began), handed in.
//! * An entry is a token; whoever takes it out checks whether it still means something and puts it back if so, so a
//!   closed connection costs nothing to forget.

use crate::connection::Tick;

use super::sockets::Token;

/// Buckets, so the farthest deadline; later ones are looked at on the way and put back.
pub const BUCKETS: Tick = 64;
/// Fewer dead entries are waited for.
const DEAD: usize = 256;

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    buckets: Box<[Vec<Token>]>,
    /// The tick that was taken last.
    now: Tick,
    /// Entries of the dead, at most: told since the last round of [`Wheel::tidy`].
    dead: usize,
    /// Buckets that this round has yet to look into; the last of them is looked into now.
    untidy: Tick,
    /// The next entry of that bucket.
    place: usize,
}

impl Wheel {
    /// An empty wheel at tick 0.
    #[must_use]
    pub fn new() -> Wheel {
        Wheel { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), now: 0, dead: 0, untidy: 0, place: 0 }
    }

    /// The present tick.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Has `token` looked at in `ticks` ticks, at the earliest with the next and at the latest after one round.
    /// Answers the tick at which it comes.
    pub fn after(&mut self, ticks: Tick, token: Token) -> Tick {
        let at = Wheel::tick_of(self.now, ticks);
        self.buckets[(at % BUCKETS) as usize].push(token);
        at
    }

    /// The tick at which an entry comes that is made at tick `now` for `ticks` later.
    #[must_use]
    pub fn tick_of(now: Tick, ticks: Tick) -> Tick {
        now + ticks.clamp(1, BUCKETS - 1)
    }

    /// Somebody with an entry has died.
    pub fn died(&mut self) {
        self.dead += 1;
    }

    /// Begins a round of [`Wheel::tidy`] where a crowd has died and none is under way.
    pub fn begin_to_tidy(&mut self) {
        let entries = || self.buckets.iter().map(Vec::len).sum::<usize>();
        if self.untidy == 0 && self.dead >= DEAD && self.dead >= entries() / 4 {
            (self.untidy, self.dead, self.place) = (BUCKETS, 0, 0);
        }
    }

    /// Looks at up to `most` more entries of the round and forgets those that are not `wanted` (who, and the tick they stand at)
    /// before their time. Returns false when there is no round, or it has ended.
    pub fn tidy(&mut self, most: usize, mut wanted: impl FnMut(Token, Tick) -> bool) -> bool {
        let mut left = most;
        while self.untidy > 0 {
            let number = self.untidy - 1;
            // Whatever stands in a bucket is due within a round after now.
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

    /// Entries of all buckets.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    /// Moves on by one tick and takes what is due.
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
    fn a_token_comes_out_once_when_it_is_due() {
        let mut wheel = Wheel::new();
        let token = Token { slot: 7, generation: 1 };
        wheel.after(3, token);
        assert!(wheel.tick().is_empty() && wheel.tick().is_empty());
        assert_eq!(wheel.tick(), [token]);
        assert!((0..BUCKETS).all(|_| wheel.tick().is_empty()));
    }

    #[test]
    fn entries_of_a_crowd_that_died_are_forgotten_before_their_time() {
        let mut wheel = Wheel::new();
        (0..5).for_each(|_| drop(wheel.tick()));
        let token = |slot| Token { slot, generation: 1 };
        let due: Vec<Tick> =
            (0..10 * DEAD as u32).map(|slot| wheel.after(1 + slot % 60, token(slot))).collect();
        let lives = |token: Token| token.slot.is_multiple_of(10);
        wheel.begin_to_tidy();
        assert!(!wheel.tidy(1, |_, _| panic!("nobody has died")));
        (0..9 * DEAD).for_each(|_| wheel.died());
        wheel.begin_to_tidy();
        let mut looked = 0;
        loop {
            let mut now = 0;
            let more = wheel.tidy(100, |token, at| {
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
        wheel.begin_to_tidy();
        assert!(!wheel.tidy(1, |_, _| panic!("nobody has died since")));
        let seen: usize =
            (0..BUCKETS).map(|_| wheel.tick().into_iter().filter(|it| lives(*it)).count()).sum();
        assert_eq!(seen, DEAD);
    }

    #[test]
    fn a_far_deadline_is_looked_at_within_a_round() {
        let mut wheel = Wheel::new();
        wheel.after(1_000_000, Token { slot: 1, generation: 1 });
        assert_eq!((0..BUCKETS).map(|_| wheel.tick().len()).sum::<usize>(), 1);
    }
}
