//! Many frames in one buffer: records of the log become consecutive frames as SSE carries them.
//!
//! * No memory is allocated per event: it is a slice of the page's buffer, which grows as needed and may be
//!   reused.
//! * The writer does not know where records come from or where the buffer goes.

use bytes::Bytes;

use super::frame_page::{Entry, FramePage, NO_CHUNK};
use super::record::{
    AFTER_KIND, AFTER_TIME, BEFORE_KIND, BEFORE_TEXT, BEFORE_TIME, BodyForm, Record, StoredKey, beginning_len,
};
use super::{
    Chunk, JSON_ID, KeySpan, SSE_DATA, SSE_END, SSE_HEAD_LEN, SSE_ID, TAIL_LEN, TIMESTAMP_LEN, chunked,
};
use crate::cursor::{CURSOR_LEN, CursorKey, CursorWriter};
use crate::event::EventKind;
use crate::ids::{Sequence, TenantId};
use crate::time;

/// Bytes after the JSON in a frame's buffer.
const TAIL: [u8; TAIL_LEN] = *b"\n\n\r\n";
/// Offset of the id in the line before the JSON, and inside the JSON, counted from the start of that line.
const SSE_ID_AT: usize = SSE_ID.len();
const JSON_ID_AT: usize = SSE_HEAD_LEN + JSON_ID.len();
/// Room for the longest beginning.
const BEGINNING: usize = 128;

/// Offset of the id in an event of an array, counted from the comma before it.
pub(super) const ID_IN_ARRAY: usize = 1 + JSON_ID.len();

/// The first bytes of events of one kind, up to the first field of the JSON; the ids are zeros.
#[derive(Clone, Copy)]
pub(super) struct KindPrefix {
    pub(super) bytes: [u8; BEGINNING],
    pub(super) len: usize,
}

impl KindPrefix {
    /// Returns the beginning, from the id line on.
    const fn of(kind: EventKind) -> KindPrefix {
        let id = [0; CURSOR_LEN];
        let parts: [&[u8]; 8] =
            [SSE_ID, &id, SSE_DATA, JSON_ID, &id, BEFORE_KIND, kind.name().as_bytes(), AFTER_KIND];
        let beginning = KindPrefix::join(&parts);
        assert!(beginning.len == SSE_HEAD_LEN + beginning_len(kind));
        beginning
    }

    /// Joins parts, one after the other.
    pub(super) const fn join(parts: &[&[u8]]) -> KindPrefix {
        let (mut bytes, mut len, mut part) = ([0; BEGINNING], 0, 0);
        while part < parts.len() {
            let mut at = 0;
            while at < parts[part].len() {
                bytes[len] = parts[part][at];
                at += 1;
                len += 1;
            }
            part += 1;
        }
        KindPrefix { bytes, len }
    }
}

/// By the kind's ordinal.
static BEGINNINGS: [KindPrefix; EventKind::ALL.len()] = {
    let mut beginnings = [const { KindPrefix { bytes: [0; BEGINNING], len: 0 } }; EventKind::ALL.len()];
    let mut at = 0;
    while at < EventKind::ALL.len() {
        assert!(EventKind::ALL[at] as usize == at);
        beginnings[at] = KindPrefix::of(EventKind::ALL[at]);
        at += 1;
    }
    beginnings
};

/// Writes frames of one tenant into a buffer.
pub struct PageWriter {
    cursors: CursorWriter,
    buf: Vec<u8>,
    entries: Vec<Entry>,
    chunks: Vec<Chunk>,
    /// The last timestamp written, and its text.
    timestamp: (u64, [u8; TIMESTAMP_LEN]),
}

impl PageWriter {
    /// Creates a writer into `buf`, which is cleared. `events` is the expected number of events.
    #[must_use]
    pub fn new(tenant: TenantId, cursors: &CursorKey, mut buf: Vec<u8>, events: usize) -> PageWriter {
        buf.clear();
        let timestamp = (0, time::rfc3339_bytes(0));
        let entries = Vec::with_capacity(events);
        PageWriter { cursors: cursors.writer(tenant), buf, entries, chunks: Vec::new(), timestamp }
    }

    /// Returns the bytes written so far, and the sequence of the last event.
    #[must_use]
    pub fn so_far(&self) -> (usize, Option<Sequence>) {
        (self.buf.len(), self.entries.last().map(|entry| entry.sequence))
    }

    /// Adds the frame of a record, as event `sequence`.
    pub fn push(&mut self, record: &Record<'_>, sequence: Sequence) {
        let Record { kind, body, form, .. } = *record;
        let (begins, timestamp_ms) = match form {
            BodyForm::Whole => (0, None),
            BodyForm::Fields => (beginning_len(kind), None),
            BodyForm::Timeless { timestamp_ms } => (beginning_len(kind), Some(timestamp_ms)),
        };
        // The bytes that are written again between the body's head and its text.
        let before_text = if record.chunk.is_some() { BEFORE_TEXT } else { &[] };
        let time_len = BEFORE_TIME.len() + TIMESTAMP_LEN + before_text.len();
        let time_len = if timestamp_ms.is_some() { time_len } else { 0 };
        let end = if timestamp_ms.is_some() { AFTER_TIME } else { &[] };
        let json_len = begins + body.len() + time_len + end.len();
        let sse_len = SSE_HEAD_LEN + json_len + SSE_END.len();

        let start = self.buf.len();
        self.buf.reserve(record.apart_len() + chunked::head_len(sse_len) + sse_len + chunked::TAIL.len());
        let mut keys = [KeySpan::default(); 4];
        for (place, key) in keys.iter_mut().zip(&record.keys) {
            if let Some(StoredKey::Apart(text)) = key {
                *place = KeySpan { at: (self.buf.len() - start) as u16, len: text.len() as u16 };
                self.buf.extend_from_slice(text);
            }
        }
        let chunk_at = self.buf.len() - start;
        self.buf.extend_from_slice(chunked::head(sse_len, &mut [0; chunked::MAX_HEAD]));
        let sse_at = self.buf.len();
        let beginning = &BEGINNINGS[kind as usize];
        self.buf.extend_from_slice(&beginning.bytes[..if begins > 0 { beginning.len } else { SSE_HEAD_LEN }]);
        let body_at = self.buf.len();
        if let Some(ms) = timestamp_ms {
            let (head, text) = body.split_at(record.head_len());
            self.buf.extend_from_slice(head);
            self.buf.extend_from_slice(BEFORE_TIME);
            let timestamp = self.timestamp(ms);
            self.buf.extend_from_slice(&timestamp);
            self.buf.extend_from_slice(before_text);
            self.buf.extend_from_slice(text);
            self.buf.extend_from_slice(AFTER_TIME);
        } else {
            self.buf.extend_from_slice(body);
        }
        self.buf.extend_from_slice(&TAIL);
        let id = self.cursors.encode(sequence).0;
        for at in [sse_at + SSE_ID_AT, sse_at + JSON_ID_AT] {
            self.buf[at..at + CURSOR_LEN].copy_from_slice(&id);
        }

        for (place, key) in keys.iter_mut().zip(&record.keys) {
            if let Some(StoredKey::InBody { at, len }) = *key {
                // See `Record::checked`.
                *place = KeySpan { at: (body_at - start + at) as u16, len: len as u16 };
            }
        }
        let present = record.keys.iter().enumerate().map(|(bit, key)| u8::from(key.is_some()) << bit);
        let mut chunk_at_page = NO_CHUNK;
        if let Some(chunk) = record.chunk {
            chunk_at_page = self.chunks.len() as u32; // at most one per event, so it fits
            self.chunks.push(Chunk {
                same_end: (begins + chunk.same_len) as u32,
                text_at: (begins + chunk.head_len + time_len) as u32,
                index: chunk.index,
                first_index: chunk.first_index,
                is_final: chunk.is_final,
                is_text: chunk.is_text,
            });
        }
        self.entries.push(Entry {
            sequence,
            received_ms: record.received_ms,
            origin: record.origin,
            end: self.buf.len(),
            keys,
            chunk_at: chunk_at as u16, // four keys and a chunk's head
            sse_at: (sse_at - start) as u16,
            kind,
            key_present: present.sum(),
            chunk: chunk_at_page,
        });
        debug_assert!(self.buf.len() - start <= record.frame_len());
    }

    /// Returns the page; `share` turns the writer's buffer into the page's.
    pub fn finish(self, share: impl FnOnce(Vec<u8>) -> Bytes) -> FramePage {
        FramePage::new(share(self.buf), self.entries, self.chunks)
    }

    fn timestamp(&mut self, ms: u64) -> [u8; TIMESTAMP_LEN] {
        if self.timestamp.0 != ms {
            self.timestamp = (ms, time::rfc3339_bytes(ms));
        }
        self.timestamp.1
    }
}
