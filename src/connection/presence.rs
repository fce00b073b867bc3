//! The present users of each organization that has presence switched on, and the notices to publish about
//! them.
//!
//! * A user is on the roster from its first stream (WebSocket or SSE) until it has had none for the grace
//!   time.
//! * [`super::admission`] counts streams. It reports the steps from none to one and back, under the lock of
//!   that count and so in order. The lock order is: a user's count, the rosters, one roster, the work queue.
//! * Only [`PresenceTracker`] decides what is published, so a user's `online` and `offline` alternate. It does not
//!   know tenants, the log or events: its owner publishes and reports whether that succeeded.
//! * An organization without presence has no roster; nothing is stored or published about its users.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ids::TenantId;
use crate::sync::{Mutex, RwLock};
use crate::time::Clock;

/// The most users on an organization's roster, including those within their grace time. The limit stops
/// credentials that are minted, used once and dropped from filling memory (about 200 bytes each). A user that
/// arrives when the roster is full is not added before its next first connection.
pub const PRESENT: usize = 100_000;
/// The most users that one [`Presence::page`] examines, so that a credential that may see few channels does
/// not cause an endless search.
const EXAMINED: usize = 1_000;
/// Milliseconds after which a failed publish is tried again.
const RETRY_MS: u64 = 1_000;

/// The rosters of all organizations.
pub struct Presence {
    clock: Arc<dyn Clock>,
    grace_ms: u64,
    rosters: RwLock<HashMap<TenantId, Mutex<Roster>>>,
    /// The number of rosters, written under their lock and read without it. A thread that counts a new stream
    /// and reads too small a number misses nothing: the muster that follows a new roster takes the lock of
    /// that user's count later, and so finds the user.
    switched_on: AtomicUsize,
    /// At most one entry for each user on a roster, and one for each change of the setting.
    work: Mutex<VecDeque<RosterTask>>,
    work_added: Notify,
}

/// An organization's users, in the order of their `sub`.
type Roster = BTreeMap<Arc<str>, User>;

#[derive(Debug)]
struct User {
    /// When the user became present, in Unix milliseconds.
    since_ms: u64,
    /// When the last stream ended, in milliseconds of the monotonic clock; `None` while there is one.
    gone_ms: Option<u64>,
    /// Whether `online` was published. Written by the keeper, or on arrival by a muster.
    announced: bool,
    /// Whether the keeper has an entry for this user, due now or later.
    queued: bool,
}

/// Work for the keeper.
#[derive(Debug)]
enum RosterTask {
    /// A roster was created: put the connected users on it.
    SwitchedOn(TenantId),
    /// A roster was removed, and with it the entries that were due later. It is dropped in the keeper, where
    /// no request waits for that.
    SwitchedOff(TenantId, Mutex<Roster>),
    /// Check this user.
    CheckUser(TenantId, Arc<str>),
}

/// A user who is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresentUser {
    /// The user's `sub`.
    pub sub: Arc<str>,
    /// When the user became present, in Unix milliseconds.
    pub since_ms: u64,
}

/// Part of a roster.
#[derive(Default, Debug)]
pub struct PresentPage {
    /// Users in the order of their `sub`.
    pub users: Vec<PresentUser>,
    /// The `sub` to continue after; `None` on the last page.
    pub next: Option<Arc<str>>,
}

impl Presence {
    /// Creates the rosters, with presence switched off for every organization.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, grace: Duration) -> Arc<Presence> {
        Arc::new(Presence {
            clock,
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            rosters: RwLock::default(),
            switched_on: AtomicUsize::new(0),
            work: Mutex::default(),
            work_added: Notify::new(),
        })
    }

    /// Switches presence on or off for an organization. Switched on, the users that are connected are soon on
    /// the roster; switched off, the roster is removed.
    pub fn set_enabled(&self, tenant: TenantId, on: bool) {
        let mut rosters = self.rosters.write();
        let work = match (on, rosters.remove(&tenant)) {
            (false, Some(roster)) => Some(RosterTask::SwitchedOff(tenant, roster)),
            (false, None) => None,
            (true, Some(roster)) => {
                rosters.insert(tenant, roster);
                None
            }
            (true, None) => {
                rosters.insert(tenant, Mutex::default());
                Some(RosterTask::SwitchedOn(tenant))
            }
        };
        self.switched_on.store(rosters.len(), Ordering::Relaxed);
        drop(rosters);
        work.into_iter().for_each(|work| self.push_task(work));
    }

    /// Records a user's first stream. The caller holds the lock of its count.
    pub(super) fn stream_opened(&self, tenant: TenantId, sub: &str) {
        self.enrol(tenant, sub, false);
    }

    /// Records a connected user that a muster found. The caller holds the lock of its count.
    pub(super) fn stream_found(&self, tenant: TenantId, sub: &str) {
        self.enrol(tenant, sub, true);
    }

    fn enrol(&self, tenant: TenantId, sub: &str, announced: bool) {
        self.with(tenant, |roster| {
            if let Some(user) = roster.get_mut(sub) {
                user.gone_ms = None;
            } else if roster.len() < PRESENT {
                let since_ms = self.clock.now_ms();
                roster.insert(sub.into(), User { since_ms, gone_ms: None, announced, queued: false });
            }
        });
    }

    /// Records that a stream of this user is served; only now is the user's presence published. A stream that
    /// ends before, such as one whose upgrade fails, causes no notice.
    pub fn arrived(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            if let Some(user) = roster.get_mut(sub)
                && !user.announced
            {
                self.queue_check(tenant, sub, user);
            }
        });
    }

    /// Records that a user's last stream has ended. The caller holds the lock of its count.
    pub(super) fn last_stream_closed(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            let Some(user) = roster.get_mut(sub) else { return };
            if !user.announced && !user.queued {
                roster.remove(sub); // no stream of this user was ever served
                return;
            }
            user.gone_ms = Some(self.now_ms());
            self.queue_check(tenant, sub, user);
        });
    }

    /// Returns up to `limit` users after `after`, of those that are in `wanted` (`None`: all) and that
    /// `shown` accepts. Returns `None` if presence is switched off. A page that is shorter than `limit` need
    /// not be the last.
    pub fn page(
        &self,
        tenant: TenantId,
        after: Option<&str>,
        limit: usize,
        wanted: Option<&BTreeSet<Box<str>>>,
        shown: impl Fn(&str) -> bool,
    ) -> Option<PresentPage> {
        let rosters = self.rosters.read();
        let roster = rosters.get(&tenant)?.lock();
        let after = after.map_or(Unbounded, Excluded);
        let users: &mut dyn Iterator<Item = (&Arc<str>, &User)> = match wanted {
            Some(wanted) => {
                let named = wanted.range::<str, _>((after, Unbounded));
                &mut named.filter_map(|sub| roster.get_key_value(&**sub))
            }
            None => &mut roster.range::<str, _>((after, Unbounded)),
        };
        let mut users = users.peekable();
        let mut page = PresentPage::default();
        for _ in 0..EXAMINED {
            let Some((sub, user)) = users.next() else { break };
            // A user that is neither published nor due to be published has only started to connect.
            if (user.announced || user.queued) && shown(sub) {
                page.users.push(PresentUser { sub: sub.clone(), since_ms: user.since_ms });
            }
            page.next = users.peek().map(|_| sub.clone());
            if page.users.len() == limit {
                break;
            }
        }
        Some(page)
    }

    /// Completes when the keeper has work, also if that was added before the call.
    pub async fn work_added(&self) {
        self.work_added.notified().await;
    }

    fn with(&self, tenant: TenantId, f: impl FnOnce(&mut Roster)) {
        if self.switched_on.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(roster) = self.rosters.read().get(&tenant) {
            f(&mut roster.lock());
        }
    }

    fn queue_check(&self, tenant: TenantId, sub: &str, user: &mut User) {
        if !std::mem::replace(&mut user.queued, true) {
            self.push_task(RosterTask::CheckUser(tenant, sub.into()));
        }
    }

    fn push_task(&self, work: RosterTask) {
        self.work.lock().push_back(work);
        self.work_added.notify_one();
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic_us() / 1_000
    }
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").field("grace_ms", &self.grace_ms).finish_non_exhaustive()
    }
}

/// A notice to publish about a user.
#[derive(PartialEq, Eq, Debug)]
pub struct PresenceChange {
    /// The user's organization.
    pub tenant: TenantId,
    /// The user's `sub`.
    pub sub: Arc<str>,
    /// True for `online`, false for `offline`.
    pub online: bool,
    /// The user's `gone_ms` when the keeper decided this.
    gone_ms: Option<u64>,
}

/// What the keeper's owner has to do next.
#[derive(PartialEq, Eq, Debug)]
pub enum TrackerStep {
    /// Publish this, and report whether that succeeded: [`PresenceTracker::on_published`].
    Publish(PresenceChange),
    /// Put the connected users of this organization on its roster: `Admission::enrol_connected`.
    EnrolConnected(TenantId),
    /// Wait for [`Presence::work_added`], at most this long.
    Wait(Option<Duration>),
}

/// Decides which notices are published. There is one keeper per process.
#[derive(Debug)]
pub struct PresenceTracker {
    presence: Arc<Presence>,
    /// The users to check later, by milliseconds of the monotonic clock. Their `queued` is set, so each is
    /// here once.
    later: BinaryHeap<Reverse<(u64, TenantId, Arc<str>)>>,
}

impl PresenceTracker {
    /// Creates the keeper of these rosters.
    #[must_use]
    pub fn new(presence: Arc<Presence>) -> PresenceTracker {
        PresenceTracker { presence, later: BinaryHeap::new() }
    }

    /// Returns the next step.
    pub fn step(&mut self) -> TrackerStep {
        loop {
            let now = self.presence.now_ms();
            let work = match self.later.peek() {
                Some(Reverse((at, ..))) if *at <= now => {
                    self.later.pop().map(|Reverse((_, tenant, sub))| RosterTask::CheckUser(tenant, sub))
                }
                _ => self.presence.work.lock().pop_front(),
            };
            match work {
                Some(RosterTask::CheckUser(tenant, sub)) => {
                    if let Some(change) = self.check_user(tenant, sub, now) {
                        return TrackerStep::Publish(change);
                    }
                }
                Some(RosterTask::SwitchedOn(tenant)) => return TrackerStep::EnrolConnected(tenant),
                Some(RosterTask::SwitchedOff(tenant, roster)) => {
                    drop(roster);
                    self.later.retain(|Reverse((_, other, _))| *other != tenant);
                }
                None => {
                    let first = self.later.peek().map(|Reverse((at, ..))| at - now);
                    return TrackerStep::Wait(first.map(Duration::from_millis));
                }
            }
        }
    }

    fn check_user(&mut self, tenant: TenantId, sub: Arc<str>, now: u64) -> Option<PresenceChange> {
        let rosters = self.presence.rosters.read();
        let mut roster = rosters.get(&tenant)?.lock();
        let user = roster.get_mut(&*sub)?;
        let gone_ms = user.gone_ms;
        if !user.announced {
            return Some(PresenceChange { tenant, sub, online: true, gone_ms });
        }
        let Some(since) = gone_ms else {
            user.queued = false;
            return None;
        };
        let end = since.saturating_add(self.presence.grace_ms);
        if end <= now {
            return Some(PresenceChange { tenant, sub, online: false, gone_ms });
        }
        self.later.push(Reverse((end, tenant, sub)));
        None
    }

    /// Records whether a notice could be published.
    pub fn on_published(&mut self, change: PresenceChange, published: bool) {
        let rosters = self.presence.rosters.read();
        let Some(mut roster) = rosters.get(&change.tenant).map(|roster| roster.lock()) else { return };
        let Some(user) = roster.get_mut(&*change.sub) else { return };
        match (published, change.online) {
            (true, true) => user.announced = true,
            // The user came back while `offline` was being published, so `online` has to follow.
            (true, false) if user.gone_ms != change.gone_ms => {
                (user.announced, user.since_ms) = (false, self.presence.clock.now_ms());
            }
            // `online` was never published, so `offline` need not be.
            (false, _) if !user.announced && user.gone_ms.is_some() => drop(roster.remove(&*change.sub)),
            (true, false) => drop(roster.remove(&*change.sub)),
            (false, _) => {
                let at = self.presence.now_ms() + RETRY_MS;
                self.later.push(Reverse((at, change.tenant, change.sub)));
                return;
            }
        }
        if roster.contains_key(&*change.sub) {
            self.presence.work.lock().push_back(RosterTask::CheckUser(change.tenant, change.sub));
        }
    }
}

#[cfg(test)]
mod tests;
