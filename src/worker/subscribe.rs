//! Subscribing: the first time at adoption, again by a WebSocket `subscribe`, and anew when rights change.
//!
//! * A row in the view's index is replaced before the next frame is looked at, so no frame of an old filter or right
//!   follows the `ready` that answers.
//! * Without a position the present one is kept, also while behind.

use std::rc::Rc;

use crate::connection::Mode;
use crate::filter::{Filter, Rights, Selection};
use crate::frame::control::{Control, Ref};
use crate::ids::Sequence;
use crate::tenant::start::Start;

use super::mail::connection_name;
use super::sockets::Token;
use super::{State, Worker};

impl Worker {
    /// Subscribes a connection to `filter`, from `start` if one is given, and answers `ready`.
    pub(super) fn subscribe(
        self: &Rc<Self>,
        state: &mut State,
        token: Token,
        filter: Filter,
        start: Option<Start>,
        reference: Option<Ref>,
    ) {
        let Some(connection) = state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        let Ok(rights) = self.shared.auth.still_valid(admitted.principal()) else { return }; // the sweep closes it
        let Some(tenant) = self.shared.tenants.get(admitted.principal().tenant) else { return };
        let first = connection.row.is_none();
        if first {
            let view = state.join_view(&tenant, self.id);
            if let Some(connection) = state.connection(token)
                && std::mem::replace(&mut connection.view, view) == u32::MAX
            {
                state.release_tenant(tenant.id()); // the view holds it from here on
            }
        }
        let kept = self.lift(state, token);
        let head = tenant.head(); // after the worker's interest was set: what comes later wakes us
        let start = match start {
            Some(start) => start,
            None if first => Start::NOW,
            None => Start { position: Some(kept), gap: None, resumed: false, asked: false },
        };
        let position = start.position.unwrap_or(head);
        self.place(state, token, Selection { filter, rights }, position);
        let Some(connection) = state.connection(token) else { return };
        // A position kept while behind brings its debt along.
        connection.flags.caught_up_owed |= start.asked;
        self.say_ready(state, token, &Start { position: Some(position), ..start }, reference);
        state.run(token);
    }

    /// Today's rights replace the row of a subscription; its position stands.
    pub(super) fn renew_rights(self: &Rc<Self>, state: &mut State, token: Token, rights: Rights) {
        let Some(connection) = state.connection(token) else { return };
        let (view, Some(row)) = (connection.view, connection.row) else { return };
        let Some(selection) = state.views.get(view as usize).and_then(|it| it.index.selection(row)) else {
            return;
        };
        if !selection.rights.differ(&rights) {
            return;
        }
        let filter = selection.filter.clone();
        let position = self.lift(state, token);
        self.place(state, token, Selection { filter, rights }, position);
        state.run(token);
    }

    /// Takes the connection's row out of the index and answers its exact position.
    fn lift(&self, state: &mut State, token: Token) -> Sequence {
        let Some(connection) = state.connection(token) else { return Sequence::ZERO };
        let (view, row, mode) = (connection.view, connection.row.take(), connection.mode);
        let Some(row) = row else { return Sequence::ZERO };
        let position = state
            .views
            .get(view as usize)
            .map_or(Sequence::ZERO, |it| it.position_of(&state.connections[token.slot as usize]));
        state.remove_row(view, row);
        if let Some(connection) = state.connection(token) {
            connection.mask = 0;
            // What was matched for the old row and did not go out is matched anew, but for a frame on its way.
            let on_its_way = u32::from(connection.out.as_ref().is_some_and(|out| out.partial.is_some()));
            let forgotten = connection.pending.saturating_sub(on_its_way);
            connection.pending -= forgotten;
            connection.mode = Mode::Silent;
            self.metrics().pending.add(-i64::from(forgotten));
            self.metrics().dropped.add(u64::from(forgotten));
            self.metrics().behind.add(-i64::from(mode == Mode::Behind));
        }
        position
    }

    /// Puts a row for the connection into its view's index, reading on from `position`.
    fn place(&self, state: &mut State, token: Token, selection: Selection, position: Sequence) {
        let Some(connection) = state.connection(token) else { return };
        let view = connection.view;
        let Some(row) =
            state.views.get_mut(view as usize).and_then(|it| it.index.insert(selection, token.slot))
        else {
            return; // 2^32 audiences in one view cannot be
        };
        let joint = state.views[view as usize].joint;
        let Some(connection) = state.connection(token) else { return };
        connection.row = Some(row);
        connection.position = position;
        connection.evaluated = position;
        connection.told = position;
        // The pump has not reached a position past the joint (the ring's end at this moment, or an id behind a held frame) yet
        // and skips up to it.
        connection.mode = if position < joint { Mode::Behind } else { Mode::Live };
        self.metrics().behind.add(i64::from(position < joint));
    }

    /// Answers `ready`, and the gap if one is declared. Who is live already is told `caught_up` at once.
    pub(super) fn say_ready(
        self: &Rc<Self>,
        state: &mut State,
        token: Token,
        start: &Start,
        reference: Option<Ref>,
    ) {
        let Some(connection) = state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        let Some(tenant) = self.shared.tenants.get(admitted.principal().tenant) else { return };
        let position = start.position.unwrap_or_else(|| tenant.head());
        let name = connection_name(connection.id);
        let heartbeat_seconds = u64::from(self.keepalive_ticks(connection.transport));
        let cursor = self.cursor_of(state, token, position);
        let ready = Control::Ready {
            connection_id: &name,
            cursor,
            resumed: start.resumed,
            replaying: tenant.replaying(position),
            heartbeat_seconds,
            reference: reference.as_ref(),
        };
        self.control(state, token, &ready);
        if let Some(gap) = &start.gap {
            let resumes_at = self.cursor_of(state, token, gap.resumes_at);
            self.control(state, token, &Control::Gap { after: &gap.after, resumes_at, reason: gap.reason });
        }
        let Some(connection) = state.connection(token) else { return };
        if connection.mode == Mode::Live && std::mem::take(&mut connection.flags.caught_up_owed) {
            self.control(state, token, &Control::CaughtUp { cursor });
        }
    }
}
