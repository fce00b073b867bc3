//! A crowd of subscribers and a few publishers on one engine: who has joined, who has had what, which publish was answered.
//!
//! * Subscribers have the tags from 0, publishers those from [`PUBLISHERS`].
//! * An event is complete when every subscriber has had it once. At most [`WINDOW`] events may be incomplete at a time.
//! * It judges nothing: the mode decides what a loss means.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::engine::{Engine, Key, Seen, Watch, is_type};
use super::error::BenchError;
use super::progress::Progress;
use super::publisher::subscribe;
use super::report::Astray;
use super::stamp::{Stamp, now_ns};
use super::subscriber::Wire;
use super::tally::{self, Tally};
use super::target::Access;

/// Tags from here on are publishers'.
pub const PUBLISHERS: usize = 1 << 32;
/// Events that may be incomplete at once; a power of two.
pub const WINDOW: usize = 4_096;
/// Connections being opened at once: fewer than any listener's backlog.
const JOINING: usize = 128;
/// How long nothing may happen before something else is looked after.
const TICK: Duration = Duration::from_millis(100);

/// The accounts of a crowd.
#[derive(Debug)]
pub struct Crowd {
    /// One for each subscriber, by tag.
    tallies: Vec<Tally>,
    /// Subscribers that have had event n, at n modulo [`WINDOW`]; 0 again when all have.
    had: Box<[u32]>,
    /// Events complete since the last [`Crowd::completed`].
    complete: Vec<u64>,
    /// Answers to publishers since the last [`Crowd::answered`]: tag - [`PUBLISHERS`].
    answers: Vec<usize>,
    /// Subscribers that are ready.
    joined: usize,
    /// First deliveries so far.
    deliveries: u64,
    /// Time from each event's stamp to its receipt, since [`Crowd::record`].
    latencies: Option<Histogram<u64>>,
    /// What went wrong first, for a person.
    trouble: Option<String>,
}

impl Crowd {
    /// Nobody yet. Events are numbered from 0.
    #[must_use]
    pub fn new() -> Crowd {
        Crowd {
            tallies: Vec::new(),
            had: vec![0; WINDOW].into_boxed_slice(),
            complete: Vec::new(),
            answers: Vec::new(),
            joined: 0,
            deliveries: 0,
            latencies: None,
            trouble: None,
        }
    }

    /// Adds `count` subscribers and waits until each is ready.
    ///
    /// # Errors
    /// One is refused or ends, or nothing moves for `patience`.
    pub fn join(
        &mut self,
        engine: &mut Engine,
        access: &Access,
        wire: Wire,
        count: usize,
        patience: Duration,
        progress: &mut dyn Progress,
    ) -> Result<(), BenchError> {
        let request = subscribe(access, wire, "");
        progress.begin("connecting", count as u64);
        let first = self.tallies.len();
        self.tallies.resize(first + count, Tally::default());
        let wave = Wave { access, wire, first, count, patience };
        wave.join(engine, self, |_| Cow::Borrowed(&request), progress)?;
        Ok(())
    }

    /// Whether all goes well.
    ///
    /// # Errors
    /// What went wrong first: a connection that ended, a refusal, a gap.
    pub fn check(&self) -> Result<(), BenchError> {
        self.trouble.as_ref().map_or(Ok(()), |what| Err(BenchError::Server(what.clone())))
    }

    /// Events complete since the last call.
    pub fn completed(&mut self) -> std::vec::Drain<'_, u64> {
        self.complete.drain(..)
    }

    /// Publishers answered since the last call, numbered from 0.
    pub fn answered(&mut self) -> std::vec::Drain<'_, usize> {
        self.answers.drain(..)
    }

    /// Subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// First deliveries so far: pairs of event and subscriber.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// From now on, takes the time of each first delivery.
    ///
    /// # Errors
    /// As [`super::histogram`].
    pub fn record(&mut self) -> Result<(), BenchError> {
        self.latencies = Some(super::histogram()?);
        Ok(())
    }

    /// The times taken, nanoseconds; none are taken from then on.
    pub fn recorded(&mut self) -> Option<Histogram<u64>> {
        self.latencies.take()
    }

    /// What went astray of the first `end` events.
    #[must_use]
    pub fn astray(&self, end: u64) -> Astray {
        tally::astray(&self.tallies, end)
    }

    fn event(&mut self, tag: usize, stamp: Stamp) {
        let Some(tally) = self.tallies.get_mut(tag) else { return };
        if !tally.take(stamp.n) {
            return;
        }
        self.deliveries += 1;
        if let Some(latencies) = &mut self.latencies {
            latencies.saturating_record(now_ns().saturating_sub(stamp.t));
        }
        let had = &mut self.had[stamp.n as usize % WINDOW];
        *had += 1;
        if *had as usize == self.tallies.len() {
            *had = 0;
            self.complete.push(stamp.n);
        }
    }
}

impl Default for Crowd {
    fn default() -> Self {
        Crowd::new()
    }
}

impl Watch for Crowd {
    fn seen(&mut self, _: Key, tag: usize, seen: Seen<'_>) {
        match seen {
            Seen::Event(stamp, _) => self.event(tag, stamp),
            Seen::Text(text) if is_type(text, "ready") => self.joined += 1,
            Seen::Text(text) if tag >= PUBLISHERS && is_type(text, "ack") => {
                self.answers.push(tag - PUBLISHERS);
            }
            Seen::Answer { status: 200..=299, .. } if tag >= PUBLISHERS => {
                self.answers.push(tag - PUBLISHERS);
            }
            seen => note(&mut self.trouble, tag, &seen),
        }
    }
}

impl Joining for Crowd {
    fn joined(&self) -> usize {
        self.joined
    }
    fn check(&self) -> Result<(), BenchError> {
        Crowd::check(self)
    }
}

/// Keeps the first trouble, and on whose connection it was.
pub fn note(trouble: &mut Option<String>, tag: usize, seen: &Seen<'_>) {
    if trouble.is_none()
        && let Some(what) = seen.trouble()
    {
        *trouble = Some(match tag.checked_sub(PUBLISHERS) {
            Some(at) => format!("publisher {at}: {what}"),
            None => format!("subscriber {tag}: {what}"),
        });
    }
}

/// Whoever watches subscribers come.
pub trait Joining: Watch {
    /// How many are ready, in all.
    fn joined(&self) -> usize;
    /// Whether all goes well.
    ///
    /// # Errors
    /// What went wrong first.
    fn check(&self) -> Result<(), BenchError>;
}

/// Subscribers to come.
#[derive(Clone, Copy, Debug)]
pub struct Wave<'a> {
    /// Where to.
    pub access: &'a Access,
    /// How.
    pub wire: Wire,
    /// The tag of the first; the others follow.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// How long nothing may move.
    pub patience: Duration,
}

impl Wave<'_> {
    /// Opens them, [`JOINING`] at a time, each with `request` of its place, and waits until all are ready. Answers their keys.
    ///
    /// # Errors
    /// What `watch` finds wrong, or nothing moves.
    pub fn join<'r>(
        &self,
        engine: &mut Engine,
        watch: &mut impl Joining,
        request: impl Fn(usize) -> Cow<'r, [u8]>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Key>, BenchError> {
        let (count, before) = (self.count, watch.joined());
        let mut keys = Vec::with_capacity(count);
        let mut moved = Moved::new(self.patience);
        let mut ready = 0;
        while ready < count {
            while keys.len() < count && keys.len() - ready < JOINING {
                let at = keys.len();
                keys.push(engine.open(self.access.addr, self.wire, self.first + at, &request(at))?);
            }
            engine.turn(TICK, watch)?;
            watch.check()?;
            ready = watch.joined() - before;
            progress.at(ready as u64);
            moved.check(ready as u64, || format!("{ready} of {count} subscribers are ready"))?;
        }
        Ok(keys)
    }
}

/// Notices when a number stands still for too long.
#[derive(Debug)]
pub struct Moved {
    patience: Duration,
    value: u64,
    since: Instant,
}

impl Moved {
    /// From now on.
    #[must_use]
    pub fn new(patience: Duration) -> Moved {
        Moved { patience, value: u64::MAX, since: Instant::now() }
    }

    /// The number now.
    ///
    /// # Errors
    /// It has been the same for the patience; `waiting` says for what.
    pub fn check(&mut self, value: u64, waiting: impl FnOnce() -> String) -> Result<(), BenchError> {
        if value != self.value {
            self.value = value;
            self.since = Instant::now();
        } else if self.since.elapsed() > self.patience {
            return Err(BenchError::Stalled { seconds: self.patience.as_secs(), waiting: waiting() });
        }
        Ok(())
    }
}
