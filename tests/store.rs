//! The store as a black box: acknowledged events stay, in order, each with one sequence; failures are
//! reported.

#![allow(clippy::expect_used, clippy::panic)] // a test ends where its world does not hold

#[path = "store/harness.rs"]
mod harness;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use harness::{Faults, T1, T2, options, publish, read_all, store};
use nervewire::cursor::Cursor;
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{
    ApiKey, CommitCallback, CommitError, DAY_MS, DisabledUser, IdempotencyRecord, LogRead, MessageIdRecord,
    OpenError, Organization, ReadError, Retention, RevokedToken, Rows, Store, StoreState, StoredResponse,
    TimePosition, UNCOMMITTED_EVENTS, Visibility, compact, key_digest,
};
use nervewire::time::{Clock, ManualClock};

#[tokio::test]
async fn acknowledged_events_keep_order_and_ids_across_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let key = opened.cursor_key();
    let ids: Vec<_> = publish(&opened, T1, 300, 400).await.iter().map(|f| f.sequence()).collect();
    let other = publish(&opened, T2, 3, 10).await;
    let cursor = key.encode(T1, ids[99]);
    opened.close().await;
    drop(opened);

    let opened = store(dir.path());
    assert_eq!(opened.cursor_key().decode(T1, &cursor.0), Some(ids[99]), "a cursor outlives the process");
    let log = opened.log(T1).await.expect("a log");
    let read: Vec<_> = read_all(&opened, &log, Sequence::ZERO).await.iter().map(|f| f.sequence()).collect();
    assert_eq!(read, ids);
    let rest = read_all(&opened, &log, ids[99]).await;
    assert_eq!((rest[0].sequence(), rest.len()), (ids[100], 200));
    let other_log = opened.log(T2).await.expect("a log");
    let read = read_all(&opened, &other_log, Sequence::ZERO).await;
    assert_eq!(read.len(), 3);
    assert_eq!(read[0].sse(), other[0].sse(), "byte for byte what was sent live");

    let more = publish(&opened, T1, 1, 10).await;
    assert!(more[0].sequence() > ids[299] && more[0].sequence().epoch() > ids[299].epoch());
    let read = read_all(&opened, &log, ids[298]).await;
    let read: Vec<_> = read.iter().map(|f| f.sequence()).collect();
    assert_eq!(read, [ids[299], more[0].sequence()], "a cursor of the epoch before goes on into this one");
}

/// An event was delivered live, and the daemon was killed before its commit: its sequence is never used
/// again.
#[tokio::test]
async fn a_new_epoch_begins_one_uncommitted_limit_above_what_is_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let last = publish(&opened, T1, 5, 10).await[4].sequence();
    opened.close().await;
    let opened = store(dir.path());
    let log = opened.log(T1).await.expect("a log");
    assert_eq!(log.end(), Sequence::new(last.epoch() + 1, last.counter() + u64::from(UNCOMMITTED_EVENTS)));
    assert_eq!((log.committed(), log.last_event(), log.oldest()), (log.end(), last, Sequence::ZERO));
    match opened.read_log(&log, last).await.expect("readable") {
        LogRead::End { committed } => assert_eq!(committed, log.end()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path());
    match Store::open(options(dir.path())) {
        Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    first.close().await;
    store(dir.path()).close().await;
    assert_eq!(first.state(), StoreState::Closed);
    assert_eq!(first.write(Rows::new()).await, Err(CommitError::Unavailable));
    assert!(matches!(first.log(T1).await, Err(ReadError::Unavailable)));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path());
    publish(&first, T1, 1, 10).await;
    drop(first);
    let again = store(dir.path());
    let log = again.log(T1).await.expect("a log");
    assert_eq!(read_all(&again, &log, Sequence::ZERO).await.len(), 1);
}

#[tokio::test]
async fn a_blob_file_refuses_the_start_and_large_events_create_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let blobs = dir.path().join("log/blobs");
    let opened = store(dir.path());
    for _ in 0..6 {
        publish(&opened, T1, 40, 64 * 1024 - 600).await;
    }
    opened.close().await;
    assert_eq!(std::fs::read_dir(&blobs).expect("a directory").count(), 0);
    let opened = store(dir.path());
    let log = opened.log(T1).await.expect("a log");
    assert_eq!(read_all(&opened, &log, Sequence::ZERO).await.len(), 240);
    opened.close().await;
    std::fs::write(blobs.join("1"), b"x").expect("written");
    assert!(matches!(Store::open(options(dir.path())), Err(OpenError::Blobs { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn the_data_directory_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let opened = store(&data);
    publish(&opened, T1, 1, 10).await;
    for (path, mode) in [("", 0o700), ("log", 0o700), ("log/db", 0o600), ("lock", 0o600)] {
        let found = std::fs::metadata(data.join(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

#[tokio::test]
async fn only_frames_that_do_not_follow_the_end_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let log = opened.log(T1).await.expect("a log");
    let wrong = harness::frame(&opened, T1, Sequence(log.end().0 + 2), harness::now(), 10);
    let (done, commit_result) = CommitCallback::channel();
    opened.append(&log, wrong, Rows::new(), None, done);
    assert_eq!(commit_result.await, Ok(Err(CommitError::OutOfOrder)));
    publish(&opened, T1, 1, 10).await;
    assert_eq!(read_all(&opened, &log, Sequence::ZERO).await.len(), 1);
}

#[tokio::test]
async fn a_commit_frees_room_in_the_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let log = opened.log(T1).await.expect("a log");
    let permit = log.reserve(1, 100).await.expect("room");
    assert_eq!(log.uncommitted(), 1);
    let (done, commit_result) = CommitCallback::channel();
    let frame = harness::frame(&opened, T1, log.end().next(), harness::now(), 10);
    opened.append(&log, frame, Rows::new(), Some(permit), done);
    assert_eq!(commit_result.await, Ok(Ok(())));
    opened.close().await;
    assert_eq!(log.uncommitted(), 0);
}

#[tokio::test]
async fn rows_and_events_are_committed_together_and_read_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let tenant = opened.new_tenant();
    let organization = Organization {
        tenant,
        org_id: "acme".into(),
        name: "Acme ü".into(),
        visibility: Visibility::Org,
        presence: true,
        created_ms: 5,
        deleted: false,
    };
    let key = ApiKey {
        tenant,
        key_id: "k1".into(),
        digest: [9; 32],
        scopes: vec!["publish".into()],
        narrowing: Default::default(),
        name: "ci".into(),
        created_ms: 5,
        expires_ms: Some(8),
        last_used_ms: None,
    };
    let revoked = RevokedToken { tenant, jti: "j1".into(), expires_ms: u64::MAX };
    let user = DisabledUser { tenant, sub: "eve".into(), since_ms: 4 };
    let now = options(dir.path()).clock.now_ms();
    let answer = StoredResponse::Published { first: Sequence(7), count: 2 };
    let remembered = IdempotencyRecord { body: [1; 32], answer, created_ms: now };
    let message = MessageIdRecord { body: [2; 32], sequence: Sequence(7), created_ms: now };
    let (request, message_id) = (key_digest(&[b"k1", b"POST /x", b"key"]), key_digest(&[b"u", b"m"]));
    let mut rows = Rows::new();
    rows.put_organization(&organization).expect("fits");
    rows.put_api_key(&key).expect("fits");
    rows.put_revoked(&revoked).expect("fits");
    rows.put_disabled_user(&user).expect("fits");
    rows.put_secret("ticket", b"abc").expect("fits");
    rows.put_idempotency(tenant, &request, &remembered).expect("fits");
    rows.put_message_id(tenant, &message_id, &message).expect("fits");
    let log = opened.log(tenant).await.expect("a log");
    let (done, commit_result) = CommitCallback::channel();
    opened.append(
        &log,
        harness::frame(&opened, tenant, log.end().next(), harness::now(), 10),
        rows,
        None,
        done,
    );
    assert_eq!(commit_result.await, Ok(Ok(())));
    opened.close().await;

    let opened = store(dir.path());
    assert_eq!(opened.organizations_blocking().expect("read"), [organization]);
    assert_eq!(opened.api_keys_blocking().expect("read"), [key]);
    assert_eq!(opened.revoked_blocking().expect("read"), [revoked]);
    assert_eq!(opened.disabled_users_blocking().expect("read"), [user]);
    assert_eq!(opened.secret_blocking("ticket").expect("read").as_deref(), Some(&b"abc"[..]));
    // Both have the time of their commit.
    let answer = opened.idempotency(tenant, request).await.expect("read").expect("kept");
    assert_eq!(IdempotencyRecord { created_ms: now, ..answer }, remembered);
    let found = opened.message_id(tenant, message_id).await.expect("read").expect("kept");
    assert_eq!(MessageIdRecord { created_ms: now, ..found }, message);
    assert_eq!(opened.idempotency(T2, request).await.expect("read"), None, "another tenant's is nobody's");
    assert!(opened.new_tenant() > tenant, "a number is never given out twice");

    let mut rows = Rows::new();
    rows.delete_api_key(tenant, "k1");
    rows.delete_revoked(tenant, "j1");
    rows.delete_disabled_user(tenant, "eve");
    assert_eq!(opened.write(rows).await, Ok(()));
    assert_eq!(opened.api_keys_blocking().expect("read"), []);
    assert_eq!(opened.revoked_blocking().expect("read"), []);
    assert_eq!(opened.disabled_users_blocking().expect("read"), []);
}

#[tokio::test]
async fn a_failed_fsync_begins_a_new_epoch_and_no_sequence_repeats() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let opened = Store::open(harness::with(dir.path(), |o| o.io = faults.clone())).expect("open");
    let sure = publish(&opened, T1, 2, 10).await[1].sequence();
    let log = opened.log(T1).await.expect("a log");
    let epochs = Arc::new(nervewire::sync::Mutex::new(Vec::new()));
    opened.on_epoch({
        let (log, epochs) = (log.clone(), epochs.clone());
        move || epochs.lock().push(log.end())
    });
    let mut state = opened.watch_state();

    faults.fail_syncs(28, 1);
    let (done, commit_result) = CommitCallback::channel();
    let unsure = harness::frame(&opened, T1, log.end().next(), harness::now(), 10);
    opened.append(&log, unsure.clone(), Rows::new(), None, done);
    assert_eq!(commit_result.await, Ok(Err(CommitError::Unknown)));
    state.wait_for(|state| *state == StoreState::Writable).await.expect("open again");

    assert_eq!(opened.epoch(), sure.epoch() + 1);
    assert_eq!(epochs.lock().last(), Some(&log.end()), "the hook saw the log at the start of the new epoch");
    assert!(log.end().counter() >= unsure.sequence().counter() && log.committed() == log.end());
    let after = publish(&opened, T1, 1, 10).await[0].sequence();
    assert!(after > unsure.sequence());
    let read: Vec<_> = read_all(&opened, &log, sure).await.iter().map(|f| f.sequence()).collect();
    assert!(
        read == [after] || read == [unsure.sequence(), after],
        "found done or not, never in another place: {read:?}"
    );
    assert_eq!(opened.stats().reopenings.load(Relaxed), 1);
}

#[tokio::test]
async fn commits_behind_a_failed_commit_fail_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let opened = Store::open(harness::with(dir.path(), |o| o.io = faults.clone())).expect("open");
    let log = opened.log(T1).await.expect("a log");
    publish(&opened, T1, 1, 10).await;
    let gate = faults.hold_next_sync();
    let mut commit_result = Vec::new();
    let append = || {
        let (done, receive) = CommitCallback::channel();
        let frame = harness::frame(&opened, T1, log.end().next(), harness::now(), 10);
        opened.append(&log, frame, Rows::new(), None, done);
        receive
    };
    commit_result.push(append());
    gate.reached().await;
    commit_result.push(append());
    commit_result.push(append());
    faults.fail_opening(true);
    gate.release(Err(std::io::Error::from_raw_os_error(28)));
    for receive in commit_result {
        assert_eq!(receive.await, Ok(Err(CommitError::Unknown)));
    }
    assert_eq!(opened.state(), StoreState::Reopening);
    let late = append();
    assert_eq!(opened.write(Rows::new()).await, Err(CommitError::Unavailable));
    assert_eq!(late.await, Ok(Err(CommitError::Unavailable)));
    assert!(matches!(opened.read_log(&log, Sequence::ZERO).await, Err(ReadError::Unavailable)));
    let mut state = opened.watch_state();
    faults.fail_opening(false);
    state.wait_for(|state| *state == StoreState::Writable).await.expect("open again");
    publish(&opened, T1, 1, 10).await;
}

/// After a failed sync the store is read-only. It tries to open again until the disk takes data.
#[tokio::test]
async fn after_a_failed_sync_reads_continue_and_the_store_reopens() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let opened = Store::open(harness::with(dir.path(), |o| o.io = faults.clone())).expect("open");
    let mut kept = publish(&opened, T1, 1, 10).await;
    let (log, epoch) = (opened.log(T1).await.expect("a log"), opened.epoch());
    let append = || {
        let (done, commit_result) = CommitCallback::channel();
        let frame = harness::frame(&opened, T1, log.end().next(), harness::now(), 10);
        opened.append(&log, frame, Rows::new(), None, done);
        commit_result
    };
    faults.break_disk(true);
    assert_eq!(append().await, Ok(Err(CommitError::Unknown)));
    // Several attempts later.
    for refused in [3, 6] {
        harness::until(|| (faults.refused() >= refused).then_some(())).await;
        assert_eq!(opened.state(), StoreState::ReadOnly);
        assert_eq!(opened.write(Rows::new()).await, Err(CommitError::Unavailable));
        assert_eq!(append().await, Ok(Err(CommitError::Unavailable)));
        assert_eq!(read_all(&opened, &log, Sequence::ZERO).await.len(), 1, "what is durable can be read");
    }
    let mut state = opened.watch_state();
    faults.break_disk(false);
    state.wait_for(|state| *state == StoreState::Writable).await.expect("open again");
    assert_eq!((opened.stats().reopenings.load(Relaxed), opened.epoch()), (1, epoch + 1));
    kept.extend(publish(&opened, T1, 2, 10).await);
    let found = read_all(&opened, &log, Sequence::ZERO).await;
    assert!(
        found.iter().map(|frame| frame.sse()).eq(kept.iter().map(|frame| frame.sse())),
        "and nothing that failed"
    );
    opened.close().await;
    let again = store(dir.path());
    let log = again.log(T1).await.expect("a log");
    assert_eq!(read_all(&again, &log, Sequence::ZERO).await.len(), kept.len());
}

#[tokio::test]
async fn below_the_disk_reserve_writes_stop_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    faults.set_free(10 << 20);
    let open = harness::with(dir.path(), |o| (o.io, o.reserve_bytes) = (faults.clone(), 16 << 20));
    let opened = Store::open(open).expect("open");
    assert_eq!(opened.state(), StoreState::Reserve);
    let mut rows = Rows::new();
    rows.put_secret("s", b"small rows go on").expect("fits");
    assert_eq!(opened.write(rows).await, Ok(()));
    let mut state = opened.watch_state();
    faults.set_free(100 << 20);
    state.wait_for(|state| *state == StoreState::Writable).await.expect("lifted");
    assert!(dir.path().join("ballast").exists());
}

#[tokio::test]
async fn trimming_by_count_keeps_the_limit_and_at_most_one_piece_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep = Retention { max_age_seconds: 0, max_events: 100, max_bytes: 0 };
    let opened = Store::open(harness::with(dir.path(), |o| o.retention = keep)).expect("open");
    let log = opened.log(T1).await.expect("a log");
    let mut last = Sequence::ZERO;
    for _ in 0..30 {
        last = publish(&opened, T1, 7, 10).await[6].sequence();
    }
    let (events, oldest) =
        harness::until(|| (log.events() < 107).then(|| (log.events(), log.oldest()))).await;
    assert!((100..107).contains(&events), "{events}");
    match opened.read_log(&log, Sequence::ZERO).await.expect("readable") {
        LogRead::Gap { resumes_at, .. } => assert_eq!(resumes_at, oldest),
        other => panic!("{other:?}"),
    }
    let kept = read_all(&opened, &log, oldest).await;
    assert_eq!(kept.len() as u64, events);
    assert_eq!(kept[kept.len() - 1].sequence(), last);
    opened.close().await;
    let again = Store::open(harness::with(dir.path(), |o| o.retention = keep)).expect("open");
    let log = again.log(T1).await.expect("a log");
    assert_eq!(
        (log.oldest(), log.events()),
        (oldest, events),
        "what was trimmed is reported after a restart too"
    );
}

#[tokio::test]
async fn since_follows_trimming_by_age_and_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let keep = Retention { max_age_seconds: 60, max_events: 0, max_bytes: 0 };
    let with = |o: &mut nervewire::store::StoreOptions| (o.clock, o.retention) = (clock.clone(), keep);
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let log = opened.log(T1).await.expect("a log");
    let mut firsts = Vec::new();
    for _ in 0..6 {
        firsts.push(harness::publish_at(&opened, T1, 3, 10, clock.now_ms()).await[0].sequence());
        clock.advance(20_000);
    }
    // Now is 1,120,000, so events received before 1,060,000 are too old.
    let before = |sequence: Sequence| Sequence(sequence.0 - 1);
    harness::until(|| (log.oldest() >= before(firsts[3])).then_some(())).await;
    assert_eq!(log.oldest(), before(firsts[3]), "exactly the limit stays");
    let since = async |ms| opened.position_since(&log, ms).await.expect("readable");
    assert_eq!(since(1_040_000).await, TimePosition::Trimmed(log.oldest()));
    assert_eq!(since(1_040_001).await, TimePosition::At(before(firsts[3])));
    assert_eq!(since(1_060_000).await, TimePosition::At(before(firsts[3])));
    assert_eq!(since(1_060_001).await, TimePosition::At(before(firsts[4])));
    assert_eq!(since(1_100_000).await, TimePosition::At(before(firsts[5])));
    assert_eq!(since(1_100_001).await, TimePosition::At(log.committed()));
    clock.advance(1_000_000);
    harness::until(|| (log.events() == 0).then_some(())).await;
    assert_eq!(since(1).await, TimePosition::Trimmed(log.oldest()));
    opened.close().await;

    let again = Store::open(harness::with(dir.path(), with)).expect("open");
    let log = again.log(T1).await.expect("a log");
    assert_eq!(log.last_received_ms(), 1_100_000, "time never goes back, even when nothing is left");
    assert_eq!(log.last_event(), Sequence(firsts[5].0 + 2));
}

#[tokio::test]
async fn the_tenant_furthest_over_its_share_is_trimmed_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Store::open(harness::with(dir.path(), |o| o.max_live_bytes = 400_000)).expect("open");
    publish(&opened, T2, 50, 1000).await;
    let large = opened.log(T1).await.expect("a log");
    for _ in 0..20 {
        publish(&opened, T1, 50, 1000).await;
    }
    harness::until(|| (opened.stats().log_bytes.load(Relaxed) <= 400_000).then_some(())).await;
    let small = opened.log(T2).await.expect("a log");
    assert_eq!((small.events(), small.oldest()), (50, Sequence::ZERO));
    assert!(large.events() > 200 && large.oldest() > Sequence::ZERO);
    // Trimming runs after the acknowledgements and may still remove events while a reader reads.
    for attempt in 0.. {
        let read = harness::try_read_all(&opened, &large, large.oldest()).await;
        if read.is_ok_and(|frames| frames.len() as u64 == large.events()) {
            break;
        }
        assert!(attempt < 50, "what is counted is not what can be read");
    }
}

#[tokio::test]
async fn an_erased_tenant_leaves_only_its_number_even_across_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let tenant = opened.new_tenant();
    let mut gone = Organization {
        tenant,
        org_id: "gone".into(),
        name: String::new(),
        visibility: Visibility::Private,
        presence: false,
        created_ms: 1,
        deleted: false,
    };
    let mut rows = Rows::new();
    rows.put_organization(&gone).expect("fits");
    rows.put_disabled_user(&DisabledUser { tenant, sub: "u".into(), since_ms: 1 }).expect("fits");
    opened.write(rows).await.expect("written");
    for _ in 0..10 {
        publish(&opened, tenant, 60, 60_000).await;
    }
    let stays = publish(&opened, TenantId(tenant.0 + 1), 3, 10).await;
    gone.deleted = true;
    let mut rows = Rows::new();
    rows.put_organization(&gone).expect("fits");
    rows.erase_tenant(tenant);
    opened.write(rows).await.expect("written");
    opened.close().await; // most of it still exists

    let opened = store(dir.path());
    harness::until(|| {
        let log = opened.log_blocking(tenant).expect("a log");
        let users = opened.disabled_users_blocking().expect("read");
        (users.is_empty() && opened.stats().log_bytes.load(Relaxed) < 10_000).then_some(log)
    })
    .await;
    opened.close().await;
    let opened = store(dir.path());
    let log = opened.log(tenant).await.expect("a log");
    assert_eq!((log.events(), log.last_event()), (0, Sequence::ZERO));
    assert_eq!(opened.organizations_blocking().expect("read"), [gone]);
    let log = opened.log(TenantId(tenant.0 + 1)).await.expect("a log");
    assert_eq!(read_all(&opened, &log, Sequence::ZERO).await.len(), stays.len());
    assert!(opened.new_tenant() > tenant);
}

#[tokio::test]
async fn idempotent_responses_expire_after_a_day_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let with = |o: &mut nervewire::store::StoreOptions| (o.clock, o.idempotency_rows) = (clock.clone(), 10);
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let put = async |store: &Store, n: u64| {
        let answer = StoredResponse::Withheld { id: n.to_string() };
        let row = IdempotencyRecord { body: [0; 32], answer, created_ms: clock.now_ms() };
        let mut rows = Rows::new();
        rows.put_idempotency(T1, &key_digest(&[&n.to_be_bytes()]), &row).expect("fits");
        store.write(rows).await.expect("written");
    };
    let has = async |store: &Store, n: u64| {
        store.idempotency(T1, key_digest(&[&n.to_be_bytes()])).await.expect("read").is_some()
    };
    for n in 0..15 {
        put(&opened, n).await;
        clock.advance(1);
    }
    harness::until(|| (opened.stats().idempotency_dropped.load(Relaxed) == 5).then_some(())).await;
    assert!(!has(&opened, 4).await && has(&opened, 5).await && has(&opened, 14).await);
    opened.close().await;

    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    clock.advance(DAY_MS - 8);
    put(&opened, 5).await; // used again after a restart, before the sweep has seen that it is too old
    assert!(has(&opened, 5).await && !has(&opened, 7).await && has(&opened, 8).await);
    clock.advance(7);
    assert!(has(&opened, 5).await && !has(&opened, 14).await);
}

/// Rows that are kept for a day are aged by elapsed time: a clock set far ahead does not drop them, and one
/// set back does not keep them.
#[tokio::test]
async fn setting_the_wall_clock_does_not_change_when_idempotency_keys_expire() {
    const YEAR_MS: u64 = 365 * DAY_MS;
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(YEAR_MS));
    let with = |o: &mut nervewire::store::StoreOptions| o.clock = clock.clone();
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let put = async |store: &Store, n: u64| {
        let row = IdempotencyRecord {
            body: [0; 32],
            answer: StoredResponse::Withheld { id: n.to_string() },
            created_ms: clock.now_ms(),
        };
        let mut rows = Rows::new();
        rows.put_idempotency(T1, &key_digest(&[&n.to_be_bytes()]), &row).expect("fits");
        store.write(rows).await.expect("written");
    };
    let has = async |store: &Store, n: u64| {
        store.idempotency(T1, key_digest(&[&n.to_be_bytes()])).await.expect("read").is_some()
    };
    put(&opened, 1).await;
    clock.set(70 * YEAR_MS);
    put(&opened, 2).await;
    assert!(has(&opened, 1).await && has(&opened, 2).await, "no time has passed");
    clock.set(YEAR_MS / 2);
    put(&opened, 3).await;
    clock.advance(DAY_MS - 1);
    assert!(has(&opened, 1).await && has(&opened, 2).await && has(&opened, 3).await);
    clock.advance(1);
    assert!(!has(&opened, 1).await && !has(&opened, 2).await && !has(&opened, 3).await);
    harness::until(|| (opened.stats().committer_entries.load(Relaxed) == 0).then_some(())).await;

    // A run whose clock was wrong from the start: its rows last a day into the next run.
    clock.set(70 * YEAR_MS);
    opened.close().await;
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    put(&opened, 4).await;
    opened.close().await;
    clock.set(YEAR_MS);
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    put(&opened, 5).await;
    assert!(has(&opened, 4).await && has(&opened, 5).await);
    clock.advance(DAY_MS);
    assert!(!has(&opened, 4).await && !has(&opened, 5).await);
    harness::until(|| (opened.stats().committer_entries.load(Relaxed) == 0).then_some(())).await;
}

/// One commit may exceed the number of kept rows, and the next commit finds it restored. An organization that
/// always exceeds it does not keep old rows of another alive.
#[tokio::test]
async fn an_expiry_lane_exceeds_its_limit_by_one_commit_at_most() {
    const ROWS: u64 = 2_000;
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let with = |o: &mut nervewire::store::StoreOptions| (o.clock, o.idempotency_rows) = (clock.clone(), 10);
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let put = async |tenant, from: u64, count: u64| {
        let mut rows = Rows::new();
        for n in from..from + count {
            let row = IdempotencyRecord {
                body: [0; 32],
                answer: StoredResponse::Withheld { id: n.to_string() },
                created_ms: 0,
            };
            rows.put_idempotency(tenant, &key_digest(&[&n.to_be_bytes()]), &row).expect("fits");
        }
        opened.write(rows).await.expect("written");
    };
    put(T2, 0, 1).await;
    clock.advance(DAY_MS);
    for round in 0..20 {
        put(T1, round * ROWS, ROWS).await;
        // Acknowledged after the housekeeping of the previous round.
        opened.write(Rows::new()).await.expect("written");
        let kept = (round + 1) * ROWS - opened.stats().idempotency_dropped.load(Relaxed);
        assert!(kept <= 10, "{kept} rows are kept after round {round}");
    }
    // Only the 10 rows of one organization are left.
    harness::until(|| (opened.stats().committer_entries.load(Relaxed) == 2).then_some(())).await;
}

/// However much is trimmed, each organization has one due entry, and logs that only trimming reads are not
/// kept in memory.
#[tokio::test]
async fn trimming_leaves_one_due_entry_per_log_and_no_log_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep = Retention { max_age_seconds: 3_600, max_events: 2, max_bytes: 0 };
    let opened = Store::open(harness::with(dir.path(), |o| o.retention = keep)).expect("open");
    for _ in 0..200 {
        publish(&opened, T1, 1, 10).await;
        publish(&opened, T2, 1, 10).await;
    }
    harness::until(|| (opened.stats().trimmed_events.load(Relaxed) == 2 * 198).then_some(())).await;
    harness::until(|| (opened.stats().committer_entries.load(Relaxed) == 4).then_some(())).await;
    opened.close().await;

    let keep = Retention { max_events: 1, ..keep };
    let opened = Store::open(harness::with(dir.path(), |o| o.retention = keep)).expect("open");
    harness::until(|| (opened.stats().trimmed_events.load(Relaxed) == 2).then_some(())).await;
    harness::until(|| opened.loaded_log(T1).or(opened.loaded_log(T2)).is_none().then_some(())).await;
}

/// A clock that is set a year ahead by mistake deletes no history. Setting it back does not keep later events
/// for ever.
#[tokio::test]
async fn setting_the_wall_clock_does_not_change_the_retention() {
    const HOUR_MS: u64 = 3_600_000;
    const YEAR_MS: u64 = 365 * DAY_MS;
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::at(YEAR_MS));
    let keep = Retention { max_age_seconds: 3_600, max_events: 0, max_bytes: 0 };
    let with = |o: &mut nervewire::store::StoreOptions| (o.clock, o.retention) = (clock.clone(), keep);
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let log = opened.log(T1).await.expect("a log");
    let round = async || {
        let before = opened.stats().housekeeping_rounds.load(Relaxed);
        harness::until(|| (opened.stats().housekeeping_rounds.load(Relaxed) > before + 1).then_some(()))
            .await;
    };
    harness::publish_at(&opened, T1, 1, 10, clock.now_ms()).await;
    clock.set(2 * YEAR_MS);
    harness::publish_at(&opened, T1, 1, 10, clock.now_ms()).await;
    round().await;
    assert_eq!(log.events(), 2, "no time has passed");
    clock.set(YEAR_MS);
    harness::publish_at(&opened, T1, 1, 10, 2 * YEAR_MS).await; // receive times never decrease
    clock.advance(HOUR_MS + 1);
    // The first, as usual; the second is checked from now on.
    harness::until(|| (log.events() == 2).then_some(())).await;
    round().await;
    assert_eq!(log.events(), 2);
    harness::publish_at(&opened, T1, 1, 10, 2 * YEAR_MS).await;
    clock.advance(HOUR_MS);
    round().await;
    assert_eq!(log.events(), 3);
    clock.advance(2);
    // What existed an hour ago is gone, and nothing more.
    harness::until(|| (log.events() == 1).then_some(())).await;
    round().await;
    assert_eq!(log.events(), 1);
    clock.advance(HOUR_MS + 2);
    harness::until(|| (log.events() == 0).then_some(())).await;
}

/// 5,000 subscribers of one tenant resume at once: they cost one scan, not 5,000.
#[tokio::test]
async fn many_resuming_subscribers_read_the_log_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = store(dir.path());
    let frames = publish(&opened, T1, 500, 200).await;
    let log = opened.log(T1).await.expect("a log");
    let herd: Vec<_> = (0..5000)
        .map(|at| {
            let (opened, log, after) = (opened.clone(), log.clone(), frames[at % 400].sequence());
            tokio::spawn(async move {
                match opened.read_log(&log, after).await.expect("readable") {
                    LogRead::Page(page) => page.frames()[0].sequence() == after.next(),
                    _ => false,
                }
            })
        })
        .collect();
    for reader in herd {
        assert!(reader.await.expect("joined"));
    }
    let scans = opened.stats().log_scans.load(Relaxed);
    assert!(scans <= 4, "{scans} scans");
}

/// A copy of a running store's data directory is what `kill -9` leaves behind.
#[tokio::test]
async fn counters_are_repaired_from_the_log_after_a_kill() {
    let (dir, image) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let opened = store(dir.path());
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.extend(publish(&opened, T1, 2, 100).await.iter().map(|f| f.sequence()));
    }
    let log = opened.log(T1).await.expect("a log");
    let (events, bytes) = (log.events(), log.bytes());
    harness::copy_image(dir.path(), image.path());
    let killed = store(image.path());
    let log = killed.log(T1).await.expect("a log");
    assert_eq!(log.last_event(), ids[39]);
    assert_eq!((log.events(), log.bytes()), (events, bytes));
    ids.extend(publish(&killed, T1, 2, 100).await.iter().map(|f| f.sequence()));
    let read: Vec<_> = read_all(&killed, &log, Sequence::ZERO).await.iter().map(|f| f.sequence()).collect();
    assert_eq!(read, ids);
    assert_eq!(log.events(), 42);
}

#[tokio::test]
async fn compacting_keeps_every_row_and_frees_space_even_after_an_interruption() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep = Retention { max_age_seconds: 0, max_events: 100, max_bytes: 0 };
    let with = |o: &mut nervewire::store::StoreOptions| o.retention = keep;
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    for _ in 0..80 {
        publish(&opened, T1, 20, 20_000).await;
    }
    let mut rows = Rows::new();
    rows.put_secret("s", b"kept").expect("fits");
    opened.write(rows).await.expect("written");
    let log = opened.log(T1).await.expect("a log");
    harness::until(|| (log.events() < 120).then_some(())).await;
    assert!(matches!(compact(dir.path()), Err(OpenError::InUse { .. })), "never beside a daemon");
    let (key, events, oldest) = (opened.cursor_key(), log.events(), log.oldest());
    opened.close().await;

    let done = compact(dir.path()).expect("compacted");
    assert!(done.after < done.before, "{done:?}");
    // The state after a power cut between the two renames, and after the second one.
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("log.old")).expect("made");
    std::fs::rename(at("log"), at("log.new")).expect("renamed");
    let opened = Store::open(harness::with(dir.path(), with)).expect("open");
    assert_eq!(opened.cursor_key().encode(T1, oldest), key.encode(T1, oldest));
    let log = opened.log(T1).await.expect("a log");
    assert_eq!((log.events(), log.oldest()), (events, oldest));
    assert_eq!(read_all(&opened, &log, oldest).await.len() as u64, events);
    assert_eq!(opened.secret_blocking("s").expect("read").as_deref(), Some(&b"kept"[..]));
    opened.close().await;
    std::fs::create_dir(at("log.old")).expect("made");
    std::fs::create_dir(at("log.new")).expect("made");
    store(dir.path()).close().await;
    assert!(!at("log.old").exists() && !at("log.new").exists());
    let empty = tempfile::tempdir().expect("a directory");
    assert!(matches!(compact(empty.path()), Err(OpenError::Missing { .. })));
}

/// A real, small file system is filled to the last byte while a client publishes, and is then freed:
/// everything acknowledged exists, without a restart of the daemon.
#[tokio::test]
async fn a_full_disk_is_recovered_from_without_a_restart() {
    let disk = match harness::SmallDisk::mount(128) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: no small file system here ({reason})"),
    };
    let data = disk.path().join("data");
    let opened = Store::open(harness::with(&data, |o| o.reserve_bytes = 16 << 20)).expect("open");
    let log = opened.log(T1).await.expect("a log");
    let mut acked: Vec<Sequence> = Vec::new();
    acked.extend(publish(&opened, T1, 20, 1000).await.iter().map(|f| f.sequence()));

    // Slowly: the reserve is reached first, and publishing is refused before anything is lost.
    disk.fill(Some(12 << 20));
    let mut state = opened.watch_state();
    state.wait_for(|state| *state == StoreState::Reserve).await.expect("refused");
    disk.free();
    state.wait_for(|state| *state == StoreState::Writable).await.expect("allowed again");

    // At once: the disk is full before the store has checked it.
    disk.fill(None);
    let mut failed = false;
    for _ in 0..200 {
        let (done, commit_result) = CommitCallback::channel();
        let end = log.end();
        let frames: Vec<_> = (1..=20)
            .map(|n| harness::frame(&opened, T1, Sequence(end.0 + n), harness::now(), 60_000))
            .collect();
        opened.append(&log, frames.clone(), Rows::new(), None, done);
        match commit_result.await.expect("a result") {
            Ok(()) => acked.extend(frames.iter().map(|f| f.sequence())),
            Err(error) => {
                assert_eq!(error, CommitError::Unknown);
                failed = true;
                break;
            }
        }
    }
    assert!(failed, "the disk was never full");
    assert_eq!(opened.state(), StoreState::Reopening);
    disk.free();
    state.wait_for(|state| *state == StoreState::Writable).await.expect("open again");
    acked.extend(publish(&opened, T1, 20, 1000).await.iter().map(|f| f.sequence()));
    let read: Vec<_> = read_all(&opened, &log, Sequence::ZERO).await.iter().map(|f| f.sequence()).collect();
    let missing: Vec<_> = acked.iter().filter(|id| !read.contains(id)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    opened.close().await;
    let again = Store::open(harness::with(&data, |o| o.reserve_bytes = 16 << 20)).expect("open");
    let log = again.log(T1).await.expect("a log");
    let after: Vec<_> = read_all(&again, &log, Sequence::ZERO).await.iter().map(|f| f.sequence()).collect();
    assert_eq!(after, read);
}

/// Three tenants with occasional commit failures and restarts, compared with a model.
#[tokio::test]
async fn random_failures_and_restarts_keep_acknowledged_events_and_reuse_no_sequence() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let with = |o: &mut nervewire::store::StoreOptions| o.io = faults.clone();
    let mut opened = Store::open(harness::with(dir.path(), with)).expect("open");
    let mut random = harness::Random(0x5eed);
    let mut used: [Vec<(Sequence, bool)>; 3] = Default::default();
    for step in 0..150 {
        let at = random.below(3) as usize;
        let log = opened.log(TenantId(at as u64 + 1)).await.expect("a log");
        match random.below(12) {
            0 => {
                faults.set_free(0);
                opened.close().await;
                opened = Store::open(harness::with(dir.path(), with)).expect("open");
                continue;
            }
            1 => faults.fail_syncs(28, 1),
            _ => {}
        }
        let (end, count) = (log.end(), 1 + random.below(40));
        let len = random.below(6000) as usize;
        let frames: Vec<_> = (1..=count)
            .map(|n| harness::frame(&opened, log.tenant(), Sequence(end.0 + n), harness::now(), len))
            .collect();
        let ids: Vec<_> = frames.iter().map(|frame| frame.sequence()).collect();
        let (done, commit_result) = CommitCallback::channel();
        opened.append(&log, frames, Rows::new(), None, done);
        let acked = commit_result.await.expect("a result").is_ok();
        let last = used[at].last().map_or(Sequence::ZERO, |(id, _)| *id);
        assert!(ids[0] > last, "step {step}: {:?} was used before", ids[0]);
        used[at].extend(ids.into_iter().map(|id| (id, acked)));
        let mut state = opened.watch_state();
        state.wait_for(|state| *state == StoreState::Writable).await.expect("writable");
    }
    for (at, used) in used.iter().enumerate() {
        let log = opened.log(TenantId(at as u64 + 1)).await.expect("a log");
        let read: Vec<_> =
            read_all(&opened, &log, Sequence::ZERO).await.iter().map(|f| f.sequence()).collect();
        let allowed: std::collections::BTreeMap<_, _> = used.iter().copied().collect();
        assert!(read.iter().all(|id| allowed.contains_key(id)));
        let read: std::collections::BTreeSet<_> = read.into_iter().collect();
        assert!(allowed.iter().all(|(id, acked)| !acked || read.contains(id)), "acknowledged and lost");
        assert_eq!(log.events(), read.len() as u64, "the counters agree with the log");
    }
}

#[tokio::test]
async fn a_cursor_key_is_created_once_per_store() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (first, other) = (store(one.path()), store(two.path()));
    let cursor: Cursor = first.cursor_key().encode(T1, Sequence(5));
    assert_eq!(other.cursor_key().decode(T1, &cursor.0), None);
}
