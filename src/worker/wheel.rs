//! One bucket wheel per worker: every deadline of every connection, a second apart, without a timer each.
//!
//! * Time is a tick count (seconds since the worker began), handed in.
//! * An entry is a token; whoever takes it out checks whether it still means something and puts it back if so, so a
//!   closed connection costs nothing to forget.

use crate::connection::Tick;

use super::sockets::Token;

/// Buckets, so the farthest deadline; later ones are looked at on the way and put back.
pub const BUCKETS: Tick = 64;

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    buckets: Box<[Vec<Token>]>,
    /// The tick that was taken last.
    now: Tick,
}

impl Wheel {
    /// An empty wheel at tick 0.
    #[must_use]
    pub fn new() -> Wheel {
        Wheel { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), now: 0 }
    }

    /// The present tick.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Has `token` looked at in `ticks` ticks, at the earliest with the next and at the latest after one round.
    /// Answers the tick at which it comes.
    pub fn after(&mut self, ticks: Tick, token: Token) -> Tick {
        let at = self.now + ticks.clamp(1, BUCKETS - 1);
        self.buckets[(at % BUCKETS) as usize].push(token);
        at
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
    fn a_far_deadline_is_looked_at_within_a_round() {
        let mut wheel = Wheel::new();
        wheel.after(1_000_000, Token { slot: 1, generation: 1 });
        assert_eq!((0..BUCKETS).map(|_| wheel.tick().len()).sum::<usize>(), 1);
    }
}
