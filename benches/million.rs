//! A million connections on one worker, without a kernel:
//! `cargo bench --bench million [-- all | each | users [COUNT]]`.
//!
//! The worker, its connections, slab, index, wheel, views, tenants, admission and the store are the daemon's
//! own. Only the sockets are replaced (`connection::sink::MemorySink` counts what would have been sent), because
//! a process here may open only 20,000 descriptors. The bench prints for each audience:
//!
//! * memory: growth of this process's resident anonymous memory while they connect, per connection.
//! * heartbeats: CPU of the worker's thread in one second of the interval (25 s, so 40,000 connections per
//!   second).
//! * fan-out: CPU per delivery of one event to all, of 8 together (one write each), and of events with few
//!   subscribers.
//!
//! Audiences: `all` use one API key and receive everything; `each` use one API key, with ten connections per
//! channel; `users` have a token each, which is checked like any other (100,000 by default).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::type_complexity,
    missing_docs
)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method};
use nervewire::allocator::{self, Allocator};
use nervewire::auth::{
    Actor, Auth, AuthSettings, CredentialUse, Manage, NewOrganization, NewToken, Operate, OwnKey, Principal,
    RequestContext, StoredRecords,
};
use nervewire::config::Config;
use nervewire::connection::admission::{Admission, Limits};
use nervewire::connection::presence::Presence;
use nervewire::connection::sink::MemorySink;
use nervewire::event::Event;
use nervewire::event_ring::Pins;
use nervewire::filter::Filter;
use nervewire::metrics::Metrics;
use nervewire::store::{Store, StoreOptions};
use nervewire::tenant::admission::{AckMode, PublishKind, PublishRequest};
use nervewire::tenant::rate::RateCharge;
use nervewire::tenant::start::ResolvedStart;
use nervewire::tenant::{self, Tenant, Tenants};
use nervewire::time::{Clock, SystemClock};
use nervewire::transport::Transport;
use nervewire::wake::WakeQueue;
use nervewire::worker::connect::ConnectionHandoff;
use nervewire::worker::{SharedState, Worker};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Seconds between heartbeats.
const INTERVAL: u64 = 25;
/// Connections per channel in `each`.
const PER_CHANNEL: usize = 10;
/// Events published one after another to channels with few subscribers.
const SELECTIVE: usize = 2_000;
/// Events published to all, one at a time.
const ROUNDS: usize = 5;
/// Events that are sent in one write.
const TOGETHER: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    Each,
    Users,
}

/// A worker, its organization, and what its connections wrote.
struct Simulation {
    worker: Rc<Worker>,
    auth: Arc<Auth>,
    key: Arc<Principal>,
    tenant: Arc<Tenant>,
    ledger: Rc<MemorySink>,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Simulation {
    async fn new() -> Simulation {
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(Config { heartbeat_seconds: INTERVAL, ..Config::default() });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Store::open(StoreOptions::new(dir.path())).unwrap();
        let own = OwnKey::load_or_make(dir.path()).unwrap();
        let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
        let auth = Arc::new(Auth::new(&AuthSettings::from(&*config), own, records, clock.clone()).unwrap());
        let operator = Principal::local_operator().authorize::<Operate>().unwrap();
        let new = NewOrganization { id: Some("sim".into()), first_key: true, ..NewOrganization::default() };
        let first = auth.create_organization(&operator, new).await.unwrap().key.unwrap();
        let key = enter(&auth, "x-api-key", first.api_key.expose());
        let (pins, mut readers) = Pins::new(1);
        let metrics = Arc::new(Metrics::new(1));
        let wakes: Arc<[WakeQueue<Arc<Tenant>>]> = [WakeQueue::new().unwrap()].into();
        let limits = tenant::Limits::from(&*config);
        let tenants =
            Tenants::new(store.clone(), pins, wakes.clone(), clock.clone(), metrics.clone(), limits);
        let tenant = tenants.open(key.tenant).await.unwrap();
        let limits = Limits {
            total: 0,
            per_organization: 0,
            per_user: config.limits.connections_per_user,
            per_address: config.limits.connections_per_address,
            count_local: false,
        };
        let admission = Admission::new(limits, Presence::new(clock.clone(), config.presence_grace()));
        let mail = [WakeQueue::new().unwrap()].into();
        let shared = SharedState::new(config, auth.clone(), tenants, admission, metrics, clock, mail, wakes);
        let worker = Worker::new(0, shared, readers.remove(0)).unwrap();
        tokio::task::spawn_local(worker.clone().run());
        Simulation { worker, auth, key, tenant, ledger: Rc::default(), store, _dir: dir }
    }

    /// Adds a connection, in the same way as `http` hands it over.
    fn connect(&self, audience: Audience, n: usize) {
        let principal = match audience {
            Audience::Users => self.user(n),
            Audience::All | Audience::Each => self.key.clone(),
        };
        let filter = match audience {
            Audience::Each => {
                let query = [("channel", format!("c/{}", n / PER_CHANNEL))];
                Filter::from_query(&query).unwrap()
            }
            Audience::All | Audience::Users => Filter::default(),
        };
        let peer = std::net::Ipv4Addr::LOCALHOST.into();
        let adopt = ConnectionHandoff {
            admitted: Some(self.worker.shared.admission.admit(principal, Some(peer)).unwrap()),
            tenant: Some(self.tenant.clone()),
            transport: Transport::Ws,
            filter: Some(filter),
            start: ResolvedStart::NOW,
            streams: None,
            no_echo: false,
            heartbeat_event: false,
            head: b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
            leftover: bytes::Bytes::new(),
        };
        self.worker.adopt_memory(self.ledger.clone(), adopt);
    }

    fn user(&self, n: usize) -> Arc<Principal> {
        let manage = self.key.authorize::<Manage>().unwrap();
        let new = NewToken { sub: format!("user-{n}"), ..NewToken::default() };
        let token = self.auth.mint_token(&manage, None, &new).unwrap();
        enter(&self.auth, "authorization", &format!("Bearer {}", token.token.expose()))
    }

    /// Publishes to `channel` and waits for `writes` further writes.
    async fn deliver(&self, channel: &str, events: usize, writes: u64) {
        let until = self.ledger.writes.get() + writes;
        let pad = "x".repeat(80);
        let json = format!(r#"{{"type":"custom","channel":"{channel}","data":"{pad}"}}"#);
        let events = vec![Event::parse(&json).unwrap(); events];
        let tenants = &self.worker.shared.tenants;
        let request = PublishRequest {
            actor: Actor::daemon(),
            tenant: self.tenant.id(),
            events: tenants.internal_draft(RateCharge::DUE, &events),
            kind: PublishKind::Events { key: None, ack: AckMode::Memory },
        };
        tenants.publish(request, &self.worker).await.unwrap();
        while self.ledger.writes.get() < until {
            tokio::task::yield_now().await;
        }
    }
}

fn enter(auth: &Auth, header: &'static str, credential: &str) -> Arc<Principal> {
    let mut headers = HeaderMap::new();
    headers.insert(header, HeaderValue::from_str(credential).unwrap());
    let cx = RequestContext::of(&headers, None, &Method::GET, None, CredentialUse::Stream);
    auth.authenticate(&auth.present(&headers, ""), &cx).unwrap()
}

/// Returns the resident memory that is this process's own, in bytes.
fn resident() -> f64 {
    allocator::release_free_pages(true);
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1_024.0
}

/// Returns the CPU time of this thread so far, and its share in the kernel (to 10 ms), in seconds.
fn cpu() -> (f64, f64) {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let all: f64 = all.split_whitespace().next().unwrap().parse().unwrap();
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (all / 1e9, after[12].parse::<f64>().unwrap() / 100.0)
}

async fn simulate(audience: Audience, name: &str, count: usize) {
    let sim = Simulation::new().await;
    sim.connect(audience, 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = resident();
    let began = cpu();
    for n in 1..count {
        sim.connect(audience, n);
        if n % 1_000 == 0 {
            tokio::task::yield_now().await; // lets the worker's timer advance
        }
    }
    while sim.ledger.writes.get() < count as u64 {
        tokio::task::yield_now().await; // each has received `ready`
    }
    let each = (cpu().0 - began.0) / count as f64 * 1e6;
    let bytes = (resident() - before) / count as f64;
    println!(
        "million {name}: {count} connections, {bytes:.0} bytes each; connecting took {each:.2} µs of CPU each"
    );
    println!(
        "million {name}: {} bytes of it are the connection",
        size_of::<nervewire::connection::Connection>()
    );

    let deliveries: Vec<(String, Box<dyn Fn(usize) -> String>, usize, usize, usize)> = match audience {
        Audience::All | Audience::Users => vec![
            ("one event to all".into(), Box::new(|_| "c".into()), ROUNDS, 1, count),
            (format!("{TOGETHER} together to all"), Box::new(|_| "c".into()), ROUNDS, TOGETHER, count),
        ],
        Audience::Each => {
            let channels = count / PER_CHANNEL;
            let spread = move |n: usize| format!("c/{}", n * 7_919 % channels);
            vec![(format!("one event to {PER_CHANNEL} of them"), Box::new(spread), SELECTIVE, 1, PER_CHANNEL)]
        }
    };
    for (what, channel, rounds, together, reached) in deliveries {
        sim.deliver(&channel(0), together, reached as u64).await;
        let began = cpu();
        for n in 0..rounds {
            sim.deliver(&channel(n + 1), together, reached as u64).await;
        }
        let ended = cpu();
        let each = 1e6 / (rounds * together * reached) as f64;
        let (all, kernel) = ((ended.0 - began.0) * each, (ended.1 - began.1) * each);
        println!("million {name}: {what}: {all:.3} µs of CPU per delivery (kernel {kernel:.3})");
    }

    if count < 1_000 {
        return; // a test run only checks that it works
    }
    // Runs for a whole interval, so that each connection has had a heartbeat.
    let (began, wrote, since) = (cpu(), sim.ledger.writes.get(), Instant::now());
    tokio::time::sleep(Duration::from_secs(INTERVAL)).await;
    let (ended, beats) = (cpu(), sim.ledger.writes.get() - wrote);
    // Per second of elapsed time: if other processes keep the machine busy, a sleep takes longer than
    // requested.
    let second = (ended.0 - began.0) / since.elapsed().as_secs_f64() * 1e3;
    let beat = (ended.0 - began.0) / beats as f64 * 1e6;
    println!("million {name}: heartbeats: {second:.1} ms of CPU a second, {beat:.3} µs each ({beats})");
    let began = Instant::now();
    allocator::release_free_pages(false);
    let took = began.elapsed().as_secs_f64() * 1e3;
    println!("million {name}: looking for memory to return, once a second: {took:.3} ms");
    sim.store.close().await;
}

fn main() {
    allocator::without_huge_pages();
    let mut wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (name, count) = (wanted.next(), wanted.next());
    let measured = std::env::args().any(|arg| arg == "--bench");
    if measured && name.is_none() {
        // Each audience has its own process, so that memory left in the allocator is not reused by the next.
        for name in ["all", "each", "users"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            assert!(child.args(["--bench", name]).status().unwrap().success());
        }
        return;
    }
    let name = name.unwrap_or_else(|| "all".into());
    let (audience, usual) = match name.as_str() {
        "all" => (Audience::All, 1_000_000),
        "each" => (Audience::Each, 1_000_000),
        "users" => (Audience::Users, 100_000),
        other => panic!("no audience is called {other}"),
    };
    // `cargo test --benches` runs the bench only to check that it works.
    let count = if measured { count.map_or(usual, |count| count.parse().unwrap()) } else { 100 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(simulate(audience, &name, count));
}
