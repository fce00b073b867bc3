//! The state that a worker owns: its connections and views, and the queues of work that is left.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::config::FanoutSubmission;
use crate::connection::{Connection, Tick};
use crate::event_ring::Reader;
use crate::filter::RowId;
use crate::frame::Frame;
use crate::ids::TenantId;
use crate::tenant::Tenant;

use super::connection_index::ConnectionIndex;
use super::fair_queue::FairQueue;
use super::mail::{CommittedPublish, Mail};
use super::scan::Scans;
use super::slab::Slab;
use super::sockets::{Ready, Token};
use super::stream_readers::StreamReaders;
use super::submit::{PendingWrite, Submission};
use super::view::View;
use super::wheel::Wheel;

/// Size of a worker's one read buffer in bytes, and so the most input that is kept for a connection whose
/// turn ended.
const READ_BUFFER: usize = 16 * 1024;

/// The state that a worker owns.
pub(crate) struct WorkerState {
    pub(super) connections: Slab<Connection>,
    pub(super) views: Slab<View>,
    pub(super) by_tenant: HashMap<TenantId, u32>,
    /// Tenants of connections that never subscribed, with the number of these. A quiet tenant without such a
    /// reference is removed from memory.
    pub(super) tenants_without_view: HashMap<TenantId, (Arc<Tenant>, u32)>,
    pub(super) index: ConnectionIndex,
    pub(super) wheel: Wheel,
    /// Connections that are due, with their tick. Those of a tick that is not finished come before those of
    /// the next.
    pub(super) due: VecDeque<(Tick, std::vec::IntoIter<Token>)>,
    /// Connections with work left that no edge will announce.
    pub(super) run: FairQueue<Token>,
    pub(super) scans: Scans,
    /// Connections that read streams from their start.
    pub(super) stream_readers: StreamReaders,
    /// Publishes over WebSocket whose commit is over and whose publisher was not answered yet.
    pub(super) acks: FairQueue<CommittedPublish>,
    /// Number of turns so far.
    pub(super) turn: u64,
    /// Views with new events that were not served in this turn. A view is at most once in this or in
    /// `served_views` ([`View::queued`]).
    pub(super) fresh_views: VecDeque<u32>,
    /// Views with new events that had their share of this turn.
    pub(super) served_views: VecDeque<u32>,
    pub(super) reader: Reader,
    pub(super) generation: u32,
    /// Whether connections came or went in this second or in the one before.
    pub(super) churned: bool,
    pub(super) churned_before: bool,
    /// Sockets that are ready and were not served yet.
    pub(super) events: VecDeque<Ready>,
    /// Mail that was taken from the mailbox and not handled yet.
    pub(super) mail: VecDeque<Mail>,
    /// A buffer for reuse, empty between uses.
    pub(super) signalled: Vec<Arc<Tenant>>,
    /// The read buffer.
    pub(super) input: Box<[u8]>,
    /// A buffer for the frames of a batch, empty between uses.
    pub(super) frames: Vec<Arc<Frame>>,
    /// A buffer for the bytes of writes, empty between uses.
    pub(super) bytes: Vec<u8>,
    /// A buffer for the writes of one submission, empty between uses.
    pub(super) writes: Vec<PendingWrite>,
    pub(super) submission: Submission,
    /// A buffer for one control frame.
    pub(super) control: Vec<u8>,
}

impl WorkerState {
    pub(super) fn new(reader: Reader, how: FanoutSubmission) -> WorkerState {
        WorkerState {
            connections: Slab::new(),
            views: Slab::new(),
            by_tenant: HashMap::new(),
            tenants_without_view: HashMap::new(),
            index: ConnectionIndex::new(),
            wheel: Wheel::new(),
            due: VecDeque::new(),
            run: FairQueue::default(),
            scans: Scans::default(),
            stream_readers: StreamReaders::default(),
            acks: FairQueue::default(),
            turn: 1,
            fresh_views: VecDeque::new(),
            served_views: VecDeque::new(),
            reader,
            generation: 0,
            churned: false,
            churned_before: false,
            events: VecDeque::new(),
            mail: VecDeque::new(),
            signalled: Vec::new(),
            input: vec![0; READ_BUFFER].into_boxed_slice(),
            frames: Vec::new(),
            bytes: Vec::new(),
            writes: Vec::new(),
            submission: Submission::new(how),
            control: Vec::new(),
        }
    }

    /// Returns the connection of a token, if it still exists.
    pub(super) fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections
            .get_mut(token.slot as usize)
            .filter(|connection| connection.generation == token.generation)
    }

    /// Returns the organization of a connection, if it still exists.
    pub(super) fn tenant_of(&mut self, token: Token) -> Option<TenantId> {
        self.connection(token).map(|connection| tenant_of(connection))
    }

    /// Adds a connection to the run list, at most once.
    pub(super) fn run(&mut self, token: Token) {
        if let Some(connection) = self.connection(token)
            && !connection.flags.running
        {
            connection.flags.running = true;
            let tenant = tenant_of(connection);
            self.run.push(tenant, token);
        }
    }

    /// Adds a view to a list of those with new events, at most once.
    pub(super) fn queue_view(&mut self, view: u32) {
        if let Some(it) = self.views.get_mut(view as usize)
            && !it.queued
        {
            it.queued = true;
            match it.served == self.turn {
                true => self.served_views.push_back(view),
                false => self.fresh_views.push_back(view),
            }
        }
    }

    /// Returns the view of `tenant` with one more member; creates it if needed.
    pub(super) fn join_view(&mut self, tenant: &Arc<Tenant>, worker: usize) -> u32 {
        let view = match self.by_tenant.get(&tenant.id()) {
            Some(&view) => view,
            None => {
                tenant.wake_bits().subscribe(worker); // must come before the head is read
                let view = self.views.insert(View::new(tenant.clone())) as u32;
                self.by_tenant.insert(tenant.id(), view);
                view
            }
        };
        self.views[view as usize].members += 1;
        view
    }

    /// Keeps a tenant in memory for a connection that has no view yet.
    pub(super) fn hold_tenant(&mut self, tenant: &Arc<Tenant>) {
        self.tenants_without_view.entry(tenant.id()).or_insert_with(|| (tenant.clone(), 0)).1 += 1;
    }

    /// Removes one such connection.
    pub(super) fn release_tenant(&mut self, tenant: TenantId) {
        if let Entry::Occupied(mut held) = self.tenants_without_view.entry(tenant) {
            held.get_mut().1 -= 1;
            if held.get().1 == 0 {
                held.remove();
            }
        }
    }

    /// Removes one member; with the last one the view is removed.
    pub(super) fn leave_view(&mut self, view: u32, worker: usize) {
        let Some(it) = self.views.get_mut(view as usize) else { return };
        it.members -= 1;
        if it.members == 0 {
            let Some(it) = self.views.remove(view as usize) else { return };
            it.tenant.wake_bits().unsubscribe(worker);
            self.by_tenant.remove(&it.tenant.id());
            if it.queued {
                self.fresh_views.retain(|queued| *queued != view);
                self.served_views.retain(|queued| *queued != view);
            }
        }
    }

    /// Removes an index row. The connection that is moved to its place gets its new row.
    pub(super) fn remove_row(&mut self, view: u32, row: RowId) {
        let Some(it) = self.views.get_mut(view as usize) else { return };
        if let Some(moved) = it.index.remove(row).and_then(|removed| removed.moved)
            && let Some(connection) = self.connections.get_mut(moved as usize)
        {
            connection.row = Some(row);
        }
    }

    /// Returns a generation that no slot has had before, within 2^32 connections.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == u32::MAX {
            self.generation = 1; // u32::MAX belongs to the wake token
        }
        self.generation
    }
}

/// Returns the organization of a connection. The diagnostic echo has a number that no organization has.
fn tenant_of(connection: &Connection) -> TenantId {
    connection.admitted.as_ref().map_or(TenantId(0), |admitted| admitted.principal().tenant)
}
