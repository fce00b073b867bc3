//! The pump: each new frame is taken once, its live subscribers found by index, and the shared bytes written straight
//! to their sockets, everything pending for one connection in one write.
//!
//! * A batch is at most 64 frames; a connection's mask says which of them are for it.
//! * A turn serves at most [`SENDS_PER_TURN`] connections of one tenant, then the next tenant has its turn: a tenant
//!   with many subscribers delays another by one turn, not by its whole audience.
//! * A connection that takes no more leaves the live ones with its exact position; `catchup` goes on from there.

use std::rc::Rc;
use std::sync::Arc;

use crate::close::Close;
use crate::connection::{Connection, Mode, Tick, Wrote};
use crate::frame::Frame;
use crate::ring::Read;

use super::sockets::Token;
use super::view::{BATCH_FRAMES, Batch};
use super::{State, Worker};

/// Connections of one tenant written to before the next tenant's turn.
pub const SENDS_PER_TURN: usize = 64;
/// Bytes of one tenant's writes before the next tenant's turn.
const BYTES_PER_TURN: usize = 256 * 1024;
/// Different (mask, transport) pairs whose joined bytes are kept during a turn.
const GROUPS: usize = 8;

/// The bytes of one set of frames for one transport, joined once for all connections that get the same.
struct Group {
    mask: u64,
    ws: bool,
    start: usize,
    end: usize,
}

impl Worker {
    /// One tenant's turn. Answers whether it has more.
    pub(super) fn fan_out(self: &Rc<Self>, state: &mut State, view: u32) -> bool {
        let Some(it) = state.views.get_mut(view as usize) else { return false };
        let mut batch = match it.batch.take() {
            Some(batch) => batch,
            None => match self.take_batch(state, view) {
                Some(batch) => batch,
                None => return false,
            },
        };
        let done = self.send_some(state, view, &mut batch);
        let Some(it) = state.views.get_mut(view as usize) else { return false }; // its last member went
        if done {
            it.drained = it.joint;
            it.news.notify_waiters();
            state.frames = batch.recycle();
        } else {
            it.batch = Some(batch);
        }
        true
    }

    /// Reads the next frames and marks who gets which. `None` at the head.
    fn take_batch(self: &Rc<Self>, state: &mut State, view: u32) -> Option<Batch> {
        let State { views, reader, connections, frames, .. } = state;
        let it = &mut views[view as usize];
        let mut batch = Batch { frames: std::mem::take(frames), ..Batch::default() };
        match it.tenant.ring().read(reader, it.drained.next().0, &mut batch.frames, BATCH_FRAMES) {
            Read::Frames => {}
            Read::AtHead => {
                *frames = batch.frames;
                return None;
            }
            Read::Behind { .. } => {
                self.all_behind(state, view);
                return Some(Batch::default());
            }
        }
        it.joint = batch.frames.last().map_or(it.drained, |last| last.sequence());
        let mut matched = 0;
        for (at, frame) in batch.frames.iter().enumerate() {
            it.index.for_each_match(frame, |slots| {
                for &slot in slots {
                    let connection = &mut connections[slot as usize];
                    if connection.mode != Mode::Live
                        || frame.sequence() <= connection.position
                        || connection.hides(frame)
                    {
                        continue;
                    }
                    if connection.mask == 0 {
                        batch.touched.push(Token { slot, generation: connection.generation });
                    }
                    connection.mask |= 1 << at;
                    connection.pending += 1;
                    matched += 1;
                }
            });
        }
        self.metrics().matched.add(matched);
        self.metrics().pending.add(matched as i64);
        Some(batch)
    }

    /// This worker was lapped, or a new epoch began: every live connection reads on at its own pace.
    fn all_behind(self: &Rc<Self>, state: &mut State, view: u32) {
        let it = &mut state.views[view as usize];
        let from = it.drained;
        it.drained = it.tenant.head();
        it.joint = it.drained;
        let mut tokens = Vec::new();
        for (slot, connection) in state.connections.iter_mut() {
            if connection.mode == Mode::Live && connection.view == view && connection.row.is_some() {
                connection.mode = Mode::Behind;
                connection.position = connection.position.max(from);
                connection.evaluated = connection.position;
                tokens.push(Token { slot: slot as u32, generation: connection.generation });
            }
        }
        self.metrics().behind.add(tokens.len() as i64);
        tokens.into_iter().for_each(|token| state.run(token));
    }

    /// Writes to some more connections of the batch; answers whether all were served.
    fn send_some(self: &Rc<Self>, state: &mut State, view: u32, batch: &mut Batch) -> bool {
        let mut joined = std::mem::take(&mut state.bytes);
        let mut groups: Vec<Group> = Vec::new();
        let (stop, mut sent) = (batch.at + SENDS_PER_TURN, 0);
        while batch.at < stop && sent < BYTES_PER_TURN {
            let Some(&token) = batch.touched.get(batch.at) else { break };
            batch.at += 1;
            let Some(connection) = state.connection(token) else { continue }; // gone since the batch was marked
            if connection.mask == 0 {
                continue; // closed or resubscribed since
            }
            let wrote = if connection.flags.blocked {
                Wrote { bytes: 0, blocked: true, gone: false }
            } else {
                let range =
                    join(&mut groups, &mut joined, &batch.frames, connection.mask, connection.is_ws());
                self.metrics().writes.add(1);
                connection.sink.write(&joined[range])
            };
            sent += wrote.bytes;
            self.settle(state, token, view, &batch.frames, wrote);
        }
        joined.clear();
        state.bytes = joined;
        batch.at >= batch.touched.len()
    }

    /// Books what a live connection took of its part of the batch.
    fn settle(
        self: &Rc<Self>,
        state: &mut State,
        token: Token,
        view: u32,
        frames: &[Arc<Frame>],
        wrote: Wrote,
    ) {
        let from = state.views[view as usize].drained;
        let now = state.wheel.now();
        let Some(connection) = state.connection(token) else { return };
        let mask = std::mem::take(&mut connection.mask);
        connection.sent_bytes += wrote.bytes as u64;
        self.metrics().bytes_sent.add(wrote.bytes as u64);
        let whole = if !wrote.blocked && !wrote.gone {
            if let Some(last) = frames.get(63 - mask.leading_zeros() as usize) {
                connection.told = last.sequence();
            }
            mask.count_ones()
        } else {
            let chosen =
                frames.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0).map(|(_, frame)| frame);
            let position = connection.position.max(from);
            let whole = connection.settle_short(chosen, wrote.bytes, position);
            if let Some(last) = frames.last() {
                connection.evaluated = last.sequence(); // the rest is matched already, and still pending
            }
            connection.mode = Mode::Behind;
            connection.block(now);
            self.metrics().behind.add(1);
            whole
        };
        connection.sent_events += u64::from(whole);
        connection.pending -= whole.min(connection.pending);
        self.metrics().delivered.add(u64::from(whole));
        self.metrics().pending.add(-i64::from(whole));
        if wrote.gone {
            self.drop_connection(state, token, Close::Peer);
        }
    }
}

impl Connection {
    /// The transport takes no more: the stall is measured from now on.
    pub(super) fn block(&mut self, now: Tick) {
        if !std::mem::replace(&mut self.flags.blocked, true) {
            self.outbox().since = now;
        }
    }

    /// Whether it published `frame` itself and does not want it back.
    pub(super) fn hides(&self, frame: &Frame) -> bool {
        self.flags.no_echo && frame.origin() == self.id
    }

    /// After a short write of `frames` in order: holds the frame that went out in part and sets the position. Answers how
    /// many went out whole.
    pub(super) fn settle_short<'f>(
        &mut self,
        frames: impl Iterator<Item = &'f Arc<Frame>>,
        mut bytes: usize,
        mut position: crate::ids::Sequence,
    ) -> u32 {
        let mut whole = 0;
        for frame in frames {
            if bytes == 0 {
                break;
            }
            position = frame.sequence();
            let len: usize = self.encoding(frame).iter().map(|part| part.len()).sum();
            self.told = position;
            if bytes < len {
                self.outbox().partial = Some((frame.clone(), bytes));
                break;
            }
            bytes -= len;
            whole += 1;
        }
        self.position = position;
        whole
    }
}

/// Joins the chosen frames' bytes, or finds them joined already.
fn join(
    groups: &mut Vec<Group>,
    joined: &mut Vec<u8>,
    frames: &[Arc<Frame>],
    mask: u64,
    ws: bool,
) -> std::ops::Range<usize> {
    if let Some(group) = groups.iter().find(|group| group.mask == mask && group.ws == ws) {
        return group.start..group.end;
    }
    if groups.len() == GROUPS {
        groups.clear();
        joined.clear();
    }
    let start = joined.len();
    let mut rest = mask;
    while rest != 0 {
        let frame = &frames[rest.trailing_zeros() as usize];
        match ws {
            true => joined.extend_from_slice(frame.ws()),
            false => frame.sse().iter().for_each(|part| joined.extend_from_slice(part)),
        }
        rest &= rest - 1;
    }
    groups.push(Group { mask, ws, start, end: joined.len() });
    start..joined.len()
}
