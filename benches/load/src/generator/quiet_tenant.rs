//! A quiet tenant beside the load: live subscribers and one steady publisher, on their own thread.
//!
//! * Its figures are divided into *intervals*: alone, then under the load of another tenant. An interval ends
//!   when every subscriber has received every event of it, so that slow events are included. Then the next
//!   interval begins.
//! * Events are published on schedule over one WebSocket, whether or not earlier ones have arrived. So each
//!   subscriber receives them in order and knows at once which are missing. They are durable.
//! * There are two clocks. One measures from the stamp to the receipt in this process. It includes this
//!   process's own delays, because it shares the machine with the load. The other is the daemon's own, from
//!   publish to send, as the difference of two readings of `/api/v1/stats`.
//! * The thread ends when its [`QuietTenant`] is dropped.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use memchr::memmem;

use super::delivery_check::{self, Tally};
use super::engine::{ConnEvent, Engine, Handler, Key, is_type};
use super::interval::Interval;
use super::probes::{PROBES, ProbeTimes, Probes};
use super::stall_detector::StallDetector;
use crate::error::BenchError;
use crate::report::DeliveryFaults;
use crate::target::tenants::{Buckets, Tenant, stats};
use crate::wire::request::{subscribe, ws_publish};
use crate::wire::stamp::{Stamp, Template, now_ns};
use crate::wire::{Access, EVENTS_PER_PUBLISH, Wire};

/// The tag of the publisher.
const PUBLISHER: usize = 1 << 32;
/// Publishes whose time is kept until they are acknowledged; a power of two.
const UNANSWERED: usize = 4_096;
/// The longest wait while something is expected.
const TICK: Duration = Duration::from_millis(20);
/// After this time without events, no repeat is expected any more.
const QUIET: Duration = Duration::from_millis(30);
/// Duration of the first interval, which is not reported.
const WARM_UP: Duration = Duration::from_millis(500);
/// How much delay a publisher catches up, in nanoseconds. Publishes that are later than this are left out.
const BEHIND_NS: u64 = 1_000_000_000;

/// The settings of the quiet tenant.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The transport of its subscribers.
    pub wire: Wire,
    /// The number of subscribers.
    pub subscribers: usize,
    /// Publishes a second.
    pub rate: f64,
    /// Bytes of an event.
    pub size: usize,
    /// Whether to send other requests to the daemon meanwhile ([`Probes`]).
    pub probes: bool,
    /// The longest time without progress.
    pub patience: Duration,
}

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct QuietTenant {
    /// Requests the end of an interval. The thread ends when this is closed.
    cuts: Option<Sender<()>>,
    results: Receiver<Result<Option<Interval>, BenchError>>,
    thread: Option<JoinHandle<()>>,
}

impl QuietTenant {
    /// Connects all subscribers and begins to publish, which starts the first interval.
    pub(crate) fn start(tenant: &Tenant, settings: Settings) -> Result<QuietTenant, BenchError> {
        let (cuts, requests) = channel();
        let (tell, results) = channel();
        let access = tenant.access.clone();
        let thread = std::thread::Builder::new().name("quiet tenant".into()).spawn(move || {
            let ended = QuietTenantThread::join(access, settings).and_then(|mut live| {
                let _ = tell.send(Ok(None)); // the handle is gone, so `requests` is closed too
                live.serve(&requests, &tell)
            });
            if let Err(error) = ended {
                let _ = tell.send(Err(error)); // likewise
            }
        });
        let thread = Some(thread.map_err(BenchError::io("start a thread"))?);
        let quiet_tenant = QuietTenant { cuts: Some(cuts), results, thread };
        quiet_tenant.results.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(quiet_tenant)
    }

    /// Requests the end of the interval. [`QuietTenant::poll`] returns the result.
    pub(crate) fn request_end(&self) {
        if let Some(cuts) = &self.cuts {
            let _ = cuts.send(()); // an ended thread has reported its error
        }
    }

    /// Returns the requested interval, once it is over.
    pub(crate) fn poll(&self) -> Result<Option<Interval>, BenchError> {
        match self.results.try_recv() {
            Ok(results) => results,
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Measures an interval without any other load, after a first interval that is not reported.
    pub(crate) fn measure_alone(&self, time: Duration) -> Result<Interval, BenchError> {
        std::thread::sleep(WARM_UP);
        self.cut()?;
        std::thread::sleep(time);
        self.cut()
    }

    /// Ends the interval and waits for its result. The next interval begins.
    pub(crate) fn cut(&self) -> Result<Interval, BenchError> {
        self.request_end();
        self.results.recv().unwrap_or_else(|_| Err(gone()))?.ok_or_else(gone)
    }
}

impl Drop for QuietTenant {
    fn drop(&mut self) {
        self.cuts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been printed
        }
    }
}

/// Checks that another tenant's arrays and the quiet tenant's rate are in range.
pub(crate) fn check(array: u64, rate: f64) -> Result<(), BenchError> {
    if !(1..=EVENTS_PER_PUBLISH as u64).contains(&array) || !(0.1..=10_000.0).contains(&rate) {
        let limits = format!("an array holds 1 to {EVENTS_PER_PUBLISH} events, the rate is 0.1 to 10000");
        return Err(BenchError::Usage(limits));
    }
    Ok(())
}

fn gone() -> BenchError {
    BenchError::Server("the quiet tenant's thread ended".into())
}

/// The state of the thread.
struct QuietTenantThread {
    engine: Engine,
    accounts: DeliveryAccounts,
    access: Access,
    settings: Settings,
    publisher: Key,
    template: Template,
    period_ns: u64,
    /// When the next publish is due, in nanoseconds.
    next_ns: u64,
    /// Events published so far.
    published: u64,
    /// The daemon's latency buckets at the beginning of the interval.
    before: Buckets,
    frame: Vec<u8>,
}

impl QuietTenantThread {
    fn join(access: Access, settings: Settings) -> Result<QuietTenantThread, BenchError> {
        let mut engine = Engine::new()?;
        let mut accounts = DeliveryAccounts::new(settings.subscribers)?;
        let request = subscribe(&access, settings.wire, "");
        for tag in 0..settings.subscribers {
            engine.open(access.addr, settings.wire, tag, &request)?;
        }
        let request = subscribe(&access, Wire::Ws, "?subscribe=none");
        let publisher = engine.open(access.addr, Wire::Ws, PUBLISHER, &request)?;
        let mut stall = StallDetector::new(settings.patience);
        while accounts.joined <= settings.subscribers {
            engine.turn(TICK, &mut accounts)?;
            accounts.check()?;
            stall.check(accounts.joined as u64, || "the quiet tenant connects".into())?;
        }
        let before = stats(&access)?.sent;
        if settings.probes {
            accounts.probes = Some(Probes::open(&mut engine, &access, settings.wire, publisher)?);
        }
        Ok(QuietTenantThread {
            engine,
            accounts,
            publisher,
            template: Template::custom(0, settings.size),
            period_ns: (1e9 / settings.rate) as u64,
            next_ns: now_ns(),
            published: 0,
            before,
            frame: Vec::new(),
            access,
            settings,
        })
    }

    fn serve(
        &mut self,
        requests: &Receiver<()>,
        tell: &Sender<Result<Option<Interval>, BenchError>>,
    ) -> Result<(), BenchError> {
        loop {
            match requests.try_recv() {
                Ok(()) => {
                    let interval = self.cut()?;
                    let _ = tell.send(Ok(Some(interval))); // the handle is gone: the next turn sees it closed
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.publish();
            let mut due = self.next_ns;
            if let Some(probes) = &mut self.accounts.probes {
                due = due.min(probes.ask(&mut self.engine)?);
            }
            let wait = Duration::from_nanos(due.saturating_sub(now_ns())).min(TICK);
            self.engine.turn(wait, &mut self.accounts)?;
            self.accounts.check()?;
        }
    }

    /// Publishes all events that are due.
    fn publish(&mut self) {
        let now = now_ns();
        if now.saturating_sub(self.next_ns) > BEHIND_NS {
            self.next_ns = now;
        }
        while self.next_ns <= now {
            let (n, t) = (self.published, now_ns());
            self.published += 1;
            self.next_ns += self.period_ns;
            self.accounts.published_at[n as usize % UNANSWERED] = t;
            self.frame.clear();
            ws_publish(n, self.template.stamped(Stamp { n, t }), false, true, &mut self.frame);
            self.engine.send(self.publisher, &self.frame);
        }
    }

    /// Waits until every subscriber has received every event, and sends the interval to the handle.
    fn cut(&mut self) -> Result<Interval, BenchError> {
        let mut stall = StallDetector::new(self.settings.patience);
        while !self.accounts.has_all(self.published) {
            self.engine.turn(TICK, &mut self.accounts)?;
            self.accounts.check()?;
            // If the wait is given up, the missing events are counted as lost below.
            if stall.check(self.accounts.deliveries + self.accounts.answered, String::new).is_err() {
                break;
            }
        }
        for _ in 0..2 {
            self.engine.turn(QUIET, &mut self.accounts)?; // a repeat may come late
        }
        let now = stats(&self.access)?.sent;
        let accounts = &mut self.accounts;
        let interval = Interval {
            refused: std::mem::take(&mut accounts.refused),
            live: accounts.live.clone(),
            acked: accounts.acked.clone(),
            sent: now.since(&self.before),
            delivery_faults: accounts.delivery_faults(self.published),
            probes: match &mut accounts.probes {
                Some(probes) => probes.take(),
                None => ProbeTimes::new()?,
            },
        };
        accounts.live.reset();
        accounts.acked.reset();
        accounts.interval = 0;
        self.before = now;
        self.next_ns = now_ns();
        Ok(interval)
    }
}

/// The events that each subscriber has received.
struct DeliveryAccounts {
    tallies: Vec<Tally>,
    /// The number of subscribers and publishers that are ready.
    joined: usize,
    /// First deliveries, in total and of this interval.
    deliveries: u64,
    interval: u64,
    /// Acknowledged publishes, and refused ones of this interval.
    answered: u64,
    refused: u64,
    /// The time when event n was published, at n modulo [`UNANSWERED`].
    published_at: Box<[u64]>,
    live: Histogram<u64>,
    acked: Histogram<u64>,
    probes: Option<Probes>,
    trouble: Option<String>,
}

impl DeliveryAccounts {
    fn new(subscribers: usize) -> Result<DeliveryAccounts, BenchError> {
        Ok(DeliveryAccounts {
            tallies: vec![Tally::default(); subscribers],
            joined: 0,
            deliveries: 0,
            interval: 0,
            answered: 0,
            refused: 0,
            published_at: vec![0; UNANSWERED].into_boxed_slice(),
            live: crate::report::histogram()?,
            acked: crate::report::histogram()?,
            probes: None,
            trouble: None,
        })
    }

    fn check(&self) -> Result<(), BenchError> {
        let failed = |what: &String| Err(BenchError::Server(format!("the quiet tenant's {what}")));
        self.trouble.as_ref().map_or(Ok(()), failed)
    }

    fn has_all(&self, published: u64) -> bool {
        self.answered >= published && self.deliveries >= published * self.tallies.len() as u64
    }

    fn delivery_faults(&self, end: u64) -> DeliveryFaults {
        DeliveryFaults { deliveries: self.interval, ..delivery_check::delivery_faults(&self.tallies, end) }
    }

    fn event(&mut self, tag: usize, stamp: Stamp) {
        let Some(tally) = self.tallies.get_mut(tag) else { return };
        if tally.take(stamp.n) {
            self.deliveries += 1;
            self.interval += 1;
            self.live.saturating_record(now_ns().saturating_sub(stamp.t));
        }
    }

    /// Handles a response of the daemon to the publisher.
    fn answer(&mut self, text: &[u8]) {
        if is_type(text, "ack") {
            self.answered += 1;
            if let Some(n) = reference(text) {
                let at = self.published_at[n as usize % UNANSWERED];
                self.acked.saturating_record(now_ns().saturating_sub(at));
            }
        } else if is_type(text, "error") {
            self.answered += 1;
            self.refused += 1;
        } else if is_type(text, "ready") {
            self.joined += 1;
        } else if is_type(text, "pong")
            && let Some(probes) = &mut self.probes
        {
            probes.pong();
        }
    }
}

/// Returns the number that a response refers to.
fn reference(text: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"ref\":";
    let rest = text.get(memmem::find(text, NAME)? + NAME.len()..)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |value: Option<u64>, digit| {
        Some(value.unwrap_or_default().wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

impl Handler for DeliveryAccounts {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        if tag >= PROBES {
            if let Some(probes) = &mut self.probes {
                probes.seen(tag, &seen);
            }
            return;
        }
        let who = if tag == PUBLISHER { "publisher" } else { "subscriber" };
        match seen {
            ConnEvent::Event(stamp, _) => self.event(tag, stamp),
            ConnEvent::Text(text) if tag == PUBLISHER => self.answer(text),
            ConnEvent::Text(text) if is_type(text, "ready") => self.joined += 1,
            seen => {
                if let Some(what) = seen.trouble() {
                    self.trouble.get_or_insert_with(|| format!("{who}: {what}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(accounts: &mut DeliveryAccounts, tag: usize, n: u64) {
        accounts.on_event(0, tag, ConnEvent::Event(Stamp { n, t: 0 }, b""));
    }

    #[test]
    fn an_interval_ends_when_all_events_are_delivered_and_acknowledged() {
        let mut accounts = DeliveryAccounts::new(2).unwrap();
        for n in 0..3 {
            event(&mut accounts, 0, n);
        }
        event(&mut accounts, 1, 0);
        event(&mut accounts, 1, 2);
        for n in 0..3 {
            accounts.on_event(
                0,
                PUBLISHER,
                ConnEvent::Text(format!(r#"{{"type":"ack","ref":{n},"ids":[]}}"#).as_bytes()),
            );
        }
        assert!(!accounts.has_all(3));
        assert_eq!(
            accounts.delivery_faults(3),
            DeliveryFaults { deliveries: 5, losses: 1, ..DeliveryFaults::default() }
        );
        event(&mut accounts, 1, 2);
        assert_eq!(accounts.delivery_faults(3).repeats, 1);
        event(&mut accounts, 1, 1);
        assert!(accounts.has_all(3));
        assert_eq!(
            (accounts.delivery_faults(3).losses, accounts.live.len(), accounts.acked.len()),
            (0, 6, 3)
        );
        assert!(accounts.check().is_ok());
        accounts.on_event(0, 1, ConnEvent::Text(br#"{"type":"gap","reason":"lagged"}"#));
        assert!(accounts.check().unwrap_err().to_string().contains("lagged"));
    }

    #[test]
    fn what_an_answer_refers_to() {
        assert_eq!(reference(br#"{"type":"ack","ref":417,"ids":[]}"#), Some(417));
        assert_eq!(reference(br#"{"type":"ack","ref":null,"ids":[]}"#), None);
        assert_eq!(reference(b"{}"), None);
    }
}
