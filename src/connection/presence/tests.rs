//! Tests of the rosters under a clock that the test moves. Counting streams over sockets is tested in
//! `tests/presence.rs`.

use super::super::admission::{Admission, Admitted, Limits, Refused};
use super::*;
use crate::auth::{Credential, Principal, ScopeSet, Via};
use crate::time::ManualClock;

const ACME: TenantId = TenantId(1);
const GRACE_MS: u64 = 10_000;

struct Bench {
    clock: Arc<ManualClock>,
    presence: Arc<Presence>,
    keeper: Keeper,
}

impl Bench {
    /// Presence is switched on for [`ACME`].
    fn new() -> Bench {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let presence = Presence::new(clock.clone(), Duration::from_millis(GRACE_MS));
        let mut bench = Bench { clock, keeper: Keeper::new(presence.clone()), presence };
        bench.presence.switch(ACME, true);
        assert_eq!(bench.keeper.step(), Step::Muster(ACME));
        bench
    }

    fn comes(&self, sub: &str) {
        self.presence.came(ACME, sub);
        self.presence.arrived(ACME, sub);
    }

    /// Returns the notices until nothing is left to do now. If `works` is false, every publish fails once.
    fn tells(&mut self, works: bool) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            match self.keeper.step() {
                Step::Tell(tell) => {
                    told.push(format!("{}{}", if tell.online { '+' } else { '-' }, tell.sub));
                    self.keeper.told(tell, works);
                }
                Step::Muster(_) => {}
                Step::Wait(_) => return told,
            }
        }
    }

    fn told(&mut self) -> Vec<String> {
        self.tells(true)
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
        credential: Credential::Local,
        via: Via::Bearer,
    })
}

#[test]
fn coming_is_told_at_once_and_going_after_the_grace_time() {
    let mut bench = Bench::new();
    bench.comes("ann");
    assert_eq!(bench.told(), ["+ann"]);
    bench.clock.advance(60_000);
    bench.presence.went(ACME, "ann");
    assert!(bench.told().is_empty());
    assert_eq!(bench.keeper.step(), Step::Wait(Some(Duration::from_millis(GRACE_MS))));
    bench.clock.advance(GRACE_MS - 1);
    assert!(bench.told().is_empty());
    assert_eq!(bench.present(), ["ann"]);
    bench.clock.advance(1);
    assert_eq!(bench.told(), ["-ann"]);
    assert!(bench.present().is_empty());
    assert_eq!(bench.keeper.step(), Step::Wait(None), "nothing is kept of who is gone");
}

/// However often the user goes and comes back, nothing is published, one entry waits, and the grace time
/// counts from the last time it went.
#[test]
fn who_is_back_in_time_was_never_away() {
    let mut bench = Bench::new();
    bench.comes("ann");
    assert_eq!(bench.told(), ["+ann"]);
    for _ in 0..100 {
        bench.presence.went(ACME, "ann");
        bench.clock.advance(GRACE_MS - 1);
        bench.comes("ann");
        assert!(bench.told().is_empty());
        assert!(bench.keeper.later.len() <= 1);
    }
    bench.presence.went(ACME, "ann");
    bench.clock.advance(GRACE_MS - 1);
    assert!(bench.told().is_empty());
    bench.clock.advance(1);
    assert_eq!(bench.told(), ["-ann"]);
}

/// A short visit is published like a long one, also if the keeper checks it late.
#[test]
fn online_and_offline_alternate_whatever_comes_between() {
    let mut bench = Bench::new();
    bench.comes("ann");
    bench.presence.went(ACME, "ann");
    bench.clock.advance(GRACE_MS);
    assert_eq!(bench.told(), ["+ann", "-ann"]);

    // The user is back while `offline` is being published: that is a new `online`, with a new start time.
    bench.comes("ann");
    assert_eq!(bench.told(), ["+ann"]);
    bench.presence.went(ACME, "ann");
    bench.told();
    bench.clock.advance(GRACE_MS);
    let Step::Tell(tell) = bench.keeper.step() else { panic!("due") };
    bench.comes("ann");
    bench.keeper.told(tell, true);
    assert_eq!(bench.told(), ["+ann"]);
    let page = bench.presence.page(ACME, None, 1, None, |_| true).expect("switched on");
    assert_eq!(page.users[0].since_ms, bench.clock.now_ms());
}

/// The stream was admitted, and then its upgrade failed.
#[test]
fn who_never_arrives_is_neither_told_nor_listed() {
    let mut bench = Bench::new();
    bench.presence.came(ACME, "ann");
    assert!(bench.present().is_empty());
    bench.presence.went(ACME, "ann");
    assert!(bench.told().is_empty());
    assert_eq!(bench.keeper.step(), Step::Wait(None));
}

#[test]
fn what_cannot_be_published_is_tried_again_as_long_as_it_is_true() {
    let mut bench = Bench::new();
    bench.comes("ann");
    bench.comes("bob");
    bench.comes("cy");
    assert_eq!(bench.tells(false), ["+ann", "+bob", "+cy"]);
    assert!(bench.tells(false).is_empty(), "not before its time");
    // Bob leaves before `online` was published for him, so `offline` is not published either.
    bench.presence.went(ACME, "bob");
    bench.clock.advance(AGAIN_MS);
    assert_eq!(bench.tells(false), ["+ann", "+bob", "+cy"]);
    bench.clock.advance(AGAIN_MS);
    assert_eq!(bench.told(), ["+ann", "+cy"]);
    assert_eq!(bench.present(), ["ann", "cy"]);
    for sub in ["ann", "cy"] {
        bench.presence.went(ACME, sub);
    }
    bench.told();
    bench.clock.advance(GRACE_MS);
    assert_eq!(bench.tells(false), ["-ann", "-cy"]);
    bench.comes("ann");
    bench.clock.advance(AGAIN_MS);
    assert_eq!(bench.told(), ["-cy"]);
    assert_eq!(bench.present(), ["ann"]);
}

/// The muster finds users that were connected before: they are listed without a notice, and `offline` is
/// published when they leave.
#[test]
fn the_switch_is_obeyed_at_any_time() {
    let mut bench = Bench::new();
    bench.presence.found(ACME, "early");
    bench.comes("late");
    assert_eq!(bench.told(), ["+late"]);
    assert_eq!(bench.present(), ["early", "late"]);
    for sub in ["early", "late"] {
        bench.presence.went(ACME, sub);
    }
    assert!(bench.told().is_empty());
    bench.comes("untold");

    bench.presence.switch(ACME, false);
    assert!(bench.presence.page(ACME, None, 1, None, |_| true).is_none());
    bench.comes("nobody");
    bench.clock.advance(GRACE_MS);
    assert!(bench.told().is_empty());

    bench.presence.switch(ACME, true);
    bench.presence.switch(ACME, true);
    assert_eq!(bench.keeper.step(), Step::Muster(ACME));
    assert_eq!(bench.keeper.step(), Step::Wait(None), "once, and nothing of before is left");
    assert!(bench.present().is_empty());
}

/// An `offline` that waits from before the switch does not end a presence that began after it.
#[test]
fn a_roster_knows_nothing_of_the_one_before_it() {
    let mut bench = Bench::new();
    bench.comes("ann");
    assert_eq!(bench.told(), ["+ann"]);
    bench.presence.went(ACME, "ann");
    assert!(bench.told().is_empty());
    bench.clock.advance(GRACE_MS / 2);
    bench.presence.switch(ACME, false);
    bench.presence.switch(ACME, true);
    bench.comes("ann");
    bench.presence.went(ACME, "ann");
    assert_eq!(bench.told(), ["+ann"]);
    bench.clock.advance(GRACE_MS / 2);
    assert!(bench.told().is_empty(), "its grace time runs still");
    bench.clock.advance(GRACE_MS / 2);
    assert_eq!(bench.told(), ["-ann"]);
}

#[test]
fn a_roster_is_read_page_by_page() {
    let bench = Bench::new();
    for n in 0..25 {
        bench.comes(&format!("u{n:02}"));
    }
    let (mut after, mut found, mut pages) = (None::<Arc<str>>, Vec::new(), 0);
    loop {
        let page = bench.presence.page(ACME, after.as_deref(), 10, None, |_| true).expect("on");
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
    let page = bench.presence.page(ACME, Some("u03"), 10, Some(&wanted), |_| true).expect("on");
    assert_eq!(page.users.iter().map(|user| &*user.sub).collect::<Vec<_>>(), ["u20"]);
    let page = bench.presence.page(ACME, None, 10, None, |sub| sub.ends_with('7')).expect("on");
    assert_eq!((page.users.len(), page.next), (2, None));
    assert!(bench.presence.page(TenantId(2), None, 10, None, |_| true).is_none());
}

/// A page for a credential with few channels examines a limited number of users and says where to continue.
#[test]
fn a_page_that_finds_nothing_ends_and_goes_on() {
    let bench = Bench::new();
    for n in 0..=EXAMINED {
        bench.comes(&format!("u{n:05}"));
    }
    let page = bench.presence.page(ACME, None, 10, None, |_| false).expect("on");
    assert_eq!((page.users.len(), page.next.as_deref()), (0, Some("u00999")));
}

#[test]
fn a_full_roster_takes_nobody() {
    let mut bench = Bench::new();
    for n in 0..PRESENT {
        bench.comes(&n.to_string());
    }
    bench.comes("late");
    bench.presence.went(ACME, "late");
    assert_eq!(bench.told().len(), PRESENT);
    bench.presence.went(ACME, "7");
    bench.clock.advance(GRACE_MS);
    assert_eq!(bench.told(), ["-7"]);
    bench.comes("late");
    assert_eq!(bench.told(), ["+late"]);
}

/// Only streams make a user present, and a stream that a later limit refuses does not.
#[test]
fn what_is_counted_is_streams_that_were_let_in() {
    let mut bench = Bench::new();
    let limits = Limits { total: 0, per_organization: 0, per_user: 2, per_address: 2, count_local: false };
    let admission = Admission::new(limits, bench.presence.clone());
    let user = |sub: &str| user(ACME, sub);
    let address = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    let poll = admission.admit_poll(user("ann"), None).expect("a place");
    assert_eq!(admission.streams_of(ACME, "ann"), 0);
    let stream = admission.admit(user("ann"), address).expect("a place");
    assert_eq!(admission.admit(user("ann"), address).err(), Some(Refused::User(2)));
    stream.arrived();
    assert_eq!((bench.told(), admission.streams_of(ACME, "ann")), (vec!["+ann".to_owned()], 1));
    drop(poll);

    let other = admission.admit_poll(user("cy"), address).expect("a place");
    assert_eq!(admission.admit(user("bob"), address).err(), Some(Refused::Address(2)));
    assert!(bench.told().is_empty());
    assert_eq!(bench.present(), ["ann"]);
    drop((stream, other));
    assert!(bench.told().is_empty());
    bench.clock.advance(GRACE_MS);
    assert_eq!(bench.told(), ["-ann"]);
    assert_eq!((admission.total(), admission.streams_of(ACME, "ann")), (0, 0));
    assert_eq!(bench.keeper.step(), Step::Wait(None));
}

/// A muster finds every connected user of its organization only, and none that only has a waiting poll.
#[test]
fn a_muster_finds_who_came_before_the_switch() {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let presence = Presence::new(clock.clone(), Duration::ZERO);
    let limits = Limits { total: 0, per_organization: 0, per_user: 0, per_address: 0, count_local: false };
    let admission = Admission::new(limits, presence.clone());
    let enter = |tenant: u64, sub: &str| admission.admit(user(TenantId(tenant), sub), None).expect("a place");
    let held = [enter(1, "ann"), enter(1, "ann"), enter(1, "bob"), enter(2, "cy")];
    let _poll = admission.admit_poll(user(ACME, "dan"), None).expect("a place");
    held.iter().for_each(Admitted::arrived);
    let mut bench = Bench { clock, keeper: Keeper::new(presence.clone()), presence };
    bench.presence.switch(ACME, true);
    assert_eq!(bench.keeper.step(), Step::Muster(ACME));
    admission.muster(ACME, None);
    assert_eq!(bench.present(), ["ann", "bob"]);
    assert!(bench.told().is_empty());
    assert_eq!(admission.muster(ACME, Some("ann")).as_deref(), Some("dan"), "it goes on after a user");
    assert_eq!(admission.muster(ACME, Some("dan")), None);
    drop(held);
    let mut gone = bench.told();
    gone.sort();
    assert_eq!(gone, ["-ann", "-bob"]);
}
