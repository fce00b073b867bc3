//! The subscribers and publishers of one engine: which have joined, which events each has received, and which
//! publishes got a response.
//!
//! * Subscribers have the tags from 0, publishers those from [`PUBLISHERS`].
//! * An event is complete when every subscriber has received it once. At most [`WINDOW`] events may be
//!   incomplete at a time.
//! * This file only counts. The mode decides what a loss means.

use std::borrow::Cow;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::delivery_check::{self, Tally};
use super::engine::{ConnEvent, Engine, Handler, Key, is_type};
use super::wave::{JoinWatcher, Wave};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::DeliveryFaults;
use crate::wire::request::subscribe;
use crate::wire::stamp::{Stamp, now_ns};
use crate::wire::{Access, Wire};

/// First tag of publishers.
pub(crate) const PUBLISHERS: usize = 1 << 32;
/// Events that may be incomplete at once; a power of two.
pub(crate) const WINDOW: usize = 4_096;

/// The counters of subscribers and publishers.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// A tally for each subscriber, by tag.
    tallies: Vec<Tally>,
    /// Number of subscribers that have received event n, at n modulo [`WINDOW`]; reset to 0 when all have.
    had: Box<[u32]>,
    /// Events complete since the last [`Subscribers::completed`].
    complete: Vec<u64>,
    /// Publishers with a response since the last [`Subscribers::answered`]: tag - [`PUBLISHERS`].
    answers: Vec<usize>,
    /// Number of subscribers that are ready.
    joined: usize,
    /// First deliveries so far.
    deliveries: u64,
    /// Time from each event's stamp to its receipt, measured since [`Subscribers::record`].
    latencies: Option<Histogram<u64>>,
    /// The first error, as text for people.
    trouble: Option<String>,
}

impl Subscribers {
    /// Creates an empty state. Events are numbered from 0.
    pub(crate) fn new() -> Subscribers {
        Subscribers {
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
    pub(crate) fn join(
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

    /// Checks that no error occurred.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        check_trouble(self.trouble.as_ref())
    }

    /// Returns the events completed since the last call.
    pub(crate) fn completed(&mut self) -> std::vec::Drain<'_, u64> {
        self.complete.drain(..)
    }

    /// Returns the publishers that got a response since the last call, numbered from 0.
    pub(crate) fn answered(&mut self) -> std::vec::Drain<'_, usize> {
        self.answers.drain(..)
    }

    /// Returns the number of subscribers.
    pub(crate) fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Returns the first deliveries so far: pairs of event and subscriber.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Starts to measure the time of each first delivery.
    pub(crate) fn record(&mut self) -> Result<(), BenchError> {
        self.latencies = Some(crate::report::histogram()?);
        Ok(())
    }

    /// Returns the measured times in nanoseconds, and stops measuring.
    pub(crate) fn recorded(&mut self) -> Option<Histogram<u64>> {
        self.latencies.take()
    }

    /// Returns losses, repeats and reorderings of the first `end` events.
    pub(crate) fn delivery_faults(&self, end: u64) -> DeliveryFaults {
        delivery_check::delivery_faults(&self.tallies, end)
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

impl Handler for Subscribers {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Event(stamp, _) => self.event(tag, stamp),
            ConnEvent::Text(text) if is_type(text, "ready") => self.joined += 1,
            ConnEvent::Text(text) if tag >= PUBLISHERS && is_type(text, "ack") => {
                self.answers.push(tag - PUBLISHERS);
            }
            ConnEvent::Answer { status: 200..=299, .. } if tag >= PUBLISHERS => {
                self.answers.push(tag - PUBLISHERS);
            }
            seen => record_trouble(&mut self.trouble, tag, &seen),
        }
    }
}

impl JoinWatcher for Subscribers {
    fn joined(&self) -> usize {
        self.joined
    }
    fn check(&self) -> Result<(), BenchError> {
        Subscribers::check(self)
    }
}

/// Stores the first error and the connection where it happened.
pub(crate) fn record_trouble(trouble: &mut Option<String>, tag: usize, seen: &ConnEvent<'_>) {
    if trouble.is_none()
        && let Some(what) = seen.trouble()
    {
        *trouble = Some(match tag.checked_sub(PUBLISHERS) {
            Some(at) => format!("publisher {at}: {what}"),
            None => format!("subscriber {tag}: {what}"),
        });
    }
}

/// Returns the error that [`record_trouble`] stored, if any.
pub(crate) fn check_trouble(trouble: Option<&String>) -> Result<(), BenchError> {
    trouble.map_or(Ok(()), |what| Err(BenchError::Server(what.clone())))
}
