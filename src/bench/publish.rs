//! `publish`: how many events a second the server takes and acknowledges, and how long an ack takes.
//!
//! * Each client has one publish under way and sends the next when the ack has come: a closed loop, so the latency told is that
//!   of the rate told. Its request is made once and sent again and again; the machine is the server's.
//! * Every ack is looked at: its status or type, and that it names as many ids as events were sent. A 503 (`UNAVAILABLE`) is an
//!   answer too: it is counted, told, and the publish sent again.
//! * In the end everybody is waited for, and what the acks say is compared with what the daemon says it has published and
//!   committed (`/metrics`).
//! * With `--floor` the bare commit (`benches/baselines/bare_commit.rs`) runs right after each run, on the same file system; the
//!   ratio of the medians is the price of everything around the commit. It means something for one client alone.

use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::{memchr_iter, memmem};
use serde_json::{Value, json};

use super::engine::{Ended, Engine, Key, Seen, Watch};
use super::error::BenchError;
use super::meter::Meter;
use super::process::pss;
use super::progress::Progress;
use super::publisher::{HttpPublish, subscribe, ws_publish};
use super::report::{Rate, Report};
use super::stamp::{Template, now_ns};
use super::subscriber::Wire;
use super::target::{Server, Target};
use super::{Common, EVENTS_PER_PUBLISH, histogram};

/// The longest wait for something to be ready.
const TICK: Duration = Duration::from_millis(100);
/// Published before the measured part, seconds: the log's first segment and the ring's growth are behind then.
const WARM_UP: Duration = Duration::from_millis(700);
/// Channels the events are spread over.
const CHANNELS: usize = 16;
/// The longest ack that is told as it was, nanoseconds.
const SLOWEST_NS: u64 = 60_000_000_000;
/// Bytes the log's record has beside the event: the id, the time of receipt, the channel again.
const ENVELOPE: usize = 110;
/// Commits of one bare run.
const BARE_COMMITS: usize = 2_000;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As every mode.
    pub common: Common,
    /// [`Wire::Http`] keep-alive or [`Wire::Ws`].
    pub wire: Wire,
    /// Publishers, each with one publish under way.
    pub clients: usize,
    /// Events in each publish.
    pub batch: usize,
    /// Whether acks wait for the disk.
    pub durable: bool,
    /// How long is measured, in seconds.
    pub seconds: u64,
    /// Bytes of an event.
    pub size: usize,
}

/// Runs it.
///
/// # Errors
/// A server does not come up, refuses, ends or stands still.
pub fn run(settings: &Settings, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Settings { common, clients, batch, durable, seconds, size, .. } = settings;
    if *clients == 0 || *seconds == 0 || common.runs == 0 || !(1..=EVENTS_PER_PUBLISH).contains(batch) {
        let limits =
            format!("clients, seconds and runs are at least 1, a batch is 1 to {EVENTS_PER_PUBLISH} events");
        return Err(BenchError::Usage(limits));
    }
    if common.naive {
        return Err(BenchError::Usage("the naive server keeps no log: there is nothing to compare".into()));
    }
    let wire = settings.wire.name();
    let each = if *batch == 1 { "singles".to_owned() } else { format!("arrays of {batch}") };
    let ack = if *durable { "durable acks" } else { "acks from memory" };
    let about =
        format!("{clients} clients over {wire}, {each}, {ack}, for {seconds} s, events of {size} bytes");
    let told = json!({
        "protocol": settings.wire.label(), "clients": clients, "batch": batch,
        "ack": if *durable { "durable" } else { "memory" }, "seconds": seconds, "size": size, "runs": common.runs,
    });
    let mut report = Report::new("publish", about, told, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        measure(settings, run, &target, &mut report, progress)?;
        drop(target); // its disk traffic is not the bare commit's
        if common.floor {
            progress.begin("bare commits", 0);
            bare_commits(settings, &mut report)?;
        }
    }
    if common.floor {
        report.notes.push(
            "the floor is a bare sled batch + flush + fdatasync of one row, one after the other".into(),
        );
    }
    Ok(report)
}

fn measure(
    settings: &Settings,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let patience = settings.common.patience;
    let mut engine = Engine::new()?;
    let mut clients = Clients::new(settings, target)?;
    clients.open(settings, target, &mut engine, progress)?;
    progress.begin("warming up", 0);
    clients.publish(&mut engine, Instant::now() + WARM_UP, patience, &mut |_| {})?;
    clients.record();
    progress.begin("publishing", settings.seconds);
    let meter = Meter::start(target);
    let until = Instant::now() + Duration::from_secs(settings.seconds);
    clients.publish(&mut engine, until, patience, &mut |second| progress.at(second))?;
    let used = meter.used(target);
    let events = (clients.measured.len() * settings.batch as u64).max(1) as f64;
    let server = target.server;
    report.add(server, "rate", "events acknowledged", "1/s", events / used.elapsed);
    for (key, name, quantile) in [("p50", "publish to ack, p50", 0.5), ("p99", "publish to ack, p99", 0.99)] {
        report.add(server, key, name, "µs", clients.measured.value_at_quantile(quantile) as f64 / 1e3);
    }
    if let Some(spent) = used.cpu {
        report.add(server, "cpu", "CPU per event", "µs", spent.total * 1e6 / events);
        report.add(server, "user", "of it in user space", "µs", spent.user * 1e6 / events);
    }
    report.add(server, "generator", "CPU of the bench per event", "µs", used.own * 1e6 / events);
    if let Some(bytes) = target.pid.and_then(pss) {
        report.add(server, "pss", "memory (PSS) afterwards", "MiB", bytes as f64 / f64::from(1 << 20));
    }
    report.add(server, "busy", "publishes answered 503 and sent again", "", clients.busy as f64);
    report.latency(server, "publish to ack", &clients.measured);
    let per_second = std::mem::take(&mut clients.per_second);
    report.rates.push(Rate { server, name: "events acknowledged", run, per_second });
    clients.settle(&mut engine, patience)?;
    let acknowledged = clients.acknowledged * settings.batch as u64;
    report.astray.deliveries += acknowledged;
    if let Some(fault) = compare(target, acknowledged, patience) {
        report.fault(server, run, fault);
    }
    Ok(())
}

/// Compares the acks with what the daemon counted; acks from memory are committed a little later. `None`: they agree, or
/// the daemon's counters are not to be had.
fn compare(target: &Target, acknowledged: u64, patience: Duration) -> Option<String> {
    let count = |name: &str| target.metric(name).map(|count| count as u64);
    let published = count("nervewire_published_total")?;
    if published != acknowledged {
        return Some(format!("{acknowledged} events were acknowledged, {published} published"));
    }
    let deadline = Instant::now() + patience;
    loop {
        let committed = count("nervewire_committed_events_total")?;
        if committed == published {
            return None;
        }
        if Instant::now() > deadline {
            return Some(format!("{acknowledged} events were acknowledged, {committed} committed"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the bare commit where the daemon's data was.
fn bare_commits(settings: &Settings, report: &mut Report) -> Result<(), BenchError> {
    let program = settings.common.baselines.find("bare_commit")?;
    let dir = std::env::temp_dir().join(format!("nervewire-bench-bare-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(BenchError::io("make a directory"))?;
    let bytes = settings.batch * (settings.size + ENVELOPE);
    let output = Command::new(&program)
        .arg("--dir")
        .arg(&dir)
        .args(["--commits", &BARE_COMMITS.to_string(), "--bytes", &bytes.min(64 << 10).to_string()])
        .output();
    let _ = std::fs::remove_dir_all(&dir); // it cleans up after itself, unless it failed
    let output = output.map_err(BenchError::io(format!("run {}", program.display())))?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    for (key, name, field) in
        [("p50", "publish to ack, p50", "p50_ns"), ("p99", "publish to ack, p99", "p99_ns")]
    {
        let Some(ns) = said[field].as_f64() else {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::Server(format!("the bare commit said no {field}: {}", words.trim())));
        };
        report.add(Server::Floor, key, name, "µs", ns / 1e3);
    }
    Ok(())
}

/// One publisher.
struct Client {
    key: Key,
    request: Vec<u8>,
    /// When its publish was sent, nanoseconds.
    sent: u64,
    /// Its connection takes publishes.
    open: bool,
}

/// The publishers. Their tags are their places.
struct Clients {
    all: Vec<Client>,
    wire: Wire,
    /// Commas of an ack's text that names every id.
    commas: usize,
    /// Whose publish was acknowledged since the last look.
    acked: Vec<usize>,
    /// Whose publish was refused for now.
    refused: Vec<usize>,
    /// Acks in the present stretch.
    measured: Histogram<u64>,
    /// Events acknowledged in each of its seconds.
    per_second: Vec<f64>,
    /// Acks in all.
    acknowledged: u64,
    /// Answers of 503 in the present stretch.
    busy: u64,
    opened: usize,
    trouble: Option<String>,
    patience: Duration,
}

impl Clients {
    fn new(settings: &Settings, target: &Target) -> Result<Clients, BenchError> {
        let http = HttpPublish::new(&target.access, settings.durable);
        let mut body = Vec::new();
        let all = (0..settings.clients).map(|at| {
            let mut template = Template::custom(at % CHANNELS, settings.size);
            template.array(at as u64, settings.batch as u64, 0, &mut body);
            let single = settings.batch == 1;
            let body = if single { &body[1..body.len() - 1] } else { &body[..] };
            let mut request = Vec::new();
            match settings.wire {
                Wire::Ws => ws_publish(at as u64, body, !single, settings.durable, &mut request),
                Wire::Http | Wire::Sse => http.request(body, &mut request),
            }
            Client { key: 0, request, sent: 0, open: false }
        });
        Ok(Clients {
            all: all.collect(),
            wire: settings.wire,
            // {"data":{"ids":["…","…"]},"success":true} and {"type":"ack","ref":1,"ids":["…","…"]}
            commas: settings.batch + usize::from(settings.wire == Wire::Ws),
            acked: Vec::new(),
            refused: Vec::new(),
            measured: histogram()?,
            per_second: Vec::new(),
            acknowledged: 0,
            busy: 0,
            opened: 0,
            trouble: None,
            patience: settings.common.patience,
        })
    }

    fn open(
        &mut self,
        settings: &Settings,
        target: &Target,
        engine: &mut Engine,
        progress: &mut dyn Progress,
    ) -> Result<(), BenchError> {
        progress.begin("connecting", self.all.len() as u64);
        let first = match settings.wire {
            Wire::Ws => subscribe(&target.access, Wire::Ws, "?subscribe=none"),
            Wire::Http | Wire::Sse => Vec::new(),
        };
        let deadline = Instant::now() + settings.common.patience;
        for at in 0..self.all.len() {
            self.all[at].key = engine.open(target.access.addr, settings.wire, at, &first)?;
            // One by one over WebSocket: no listener's backlog overflows.
            while settings.wire == Wire::Ws && !self.all[at].open {
                engine.turn(TICK, self)?;
                self.check(deadline, || format!("{at} clients have connected"))?;
            }
            progress.at(at as u64);
        }
        Ok(())
    }

    /// Forgets what was measured so far.
    fn record(&mut self) {
        self.measured.reset();
        self.per_second.clear();
        self.busy = 0;
    }

    /// Publishes from every client until `until`; what is under way then stays so.
    fn publish(
        &mut self,
        engine: &mut Engine,
        until: Instant,
        patience: Duration,
        at: &mut dyn FnMut(u64),
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        let (mut seconds, mut counted) = (0, 0);
        let (mut moved, mut had) = (Instant::now(), 0);
        // Whoever was acknowledged last in the stretch before is sent here, and must not be again as one just acknowledged.
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
                (moved, had) = (now, self.acknowledged);
            }
            self.check(moved + patience, || "acks".to_owned())?;
            while now >= began + Duration::from_secs(seconds + 1) {
                let batch = self.commas - usize::from(self.wire == Wire::Ws);
                self.per_second.push(((self.measured.len() - counted) * batch as u64) as f64);
                (seconds, counted) = (seconds + 1, self.measured.len());
                at(seconds);
            }
            if now >= until {
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

    /// Waits for every ack that is still due, sending nothing new but what was refused for now.
    fn settle(&mut self, engine: &mut Engine, patience: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + patience;
        while self.all.iter().any(|client| client.sent != 0) {
            self.resend(engine);
            engine.turn(TICK, self)?;
            self.check(deadline, || "the last acks".to_owned())?;
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
        engine.send(client.key, &client.request);
    }

    fn check(&mut self, deadline: Instant, waiting: impl FnOnce() -> String) -> Result<(), BenchError> {
        if let Some(trouble) = self.trouble.take() {
            return Err(BenchError::Server(trouble));
        }
        match Instant::now() > deadline {
            true => Err(BenchError::Stalled { seconds: self.patience.as_secs(), waiting: waiting() }),
            false => Ok(()),
        }
    }

    /// An answer that acknowledges.
    fn ack(&mut self, at: usize, text: &[u8]) {
        if memchr_iter(b',', text).count() != self.commas {
            return self.wrong("an ack names other ids than were published", text);
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

impl Watch for Clients {
    fn seen(&mut self, _: Key, tag: usize, seen: Seen<'_>) {
        match seen {
            Seen::Answer { status: 200 | 201, body } if body.ends_with(b"\"success\":true}") => {
                self.ack(tag, body);
            }
            Seen::Answer { status: 503, .. } if self.wire == Wire::Http => self.busy(tag),
            Seen::Answer { status, body } => self.wrong(&format!("answered {status}"), body),
            Seen::Text(text) | Seen::Event(_, text) => {
                if text.starts_with(b"{\"type\":\"ack\"") {
                    self.ack(tag, text);
                } else if memmem::find(text, b"\"UNAVAILABLE\"").is_some() {
                    self.busy(tag);
                } else if text.starts_with(b"{\"type\":\"ready\"") {
                    self.all[tag].open = true;
                    self.opened += 1;
                } else if text.starts_with(b"{\"type\":\"error\"") {
                    self.wrong("refused", text);
                }
            }
            Seen::Ended(Ended::Broken(kind)) => {
                self.wrong(&format!("a client's connection broke: {kind}"), b"")
            }
            Seen::Ended(_) => self.wrong("a client's connection ended", b""),
            Seen::Open => {}
        }
    }
}
