//! Tests of the loop turn by turn, over socket pairs: states that a client cannot cause at will.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, Method};

use super::connect::ConnectionHandoff;
use super::mail::Mail;
use super::*;
use crate::auth::{
    Actor, Auth, AuthSettings, CredentialUse, NewOrganization, Operate, OwnKey, Principal, RequestContext,
    StoredRecords,
};
use crate::close::CloseReason;
use crate::config::Config;
use crate::connection::admission::{Admission, Limits};
use crate::connection::presence::Presence;
use crate::event::Event;
use crate::event_ring::Pins;
use crate::filter::Filter;
use crate::frame::frame_page::PageContents;
use crate::ids::Sequence;
use crate::metrics::Metrics;
use crate::store::{CommitCallback, CommitError, Store, StoreOptions};
use crate::tenant::admission::{AckMode, PublishKind, PublishRequest};
use crate::tenant::publish::CommitWaiter as _;
use crate::tenant::rate::{RateCharge, RateLimits};
use crate::tenant::start::ResolvedStart;
use crate::tenant::{Tenant, Tenants};
use crate::time::{Clock, SystemClock};
use crate::transport::Transport;
use crate::wake::WakeQueue;

mod fairness;
mod submission;

/// One worker that the test runs step by step, and the organizations `a` and `b`.
struct Bench {
    worker: Rc<Worker>,
    principals: [Arc<Principal>; 2],
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        Bench::with_clock(Arc::new(SystemClock)).await
    }

    async fn with_clock(clock: Arc<dyn Clock>) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Arc::new(Config::default());
        let store = Store::open(StoreOptions::new(dir.path())).expect("a store");
        let own = OwnKey::load_or_make(dir.path()).expect("a key");
        let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
        let auth = Auth::new(&AuthSettings::from(&*config), own, records, clock.clone()).expect("auth");
        let operator = Principal::local_operator().authorize::<Operate>().expect("an operator");
        let mut principals = Vec::new();
        for id in ["a", "b"] {
            let new = NewOrganization { id: Some(id.into()), first_key: true, ..NewOrganization::default() };
            let key = auth.create_organization(&operator, new).await.expect("made").key.expect("a key");
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", HeaderValue::from_str(key.api_key.expose()).expect("ascii"));
            let cx = RequestContext::of(&headers, None, &Method::GET, None, CredentialUse::Stream);
            principals.push(auth.authenticate(&auth.present(&headers, ""), &cx).expect("a principal"));
        }
        let (pins, mut readers) = Pins::new(1);
        let metrics = Arc::new(Metrics::new(1));
        let mail: Arc<[WakeQueue<Mail>]> = [WakeQueue::new().expect("a bell")].into();
        let wakes: Arc<[WakeQueue<Arc<Tenant>>]> = [WakeQueue::new().expect("a bell")].into();
        let limits = crate::tenant::Limits {
            ring_slots: 1_024,
            ring_bytes: 1 << 20,
            ring_bytes_total: 1 << 20,
            event_bytes: 65_536,
            rates: RateLimits::default(),
            streams: crate::tenant::StreamLimits::default(),
        };
        let tenants = Tenants::new(store, pins, wakes.clone(), clock.clone(), metrics.clone(), limits);
        for principal in &principals {
            tenants.open(principal.tenant).await.expect("a tenant");
        }
        let presence = Presence::new(clock.clone(), std::time::Duration::ZERO);
        let limits =
            Limits { total: 0, per_organization: 0, per_user: 0, per_address: 0, count_local: false };
        let admission = Admission::new(limits, presence);
        let shared =
            SharedState::new(config, Arc::new(auth), tenants, admission, metrics, clock, mail, wakes);
        let worker = Worker::new(0, shared, readers.remove(0)).expect("a worker");
        let principals = principals.try_into().expect("two");
        Bench { worker, principals, _dir: dir }
    }

    /// Returns a live subscriber of organization `of` over SSE: its token, and the peer's end.
    fn subscriber(&self, of: usize) -> (Token, UnixStream) {
        self.connect(of, Transport::Sse)
    }

    fn connect(&self, of: usize, transport: Transport) -> (Token, UnixStream) {
        self.connect_with(of, transport, Some(Filter::default()))
    }

    fn connect_with(&self, of: usize, transport: Transport, filter: Option<Filter>) -> (Token, UnixStream) {
        self.connect_from(of, transport, filter, ResolvedStart::NOW)
    }

    fn connect_from(
        &self,
        of: usize,
        transport: Transport,
        filter: Option<Filter>,
        start: ResolvedStart,
    ) -> (Token, UnixStream) {
        self.connect_as(self.principals[of].clone(), transport, filter, start)
    }

    fn adopt(&self, of: usize, transport: Transport) -> ConnectionHandoff {
        self.adopt_as(self.principals[of].clone(), transport, Some(Filter::default()), ResolvedStart::NOW)
    }

    fn adopt_as(
        &self,
        principal: Arc<Principal>,
        transport: Transport,
        filter: Option<Filter>,
        start: ResolvedStart,
    ) -> ConnectionHandoff {
        let admission = &self.worker.shared.admission;
        ConnectionHandoff {
            tenant: self.worker.shared.tenants.get(principal.tenant),
            admitted: Some(admission.admit(principal, None).expect("a place")),
            transport,
            filter,
            start,
            streams: None,
            no_echo: false,
            heartbeat_event: false,
            head: Vec::new(),
            leftover: bytes::Bytes::new(),
        }
    }

    fn connect_as(
        &self,
        principal: Arc<Principal>,
        transport: Transport,
        filter: Option<Filter>,
        start: ResolvedStart,
    ) -> (Token, UnixStream) {
        let (ours, peer) = UnixStream::pair().expect("a pair");
        socket2::SockRef::from(&ours).set_send_buffer_size(8 * 1_024).expect("a small buffer");
        ours.set_nonblocking(true).expect("non-blocking");
        peer.set_nonblocking(true).expect("non-blocking");
        let handoff = self.adopt_as(principal, transport, filter, start);
        let slot = self.worker.state.borrow().connections.vacant_key() as u32;
        self.worker.hold_socket().hand_over();
        self.worker.adopt_socket(ours.into(), handoff).expect("adopted");
        let generation = self.worker.state.borrow().generation;
        (Token { slot, generation }, peer)
    }

    async fn publish(&self, to: usize, text: &str) {
        let json = format!(r#"{{"type":"custom","channel":"c","data":"{text}"}}"#);
        let tenants = &self.worker.shared.tenants;
        let request = PublishRequest {
            actor: Actor::daemon(),
            tenant: self.principals[to].tenant,
            events: tenants.internal_draft(RateCharge::DUE, &[Event::parse(&json).expect("valid")]),
            kind: PublishKind::Events { key: None, ack: AckMode::Memory },
        };
        tenants.publish(request, &self.worker).await.expect("published");
    }

    fn turn(&self) -> bool {
        self.worker.with_state(|it| it.turn()).expect("a turn")
    }
}

/// Returns everything that has arrived.
fn read_bytes(peer: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = peer.read_to_end(&mut bytes); // ends with "would block"
    bytes
}

fn read(peer: &mut UnixStream) -> String {
    String::from_utf8(read_bytes(peer)).expect("text")
}

/// A subscriber leaves during its organization's batch, and its slot passes to a connection of another
/// organization, which has a batch of its own in progress: neither gets the other's events.
#[test]
fn a_slot_reused_during_a_batch_gets_no_event_of_its_former_organization() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let mut of_a: Vec<_> = (0..3 * fanout::SENDS_PER_TURN + 8).map(|_| bench.subscriber(0)).collect();
        let mut of_b: Vec<_> = (0..5 * fanout::SENDS_PER_TURN).map(|_| bench.subscriber(1)).collect();
        while bench.turn() {}

        bench.publish(0, "for-a").await;
        bench.turn();
        // The last subscriber of `a` is not served yet. Its slot passes to `b`, which then has a longer batch
        // in progress.
        let (leaving, _) = of_a.pop().expect("one");
        bench.worker.with_state(|it| it.drop_connection(leaving, CloseReason::Peer));
        let (taken, peer) = bench.subscriber(1);
        assert_eq!(taken.slot, leaving.slot);
        of_b.push((taken, peer));
        bench.publish(1, "for-b").await;
        while bench.turn() {}

        for (subscribers, own, foreign) in [(&mut of_a, "for-a", "for-b"), (&mut of_b, "for-b", "for-a")] {
            for (token, peer) in subscribers {
                let seen = read(peer);
                assert_eq!(seen.matches(own).count(), 1, "{token:?}: {seen}");
                assert!(!seen.contains(foreign), "{token:?}: {seen}");
            }
        }
    });
}

/// A publisher resumes from an id that is not visible yet, because an earlier change waits for its commit:
/// `ready` has that position, and no event up to it is sent.
#[test]
fn a_subscriber_that_resumes_after_a_hidden_event_gets_only_later_events() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let tenant = bench.worker.shared.tenants.get(bench.principals[0].tenant).expect("open");
        let id = Sequence(tenant.last_visible().0 + 2);
        let start = ResolvedStart { position: Some(id), gap: None, resumed: true, requested: true };
        let (_, mut peer) = bench.connect_from(0, Transport::Sse, Some(Filter::default()), start);
        while bench.turn() {}
        let cursor = bench.worker.shared.tenants.cursors().encode(tenant.id(), id);
        let ready = read(&mut peer);
        assert_eq!(
            ready.matches(cursor.as_str()).count(),
            4,
            "ready and caught_up, each with its id: {ready}"
        );
        for text in ["held", "after", "later"] {
            bench.publish(0, text).await;
        }
        while bench.turn() {}
        let seen = read(&mut peer);
        let found = ["held", "after", "later"].map(|text| seen.contains(text));
        assert_eq!(found, [false, false, true], "{seen}");
    });
}

/// A quiet organization is removed from memory if nothing refers to it. Its connections do, also those that
/// only publish.
#[test]
fn every_connection_keeps_its_organization_in_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let tenant = bench.worker.shared.tenants.get(bench.principals[0].tenant).expect("open");
        let before = Arc::strong_count(&tenant);
        let (publisher, mut end) = bench.connect_with(0, Transport::Ws, None);
        assert_eq!(Arc::strong_count(&tenant), before + 1);
        // It subscribes, and its view keeps the tenant from then on.
        let text = br#"{"type":"subscribe"}"#;
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text);
        end.write_all(&frame).expect("sent");
        while bench.turn() {}
        assert!(bench.worker.state.borrow().tenants_without_view.is_empty());
        assert_eq!(Arc::strong_count(&tenant), before + 1);
        let (other, _other_end) = bench.connect_with(0, Transport::Ws, None);
        for token in [publisher, other] {
            assert_eq!(Arc::strong_count(&tenant), before + 1 + usize::from(token == publisher));
            bench.worker.with_state(|it| it.drop_connection(token, CloseReason::Peer));
        }
        assert_eq!(Arc::strong_count(&tenant), before);
    });
}

/// A client sends pings and reads the answers only after it has sent all. Each is answered, also those that
/// were already read and had to wait until the answers before them were sent.
#[test]
fn pings_read_while_the_outbox_is_full_are_answered_later() {
    const PINGS: usize = 4_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let (_, mut peer) = bench.connect(0, Transport::Ws);
        while bench.turn() {}
        let _ready = read_bytes(&mut peer);
        let mut ping = vec![0x89, 0x80 | 4, 0, 0, 0, 0];
        ping.extend_from_slice(b"ping");
        let mut unsent = ping.repeat(PINGS);
        let (mut pongs, mut idle) = (0, 0);
        while pongs < PINGS {
            let sent = peer.write(&unsent).unwrap_or(0);
            unsent.drain(..sent);
            while bench.turn() {}
            let answers = if unsent.is_empty() { read_bytes(&mut peer) } else { Vec::new() };
            // If even the sender's own bytes do not move while its answers are not read, read them.
            let answers = if sent == 0 && answers.is_empty() { read_bytes(&mut peer) } else { answers };
            pongs += answers.len() / (2 + 4);
            idle = if sent == 0 && answers.is_empty() { idle + 1 } else { 0 };
            assert!(idle < 10, "{pongs} of {PINGS} answered");
        }
    });
}

/// A live subscriber has pending pongs that its socket did not take. The socket takes bytes again in the same
/// turn in which an event comes: the pongs go first, since the first may be sent in part, and a frame inside
/// another would be invalid.
#[test]
fn pending_output_is_written_before_a_new_event() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let (token, mut peer) = bench.connect(0, Transport::Ws);
        while bench.turn() {}
        let mut seen = read_bytes(&mut peer);
        let mut ping = vec![0x89, 0x80 | 120, 0, 0, 0, 0];
        ping.extend_from_slice(&[b'p'; 120]);
        let owes = || {
            let state = &mut *bench.worker.state.borrow_mut();
            let connection = state.connection(token).expect("alive");
            connection.flags.write_state.is_blocked()
                && connection.out.as_ref().is_some_and(|out| !out.control.is_empty())
        };
        while !owes() {
            peer.write_all(&ping).expect("room");
            while bench.turn() {}
        }
        seen.clear();
        seen.extend(read_bytes(&mut peer));
        bench.publish(0, "the-news").await;
        while bench.turn() {}
        seen.extend(read_bytes(&mut peer));
        let news = seen.windows(8).position(|part| part == b"the-news").expect("delivered");
        let last = seen.windows(120).rposition(|part| part == [b'p'; 120]).expect("pongs");
        assert!(last < news, "the event overtook pending output");
    });
}

/// Every subscriber of an organization turns out to be gone while an event is written to them: its view is
/// removed during the batch.
#[test]
fn a_view_is_removed_when_all_its_subscribers_are_found_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        for audience in [1, 3] {
            let bench = Bench::new().await;
            let peers: Vec<_> = (0..audience).map(|_| bench.subscriber(0)).collect();
            while bench.turn() {}
            bench.publish(0, "into-the-void").await;
            // They are gone after the sockets were checked and before they are written to, as far as the
            // worker can know.
            let view = {
                let state = &mut *bench.worker.state.borrow_mut();
                state.by_tenant[&bench.principals[0].tenant]
            };
            drop(peers);
            bench.worker.with_state(|it| it.fan_out(view));
            while bench.turn() {}
            let state = bench.worker.state.borrow();
            assert!(state.connections.is_empty() && state.views.is_empty() && state.by_tenant.is_empty());
        }
    });
}

/// An organization with many subscribers delays another by one turn, not by its whole audience.
#[test]
fn a_large_audience_delays_another_organization_by_one_turn() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let mut many: Vec<_> = (0..4 * fanout::SENDS_PER_TURN).map(|_| bench.subscriber(0)).collect();
        let (_, mut one) = bench.subscriber(1);
        while bench.turn() {}
        bench.publish(0, "for-many").await;
        bench.publish(1, "for-one").await;
        bench.turn();
        assert!(read(&mut one).contains("for-one"));
        let served =
            many.iter_mut().filter_map(|(_, peer)| read(peer).contains("for-many").then_some(())).count();
        // Its share for new events, and one more that a turn gives to tenants with work left.
        assert_eq!(served, 2 * fanout::SENDS_PER_TURN);
    });
}

/// Tasks that wait for a commit are notified when the worker reads its mail: with the result, and also when
/// the store is dropped without one. A task that is gone by then leaves nothing behind.
#[test]
fn a_task_gets_the_result_of_its_commit_by_mail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let (kept, mut first) = bench.worker.register();
        let (lost, second) = bench.worker.register();
        let (late, third) = bench.worker.register();
        assert!(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut first).poll(cx))).await.is_pending());
        drop(third);
        for done in [kept, late] {
            let CommitCallback::Call(tell) = done else { panic!("it is called") };
            tell(Ok(()));
        }
        drop(lost);
        bench.turn();
        assert_eq!((first.await, second.await), (Ok(()), Err(CommitError::Unavailable)));
        assert_eq!(bench.worker.commits.len(), 0);
    });
}

/// A peer's last bytes are read, and its end is noticed, whether they arrive together or one after the other.
#[test]
fn the_end_of_input_is_noticed_after_a_short_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let bench = Bench::new().await;
        let ping = [0x89, 0x80, 0, 0, 0, 0];
        for together in [true, false] {
            let (token, mut peer) = bench.connect(0, Transport::Ws);
            while bench.turn() {}
            let _ready = read_bytes(&mut peer);
            peer.write_all(&ping).expect("sent");
            if !together {
                while bench.turn() {}
            }
            peer.shutdown(std::net::Shutdown::Write).expect("ended");
            while bench.turn() {}
            assert!(read_bytes(&mut peer).starts_with(&[0x8a, 0]), "answered");
            assert!(
                bench.worker.state.borrow_mut().connection(token).is_none(),
                "noticed, together: {together}"
            );
        }
    });
}

/// A connection that does not receive its own events is not sent log pages without a check, because they may
/// contain its events.
#[tokio::test]
async fn each_event_is_checked_for_a_connection_without_echo() {
    let bench = Bench::new().await;
    let (token, _peer) = bench.subscriber(0);
    let state = &mut *bench.worker.state.borrow_mut();
    let contents = [false, true].map(|has_users| PageContents { has_users, has_other_parts: false });
    assert!(contents.iter().all(|of| state.sees_all(token, *of)), "an owner's key reads everything");
    state.connection(token).expect("connected").flags.no_echo = true;
    assert!(contents.iter().all(|of| !state.sees_all(token, *of)));
}
