//! Tests of deletions against a model: whatever is queued around them, and over restarts, nothing of deleted
//! users and organizations is left in the raw store, and nothing of others is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::Receiver;

use crate::event::Event;
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Engine, EngineOptions};
use crate::store::format::LogEntry;
use crate::store::format::keys::{self, KeyKind, List};
use crate::store::{
    CommitCallback, CommitError, Group, IdempotencyRecord, ListEntry, LogRead, Organization, Retention, Rows,
    Store, StoreOptions, StoredResponse, Table, TenantLog, Visibility, key_digest,
};

const STEPS: u64 = 400;
const TABLE: Table = Table::Messages;

/// A random generator (xorshift) that gives the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A user and their organization.
type Who = (TenantId, String);

/// The result of a commit.
type Ended = Result<(), CommitError>;

struct World {
    dir: tempfile::TempDir,
    store: Option<Store>,
    random: Random,
    organizations: Vec<TenantId>,
    users: Vec<Who>,
    deleted_organizations: BTreeSet<TenantId>,
    deleted_users: BTreeSet<Who>,
    /// Users deleted in an earlier run; no request of theirs is left.
    forgotten: BTreeSet<Who>,
    /// Events that must be kept.
    events: BTreeMap<(TenantId, Sequence), Who>,
    /// Rows that must be kept, by key id.
    rows: BTreeMap<String, Who>,
    /// Pending commits with the expected result of each.
    waiting: Vec<(Receiver<Ended>, Ended)>,
    logs: BTreeMap<TenantId, Arc<TenantLog>>,
    step: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let mut world = World {
            store: Some(open(dir.path())),
            dir,
            random: Random(seed),
            organizations: Vec::new(),
            users: Vec::new(),
            deleted_organizations: BTreeSet::new(),
            deleted_users: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            events: BTreeMap::new(),
            rows: BTreeMap::new(),
            waiting: Vec::new(),
            logs: BTreeMap::new(),
            step: 0,
        };
        world.create_organization();
        world.create_user();
        world
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    fn queue(&mut self, rows: Rows, expected: Result<(), CommitError>) {
        let (done, committed) = CommitCallback::channel();
        self.store().push_rows(rows, done);
        self.waiting.push((committed, expected));
    }

    fn put_organization(tenant: TenantId, deleted: bool) -> Rows {
        let mut rows = Rows::new();
        let organization = Organization {
            tenant,
            org_id: "the-same-id".into(),
            name: String::new(),
            visibility: Visibility::Private,
            presence: false,
            created_ms: 1,
            deleted,
        };
        rows.put_organization(&organization).expect("short");
        rows
    }

    fn create_organization(&mut self) {
        let tenant = self.store().new_tenant();
        self.organizations.push(tenant);
        self.queue(World::put_organization(tenant, false), Ok(()));
    }

    fn create_user(&mut self) {
        let tenant = self.organizations[self.random.below(self.organizations.len())];
        self.users.push((tenant, format!("user-{}-", self.step)));
    }

    /// Picks a user whose requests may still be pending, deleted or not, with the expected result of a
    /// commit.
    fn somebody(&mut self) -> (Who, Result<(), CommitError>) {
        loop {
            let who = self.users[self.random.below(self.users.len())].clone();
            if !self.forgotten.contains(&who) {
                let dead = self.deleted_organizations.contains(&who.0) || self.deleted_users.contains(&who);
                return (who, if dead { Err(CommitError::Deleted) } else { Ok(()) });
            }
        }
    }

    fn row(&mut self) {
        let (who, expected) = self.somebody();
        let id = format!("row-{}", self.step);
        let mut rows = Rows::new();
        rows.in_name_of(who.0, &who.1);
        rows.put_row(who.0, TABLE, &id, who.1.as_bytes()).expect("short");
        let place = ListEntry { group: Group::new(List::AllMessages, &[&who.1]), number: self.step };
        rows.put_list_entry(who.0, &place, &id).expect("short");
        let answer = StoredResponse::Withheld { id: who.1.clone() };
        let row = IdempotencyRecord { body: [0; 32], answer, created_ms: 0 };
        rows.put_idempotency(who.0, &key_digest(&[id.as_bytes()]), &row).expect("short");
        if expected.is_ok() {
            self.rows.insert(id, who);
        }
        self.queue(rows, expected);
    }

    async fn publish(&mut self) {
        let (who, expected) = self.somebody();
        let log = match self.logs.get(&who.0) {
            Some(log) => log.clone(),
            None => self.store().log(who.0).await.expect("a log"),
        };
        self.logs.insert(who.0, log.clone());
        let json = format!(r#"{{"type":"message","agent_id":"a","user_id":"{}","content":"c"}}"#, who.1);
        let mut frame = Frame::encode(&Event::parse(&json).expect("valid"), 1, 0);
        let sequence = log.end().next();
        frame.seal(sequence, 1, &self.store().cursor_key().encode(who.0, sequence));
        let (done, committed) = CommitCallback::channel();
        self.store().append(&log, Arc::new(frame), Rows::new(), None, done);
        if expected.is_ok() {
            self.events.insert((who.0, sequence), who);
        }
        self.waiting.push((committed, expected));
    }

    fn delete_user(&mut self) {
        let (who, expected) = self.somebody();
        if expected.is_err() {
            return;
        }
        let mut rows = Rows::new();
        rows.erase_user(who.0, &who.1).expect("short");
        // In the daemon, the erasure of resources does this.
        for (id, _) in self.rows.extract_if(.., |_, of| *of == who) {
            rows.delete_row(who.0, TABLE, &id);
            let number = id["row-".len()..].parse().expect("a step");
            rows.delete_list_entry(
                who.0,
                &ListEntry { group: Group::new(List::AllMessages, &[&who.1]), number },
                &id,
            );
        }
        self.events.retain(|_, of| *of != who);
        self.deleted_users.insert(who);
        self.queue(rows, Ok(()));
    }

    fn delete_organization(&mut self) {
        if self.organizations.len() < 2 {
            return;
        }
        let tenant = self.organizations.swap_remove(self.random.below(self.organizations.len()));
        let mut rows = World::put_organization(tenant, true);
        rows.erase_tenant(tenant);
        self.queue(rows, Ok(()));
        self.deleted_organizations.insert(tenant);
        self.events.retain(|_, of| of.0 != tenant);
        self.rows.retain(|_, of| of.0 != tenant);
        self.create_organization(); // with the same id, at once
        self.create_user();
    }

    async fn settle(&mut self) {
        for (committed, expected) in self.waiting.drain(..) {
            assert_eq!(committed.await.expect("a result"), expected);
        }
    }

    async fn restart(&mut self) {
        self.settle().await;
        self.close().await;
        self.store = Some(open(self.dir.path()));
        let dead =
            |who: &&Who| self.deleted_organizations.contains(&who.0) || self.deleted_users.contains(*who);
        self.forgotten = self.users.iter().filter(dead).cloned().collect();
        if self.forgotten.len() == self.users.len() {
            self.create_user();
        }
    }

    async fn close(&mut self) {
        self.logs.clear();
        self.store().close().await;
        self.store = None;
    }

    /// Waits until no erasure is left.
    async fn erased(&self) {
        let since = Instant::now();
        let left = |kind: KeyKind| {
            let engine = self.store().inner().engine.read();
            let engine = engine.as_ref().expect("open");
            engine.first(&[kind as u8], &[kind as u8 + 1]).expect("read").is_some()
        };
        while left(KeyKind::Erase) || left(KeyKind::EraseUser) {
            assert!(since.elapsed() < Duration::from_secs(30), "an erasure does not finish");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Compares the raw store with the model.
    async fn check(&mut self) {
        self.settle().await;
        self.erased().await;
        for tenant in self.organizations.clone() {
            let log = self.store().log(tenant).await.expect("a log");
            let (mut at, mut found) = (Sequence::ZERO, BTreeSet::new());
            while let LogRead::Page(page) = self.store().read_log(&log, at).await.expect("read") {
                found.extend(page.frames().iter().map(|frame| frame.sequence()));
                at = page.frames()[page.frames().len() - 1].sequence();
            }
            let expected = self.events.keys().filter(|(of, _)| *of == tenant).map(|(_, sequence)| *sequence);
            assert_eq!(found, expected.collect(), "events of {tenant:?}");
        }
        for (id, who) in &self.rows {
            let row = self.store().row(who.0, TABLE, id).await.expect("read");
            assert_eq!(row.as_deref(), Some(who.1.as_bytes()), "{id} of {who:?}");
        }
        self.close().await;
        let options = EngineOptions::new(self.dir.path(), Arc::new(crate::store::Disk));
        let engine = Engine::open(&options).expect("opened");
        for row in engine.range(&[0], &[u8::MAX]) {
            let (key, value) = row.expect("read");
            let (kind, tenant, _) = keys::parse(&key).expect("ours");
            let piece = (kind == KeyKind::Log).then(|| LogEntry::read(&value).expect("an entry").piece);
            let piece = piece.map_or_else(Vec::new, |piece| engine.piece(&piece).expect("read"));
            let is_deleted = self.deleted_organizations.contains(&tenant);
            assert!(!is_deleted || kind == KeyKind::Organization, "{kind:?} of deleted {tenant:?} is left");
            // A response that is kept for a day holds only ids of created resources.
            for (of, user) in
                self.deleted_users.iter().filter(|(of, _)| *of == tenant && kind != KeyKind::Idempotency)
            {
                let found = |bytes: &[u8]| memchr::memmem::find(bytes, user.as_bytes()).is_some();
                assert!(
                    !found(&key) && !found(&value) && !found(&piece),
                    "{kind:?} of deleted {user} in {of:?} is left"
                );
            }
        }
        drop(engine);
        self.store = Some(open(self.dir.path()));
    }
}

fn open(dir: &std::path::Path) -> Store {
    let mut options = StoreOptions::new(dir);
    (options.cache_bytes, options.reserve_bytes) = (16 << 20, 0);
    options.retention = Retention { max_age_seconds: 0, max_events: 0, max_bytes: 0 };
    Store::open(options).expect("the store opens")
}

#[tokio::test]
async fn erasures_leave_nothing_of_the_deleted_and_everything_of_others() {
    for seed in [1, 0x9e37_79b9, 0xdead_beef] {
        let mut world = World::new(seed);
        for step in 1..=STEPS {
            world.step = step;
            match world.random.below(100) {
                0..35 => world.row(),
                35..75 => world.publish().await,
                75..83 => world.create_user(),
                83..85 => world.create_organization(),
                85..92 => world.delete_user(),
                92..95 => world.delete_organization(),
                95..98 => world.settle().await,
                _ => world.restart().await,
            }
        }
        world.check().await;
        world.close().await;
    }
}
