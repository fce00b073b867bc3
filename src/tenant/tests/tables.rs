//! Tests that everything kept in memory for an organization is removed with the organization.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::auth::{
    Auth, AuthSettings, Manage, NewKey, NewOrganization, Operate, OwnKey, Principal, Publish, StoredRecords,
};
use crate::store::key_digest;
use crate::tenant::draft::{Draft, DraftOptions};

const ORGANIZATIONS: usize = 1_000;
const AT_ONCE: usize = 50;

struct World {
    auth: Auth,
    tenants: Arc<Tenants>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new(dir: &std::path::Path) -> World {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let mut options = StoreOptions::new(dir);
        (options.reserve_bytes, options.clock) = (0, clock.clone());
        let store = Store::open(options).expect("a store");
        let records = Arc::new(StoredRecords::new(store.clone(), clock.clone()));
        let own = OwnKey::load_or_make(dir).expect("a key");
        let auth = Auth::new(&AuthSettings::default(), own, records, clock.clone()).expect("auth");
        let limits = Limits {
            ring_slots: 64,
            ring_bytes: 1 << 20,
            ring_bytes_total: 1 << 26,
            event_bytes: 65_536,
            rates: RateLimits::default(),
            streams: crate::tenant::StreamLimits::default(),
        };
        let (pins, _) = Pins::new(1);
        let metrics = Arc::new(Metrics::new(1));
        let tenants = Tenants::new(store, pins, Arc::new([]), clock.clone(), metrics, limits);
        World { auth, tenants, clock }
    }

    /// Number of entries of every table with entries for organizations.
    fn entries(&self) -> [(&'static str, u64); 7] {
        let stats = self.tenants.store().stats();
        [
            ("auth", self.auth.entries() as u64),
            ("tenants", self.tenants.len() as u64),
            ("keys under way", self.tenants.key_locks.len() as u64),
            ("bytes in rings", self.tenants.ring_bytes() as u64),
            ("logs", self.tenants.store().logs_in_memory() as u64),
            ("the committer's", stats.committer_entries.load(Relaxed)),
            ("erasures", stats.erasures.load(Relaxed)),
        ]
    }

    /// The whole life of an organization, with an entry in every table.
    async fn live(&self, n: usize) {
        let operator = Principal::local_operator();
        let operate = operator.authorize::<Operate>().expect("an operator");
        let manage = operator.authorize::<Manage>().expect("a manager");
        let id = format!("org-{n}");
        let new = NewOrganization { id: Some(id.clone()), first_key: true, ..NewOrganization::default() };
        let tenant = self.auth.create_organization(&operate, new).await.expect("made").organization.tenant;
        let new = NewKey { name: "k".into(), scopes: vec!["*".into()], ..NewKey::default() };
        self.auth.create_key(&manage, Some(&id), new).await.expect("made");
        self.auth.set_disabled(&manage, Some(&id), "eve", None, true).await.expect("disabled");
        self.auth.revoke_token(&manage, Some(&id), "foreign").await.expect("revoked");
        let open = self.tenants.open(tenant).await.expect("open");
        let json = r#"{"type":"message","agent_id":"a","user_id":"ann","message_id":"m","content":"c"}"#;
        let key = idempotency::DedupKey { digest: [1; 32], body: [2; 32] };
        let right = operator.authorize::<Publish>().expect("a publisher");
        let draft = |json: &str| {
            let mut draft = self.tenants.draft(DraftOptions::default());
            draft.push(&right, &mut Event::parse(json).expect("valid"));
            draft
        };
        let publish = async |events: Draft, kind: PublishKind| {
            let request = PublishRequest { actor: Actor::daemon(), tenant, events, kind };
            self.tenants.publish(request, &ChannelWaiter).await
        };
        let once = PublishKind::Events { key: Some(key), ack: AckMode::Durable };
        publish(draft(json), once).await.expect("published");
        open.remember_known(key_digest(&[b"known"]));
        let mut rows = Rows::new();
        rows.put_row(tenant, Table::Messages, "id", b"row").expect("short");
        rows.erase_user(tenant, "ann").expect("short");
        self.tenants.write(Actor::daemon(), rows).await.expect("written");
        self.auth.delete_organization(&operate, &id).await.expect("deleted");
        // A request that has passed all checks before the deletion finds nothing to write to.
        let late = draft(r#"{"type":"custom","channel":"c","data":1}"#);
        let late = publish(late, MEMORY).await;
        assert!(matches!(late, Err(PublishError::Commit(CommitError::Deleted))));
    }
}

#[tokio::test]
async fn a_thousand_organizations_that_come_and_go_leave_no_entry_in_any_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path());
    world.auth.bootstrap().await.expect("made").expect("an empty store");
    let before = world.entries();
    for first in (0..ORGANIZATIONS).step_by(AT_ONCE) {
        futures_util::future::join_all((first..first + AT_ONCE).map(|n| world.live(n))).await;
    }
    world.clock.advance(QUIET_MS);
    let since = std::time::Instant::now();
    while world.entries() != before {
        let patience = std::time::Duration::from_secs(30);
        assert!(since.elapsed() < patience, "{:?} are left of {before:?}", world.entries());
        world.tenants.release_idle();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let tombstones = world.tenants.store().stats().tombstones.load(Relaxed);
    assert!(tombstones <= 1, "{tombstones} ranges of deleted organizations");
    let kept = world.tenants.store().organizations_blocking().expect("read");
    assert_eq!(
        kept.iter().filter(|row| row.deleted).count(),
        ORGANIZATIONS,
        "their numbers, and nothing more"
    );
}
