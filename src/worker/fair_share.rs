//! Fair shares of a turn: an organization's HTTP publishes get a limited part of each turn.
//!
//! * Parsing and encoding a body are the long part of a task. Without a share, one organization's publishers
//!   would fill the runtime's queue, and the requests and new connections of all others would wait behind
//!   them.
//! * What exceeds the share waits for the next turn, in order. While it waits, the connection keeps only what
//!   it keeps anyway: one request whose body was already read.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use crate::ids::TenantId;

/// The bytes of one organization's bodies that are started in one turn; some hundred microseconds.
const BYTES_PER_TURN: usize = 16 * 1024;
/// The least bytes that any body counts as, however small, because of the work around it.
const LEAST_BYTES: usize = 1024;

/// The share of one organization.
#[derive(Debug, Default)]
struct TenantShare {
    /// Bytes started in this turn.
    used: usize,
    waiting: VecDeque<(usize, oneshot::Sender<()>)>,
}

/// The shares of the organizations that have published in this turn or wait; at most as many as requests in
/// progress.
#[derive(Debug, Default)]
pub(super) struct FairShare {
    shares: HashMap<TenantId, TenantShare>,
    waiting: usize,
}

impl FairShare {
    /// Starts a body of `bytes`: at once if this returns `None`, else when the returned receiver completes.
    pub(super) fn enter(&mut self, tenant: TenantId, bytes: usize) -> Option<oneshot::Receiver<()>> {
        let bytes = bytes.max(LEAST_BYTES);
        let share = self.shares.entry(tenant).or_default();
        if share.used < BYTES_PER_TURN && share.waiting.is_empty() {
            share.used += bytes;
            return None;
        }
        let (grant, next_turn) = oneshot::channel();
        share.waiting.push_back((bytes, grant));
        self.waiting += 1;
        Some(next_turn)
    }

    /// Starts a new turn: every organization has its whole share again.
    pub(super) fn renew(&mut self) {
        self.shares.retain(|_, share| {
            share.used = 0;
            while share.used < BYTES_PER_TURN
                && let Some((bytes, grant)) = share.waiting.pop_front()
            {
                self.waiting -= 1;
                if grant.send(()).is_ok() {
                    share.used += bytes; // a cancelled request takes nothing
                }
            }
            share.used > 0
        });
    }

    /// Returns true if a body waits for the next turn.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantId = TenantId(1);
    const QUIET: TenantId = TenantId(2);

    #[test]
    fn only_an_organization_over_its_share_waits_for_the_next_turn() {
        let mut gate = FairShare::default();
        assert!(gate.enter(LOUD, BYTES_PER_TURN).is_none());
        let mut second = gate.enter(LOUD, BYTES_PER_TURN).expect("over the share");
        let mut third = gate.enter(LOUD, 1).expect("behind the second");
        assert!(gate.enter(QUIET, 1).is_none());
        gate.renew();
        assert!(second.try_recv().is_ok() && third.try_recv().is_err() && gate.is_waited_for());
        gate.renew();
        assert!(third.try_recv().is_ok() && !gate.is_waited_for());
        gate.renew();
        assert!(gate.shares.is_empty());
    }

    #[test]
    fn a_dropped_waiter_takes_no_share_and_small_bodies_count() {
        let mut gate = FairShare::default();
        assert!(gate.enter(LOUD, BYTES_PER_TURN).is_none());
        drop(gate.enter(LOUD, BYTES_PER_TURN));
        let mut next = gate.enter(LOUD, BYTES_PER_TURN).expect("over the share");
        gate.renew();
        assert!(next.try_recv().is_ok());
        gate.renew();
        let begun = (0..BYTES_PER_TURN).take_while(|_| gate.enter(LOUD, 0).is_none()).count();
        assert_eq!(begun, BYTES_PER_TURN / LEAST_BYTES);
    }
}
