//! A page of frames: consecutive events in one buffer as SSE carries them, and the position of each.
//!
//! * A reader that gets every event is sent slices of the buffer. Facts computed once per page say whether it
//!   may be: what the events are ([`PageContents`]), and whether neighbouring chunks could be merged.
//! * [`Frame`]s are created from the events when the first reader has to check each of them, and are shared
//!   by all other readers.
//! * A page does not know its readers; [`crate::filter`] decides what a reader may see.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use super::event_index::{self, EventIndex};
use super::{Chunk, Encoded, Frame, KeySpan, RoutingKey, SSE_HEAD_LEN, TAIL_LEN, chunked};
use crate::event::EventKind;
use crate::ids::Sequence;
use crate::transport::WireFormat;

/// The chunk index of an event that is not a `stream_chunk`: it has no entry in [`FramePage::chunks`].
pub(super) const NO_CHUNK: u32 = u32::MAX;

/// An event of a page: a [`Frame`] without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(super) sequence: Sequence,
    pub(super) received_ms: u64,
    pub(super) origin: u64,
    /// End of its bytes in the buffer; they begin where the bytes of the event before end.
    pub(super) end: usize,
    /// As the fields of [`Frame`], counted from the start of its bytes.
    pub(super) keys: [KeySpan; 4],
    pub(super) chunk_at: u16,
    pub(super) sse_at: u16,
    pub(super) kind: EventKind,
    pub(super) key_present: u8,
    /// Its index in [`FramePage::chunks`], or [`NO_CHUNK`].
    pub(super) chunk: u32,
}

impl event_index::Entry for Entry {
    fn sequence(&self) -> Sequence {
        self.sequence
    }
    fn end(&self) -> usize {
        self.end
    }
}

/// What the events of a page are, as far as it decides who gets all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageContents {
    /// An event has a `user_id`, so that not every reader may see the whole page.
    pub has_users: bool,
    /// An event is a chunk of a part that is not text ([`Frame::is_of_other_part`]), for which not every reader
    /// asks.
    pub has_other_parts: bool,
}

/// Consecutive events in one buffer.
#[derive(Debug)]
pub struct FramePage {
    bytes: Bytes,
    events: EventIndex<Entry>,
    chunks: Vec<Chunk>,
    frames: OnceLock<Box<[Frame]>>,
    contents: PageContents,
    has_runs: bool,
    /// Whether there are routing keys between events in the buffer.
    has_keys_apart: bool,
}

impl FramePage {
    pub(super) fn new(bytes: Bytes, entries: Vec<Entry>, chunks: Vec<Chunk>) -> FramePage {
        let has_other_parts = chunks.iter().any(|chunk| !chunk.is_text);
        let has_users = entries.iter().any(|entry| entry.key_present & 1 << RoutingKey::User as u8 != 0);
        let has_keys_apart = entries.iter().any(|entry| entry.chunk_at > 0);
        let mut page = FramePage {
            bytes,
            events: EventIndex::new(entries),
            chunks,
            frames: OnceLock::new(),
            contents: PageContents { has_users, has_other_parts },
            has_runs: false,
            has_keys_apart,
        };
        page.has_runs = page.chunks.len() > 1
            && page.events.entries().windows(2).any(|pair| pair.iter().all(|entry| entry.chunk != NO_CHUNK))
            && page.frames().windows(2).any(|pair| pair[0].continues_in(&pair[1]));
        page
    }

    /// The events by index and sequence.
    #[must_use]
    pub fn events(&self) -> &EventIndex<Entry> {
        &self.events
    }

    /// Returns what the events are.
    #[must_use]
    pub fn contents(&self) -> PageContents {
        self.contents
    }

    /// Returns true if an event continues the text of the one before it ([`Frame::continues_in`]), so that
    /// the two may be merged.
    #[must_use]
    pub fn has_runs(&self) -> bool {
        self.has_runs
    }

    /// Returns the events after `position` and not after `last`, up to `most` bytes of the buffer, but at
    /// least one if there is one.
    #[must_use]
    pub fn part(&self, position: Sequence, last: Sequence, most: usize) -> Range<usize> {
        let from = self.events.count_to(position);
        let limit = self.events.start(from).saturating_add(most);
        let rest = self.events.entries().get(from..).unwrap_or_default();
        let fit = rest.partition_point(|entry| entry.end <= limit && entry.sequence <= last);
        let one = rest.first().is_some_and(|entry| entry.sequence <= last);
        from..from + fit.max(usize::from(one))
    }

    /// Returns the events as frames, in order.
    pub fn frames(&self) -> &[Frame] {
        self.frames.get_or_init(|| (0..self.events.len()).filter_map(|at| self.frame(at)).collect())
    }

    /// Returns event `at` as a frame, which keeps the page's buffer in memory.
    #[must_use]
    pub fn frame(&self, at: usize) -> Option<Frame> {
        let entry = self.events.entries().get(at)?;
        Some(Frame {
            sequence: entry.sequence,
            received_ms: entry.received_ms,
            published_us: 0,
            origin: entry.origin,
            kind: entry.kind,
            key_present: entry.key_present,
            keys: entry.keys,
            chunk_at: entry.chunk_at,
            sse_at: entry.sse_at,
            chunk: self.chunks.get(entry.chunk as usize).copied(),
            buf: self.bytes.slice(self.events.start(at)..entry.end),
        })
    }

    /// Returns event `at` as JSON; empty if there is no such event.
    #[must_use]
    pub fn json(&self, at: usize) -> &[u8] {
        self.cut(at, |entry, start| {
            start + usize::from(entry.sse_at) + SSE_HEAD_LEN..entry.end.saturating_sub(TAIL_LEN)
        })
    }

    /// Returns event `at` in `format`; empty if there is no such event.
    #[must_use]
    pub fn encoded(&self, at: usize, format: WireFormat) -> Encoded<'_> {
        match format {
            WireFormat::Ws => Encoded::ws(self.json(at)),
            WireFormat::SseChunked => {
                Encoded::as_is(self.cut(at, |entry, start| start + usize::from(entry.chunk_at)..entry.end))
            }
            WireFormat::Sse => Encoded::as_is(self.cut(at, |entry, start| {
                start + usize::from(entry.sse_at)..entry.end.saturating_sub(chunked::TAIL.len())
            })),
        }
    }

    /// Returns [`Frame::sse_chunked`] of all events of a range as one slice. Returns `None` for an empty
    /// range, and if there are other bytes between the events.
    #[must_use]
    pub fn sse_chunked(&self, range: Range<usize>) -> Option<&[u8]> {
        let entries = self.events.entries().get(range.clone())?;
        let ((first, others), last) = (entries.split_first()?, entries.last()?);
        if self.has_keys_apart && others.iter().any(|entry| entry.chunk_at > 0) {
            return None;
        }
        self.bytes.get(self.events.start(range.start) + usize::from(first.chunk_at)..last.end)
    }

    /// Returns the bytes of the buffer that hold the events of a range.
    #[must_use]
    pub fn bytes_of(&self, range: Range<usize>) -> usize {
        self.events.start(range.end).saturating_sub(self.events.start(range.start))
    }

    /// Returns the bytes of the buffer.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns about how many bytes of memory the page takes besides the buffer, including the frames that
    /// may be created.
    #[must_use]
    pub fn size(&self) -> usize {
        self.events.size()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.events.len() * size_of::<Frame>()
            + size_of::<FramePage>()
    }

    fn cut(&self, at: usize, range: impl FnOnce(&Entry, usize) -> Range<usize>) -> &[u8] {
        let range = self.events.entries().get(at).map(|entry| range(entry, self.events.start(at)));
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::page_writer::PageWriter;
    use super::super::record::Record;
    use super::super::tests::{KEY, frame};
    use super::*;
    use crate::ids::TenantId;

    /// Returns the frames of `events`, with sequences from 1, and the page that they become in the log.
    fn page(events: &[&str]) -> (Vec<Frame>, FramePage) {
        let mut writer = PageWriter::new(TenantId(1), &KEY, Vec::new(), events.len());
        let mut frames = Vec::new();
        for (event, sequence) in events.iter().zip(1..) {
            let (frame, mut record) = (frame(event, sequence), Vec::new());
            frame.write_record(frame.received_ms(), &mut record);
            let record = Record::read(&mut &record[..], frame.received_ms()).expect("written just now");
            writer.push(&record, frame.sequence());
            frames.push(frame);
        }
        (frames, writer.finish(Bytes::from))
    }

    const PLAIN: &str = r#"{"type":"custom","channel":"c","data":"some text"}"#;
    const USERS: &str = r#"{"type":"message","agent_id":"a","user_id":"u","content":"x"}"#;
    const APART: &str = r#"{"type":"message","agent_id":"a\"","content":"x"}"#;
    const CHUNK: &str = r#"{"type":"stream_chunk","request_id":"r","chunk":"x","is_final":false}"#;
    const OTHER: &str = r#"{"type":"stream_chunk","request_id":"s","chunk":"y","is_final":false}"#;
    const TEXT_PART: &str = r#"{"type":"stream_chunk","request_id":"r","chunk":"x","is_final":false,"part":{"type":"text","id":"a"}}"#;
    const REASONING: &str = r#"{"type":"stream_chunk","request_id":"r","chunk":"x","is_final":false,"part":{"type":"reasoning","id":"a"}}"#;
    const FINAL: &str = r#"{"type":"stream_chunk","request_id":"r","chunk":"z","is_final":true}"#;

    /// A reader gets the same from a page without a check of each event as from its frames.
    #[test]
    fn events_are_the_same_with_and_without_frames() {
        let (frames, page) = page(&[PLAIN, USERS, APART, CHUNK, FINAL, PLAIN]);
        assert_eq!((page.events().len(), page.events().last()), (6, Some(Sequence(6))));
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!(page.events().sequence(at), Some(frame.sequence()));
            assert_eq!(page.json(at), frame.json());
            for format in [WireFormat::Ws, WireFormat::Sse, WireFormat::SseChunked] {
                assert_eq!(page.encoded(at, format).to_vec(), frame.encoded(format).to_vec());
                assert_eq!(page.frames()[at].encoded(format).to_vec(), frame.encoded(format).to_vec());
            }
        }
        assert!(
            page.json(6).is_empty() && page.frame(6).is_none() && page.encoded(6, WireFormat::Sse).is_empty()
        );
        let slice: Vec<u8> = frames[2..].iter().flat_map(|frame| frame.sse_chunked().to_vec()).collect();
        assert_eq!(
            page.sse_chunked(2..6),
            Some(&slice[..]),
            "a key that stands before all of it is left out"
        );
        assert_eq!(
            (page.sse_chunked(1..3), page.sse_chunked(3..3), page.sse_chunked(3..7)),
            (None, None, None)
        );
    }

    #[test]
    fn a_page_knows_whether_it_has_addressed_events_and_runs() {
        let says = |events: &[&str]| {
            let (_, page) = page(events);
            assert!(!page.contents().has_other_parts);
            (page.contents().has_users, page.has_runs())
        };
        assert_eq!(says(&[PLAIN, APART, CHUNK]), (false, false));
        assert_eq!(says(&[PLAIN, PLAIN, USERS]), (true, false));
        assert_eq!(
            says(&[CHUNK, OTHER, CHUNK, PLAIN, CHUNK]),
            (false, false),
            "none is next to one of its own"
        );
        assert_eq!(says(&[FINAL, CHUNK]), (false, false), "what is final is not continued");
        assert_eq!(says(&[PLAIN, CHUNK, FINAL]), (false, true));
    }

    #[test]
    fn a_page_knows_whether_it_has_chunks_of_other_parts() {
        let says = |events: &[&str]| page(events).1.contents().has_other_parts;
        assert!(!says(&[PLAIN, CHUNK, TEXT_PART, FINAL]));
        assert!(says(&[PLAIN, CHUNK, REASONING]));
    }

    #[test]
    fn a_part_follows_a_position_and_ends_by_bytes_or_at_a_position() {
        let (_, page) = page(&[PLAIN; 10]);
        let one = page.bytes_of(0..1);
        assert_eq!(page.bytes_len(), 10 * one);
        let (end, most) = (Sequence(10), 20 * one);
        assert_eq!(page.part(Sequence(0), end, most), 0..10);
        assert_eq!(page.part(Sequence(3), end, 4 * one), 3..7);
        assert_eq!(page.part(Sequence(3), end, 4 * one - 1), 3..6);
        assert_eq!(page.part(Sequence(3), end, 0), 3..4, "one goes however long it is");
        assert_eq!(page.part(Sequence(3), Sequence(5), most), 3..5);
        assert_eq!(page.part(Sequence(3), Sequence(3), most), 3..3, "nothing past the last");
        assert_eq!(page.part(end, Sequence(20), most), 10..10);
    }
}
