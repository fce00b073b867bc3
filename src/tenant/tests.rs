//! Tests tenants with a real store and a clock that only the tests move.

use super::admission::{AckMode, PublishKind, PublishRequest, Published};
use super::publish::{CommitWaiter, PublishError};
use super::rate::RateCharge;
use super::*;
use crate::auth::Actor;
use crate::event::Event;
use crate::store::{CommitCallback, CommitError, Disk, Io, LogRead, Rows, StoreOptions, Table};
use crate::sync::Condvar;
use crate::time::ManualClock;

mod stream_model;
mod streams;
mod tables;

const ID: TenantId = TenantId(7);

fn tenants(dir: &std::path::Path) -> (Arc<Tenants>, Arc<ManualClock>) {
    tenants_on(dir, Arc::new(Disk))
}

fn tenants_on(dir: &std::path::Path, io: Arc<dyn Io>) -> (Arc<Tenants>, Arc<ManualClock>) {
    let mut options = StoreOptions::new(dir);
    options.reserve_bytes = 0;
    options.io = io;
    let store = Store::open(options).expect("a store");
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let limits = Limits {
        ring_slots: 64,
        ring_bytes: 1 << 20,
        ring_bytes_total: 1 << 20,
        event_bytes: 65_536,
        rates: RateLimits::default(),
        streams: crate::tenant::StreamLimits::default(),
    };
    let (pins, _) = Pins::new(1);
    let metrics = Arc::new(Metrics::new(1));
    (Tenants::new(store, pins, Arc::new([]), clock.clone(), metrics, limits), clock)
}

/// Is notified of a commit through a channel.
struct ChannelWaiter;

impl CommitWaiter for ChannelWaiter {
    type Wait = std::pin::Pin<Box<dyn Future<Output = Result<(), CommitError>>>>;

    fn register(&self) -> (CommitCallback, Self::Wait) {
        let (done, committed) = CommitCallback::channel();
        (done, Box::pin(async { committed.await.unwrap_or(Err(CommitError::Unavailable)) }))
    }
}

const DURABLE: PublishKind = PublishKind::Events { key: None, ack: AckMode::Durable };
const MEMORY: PublishKind = PublishKind::Events { key: None, ack: AckMode::Memory };

fn custom(text: &str) -> String {
    format!(r#"{{"type":"custom","channel":"c","data":"{text}"}}"#)
}

/// The daemon publishes one event.
async fn publish_json(
    tenants: &Arc<Tenants>,
    tenant: TenantId,
    json: &str,
    kind: PublishKind,
) -> Result<Published, PublishError> {
    let events = tenants.internal_draft(RateCharge::DUE, &[Event::parse(json).expect("valid")]);
    let request = PublishRequest { actor: Actor::daemon(), tenant, events, kind };
    tenants.publish(request, &ChannelWaiter).await
}

/// Returns the sequence of the one event that was published.
fn sequence(tenants: &Tenants, tenant: TenantId, published: &Published) -> Sequence {
    let [id] = published.ids[..] else { panic!("one event") };
    tenants.cursors().decode(tenant, &id.0).expect("an id")
}

async fn publish(tenants: &Arc<Tenants>, tenant: &Arc<Tenant>, text: &str) -> Sequence {
    let published = publish_json(tenants, tenant.id(), &custom(text), DURABLE).await.expect("published");
    sequence(tenants, tenant.id(), &published)
}

/// Sweeps until all tenants are removed. The committer drops a batch a moment after it has notified of the
/// commit.
async fn swept(tenants: &Tenants) {
    while !tenants.is_empty() {
        tenants.release_idle();
        tokio::task::yield_now().await;
    }
}

/// One organization publishes so much that all rings exceed their limit. The small ring of another keeps its
/// events.
#[tokio::test]
async fn a_small_ring_does_not_pay_for_a_large_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tenants, _) = tenants(dir.path());
    let large = tenants.open(TenantId(8)).await.expect("opened");
    let small = tenants.open(ID).await.expect("opened");
    let (long, short) = ("x".repeat(60_000), "y".repeat(1_000));
    while tenants.ring_bytes() + 62_000 < 1 << 20 {
        publish(&tenants, &large, &long).await;
    }
    let mut kept = 0;
    for _ in 0..60 {
        publish(&tenants, &small, &short).await;
        let bytes = small.write.lock().ring.bytes();
        assert!(bytes > kept, "{bytes} after {kept} bytes");
        kept = bytes;
    }
    assert!(tenants.ring_bytes() > 1 << 20, "the small one has brought all over the cap");
    publish(&tenants, &large, &long).await;
    assert!(tenants.ring_bytes() < 1 << 20, "and the large one pays");
}

/// A quiet organization that nothing refers to takes no memory. When it is opened again, everything is there,
/// and sequences continue above the old ones.
#[tokio::test]
async fn a_quiet_tenant_is_forgotten_and_goes_on_from_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tenants, clock) = tenants(dir.path());
    let tenant = tenants.open(ID).await.expect("open");
    let first = publish(&tenants, &tenant, "one").await;
    let second = publish(&tenants, &tenant, "two").await;
    let position = tenant.last_visible();

    tenants.release_idle();
    assert!(tenant.ring().head() > second.0 && tenants.len() == 1, "not quiet yet");
    clock.advance(QUIET_MS);
    tenants.release_idle();
    assert_eq!((tenants.len(), tenants.ring_bytes()), (1, 0), "something refers to it");
    drop(tenant);
    swept(&tenants).await;
    assert!(tenants.get(ID).is_none());
    assert!(tenants.store().loaded_log(ID).is_none());

    let tenant = tenants.open(ID).await.expect("open again");
    assert!(tenant.last_visible() >= position, "a position that was published stays valid");
    assert!(tenant.replaying(first) >= 1 && tenant.replaying(position) == 0);
    let third = publish(&tenants, &tenant, "three").await;
    assert!(third > tenant.log().oldest() && third > position);
    let LogRead::Page(page) = tenants.store().read_log(tenant.log(), first).await.expect("read") else {
        panic!("two events follow the first")
    };
    let seen: Vec<Sequence> =
        page.frames().iter().map(|frame| frame.sequence()).filter(|s| *s > first).collect();
    assert_eq!(seen[0], second);
    let after = tenants.store().read_log(tenant.log(), second).await.expect("read");
    assert!(
        matches!(after, LogRead::Page(page) if page.frames().iter().any(|frame| frame.sequence() == third))
    );
}

/// A tenant with frames that are not committed, or that is not quiet yet, is never removed.
#[tokio::test]
async fn a_tenant_with_a_ring_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tenants, clock) = tenants(dir.path());
    let tenant = tenants.open(ID).await.expect("open");
    publish(&tenants, &tenant, "one").await;
    drop(tenant);
    clock.advance(QUIET_MS - 1);
    tenants.release_idle();
    assert_eq!(tenants.len(), 1);
    clock.advance(1);
    swept(&tenants).await;
}

/// A disk whose syncs wait while the gate is closed.
#[derive(Debug, Default)]
struct Gate {
    /// Whether the gate is closed, and whether a sync waits.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().0 = closed;
        self.changed.notify_all();
    }

    /// Returns when a commit waits for its sync.
    fn waits(&self) {
        let mut state = self.state.lock();
        while !state.1 {
            state = self.changed.wait(state);
        }
    }
}

impl Io for Gate {
    fn sync(&self, file: &std::fs::File) -> std::io::Result<()> {
        let mut state = self.state.lock();
        while state.0 {
            state.1 = true;
            self.changed.notify_all();
            state = self.changed.wait(state);
        }
        state.1 = false;
        drop(state);
        file.sync_data()
    }
}

/// Neither the event of a change nor later events are visible before the change and its row are on disk.
#[tokio::test]
async fn a_change_is_seen_when_it_is_on_disk_and_not_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let (tenants, _) = tenants_on(dir.path(), gate.clone());
    let tenant = tenants.open(ID).await.expect("open");
    gate.set(true);
    let before = tenant.last_visible();
    let mut rows = Rows::new();
    rows.put_row(ID, Table::Agents, "a", b"row").expect("fits");
    let event = custom("change");
    let mut change = Box::pin(publish_json(&tenants, ID, &event, PublishKind::Change(rows)));
    assert!(futures_util::FutureExt::now_or_never(change.as_mut()).is_none());
    let after = publish_json(&tenants, ID, &custom("after"), MEMORY).await.expect("published");
    let after = sequence(&tenants, ID, &after);
    assert!(after > before.next(), "both have a sequence");
    assert_eq!(tenant.last_visible(), before, "and neither is visible");
    gate.set(false);
    change.await.expect("committed");
    assert_eq!(tenant.last_visible(), after);
    assert_eq!(tenants.store().row(ID, Table::Agents, "a").await.expect("read"), Some(b"row".to_vec()));
}

/// A request that is cancelled while it waits for a key leaves no entry behind, whether the holder ends
/// before or after it.
#[tokio::test]
async fn a_waiter_that_gives_up_leaves_no_key_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tenants, _) = tenants(dir.path());
    for holder_first in [true, false] {
        let held = tenants.lock_keys(ID, vec![[1; 32], [2; 32]]).await;
        let mut waiter = Box::pin(tenants.lock_keys(ID, vec![[0; 32], [2; 32]]));
        assert!(futures_util::FutureExt::now_or_never(waiter.as_mut()).is_none());
        assert_eq!(tenants.key_locks.len(), 3);
        if holder_first {
            drop(held);
            drop(waiter);
        } else {
            drop(waiter);
            drop(held);
        }
        assert_eq!(tenants.key_locks.len(), 0, "the holder first: {holder_first}");
    }
}

/// An event published behind a hidden change has its id at once (`ack=memory`), before it is visible.
/// Resuming from that id is no gap, and nothing up to it is read again.
#[tokio::test]
async fn an_id_above_a_held_frame_is_a_position_to_resume_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let (tenants, _) = tenants_on(dir.path(), gate.clone());
    let tenant = tenants.open(ID).await.expect("open");
    gate.set(true);
    let mut rows = Rows::new();
    rows.put_row(ID, Table::Agents, "a", b"row").expect("fits");
    let event = custom("change");
    let mut change = Box::pin(publish_json(&tenants, ID, &event, PublishKind::Change(rows)));
    assert!(futures_util::FutureExt::now_or_never(change.as_mut()).is_none());
    let id = publish_json(&tenants, ID, &custom("after"), MEMORY).await.expect("published");
    let id = sequence(&tenants, ID, &id);
    assert!(tenant.last_visible() < id, "it is not visible yet");
    let from = |position| {
        let text = tenants.cursors().encode(ID, position).as_str().into();
        start::resolve_now(&tenants.cursors(), &tenant, &start::StartPosition::Cursor(text))
            .expect("without reading")
    };
    let resumed = start::ResolvedStart { position: Some(id), gap: None, resumed: true, requested: true };
    assert_eq!(from(id), resumed);
    let unknown = from(id.next()).gap.expect("a gap");
    assert_eq!(unknown.reason, crate::frame::control::GapReason::UnknownCursor, "that id was never issued");
    gate.set(false);
    change.await.expect("committed");
    assert_eq!((from(id), tenant.last_visible()), (resumed, id));
}

/// A change in the name of a user, queued behind that user's deletion, is refused and its event never becomes
/// visible. The other changes continue.
#[tokio::test]
async fn a_change_behind_its_users_deletion_is_refused_unseen() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let (tenants, _) = tenants_on(dir.path(), gate.clone());
    let tenant = tenants.open(ID).await.expect("open");
    let message =
        |user: &str| format!(r#"{{"type":"message","agent_id":"a","user_id":"{user}","content":"c"}}"#);
    let row = |id: &str, user: &str| {
        let mut rows = Rows::new();
        rows.put_row(ID, Table::Agents, id, b"row").expect("fits");
        rows.in_name_of(ID, user);
        rows
    };
    gate.set(true);
    let (anns, bobs) = (message("ann"), message("bob"));
    let mut before = Box::pin(publish_json(&tenants, ID, &anns, DURABLE));
    assert!(futures_util::FutureExt::now_or_never(before.as_mut()).is_none());
    gate.waits(); // what is published from now on is queued and goes into one commit
    let mut deletion = Rows::new();
    deletion.erase_user(ID, "ann").expect("short");
    let mut deletion = Box::pin(tenants.store().write(deletion));
    assert!(futures_util::FutureExt::now_or_never(deletion.as_mut()).is_none());
    let mut changes: Vec<_> =
        [("a", "bob", &bobs), ("b", "ann", &anns), ("c", "bob", &bobs), ("d", "ann", &anns)]
            .map(|(id, user, event)| {
                let change = PublishKind::Change(row(id, user));
                Box::pin(publish_json(&tenants, ID, event, change))
            })
            .into();
    for change in &mut changes {
        assert!(futures_util::FutureExt::now_or_never(change.as_mut()).is_none());
    }
    gate.set(false);
    let first = sequence(&tenants, ID, &before.await.expect("committed"));
    deletion.await.expect("deleted");
    for (at, change) in changes.into_iter().enumerate() {
        let refused = matches!(change.await, Err(PublishError::Commit(CommitError::Deleted)));
        assert_eq!(refused, at % 2 == 1, "change {at}");
    }
    for id in ["a", "b", "c", "d"] {
        let row = tenants.store().row(ID, Table::Agents, id).await.expect("read");
        assert_eq!(row.is_some(), ["a", "c"].contains(&id), "row {id}");
    }
    // From now on such an event does not even get a sequence. The ring has all events after the last refused
    // one, which is none.
    let late = publish_json(&tenants, ID, &anns, MEMORY).await;
    assert!(matches!(late, Err(PublishError::Commit(CommitError::Deleted))));
    assert_eq!((tenant.last_visible(), tenant.ring().tail()), (Sequence(first.0 + 4), first.0 + 5));
    while let LogRead::Page(page) =
        tenants.store().read_log(tenant.log(), Sequence::ZERO).await.expect("read")
    {
        let users: Vec<_> =
            page.frames().iter().filter_map(|frame| frame.key(crate::frame::RoutingKey::User)).collect();
        if users == ["bob", "bob"] {
            break; // the user's first event is erased after a while
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(tenants.ring_bytes(), 0);
}

/// A deleted organization accepts nothing any more, and is removed from memory like any other quiet one.
#[tokio::test]
async fn a_deleted_organization_takes_nothing_and_is_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tenants, clock) = tenants(dir.path());
    let tenant = tenants.open(ID).await.expect("open");
    publish(&tenants, &tenant, "one").await;
    let mut rows = Rows::new();
    rows.erase_tenant(ID);
    tenants.store().write(rows).await.expect("written");
    let refused = |result: Result<Published, PublishError>| {
        assert!(matches!(result, Err(PublishError::Commit(CommitError::Deleted))), "{result:?}");
    };
    refused(publish_json(&tenants, ID, &custom("two"), MEMORY).await);
    let mut rows = Rows::new();
    rows.put_row(ID, Table::Agents, "a", b"row").expect("fits");
    let events = tenants.internal_draft(RateCharge::DUE, &[]);
    let without_events =
        PublishRequest { actor: Actor::daemon(), tenant: ID, events, kind: PublishKind::Change(rows) };
    refused(tenants.publish(without_events, &ChannelWaiter).await);
    drop(tenant);
    // a request that has passed all checks before the deletion
    let late = tenants.open(ID).await.expect("open");
    refused(publish_json(&tenants, ID, &custom("three"), DURABLE).await);
    drop(late);
    clock.advance(QUIET_MS);
    swept(&tenants).await;
    assert!(tenants.store().loaded_log(ID).is_none());
}

/// A repeat with the same key waits for the commit of the first request, even if that request was cancelled
/// (connection closed, timeout).
#[tokio::test]
async fn what_is_given_up_amid_its_commit_is_not_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Gate::default());
    let (tenants, _) = tenants_on(dir.path(), gate.clone());
    let tenant = tenants.open(ID).await.expect("open");
    let key = idempotency::DedupKey { digest: [1; 32], body: [2; 32] };
    let event = custom("once");
    let ask = || async {
        let kind = PublishKind::Events { key: Some(key), ack: AckMode::Durable };
        publish_json(&tenants, ID, &event, kind).await.expect("published")
    };
    gate.set(true);
    let mut earlier = Box::pin(publish_json(&tenants, ID, &event, DURABLE));
    assert!(futures_util::FutureExt::now_or_never(earlier.as_mut()).is_none());
    gate.waits(); // what is published from now on is not even written
    let before = tenant.last_visible();
    let mut first = Box::pin(ask());
    while tenant.last_visible() == before {
        assert!(futures_util::FutureExt::now_or_never(first.as_mut()).is_none());
        tokio::task::yield_now().await; // the lookup of the key runs on a reader thread
    }
    drop(first);
    let mut again = Box::pin(ask());
    for _ in 0..1_000 {
        assert!(futures_util::FutureExt::now_or_never(again.as_mut()).is_none());
        tokio::task::yield_now().await;
    }
    gate.set(false);
    let answer = again.await;
    assert!(answer.replayed);
    let id = tenants.cursors().encode(ID, before.next());
    assert_eq!((answer.ids.as_slice(), tenant.last_visible()), ([id].as_slice(), before.next()));
}
