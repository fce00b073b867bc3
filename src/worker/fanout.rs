//! The fan-out: reads each new frame once, finds its live subscribers by index, and writes the shared bytes
//! directly to their sockets. Everything pending for one connection is one write.
//!
//! * A batch is at most 64 frames; a connection's mask says which of them match.
//! * A turn serves at most [`SENDS_PER_TURN`] connections of one tenant before the next tenant: a tenant with
//!   many subscribers delays another by one turn, not by its whole audience.
//! * A connection whose transport takes no more stops being live, with its exact position; `catchup`
//!   continues from there.

use std::sync::Arc;

use crate::close::CloseReason;
use crate::connection::{ReadMode, WriteOutcome};
use crate::event_ring::RingRead;
use crate::frame::Frame;
use crate::ids::Sequence;
use crate::metrics::Times;
use crate::transport::WireFormat;

use super::connection_index::Owner;
use super::sockets::Token;
use super::submit::{BATCH_WRITES, PendingWrite};
use super::view::{BATCH_FRAMES, FanoutBatch};
use super::{WorkerLoop, WorkerState};

/// The most connections of one tenant that are written to before the next tenant's turn: one full submission.
pub const SENDS_PER_TURN: usize = BATCH_WRITES;
/// The most bytes of one tenant's writes before the next tenant's turn.
const BYTES_PER_TURN: usize = 128 * 1024;
/// About how many (frame, connection) pairs are marked before the next tenant's turn, but at least one frame.
/// This takes some hundred microseconds, and some milliseconds if a worker has 100,000 different
/// subscriptions of one tenant.
const MARKS_PER_TURN: usize = 32 * 1024;
/// The least frames of a batch, whatever the audience: together they cost one write each.
const LEAST_FRAMES: usize = 8;
/// The most connections that stop being live before the next tenant's turn, when the worker was lapped.
const LAPPED_PER_TURN: usize = 256;
/// The most different (mask, format) pairs whose joined bytes are kept during a turn.
const GROUPS: usize = 16;

/// The bytes of one set of frames in one format, joined once for all connections that get the same.
struct Group {
    mask: u64,
    format: WireFormat,
    start: usize,
    end: usize,
    /// Connections that took all of the bytes and are not yet in the delivery times.
    served: u64,
}

impl WorkerLoop<'_> {
    /// Runs one tenant's turn. Returns true if work remains for the next turn.
    pub(super) fn fan_out(&mut self, view: u32) -> bool {
        let Some(tenant_view) = self.state.views.get_mut(view as usize) else { return false };
        let mut batch = match tenant_view.batch.take() {
            Some(batch) => batch,
            None => match self.take_batch(view) {
                Some(batch) => batch,
                None => return false,
            },
        };
        let done = match batch.lapped {
            Some(_) => self.lap_step(view, &mut batch),
            None => self.mark_step(view, &mut batch) && self.send_step(view, &mut batch),
        };
        let Some(tenant_view) = self.state.views.get_mut(view as usize) else { return false }; // its last member left
        if done {
            tenant_view.live_position = tenant_view.join_position;
            tenant_view.new_events.notify_waiters();
            self.on_final_chunks(view, &batch.frames);
            self.state.frames = batch.recycle();
        } else {
            tenant_view.batch = Some(batch);
        }
        true
    }

    /// Reads the next frames. Returns `None` at the head.
    pub(super) fn take_batch(&mut self, view: u32) -> Option<FanoutBatch> {
        let WorkerState { views, reader, frames, .. } = &mut *self.state;
        let tenant_view = &mut views[view as usize];
        let mut batch = FanoutBatch { frames: std::mem::take(frames), ..FanoutBatch::default() };
        let most = (MARKS_PER_TURN / tenant_view.index.len().max(1)).clamp(LEAST_FRAMES, BATCH_FRAMES);
        match tenant_view.tenant.ring().read(
            reader,
            tenant_view.live_position.next().0,
            &mut batch.frames,
            most,
        ) {
            RingRead::Frames => {}
            RingRead::AtHead => {
                *frames = batch.frames;
                return None;
            }
            RingRead::Behind { .. } => {
                *frames = batch.frames;
                return Some(self.begin_lap(view));
            }
        }
        tenant_view.join_position =
            batch.frames.last().map_or(tenant_view.live_position, |last| last.sequence());
        Some(batch)
    }

    /// Marks the connections that get some more frames of the batch. Returns true if all frames are marked.
    /// At least one frame is marked, because the matching subscriptions of a frame are not searched in parts.
    pub(super) fn mark_step(&mut self, view: u32, batch: &mut FanoutBatch) -> bool {
        let WorkerState { views, connections, .. } = &mut *self.state;
        let tenant_view = &mut views[view as usize];
        let most = (MARKS_PER_TURN / tenant_view.index.len().max(1)).max(1);
        let mut matched = 0;
        for (at, frame) in batch.frames.iter().enumerate().skip(batch.marked).take(most) {
            tenant_view.index.for_each_match(frame, |slots| {
                for &slot in slots {
                    let connection = &mut connections[slot as usize];
                    if connection.mode != ReadMode::Live
                        || frame.sequence() <= connection.position
                        || connection.is_own_publish(frame)
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
        self.worker.metrics().matched.add(matched);
        self.worker.metrics().pending.add(matched as i64);
        batch.marked == batch.frames.len()
    }

    /// Handles that this worker was lapped, or that a new epoch began: every live connection continues at its
    /// own pace. They are switched over as many turns as needed; one that catches up meanwhile becomes live
    /// at the new end.
    fn begin_lap(&mut self, view: u32) -> FanoutBatch {
        let tenant_view = &mut self.state.views[view as usize];
        tenant_view.join_position = tenant_view.tenant.last_visible();
        FanoutBatch { lapped: Some(0), ..FanoutBatch::default() }
    }

    /// Switches some more connections that were live before the lap to [`ReadMode::Behind`]. Returns true if
    /// all are switched.
    fn lap_step(&mut self, view: u32, batch: &mut FanoutBatch) -> bool {
        let tenant_view = &self.state.views[view as usize];
        let (from, join_position) = (tenant_view.live_position, tenant_view.join_position);
        let owner = self.state.index.tag(Owner::Organization(tenant_view.tenant.id()));
        for _ in 0..LAPPED_PER_TURN {
            let next = batch.lapped.and_then(|at| self.state.index.next(owner, at));
            let Some(slot) = next else { return true };
            batch.lapped = slot.checked_add(1);
            let Some(connection) = self.state.connections.get_mut(slot as usize) else { continue };
            if connection.mode == ReadMode::Live
                && connection.view == view
                && connection.position < join_position
            {
                connection.mode = ReadMode::Behind;
                connection.position = connection.position.max(from);
                connection.evaluated = connection.position;
                let token = Token { slot, generation: connection.generation };
                self.worker.metrics().behind.add(1);
                self.state.run(token);
            }
        }
        false
    }

    /// Writes to some more connections of the batch. Returns true if all were served.
    fn send_step(&mut self, view: u32, batch: &mut FanoutBatch) -> bool {
        let mut joined = std::mem::take(&mut self.state.bytes);
        let mut outs = std::mem::take(&mut self.state.writes);
        // The batch is outside the view here, because a connection that is found gone is dropped, and the
        // last one drops the view.
        let tenant_view = &self.state.views[view as usize];
        let (from, times) = (tenant_view.live_position, tenant_view.times.clone());
        let mut turn = TurnWrites::default();
        let stop = batch.at + SENDS_PER_TURN;
        while batch.at < stop.min(batch.touched.len()) && turn.bytes < BYTES_PER_TURN {
            self.join_writes(batch, stop, &mut turn, &mut joined, &mut outs);
            self.state.submission.write(&self.state.connections, &joined, &mut outs);
            for out in outs.drain(..) {
                self.record_progress(from, &batch.frames, &mut turn, out);
            }
            self.time(&times, &batch.frames, &mut turn);
            if turn.groups.len() == GROUPS {
                turn.groups.clear();
                joined.clear();
            }
        }
        joined.clear();
        (self.state.bytes, self.state.writes) = (joined, outs);
        self.add_to_counters(&turn);
        batch.at >= batch.touched.len()
    }

    /// Takes the next connections of the batch, up to one submission, and joins their bytes.
    fn join_writes(
        &mut self,
        batch: &mut FanoutBatch,
        stop: usize,
        turn: &mut TurnWrites,
        joined: &mut Vec<u8>,
        outs: &mut Vec<PendingWrite>,
    ) {
        let state = &mut *self.state;
        let mut chosen = 0;
        while outs.len() < state.submission.depth() && batch.at < stop && chosen < BYTES_PER_TURN {
            let Some(&token) = batch.touched.get(batch.at) else { break };
            let Some(connection) = state.connection(token) else {
                batch.at += 1; // it has ended since the batch was marked
                continue;
            };
            let (mask, blocked) = (connection.mask, connection.flags.write_state.is_blocked());
            if mask == 0 {
                batch.at += 1; // it was closed or subscribed again since
                continue;
            }
            let Some(group) = turn.group(mask, connection.transport.wire_format(), joined, &batch.frames)
            else {
                break;
            };
            batch.at += 1;
            let Group { start, end, .. } = turn.groups[group];
            chosen += end - start;
            turn.writes += u64::from(!blocked);
            outs.push(PendingWrite {
                token,
                group: group as u32,
                start,
                end,
                wrote: WriteOutcome::nothing(blocked),
            });
        }
    }

    /// Records what a live connection, served up to `from` before, took of its part of the batch.
    fn record_progress(
        &mut self,
        from: Sequence,
        frames: &[Arc<Frame>],
        turn: &mut TurnWrites,
        out: PendingWrite,
    ) {
        let now = self.state.wheel.now();
        let (token, wrote) = (out.token, out.wrote);
        let Some(connection) = self.state.connection(token) else { return };
        let mask = std::mem::take(&mut connection.mask);
        connection.sent_bytes += wrote.bytes as u64;
        turn.bytes += wrote.bytes;
        let whole = if !wrote.blocked && !wrote.gone {
            if let Some(last) = frames.get(63 - mask.leading_zeros() as usize) {
                connection.last_sent = last.sequence();
            }
            turn.groups[out.group as usize].served += 1;
            mask.count_ones()
        } else {
            let chosen =
                frames.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0).map(|(_, frame)| frame);
            let position = connection.position.max(from);
            let whole = connection.record_partial(chosen, wrote.bytes, position);
            if let Some(last) = frames.last() {
                connection.evaluated = last.sequence(); // the rest is matched already, and still pending
            }
            connection.mode = ReadMode::Behind;
            connection.block(now);
            self.worker.metrics().behind.add(1);
            whole
        };
        connection.sent_events += u64::from(whole);
        connection.pending -= whole.min(connection.pending);
        turn.delivered += u64::from(whole);
        if wrote.gone {
            self.drop_connection(token, CloseReason::Peer);
        }
    }

    /// Adds the delivery times of the last submission, counted from the publishing of each event.
    fn time(&self, times: &Times, frames: &[Arc<Frame>], turn: &mut TurnWrites) {
        let now = self.worker.shared.clock.monotonic_us();
        for group in &mut turn.groups {
            let served = std::mem::take(&mut group.served);
            let mut rest = if served > 0 { group.mask } else { 0 };
            while rest != 0 {
                let published = frames[rest.trailing_zeros() as usize].published_us();
                if published > 0 {
                    let us = now.saturating_sub(published);
                    times.record(us, served);
                    self.worker.metrics().times.record(us, served);
                }
                rest &= rest - 1;
            }
        }
    }

    /// Adds a turn's sums to the counters. This is done once per turn, since each addition is a locked
    /// instruction.
    fn add_to_counters(&self, turn: &TurnWrites) {
        let metrics = self.worker.metrics();
        metrics.writes.add(turn.writes);
        metrics.bytes_sent.add(turn.bytes as u64);
        metrics.delivered.add(turn.delivered);
        metrics.pending.add(-(turn.delivered as i64));
    }
}

/// What one turn wrote so far: the joined bytes by group, and counts.
#[derive(Default)]
struct TurnWrites {
    groups: Vec<Group>,
    bytes: usize,
    writes: u64,
    delivered: u64,
}

impl TurnWrites {
    /// Returns the group of (mask, format). If it is new, its bytes are appended to `joined`. Returns
    /// `None` if there are [`GROUPS`] already, which may be dropped once no write uses them.
    fn group(
        &mut self,
        mask: u64,
        format: WireFormat,
        joined: &mut Vec<u8>,
        frames: &[Arc<Frame>],
    ) -> Option<usize> {
        let same = |group: &Group| group.mask == mask && group.format == format;
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
            frame.encoded(format).append_to(joined);
            rest &= rest - 1;
        }
        self.groups.push(Group { mask, format, start, end: joined.len(), served: 0 });
        Some(self.groups.len() - 1)
    }
}
