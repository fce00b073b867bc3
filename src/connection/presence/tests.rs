//! Tests of the rosters under a clock that the test moves. Counting streams over sockets is tested in
//! `tests/presence.rs`.

use super::super::admission::{Admission, AdmissionError, ConnectionPermit, Limits};
use super::*;
use crate::auth::{CredentialId, CredentialSource, Principal, ScopeSet};
use crate::time::ManualClock;

const ACME: TenantId = TenantId(1);
const GRACE_MS: u64 = 10_000;

struct Fixture {
    clock: Arc<ManualClock>,
    presence: Arc<Presence>,
    keeper: PresenceTracker,
}

impl Fixture {
    /// Presence is switched on for [`ACME`].
    fn new() -> Fixture {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let presence = Presence::new(clock.clone(), Duration::from_millis(GRACE_MS));
        let mut fixture = Fixture { clock, keeper: PresenceTracker::new(presence.clone()), presence };
        fixture.presence.set_enabled(ACME, true);
        assert_eq!(fixture.keeper.step(), TrackerStep::EnrolConnected(ACME));
        fixture
    }

    fn connect(&self, sub: &str) {
        self.presence.stream_opened(ACME, sub);
        self.presence.arrived(ACME, sub);
    }

    /// Returns the notices until nothing is left to do now. If `works` is false, every publish fails once.
    fn publish_due(&mut self, works: bool) -> Vec<String> {
        let mut published = Vec::new();
        loop {
            match self.keeper.step() {
                TrackerStep::Publish(change) => {
                    published.push(format!("{}{}", if change.online { '+' } else { '-' }, change.sub));
                    self.keeper.on_published(change, works);
                }
                TrackerStep::EnrolConnected(_) => {}
                TrackerStep::Wait(_) => return published,
            }
        }
    }

    fn published(&mut self) -> Vec<String> {
        self.publish_due(true)
    }

    fn present(&self) -> Vec<String> {
        let page = self.presence.page(ACME, None, 100, None, |_| true).expect("switched on");
        page.users.iter().map(|user| user.sub.to_string()).collect()
    }
}

fn user(tenant: TenantId, sub: &str) -> Arc<Principal> {
    Arc::new(Principal {
        tenant,
        org_id: "org".into(),
        sub: Some(sub.into()),
        roles: Box::default(),
        scopes: ScopeSet::default(),
        narrowing: Default::default(),
        expires_at_ms: None,
        credential: CredentialId::Local,
        via: CredentialSource::Bearer,
    })
}

#[test]
fn online_is_published_at_once_and_offline_after_the_grace_time() {
    let mut fixture = Fixture::new();
    fixture.connect("ann");
    assert_eq!(fixture.published(), ["+ann"]);
    fixture.clock.advance(60_000);
    fixture.presence.last_stream_closed(ACME, "ann");
    assert!(fixture.published().is_empty());
    assert_eq!(fixture.keeper.step(), TrackerStep::Wait(Some(Duration::from_millis(GRACE_MS))));
    fixture.clock.advance(GRACE_MS - 1);
    assert!(fixture.published().is_empty());
    assert_eq!(fixture.present(), ["ann"]);
    fixture.clock.advance(1);
    assert_eq!(fixture.published(), ["-ann"]);
    assert!(fixture.present().is_empty());
    assert_eq!(fixture.keeper.step(), TrackerStep::Wait(None), "nothing is kept of who is gone");
}

/// However often the user goes and comes back, nothing is published, one entry waits, and the grace time
/// counts from the last time it went.
#[test]
fn a_user_who_reconnects_within_the_grace_time_stays_online() {
    let mut fixture = Fixture::new();
    fixture.connect("ann");
    assert_eq!(fixture.published(), ["+ann"]);
    for _ in 0..100 {
        fixture.presence.last_stream_closed(ACME, "ann");
        fixture.clock.advance(GRACE_MS - 1);
        fixture.connect("ann");
        assert!(fixture.published().is_empty());
        assert!(fixture.keeper.later.len() <= 1);
    }
    fixture.presence.last_stream_closed(ACME, "ann");
    fixture.clock.advance(GRACE_MS - 1);
    assert!(fixture.published().is_empty());
    fixture.clock.advance(1);
    assert_eq!(fixture.published(), ["-ann"]);
}

/// A short visit is published like a long one, also if the keeper checks it late.
#[test]
fn online_and_offline_alternate_whatever_comes_between() {
    let mut fixture = Fixture::new();
    fixture.connect("ann");
    fixture.presence.last_stream_closed(ACME, "ann");
    fixture.clock.advance(GRACE_MS);
    assert_eq!(fixture.published(), ["+ann", "-ann"]);

    // The user is back while `offline` is being published: that is a new `online`, with a new start time.
    fixture.connect("ann");
    assert_eq!(fixture.published(), ["+ann"]);
    fixture.presence.last_stream_closed(ACME, "ann");
    fixture.published();
    fixture.clock.advance(GRACE_MS);
    let TrackerStep::Publish(change) = fixture.keeper.step() else { panic!("due") };
    fixture.connect("ann");
    fixture.keeper.on_published(change, true);
    assert_eq!(fixture.published(), ["+ann"]);
    let page = fixture.presence.page(ACME, None, 1, None, |_| true).expect("switched on");
    assert_eq!(page.users[0].since_ms, fixture.clock.now_ms());
}

/// The stream was admitted, and then its upgrade failed.
#[test]
fn a_user_without_a_stream_is_neither_published_nor_listed() {
    let mut fixture = Fixture::new();
    fixture.presence.stream_opened(ACME, "ann");
    assert!(fixture.present().is_empty());
    fixture.presence.last_stream_closed(ACME, "ann");
    assert!(fixture.published().is_empty());
    assert_eq!(fixture.keeper.step(), TrackerStep::Wait(None));
}

#[test]
fn a_failed_publish_is_retried_while_the_state_still_holds() {
    let mut fixture = Fixture::new();
    fixture.connect("ann");
    fixture.connect("bob");
    fixture.connect("cy");
    assert_eq!(fixture.publish_due(false), ["+ann", "+bob", "+cy"]);
    assert!(fixture.publish_due(false).is_empty(), "not before its time");
    // Bob leaves before `online` was published for him, so `offline` is not published either.
    fixture.presence.last_stream_closed(ACME, "bob");
    fixture.clock.advance(RETRY_MS);
    assert_eq!(fixture.publish_due(false), ["+ann", "+bob", "+cy"]);
    fixture.clock.advance(RETRY_MS);
    assert_eq!(fixture.published(), ["+ann", "+cy"]);
    assert_eq!(fixture.present(), ["ann", "cy"]);
    for sub in ["ann", "cy"] {
        fixture.presence.last_stream_closed(ACME, sub);
    }
    fixture.published();
    fixture.clock.advance(GRACE_MS);
    assert_eq!(fixture.publish_due(false), ["-ann", "-cy"]);
    fixture.connect("ann");
    fixture.clock.advance(RETRY_MS);
    assert_eq!(fixture.published(), ["-cy"]);
    assert_eq!(fixture.present(), ["ann"]);
}

/// The muster finds users that were connected before: they are listed without a notice, and `offline` is
/// published when they leave.
#[test]
fn presence_can_be_switched_at_any_time() {
    let mut fixture = Fixture::new();
    fixture.presence.stream_found(ACME, "early");
    fixture.connect("late");
    assert_eq!(fixture.published(), ["+late"]);
    assert_eq!(fixture.present(), ["early", "late"]);
    for sub in ["early", "late"] {
        fixture.presence.last_stream_closed(ACME, sub);
    }
    assert!(fixture.published().is_empty());
    fixture.connect("untold");

    fixture.presence.set_enabled(ACME, false);
    assert!(fixture.presence.page(ACME, None, 1, None, |_| true).is_none());
    fixture.connect("nobody");
    fixture.clock.advance(GRACE_MS);
    assert!(fixture.published().is_empty());

    fixture.presence.set_enabled(ACME, true);
    fixture.presence.set_enabled(ACME, true);
    assert_eq!(fixture.keeper.step(), TrackerStep::EnrolConnected(ACME));
    assert_eq!(fixture.keeper.step(), TrackerStep::Wait(None), "once, and nothing of before is left");
    assert!(fixture.present().is_empty());
}

/// An `offline` that waits from before the switch does not end a presence that began after it.
#[test]
fn a_new_roster_starts_empty() {
    let mut fixture = Fixture::new();
    fixture.connect("ann");
    assert_eq!(fixture.published(), ["+ann"]);
    fixture.presence.last_stream_closed(ACME, "ann");
    assert!(fixture.published().is_empty());
    fixture.clock.advance(GRACE_MS / 2);
    fixture.presence.set_enabled(ACME, false);
    fixture.presence.set_enabled(ACME, true);
    fixture.connect("ann");
    fixture.presence.last_stream_closed(ACME, "ann");
    assert_eq!(fixture.published(), ["+ann"]);
    fixture.clock.advance(GRACE_MS / 2);
    assert!(fixture.published().is_empty(), "its grace time runs still");
    fixture.clock.advance(GRACE_MS / 2);
    assert_eq!(fixture.published(), ["-ann"]);
}

#[test]
fn a_roster_is_read_page_by_page() {
    let fixture = Fixture::new();
    for n in 0..25 {
        fixture.connect(&format!("u{n:02}"));
    }
    let (mut after, mut found, mut pages) = (None::<Arc<str>>, Vec::new(), 0);
    loop {
        let page = fixture.presence.page(ACME, after.as_deref(), 10, None, |_| true).expect("on");
        found.extend(page.users.iter().map(|user| user.sub.to_string()));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (25, 3));
    assert!(found.is_sorted());
    let wanted: BTreeSet<Box<str>> = ["u03", "u20", "zoe"].map(Box::from).into();
    let page = fixture.presence.page(ACME, Some("u03"), 10, Some(&wanted), |_| true).expect("on");
    assert_eq!(page.users.iter().map(|user| &*user.sub).collect::<Vec<_>>(), ["u20"]);
    let page = fixture.presence.page(ACME, None, 10, None, |sub| sub.ends_with('7')).expect("on");
    assert_eq!((page.users.len(), page.next), (2, None));
    assert!(fixture.presence.page(TenantId(2), None, 10, None, |_| true).is_none());
}

/// A page for a credential with few channels examines a limited number of users and says where to continue.
#[test]
fn an_empty_page_of_a_roster_has_a_cursor_to_continue() {
    let fixture = Fixture::new();
    for n in 0..=EXAMINED {
        fixture.connect(&format!("u{n:05}"));
    }
    let page = fixture.presence.page(ACME, None, 10, None, |_| false).expect("on");
    assert_eq!((page.users.len(), page.next.as_deref()), (0, Some("u00999")));
}

#[test]
fn a_full_roster_adds_no_user() {
    let mut fixture = Fixture::new();
    for n in 0..PRESENT {
        fixture.connect(&n.to_string());
    }
    fixture.connect("late");
    fixture.presence.last_stream_closed(ACME, "late");
    assert_eq!(fixture.published().len(), PRESENT);
    fixture.presence.last_stream_closed(ACME, "7");
    fixture.clock.advance(GRACE_MS);
    assert_eq!(fixture.published(), ["-7"]);
    fixture.connect("late");
    assert_eq!(fixture.published(), ["+late"]);
}

/// Only streams make a user present, and a stream that a later limit refuses does not.
#[test]
fn only_admitted_streams_are_counted() {
    let mut fixture = Fixture::new();
    let limits = Limits { total: 0, per_organization: 0, per_user: 2, per_address: 2, count_local: false };
    let admission = Admission::new(limits, fixture.presence.clone());
    let user = |sub: &str| user(ACME, sub);
    let address = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    let poll = admission.admit_poll(user("ann"), None).expect("a place");
    assert_eq!(admission.streams_of(ACME, "ann"), 0);
    let stream = admission.admit(user("ann"), address).expect("a place");
    assert_eq!(admission.admit(user("ann"), address).err(), Some(AdmissionError::User(2)));
    stream.arrived();
    assert_eq!((fixture.published(), admission.streams_of(ACME, "ann")), (vec!["+ann".to_owned()], 1));
    drop(poll);

    let other = admission.admit_poll(user("cy"), address).expect("a place");
    assert_eq!(admission.admit(user("bob"), address).err(), Some(AdmissionError::Address(2)));
    assert!(fixture.published().is_empty());
    assert_eq!(fixture.present(), ["ann"]);
    drop((stream, other));
    assert!(fixture.published().is_empty());
    fixture.clock.advance(GRACE_MS);
    assert_eq!(fixture.published(), ["-ann"]);
    assert_eq!((admission.total(), admission.streams_of(ACME, "ann")), (0, 0));
    assert_eq!(fixture.keeper.step(), TrackerStep::Wait(None));
}

/// A muster finds every connected user of its organization only, and none that only has a waiting poll.
#[test]
fn users_connected_before_the_switch_are_enrolled() {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let presence = Presence::new(clock.clone(), Duration::ZERO);
    let limits = Limits { total: 0, per_organization: 0, per_user: 0, per_address: 0, count_local: false };
    let admission = Admission::new(limits, presence.clone());
    let enter = |tenant: u64, sub: &str| admission.admit(user(TenantId(tenant), sub), None).expect("a place");
    let held = [enter(1, "ann"), enter(1, "ann"), enter(1, "bob"), enter(2, "cy")];
    let _poll = admission.admit_poll(user(ACME, "dan"), None).expect("a place");
    held.iter().for_each(ConnectionPermit::arrived);
    let mut fixture = Fixture { clock, keeper: PresenceTracker::new(presence.clone()), presence };
    fixture.presence.set_enabled(ACME, true);
    assert_eq!(fixture.keeper.step(), TrackerStep::EnrolConnected(ACME));
    admission.enrol_connected(ACME, None);
    assert_eq!(fixture.present(), ["ann", "bob"]);
    assert!(fixture.published().is_empty());
    assert_eq!(
        admission.enrol_connected(ACME, Some("ann")).as_deref(),
        Some("dan"),
        "it goes on after a user"
    );
    assert_eq!(admission.enrol_connected(ACME, Some("dan")), None);
    drop(held);
    let mut gone = fixture.published();
    gone.sort();
    assert_eq!(gone, ["-ann", "-bob"]);
}
