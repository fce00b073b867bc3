//! Clients that each have one request in progress and send the next when the response arrives.
//!
//! * Every response is checked: its status or type, and that it has as many ids as requested. A 503
//!   (`UNAVAILABLE`) is also a response: it is counted and a request is sent again.
//! * Requests are built in advance ([`Requests`]). Sending one takes two pieces of memory and one system
//!   call.
//! * This file measures only response times. `measured_load` makes a report of an interval.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::{memchr_iter, memmem};

use super::engine::{ConnEvent, Ended, Engine, Handler, Key, TICK};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::histogram;
use crate::wire::request::subscribe;
use crate::wire::stamp::now_ns;
use crate::wire::{Access, Wire};

/// Longest response time that is recorded exactly, in nanoseconds.
const SLOWEST_NS: u64 = 60_000_000_000;

/// The requests of the clients.
pub(crate) trait Requests {
    /// Returns the next request of client `at`, as two consecutive pieces.
    fn next(&mut self, at: usize) -> [&[u8]; 2];
}

/// The settings of the clients.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// [`Wire::Http`] keep-alive or [`Wire::Ws`].
    pub wire: Wire,
    /// The access of each client's connection. There are as many as clients.
    pub access: Vec<Access>,
    /// Items in each request: events, or one message.
    pub batch: usize,
    /// Whether an acknowledgement contains an id for each item.
    pub ids: bool,
    /// The longest time without progress.
    pub patience: Duration,
}

/// One client.
struct Client {
    key: Key,
    /// When its request was sent, in nanoseconds; 0 if none is in progress.
    sent: u64,
    /// True if its connection accepts requests.
    open: bool,
}

/// The clients. A client's tag is its index.
pub(crate) struct Clients<'a> {
    all: Vec<Client>,
    plan: &'a Plan,
    requests: &'a mut dyn Requests,
    /// Number of commas in an acknowledgement that contains every id.
    commas: Option<usize>,
    /// Clients that were acknowledged since the last turn.
    acked: Vec<usize>,
    /// Clients that were refused temporarily.
    refused: Vec<usize>,
    /// Response times in the current interval.
    pub measured: Histogram<u64>,
    /// Items acknowledged in each second of the interval.
    pub per_second: Vec<f64>,
    /// Requests acknowledged in total.
    pub acknowledged: u64,
    /// Responses with 503 in the current interval.
    pub busy: u64,
    trouble: Option<String>,
}

impl std::fmt::Debug for Clients<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("acknowledged", &self.acknowledged).finish_non_exhaustive()
    }
}

impl<'a> Clients<'a> {
    /// Connects the clients.
    pub(crate) fn open(
        plan: &'a Plan,
        requests: &'a mut dyn Requests,
        engine: &mut Engine,
        progress: &mut dyn Progress,
    ) -> Result<Clients<'a>, BenchError> {
        // {"data":{"ids":["…","…"]},"success":true} and {"type":"ack","ref":1,"ids":["…","…"]}
        let commas = plan.ids.then_some(plan.batch + usize::from(plan.wire == Wire::Ws));
        let mut clients = Clients {
            all: Vec::with_capacity(plan.access.len()),
            plan,
            requests,
            commas,
            acked: Vec::new(),
            refused: Vec::new(),
            measured: histogram()?,
            per_second: Vec::new(),
            acknowledged: 0,
            busy: 0,
            trouble: None,
        };
        progress.begin("connecting", plan.access.len() as u64);
        let deadline = Instant::now() + plan.patience;
        for (at, access) in plan.access.iter().enumerate() {
            let first = match plan.wire {
                Wire::Ws => subscribe(access, Wire::Ws, "?subscribe=none"),
                Wire::Http | Wire::Sse => Vec::new(),
            };
            let key = engine.open(access.addr, plan.wire, at, &first)?;
            clients.all.push(Client { key, sent: 0, open: false });
            // Over WebSocket the clients connect one by one, so that no listener's backlog overflows.
            while plan.wire == Wire::Ws && !clients.all[at].open {
                engine.turn(TICK, &mut clients)?;
                clients.check(deadline, || format!("{at} clients have connected"))?;
            }
            progress.at(at as u64);
        }
        Ok(clients)
    }

    /// Discards the measurements so far.
    pub(crate) fn record(&mut self) {
        self.measured.reset();
        self.per_second.clear();
        self.busy = 0;
    }

    /// Sends from every client until `until`, or until `most` requests are acknowledged in total. Requests in
    /// progress stay in progress. `at` is called with the second.
    pub(crate) fn run(
        &mut self,
        engine: &mut Engine,
        until: Instant,
        most: u64,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        let (mut seconds, mut counted) = (0, 0);
        let (mut progressed, mut had) = (Instant::now(), 0);
        // Clients acknowledged at the end of the previous interval send here. They must not send again as
        // newly acknowledged.
        self.acked.clear();
        for at in 0..self.all.len() {
            if self.all[at].sent == 0 {
                self.send(at, engine);
            }
        }
        loop {
            engine.turn(TICK, self)?;
            let now = Instant::now();
            if self.acknowledged > had {
                (progressed, had) = (now, self.acknowledged);
            }
            self.check(progressed + self.plan.patience, || "acknowledgements".to_owned())?;
            while now >= began + Duration::from_secs(seconds + 1) {
                self.per_second.push(((self.measured.len() - counted) * self.plan.batch as u64) as f64);
                (seconds, counted) = (seconds + 1, self.measured.len());
                at(seconds);
            }
            if now >= until || self.acknowledged >= most {
                return Ok(());
            }
            self.resend(engine);
            let mut acked = std::mem::take(&mut self.acked);
            for at in acked.drain(..) {
                self.send(at, engine);
            }
            self.acked = acked;
        }
    }

    /// Waits for all outstanding acknowledgements. Only temporarily refused requests are sent again.
    pub(crate) fn drain(&mut self, engine: &mut Engine) -> Result<(), BenchError> {
        let deadline = Instant::now() + self.plan.patience;
        while self.all.iter().any(|client| client.sent != 0) {
            self.resend(engine);
            engine.turn(TICK, self)?;
            self.check(deadline, || "the last acknowledgements".to_owned())?;
        }
        Ok(())
    }

    fn resend(&mut self, engine: &mut Engine) {
        for at in std::mem::take(&mut self.refused) {
            self.send(at, engine);
        }
    }

    fn send(&mut self, at: usize, engine: &mut Engine) {
        let client = &mut self.all[at];
        client.sent = now_ns();
        engine.send_pieces(client.key, self.requests.next(at));
    }

    fn check(&mut self, deadline: Instant, waiting: impl FnOnce() -> String) -> Result<(), BenchError> {
        if let Some(trouble) = self.trouble.take() {
            return Err(BenchError::Server(trouble));
        }
        match Instant::now() > deadline {
            true => Err(BenchError::Stalled { seconds: self.plan.patience.as_secs(), waiting: waiting() }),
            false => Ok(()),
        }
    }

    fn ack(&mut self, at: usize, text: &[u8]) {
        if self.commas.is_some_and(|commas| memchr_iter(b',', text).count() != commas) {
            return self.wrong("an acknowledgement has the wrong number of ids", text);
        }
        let client = &mut self.all[at];
        let _ = self.measured.record(now_ns().saturating_sub(client.sent).min(SLOWEST_NS)); // in its range
        client.sent = 0;
        self.acknowledged += 1;
        self.acked.push(at);
    }

    fn busy(&mut self, at: usize) {
        self.busy += 1;
        self.refused.push(at);
    }

    fn wrong(&mut self, what: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        self.trouble.get_or_insert(format!("{what}: {text}"));
    }
}

impl Handler for Clients<'_> {
    fn on_event(&mut self, _: Key, tag: usize, seen: ConnEvent<'_>) {
        match seen {
            ConnEvent::Answer { status: 200 | 201, body } if body.ends_with(b"\"success\":true}") => {
                self.ack(tag, body);
            }
            ConnEvent::Answer { status: 503, .. } if self.plan.wire == Wire::Http => self.busy(tag),
            ConnEvent::Answer { status, body } => self.wrong(&format!("response {status}"), body),
            ConnEvent::Text(text) | ConnEvent::Event(_, text) => {
                if text.starts_with(b"{\"type\":\"ack\"") {
                    self.ack(tag, text);
                } else if memmem::find(text, b"\"UNAVAILABLE\"").is_some() {
                    self.busy(tag);
                } else if text.starts_with(b"{\"type\":\"ready\"") {
                    self.all[tag].open = true;
                } else if text.starts_with(b"{\"type\":\"error\"") {
                    self.wrong("refused", text);
                }
            }
            ConnEvent::Ended(Ended::Broken(kind)) => {
                self.wrong(&format!("a client's connection broke: {kind}"), b"")
            }
            ConnEvent::Ended(_) => self.wrong("a client's connection ended", b""),
            ConnEvent::Open => {}
        }
    }
}
