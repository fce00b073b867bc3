//! Backup, restore and verification: of a running daemon, of a stopped one, and of damaged data.
//!
//! * Everything acknowledged before a backup began is in it. A later commit is in it whole or not at all.
//! * Damage is made row by row and byte by byte in copies of one data directory that contains every kind of
//!   row that a daemon writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::http::Call;
use common::rest::{agent, all, data};
use common::{Daemon, custom, message, until};
use nervewire::ids::TenantId;
use nervewire::store::{
    self, BackupError, Io, Manifest, OpenError, ProgressSink, Space, StageStatus, Store, StoreOptions, Table,
    Until, Verified,
};
use nervewire::time::SystemClock;
use serde_json::{Value, json};

/// Acknowledged publishes before a backup begins, and at least as many after it has ended.
const ACKS: usize = 60;
/// Events of one publish. A backup contains all of them or none.
const BATCH: u64 = 3;

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&from, &to),
            false => assert_eq!(fs::copy(&from, to).unwrap(), fs::metadata(from).unwrap().len()),
        }
    }
}

fn silent() -> impl ProgressSink {
    |_: &'static str, _: u64, _: u64| {}
}

fn verify(dir: &Path) -> Verified {
    store::verify(dir, &mut silent()).unwrap()
}

#[track_caller]
fn assert_sound(dir: &Path) -> Verified {
    let found = verify(dir);
    assert_eq!(found.problems, Vec::<String>::new(), "{}", dir.display());
    assert_eq!(found.found, 0);
    found
}

/// Runs `nervewire backup` against the running daemon.
async fn backup_running(daemon: &Daemon, to: &Path) -> Value {
    let (url, dir) = (format!("http://{}", daemon.admin_addr()), daemon.data_dir().display().to_string());
    let arguments = ["backup", to.to_str().unwrap(), "--admin-url", &url, "--data-dir", &dir, "--json"];
    let output = daemon.cli(&arguments).await;
    assert!(output.status.success(), "{output:?}\n{}", daemon.log());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts a daemon on a directory that was restored from one whose bootstrap key is `key`.
async fn restored_daemon(dir: &Path, key: &str) -> Daemon {
    fs::write(dir.join(".known"), "").unwrap(); // the restored store prints no key
    let mut daemon = Daemon::with().data_dir(dir).start().await;
    daemon.key = key.to_owned();
    daemon
}

/// Every retained event.
async fn history(daemon: &Daemon) -> Vec<Value> {
    let mut events = Vec::new();
    let mut path = "/api/v1/events?limit=1000&earliest=true".to_owned();
    loop {
        let page = daemon.get(&path).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let found = page["data"].as_array().unwrap();
        events.extend(found.iter().cloned());
        if found.is_empty() {
            return events;
        }
        path = format!("/api/v1/events?limit=1000&after={}", page["next_cursor"].as_str().unwrap());
    }
}

/// The acknowledged work of two event publishers and two clients that create resources.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    /// Publisher and batch number.
    batches: Arc<Mutex<Vec<(u64, u64)>>>,
    /// Names of agents.
    agents: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(&self, daemon: &Daemon) -> Vec<tokio::task::JoinHandle<()>> {
        let (addr, key) = (daemon.addr(), daemon.key.clone());
        (0..4_u64)
            .map(|who| {
                let (load, key) = (self.clone(), key.clone());
                tokio::spawn(async move {
                    for n in 0.. {
                        if load.stop.load(SeqCst) {
                            break;
                        }
                        let (path, body, name) = if who < 2 {
                            let pad = "x".repeat((n * 37 % 4_000) as usize);
                            let event = |at| custom("load", json!({"p": who, "n": n, "at": at, "pad": pad}));
                            ("/api/v1/events", (0..BATCH).map(event).collect(), String::new())
                        } else {
                            let name = format!("agent {who} {n}");
                            ("/api/v1/agents", json!({"name": name}), name)
                        };
                        let reply = Call::new(addr, "POST", path).key(&key).json(&body).send().await;
                        assert_eq!(reply.status, 201, "{reply:?}");
                        if who < 2 {
                            load.batches.lock().unwrap().push((who, n));
                        } else {
                            load.agents.lock().unwrap().push(name);
                        }
                    }
                })
            })
            .collect()
    }

    fn acked(&self) -> usize {
        self.batches.lock().unwrap().len().min(self.agents.lock().unwrap().len())
    }

    async fn more(&self) {
        let before = self.acked();
        until("acknowledgements", || async { (self.acked() >= before + ACKS).then_some(()) }).await;
    }
}

/// The batches in a history. Checks that each is whole and that no publisher's batch is missing.
fn batches_of(events: &[Value]) -> HashSet<(u64, u64)> {
    let mut parts: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["channel"] == "load") {
        let number = |name: &str| event["data"][name].as_u64().unwrap();
        parts.entry((number("p"), number("n"))).or_default().push(number("at"));
    }
    for (batch, parts) in &parts {
        assert_eq!(*parts, (0..BATCH).collect::<Vec<_>>(), "batch {batch:?} is whole and in order");
    }
    for publisher in [0, 1] {
        let numbers: Vec<u64> = parts.keys().filter(|(p, _)| *p == publisher).map(|(_, n)| *n).collect();
        assert_eq!(
            numbers,
            (0..numbers.len() as u64).collect::<Vec<_>>(),
            "publisher {publisher} lacks none"
        );
    }
    parts.into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_everything_acknowledged_and_nothing_partial() {
    let temp = tempfile::tempdir().unwrap();
    let (backup, dir) = (temp.path().join("backup"), temp.path().join("restored"));
    let mut daemon = Daemon::start().await;
    let user = daemon.user_token("ann").await;
    let load = Load::default();
    let workers = load.start(&daemon);
    load.more().await;
    let (batches, agents) = (load.batches.lock().unwrap().clone(), load.agents.lock().unwrap().clone());
    let made = backup_running(&daemon, &backup).await;
    load.more().await; // the backup stopped no publisher
    load.stop.store(true, SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    until("the end of the daemon's own copy", || async {
        (!daemon.data_dir().join("backup").exists()).then_some(())
    })
    .await;
    let old_id = daemon.publish(message("after the backup")).await.remove(0);

    let found = assert_sound(&backup);
    assert!(found.is_backup && found.events > 0, "{found:?}");
    let restored = daemon.cli(&["restore", backup.to_str().unwrap(), dir.to_str().unwrap(), "--json"]).await;
    assert!(restored.status.success(), "{restored:?}");
    let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((&restored["position"], &restored["rows"]), (&made["last"], &made["rows"]));
    assert_sound(&dir);

    let mut copy = restored_daemon(&dir, &daemon.key).await;
    let kept = batches_of(&history(&copy).await);
    let missing: Vec<_> = batches.iter().filter(|batch| !kept.contains(batch)).collect();
    assert!(missing.is_empty(), "acknowledged before the backup: {missing:?}");
    let names: Vec<Value> = all(&copy, &copy.key, "/api/v1/agents?limit=100")
        .await
        .iter()
        .map(|agent| agent["name"].clone())
        .collect();
    assert_eq!(names.len(), names.iter().map(Value::to_string).collect::<HashSet<_>>().len());
    for name in agents {
        assert!(names.contains(&json!(name)), "{name}");
    }
    // Keys and tokens stay valid. Ids belong to the new store, and cursors of the old store are unknown.
    let mine = copy.get("/api/v1/users/me").key(&user).send().await;
    assert_ne!(mine.status, 401, "{mine:?}");
    let fresh = copy.publish(message("hello")).await.remove(0);
    assert_eq!(history(&copy).await.last().unwrap()["id"], json!(fresh));
    let gap = copy.get(&format!("/api/v1/events?after={old_id}")).send().await.json();
    assert_eq!(gap["gap"]["reason"], "unknown_cursor", "{gap}");
    assert_eq!(copy.terminate().await, 0);
    assert_sound(&dir);
    assert_eq!(daemon.terminate().await, 0);
    assert_sound(daemon.data_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_is_restored_as_of_any_of_its_moments() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let mut daemon = Daemon::start().await;
    let backup = path("backup");
    let mut ends = Vec::new();
    for round in 0..3 {
        daemon.publish(custom("rounds", json!(round))).await;
        agent(&daemon, &daemon.key, &format!("round {round}")).await;
        ends.push(backup_running(&daemon, &backup).await);
    }
    let position = |at: usize| ends[at]["last"].as_u64().unwrap();
    assert!(position(0) < position(1) && position(1) < position(2));
    assert_eq!(ends[2]["first"], ends[0]["first"], "the earliest moment stays");
    assert_sound(&backup);
    let key = daemon.key.clone();
    assert_eq!(daemon.terminate().await, 0);
    // A backup of the stopped daemon adds what it wrote at its end.
    let stopped = store::backup(daemon.data_dir(), &backup, &SystemClock, &mut silent()).unwrap();
    assert!(stopped.was_there && stopped.manifest.last > position(2));

    let untils = [
        (position(0).to_string(), 1),
        ((position(1) + 1).to_string(), 2),
        (ends[1]["last_time"].as_str().unwrap().to_owned(), 2),
        (ends[2]["last_time"].as_str().unwrap().to_owned(), 3),
    ];
    for (at, (moment, rounds)) in untils.into_iter().enumerate() {
        let dir = path(&format!("restored {at}"));
        let asked = ["restore", backup.to_str().unwrap(), dir.to_str().unwrap(), "--until", &moment];
        let output = common::command(temp.path()).args(asked).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_sound(&dir);
        let mut copy = restored_daemon(&dir, &key).await;
        let events: Vec<Value> =
            history(&copy).await.into_iter().filter(|event| event["channel"] == "rounds").collect();
        let data: Vec<Value> = events.iter().map(|event| event["data"].clone()).collect();
        assert_eq!(json!(data), json!((0..rounds).collect::<Vec<_>>()), "as of {moment}");
        let agents = all(&copy, &copy.key, "/api/v1/agents?limit=100").await;
        assert_eq!(agents.len(), rounds, "as of {moment}");
        // The restored store works like any other and accepts events.
        copy.publish(custom("rounds", json!("more"))).await;
        assert_eq!(copy.terminate().await, 0);
        assert_sound(&dir);
    }
    let first = ends[0]["first"].as_u64().unwrap();
    for moment in
        [(first - 1).to_string(), (stopped.manifest.last + 1).to_string(), "2020-01-01T00:00:00Z".to_owned()]
    {
        let dir = path("refused");
        let asked = ["restore", backup.to_str().unwrap(), dir.to_str().unwrap(), "--until", &moment];
        let output = common::command(temp.path()).args(asked).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("positions {first} to {}", stopped.manifest.last)), "{said}");
        assert!(!dir.exists(), "nothing was touched");
    }
}

/// A data directory of a stopped daemon, with every kind of row that clients can create.
async fn example() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let mut daemon = Daemon::with().data_dir(&dir).start().await;
    let other = daemon.create_org("other").await;
    for n in 0..4 {
        daemon.publish(custom("c", json!(n))).await;
        daemon.publish_as(&other, custom("c", json!({"n": n, "longer": true}))).await;
        let id = agent(&daemon, &daemon.key, &format!("a{n}")).await;
        let memory = json!({"agent_id": id, "content": format!("remembers number {n}")});
        data(
            &daemon
                .post("/api/v1/memories")
                .header("idempotency-key", format!("k{n}"))
                .json(&memory)
                .send()
                .await,
            201,
        );
        let event =
            json!({"type": "message", "agent_id": id, "content": "hi", "message_id": format!("m{n}")});
        daemon.publish(event).await;
    }
    let token = daemon.mint_token(&daemon.key, "eve", json!({"roles": ["user"]})).await;
    assert!(!token.is_empty());
    assert_eq!(daemon.terminate().await, 0);
    (temp, dir)
}

fn state(dir: &Path) -> sled::Db {
    sled::Config::new().path(dir.join("log")).segment_size(8 << 20).open().unwrap()
}

/// Changes the state of a copy of `dir`, and asserts that verification finds the change.
fn assert_found(dir: &Path, what: &str, change: impl FnOnce(&sled::Db)) {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir, copy.path());
    let db = state(copy.path());
    change(&db);
    db.flush().unwrap();
    drop(db);
    let found = verify(copy.path());
    assert!(found.found > 0, "{what}: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_finds_every_kind_of_damage() {
    let (_temp, dir) = example().await;
    let whole = assert_sound(&dir);
    assert!(whole.pieces >= 8 && whole.records > 8, "{whole:?}");
    let db = state(&dir);
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        db.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
    drop(db);
    const META: u8 = 0;
    const LOG: u8 = 1;
    const SECRET: u8 = 11;
    // The store can open without these rows: secrets are created again, and everything is counted again if
    // the mark is missing.
    let is_optional = |key: &[u8]| key[0] == SECRET || (key[0] == META && [3, 4].contains(&key[9]));
    let mut kinds: BTreeMap<u8, &(Vec<u8>, Vec<u8>)> = BTreeMap::new();
    for row in rows.iter().filter(|(key, _)| !is_optional(key)) {
        kinds.entry(row.0[0]).or_insert(row);
    }
    assert!(kinds.len() >= 10, "{:?}", kinds.keys());
    for (kind, (key, value)) in &kinds {
        assert_found(&dir, &format!("a row of kind {kind} is dropped"), |db| drop(db.remove(key).unwrap()));
        if !value.is_empty() {
            let cut = &value[..value.len() - 1];
            assert_found(&dir, &format!("a row of kind {kind} is cut"), |db| {
                drop(db.insert(key, cut).unwrap())
            });
        }
        let mut other = key.clone();
        other.insert(0, 99);
        assert_found(&dir, "a row of no kind", |db| drop(db.insert(other, value.as_slice()).unwrap()));
    }
    for row in [1_u8, 2, 5] {
        let key = [&[META][..], &[0; 8], &[row]].concat();
        assert_found(&dir, &format!("row {row} of the store"), |db| {
            assert!(db.remove(&key).unwrap().is_some())
        });
    }

    let logs: Vec<_> = rows.iter().filter(|(key, _)| key[0] == LOG).collect();
    let ((first, of_first), (second, of_second)) = (logs[0], logs[1]);
    assert_found(&dir, "an entry points at another piece", |db| {
        db.insert(first, of_second.as_slice()).unwrap();
    });
    assert_found(&dir, "two entries are exchanged", |db| {
        db.insert(first, of_second.as_slice()).unwrap();
        db.insert(second, of_first.as_slice()).unwrap();
    });
    // A list index entry: version, position, checksum, then numbers.
    for at in 1..of_first.len() {
        let mut value = of_first.clone();
        value[at] ^= 1;
        assert_found(&dir, &format!("byte {at} of an entry"), |db| drop(db.insert(first, value).unwrap()));
    }
    // Counters, usage and live counts are eight-byte numbers after a version.
    let is_counter = |kind: u8| [2, 18, 19].contains(&kind);
    for (key, value) in rows.iter().filter(|(key, _)| is_counter(key[0])) {
        let numbers = if key[0] == 2 { &[0, 5, 6][..] } else { &[0, 1][..] };
        for number in numbers {
            let mut value = value.clone();
            value[1 + 8 * number + 7] ^= 1;
            let what = format!("number {number} of a row of kind {}", key[0]);
            assert_found(&dir, &what, |db| drop(db.insert(key, value).unwrap()));
        }
    }
}

/// Distance between two flipped bytes.
const STRIDE: usize = 997;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_finds_a_flipped_byte_anywhere_in_the_journal_and_in_a_backup() {
    let (temp, dir) = example().await;
    let backup = temp.path().join("backup");
    store::backup(&dir, &backup, &SystemClock, &mut silent()).unwrap();
    assert_sound(&dir);
    assert_sound(&backup);
    let files = |dir: &Path, names: &[&str]| -> Vec<PathBuf> {
        segments(dir).into_iter().chain(names.iter().map(|name| dir.join(name))).collect()
    };
    for (whole, files) in [(&dir, files(&dir, &[])), (&backup, files(&backup, &["manifest", "state.rows"]))] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(whole, copy.path());
        for file in files {
            let file = copy.path().join(file.strip_prefix(whole).unwrap());
            let bytes = fs::read(&file).unwrap();
            if bytes.len() == 64 {
                continue; // a segment that was created and never written to
            }
            let places = (0..bytes.len().min(64)).step_by(7).chain((64..bytes.len()).step_by(STRIDE));
            for at in places.chain([bytes.len() - 1]) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x20;
                fs::write(&file, flipped).unwrap();
                let found = store::verify(copy.path(), &mut silent());
                let is_found = found.as_ref().map_or(true, |found| found.found > 0);
                assert!(is_found, "byte {at} of {}: {found:?}", file.display());
            }
            fs::write(&file, &bytes[..bytes.len() - 8]).unwrap();
            let found = store::verify(copy.path(), &mut silent());
            assert!(found.map_or(true, |found| found.found > 0), "{} is cut", file.display());
            fs::write(&file, bytes).unwrap();
        }
        assert_sound(copy.path());
    }
}

/// Stops a restore at its n-th step.
struct StopsAt(usize);

impl ProgressSink for StopsAt {
    fn report(&mut self, _: &'static str, _: u64, _: u64) -> Result<(), BackupError> {
        self.0 = self.0.checked_sub(1).ok_or(BackupError::Cancelled)?;
        Ok(())
    }
}

/// Bytes that the store of [`small`] reserves for publishing.
const RESERVE: u64 = 1 << 20;

fn small(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    (options.cache_bytes, options.reserve_bytes, options.segment_bytes) = (16 << 20, RESERVE, 64 << 10);
    options
}

/// Writes rows of 4,000 bytes into organization 1, and the row of the organization itself.
fn write_rows(store: &Store, rows: std::ops::Range<u32>) {
    let mut batch = store::Rows::new();
    batch.put_organization(&common::organization(1, "rows")).unwrap();
    store.write_blocking(batch).unwrap();
    for n in rows {
        let mut batch = store::Rows::new();
        batch.put_row(TenantId(1), Table::Agents, &format!("row {n}"), &vec![7; 4_000]).unwrap();
        store.write_blocking(batch).unwrap();
    }
}

fn is_unfinished<T>(result: &Result<T, OpenError>) -> bool {
    matches!(result, Err(OpenError::Unfinished { .. }))
}

#[test]
fn an_interrupted_restore_is_refused_and_can_be_started_again() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, backup, to) =
        (temp.path().join("data"), temp.path().join("backup"), temp.path().join("restored"));
    let store = Store::open(small(&dir)).unwrap();
    write_rows(&store, 0..40);
    store.close_blocking();
    drop(store);
    store::backup(&dir, &backup, &SystemClock, &mut silent()).unwrap();
    let mut interrupted = 0;
    for step in 0.. {
        match store::restore(&backup, &to, Until::End, &mut StopsAt(step)) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, BackupError::Cancelled), "{error}"),
        }
        interrupted += 1;
        assert!(is_unfinished(&Store::open(small(&to))), "step {step}");
        assert!(is_unfinished(&store::compact(&to)), "step {step}");
        assert!(store::verify(&to, &mut silent()).is_err(), "step {step}");
    }
    assert!(interrupted >= 3, "{interrupted}");
    // The same between the last steps, when all names exist.
    fs::write(to.join("restoring"), "").unwrap();
    assert!(is_unfinished(&Store::open(small(&to))));
    store::restore(&backup, &to, Until::End, &mut silent()).unwrap();
    drop(Store::open(small(&to)).unwrap());
    let error = store::restore(&backup, &to, Until::End, &mut silent()).unwrap_err();
    assert!(matches!(error, BackupError::Taken { .. }), "{error}");
    let other = temp.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "mine").unwrap();
    let error = store::restore(&backup, &other, Until::End, &mut silent()).unwrap_err();
    assert!(matches!(error, BackupError::Taken { .. }), "{error}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "nothing was touched");
}

async fn ready(store: &Store) -> PathBuf {
    until("a finished backup", || async {
        match store.backup_status() {
            StageStatus::Ready { dir } => Some(dir),
            StageStatus::Running { .. } => None,
            other => panic!("{other:?}"),
        }
    })
    .await
}

async fn gone(store: &Store) {
    until("no backup", || async { (store.backup_status() == StageStatus::None).then_some(()) }).await;
}

/// A client may cancel its backup at any moment: neither the pin nor the files stay, and the next backup
/// succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_fetched_leaves_no_files() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let store = Store::open(small(&dir)).unwrap();
    let writes = store.clone();
    tokio::task::spawn_blocking(move || write_rows(&writes, 0..60)).await.unwrap();
    store.start_backup(None).unwrap();
    store.drop_backup(); // cancelled during the backup, or just after it
    until("no backup", || async {
        matches!(store.backup_status(), StageStatus::None | StageStatus::Failed { .. }).then_some(())
    })
    .await;
    until("a place for the next", || async { store.start_backup(None).is_ok().then_some(()) }).await;
    let stage = ready(&store).await;
    let before = segments(&stage).len();
    assert!(before > 0 && Manifest::read(&stage).is_ok());
    store.drop_backup();
    gone(&store).await;
    assert!(!dir.join("backup").exists());
    // There is no pin any more: the next checkpoints remove segments that hold only rows.
    let writes = store.clone();
    tokio::task::spawn_blocking(move || write_rows(&writes, 60..120)).await.unwrap();
    until("the end of old segments", || async { (segments(&dir).len() <= 2).then_some(()) }).await;
    store.start_backup(None).unwrap();
    let stage = ready(&store).await;
    assert_eq!(
        Manifest::read(&stage).unwrap().rows,
        120 + 4 + 2,
        "rows, those of the store and of the organization, usage"
    );
    store.close().await;
    assert!(!dir.join("backup").exists(), "closing removes it");
    drop(store);
    // What a killed daemon leaves behind is removed at the next opening.
    fs::create_dir(dir.join("backup")).unwrap();
    drop(Store::open(small(&dir)).unwrap());
    assert!(!dir.join("backup").exists());
}

/// A disk on which a backup would leave too little room for publishing.
struct Narrow;

impl Io for Narrow {
    fn space(&self, _: &Path) -> std::io::Result<Space> {
        Ok(Space { free: 40 << 20, total: 1 << 40 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_leaves_the_reserve_for_publishing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let mut options = small(&dir);
    options.io = Arc::new(Narrow);
    let store = Store::open(options).unwrap();
    store.start_backup(None).unwrap();
    let why = until("a refusal", || async {
        match store.backup_status() {
            StageStatus::Failed { why } => Some(why),
            StageStatus::Running { .. } => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(why.contains("not enough free space"), "{why}");
    let least = (RESERVE + RESERVE / 8 + (64 << 20)).to_string();
    assert!(why.contains(&least) && why.contains("store.reserve_bytes"), "{why}");
    until("nothing left of it", || async { (!dir.join("backup").exists()).then_some(()) }).await;
    let writes = store.clone();
    tokio::task::spawn_blocking(move || write_rows(&writes, 0..1)).await.unwrap();
    store.close().await;
    // A stopped store publishes nothing, so the operator decides about the room.
    store::backup(&dir, &temp.path().join("backup"), &SystemClock, &mut silent()).unwrap();
}

/// Rows alone keep no segment: after some checkpoints the journal no longer continues where the backup ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_with_a_missing_part_or_of_another_store_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let (dir, backup) = (path("data"), path("backup"));
    drop(Store::open(small(&dir)).unwrap());
    let first = store::backup(&dir, &backup, &SystemClock, &mut silent()).unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let writes = store.clone();
    tokio::task::spawn_blocking(move || write_rows(&writes, 0..60)).await.unwrap();
    until("the end of old segments", || async { (segments(&dir).len() <= 2).then_some(()) }).await;
    store.close().await;
    drop(store);
    let error = store::backup(&dir, &backup, &SystemClock, &mut silent()).unwrap_err();
    assert!(matches!(error, BackupError::Gone { since } if since == first.manifest.last), "{error}");
    drop(Store::open(small(&path("other"))).unwrap());
    let error = store::backup(&path("other"), &backup, &SystemClock, &mut silent()).unwrap_err();
    assert!(matches!(error, BackupError::Other), "{error}");
    assert_eq!(Manifest::read(&backup).unwrap(), first.manifest, "it is as it was");
    assert_sound(&backup);
    assert!(!dir.join("backup").exists());
    // A new backup is made in another place, and also of the restored store.
    store::backup(&dir, &path("second"), &SystemClock, &mut silent()).unwrap();
    store::restore(&path("second"), &path("restored"), Until::End, &mut silent()).unwrap();
    drop(Store::open(small(&path("restored"))).unwrap());
    store::backup(&path("restored"), &path("third"), &SystemClock, &mut silent()).unwrap();
    assert_sound(&path("third"));
}

#[tokio::test]
async fn a_backup_of_a_running_daemon_needs_an_operator_key() {
    let daemon = Daemon::start().await;
    let admin = daemon.admin_addr();
    let plain = daemon.create_key(json!({"name": "plain", "scopes": ["*"]})).await;
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(Call::new(admin, method, "/backup").anonymous().send().await.status, 401);
        assert_eq!(Call::new(admin, method, "/backup").key(&plain).send().await.status, 403);
        assert_eq!(daemon.call(method, "/backup").send().await.status, 404, "not on the public listener");
    }
    assert!(!daemon.data_dir().join("backup").exists());
    let asked = Call::new(admin, "GET", "/backup").key(&daemon.key).send().await;
    assert_eq!(asked.json()["data"], json!({"state": "none"}));
    let asked = Call::new(admin, "POST", "/backup?position=1").key(&daemon.key).send().await;
    assert_eq!(asked.status, 400);
    // Without a key the command says what to do.
    let temp = tempfile::tempdir().unwrap();
    let (to, dir) = (temp.path().join("b"), daemon.data_dir().display().to_string());
    let mut command = common::command(temp.path());
    let output = command.args(["backup", to.to_str().unwrap(), "--data-dir", &dir]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(73), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("operator key"));
    let output = common::command(temp.path()).args(["verify", &dir]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(73), "a running daemon's directory is not verified: {output:?}");
}

/// A backup inside the data directory would be treated as a part of the store and be deleted with it.
#[test]
fn a_backup_inside_the_data_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    drop(Store::open(small(&path("data"))).unwrap());
    fs::create_dir(path("data/room")).unwrap();
    std::os::unix::fs::symlink(path("data/room"), path("link")).unwrap();
    std::os::unix::fs::symlink(path("data"), path("other")).unwrap();
    for name in [
        "data/b",
        "data/room",
        "data/a/b",
        "link/b",
        "link",
        "other/b",
        "data/../data/b",
        "data",
        "link/../b",
    ] {
        for dir in ["data", "other", "link/.."] {
            let error = store::backup(&path(dir), &path(name), &SystemClock, &mut silent()).unwrap_err();
            assert!(matches!(error, BackupError::Inside { .. }), "{dir} into {name}: {error}");
        }
    }
    assert_eq!(fs::read_dir(path("data/room")).unwrap().count(), 0);
    store::backup(&path("data"), &path("data-b"), &SystemClock, &mut silent()).unwrap();
}

#[test]
fn a_backup_path_through_a_missing_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    drop(Store::open(small(&path("data"))).unwrap());
    let first = store::backup(&path("data"), &path("b"), &SystemClock, &mut silent()).unwrap();
    store::backup(&path("data"), &path("absent/../b"), &SystemClock, &mut silent()).unwrap_err();
    assert!(!path("absent").exists());
    assert_eq!(Manifest::read(&path("b")).unwrap(), first.manifest, "it is as it was");
}

/// The first backup seals the tail of a stopped store's journal, and closing removes it. After that the state
/// is at a position that no segment reaches.
#[test]
fn a_stopped_store_can_be_backed_up_repeatedly() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let store = Store::open(small(&path("data"))).unwrap();
    write_rows(&store, 0..3);
    store.close_blocking();
    drop(store);
    for (first, second) in [("b1", "b2"), ("b3", "b4")] {
        store::backup(&path("data"), &path(first), &SystemClock, &mut silent()).unwrap();
        store::backup(&path("data"), &path(second), &SystemClock, &mut silent()).unwrap();
        for name in [first, second] {
            assert_sound(&path(name));
            let restored = path(&format!("{name}-restored"));
            store::restore(&path(name), &restored, Until::End, &mut silent()).unwrap();
            let store = Store::open(small(&restored)).unwrap();
            assert_eq!(store.organizations_blocking().unwrap().len(), 1, "{name}");
            write_rows(&store, 3..4);
            store.close_blocking();
            drop(store);
            assert_sound(&restored);
        }
        // Adding to the backup continues from there, with and without new data.
        store::backup(&path("data"), &path(second), &SystemClock, &mut silent()).unwrap();
        let store = Store::open(small(&path("data"))).unwrap();
        write_rows(&store, 4..6);
        store.close_blocking();
        drop(store);
        store::backup(&path("data"), &path(second), &SystemClock, &mut silent()).unwrap();
        assert_sound(&path(second));
        store::restore(&path(second), &path(&format!("{second}-added")), Until::End, &mut silent()).unwrap();
        assert_sound(&path(&format!("{second}-added")));
    }
}
