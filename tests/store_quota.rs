//! The usage that the store reports for an organization matches its rows, whatever was written and however it
//! ended.

#![allow(clippy::expect_used, clippy::panic)] // a test ends where its world does not hold

#[allow(dead_code, reason = "each test program uses its part of the harness")]
#[path = "store/harness.rs"]
mod harness;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use harness::{T1, T2, publish};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{
    DAY_MS, Document, Durability, Group, Growth, IdempotencyRecord, List, ListEntry, MessageIdRecord,
    OverQuota, PostingPayload, PriorValue, Rows, Store, StoredResponse, Table, TokensValidSince, Usage,
};
use nervewire::time::{Clock, ManualClock};
use proptest::prelude::*;

const TABLE: Table = Table::Memories;

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Store {
    let clock = clock.clone();
    Store::open(harness::with(dir, |options| {
        (options.durability, options.clock) = (Durability::Memory, clock);
    }))
    .expect("the store opens")
}

/// Checks that the reported usage of each organization equals the counted one.
fn is_exact(store: &Store) -> HashMap<TenantId, Usage> {
    let counted = store.counted_usage_blocking().expect("counted");
    for tenant in [T1, T2] {
        assert_eq!(store.usage(tenant), counted.get(&tenant).copied().unwrap_or_default(), "{tenant:?}");
    }
    let totals = store.quota_totals();
    assert_eq!(totals.rows, counted.values().map(|usage| usage.rows).sum::<u64>());
    assert_eq!(totals.bytes, counted.values().map(|usage| usage.bytes).sum::<u64>());
    counted
}

/// One operation in a commit.
#[derive(Clone, Debug)]
enum Step {
    /// Writes or replaces a row of this size, with its list index entries and a term.
    Row(TenantId, u8, usize),
    Delete(TenantId, u8),
    Key(TenantId, u8, usize),
    MessageId(TenantId, u8),
    Since(TenantId, u8),
    EndSince(TenantId, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let tenant = || prop_oneof![Just(T1), Just(T2)];
    prop_oneof![
        4 => (tenant(), 0u8..12, 0usize..3_000).prop_map(|(t, id, len)| Step::Row(t, id, len)),
        3 => (tenant(), 0u8..12).prop_map(|(t, id)| Step::Delete(t, id)),
        1 => (tenant(), 0u8..4, 0usize..500).prop_map(|(t, id, len)| Step::Key(t, id, len)),
        1 => (tenant(), 0u8..4).prop_map(|(t, id)| Step::MessageId(t, id)),
        1 => (tenant(), 0u8..4).prop_map(|(t, id)| Step::Since(t, id)),
        1 => (tenant(), 0u8..4).prop_map(|(t, id)| Step::EndSince(t, id)),
    ]
}

/// What happens between two commits.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Reopen,
    Day,
}

/// The existing rows and their sizes in bytes.
type Model = BTreeMap<(TenantId, u8), usize>;

fn places(id: u8) -> [ListEntry; 2] {
    let number = 4_096 + u64::from(id) * 700; // several per span
    [List::AllMessages, List::MessagesOfAgent]
        .map(|list| ListEntry { group: Group::new(list, &["group"]), number })
}

fn rows_of(step: &Step, model: &mut Model, now_ms: u64) -> Rows {
    let mut rows = Rows::new();
    let mark = PostingPayload { kind: 1, count: 1, length: 1, weight: 0.5 };
    let document = |id: u8| -> Document { [id; 16] };
    let id = |id: u8| format!("row-{id}");
    let group = Group::new(List::AllMemories, &["words"]);
    match *step {
        Step::Row(tenant, n, len) => match model.insert((tenant, n), len) {
            Some(old) => rows.replace_row(tenant, TABLE, &id(n), &vec![7; len], old).expect("short"),
            None => {
                rows.create_row(tenant, TABLE, &id(n), &vec![7; len]).expect("short");
                for place in places(n) {
                    rows.put_list_entry(tenant, &place, &id(n)).expect("short");
                }
                rows.put_term(tenant, group, "word", &document(n), &mark, PriorValue::Nothing)
                    .expect("short");
                // Added twice in one commit.
                rows.put_term(tenant, group, "word", &document(n), &mark, PriorValue::Unknown)
                    .expect("short");
            }
        },
        Step::Delete(tenant, n) => {
            // Rows that do not exist are deleted too.
            model.remove(&(tenant, n));
            rows.delete_row(tenant, TABLE, &id(n));
            for place in places(n) {
                rows.delete_list_entry(tenant, &place, &id(n));
            }
            rows.delete_term(tenant, group, "word", &document(n));
        }
        Step::Key(tenant, n, len) => {
            let answer = StoredResponse::Stored { status: 201, version: None, body: vec![1; len] };
            let row = IdempotencyRecord { body: [0; 32], answer, created_ms: now_ms };
            rows.put_idempotency(tenant, &[n; 32], &row).expect("short");
        }
        Step::MessageId(tenant, n) => {
            let row = MessageIdRecord { body: [0; 32], sequence: Sequence(1), created_ms: now_ms };
            rows.put_message_id(tenant, &[n; 32], &row).expect("short");
        }
        Step::Since(tenant, n) => {
            let row = TokensValidSince { tenant, sub: id(n), since_ms: now_ms };
            rows.put_user_since(&row).expect("short");
        }
        Step::EndSince(tenant, n) => rows.delete_user_since(tenant, &id(n)),
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn usage_equals_a_full_count_after_every_commit(
        commits in prop::collection::vec(
            (
                prop::collection::vec(any_step(), 1..12),
                prop_oneof![6 => Just(Between::Nothing), 1 => Just(Between::Reopen), 1 => Just(Between::Day)],
            ),
            1..10,
        ),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_000_000));
        let mut store = open(dir.path(), &clock);
        let mut model = Model::new();
        for (steps, between) in commits {
            let mut all = Rows::new();
            for step in &steps {
                all.extend(rows_of(step, &mut model, clock.now_ms()));
            }
            store.write_blocking(all).expect("written");
            match between {
                Between::Nothing => {}
                Between::Reopen => {
                    store.close_blocking();
                    drop(store);
                    store = open(dir.path(), &clock);
                }
                Between::Day => {
                    clock.advance(DAY_MS + 1);
                    let none_left = |store: &Store| {
                        [T1, T2].iter().all(|tenant| store.usage(*tenant).idempotency_rows == 0)
                    };
                    // Collected between commits.
                    for _ in 0..2_000 {
                        if none_left(&store) {
                            break;
                        }
                        store.write_blocking(Rows::new()).expect("written");
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    prop_assert!(none_left(&store));
                }
            }
            is_exact(&store);
            for tenant in [T1, T2] {
                let rows = model.keys().filter(|(whose, _)| *whose == tenant).count() as u64;
                prop_assert_eq!(store.usage(tenant).rows, rows);
            }
        }
        for tenant in [T1, T2] {
            let mut rows = Rows::new();
            rows.erase_tenant(tenant);
            store.write_blocking(rows).expect("written");
        }
        for _ in 0..2_000 {
            if [T1, T2].iter().all(|tenant| store.usage(*tenant) == Usage::default()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        prop_assert_eq!(is_exact(&store), HashMap::new());
    }
}

/// A store written before usage was counted: its rows exist, but no usage row does.
#[test]
fn a_store_without_counters_is_counted_at_its_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let store = open(dir.path(), &clock);
    let mut model = Model::new();
    for n in 0..10 {
        store.write_blocking(rows_of(&Step::Row(T1, n, 100), &mut model, 0)).expect("written");
    }
    let before = is_exact(&store);
    store.close_blocking();
    drop(store);
    {
        let db =
            sled::Config::new().path(dir.path().join("log")).segment_size(8 << 20).open().expect("opened");
        for kind_of_usage in db.scan_prefix([18]).keys() {
            db.remove(kind_of_usage.expect("a key")).expect("removed");
        }
        let mark: Vec<u8> = [&[0; 9][..], &[4]].concat();
        assert!(db.remove(mark).expect("removed").is_some(), "the mark of a counted store");
        db.flush().expect("flushed");
    }
    let store = open(dir.path(), &clock);
    assert_eq!(is_exact(&store), before);
}

/// Sixteen concurrent changes where five fit.
#[test]
fn concurrent_changes_do_not_exceed_a_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(harness::with(dir.path(), |options| {
        (options.rows_per_organization, options.bytes_per_organization) = (5, 1 << 20);
    }))
    .expect("open");
    let one = Growth { rows: 1, bytes: 100 };
    let mut held: Vec<_> = (0..16).map(|_| store.reserve(T1, one)).collect();
    assert_eq!(held.iter().filter(|room| room.is_ok()).count(), 5);
    let full = OverQuota { limit: "limits.rows_per_organization", max: 5, used: 5 };
    assert_eq!(held[15].as_ref().err(), Some(&full));
    assert!(store.reserve(T1, Growth { rows: -1, bytes: -100 }).is_ok_and(|room| room.is_none()));
    assert!(store.reserve(T2, one).is_ok(), "another organization has room of its own");
    held.clear();
    assert_eq!(store.usage(T1), Usage::default());
    let large = store.reserve(T1, Growth { rows: 1, bytes: 2 << 20 });
    let full = OverQuota { limit: "limits.bytes_per_organization", max: 1 << 20, used: 0 };
    assert_eq!(large.err(), Some(full));
    assert_eq!(store.quota_totals().refused, 12);
}

#[test]
fn an_organization_may_fill_half_and_others_keep_their_shares() {
    let dir = tempfile::tempdir().expect("a directory");
    let store =
        Store::open(harness::with(dir.path(), |options| options.max_live_bytes = 8 << 20)).expect("open");
    let piece = Growth { rows: 1, bytes: 64 << 10 };
    let mut loud: Vec<_> = std::iter::from_fn(|| store.reserve(T1, piece).ok()).collect();
    assert_eq!(loud.len(), (4 << 20) / (64 << 10), "half of all, alone");
    let quiet: Vec<_> = std::iter::from_fn(|| store.reserve(T2, piece).ok()).collect();
    assert_eq!(quiet.len(), (2 << 20) / (64 << 10), "an equal part of that half, of two");
    loud.pop();
    let full = OverQuota { limit: "store.max_live_bytes", max: 2 << 20, used: (4 << 20) - (64 << 10) };
    assert_eq!(store.reserve(T1, piece).err(), Some(full), "room that another freed is not the largest's");
}

/// One organization's rows use all the room. No other loses events, and it keeps some of its own.
#[tokio::test]
async fn an_organization_within_its_share_is_not_trimmed_for_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let store =
        Store::open(harness::with(dir.path(), |options| options.max_live_bytes = 400_000)).expect("open");
    publish(&store, T2, 100, 1_000).await; // about 110 KB, and its share is 200 KB
    publish(&store, T1, 100, 1_000).await;
    let mut rows = Rows::new();
    for n in 0..8 {
        rows.create_row(T1, TABLE, &n.to_string(), &[7; 60_000]).expect("short");
    }
    store.write(rows).await.expect("written"); // more than would be admitted
    let (large, small) = (store.log(T1).await.expect("a log"), store.log(T2).await.expect("a log"));
    harness::until(|| (large.events() == 0).then_some(())).await;
    for _ in 0..20 {
        publish(&store, T1, 10, 1_000).await;
    }
    assert_eq!((small.events(), small.oldest()), (100, Sequence::ZERO));
}

/// With a limit of its own, an organization's events make room for its rows, down to a sixteenth.
#[tokio::test]
async fn events_are_trimmed_for_rows_of_the_same_organization() {
    let dir = tempfile::tempdir().expect("a directory");
    let limit = 1 << 20;
    let opened = Store::open(harness::with(dir.path(), |options| options.bytes_per_organization = limit));
    let store = opened.expect("open");
    for _ in 0..25 {
        publish(&store, T1, 50, 1_000).await;
        publish(&store, T2, 1, 1_000).await;
    }
    let log = store.log(T1).await.expect("a log");
    let most = |bytes: u64| bytes + 72 * 1_024; // one stored value more than the limit stays
    harness::until(|| (log.bytes() <= most(limit)).then_some(())).await;
    assert!(log.bytes() >= limit, "{}", log.bytes());
    let mut rows = Rows::new();
    for n in 0..17 {
        rows.create_row(T1, TABLE, &n.to_string(), &[7; 60_000]).expect("short");
    }
    store.write(rows).await.expect("written");
    harness::until(|| (log.bytes() <= most(limit / 16)).then_some(())).await;
    assert!(log.bytes() >= limit / 16, "{}", log.bytes());
    assert_eq!(store.log(T2).await.expect("a log").events(), 25);
}
