//! Which users are present, in organizations that have it switched on, and what is to be told of their coming and going.
//!
//! * A user is on the roster from the first stream (WebSocket or SSE) until there was none for the grace time.
//! * [`super::admission`] counts streams; what comes here are its steps from none to one and back, under the lock of that
//!   count and so in order. Locks are taken in this order: a user's count, the rosters, one roster, the work.
//! * [`Keeper`] is the one who decides what is told, so a user's `online` and `offline` alternate. It knows no tenant, log or
//!   event: its owner publishes, and says whether that worked.
//! * An organization without presence has no roster, and nothing here is kept or told of its users.

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

/// Most users on an organization's roster, those within their grace time included; it stops credentials that are minted,
/// used once and dropped from filling memory (about 200 bytes each). Who comes to a full roster is not on it until the next
/// first connection.
pub const PRESENT: usize = 100_000;
/// Most users one [`Presence::page`] looks at: what passes none of a narrow credential's channels is not looked for for ever.
const EXAMINED: usize = 1_000;
/// Milliseconds after which what could not be published is tried again.
const AGAIN_MS: u64 = 1_000;

/// Everybody's rosters.
pub struct Presence {
    clock: Arc<dyn Clock>,
    grace_ms: u64,
    rosters: RwLock<HashMap<TenantId, Mutex<Roster>>>,
    /// How many rosters there are, written under their lock. Read without it: who counts a user and sees too few is found by
    /// the muster that follows a new roster, which takes the lock of that user's count later than they did.
    switched_on: AtomicUsize,
    /// At most one entry for each user on a roster, and one for each switch.
    work: Mutex<VecDeque<Work>>,
    news: Notify,
}

/// An organization's users, in the order of their `sub`.
type Roster = BTreeMap<Arc<str>, User>;

#[derive(Debug)]
struct User {
    /// Unix milliseconds.
    since_ms: u64,
    /// Since when there is no stream, in milliseconds of the monotonic clock; `None`: there is one.
    gone_ms: Option<u64>,
    /// Whether `online` was told; written by the keeper, or on arrival by a muster.
    told: bool,
    /// Whether the keeper has it to look at, now or at a time.
    in_hand: bool,
}

/// What the keeper is given to do.
#[derive(Debug)]
enum Work {
    /// A roster was made: who is connected is to be put on it.
    On(TenantId),
    /// A roster is gone: so is what was to be looked at later. It is dropped where nobody waits for that.
    Off(TenantId, Mutex<Roster>),
    /// Look at this user.
    Look(TenantId, Arc<str>),
}

/// A user who is present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Present {
    /// Whose.
    pub sub: Arc<str>,
    /// Unix milliseconds.
    pub since_ms: u64,
}

/// Part of a roster.
#[derive(Default, Debug)]
pub struct PresentPage {
    /// In the order of `sub`.
    pub users: Vec<Present>,
    /// After whom to go on; `None`: that was all.
    pub next: Option<Arc<str>>,
}

impl Presence {
    /// Nobody is present, and no organization has it switched on.
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

    /// Switches it on, whereupon those who are connected are soon on the roster, or off, whereupon nobody is.
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

    /// A user has a first stream. The caller holds the lock of its count.
    pub(super) fn came(&self, tenant: TenantId, sub: &str) {
        self.enrol(tenant, sub, false);
    }

    /// A muster found a user who is connected. The caller holds the lock of its count.
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

    /// A stream of this user is served: from here on it is told. What ends before, such as an upgrade that fails, never is.
    pub fn arrived(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            if let Some(user) = roster.get_mut(sub)
                && !user.told
            {
                self.hand_over(tenant, sub, user);
            }
        });
    }

    /// A user's last stream is gone. The caller holds the lock of its count.
    pub(super) fn went(&self, tenant: TenantId, sub: &str) {
        self.with(tenant, |roster| {
            let Some(user) = roster.get_mut(sub) else { return };
            if !user.told && !user.in_hand {
                roster.remove(sub); // it never arrived
                return;
            }
            user.gone_ms = Some(self.now_ms());
            self.hand_over(tenant, sub, user);
        });
    }

    /// Up to `limit` users of those `wanted` (`None`: all) and `shown`, after `after`; `None`: it is not switched on. A page
    /// may be shorter than `limit` and not the last.
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
            // Who is neither told nor to be told has only asked to be let in.
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

    /// Ends when there is work for the keeper, also if that came before the call.
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

/// What is to be told of a user.
#[derive(PartialEq, Eq, Debug)]
pub struct Tell {
    /// The organization.
    pub tenant: TenantId,
    /// The user.
    pub sub: Arc<str>,
    /// Came, or is gone.
    pub online: bool,
    /// Since when it was gone when this was decided.
    gone_ms: Option<u64>,
}

/// What the keeper's owner does next.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// Publish this, and say whether that worked: [`Keeper::told`].
    Tell(Tell),
    /// Have the connected users of this organization put on its roster: `Admission::muster`.
    Muster(TenantId),
    /// Wait for [`Presence::news`], at most so long.
    Wait(Option<Duration>),
}

/// Who decides what is told. There is one.
#[derive(Debug)]
pub struct Keeper {
    presence: Arc<Presence>,
    /// Who is to be looked at again, by milliseconds of the monotonic clock; in hand, so each once.
    later: BinaryHeap<Reverse<(u64, TenantId, Arc<str>)>>,
}

impl Keeper {
    /// The keeper of these rosters.
    #[must_use]
    pub fn new(presence: Arc<Presence>) -> Keeper {
        Keeper { presence, later: BinaryHeap::new() }
    }

    /// What to do now.
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

    /// What was to be told is published, or could not be.
    pub fn told(&mut self, tell: Tell, published: bool) {
        let rosters = self.presence.rosters.read();
        let Some(mut roster) = rosters.get(&tell.tenant).map(|roster| roster.lock()) else { return };
        let Some(user) = roster.get_mut(&*tell.sub) else { return };
        match (published, tell.online) {
            (true, true) => user.told = true,
            // Came back while it was told: that is news again.
            (true, false) if user.gone_ms != tell.gone_ms => {
                (user.told, user.since_ms) = (false, self.presence.clock.now_ms());
            }
            // Nobody heard that it came, so nobody has to hear that it went.
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
