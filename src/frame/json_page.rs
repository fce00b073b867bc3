//! A page of JSON: consecutive events in one buffer as an array carries them, and the end of each.
//!
//! * The JSON is written directly from the records of the log. What an array does not carry, such as routing
//!   keys that had to be unescaped and the lines of SSE, is never created.
//! * A comma precedes each event, so that consecutive events of a page are one slice.
//! * A page does not say who may see its events. It is only for readers that may see every event of the
//!   organization and ask for all of them, with or without the chunks of parts that are not text.

use std::ops::Range;

use bytes::Bytes;

use super::event_index::{self, EventIndex};
use super::page_writer::{ID_IN_ARRAY, KindPrefix};
use super::record::{
    AFTER_KIND, AFTER_TIME, BEFORE_KIND, BEFORE_TEXT, BEFORE_TIME, BodyForm, Record, beginning_len,
};
use super::{JSON_ID, TIMESTAMP_LEN};
use crate::cursor::{CURSOR_LEN, CursorKey, CursorWriter};
use crate::event::EventKind;
use crate::ids::{Sequence, TenantId};
use crate::time;

/// Bytes of a timestamp and of the name before it.
const TIME_LEN: usize = BEFORE_TIME.len() + TIMESTAMP_LEN;

/// By the kind's ordinal: a comma, and the JSON up to its first field. The id is zeros.
static BEGINNINGS: [KindPrefix; EventKind::ALL.len()] = {
    let mut beginnings = [const { KindPrefix::join(&[]) }; EventKind::ALL.len()];
    let mut at = 0;
    while at < EventKind::ALL.len() {
        let kind = EventKind::ALL[at];
        assert!(kind as usize == at);
        let id = [0; CURSOR_LEN];
        let parts: [&[u8]; 6] = [b",", JSON_ID, &id, BEFORE_KIND, kind.name().as_bytes(), AFTER_KIND];
        beginnings[at] = KindPrefix::join(&parts);
        assert!(beginnings[at].len == 1 + beginning_len(kind));
        at += 1;
    }
    beginnings
};

/// An event of a page.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    sequence: Sequence,
    /// End of its bytes in the buffer. They begin, with the comma, where the bytes of the event before end.
    end: usize,
}

impl event_index::Entry for Entry {
    fn sequence(&self) -> Sequence {
        self.sequence
    }
    fn end(&self) -> usize {
        self.end
    }
}

/// Consecutive events in one buffer.
#[derive(Debug)]
pub struct JsonPage {
    bytes: Bytes,
    events: EventIndex<Entry>,
    /// The indexes of the chunks of parts that are not text, in order. Most pages have none.
    other_parts: Vec<u32>,
}

impl JsonPage {
    /// The events by index and sequence.
    #[must_use]
    pub fn events(&self) -> &EventIndex<Entry> {
        &self.events
    }

    /// Returns the next consecutive events from event `from` on that are no chunks of parts that are not text
    /// ([`super::Frame::is_of_other_part`]). If there are none, the range is empty and at the end of the page.
    #[must_use]
    pub fn next_without_other_parts(&self, from: usize) -> Range<usize> {
        let mut start = from;
        for at in self.other_parts.iter().map(|at| *at as usize).skip_while(|at| *at < from) {
            if at > start {
                return start..at;
            }
            start = at + 1;
        }
        start..self.events.len().max(start)
    }

    /// Returns the bytes of the JSON of a range's events, without commas.
    #[must_use]
    pub fn json_len(&self, range: Range<usize>) -> usize {
        let bytes = self.events.start(range.end).saturating_sub(self.events.start(range.start));
        bytes.saturating_sub(range.len())
    }

    /// Returns how many events from event `from` on fit into `limit` events and `most` bytes of JSON.
    #[must_use]
    pub fn fitting(&self, from: usize, limit: usize, most: usize) -> usize {
        let available = self.events.len().saturating_sub(from).min(limit);
        if self.json_len(from..from + available) <= most {
            return available;
        }
        let lens = (1..=available).map(|count| self.json_len(from..from + count));
        lens.take_while(|len| *len <= most).count()
    }

    /// Returns the JSON of a range's events with commas between them, and with one before them if `comma` is
    /// true, without copying. Empty if there is no such range.
    #[must_use]
    pub fn json(&self, range: Range<usize>, comma: bool) -> Bytes {
        if range.is_empty() || range.end > self.events.len() {
            return Bytes::new();
        }
        self.bytes.slice(self.events.start(range.start) + usize::from(!comma)..self.events.start(range.end))
    }

    /// Returns the bytes of the buffer.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of memory besides the buffer.
    #[must_use]
    pub fn size(&self) -> usize {
        self.events.size() + self.other_parts.capacity() * size_of::<u32>() + size_of::<JsonPage>()
    }
}

/// Writes events of one tenant into a buffer.
pub struct JsonWriter {
    cursors: CursorWriter,
    buf: Vec<u8>,
    entries: Vec<Entry>,
    other_parts: Vec<u32>,
    /// The last timestamp written, in Unix milliseconds, and its text with the name before it.
    timestamp: (u64, [u8; TIME_LEN]),
}

impl JsonWriter {
    /// Creates a writer into `buf`, which is cleared. `events` is the expected number of events.
    #[must_use]
    pub fn new(tenant: TenantId, cursors: &CursorKey, mut buf: Vec<u8>, events: usize) -> JsonWriter {
        buf.clear();
        let entries = Vec::with_capacity(events);
        let timestamp = (0, time_text(0));
        JsonWriter { cursors: cursors.writer(tenant), buf, entries, other_parts: Vec::new(), timestamp }
    }

    /// Returns the bytes written so far, and the sequence of the last event.
    #[must_use]
    pub fn so_far(&self) -> (usize, Option<Sequence>) {
        (self.buf.len(), self.entries.last().map(|entry| entry.sequence))
    }

    /// Adds a record, as event `sequence`.
    pub fn push(&mut self, record: &Record<'_>, sequence: Sequence) {
        let id = self.cursors.encode(sequence).0;
        let body = record.body;
        self.buf.reserve(record.frame_len());
        let start = self.buf.len();
        if record.form == BodyForm::Whole {
            self.buf.push(b',');
            self.buf.extend_from_slice(body);
            // `Record::checked` ensures that the body is longer than its id.
            self.buf[start + ID_IN_ARRAY..start + ID_IN_ARRAY + CURSOR_LEN].copy_from_slice(&id);
        } else {
            let mut beginning = BEGINNINGS[record.kind as usize];
            beginning.bytes[ID_IN_ARRAY..ID_IN_ARRAY + CURSOR_LEN].copy_from_slice(&id);
            self.buf.extend_from_slice(&beginning.bytes[..beginning.len]);
            if let BodyForm::Timeless { timestamp_ms } = record.form {
                if self.timestamp.0 != timestamp_ms {
                    self.timestamp = (timestamp_ms, time_text(timestamp_ms));
                }
                let (head, text) = body.split_at(record.head_len());
                self.buf.extend_from_slice(head);
                self.buf.extend_from_slice(&self.timestamp.1);
                if record.chunk.is_some() {
                    self.buf.extend_from_slice(BEFORE_TEXT);
                    self.buf.extend_from_slice(text);
                }
                self.buf.extend_from_slice(AFTER_TIME);
            } else {
                self.buf.extend_from_slice(body);
            }
        }
        if record.chunk.is_some_and(|chunk| !chunk.is_text) {
            self.other_parts.push(self.entries.len() as u32); // a page has far fewer events
        }
        self.entries.push(Entry { sequence, end: self.buf.len() });
        debug_assert!(self.buf.len() - start <= record.frame_len());
    }

    /// Returns the page; `share` turns the writer's buffer into the page's.
    pub fn finish(self, share: impl FnOnce(Vec<u8>) -> Bytes) -> JsonPage {
        let (events, other_parts) = (EventIndex::new(self.entries), self.other_parts);
        JsonPage { bytes: share(self.buf), events, other_parts }
    }
}

fn time_text(ms: u64) -> [u8; TIME_LEN] {
    let mut text = [0; TIME_LEN];
    text[..BEFORE_TIME.len()].copy_from_slice(BEFORE_TIME);
    text[BEFORE_TIME.len()..].copy_from_slice(&time::rfc3339_bytes(ms));
    text
}

#[cfg(test)]
mod tests {
    use super::super::page_writer::PageWriter;
    use super::super::tests::{KEY, frame};
    use super::*;

    /// An event's JSON is the same from its record and from its frame: with a text, with keys that had to be
    /// escaped, and for chunks.
    #[test]
    fn events_are_the_same_from_records_and_from_frames() {
        let events = [
            r#"{"type":"custom","channel":"c","data":"some text"}"#,
            r#"{"type":"message","agent_id":"a\"","user_id":"u","content":"x"}"#,
            r#"{"type":"stream_chunk","request_id":"r","chunk":"x\n","is_final":false}"#,
            r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":true}"#,
        ];
        let mut writer = JsonWriter::new(TenantId(1), &KEY, Vec::new(), 0);
        let mut frames = PageWriter::new(TenantId(1), &KEY, Vec::new(), 0);
        for (event, sequence) in events.iter().zip(1..) {
            let (frame, mut bytes) = (frame(event, sequence), Vec::new());
            frame.write_record(frame.received_ms(), &mut bytes);
            let read = || Record::read(&mut &bytes[..], frame.received_ms()).expect("written just now");
            writer.push(&read(), Sequence(sequence));
            frames.push(&read(), Sequence(sequence));
            // A record of the other form, in which the body is the whole JSON.
            let whole =
                Record { form: BodyForm::Whole, chunk: None, keys: [None; 4], body: frame.json(), ..read() };
            writer.push(&whole, Sequence(sequence));
        }
        let (page, frames) = (writer.finish(Bytes::from), frames.finish(Bytes::from));
        for at in 0..events.len() {
            let json = frames.json(at);
            assert_eq!(page.json(2 * at..2 * at + 1, false), json);
            assert_eq!(page.json(2 * at + 1..2 * at + 2, false), json);
            assert_eq!(page.json_len(2 * at..2 * at + 2), 2 * json.len());
        }
        let all = [b"[", &page.json(0..page.events().len(), false)[..], b"]"].concat();
        let all: Vec<serde_json::Value> = serde_json::from_slice(&all).expect("an array");
        assert_eq!(all.len(), 2 * events.len());
        assert_eq!(page.json(1..3, true)[0], b',');
        assert!(page.json(3..3, true).is_empty() && page.json(0..page.events().len() + 1, false).is_empty());
    }

    #[test]
    fn chunks_of_other_parts_are_passed_over() {
        let chunk = |kind: &str| {
            format!(
                r#"{{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"part":{{"type":"{kind}","id":"p"}}}}"#
            )
        };
        let page = |kinds: &[&str]| {
            let mut writer = JsonWriter::new(TenantId(1), &KEY, Vec::new(), 0);
            for (kind, sequence) in kinds.iter().zip(1..) {
                let (event, mut bytes) = (frame(&chunk(kind), sequence), Vec::new());
                event.write_record(event.received_ms(), &mut bytes);
                let record = Record::read(&mut &bytes[..], event.received_ms()).expect("written just now");
                writer.push(&record, Sequence(sequence));
            }
            writer.finish(Bytes::from)
        };
        let mixed = page(&["data", "source", "text", "text", "reasoning", "text", "tool_input"]);
        let next: Vec<_> = (0..=7).map(|from| mixed.next_without_other_parts(from)).collect();
        assert_eq!(next, [2..4, 2..4, 2..4, 3..4, 5..6, 5..6, 7..7, 7..7]);
        let text = page(&["text"; 3]);
        assert_eq!([0, 2, 3].map(|from| text.next_without_other_parts(from)), [0..3, 2..3, 3..3]);
    }

    #[test]
    fn as_many_events_fit_as_their_bytes_and_the_limit_allow() {
        let mut writer = JsonWriter::new(TenantId(1), &KEY, Vec::new(), 0);
        for sequence in 1..=9 {
            let event = frame(r#"{"type":"custom","channel":"c","data":1}"#, sequence);
            let mut bytes = Vec::new();
            event.write_record(event.received_ms(), &mut bytes);
            let record = Record::read(&mut &bytes[..], event.received_ms()).expect("written just now");
            writer.push(&record, Sequence(sequence));
        }
        let page = writer.finish(Bytes::from);
        let one = page.json_len(0..1);
        assert_eq!(page.fitting(0, 100, 9 * one), 9);
        assert_eq!(page.fitting(2, 3, 9 * one), 3);
        assert_eq!(page.fitting(2, 100, 4 * one), 4);
        assert_eq!(page.fitting(2, 100, 4 * one - 1), 3);
        assert_eq!(
            (page.fitting(0, 100, one - 1), page.fitting(9, 100, one), page.fitting(0, 0, one)),
            (0, 0, 0)
        );
        assert_eq!(
            (page.events().count_to(Sequence(4)), page.events().last(), page.events().sequence(9)),
            (4, Some(Sequence(9)), None)
        );
    }
}
