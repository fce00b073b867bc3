//! Other requests of a client to a daemon under load, each ten times a second: health check, statistics, a
//! new subscription, a ping.
//!
//! * Each REST probe has its own keep-alive connection. A probe whose response is late is not sent again. The
//!   probes left out count as late responses too (corrected for coordinated omission).
//! * A new subscriber is closed once it is ready.
//! * Probes never block and judge nothing.

use std::collections::{HashMap, VecDeque};

use hdrhistogram::Histogram;

use super::engine::{ConnEvent, Engine, Key, is_type};
use crate::error::BenchError;
use crate::wire::request::{subscribe, ws_text};
use crate::wire::stamp::now_ns;
use crate::wire::{Access, Wire};

/// First tag of probes.
pub(crate) const PROBES: usize = 1 << 33;
const HEALTH: usize = PROBES;
const STATS: usize = PROBES + 1;
/// First tag of new subscribers.
const CONNECTS: usize = PROBES + 2;
/// Interval between two probes of the same kind, in nanoseconds.
const PERIOD_NS: u64 = 100_000_000;
/// Maximum number of new subscribers and of pings in progress.
const UNDER_WAY: usize = 100;

/// Times of an interval, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTimes {
    /// `GET /health/live`.
    pub health: Histogram<u64>,
    /// `GET /api/v1/stats`.
    pub stats: Histogram<u64>,
    /// Time from connecting to `ready`.
    pub connect: Histogram<u64>,
    /// Time from a client's `ping` to the `pong`.
    pub pong: Histogram<u64>,
    /// Requests and connections that were refused or broke off.
    pub failed: u64,
}

impl ProbeTimes {
    /// Creates an empty state.
    pub(crate) fn new() -> Result<ProbeTimes, BenchError> {
        Ok(ProbeTimes {
            health: crate::report::histogram()?,
            stats: crate::report::histogram()?,
            connect: crate::report::histogram()?,
            pong: crate::report::histogram()?,
            failed: 0,
        })
    }
}

/// A REST probe.
#[derive(Debug)]
struct Rest {
    key: Key,
    request: Vec<u8>,
    /// When the request was sent; `None` if it has its response.
    sent_ns: Option<u64>,
}

/// The probes of a thread.
#[derive(Debug)]
pub(crate) struct Probes {
    rest: [Rest; 2],
    connect: Vec<u8>,
    access: Access,
    wire: Wire,
    /// A WebSocket of the caller on which pings are sent.
    pings: Key,
    /// When the pings in progress were sent.
    pinged: VecDeque<u64>,
    /// New subscribers in progress, with the time when they were opened.
    coming: HashMap<usize, (Key, u64)>,
    /// Subscribers to close.
    ready: Vec<Key>,
    /// Number of tags used so far.
    connects: usize,
    next_ns: u64,
    taken: ProbeTimes,
}

impl Probes {
    /// Connects the REST probes. Pings are sent on `pings`. The caller passes its pongs to [`Probes::pong`].
    pub(crate) fn open(
        engine: &mut Engine,
        access: &Access,
        wire: Wire,
        pings: Key,
    ) -> Result<Probes, BenchError> {
        let (host, credential) = (&access.host, &access.credential);
        let mut rest = |tag, path| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{credential}\r\n").into_bytes();
            engine.open(access.addr, Wire::Http, tag, b"").map(|key| Rest { key, request, sent_ns: None })
        };
        Ok(Probes {
            rest: [rest(HEALTH, "/health/live")?, rest(STATS, "/api/v1/stats")?],
            connect: subscribe(access, wire, ""),
            access: access.clone(),
            wire,
            pings,
            pinged: VecDeque::new(),
            coming: HashMap::new(),
            ready: Vec::new(),
            connects: 0,
            next_ns: now_ns(),
            taken: ProbeTimes::new()?,
        })
    }

    /// Sends the probes that are due. Returns when the next one is due.
    pub(crate) fn ask(&mut self, engine: &mut Engine) -> Result<u64, BenchError> {
        self.ready.drain(..).for_each(|key| engine.close(key));
        let now = now_ns();
        if now < self.next_ns {
            return Ok(self.next_ns);
        }
        self.next_ns = now + PERIOD_NS;
        for rest in &mut self.rest {
            if rest.sent_ns.is_none() {
                rest.sent_ns = Some(now_ns());
                engine.send(rest.key, &rest.request);
            }
        }
        if self.coming.len() < UNDER_WAY {
            let tag = CONNECTS + self.connects;
            self.connects += 1;
            let began = now_ns();
            let key = engine.open(self.access.addr, self.wire, tag, &self.connect)?;
            self.coming.insert(tag, (key, began));
        }
        if self.pinged.len() < UNDER_WAY {
            let mut frame = Vec::with_capacity(32);
            ws_text(br#"{"type":"ping"}"#, &mut frame);
            self.pinged.push_back(now_ns());
            engine.send(self.pings, &frame);
        }
        Ok(self.next_ns)
    }

    /// Records a pong for the oldest ping.
    pub(crate) fn pong(&mut self) {
        if let Some(sent) = self.pinged.pop_front() {
            self.taken.pong.saturating_record(now_ns().saturating_sub(sent));
        }
    }

    /// Handles what happened on a connection of the probes.
    pub(crate) fn seen(&mut self, tag: usize, seen: &ConnEvent<'_>) {
        match (tag.checked_sub(CONNECTS), seen) {
            (Some(_), ConnEvent::Text(text)) if is_type(text, "ready") => {
                if let Some((key, began)) = self.coming.remove(&tag) {
                    self.taken.connect.saturating_record(now_ns().saturating_sub(began));
                    self.ready.push(key);
                }
            }
            (Some(_), ConnEvent::Answer { .. } | ConnEvent::Ended(_)) => {
                // After a response the connection ends, or the daemon waits for another request. It is closed
                // in both cases.
                if let Some((key, _)) = self.coming.remove(&tag) {
                    self.taken.failed += 1;
                    if !matches!(seen, ConnEvent::Ended(_)) {
                        self.ready.push(key);
                    }
                }
            }
            (None, ConnEvent::Answer { status, .. }) => {
                let Some(sent_ns) = self.rest[usize::from(tag != HEALTH)].sent_ns.take() else { return };
                let took = now_ns().saturating_sub(sent_ns);
                let times = if tag == HEALTH { &mut self.taken.health } else { &mut self.taken.stats };
                // The only error is a value over the maximum, a minute. No probe waits that long.
                let _ = times.record_correct(took, PERIOD_NS);
                self.taken.failed += u64::from(*status != 200);
            }
            (None, ConnEvent::Ended(_)) => self.taken.failed += 1,
            _ => {}
        }
    }

    /// Returns the times since the last call.
    pub(crate) fn take(&mut self) -> ProbeTimes {
        let taken = self.taken.clone();
        for times in
            [&mut self.taken.health, &mut self.taken.stats, &mut self.taken.connect, &mut self.taken.pong]
        {
            times.reset();
        }
        self.taken.failed = 0;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_stands_for_the_asks_it_held_up() {
        let mut taken = ProbeTimes::new().unwrap();
        for _ in 0..90 {
            taken.health.record_correct(1_000_000, PERIOD_NS).unwrap();
        }
        taken.health.record_correct(1_000_000_000, PERIOD_NS).unwrap();
        assert_eq!(taken.health.len(), 90 + 10);
        assert!(taken.health.value_at_quantile(0.99) > 800_000_000);
    }
}
