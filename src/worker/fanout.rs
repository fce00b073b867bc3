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
use crate::frame::{Encoding, Frame};
use crate::ids::Sequence;
use crate::metrics::Times;
use crate::ring::Read;

use super::catchup::Written;
use super::connection_index::Owner;
use super::sockets::Token;
use super::submit::Out;
use super::view::{BATCH_FRAMES, Batch};
use super::{State, Worker};

/// Connections of one tenant written to before the next tenant's turn.
pub const SENDS_PER_TURN: usize = 64;
/// Bytes of one tenant's writes before the next tenant's turn.
const BYTES_PER_TURN: usize = 128 * 1024;
/// (frame, connection) pairs marked before the next tenant's turn, about, but one frame at least; some hundred microseconds, and
/// some milliseconds where a worker has 100,000 different subscriptions of one tenant.
const MARKS_PER_TURN: usize = 32 * 1024;
/// Frames of a batch whatever the audience: together they cost one write each.
const LEAST_FRAMES: usize = 8;
/// Connections that are taken out of the live ones before the next tenant's turn.
const LAPPED_PER_TURN: usize = 256;
/// Different (mask, encoding) pairs whose joined bytes are kept during a turn.
const GROUPS: usize = 16;

/// The bytes of one set of frames in one encoding, joined once for all connections that get the same.
struct Group {
    mask: u64,
    encoding: Encoding,
    start: usize,
    end: usize,
    /// Connections that took it whole and are not timed yet.
    served: u64,
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
        let done = match batch.lapped {
            Some(_) => self.fall_behind(state, view, &mut batch),
            None => self.mark_some(state, view, &mut batch) && self.send_some(state, view, &mut batch),
        };
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

    /// Reads the next frames. `None` at the head.
    pub(super) fn take_batch(self: &Rc<Self>, state: &mut State, view: u32) -> Option<Batch> {
        let State { views, reader, frames, .. } = state;
        let it = &mut views[view as usize];
        let mut batch = Batch { frames: std::mem::take(frames), ..Batch::default() };
        let most = (MARKS_PER_TURN / it.index.len().max(1)).clamp(LEAST_FRAMES, BATCH_FRAMES);
        match it.tenant.ring().read(reader, it.drained.next().0, &mut batch.frames, most) {
            Read::Frames => {}
            Read::AtHead => {
                *frames = batch.frames;
                return None;
            }
            Read::Behind { .. } => {
                *frames = batch.frames;
                return Some(self.all_behind(state, view));
            }
        }
        it.joint = batch.frames.last().map_or(it.drained, |last| last.sequence());
        Some(batch)
    }

    /// Marks who gets some more of the frames of the batch; returns whether all are marked. One frame at least: the matching
    /// subscriptions of a frame are not looked for in parts.
    pub(super) fn mark_some(&self, state: &mut State, view: u32, batch: &mut Batch) -> bool {
        let State { views, connections, .. } = state;
        let it = &mut views[view as usize];
        let most = (MARKS_PER_TURN / it.index.len().max(1)).max(1);
        let mut matched = 0;
        for (at, frame) in batch.frames.iter().enumerate().skip(batch.marked).take(most) {
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
        batch.marked = (batch.marked + most).min(batch.frames.len());
        self.metrics().matched.add(matched);
        self.metrics().pending.add(matched as i64);
        batch.marked == batch.frames.len()
    }

    /// This worker was lapped, or a new epoch began: every live connection reads on at its own pace. They are told so over as many
    /// turns as it takes; whoever catches up meanwhile does so at the new end.
    fn all_behind(&self, state: &mut State, view: u32) -> Batch {
        let it = &mut state.views[view as usize];
        it.joint = it.tenant.head();
        Batch { lapped: Some(0), ..Batch::default() }
    }

    /// Takes some more of the connections that were live before the lap out of the live ones; returns whether all are.
    fn fall_behind(&self, state: &mut State, view: u32, batch: &mut Batch) -> bool {
        let it = &state.views[view as usize];
        let (from, joint) = (it.drained, it.joint);
        let owner = state.index.tag(Owner::Organization(it.tenant.id()));
        for _ in 0..LAPPED_PER_TURN {
            let next = batch.lapped.and_then(|at| state.index.next(owner, at));
            let Some(slot) = next else { return true };
            batch.lapped = slot.checked_add(1);
            let Some(connection) = state.connections.get_mut(slot as usize) else { continue };
            if connection.mode == Mode::Live && connection.view == view && connection.position < joint {
                connection.mode = Mode::Behind;
                connection.position = connection.position.max(from);
                connection.evaluated = connection.position;
                let token = Token { slot, generation: connection.generation };
                self.metrics().behind.add(1);
                state.run(token);
            }
        }
        false
    }

    /// Writes to some more connections of the batch; answers whether all were served.
    fn send_some(self: &Rc<Self>, state: &mut State, view: u32, batch: &mut Batch) -> bool {
        let mut joined = std::mem::take(&mut state.bytes);
        let mut outs = std::mem::take(&mut state.outs);
        // Held apart: whoever is found gone is dropped, and the last one takes the view with it.
        let it = &state.views[view as usize];
        let (from, times) = (it.drained, it.times.clone());
        let mut turn = Turn::default();
        let stop = batch.at + SENDS_PER_TURN;
        while batch.at < stop.min(batch.touched.len()) && turn.bytes < BYTES_PER_TURN {
            self.choose(state, batch, stop, &mut turn, &mut joined, &mut outs);
            state.submission.write(&state.connections, &joined, &mut outs);
            for out in outs.drain(..) {
                self.settle(state, from, &batch.frames, &mut turn, out);
            }
            self.time(&times, &batch.frames, &mut turn);
            if turn.groups.len() == GROUPS {
                turn.groups.clear();
                joined.clear();
            }
        }
        joined.clear();
        (state.bytes, state.outs) = (joined, outs);
        self.book(&turn);
        batch.at >= batch.touched.len()
    }

    /// Takes the next connections of the batch, up to a submission's worth, and joins what is for them.
    fn choose(
        &self,
        state: &mut State,
        batch: &mut Batch,
        stop: usize,
        turn: &mut Turn,
        joined: &mut Vec<u8>,
        outs: &mut Vec<Out>,
    ) {
        let mut chosen = 0;
        while outs.len() < state.submission.depth() && batch.at < stop && chosen < BYTES_PER_TURN {
            let Some(&token) = batch.touched.get(batch.at) else { break };
            let Some(connection) = state.connection(token) else {
                batch.at += 1; // gone since the batch was marked
                continue;
            };
            let (mask, blocked) = (connection.mask, connection.flags.outlet.is_blocked());
            if mask == 0 {
                batch.at += 1; // closed or resubscribed since
                continue;
            }
            let Some(group) = turn.group(mask, connection.encoding(), joined, &batch.frames) else { break };
            batch.at += 1;
            let Group { start, end, .. } = turn.groups[group];
            chosen += end - start;
            turn.writes += u64::from(!blocked);
            outs.push(Out { token, group: group as u32, start, end, wrote: Wrote::nothing(blocked) });
        }
    }

    /// Books what a live connection, so far served up to `from`, took of its part of the batch.
    fn settle(
        self: &Rc<Self>,
        state: &mut State,
        from: Sequence,
        frames: &[Arc<Frame>],
        turn: &mut Turn,
        out: Out,
    ) {
        let now = state.wheel.now();
        let (token, wrote) = (out.token, out.wrote);
        let Some(connection) = state.connection(token) else { return };
        let mask = std::mem::take(&mut connection.mask);
        connection.sent_bytes += wrote.bytes as u64;
        turn.bytes += wrote.bytes;
        let whole = if !wrote.blocked && !wrote.gone {
            if let Some(last) = frames.get(63 - mask.leading_zeros() as usize) {
                connection.told = last.sequence();
            }
            turn.groups[out.group as usize].served += 1;
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
        turn.delivered += u64::from(whole);
        if wrote.gone {
            self.drop_connection(state, token, Close::Peer);
        }
    }

    /// Counts how long the deliveries of the last submission took since they were published.
    fn time(&self, times: &Times, frames: &[Arc<Frame>], turn: &mut Turn) {
        let now = self.shared.clock.monotonic_us();
        for group in &mut turn.groups {
            let served = std::mem::take(&mut group.served);
            let mut rest = if served > 0 { group.mask } else { 0 };
            while rest != 0 {
                let published = frames[rest.trailing_zeros() as usize].published_us();
                if published > 0 {
                    let us = now.saturating_sub(published);
                    times.record(us, served);
                    self.metrics().times.record(us, served);
                }
                rest &= rest - 1;
            }
        }
    }

    /// Adds a turn's sums to the counters: once a turn, since each addition is a locked instruction.
    fn book(&self, turn: &Turn) {
        let metrics = self.metrics();
        metrics.writes.add(turn.writes);
        metrics.bytes_sent.add(turn.bytes as u64);
        metrics.delivered.add(turn.delivered);
        metrics.pending.add(-(turn.delivered as i64));
    }
}

/// What one turn has joined and counted so far.
#[derive(Default)]
struct Turn {
    groups: Vec<Group>,
    bytes: usize,
    writes: u64,
    delivered: u64,
}

impl Turn {
    /// The group of (mask, encoding), its bytes joined at the end of `joined` if it is new. `None`: there are
    /// [`GROUPS`] already, which may be dropped once nobody writes from them.
    fn group(
        &mut self,
        mask: u64,
        encoding: Encoding,
        joined: &mut Vec<u8>,
        frames: &[Arc<Frame>],
    ) -> Option<usize> {
        let same = |group: &Group| group.mask == mask && group.encoding == encoding;
        if let Some(at) = self.groups.iter().position(same) {
            return Some(at);
        }
        if self.groups.len() == GROUPS {
            return None;
        }
        let start = joined.len();
        let mut rest = mask;
        while rest != 0 {
            let frame = &frames[rest.trailing_zeros() as usize];
            frame.encoded(encoding).append_to(joined);
            rest &= rest - 1;
        }
        self.groups.push(Group { mask, encoding, start, end: joined.len(), served: 0 });
        Some(self.groups.len() - 1)
    }
}

impl Connection {
    /// The transport takes no more: the stall is measured from now on.
    pub(super) fn block(&mut self, now: Tick) {
        if !self.flags.outlet.is_blocked() {
            self.flags.outlet.block();
            self.outbox().since = now;
        }
    }

    /// Whether it published `frame` itself and does not want it back.
    pub(super) fn hides(&self, frame: &Frame) -> bool {
        self.flags.no_echo && frame.origin() == self.id
    }

    /// After a short write of `frames` in order: holds the frame that went out in part and sets the position. Answers how
    /// many went out whole.
    pub(super) fn settle_short<W: Written>(
        &mut self,
        frames: impl Iterator<Item = W>,
        mut bytes: usize,
        mut position: Sequence,
    ) -> u32 {
        let mut whole = 0;
        for frame in frames {
            if bytes == 0 {
                break;
            }
            position = frame.sequence();
            let len = frame.encoded_len(self.encoding());
            self.told = position;
            if bytes < len {
                // A slow connection must not hold the whole page that its frame came with.
                self.outbox().partial = frame.detached().map(|frame| (frame, bytes));
                break;
            }
            bytes -= len;
            whole += 1;
        }
        self.position = position;
        whole
    }
}
