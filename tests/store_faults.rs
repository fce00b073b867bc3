//! Every disk call of the store fails once, in every kind of change: acknowledged changes stay, failed ones
//! are never shown, and the store continues as far as the disk allows.
//!
//! * A case is a call, the n-th of its kind, and its failure. The same story runs in each case: two runs of a
//!   store with every kind of change.
//! * Afterwards the store is read in the process, after a restart, and from what the disk would hold after a
//!   power cut.
//! * `NERVEWIRE_FAULTS=all` tries every n of the story; otherwise a few of each kind.

#![allow(clippy::expect_used, clippy::panic)] // a test ends where its world does not hold

#[allow(dead_code, reason = "each test program uses its part of the harness")]
#[path = "store/harness.rs"]
mod harness;
#[path = "store/saboteur.rs"]
mod saboteur;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use harness::{SmallDisk, T1, T2, until};
use nervewire::event::Event;
use nervewire::frame::{Frame, RoutingKey};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{
    ApiKey, BackupError, CommitCallback, CommitError, IdempotencyRecord, MessageIdRecord, Organization,
    Retention, Rows, Store, StoreOptions, StoreState, StoredResponse, Verified, Visibility, key_digest,
    verify,
};
use nervewire::time::{Clock, SystemClock};
use saboteur::{CALLS, Call, Fault, Saboteur};

/// The tenant that fills segments and is trimmed.
const T3: TenantId = TenantId(3);
/// The tenant that is created and deleted.
const T7: TenantId = TenantId(7);
/// Retention: events kept for each tenant.
const KEPT: u64 = 40;
/// Cases that run concurrently.
const AT_ONCE: usize = 6;

fn options(dir: &Path, io: &Arc<Saboteur>) -> StoreOptions {
    let mut options = harness::options(dir);
    options.segment_bytes = 64 << 10;
    options.retention = Retention { max_age_seconds: 0, max_events: KEPT, max_bytes: 0 };
    options.io = io.clone();
    options
}

/// One change of the story, which is one commit for each tenant.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Events of one tenant for these users.
    Events(TenantId, &'static [&'static str], usize),
    /// Events of two tenants at once.
    Two,
    /// A row without events.
    Row,
    /// Rows with events: an idempotency key and a message id.
    Both,
    CreateOrganization,
    DeleteOrganization,
    ApiKey,
    EraseUser,
}

/// The changes of one run. The last ones fill segments and are trimmed.
fn story(life: usize) -> Vec<Change> {
    let mut story = vec![
        // Ann is erased in the first run.
        Change::Events(T1, [&["ann", "bob", "ann"], &["cid", "bob", "cid"]][life], 100),
        Change::Row,
        Change::Both,
        Change::CreateOrganization,
        Change::Events(T7, &["eve"], 10),
        Change::Two,
        Change::ApiKey,
        Change::DeleteOrganization,
        Change::EraseUser,
    ];
    story.extend([Change::Events(T3, &["bob", "bob", "bob", "bob"], 6_000); 16]);
    story
}

/// The result of a change.
#[derive(Debug)]
struct Made {
    name: String,
    change: Change,
    acknowledged: bool,
    /// Whether its witness row was part of it.
    has_row: bool,
    events: Vec<(TenantId, Arc<Frame>)>,
}

#[derive(Default)]
struct Model {
    made: Vec<Made>,
    /// The highest sequence that was queued.
    given: HashMap<TenantId, Sequence>,
}

fn frames(
    store: &Store,
    tenant: TenantId,
    end: Sequence,
    users: &[&str],
    name: &str,
    len: usize,
) -> Vec<Arc<Frame>> {
    let (now_ms, text) = (SystemClock.now_ms(), "x".repeat(len));
    let frame = |(at, user): (usize, &&str)| {
        let json = format!(
            r#"{{"type":"message","agent_id":"a","user_id":"{user}","content":"{name} {at} {text}"}}"#
        );
        let mut frame = Frame::encode(&Event::parse(&json).expect("valid"), now_ms, 0);
        let sequence = Sequence(end.0 + 1 + at as u64);
        frame.seal(sequence, now_ms, &store.cursor_key().encode(tenant, sequence));
        Arc::new(frame)
    };
    users.iter().enumerate().map(frame).collect()
}

fn organization(deleted: bool) -> Organization {
    Organization {
        tenant: T7,
        org_id: "acme".into(),
        name: String::new(),
        visibility: Visibility::Private,
        presence: false,
        created_ms: 5,
        deleted,
    }
}

impl Model {
    /// Makes one change. Returns its error.
    async fn make(&mut self, store: &Store, change: Change) -> Result<(), CommitError> {
        let name = format!("step-{}", self.made.len());
        let mut rows = Rows::new();
        let of_events: Vec<(TenantId, &[&str], usize)> = match change {
            Change::Events(tenant, users, len) => vec![(tenant, users, len)],
            Change::Two => vec![(T1, &["bob"], 10), (T2, &["bob", "bob"], 10)],
            Change::Both => vec![(T2, &["bob", "bob"], 500)],
            _ => Vec::new(),
        };
        let has_row = !matches!(change, Change::Events(..) | Change::Two);
        match change {
            Change::Both => {
                let place = key_digest(&[name.as_bytes()]);
                let answer = StoredResponse::Withheld { id: name.clone() };
                let remembered =
                    IdempotencyRecord { body: [1; 32], answer, created_ms: SystemClock.now_ms() };
                rows.put_idempotency(T2, &place, &remembered).expect("fits");
                let message = MessageIdRecord {
                    body: [2; 32],
                    sequence: Sequence(7),
                    created_ms: SystemClock.now_ms(),
                };
                rows.put_message_id(T2, &place, &message).expect("fits");
            }
            Change::CreateOrganization => rows.put_organization(&organization(false)).expect("fits"),
            Change::DeleteOrganization => {
                rows.put_organization(&organization(true)).expect("fits");
                rows.erase_tenant(T7);
            }
            Change::EraseUser => rows.erase_user(T1, "ann").expect("fits"),
            Change::ApiKey => rows
                .put_api_key(&ApiKey {
                    tenant: T1,
                    key_id: name.clone(),
                    digest: [1; 32],
                    scopes: vec!["publish".into()],
                    narrowing: Default::default(),
                    name: String::new(),
                    created_ms: 5,
                    expires_ms: None,
                    last_used_ms: None,
                })
                .expect("fits"),
            _ => {}
        }
        if has_row {
            rows.put_secret(&name, name.as_bytes()).expect("fits");
        }
        let (mut events, mut failed, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut result = Ok(());
        if of_events.is_empty() {
            result = store.write(rows).await;
        } else {
            let mut rows = Some(rows);
            for (tenant, users, len) in of_events {
                let log = match store.log(tenant).await {
                    Ok(log) => log,
                    Err(_) => return Err(CommitError::Unavailable),
                };
                let frames = frames(store, tenant, log.end(), users, &name, len);
                assert!(
                    self.given.get(&tenant).is_none_or(|given| *given < frames[0].sequence()),
                    "{name}: sequence {:?} was given before",
                    frames[0].sequence()
                );
                events.extend(frames.iter().map(|frame| (tenant, frame.clone())));
                let (done, commit_result) = CommitCallback::channel();
                store.append(&log, frames.clone(), rows.take().unwrap_or_default(), None, done);
                waiting.push((tenant, frames[frames.len() - 1].sequence(), commit_result));
            }
            for (tenant, last, commit_result) in waiting {
                let commit_result = commit_result.await.unwrap_or(Err(CommitError::Unavailable));
                if matches!(commit_result, Ok(()) | Err(CommitError::Unknown)) {
                    self.given.insert(tenant, last);
                }
                if commit_result.is_err() {
                    result = commit_result;
                    // If the change has two tenants, one may have been acknowledged before the other failed.
                    if matches!(change, Change::Two) {
                        failed.extend(events.extract_if(.., |(of, _)| *of == tenant));
                    }
                }
            }
        }
        if !failed.is_empty() {
            let (name, events) = (name.clone(), failed);
            self.made.push(Made { name, change, acknowledged: false, has_row, events });
        }
        let is_two = matches!(change, Change::Two) && !events.is_empty();
        let acknowledged = result.is_ok() || is_two;
        self.made.push(Made { name, change, acknowledged, has_row, events });
        result
    }

    fn was_acknowledged(&self, wanted: impl Fn(&Change) -> bool) -> bool {
        self.made.iter().any(|made| made.acknowledged && wanted(&made.change))
    }

    /// Compares the store with the acknowledgements. `restarted`: a failed change may exist, but then as a
    /// whole.
    async fn check(&self, store: &Store, restarted: bool, case: &str) {
        let mut found: HashMap<TenantId, BTreeMap<Sequence, Frame>> = HashMap::new();
        for tenant in [T1, T2, T3, T7] {
            let log = retry(case, async || store.log(tenant).await).await;
            let after = log.oldest();
            let mut at = after;
            let frames = found.entry(tenant).or_default();
            loop {
                let read = retry(case, async || store.read_log(&log, at).await).await;
                match read {
                    nervewire::store::LogRead::Page(page) => {
                        for frame in page.frames() {
                            assert!(frame.sequence() > at, "{case}: out of order");
                            at = frame.sequence();
                            frames.insert(at, frame.clone());
                        }
                    }
                    nervewire::store::LogRead::End { .. } => break,
                    nervewire::store::LogRead::Gap { resumes_at, .. } => at = resumes_at,
                }
            }
        }
        let erased = self.made.iter().any(|made| matches!(made.change, Change::EraseUser));
        let deleted = self.made.iter().any(|made| matches!(made.change, Change::DeleteOrganization));
        let mut known = HashMap::new();
        let newest: Vec<Sequence> = {
            let of_t3 = self.made.iter().filter(|made| made.acknowledged).flat_map(|made| &made.events);
            let mut all: Vec<_> =
                of_t3.filter(|(of, _)| *of == T3).map(|(_, frame)| frame.sequence()).collect();
            all.reverse();
            all.truncate(KEPT as usize);
            all
        };
        for made in &self.made {
            let row = match made.has_row {
                true => {
                    let row = retry(case, async || store.secret_blocking(&made.name)).await;
                    Some(row.is_some_and(|row| row == made.name.as_bytes()))
                }
                false => None,
            };
            if matches!(made.change, Change::Both) {
                let place = key_digest(&[made.name.as_bytes()]);
                let key = retry(case, async || store.idempotency(T2, place).await).await;
                let message = retry(case, async || store.message_id(T2, place).await).await;
                assert_eq!(
                    (key.is_some(), message.is_some()),
                    (row == Some(true), row == Some(true)),
                    "{case}: {}",
                    made.name
                );
            }
            if matches!(made.change, Change::ApiKey) {
                let keys = retry(case, async || store.api_keys_blocking()).await;
                assert_eq!(
                    keys.iter().any(|key| key.key_id == made.name),
                    row == Some(true),
                    "{case}: {}",
                    made.name
                );
            }
            let mut there = Vec::new();
            for (tenant, frame) in &made.events {
                known.insert((*tenant, frame.sequence()), frame.clone());
                let read = found[tenant].get(&frame.sequence());
                let may_be_gone = (*tenant == T1 && erased && frame.key(RoutingKey::User) == Some("ann"))
                    || (*tenant == T7 && deleted)
                    || (*tenant == T3 && !newest.contains(&frame.sequence()));
                match read {
                    // The sequence of a failed commit may be used again only if its event was never queued.
                    // The content shows which event it is.
                    Some(read) if read.sse() == frame.sse() => there.push(true),
                    _ if may_be_gone && made.acknowledged => {}
                    _ => there.push(false),
                }
            }
            let all = there.iter().copied().chain(row);
            if made.acknowledged {
                assert!(
                    all.clone().all(|there| there),
                    "{case}: {} was acknowledged and is not there: row {row:?}, events {there:?}",
                    made.name
                );
            } else if !restarted {
                assert!(
                    all.clone().all(|there| !there),
                    "{case}: {} failed and is shown: row {row:?}, events {there:?}",
                    made.name
                );
            } else {
                let some = all.clone().any(|there| there);
                assert!(all.clone().all(|there| there == some), "{case}: {} is there by half", made.name);
            }
        }
        for (tenant, frames) in &found {
            for (sequence, frame) in frames {
                let sent = known.values().any(|sent| sent.sse() == frame.sse());
                assert!(sent, "{case}: {tenant:?} {sequence:?} was never sent");
            }
        }
        let organizations = retry(case, async || store.organizations_blocking()).await;
        let acme = organizations.iter().find(|organization| organization.tenant == T7);
        if !restarted {
            let made = self.was_acknowledged(|change| matches!(change, Change::CreateOrganization));
            let deleted = self.was_acknowledged(|change| matches!(change, Change::DeleteOrganization));
            assert_eq!(acme.map(|acme| acme.deleted), (made || deleted).then_some(deleted), "{case}");
        }
    }
}

/// A read may meet the fault; the next one does not.
async fn retry<T, E: std::fmt::Debug>(case: &str, mut read: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut error = None;
    for _ in 0..3 {
        match read().await {
            Ok(found) => return found,
            Err(failed) => error = Some(failed),
        }
    }
    panic!("{case}: a healthy disk cannot be read: {error:?}")
}

fn is_open(store: &Store) -> bool {
    matches!(store.state(), StoreState::Writable | StoreState::Reserve)
}

/// Waits until the committer has done its housekeeping again, and has opened the store again if it had to.
async fn settle(store: &Store, io: &Saboteur) {
    let rounds = store.stats().housekeeping_rounds.load(Relaxed);
    until(|| match is_open(store) {
        true => (store.stats().housekeeping_rounds.load(Relaxed) > rounds).then_some(()),
        false => {
            io.heal();
            None
        }
    })
    .await;
}

async fn open(dir: &Path, io: &Arc<Saboteur>, case: &str) -> Store {
    match Store::open(options(dir, io)) {
        Ok(store) => store,
        Err(error) => {
            assert!(io.has_tripped(), "{case}: {error}");
            io.heal();
            Store::open(options(dir, io))
                .unwrap_or_else(|error| panic!("{case}: not opened afterwards: {error}"))
        }
    }
}

/// Runs the story with one fault. Returns whether the fault was met.
async fn run(case: &str, io: &Arc<Saboteur>) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let mut model = Model::default();
    for life in 0..2 {
        let case = format!("{case}, life {life}");
        let store = open(dir.path(), io, &case).await;
        if life > 0 {
            settle(&store, io).await;
            model.check(&store, true, &case).await;
        }
        for change in story(life) {
            if life > 0
                && matches!(
                    change,
                    Change::CreateOrganization | Change::DeleteOrganization | Change::Events(T7, ..)
                )
            {
                continue; // it was deleted in the first run
            }
            let created = model.was_acknowledged(|change| matches!(change, Change::CreateOrganization));
            if !created && matches!(change, Change::DeleteOrganization | Change::Events(T7, ..)) {
                continue;
            }
            let result = model.make(&store, change).await;
            if let Err(error) = result {
                assert!(io.has_tripped(), "{case}: {change:?} failed with {error} on a healthy disk");
                io.heal();
                until(|| is_open(&store).then_some(())).await;
                model.check(&store, false, &case).await;
                // After it is opened again, everything works.
                let again = model.make(&store, change).await;
                assert_eq!(again, Ok(()), "{case}: {change:?} after the disk recovered");
            }
        }
        settle(&store, io).await;
        io.heal();
        settle(&store, io).await;
        model.check(&store, false, &case).await;
        io.lose_power(&dir.path().with_extension("lost"));
        store.close().await;
        drop(store);
        let lost = dir.path().with_extension("lost");
        match Store::open(harness::options(&lost)) {
            Ok(store) if !io.lies() => model.check(&store, true, &format!("{case}, after power loss")).await,
            // No acknowledged data can be expected on a disk that lies. Opening must return a result and must
            // not panic.
            Ok(store) => store.close().await,
            Err(error) => assert!(io.lies(), "{case}: not opened after power loss: {error}"),
        }
        std::fs::remove_dir_all(&lost).expect("removed");
    }
    io.heal();
    let healthy = Arc::new(Saboteur::default());
    let case = format!("{case}, at the end");
    let store = open(dir.path(), &healthy, &case).await;
    model.check(&store, true, &case).await;
    assert_eq!(model.make(&store, Change::Events(T1, &["bob"], 10)).await, Ok(()), "{case}");
    assert_eq!(model.make(&store, Change::Row).await, Ok(()), "{case}");
    store.close().await;
    io.has_tripped()
}

/// [`run`] on a separate thread.
fn alone(case: &str, io: &Arc<Saboteur>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(case, io))
}

/// The calls of one kind that are tried, out of `count` in the story.
fn chosen(count: u64, seed: u64) -> Vec<u64> {
    if count == 0 {
        return Vec::new();
    }
    if std::env::var("NERVEWIRE_FAULTS").is_ok_and(|which| which == "all") {
        return (1..=count).collect();
    }
    let mut random = harness::Random(0x9e37_79b9_7f4a_7c15 ^ (seed << 8) ^ seed);
    let mut chosen = vec![1 + random.below(count), 1 + random.below(count)];
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

async fn matrix(faults: &[(Fault, &[Call])]) {
    let healthy = Arc::new(Saboteur::default());
    run("healthy", &healthy).await;
    let (mut cases, mut met, mut running) = (0, 0, tokio::task::JoinSet::new());
    for (fault, calls) in faults {
        for call in *calls {
            let count = healthy.count(*call);
            for n in chosen(count, *call as u64 * 16 + *fault as u64) {
                let (io, case) = (
                    Arc::new(Saboteur::with(*call, *fault, n)),
                    format!("{fault:?} at {call:?} {n} of {count}"),
                );
                running.spawn_blocking(move || alone(&case, &io));
                cases += 1;
                // A case mostly waits for the committer's housekeeping.
                while running.len() >= AT_ONCE {
                    met += usize::from(running.join_next().await.expect("one runs").expect("a case"));
                }
            }
        }
    }
    while let Some(case) = running.join_next().await {
        met += usize::from(case.expect("a case"));
    }
    eprintln!("{cases} cases, the fault was met in {met}");
    assert!(met * 2 > cases, "the fault was met in {met} of {cases} cases");
}

#[tokio::test]
async fn an_io_error_of_any_call_loses_nothing_and_shows_nothing_that_failed() {
    matrix(&[(Fault::Eio, &CALLS)]).await;
}

#[tokio::test]
async fn a_full_disk_at_any_call_is_recovered_from_without_a_restart() {
    // A read needs no room.
    let calls: Vec<Call> =
        CALLS.into_iter().filter(|call| !matches!(call, Call::ReadAt | Call::Open)).collect();
    matrix(&[(Fault::Full, &calls)]).await;
}

#[tokio::test]
async fn short_writes_and_lying_syncs_are_survived() {
    let syncs = [Call::Sync, Call::SyncAll, Call::SyncDir, Call::SyncState];
    matrix(&[
        (Fault::Short, &[Call::WriteAt, Call::ReadAt]),
        (Fault::ShortThenFull, &[Call::WriteAt]),
        (Fault::ShortThenEio, &[Call::WriteAt]),
        (Fault::Lie, &syncs),
    ])
    .await;
}

/// The disk is completely full when the engine has to be closed, where sled panics on drop. The committer
/// survives, and the store opens when there is room again.
#[tokio::test]
async fn a_disk_that_is_full_while_the_engine_closes_is_recovered_from() {
    let disk = match SmallDisk::mount(64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no tmpfs can be mounted here ({why})"),
    };
    let io = Arc::new(Saboteur::default());
    let dir = disk.path().join("data");
    let mut options = options(&dir, &io);
    options.reserve_bytes = 0;
    let store = Store::open(options).expect("opened");
    let mut model = Model::default();
    for round in 0..4 {
        let case = format!("round {round}");
        for change in [Change::Row, Change::Both, Change::Two] {
            assert_eq!(model.make(&store, change).await, Ok(()), "{case}");
        }
        disk.fill(None);
        // Until a commit needs a new segment, or sled a new page.
        let mut failed = false;
        for _ in 0..64 {
            if model.make(&store, Change::Events(T3, &["bob", "bob", "bob", "bob"], 6_000)).await.is_err() {
                failed = true;
                break;
            }
        }
        assert!(failed, "{case}: the disk is full");
        disk.free();
        until(|| matches!(store.state(), StoreState::Writable | StoreState::Reserve).then_some(())).await;
        model.check(&store, false, &case).await;
    }
    for change in [Change::Row, Change::Both, Change::Two] {
        assert_eq!(model.make(&store, change).await, Ok(()), "at the end");
    }
    model.check(&store, false, "at the end").await;
    store.close().await;
}

/// `kill -9` on a full disk: the next start was once refused. The store opens with the room of its ballast
/// and serves reads, and publishing continues when there is room again.
#[tokio::test]
async fn a_full_disk_does_not_keep_a_killed_store_from_starting() {
    let disk = match SmallDisk::mount(320) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no tmpfs can be mounted here ({why})"),
    };
    let [dir, killed] = ["data", "killed"].map(|name| disk.path().join(name));
    let options = |dir: &Path| harness::with(dir, |options| options.reserve_bytes = 128 << 20);
    let store = Store::open(options(&dir)).expect("opened");
    let mut model = Model::default();
    for change in [Change::Row, Change::Both, Change::Two] {
        assert_eq!(model.make(&store, change).await, Ok(()));
    }
    for _ in 0..20 {
        assert_eq!(model.make(&store, Change::Events(T1, &["bob", "cid"], 6_000)).await, Ok(()));
    }
    harness::copy_image(&dir, &killed);
    until(|| dir.join("ballast").exists().then_some(())).await;
    store.close().await;
    std::fs::rename(dir.join("ballast"), killed.join("ballast")).expect("moved");
    std::fs::remove_dir_all(&dir).expect("removed");
    disk.fill(None);
    let store = Store::open(options(&killed)).expect("it starts");
    assert_eq!(store.state(), StoreState::Reserve, "nothing is published");
    model.check(&store, true, "on a full disk").await;
    disk.free();
    until(|| (store.state() == StoreState::Writable).then_some(())).await;
    assert_eq!(model.make(&store, Change::Events(T1, &["bob"], 10)).await, Ok(()));
    assert_eq!(model.make(&store, Change::Both).await, Ok(()));
    model.check(&store, true, "with room again").await;
    store.close().await;
    drop(store);
    // Verification on a full disk reports that it needs room, and not that the store is damaged.
    disk.fill(None);
    // The story writes events of organizations that it has not made.
    let other = |found: Verified| {
        found.problems.into_iter().find(|it| !it.ends_with("has rows, but no row of its own"))
    };
    let look = || verify(&killed, &mut |_: &'static str, _: u64, _: u64| {});
    match look() {
        Ok(found) => assert_eq!(other(found), None),
        Err(error) => assert!(matches!(error, BackupError::Full), "{error}"),
    }
    disk.free();
    assert_eq!(other(look().expect("verified")), None);
}
