//! One organization's work delays another organization by one step, and it is done only for the connections
//! concerned.

use std::sync::atomic::AtomicU64;

use tokio::sync::oneshot;

use super::*;
use crate::auth::{AuthChange, Authorized, Manage, NewToken};
use crate::filter::Narrowing;
use crate::worker::connection_list::{self, ConnectionInfo, ConnectionSelector, FoundConnection};

/// Each reading of this clock takes longer than a share of a turn, so a turn does no more than it must.
#[derive(Default)]
struct Hurried(AtomicU64);

impl Clock for Hurried {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms()
    }
    fn monotonic_us(&self) -> u64 {
        self.0.fetch_add(10_000, Ordering::Relaxed)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(test);
}

impl Bench {
    fn manager(&self, of: usize) -> Authorized<Manage> {
        self.principals[of].authorize().expect("a manager")
    }

    /// Returns a user of an organization, with a token, and the token's `jti`.
    fn user(&self, of: usize, sub: &str) -> (Arc<Principal>, String) {
        let auth = &self.worker.shared.auth;
        let new = NewToken { sub: sub.into(), ..NewToken::default() };
        let token = auth.mint_token(&self.manager(of), None, &new).expect("minted");
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", token.token.expose());
        headers.insert("authorization", HeaderValue::from_str(&bearer).expect("ascii"));
        let cx = RequestContext::of(&headers, None, &Method::GET, None, CredentialUse::Stream);
        (auth.authenticate(&auth.present(&headers, ""), &cx).expect("a principal"), token.jti)
    }

    fn mail(&self, mail: Mail) {
        self.worker.shared.mail[0].push(mail);
    }

    fn rechecked(&self) -> u64 {
        self.worker.metrics().rechecked.get()
    }

    fn is_open(&self, token: Token) -> bool {
        let state = &mut *self.worker.state.borrow_mut();
        state.connection(token).is_some_and(|connection| !connection.flags.closing)
    }

    fn organization(&self, of: usize) -> ConnectionSelector {
        ConnectionSelector {
            tenant: self.principals[of].tenant,
            id: None,
            user: None,
            key: None,
            within: Narrowing::default(),
        }
    }

    fn list(
        &self,
        selector: ConnectionSelector,
        after: Option<u64>,
        most: usize,
    ) -> oneshot::Receiver<scan_result::Found> {
        let (reply, answer) = oneshot::channel();
        self.mail(Mail::List { selector, after, most, reply });
        answer
    }

    fn idle(&self) {
        while self.turn() {}
    }
}

mod scan_result {
    pub(super) type Found = Result<Vec<super::FoundConnection>, super::connection_list::ScanQueueFull>;
}

/// A change of one user rechecks that user's connections of every kind and no others. Those of a disabled
/// user are closed, also when they only publish and when they are behind.
#[test]
fn a_change_rechecks_the_connections_it_concerns_and_no_others() {
    run(async {
        let bench = Bench::new().await;
        let auth = bench.worker.shared.auth.clone();
        let mut others: Vec<_> = (0..40).map(|of| bench.subscriber(of % 2)).collect();
        let (ann, _) = bench.user(0, "ann");
        let (bob, _) = bench.user(0, "bob");
        let (namesake, _) = bench.user(1, "ann");
        others.push(bench.connect_as(bob, Transport::Ws, None, ResolvedStart::NOW));
        others.push(bench.connect_as(namesake, Transport::Ws, Some(Filter::default()), ResolvedStart::NOW));
        let live = bench.connect_as(ann.clone(), Transport::Ws, Some(Filter::default()), ResolvedStart::NOW);
        let publisher = bench.connect_as(ann.clone(), Transport::Ws, None, ResolvedStart::NOW);
        let mut behind = bench.connect_as(ann, Transport::Sse, Some(Filter::default()), ResolvedStart::NOW);
        bench.idle();
        for _ in 0..40 {
            bench.publish(0, &"x".repeat(4_000)).await;
        }
        bench.idle();
        let is_behind = bench.worker.state.borrow_mut().connection(behind.0).map(|it| it.mode);
        assert_eq!(is_behind, Some(crate::connection::ReadMode::Behind));

        auth.set_disabled(&bench.manager(0), None, "ann", None, true).await.expect("disabled");
        bench.mail(Mail::Recheck(AuthChange::UserDisabled(bench.principals[0].tenant, "ann".into(), true)));
        bench.idle();
        assert_eq!(bench.rechecked(), 3);
        assert!([live.0, publisher.0, behind.0].into_iter().all(|token| !bench.is_open(token)));
        assert!(others.iter().all(|(token, _)| bench.is_open(*token)));
        let _ = read_bytes(&mut behind.1);
    });
}

/// Changes that come faster than the worker's turns cause one check of each connection concerned.
#[test]
fn many_changes_are_one_recheck() {
    run(async {
        let bench = Bench::new().await;
        let (ann, jti) = bench.user(0, "ann");
        let tenant = ann.tenant;
        let held: Vec<_> =
            (0..5).map(|_| bench.connect_as(ann.clone(), Transport::Ws, None, ResolvedStart::NOW)).collect();
        let (bob, _) = bench.user(0, "bob");
        let _bob = bench.connect_as(bob, Transport::Ws, None, ResolvedStart::NOW);
        bench.idle();
        let note = |change: AuthChange| bench.worker.state.borrow_mut().scans.recheck(&change);
        for disabled in [true, false].repeat(500) {
            note(AuthChange::UserDisabled(tenant, "ann".into(), disabled));
            note(AuthChange::TokensEnded(tenant, "nobody".into()));
        }
        bench.idle();
        assert_eq!(bench.rechecked(), 5);
        // A token is found among the connections of its organization.
        bench.worker.shared.auth.revoke_token(&bench.manager(0), None, &jti).await.expect("revoked");
        bench.mail(Mail::Recheck(AuthChange::TokenRevoked(tenant, jti)));
        bench.idle();
        assert_eq!(bench.rechecked(), 10);
        assert!(held.iter().all(|(token, _)| !bench.is_open(*token)));
        // With more names than are remembered, the whole organization is checked.
        (0..2_000).for_each(|n| note(AuthChange::UserDisabled(tenant, n.to_string(), true)));
        bench.idle();
        assert_eq!(bench.rechecked(), 10 + 1, "bob's; those that were closed are not looked at");
    });
}

/// One organization's scans, heartbeats and acks take one step of each turn; another one's events are
/// delivered in the next turn.
#[test]
fn a_scan_of_many_connections_takes_one_step_a_turn() {
    run(async {
        let bench = Bench::with_clock(Arc::new(Hurried::default())).await;
        let many: Vec<_> = (0..200).map(|_| bench.subscriber(0)).collect();
        let (_, mut one) = bench.subscriber(1);
        bench.idle();
        bench.mail(Mail::Recheck(AuthChange::VisibilityChanged(bench.principals[0].tenant)));
        let listed = bench.list(bench.organization(0), None, 10);
        bench.mail(Mail::Recheck(AuthChange::VisibilityChanged(bench.principals[1].tenant)));
        bench.publish(1, "for-one").await;
        bench.turn();
        assert!(read(&mut one).contains("for-one"));
        let first = bench.rechecked();
        assert!((1..=32).contains(&first), "{first} of {} in a turn", many.len());
        // The other organization's recheck comes second, however long the first one's is.
        bench.turn();
        assert!((first + 1..=first + 1 + 16).contains(&bench.rechecked()), "{}", bench.rechecked());
        bench.idle();
        assert_eq!(bench.rechecked(), 201);
        let found = listed.await.expect("answered").expect("room");
        assert!((10..20).contains(&found.len()));
    });
}

/// The heartbeats of a second are sent over the turns that follow, and each connection gets its own.
#[test]
fn the_heartbeats_of_a_tick_are_spread_over_turns() {
    run(async {
        let bench = Bench::with_clock(Arc::new(Hurried::default())).await;
        let mut many: Vec<_> = (0..300).map(|_| bench.subscriber(0)).collect();
        bench.idle();
        many.iter_mut().for_each(|(_, peer)| drop(read_bytes(peer)));
        let beats = |many: &mut Vec<(Token, UnixStream)>| {
            many.iter_mut()
                .filter(|(_, peer)| !read_bytes(&mut { peer }.try_clone().expect("cloned")).is_empty())
                .count()
        };
        let mut heartbeats = 0;
        let interval = bench.worker.keepalive_ticks(Transport::Sse);
        for _ in 0..interval {
            bench.worker.with_state(|it| it.tick());
            bench.turn();
            let now = beats(&mut many);
            assert!(now <= 1, "{now} in a turn");
            heartbeats += now;
            // Ticks that come meanwhile are not lost.
            bench.turn();
            heartbeats += beats(&mut many);
        }
        bench.idle();
        assert_eq!(heartbeats + beats(&mut many), many.len());
    });
}

/// A listing finds the lowest ids after one, only of its organization. More listings of one organization than
/// may wait are refused, unless the callers of waiting ones are gone.
#[test]
fn listings_are_bounded_for_each_organization() {
    run(async {
        let bench = Bench::with_clock(Arc::new(Hurried::default())).await;
        let of_a: Vec<_> = (0..100).map(|_| bench.subscriber(0)).collect();
        let _of_b: Vec<_> = (0..10).map(|_| bench.subscriber(1)).collect();
        bench.idle();
        let mut ids: Vec<u64> = of_a
            .iter()
            .map(|(token, _)| bench.worker.state.borrow_mut().connection(*token).expect("alive").id)
            .collect();
        ids.sort_unstable();
        let answer = bench.list(bench.organization(0), Some(ids[9]), 20);
        bench.idle();
        let mut found: Vec<FoundConnection> = answer.await.expect("answered").expect("room");
        found.sort_unstable();
        assert_eq!(found.iter().map(|found| found.id).take(20).collect::<Vec<_>>(), ids[10..30]);
        let (reply, described) = oneshot::channel();
        let tenant = bench.principals[0].tenant;
        bench.mail(Mail::Describe { tenant, found: found[..3].to_vec(), reply });
        bench.idle();
        let described: Vec<ConnectionInfo> = described.await.expect("answered").expect("room");
        assert_eq!(described.len(), 3);

        let replies: Vec<_> =
            (0..connection_list::WAITING + 10).map(|_| bench.list(bench.organization(0), None, 1)).collect();
        let others = bench.list(bench.organization(1), None, 1);
        let waits = || bench.worker.state.borrow().scans.len_of(bench.principals[0].tenant);
        while !bench.worker.state.borrow().mail.is_empty() || waits() == 0 {
            bench.turn();
        }
        assert!(waits() <= connection_list::WAITING);
        drop(replies);
        let again = bench.list(bench.organization(0), None, 1);
        bench.idle();
        assert!(others.await.expect("answered").is_ok());
        assert!(again.await.expect("answered").is_ok());
    });
}

/// A connection that is adopted after the drain began is closed with a reason, after its response head.
#[test]
fn a_connection_adopted_during_the_drain_is_closed() {
    run(async {
        let bench = Bench::new().await;
        let (_, mut before) = bench.connect(0, Transport::Ws);
        bench.idle();
        bench.mail(Mail::Drain { seconds: 0 });
        bench.idle();
        let restart = [0x03, 0xf4];
        let closes = |bytes: &[u8]| bytes.windows(2).any(|pair| pair == restart);
        assert!(closes(&read_bytes(&mut before)));
        let (_, mut ws) = bench.connect(0, Transport::Ws);
        let (_, mut publisher) = bench.connect_with(0, Transport::Ws, None);
        let (_, mut sse) = bench.connect(0, Transport::Sse);
        bench.idle();
        assert!(closes(&read_bytes(&mut ws)) && closes(&read_bytes(&mut publisher)));
        assert!(read(&mut sse).contains("event: closing"));
        // And as a body of HTTP/2.
        let body = bench.worker.adopt_body(bench.adopt(0, Transport::SseH2));
        let mut text = Vec::new();
        while let Some(chunk) = std::future::poll_fn(|cx| body.poll(cx)).await {
            text.extend_from_slice(&chunk);
        }
        assert!(String::from_utf8_lossy(&text).contains("event: closing"));
    });
}

/// A credential that ended between its request and its adoption is noticed at adoption, because no later
/// change would report it.
#[test]
fn a_connection_revoked_before_it_is_adopted_is_closed() {
    run(async {
        let bench = Bench::new().await;
        let (ann, _) = bench.user(0, "ann");
        let auth = bench.worker.shared.auth.clone();
        auth.set_disabled(&bench.manager(0), None, "ann", None, true).await.expect("disabled");
        let (publisher, _end) = bench.connect_as(ann.clone(), Transport::Ws, None, ResolvedStart::NOW);
        let (subscriber, mut end) =
            bench.connect_as(ann, Transport::Sse, Some(Filter::default()), ResolvedStart::NOW);
        bench.idle();
        assert!(!bench.is_open(publisher) && !bench.is_open(subscriber));
        assert!(read(&mut end).contains("event: closing"));
    });
}

/// The index removes every connection that ends, and finds a connection that renewed with another key by that
/// key.
#[test]
fn the_index_follows_connections_as_they_come_and_go() {
    run(async {
        let bench = Bench::new().await;
        let (ann, _) = bench.user(0, "ann");
        let tenant = ann.tenant;
        let held: Vec<_> = (0..3)
            .map(|_| bench.connect_as(ann.clone(), Transport::Ws, None, ResolvedStart::NOW))
            .chain([bench.subscriber(0)])
            .collect();
        bench.idle();
        let count = |owner: connection_index::Owner<'_>| {
            let state = bench.worker.state.borrow();
            let tag = state.index.tag(owner);
            let (mut count, mut from) = (0, 0);
            while let Some(slot) = state.index.next(tag, from) {
                (count, from) = (count + 1, slot + 1);
            }
            count
        };
        let owners =
            [connection_index::Owner::Organization(tenant), connection_index::Owner::User(tenant, "ann")];
        assert_eq!(owners.map(count), [4, 3]);
        for (token, _) in &held {
            bench.worker.with_state(|it| it.drop_connection(*token, CloseReason::Peer));
        }
        assert_eq!(owners.map(count), [0, 0]);
    });
}

/// A WebSocket that sends thousands of subscriptions at once gets one of them handled per turn. Another
/// organization's events are delivered meanwhile, and every subscription is answered in the end.
#[test]
fn many_subscribe_frames_of_one_connection_take_one_step_a_turn() {
    const SUBSCRIPTIONS: usize = 40;
    run(async {
        let bench = Bench::with_clock(Arc::new(Hurried::default())).await;
        let (_, mut flood) = bench.connect(0, Transport::Ws);
        let (_, mut one) = bench.subscriber(1);
        bench.idle();
        let _ready = (read_bytes(&mut flood), read_bytes(&mut one));
        let text = br#"{"type":"subscribe"}"#;
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text);
        flood.write_all(&frame.repeat(SUBSCRIPTIONS)).expect("sent");
        bench.publish(1, "for-one").await;
        bench.turn();
        assert!(read(&mut one).contains("for-one"));
        let count = |bytes: &[u8]| bytes.windows(14).filter(|part| part == br#""type":"ready""#).count();
        let first = count(&read_bytes(&mut flood));
        assert!(first <= 2, "{first} in a turn");
        let mut answered = first;
        while bench.turn() {
            answered += count(&read_bytes(&mut flood));
        }
        assert_eq!(answered + count(&read_bytes(&mut flood)), SUBSCRIPTIONS);
    });
}

/// Connections of one organization that have work left do not delay another organization's.
#[test]
fn connections_with_work_left_take_turns_by_organization() {
    run(async {
        let bench = Bench::with_clock(Arc::new(Hurried::default())).await;
        let many: Vec<_> = (0..50).map(|_| bench.subscriber(0)).collect();
        let (one, _end) = bench.subscriber(1);
        bench.idle();
        let state = &mut *bench.worker.state.borrow_mut();
        many.iter().map(|(token, _)| token).chain([&one]).for_each(|token| state.run(*token));
        let order: Vec<_> = std::iter::from_fn(|| state.run.pop()).map(|(_, token)| token).collect();
        assert_eq!(order[1], one);
    });
}

/// Frames of a batch are marked over several turns if the audience is large. A subscriber that changes its
/// subscription meanwhile loses nothing and gets nothing twice, and neither do the others.
#[test]
fn a_subscription_that_changes_while_a_batch_is_marked_loses_nothing() {
    const EVENTS: usize = 8;
    run(async {
        let bench = Bench::new().await;
        let (changing, mut peer) = bench.connect(0, Transport::Ws);
        let (_, mut other) = bench.connect(0, Transport::Ws);
        bench.idle();
        for event in 0..EVENTS {
            bench.publish(0, &format!("<{event}>")).await;
        }
        let mut marked = Vec::new();
        bench.worker.with_state(|it| {
            let view = it.state.by_tenant[&bench.principals[0].tenant];
            let mut batch = it.take_batch(view).expect("new events");
            assert_eq!(batch.frames.len(), EVENTS);
            for part in [3, EVENTS] {
                // Splits the batch as a step does that has room for only some frames.
                let rest = batch.frames.split_off(part);
                it.mark_step(view, &mut batch);
                batch.frames.extend(rest);
                marked.push(batch.marked);
                it.state.views[view as usize].batch = Some(batch);
                let filter = Filter::from_query(&[("types", "custom")]).expect("a filter");
                it.subscribe(changing, filter, None, None);
                batch = it.state.views[view as usize].batch.take().expect("kept");
            }
            it.state.views[view as usize].batch = Some(batch);
            it.state.queue_view(view);
        });
        assert_eq!(marked, [3, EVENTS]);
        bench.idle();
        for peer in [&mut peer, &mut other] {
            let bytes = read_bytes(peer);
            let text = String::from_utf8_lossy(&bytes);
            let seen: Vec<_> = (0..EVENTS).map(|event| text.matches(&format!("<{event}>")).count()).collect();
            assert_eq!(seen, [1; EVENTS], "{text}");
        }
    });
}

/// However often a connection's deadline moves, it has few entries in the wheel.
#[test]
fn a_deadline_that_moves_often_leaves_few_wheel_entries() {
    run(async {
        let bench = Bench::new().await;
        let (token, _peer) = bench.connect(0, Transport::Ws);
        bench.idle();
        let before = bench.worker.state.borrow().wheel.entries();
        for ticks in (1..60).rev().chain(1..60).cycle().take(10_000) {
            bench.worker.with_state(|it| it.schedule_within(token, ticks));
        }
        let state = &mut *bench.worker.state.borrow_mut();
        assert!(state.wheel.entries() <= before + 60, "{}", state.wheel.entries());
        // The earliest entry is the valid one.
        let at = state.connection(token).expect("alive").wheel_tick;
        assert_eq!(at, state.wheel.now() + 1);
    });
}
