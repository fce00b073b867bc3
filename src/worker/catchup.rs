//! Serves connections that are behind the live position: each reads the ring or the log at its own pace, one
//! quantum per turn.
//!
//! * There is no separate catch-up mode that could get out of step: the loop reads what follows a
//!   connection's position, and a connection that reaches the view's `join_position` is live.
//! * Nothing past `join_position` is read, so a connection never overtakes the fan-out.
//! * Neighbouring `stream_chunk`s that a connection sees are merged here, and only here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseReason;
use crate::connection::{EventSource, ReadMode, Tick, WriteOutcome, WriteState};
use crate::event_ring::RingRead;
use crate::frame::control::{Control, GapReason};
use crate::frame::frame_page::{FramePage, PageContents};
use crate::frame::{Frame, merge};
use crate::ids::Sequence;
use crate::store::{LogRead, Page, ReadError};
use crate::transport::WireFormat;

use super::sockets::Token;
use super::view::BATCH_FRAMES;
use super::written_event::{PageEvent, SharedFrame};
use super::{WorkerLoop, WorkerState};

/// Bytes sent to one connection before the next one has its turn.
const BYTES_PER_RUN: usize = 32 * 1024;
/// The most bytes of a log page that one connection gets in one write.
const BYTES_AT_ONCE: usize = 64 * 1024;
/// How long a reader waits before it retries a store that cannot be read now.
const RETRY: Duration = Duration::from_millis(200);

/// The events of one write.
struct Delivery {
    /// Number of events evaluated for the first time.
    matched: u32,
    /// Number of events merged into others.
    merged: u32,
    /// Number of events written completely; merged ones count once.
    whole: u32,
    /// Whether there was anything to write.
    wrote_some: bool,
}

impl WorkerState {
    /// Returns true if a connection sees every event of a page with these contents. Returns false if the
    /// answer needs a check of each event.
    pub(super) fn sees_all(&mut self, token: Token, contents: PageContents) -> bool {
        let WorkerState { connections, views, .. } = self;
        let Some(connection) = connections.get_mut(token.slot as usize) else { return false };
        let view = views.get(connection.view as usize);
        let selection = view.and_then(|view| view.index.selection(connection.row?));
        !connection.flags.no_echo && selection.is_some_and(|selection| selection.matches_all(contents))
    }
}

impl WorkerLoop<'_> {
    /// Continues a connection that has work left: first its pending output, then the events that it has not
    /// read.
    pub(super) fn advance(&mut self, token: Token) {
        let now = self.state.wheel.now();
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.running = false;
        if connection.flags.write_state == WriteState::Ready {
            connection.flags.write_state = WriteState::Open;
        }
        let owes = connection.flags.write_state.is_blocked()
            || (connection.out.is_some() && !self.flush(token, now));
        // This comes after the flush, which may have removed the reason for not reading; no further edge
        // reports that. What a blocked connection sends is still read.
        if self.state.connection(token).is_some_and(|connection| connection.flags.unread) {
            self.read(token, true);
        }
        if owes {
            return;
        }
        if let Some(connection) = self.state.connection(token)
            && connection.flags.source == EventSource::Finished
            && connection.out.is_none()
        {
            return self.drop_connection(token, CloseReason::Done);
        }
        self.serve_behind(token);
        self.end_if_read(token);
    }

    /// Sends what a connection that is behind has not read, up to its share of a turn.
    fn serve_behind(&mut self, token: Token) {
        let mut sent = 0;
        while let Some(connection) = self.state.connection(token) {
            let flags = connection.flags;
            if connection.mode != ReadMode::Behind
                || flags.write_state.is_blocked()
                || flags.awaiting_log
                || flags.closing
            {
                return;
            }
            if sent >= BYTES_PER_RUN {
                self.state.run(token);
                return;
            }
            match self.read_on(token) {
                Some(bytes) => sent += bytes,
                None => return,
            }
        }
    }

    /// Writes a connection's pending output. Returns true if none is left.
    pub(super) fn flush(&mut self, token: Token, now: Tick) -> bool {
        let Some(connection) = self.state.connection(token) else { return false };
        let held = connection.out.as_ref().is_some_and(|out| out.partial.is_some());
        let wrote = connection.flush();
        let done = held && connection.out.as_ref().is_none_or(|out| out.partial.is_none());
        if done {
            connection.pending = connection.pending.saturating_sub(1);
        }
        if wrote.blocked && wrote.bytes > 0 {
            connection.outbox().since = now; // there was progress, so the stall timer restarts
        }
        let left = connection.flags.write_state.is_blocked();
        self.worker.metrics().bytes_sent.add(wrote.bytes as u64);
        if done {
            self.worker.metrics().delivered.add(1);
            self.worker.metrics().pending.add(-1);
        }
        if wrote.gone {
            self.drop_connection(token, CloseReason::Peer);
            return false;
        }
        !left && self.send_owed_acks(token)
    }

    /// Reads and sends one batch from the ring or the log. Returns `None` if there is nothing to do now.
    fn read_on(&mut self, token: Token) -> Option<usize> {
        let connection = self.state.connection(token)?;
        let (view, position) = (connection.view, connection.position);
        let tenant_view = self.state.views.get(view as usize)?;
        if position >= tenant_view.join_position {
            self.join_live(token);
            return None;
        }
        let join_position = tenant_view.join_position;
        if self.wants_stream_page(token, join_position) {
            self.ask_streams(token);
            return None;
        }
        let has_stream_source = self.has_stream_source(token);
        let tenant_view = self.state.views.get(view as usize)?;
        let mut frames = std::mem::take(&mut self.state.frames);
        let read = tenant_view.tenant.ring().read(
            &mut self.state.reader,
            position.next().0,
            &mut frames,
            BATCH_FRAMES,
        );
        let sent = match read {
            RingRead::Frames => {
                frames.retain(|frame| frame.sequence() <= join_position);
                if self.is_stream_reader(token) && frames.iter().any(|frame| frame.is_final_chunk()) {
                    self.look_up_streams(token, false);
                }
                self.deliver(token, &frames)
            }
            RingRead::Behind { .. } if has_stream_source => {
                self.ask_streams(token);
                None
            }
            RingRead::Behind { .. } => {
                match self.worker.shared.tenants.store().page_in_memory(tenant_view.tenant.log(), position) {
                    Some(page) => self.deliver_page(token, &page, join_position),
                    None => {
                        self.ask_log(token);
                        None
                    }
                }
            }
            RingRead::AtHead => None, // a new epoch has just begun; a wake-up will follow
        };
        frames.clear();
        self.state.frames = frames;
        sent
    }

    /// Makes a connection live that has read as far as the live connections: from now on the fan-out serves
    /// it.
    fn join_live(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.mode = ReadMode::Live;
        self.worker.metrics().behind.add(-1);
        if std::mem::replace(&mut connection.flags.caught_up_pending, false) {
            let position = connection.position;
            connection.last_sent = position;
            let cursor = self.cursor_of(token, position);
            self.control(token, &Control::CaughtUp { cursor });
        }
    }

    /// Sends those of consecutive `frames` that the connection may see, merged where possible. Returns the
    /// bytes sent, or `None` if the transport took no more.
    pub(super) fn deliver<F: SharedFrame>(&mut self, token: Token, frames: &[F]) -> Option<usize> {
        let last = frames.last()?.frame().sequence();
        let mut bytes = std::mem::take(&mut self.state.bytes);
        let now = self.state.wheel.now();
        let WorkerState { connections, views, .. } = &mut *self.state;
        let connection = connections.get_mut(token.slot as usize)?;
        let selection = views.get(connection.view as usize)?.index.selection(connection.row?)?;
        let mut seen: Vec<&F> = Vec::with_capacity(frames.len());
        seen.extend(frames.iter().filter(|held| {
            let frame = held.frame();
            selection.matches(frame) && !connection.is_own_publish(frame)
        }));
        let evaluated = connection.evaluated;
        let matched = match seen.first() {
            Some(first) if first.frame().sequence() > evaluated => seen.len(),
            _ => seen.iter().filter(|held| held.frame().sequence() > evaluated).count(),
        };
        let matched = connection.match_behind(matched, last);
        let format = connection.transport.wire_format();
        let merges = seen.windows(2).any(|pair| pair[0].frame().continues_in(pair[1].frame()));
        let (wrote, whole, merged) = if merges {
            let mut seen: Vec<Arc<Frame>> = seen.into_iter().map(SharedFrame::share).collect();
            let runs = merge::coalesce(&mut seen);
            seen.iter().for_each(|frame| frame.encoded(format).append_to(&mut bytes));
            let wrote = connection.sink.write(&bytes);
            let whole = connection.wrote_behind(seen.iter(), wrote, last, now);
            // A frame that was sent in part counts for its whole run: all events of the run but one are
            // merged away.
            let is_partial = connection.out.as_ref().is_some_and(|out| out.partial.is_some());
            let started = (whole as usize + usize::from(is_partial)).min(runs.len());
            (wrote, whole, runs[..started].iter().map(|run| run - 1).sum())
        } else {
            seen.iter().for_each(|held| held.frame().encoded(format).append_to(&mut bytes));
            let wrote = connection.sink.write(&bytes);
            (wrote, connection.wrote_behind(seen.iter(), wrote, last, now), 0)
        };
        let wrote_some = !bytes.is_empty();
        bytes.clear();
        self.state.bytes = bytes;
        self.count_delivery(token, wrote, Delivery { matched, merged, whole, wrote_some })
    }

    /// Like [`WorkerLoop::deliver`], for events of a page of which the connection sees all and of which none
    /// can be merged, so that no event is checked.
    fn deliver_all(&mut self, token: Token, page: &FramePage, part: Range<usize>) -> Option<usize> {
        let last = page.events().sequence(part.end.checked_sub(1)?)?;
        let mut bytes = std::mem::take(&mut self.state.bytes);
        let now = self.state.wheel.now();
        let connection = self.state.connections.get_mut(token.slot as usize)?;
        let unseen = part.end.saturating_sub(part.start.max(page.events().count_to(connection.evaluated)));
        let matched = connection.match_behind(unseen, last);
        let format = connection.transport.wire_format();
        let slice = match format {
            WireFormat::SseChunked => page.sse_chunked(part.clone()),
            WireFormat::Ws | WireFormat::Sse => None,
        };
        let wrote = match slice {
            Some(slice) => connection.sink.write(slice),
            None => {
                part.clone().for_each(|at| page.encoded(at, format).append_to(&mut bytes));
                connection.sink.write(&bytes)
            }
        };
        let events = part.map(|at| PageEvent { page, at });
        let whole = connection.wrote_behind(events, wrote, last, now);
        bytes.clear();
        self.state.bytes = bytes;
        self.count_delivery(token, wrote, Delivery { matched, merged: 0, whole, wrote_some: true })
    }

    /// Counts the result of writing to a connection, and drops the connection if its peer is gone. Returns
    /// the same as [`WorkerLoop::deliver`].
    fn count_delivery(
        &mut self,
        token: Token,
        wrote: WriteOutcome,
        Delivery { matched, merged, whole, wrote_some }: Delivery,
    ) -> Option<usize> {
        let metrics = self.worker.metrics();
        metrics.matched.add(u64::from(matched));
        metrics.writes.add(u64::from(wrote_some));
        metrics.bytes_sent.add(wrote.bytes as u64);
        metrics.coalesced.add(u64::from(merged));
        metrics.delivered.add(u64::from(whole));
        metrics.pending.add(i64::from(matched) - i64::from(merged + whole));
        if let Some(connection) = self.state.connection(token) {
            connection.pending = connection.pending.saturating_sub(merged + whole);
        }
        if wrote.gone {
            self.drop_connection(token, CloseReason::Peer);
        }
        (!wrote.blocked && !wrote.gone).then_some(wrote.bytes)
    }

    /// Requests the log page after the connection's position; the result arrives at [`WorkerLoop::on_log`].
    fn ask_log(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.awaiting_log = true;
        let position = connection.position;
        let view = connection.view;
        let Some(it) = self.state.views.get(view as usize) else { return };
        let log = it.tenant.log().clone();
        let worker = self.worker.clone();
        // The task is owned by this worker's LocalSet. It ends with its one result, which names the
        // connection by generation.
        tokio::task::spawn_local(async move {
            let read = loop {
                let read = worker.shared.tenants.store().read_log(&log, position).await;
                // If the store is reopening or overloaded, the task waits: the subscriber is late, not lost.
                // It also waits if the log ends before the position: the commit that writes on is under way.
                let passing = match &read {
                    Err(ReadError::Unavailable | ReadError::Busy | ReadError::OverShare) => true,
                    Ok(LogRead::End { committed }) => *committed <= position,
                    _ => false,
                };
                if !passing || worker.state.borrow_mut().connection(token).is_none() {
                    break read;
                }
                tokio::time::sleep(RETRY).await;
            };
            worker.with_state(|it| it.on_log(token, position, read));
        });
    }

    fn on_log(&mut self, token: Token, requested: Sequence, read: Result<LogRead, ReadError>) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.awaiting_log = false;
        if connection.mode != ReadMode::Behind || connection.position != requested {
            self.state.run(token); // the client subscribed again meanwhile
            self.worker.nudge();
            return;
        }
        let (view, replaying) = (connection.view, connection.flags.caught_up_pending);
        let Some(it) = self.state.views.get(view as usize) else { return };
        let join_position = it.join_position;
        match read {
            // The page is read again in the connection's turn, because thousands of reads may complete at
            // once.
            Ok(LogRead::Page(_))
                if self.worker.shared.tenants.store().has_in_memory(it.tenant.log(), requested) => {}
            // The page is sent now, since it is not in memory any more.
            Ok(LogRead::Page(page)) => drop(self.deliver_page(token, &page, join_position)),
            // Events that the ring still holds are not damaged, so the gap ends there at the latest.
            Ok(LogRead::Gap { resumes_at, is_damaged: true }) => {
                self.declare_gap(token, GapReason::Trimmed, resumes_at.min(join_position));
            }
            Ok(LogRead::Gap { resumes_at, is_damaged: false }) => {
                let reason = if replaying { GapReason::Trimmed } else { GapReason::Lagged };
                self.declare_gap(token, reason, resumes_at);
            }
            // The log has nothing after this position and the ring neither: a new epoch began.
            Ok(LogRead::End { committed }) => self.skip_to(token, committed.min(join_position)),
            Err(error) => {
                tracing::error!(%error, "the log could not be read for a subscriber");
                self.close(token, CloseReason::Internal);
                return;
            }
        }
        self.state.run(token);
        self.worker.nudge();
    }

    /// Sends the events of a log page that follow the connection's position, like [`WorkerLoop::deliver`].
    fn deliver_page(&mut self, token: Token, page: &Page, join_position: Sequence) -> Option<usize> {
        let position = self.state.connection(token)?.position;
        let (whole, _) = page.whole();
        let part = whole.part(position, join_position, BYTES_AT_ONCE);
        if part.is_empty() {
            // The next retained event is past the live position: there is nothing in between.
            self.skip_to(token, join_position);
            return Some(0);
        }
        if !whole.has_runs() && self.state.sees_all(token, whole.contents()) {
            return self.deliver_all(token, whole, part);
        }
        let frames = whole.frames().get(part)?;
        if self.is_stream_reader(token) && frames.iter().any(|held| held.frame().is_final_chunk()) {
            self.look_up_streams(token, false);
        }
        self.deliver(token, frames)
    }

    fn skip_to(&mut self, token: Token, position: Sequence) {
        if let Some(connection) = self.state.connection(token) {
            connection.position = connection.position.max(position);
        }
    }

    /// Sends a `gap` for events that were removed or are damaged, and continues after them.
    fn declare_gap(&mut self, token: Token, reason: GapReason, resumes_at: Sequence) {
        let Some(connection) = self.state.connection(token) else { return };
        let position = connection.position;
        let pending = std::mem::take(&mut connection.pending);
        connection.position = resumes_at;
        connection.evaluated = connection.evaluated.max(resumes_at);
        connection.last_sent = resumes_at;
        self.worker.metrics().pending.add(-i64::from(pending));
        self.worker.metrics().dropped.add(u64::from(pending));
        self.worker.metrics().gap_skipped.add(resumes_at.counter().saturating_sub(position.counter()));
        let after = self.cursor_of(token, position);
        let resumes_at = self.cursor_of(token, resumes_at);
        self.control(token, &Control::Gap { after: after.as_str(), resumes_at, reason });
    }
}
