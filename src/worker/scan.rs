//! Work over many connections: rechecks after a change of rights, listings, closing by an administrator, the
//! drain.
//!
//! * A step handles at most [`STEP`] connections. Steps have a share of each turn, and organizations take
//!   turns, so one organization's scans delay the others by one step.
//! * A scan continues from a slot. A connection that comes meanwhile was checked when it was adopted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::auth::{AuthChange, Principal};
use crate::close::CloseReason;
use crate::connection::Connection;
use crate::ids::TenantId;

use super::WorkerLoop;
use super::connection_index::{ConnectionIndex, OwnerTag};
use super::connection_list::{
    ClosedReply, ConnectionInfo, ConnectionSelector, DescribedReply, FoundConnection, FoundReply,
    ScanQueueFull, WAITING,
};
use super::fair_queue::FairQueue;
use super::recheck::Recheck;
use super::sockets::Token;

/// The most connections of one step.
const STEP: usize = 16;
/// The tenant under which scans of all organizations are queued, which only an operator can request.
const EVERYBODY: TenantId = TenantId(0);

/// A scan that is waiting or in progress.
enum ConnectionScan {
    /// Checks rights again.
    Recheck(Option<Recheck>, ScanCursor),
    /// Finds the `most` connections with the lowest ids after `after`, in any order.
    List {
        selector: ConnectionSelector,
        after: Option<u64>,
        most: usize,
        found: Vec<FoundConnection>,
        reply: FoundReply,
        cursor: ScanCursor,
    },
    /// Describes connections, except those that have ended.
    Describe {
        found: std::vec::IntoIter<FoundConnection>,
        listed: Vec<ConnectionInfo>,
        reply: DescribedReply,
    },
    Close {
        selector: ConnectionSelector,
        closed: usize,
        reply: ClosedReply,
        cursor: ScanCursor,
    },
}

impl ConnectionScan {
    /// Returns true if no caller waits for the result any more.
    fn is_abandoned(&self) -> bool {
        match self {
            ConnectionScan::Recheck(..) => false,
            ConnectionScan::List { reply, .. } => reply.is_closed(),
            ConnectionScan::Describe { reply, .. } => reply.is_closed(),
            // A closing that has begun is finished.
            ConnectionScan::Close { closed, reply, .. } => *closed == 0 && reply.is_closed(),
        }
    }

    /// Sends the result to the caller, or why there is none.
    fn reply(self, done: Result<(), ScanQueueFull>) {
        let _ = match self {
            ConnectionScan::Recheck(..) => Ok(()),
            ConnectionScan::List { found, reply, .. } => reply.send(done.map(|()| found)).map_err(drop),
            ConnectionScan::Describe { listed, reply, .. } => reply.send(done.map(|()| listed)).map_err(drop),
            ConnectionScan::Close { closed, reply, .. } => reply.send(done.map(|()| closed)).map_err(drop),
        }; // the caller may be gone
    }
}

/// Where a scan continues: the remaining owners, and the next slot of the first of them.
#[derive(Debug, Default)]
struct ScanCursor {
    owners: VecDeque<OwnerTag>,
    /// Visits every slot instead.
    all: bool,
    at: u32,
}

impl ScanCursor {
    /// Returns the next slot that may have a connection of the scan; the worker has `slots` slots.
    fn next(&mut self, index: &ConnectionIndex, slots: usize) -> Option<u32> {
        if self.all {
            let slot = self.at;
            self.at += 1;
            return ((slot as usize) < slots).then_some(slot);
        }
        while let Some(owner) = self.owners.front() {
            if let Some(slot) = index.next(*owner, self.at) {
                self.at = slot + 1;
                return Some(slot);
            }
            self.owners.pop_front();
            self.at = 0;
        }
        None
    }
}

/// The scans of a worker.
#[derive(Default)]
pub(super) struct Scans {
    queue: FairQueue<ConnectionScan>,
    /// For each organization with a recheck in the queue that has not begun: what that recheck covers.
    rechecks: HashMap<TenantId, Recheck>,
    drain: Option<Drain>,
}

/// The drain: every connection is closed, a limited number at a time.
#[derive(Debug)]
struct Drain {
    cursor: ScanCursor,
    /// How many may be closed now.
    allowed: usize,
}

impl Scans {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.drain.as_ref().is_none_or(|drain| drain.allowed == 0)
    }

    /// Queues a recheck of the connections that a change affects.
    pub(super) fn recheck(&mut self, change: &AuthChange) {
        let tenant = change.tenant().unwrap_or(EVERYBODY);
        let queue = &mut self.queue;
        let recheck = self.rechecks.entry(tenant).or_insert_with(|| {
            queue.push(tenant, ConnectionScan::Recheck(None, ScanCursor::default()));
            Recheck::default()
        });
        recheck.add(change);
    }

    #[cfg(test)]
    pub(super) fn len_of(&self, tenant: TenantId) -> usize {
        self.queue.len_of(tenant)
    }

    /// Returns true if one more listing or closing of an organization may wait.
    fn has_room(&mut self, tenant: TenantId) -> bool {
        if self.queue.len_of(tenant) >= WAITING {
            self.queue.retain(tenant, |scan| !scan.is_abandoned());
        }
        self.queue.len_of(tenant) < WAITING
    }
}

impl WorkerLoop<'_> {
    fn scan_cursor(&self, selector: &ConnectionSelector) -> ScanCursor {
        ScanCursor { owners: [self.state.index.tag(selector.owner())].into(), ..ScanCursor::default() }
    }

    pub(super) fn queue_list(
        &mut self,
        selector: ConnectionSelector,
        after: Option<u64>,
        most: usize,
        reply: FoundReply,
    ) {
        let (tenant, cursor, found) = (selector.tenant, self.scan_cursor(&selector), Vec::new());
        self.queue_scan(tenant, ConnectionScan::List { selector, after, most, found, reply, cursor });
    }

    pub(super) fn queue_describe(
        &mut self,
        tenant: TenantId,
        found: Vec<FoundConnection>,
        reply: DescribedReply,
    ) {
        let (listed, found) = (Vec::with_capacity(found.len()), found.into_iter());
        self.queue_scan(tenant, ConnectionScan::Describe { found, listed, reply });
    }

    pub(super) fn queue_close(&mut self, selector: ConnectionSelector, reply: ClosedReply) {
        let (tenant, cursor) = (selector.tenant, self.scan_cursor(&selector));
        self.queue_scan(tenant, ConnectionScan::Close { selector, closed: 0, reply, cursor });
    }

    /// Queues a scan, or refuses it if too many of its organization wait.
    fn queue_scan(&mut self, tenant: TenantId, scan: ConnectionScan) {
        match self.state.scans.has_room(tenant) {
            true => self.state.scans.queue.push(tenant, scan),
            false => scan.reply(Err(ScanQueueFull)),
        }
    }

    /// Returns the token of the connection in a slot, and its principal; `None` for an empty slot and for the
    /// diagnostic echo.
    fn holder(&self, slot: u32) -> Option<(Token, &Connection, &Arc<Principal>)> {
        let connection = self.state.connections.get(slot as usize)?;
        let principal = connection.admitted.as_ref()?.principal();
        Some((Token { slot, generation: connection.generation }, connection, principal))
    }

    /// Continues the scan of the organization whose turn it is.
    pub(super) fn scan(&mut self) {
        self.drain_some();
        let Some((tenant, mut scan)) = self.state.scans.queue.pop() else { return };
        if !scan.is_abandoned() && !self.step(tenant, &mut scan) {
            self.state.scans.queue.push_front(tenant, scan);
            return;
        }
        scan.reply(Ok(()));
    }

    /// Handles some more connections; returns true at the end of the scan.
    fn step(&mut self, tenant: TenantId, scan: &mut ConnectionScan) -> bool {
        for _ in 0..STEP {
            let ended = match scan {
                ConnectionScan::Recheck(recheck, cursor) => self.recheck_next(tenant, recheck, cursor),
                ConnectionScan::List { selector, after, most, found, cursor, .. } => {
                    let Some(slot) = cursor.next(&self.state.index, self.state.connections.slots()) else {
                        return true;
                    };
                    if let Some((token, connection, principal)) = self.holder(slot)
                        && selector.matches(principal, connection)
                        && after.is_none_or(|after| connection.id > after)
                    {
                        let Token { slot, generation } = token;
                        found.push(FoundConnection {
                            id: connection.id,
                            worker: self.worker.id,
                            slot,
                            generation,
                        });
                        keep_lowest(found, *most);
                    }
                    false
                }
                // One per step, because formatting a filter may take some hundred values.
                ConnectionScan::Describe { found, listed, .. } => {
                    let Some(next) = found.next() else { return true };
                    listed.extend(self.describe_connection(&next));
                    return false;
                }
                ConnectionScan::Close { selector, closed, cursor, .. } => {
                    let Some(slot) = cursor.next(&self.state.index, self.state.connections.slots()) else {
                        return true;
                    };
                    if let Some((token, connection, principal)) = self.holder(slot)
                        && selector.matches(principal, connection)
                    {
                        *closed += 1;
                        self.close(token, CloseReason::Kicked);
                    }
                    false
                }
            };
            if ended {
                return true;
            }
        }
        false
    }

    /// Checks the next connection: closes it if its credential is no longer valid, else gives it the present
    /// rights.
    fn recheck_next(
        &mut self,
        tenant: TenantId,
        recheck: &mut Option<Recheck>,
        cursor: &mut ScanCursor,
    ) -> bool {
        let recheck = match recheck {
            Some(recheck) => recheck,
            None => {
                let begun = self.state.scans.rechecks.remove(&tenant).unwrap_or_default();
                let owners = begun.owners(&self.state.index, tenant);
                *cursor = ScanCursor { owners, all: tenant == EVERYBODY, at: 0 };
                recheck.insert(begun)
            }
        };
        let Some(slot) = cursor.next(&self.state.index, self.state.connections.slots()) else { return true };
        let Some((token, connection, principal)) = self.holder(slot) else { return false };
        let is_concerned = cursor.all
            || (principal.tenant == tenant && recheck.concerns(principal))
            || recheck.concerns_made(principal);
        if connection.flags.closing || !is_concerned {
            return false;
        }
        self.worker.metrics().rechecked.add(1);
        match self.worker.shared.auth.still_valid(principal) {
            Ok(rights) => self.renew_rights(token, rights),
            Err(ended) => self.close(token, crate::error_response::close_reason(ended)),
        }
        false
    }

    /// Begins to close every connection within `seconds`, in parts, so that clients do not all reconnect at
    /// once. [`WorkerLoop::adopt`] closes a connection that is adopted from here on.
    pub(super) fn drain(&mut self, seconds: u64) {
        self.worker.stop.send_replace(true);
        let cursor = ScanCursor { all: true, ..ScanCursor::default() };
        self.state.scans.drain = Some(Drain { cursor, allowed: if seconds == 0 { usize::MAX } else { 0 } });
        if seconds == 0 {
            return;
        }
        let worker = self.worker.clone();
        // The task ends with its last part; the runtime is dropped when the drain time is over anyway.
        tokio::task::spawn_local(async move {
            for left in (1..=seconds * 10).rev() {
                {
                    let state = &mut *worker.state.borrow_mut();
                    let share = state.connections.len().div_ceil(left as usize);
                    let Some(drain) = &mut state.scans.drain else { return };
                    drain.allowed = drain.allowed.saturating_add(share);
                }
                worker.nudge();
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
    }

    fn drain_some(&mut self) {
        let Some(mut drain) = self.state.scans.drain.take() else { return };
        for _ in 0..STEP {
            if drain.allowed == 0 {
                break;
            }
            let Some(slot) = drain.cursor.next(&self.state.index, self.state.connections.slots()) else {
                return;
            };
            let Some(connection) = self.state.connections.get(slot as usize) else { continue };
            let token = Token { slot, generation: connection.generation };
            drain.allowed -= 1;
            self.close(token, CloseReason::Restart);
        }
        self.state.scans.drain = Some(drain);
    }
}

/// Cuts a list to the `most` lowest ids when it has twice as many, so that the cost per found connection is
/// constant.
fn keep_lowest(found: &mut Vec<FoundConnection>, most: usize) {
    if most > 0 && found.len() >= 2 * most {
        found.select_nth_unstable(most - 1);
        found.truncate(most);
    }
}
