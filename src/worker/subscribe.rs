//! Subscribing: when a connection is adopted, again by a WebSocket `subscribe`, and again when rights change.
//!
//! * A row in the view's index is replaced before the next frame is matched, so no frame by an old filter or
//!   right follows the `ready` that answers.
//! * Without a position in the request the present one is kept, also while behind.

use crate::connection::ReadMode;
use crate::filter::{Filter, Rights, Selection};
use crate::frame::control::{Control, Ref};
use crate::ids::Sequence;
use crate::tenant::start::ResolvedStart;

use super::WorkerLoop;
use super::connection_list::connection_name;
use super::sockets::Token;

impl WorkerLoop<'_> {
    /// Subscribes a connection to `filter`, from `start` if one is given, and sends `ready`.
    pub(super) fn subscribe(
        &mut self,
        token: Token,
        filter: Filter,
        start: Option<ResolvedStart>,
        reference: Option<Ref>,
    ) {
        let Some(connection) = self.state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        // On an error the recheck closes the connection.
        let Ok(rights) = self.worker.shared.auth.still_valid(admitted.principal()) else { return };
        let Some(tenant) = self.worker.shared.tenants.get(admitted.principal().tenant) else { return };
        let first = connection.row.is_none();
        if first {
            let view = self.state.join_view(&tenant, self.worker.id);
            if let Some(connection) = self.state.connection(token)
                && std::mem::replace(&mut connection.view, view) == u32::MAX
            {
                self.state.release_tenant(tenant.id()); // the view keeps it from here on
            }
        }
        self.forget_streams(token);
        let kept = self.detach_row(token);
        let head = tenant.last_visible(); // read after the worker's bit was set, so later events wake us
        let start = match start {
            Some(start) => start,
            None if first => ResolvedStart::NOW,
            None => ResolvedStart { position: Some(kept), gap: None, resumed: false, requested: false },
        };
        let position = start.position.unwrap_or(head);
        self.insert_row(token, Selection { filter, rights }, position);
        let Some(connection) = self.state.connection(token) else { return };
        // A position kept while behind still owes its `caught_up`.
        connection.flags.caught_up_pending |= start.requested;
        self.write_ready(token, &ResolvedStart { position: Some(position), ..start }, reference);
        self.state.run(token);
    }

    /// Replaces the row of a subscription by one with the present rights; its position stays.
    pub(super) fn renew_rights(&mut self, token: Token, rights: Rights) {
        let Some(connection) = self.state.connection(token) else { return };
        let (view, Some(row)) = (connection.view, connection.row) else { return };
        let Some(selection) = self.state.views.get(view as usize).and_then(|it| it.index.selection(row))
        else {
            return;
        };
        if !selection.rights.differ(&rights) {
            return;
        }
        let filter = selection.filter.clone();
        let position = self.detach_row(token);
        self.insert_row(token, Selection { filter, rights }, position);
        self.state.run(token);
    }

    /// Removes the connection's row from the index and returns its exact position.
    fn detach_row(&mut self, token: Token) -> Sequence {
        let Some(connection) = self.state.connection(token) else { return Sequence::ZERO };
        let (view, row, mode) = (connection.view, connection.row.take(), connection.mode);
        let Some(row) = row else { return Sequence::ZERO };
        let position = self
            .state
            .views
            .get(view as usize)
            .map_or(Sequence::ZERO, |it| it.position_of(&self.state.connections[token.slot as usize]));
        self.state.remove_row(view, row);
        if let Some(connection) = self.state.connection(token) {
            connection.mask = 0;
            // Events that matched the old row and were not sent are matched again, except a frame that was
            // sent in part.
            let on_its_way = u32::from(connection.out.as_ref().is_some_and(|out| out.partial.is_some()));
            let forgotten = connection.pending.saturating_sub(on_its_way);
            connection.pending -= forgotten;
            connection.mode = ReadMode::Silent;
            self.worker.metrics().pending.add(-i64::from(forgotten));
            self.worker.metrics().dropped.add(u64::from(forgotten));
            self.worker.metrics().behind.add(-i64::from(mode == ReadMode::Behind));
        }
        position
    }

    /// Adds a row for the connection to its view's index; it continues from `position`.
    fn insert_row(&mut self, token: Token, selection: Selection, position: Sequence) {
        let Some(connection) = self.state.connection(token) else { return };
        let view = connection.view;
        let Some(row) =
            self.state.views.get_mut(view as usize).and_then(|it| it.index.insert(selection, token.slot))
        else {
            return; // one view cannot have 2^32 audiences
        };
        let join_position = self.state.views[view as usize].join_position;
        let Some(connection) = self.state.connection(token) else { return };
        connection.row = Some(row);
        connection.position = position;
        connection.evaluated = position;
        connection.last_sent = position;
        // A position past the join position is the ring's present end, or an id behind a held frame. The
        // fan-out has not reached it yet and skips events up to it.
        connection.mode = if position < join_position { ReadMode::Behind } else { ReadMode::Live };
        self.worker.metrics().behind.add(i64::from(position < join_position));
    }

    /// Sends `ready`, and a `gap` if one is declared. A connection that is already live gets `caught_up` at
    /// once.
    pub(super) fn write_ready(&mut self, token: Token, start: &ResolvedStart, reference: Option<Ref>) {
        let Some(connection) = self.state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        let Some(tenant) = self.worker.shared.tenants.get(admitted.principal().tenant) else { return };
        let position = start.position.unwrap_or_else(|| tenant.last_visible());
        let name = connection_name(connection.id);
        let heartbeat_seconds = u64::from(self.worker.keepalive_ticks(connection.transport));
        let cursor = self.cursor_of(token, position);
        let ready = Control::Ready {
            connection_id: &name,
            cursor,
            resumed: start.resumed,
            replaying: tenant.replaying(position),
            heartbeat_seconds,
            reference: reference.as_ref(),
        };
        self.control(token, &ready);
        if let Some(gap) = &start.gap {
            let resumes_at = self.cursor_of(token, gap.resumes_at);
            self.control(token, &Control::Gap { after: &gap.after, resumes_at, reason: gap.reason });
        }
        let Some(connection) = self.state.connection(token) else { return };
        if connection.mode == ReadMode::Live && std::mem::take(&mut connection.flags.caught_up_pending) {
            self.control(token, &Control::CaughtUp { cursor });
        }
    }
}
