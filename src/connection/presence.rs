//! The present users of each organization that has presence switched on, and the notices to publish about
//! them.
//!
//! * A user is on the roster from its first stream (WebSocket or SSE) until it has had none for the grace
//!   time.
//! * [`super::admission`] counts streams. It reports the steps from none to one and back, under the lock of
//!   that count and so in order. The lock order is: a user's count, the rosters, one roster, the work queue.
//! * Only [`Keeper`] decides what is published, so a user's `online` and `offline` alternate. It does not
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
const AGAIN_MS: u64 = 1_000;

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
    work: Mutex<VecDeque<Work>>,
    news: Notify,
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
    told: bool,
    /// Whether the keeper has an entry for this user, due now or later.
    in_hand: bool,
}

/// Work for the keeper.
#[derive(Debug)]
enum Work {
    /// A roster was created: put the connected users on it.
    On(TenantId),
    /// A roster was removed, and with it the entries that were due later. It is dropped in the keeper, where
    /// no request waits for that.
    Off(TenantId, Mutex<Roster>),
    /// Check this user.
    Look(TenantId, Arc<str>),
}

/// A user who is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Present {
    /// The user's `sub`.
    pub sub: Arc<str>,
    /// When the user became present, in Unix milliseconds.
    pub since_ms: u64,
}

/// Part of a roster.
#[derive(Default, Debug)]
pub struct PresentPage {
    /// Users in the order of their `sub`.
    pub users: Vec<Present>,
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
            news: Notify::new(),
        })
    }

    /// Switches presence on or off for an organization. Switched on, the users that are connected are soon on
    /// the roster; switched off, the roster is removed.
    pub fn switch(&self, tenant: TenantId, on: bool) {
        let mut rosters = self.rosters.write();
        let work = match (on, rosters.remove(&tenant)) {
            (false, Some(roster)) => Some(Work::Off(tenant, roster)),
            (false, None) => None,
            (true, Some(roster)) => {
                rosters.insert(tenant, roster);
                None
            }
            (true, None) => {
                rosters.insert(tenant, Mutex::default());
                Some(Work::On(tenant))
            }
        };
        self.switched_on.store(rosters.len(), Ordering::Relaxed);
        drop(rosters);
        work.into_iter().for_each(|work| self.give(work));
    }

    /// Records a user's first stream. The caller holds the lock of its count.
    pub(super) fn came(&self, tenant: TenantId, sub: &str) {
        self.enrol(tenant, sub, false);
    }

    /// Records a connected user that a muster found. The caller holds the lock of its count.
    pub(super) fn found(&self, tenant: TenantId, sub: &str) {
        self.enrol(tenant, sub, true);
    }

    fn enrol(&self, tenant: TenantId, sub: &str, told: bool) {
        self.with(tenant, |roster| {
            if let Some(user) = roster.get_mut(sub) {
                user.gone_ms = None;
            } else if roster.len() < PRESENT {
                let since_ms = self.clock.now_ms();
                roster.insert(sub.into(), User { since_ms, gone_ms: None, told, in_hand: false });
            }
        });
    }

    /// Records that a stream of this user is served; only now is the user's presence published. A stream that
    /// ends before, such as one whose upgrade fails, causes no notice.
    pub fn arrived(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            if let Some(user) = roster.get_mut(sub)
                && !user.told
            {
                self.hand_over(tenant, sub, user);
            }
        });
    }

    /// Records that a user's last stream has ended. The caller holds the lock of its count.
    pub(super) fn went(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            let Some(user) = roster.get_mut(sub) else { return };
            if !user.told && !user.in_hand {
                roster.remove(sub); // no stream of this user was ever served
                return;
            }
            user.gone_ms = Some(self.now_ms());
            self.hand_over(tenant, sub, user);
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
            if (user.told || user.in_hand) && shown(sub) {
                page.users.push(Present { sub: sub.clone(), since_ms: user.since_ms });
            }
            page.next = users.peek().map(|_| sub.clone());
            if page.users.len() == limit {
                break;
            }
        }
        Some(page)
    }

    /// Completes when the keeper has work, also if that was added before the call.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    fn with(&self, tenant: TenantId, f: impl FnOnce(&mut Roster)) {
        if self.switched_on.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(roster) = self.rosters.read().get(&tenant) {
            f(&mut roster.lock());
        }
    }

    fn hand_over(&self, tenant: TenantId, sub: &str, user: &mut User) {
        if !std::mem::replace(&mut user.in_hand, true) {
            self.give(Work::Look(tenant, sub.into()));
        }
    }

    fn give(&self, work: Work) {
        self.work.lock().push_back(work);
        self.news.notify_one();
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
pub struct Tell {
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
pub enum Step {
    /// Publish this, and report whether that succeeded: [`Keeper::told`].
    Tell(Tell),
    /// Put the connected users of this organization on its roster: `Admission::muster`.
    Muster(TenantId),
    /// Wait for [`Presence::news`], at most this long.
    Wait(Option<Duration>),
}

/// Decides which notices are published. There is one keeper per process.
#[derive(Debug)]
pub struct Keeper {
    presence: Arc<Presence>,
    /// The users to check later, by milliseconds of the monotonic clock. Their `in_hand` is set, so each is
    /// here once.
    later: BinaryHeap<Reverse<(u64, TenantId, Arc<str>)>>,
}

impl Keeper {
    /// Creates the keeper of these rosters.
    #[must_use]
    pub fn new(presence: Arc<Presence>) -> Keeper {
        Keeper { presence, later: BinaryHeap::new() }
    }

    /// Returns the next step.
    pub fn step(&mut self) -> Step {
        loop {
            let now = self.presence.now_ms();
            let work = match self.later.peek() {
                Some(Reverse((at, ..))) if *at <= now => {
                    self.later.pop().map(|Reverse((_, tenant, sub))| Work::Look(tenant, sub))
                }
                _ => self.presence.work.lock().pop_front(),
            };
            match work {
                Some(Work::Look(tenant, sub)) => {
                    if let Some(tell) = self.look(tenant, sub, now) {
                        return Step::Tell(tell);
                    }
                }
                Some(Work::On(tenant)) => return Step::Muster(tenant),
                Some(Work::Off(tenant, roster)) => {
                    drop(roster);
                    self.later.retain(|Reverse((_, whose, _))| *whose != tenant);
                }
                None => {
                    let first = self.later.peek().map(|Reverse((at, ..))| at - now);
                    return Step::Wait(first.map(Duration::from_millis));
                }
            }
        }
    }

    fn look(&mut self, tenant: TenantId, sub: Arc<str>, now: u64) -> Option<Tell> {
        let rosters = self.presence.rosters.read();
        let mut roster = rosters.get(&tenant)?.lock();
        let user = roster.get_mut(&*sub)?;
        let gone_ms = user.gone_ms;
        if !user.told {
            return Some(Tell { tenant, sub, online: true, gone_ms });
        }
        let Some(since) = gone_ms else {
            user.in_hand = false;
            return None;
        };
        let end = since.saturating_add(self.presence.grace_ms);
        if end <= now {
            return Some(Tell { tenant, sub, online: false, gone_ms });
        }
        self.later.push(Reverse((end, tenant, sub)));
        None
    }

    /// Records whether a notice could be published.
    pub fn told(&mut self, tell: Tell, published: bool) {
        let rosters = self.presence.rosters.read();
        let Some(mut roster) = rosters.get(&tell.tenant).map(|roster| roster.lock()) else { return };
        let Some(user) = roster.get_mut(&*tell.sub) else { return };
        match (published, tell.online) {
            (true, true) => user.told = true,
            // The user came back while `offline` was being published, so `online` has to follow.
            (true, false) if user.gone_ms != tell.gone_ms => {
                (user.told, user.since_ms) = (false, self.presence.clock.now_ms());
            }
            // `online` was never published, so `offline` need not be.
            (false, _) if !user.told && user.gone_ms.is_some() => drop(roster.remove(&*tell.sub)),
            (true, false) => drop(roster.remove(&*tell.sub)),
            (false, _) => {
                let at = self.presence.now_ms() + AGAIN_MS;
                self.later.push(Reverse((at, tell.tenant, tell.sub)));
                return;
            }
        }
        if roster.contains_key(&*tell.sub) {
            self.presence.work.lock().push_back(Work::Look(tell.tenant, tell.sub));
        }
    }
}

#[cfg(test)]
mod tests;
