//! What a connection took of the events of one write: how many were written completely, where it continues,
//! and the frame that was sent in part.
//!
//! * Live connections are written frames, connections that are behind frames or slices of a page; all of them
//!   are a [`WrittenEvent`].
//! * Nothing is allocated unless a frame was sent in part.

use std::sync::Arc;

use crate::connection::{Connection, Tick, WriteOutcome};
use crate::frame::Frame;
use crate::frame::frame_page::FramePage;
use crate::ids::Sequence;
use crate::transport::WireFormat;

/// An event that was written to a connection, completely, in part or not at all.
pub(super) trait WrittenEvent {
    fn sequence(&self) -> Sequence;
    /// Returns the bytes of the event in `format`.
    fn encoded_len(&self, format: WireFormat) -> usize;
    /// Returns the event as a frame with a buffer of its own.
    fn detached(&self) -> Option<Arc<Frame>>;
}

/// A frame of a ring or of a page of the log.
pub(super) trait SharedFrame {
    /// The frame.
    fn frame(&self) -> &Frame;
    /// Returns a shared reference to the frame.
    fn share(&self) -> Arc<Frame>;
}

impl<F: SharedFrame> WrittenEvent for F {
    fn sequence(&self) -> Sequence {
        self.frame().sequence()
    }
    fn encoded_len(&self, format: WireFormat) -> usize {
        self.frame().encoded(format).len()
    }
    fn detached(&self) -> Option<Arc<Frame>> {
        Some(self.share().detached())
    }
}

/// An event of a page for which no frame was created.
pub(super) struct PageEvent<'p> {
    pub(super) page: &'p FramePage,
    pub(super) at: usize,
}

impl WrittenEvent for PageEvent<'_> {
    fn sequence(&self) -> Sequence {
        self.page.events().sequence(self.at).unwrap_or_default()
    }
    fn encoded_len(&self, format: WireFormat) -> usize {
        self.page.encoded(self.at, format).len()
    }
    fn detached(&self) -> Option<Arc<Frame>> {
        Some(Arc::new(self.page.frame(self.at)?).detached())
    }
}

impl SharedFrame for Arc<Frame> {
    fn frame(&self) -> &Frame {
        self
    }
    fn share(&self) -> Arc<Frame> {
        self.clone()
    }
}

impl SharedFrame for Frame {
    fn frame(&self) -> &Frame {
        self
    }
    fn share(&self) -> Arc<Frame> {
        Arc::new(self.clone())
    }
}

impl<F: SharedFrame> SharedFrame for &F {
    fn frame(&self) -> &Frame {
        (*self).frame()
    }
    fn share(&self) -> Arc<Frame> {
        (*self).share()
    }
}

impl Connection {
    /// Records that the transport takes no more: the stall is measured from now on.
    pub(super) fn block(&mut self, now: Tick) {
        if !self.flags.write_state.is_blocked() {
            self.flags.write_state.block();
            self.outbox().since = now;
        }
    }

    /// Returns true if this connection published `frame` itself and asked not to receive its own events.
    pub(super) fn is_own_publish(&self, frame: &Frame) -> bool {
        self.flags.no_echo && frame.origin() == self.id
    }

    /// Handles a short write of consecutive `frames`: keeps the frame that was sent in part, and sets the
    /// position. Returns how many were sent completely.
    pub(super) fn record_partial<W: WrittenEvent>(
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
            let len = frame.encoded_len(self.transport.wire_format());
            self.last_sent = position;
            if bytes < len {
                // A slow connection must not keep the whole page of its frame in memory.
                self.outbox().partial = frame.detached().map(|frame| (frame, bytes));
                break;
            }
            bytes -= len;
            whole += 1;
        }
        self.position = position;
        whole
    }

    /// Records the events up to `last` as evaluated, of which `matched` match. Returns how many of these were
    /// not counted before.
    pub(super) fn match_behind(&mut self, matched: usize, last: Sequence) -> u32 {
        self.evaluated = self.evaluated.max(last);
        self.pending += matched as u32;
        matched as u32
    }

    /// Records the result of writing `events`, up to and including `last`. Returns how many were written
    /// completely.
    pub(super) fn wrote_behind<W: WrittenEvent>(
        &mut self,
        mut events: impl ExactSizeIterator<Item = W> + DoubleEndedIterator,
        wrote: WriteOutcome,
        last: Sequence,
        now: Tick,
    ) -> u32 {
        self.sent_bytes += wrote.bytes as u64;
        let whole = if wrote.blocked || wrote.gone {
            self.block(now);
            let position = self.position;
            self.record_partial(events, wrote.bytes, position)
        } else {
            self.position = last;
            let count = events.len() as u32;
            if let Some(event) = events.next_back() {
                self.last_sent = event.sequence();
            }
            count
        };
        self.sent_events += u64::from(whole);
        whole
    }
}
