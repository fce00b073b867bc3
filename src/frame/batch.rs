//! Events that are published together: encoded one after the other, numbered together, and shared from then
//! on.
//!
//! * Their bytes are in as few buffers as [`SHARED_BYTES`] allows. A buffer belongs only to the batch until
//!   its ids are written, so numbering copies no event.
//! * A frame keeps its whole buffer in memory. Rings release frames in order, so a ring keeps at most one
//!   buffer more than its frames need. Code that keeps a single frame for long copies it
//!   ([`Frame::detached`]).
//! * A batch does not know its tenant; the caller provides the first sequence and the cursors.

use std::sync::Arc;

use bytes::Bytes;

use super::encode::{EncodedSize, encode};
use super::{Frame, TAIL_LEN, TIMESTAMP_LEN};
use crate::cursor::Cursor;
use crate::event::Event;
use crate::ids::Sequence;
use crate::time;

/// The most bytes of a buffer that several events share. A larger event has its own buffer.
pub const SHARED_BYTES: usize = 64 * 1024;
/// A buffer is kept as it is if less than one part in this many of it is unused.
const SPARE_PART: usize = 8;

/// Encoded events without sequences, in order.
pub struct Batch {
    /// The frames, still without their bytes.
    frames: Vec<Arc<Frame>>,
    /// The position of each event's bytes in its buffer.
    places: Vec<BufferSpan>,
    /// The last buffer is being filled, unless the batch is closed.
    buffers: Vec<Vec<u8>>,
    /// Bytes of events that are still expected, as their publisher sends them.
    expected: usize,
    /// The timestamp of events that have none.
    now: [u8; TIMESTAMP_LEN],
    origin: u64,
    size: usize,
}

/// A part of a buffer.
#[derive(Clone, Copy)]
struct BufferSpan {
    buffer: u32,
    start: u32,
    end: u32,
}

/// What the events of a batch get when they are numbered.
#[derive(Clone, Copy, Debug)]
pub struct Numbering {
    /// Sequence of the first event; the others follow it.
    pub first: Sequence,
    /// The server's receive time in Unix milliseconds.
    pub received_ms: u64,
    /// When the events are published ([`crate::time::Clock::monotonic_us`]); 0 if not known.
    pub published_us: u64,
}

impl Batch {
    /// Creates a batch without events. `now_ms` is the timestamp of events that have none, `origin` the
    /// connection that publishes (0: none), and `expected` the number of bytes that the publisher sends, as
    /// far as known.
    #[must_use]
    pub fn new(now_ms: u64, origin: u64, expected: usize) -> Batch {
        Batch {
            frames: Vec::new(),
            places: Vec::new(),
            buffers: Vec::new(),
            expected,
            now: time::rfc3339_bytes(now_ms),
            origin,
            size: 0,
        }
    }

    /// Sets the timestamp of later events that have none.
    pub fn received(&mut self, now_ms: u64) {
        self.now = time::rfc3339_bytes(now_ms);
    }

    /// Encodes one more event; returns the length of its JSON.
    pub fn push(&mut self, event: &Event<'_>) -> usize {
        let room = EncodedSize::of(event);
        if self.buffers.last().is_none_or(|buffer| buffer.len() + room.frame() > SHARED_BYTES) {
            self.close();
            let expected = room.frames(self.expected).min(SHARED_BYTES);
            self.buffers.push(Vec::with_capacity(expected.max(room.frame())));
        }
        let buffer = self.buffers.len() - 1;
        let bytes = &mut self.buffers[buffer];
        let start = bytes.len();
        let frame = encode(event, room, &self.now, self.origin, bytes);
        let end = bytes.len();
        let json = end - start - frame.json_at() - TAIL_LEN;
        self.expected = self.expected.saturating_sub(room.sent());
        self.size += end - start + size_of::<Frame>();
        // A buffer holds one event, or at most `SHARED_BYTES` plus the bytes added by escapes.
        self.places.push(BufferSpan { buffer: buffer as u32, start: start as u32, end: end as u32 });
        self.frames.push(Arc::new(frame));
        json
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }
    /// Returns true if there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
    /// Returns the bytes of memory that its frames take ([`Frame::size`]).
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
    /// Frees the unused part of the last buffer; call it when no more events come.
    pub fn close(&mut self) {
        let Some(buffer) = self.buffers.last_mut() else { return };
        if buffer.capacity() - buffer.len() > buffer.len() / SPARE_PART {
            buffer.shrink_to_fit();
        }
    }

    /// Keeps the events for which `wanted` returns true; it gets the event's position in the batch.
    pub fn retain(&mut self, wanted: impl Fn(usize) -> bool) {
        retain(&mut self.places, &wanted);
        retain(&mut self.frames, &wanted);
        let bytes: usize = self.places.iter().map(|place| (place.end - place.start) as usize).sum();
        self.size = bytes + self.frames.len() * size_of::<Frame>();
    }

    /// Numbers the events and writes `cursor` of each sequence into the encodings. Made for use under a
    /// tenant's lock: no event is copied, and nothing is allocated but one counter per buffer.
    #[must_use]
    pub fn seal(self, numbering: Numbering, mut cursor: impl FnMut(Sequence) -> Cursor) -> Vec<Arc<Frame>> {
        let Batch { mut frames, places, mut buffers, .. } = self;
        let number = |at: usize| Sequence(numbering.first.0 + at as u64);
        for (at, (frame, place)) in frames.iter().zip(&places).enumerate() {
            let bytes = &mut buffers[place.buffer as usize][place.start as usize..];
            frame.write_id(bytes, &cursor(number(at)));
        }
        let buffers: Vec<Bytes> = buffers.into_iter().map(Bytes::from).collect();
        for (at, (frame, place)) in frames.iter_mut().zip(&places).enumerate() {
            let frame = Arc::make_mut(frame); // the only reference, so this never copies
            frame.sequence = number(at);
            frame.received_ms = numbering.received_ms;
            frame.published_us = numbering.published_us;
            frame.buf = buffers[place.buffer as usize].slice(place.start as usize..place.end as usize);
        }
        frames
    }
}

fn retain<T>(items: &mut Vec<T>, wanted: &impl Fn(usize) -> bool) {
    let mut places = 0..;
    items.retain(|_| places.next().is_some_and(wanted));
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("frames", &self.frames).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::KEY;
    use crate::ids::TenantId;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn message(len: usize) -> String {
        format!(r#"{{"type":"message","agent_id":"a","user_id":"ü","content":"{}"}}"#, "x".repeat(len))
    }

    fn batch(events: &[String], expected: usize) -> Batch {
        let mut batch = Batch::new(NOW_MS, 3, expected);
        for event in events {
            batch.push(&Event::parse(event).expect("valid"));
        }
        batch.close();
        batch
    }

    fn seal(batch: Batch) -> Vec<Arc<Frame>> {
        let numbering = Numbering { first: Sequence(7), received_ms: NOW_MS, published_us: 5 };
        batch.seal(numbering, |sequence| KEY.encode(TenantId(1), sequence))
    }

    /// The same event, encoded without a batch.
    fn alone(event: &str, sequence: Sequence) -> Frame {
        let mut frame = Frame::encode(&Event::parse(event).expect("valid"), NOW_MS, 3);
        frame.seal(sequence, NOW_MS, &KEY.encode(TenantId(1), sequence));
        frame
    }

    #[test]
    fn frames_of_a_batch_are_those_of_its_events_one_by_one() {
        let mut events: Vec<String> = [0, 1, 40_000, 90, 70_000, 5, 65_000, 126, 8].map(message).into();
        events.push(
            r#"{"type":"stream_chunk","request_id":"r","chunk":"a\n","is_final":false,"index":4}"#.into(),
        );
        events.push(r#"{"type":"custom","channel":"c","data":{"a": [1, "\u0007"]}}"#.into());
        for expected in [0, 1_000, usize::MAX] {
            let frames = seal(batch(&events, expected));
            assert_eq!(frames.len(), events.len());
            for (at, (frame, event)) in frames.iter().zip(&events).enumerate() {
                let alone = alone(event, Sequence(7 + at as u64));
                assert_eq!((frame.sequence(), frame.received_ms()), (alone.sequence(), NOW_MS));
                assert_eq!((frame.published_us(), frame.origin()), (5, 3));
                assert_eq!((frame.sse_chunked(), frame.json()), (alone.sse_chunked(), alone.json()));
                assert_eq!((frame.chunk, frame.keys), (alone.chunk, alone.keys));
                assert_eq!(frame.size(), alone.size());
            }
        }
    }

    #[test]
    fn a_batch_says_what_its_frames_take() {
        let events: Vec<String> = (0..200).map(message).collect();
        let batch = batch(&events, 0);
        let size = batch.size();
        let frames = seal(batch);
        assert_eq!(size, frames.iter().map(|frame| frame.size()).sum::<usize>());
    }

    #[test]
    fn a_buffer_that_is_shared_is_bounded() {
        let events: Vec<String> = (0..1_000).map(|_| message(300)).collect();
        let batch = batch(&events, usize::MAX);
        assert!(batch.buffers.len() > 5);
        for buffer in &batch.buffers {
            assert!(buffer.capacity() <= SHARED_BYTES, "{}", buffer.capacity());
        }
        let spare = batch.buffers.last().map(|buffer| buffer.capacity() - buffer.len());
        assert!(spare.is_some_and(|spare| spare < SHARED_BYTES / SPARE_PART));
    }

    #[test]
    fn what_is_not_retained_leaves_no_gap_in_the_numbers() {
        let events: Vec<String> = [1, 70_000, 2, 3].map(message).into();
        let mut batch = batch(&events, 0);
        batch.retain(|at| at % 2 == 0);
        assert_eq!(batch.len(), 2);
        let size = batch.size();
        let frames = seal(batch);
        assert_eq!(size, frames.iter().map(|frame| frame.size()).sum::<usize>());
        assert_eq!(frames[0].json(), alone(&events[0], Sequence(7)).json());
        assert_eq!(frames[1].json(), alone(&events[2], Sequence(8)).json());
    }
}
