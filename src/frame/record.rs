//! The log's record of a frame. It holds only what does not follow from its position in the log; little
//! endian, numbers as LEB128.
//!
//! * `kind u8 (low half; high half: a bit per routing key) ‖ received_ms − base ‖ origin ‖ form ‖ [chunk:
//!   flags u8 ‖ same_len ‖ head_len ‖ index? ‖ first_index?] ‖ (at + 1 ‖ len, or 0 ‖ len ‖ bytes) per present
//!   key ‖ len ‖ body`.
//! * The body is the JSON without the parts that can be written again. These are the id, which follows from
//!   the sequence, with everything around it up to the fields, and the timestamp, of which only the distance
//!   to the receive time is stored. `form` says what is left out: 0 nothing; 1 the beginning; a larger number
//!   also the timestamp, and then it is that distance (zigzag) plus 2.
//! * Lengths and offsets (of a key that is in the JSON without escapes, of the end of a chunk's common
//!   fields, of its timestamp) count from the start of the body.
//! * The earlier format is in [`super::legacy_record`].

use super::{CHUNK_SAME_AT, Chunk, Frame, JSON_ID, RoutingKey, TIMESTAMP_LEN};
use crate::cursor::CURSOR_LEN;
use crate::event::EventKind;
use crate::time;

/// A stored record cannot be read: the log is damaged or was written by another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log record is damaged: {0}")]
pub struct BadRecord(pub &'static str);

pub(super) const HAS_INDEX: u8 = 1;
pub(super) const HAS_FIRST_INDEX: u8 = 2;
pub(super) const IS_FINAL: u8 = 4;
/// The chunk belongs to a part that is not of type `text`. Records of older versions never have it.
const OTHER_PART: u8 = 8;

/// The bytes between the id and the kind's name.
pub(super) const BEFORE_KIND: &[u8] = b"\",\"type\":\"";
/// The bytes between the kind's name and the first field.
pub(super) const AFTER_KIND: &[u8] = b"\",";
pub(super) const BEFORE_TIME: &[u8] = b"\"timestamp\":\"";
/// The bytes after the timestamp of an event that is not a chunk.
pub(super) const AFTER_TIME: &[u8] = b"\"}";
/// The bytes between the timestamp and the text of a chunk.
pub(super) const BEFORE_TEXT: &[u8] = b"\",\"chunk\":\"";
/// The most bytes of a frame besides its body and the keys before it.
const AROUND_BODY: usize = 256;
/// Bytes of a timestamp that are the same for a whole second.
const SECOND_LEN: usize = "2026-01-02T03:04:05.".len();
/// The longest routing key.
pub(super) const KEY_BYTES: usize = crate::event::ID_BYTES;
/// The largest offset of a routing key in a body. The bytes before the keys are few, and a frame's own
/// offsets have 16 bits.
const KEY_AT: usize = 32 * 1024;
/// The longest JSON.
pub(super) const JSON_BYTES: usize = (u32::MAX / 4) as usize;

/// Every kind's ordinal is lower, so no record begins with 255, which [`crate::store`] uses for erased
/// records.
const KINDS: u8 = 15;
const _: () = assert!(EventKind::ALL.len() < KINDS as usize);
const _: () = assert!(RoutingKey::ALL.len() == 4);

/// A decoded record, which points into its bytes.
#[derive(Debug)]
pub struct Record<'a> {
    pub(super) kind: EventKind,
    pub(super) received_ms: u64,
    pub(super) origin: u64,
    pub(super) form: BodyForm,
    pub(super) chunk: Option<StoredChunk>,
    pub(super) keys: [Option<StoredKey<'a>>; 4],
    pub(super) body: &'a [u8],
}

/// A chunk's part of a record; lengths are of parts of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StoredChunk {
    /// Length up to the end of the fields that neighbouring chunks have in common.
    pub(super) same_len: usize,
    /// Length up to the timestamp if that was left out, else up to the text.
    pub(super) head_len: usize,
    pub(super) index: Option<u64>,
    pub(super) first_index: Option<u64>,
    pub(super) is_final: bool,
    pub(super) is_text: bool,
}

/// The part of the JSON that is not in the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyForm {
    /// The body is the whole JSON.
    Whole,
    /// Everything before the first field is left out.
    Fields,
    /// The timestamp is left out too; it is this one, in Unix milliseconds.
    Timeless { timestamp_ms: u64 },
}

/// The position of a routing key's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum StoredKey<'a> {
    InBody { at: usize, len: usize },
    Apart(&'a [u8]),
}

/// Returns the length of `{"id":"…","type":"…",`.
pub(super) const fn beginning_len(kind: EventKind) -> usize {
    JSON_ID.len() + CURSOR_LEN + BEFORE_KIND.len() + kind.name().len() + AFTER_KIND.len()
}

/// Finds the timestamp in a JSON text, if it is where the encoder puts it. Returns its text, and the start
/// and end of the part around it.
fn find_timestamp(json: &[u8], chunk: Option<&Chunk>) -> Option<(usize, usize)> {
    let (end, after) = match chunk {
        Some(chunk) => (chunk.text_at as usize, BEFORE_TEXT),
        None => (json.len(), AFTER_TIME),
    };
    let start = end.checked_sub(BEFORE_TIME.len() + TIMESTAMP_LEN + after.len())?;
    let part = json.get(start..end)?;
    (part.starts_with(BEFORE_TIME) && part.ends_with(after)).then_some((start, end))
}

impl Frame {
    /// Appends this frame's record to `out`. Its receive time is stored relative to `base_ms`; the reader has
    /// to pass the same value.
    pub fn write_record(&self, base_ms: u64, out: &mut Vec<u8>) {
        let json = self.json();
        let begins = if self.begins_as_encoded() { beginning_len(self.kind) } else { 0 };
        let time = find_timestamp(json, self.chunk.as_ref()).filter(|_| begins > 0);
        let distance = time.and_then(|(start, _)| self.timestamp_distance(json, start + BEFORE_TIME.len()));
        let time = time.filter(|_| distance.is_some());

        out.push(self.kind as u8 | self.key_present << 4);
        put(out, self.received_ms.wrapping_sub(base_ms));
        put(out, self.origin);
        put(
            out,
            match distance {
                Some(distance) => 2 + zigzag(distance),
                None => u64::from(begins > 0),
            },
        );
        if let Some(chunk) = &self.chunk {
            let mut flags = if chunk.is_final { IS_FINAL } else { 0 };
            flags |= if chunk.is_text { 0 } else { OTHER_PART };
            flags |= if chunk.index.is_some() { HAS_INDEX } else { 0 };
            flags |= if chunk.first_index.is_some() { HAS_FIRST_INDEX } else { 0 };
            out.push(flags);
            put(out, (chunk.same_end as usize).saturating_sub(begins) as u64);
            let head_end = time.map_or(chunk.text_at as usize, |(start, _)| start);
            put(out, head_end.saturating_sub(begins) as u64);
            chunk.index.into_iter().chain(chunk.first_index).for_each(|n| put(out, n));
        }
        let body_at = self.json_at() + begins;
        let head_end = self.json_at() + time.map_or(json.len(), |(start, _)| start);
        for key in RoutingKey::ALL {
            let Some(text) = self.key_bytes(key) else { continue };
            let at = usize::from(self.keys[key as usize].at);
            if body_at <= at && at + text.len() <= head_end {
                put(out, (at - body_at) as u64 + 1);
                put(out, text.len() as u64);
            } else {
                out.push(0);
                put(out, text.len() as u64);
                out.extend_from_slice(text);
            }
        }
        match time {
            None => {
                put(out, (json.len() - begins) as u64);
                out.extend_from_slice(&json[begins..]);
            }
            Some((start, end)) => {
                // A chunk's text is stored without its closing quote and brace; other events are stored
                // without their closing bytes too.
                let text = if self.chunk.is_some() { &json[end..json.len() - AFTER_TIME.len()] } else { &[] };
                put(out, (start - begins + text.len()) as u64);
                out.extend_from_slice(&json[begins..start]);
                out.extend_from_slice(text);
            }
        }
    }

    /// Returns true if the JSON begins with id and kind as the encoder writes them.
    fn begins_as_encoded(&self) -> bool {
        let rest = self.json().strip_prefix(JSON_ID).and_then(|rest| rest.get(CURSOR_LEN..));
        let rest = rest.unwrap_or_default();
        let rest =
            rest.strip_prefix(BEFORE_KIND).and_then(|rest| rest.strip_prefix(self.kind.name().as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(AFTER_KIND))
    }

    /// Returns the milliseconds from the receive time to the timestamp at `at`; `None` if the two are in
    /// different seconds.
    fn timestamp_distance(&self, json: &[u8], at: usize) -> Option<i64> {
        let text: &[u8; TIMESTAMP_LEN] = json.get(at..)?.first_chunk()?;
        let received = time::rfc3339_bytes(self.received_ms);
        let digit = |at: usize| text[at].is_ascii_digit().then(|| i64::from(text[at] - b'0'));
        let ms = 100 * digit(SECOND_LEN)? + 10 * digit(SECOND_LEN + 1)? + digit(SECOND_LEN + 2)?;
        let same = text[..SECOND_LEN] == received[..SECOND_LEN]
            && text[TIMESTAMP_LEN - 1] == received[TIMESTAMP_LEN - 1];
        same.then(|| ms - (self.received_ms % 1_000) as i64)
    }

    /// Returns the `id` inside the JSON.
    pub(super) fn id(&self) -> &[u8] {
        let at = JSON_ID.len();
        &self.json()[at..at + CURSOR_LEN]
    }
}

impl<'a> Record<'a> {
    /// Reads one record from the front of `input` and advances it. `base_ms` is the value that it was written
    /// with.
    ///
    /// # Errors
    /// [`BadRecord`] if the bytes are not such a record; nothing is read past the end.
    pub fn read(input: &mut &'a [u8], base_ms: u64) -> Result<Record<'a>, BadRecord> {
        let first = byte(input)?;
        let kind = EventKind::from_ordinal(first & 15).ok_or(BadRecord("kind"))?;
        let received_ms = base_ms.wrapping_add(get(input)?);
        let origin = get(input)?;
        let form = match get(input)? {
            0 => BodyForm::Whole,
            1 => BodyForm::Fields,
            distance => {
                let timestamp_ms = received_ms.checked_add_signed(unzigzag(distance - 2));
                BodyForm::Timeless { timestamp_ms: timestamp_ms.ok_or(BadRecord("timestamp"))? }
            }
        };
        let chunk = match kind {
            EventKind::StreamChunk => Some(read_chunk(input)?),
            _ => None,
        };
        let mut keys = [None; 4];
        for (bit, slot) in keys.iter_mut().enumerate() {
            if first & (16 << bit) != 0 {
                *slot = Some(match get(input)? {
                    0 => StoredKey::Apart(take(input, KEY_BYTES)?),
                    at => StoredKey::InBody { at: small(at - 1)?, len: small(get(input)?)? },
                });
            }
        }
        let body = take(input, JSON_BYTES)?;
        Record { kind, received_ms, origin, form, chunk, keys, body }.checked()
    }

    /// Returns the record if all of its offsets into the body are inside the body.
    pub(super) fn checked(self) -> Result<Record<'a>, BadRecord> {
        let body_len = self.body.len();
        let head_len = self.chunk.map_or(body_len, |chunk| chunk.head_len);
        let end_len = if matches!(self.form, BodyForm::Timeless { .. }) { 0 } else { AFTER_TIME.len() };
        if let Some(chunk) = &self.chunk {
            let least = if self.form == BodyForm::Whole { CHUNK_SAME_AT } else { 0 };
            let is_sound = least <= chunk.same_len
                && chunk.same_len <= head_len
                && head_len.checked_add(end_len).is_some_and(|end| end <= body_len);
            if !is_sound {
                return Err(BadRecord("chunk"));
            }
        }
        if self.form == BodyForm::Whole && body_len <= JSON_ID.len() + CURSOR_LEN {
            return Err(BadRecord("json"));
        }
        let is_outside = |key: &StoredKey<'_>| match *key {
            StoredKey::InBody { at, len } => at > KEY_AT || len > KEY_BYTES || at + len > head_len,
            StoredKey::Apart(_) => false,
        };
        match self.keys.iter().flatten().any(is_outside) {
            true => Err(BadRecord("key")),
            false => Ok(self),
        }
    }

    /// Returns the most bytes that its frame takes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.apart_len() + self.body.len() + AROUND_BODY
    }

    /// Returns the bytes of routing keys that are not in the body.
    pub(super) fn apart_len(&self) -> usize {
        let len = |key: &StoredKey<'_>| match key {
            StoredKey::Apart(text) => text.len(),
            StoredKey::InBody { .. } => 0,
        };
        self.keys.iter().flatten().map(len).sum()
    }

    /// Returns the bytes of the body before the timestamp, if that was left out.
    pub(super) fn head_len(&self) -> usize {
        self.chunk.map_or(self.body.len(), |chunk| chunk.head_len)
    }

    /// Returns the server's receive time in Unix milliseconds.
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }

    /// Returns the value of a routing field, or `None` if the event does not have it.
    #[must_use]
    pub fn key(&self, key: RoutingKey) -> Option<&'a str> {
        let bytes = match self.keys[key as usize]? {
            StoredKey::Apart(bytes) => bytes,
            StoredKey::InBody { at, len } => self.body.get(at..at + len)?,
        };
        std::str::from_utf8(bytes).ok()
    }
}

fn read_chunk(input: &mut &[u8]) -> Result<StoredChunk, BadRecord> {
    let flags = byte(input)?;
    let (same_len, head_len) = (small(get(input)?)?, small(get(input)?)?);
    let index = if flags & HAS_INDEX != 0 { Some(get(input)?) } else { None };
    let first_index = if flags & HAS_FIRST_INDEX != 0 { Some(get(input)?) } else { None };
    let (is_final, is_text) = (flags & IS_FINAL != 0, flags & OTHER_PART == 0);
    Ok(StoredChunk { same_len, head_len, index, first_index, is_final, is_text })
}

/// Encodes small numbers of either sign as small numbers.
fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends `n` as LEB128: 7 bits per byte, low bits first.
pub fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads a LEB128 number from the front of `input`.
///
/// # Errors
/// [`BadRecord`] at the end of input or past 64 bits.
pub fn get(input: &mut &[u8]) -> Result<u64, BadRecord> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let b = byte(input)?;
        n |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(BadRecord("number"))
}

/// Returns a length or offset below [`JSON_BYTES`], so that sums of some of them do not overflow.
pub(super) fn small(n: u64) -> Result<usize, BadRecord> {
    usize::try_from(n).ok().filter(|n| *n <= JSON_BYTES).ok_or(BadRecord("length"))
}

pub(super) fn byte(input: &mut &[u8]) -> Result<u8, BadRecord> {
    let (&first, rest) = input.split_first().ok_or(BadRecord("end"))?;
    *input = rest;
    Ok(first)
}

/// Reads a length of at most `max`, and that many bytes.
pub(super) fn take<'a>(input: &mut &'a [u8], max: usize) -> Result<&'a [u8], BadRecord> {
    let len = small(get(input)?)?;
    if len > max {
        return Err(BadRecord("length"));
    }
    let (taken, rest) = input.split_at_checked(len).ok_or(BadRecord("length"))?;
    *input = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::page_writer::PageWriter;
    use super::super::tests::{KEY, frame};
    use super::*;
    use crate::event::Event;
    use crate::ids::{Sequence, TenantId};

    const EVENTS: [&str; 7] = [
        r#"{"type":"message","agent_id":"a","user_id":"ü","content":"x"}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"a\"","is_final":true,"index":4,"metadata":{"a":1}}"#,
        r#"{"type":"stream_chunk","request_id":"r","agent_id":"\\","chunk":"","is_final":false,"timestamp":"2001-01-01T00:00:00Z"}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"a","is_final":false,"index":4,"part":{"type":"reasoning","id":"p"}}"#,
        r#"{"type":"custom","channel":"a/b","data":null}"#,
        r#"{"type":"message","agent_id":"a\"","user_id":"u","content":"\n","timestamp":"2001-01-01T00:00:00.001Z"}"#,
        r#"{"type":"error","request_id":"r","code":"c","message":"m"}"#,
    ];

    /// Reads the record back on a page with other frames.
    fn read_back(record: &[u8], base_ms: u64) -> Result<Frame, BadRecord> {
        let mut input = record;
        let record = Record::read(&mut input, base_ms)?;
        assert!(input.is_empty());
        let mut page = PageWriter::new(TenantId(1), &KEY, Vec::new(), 0);
        page.push(&record, Sequence(76));
        page.push(&record, Sequence(77));
        Ok(page.finish(Bytes::from).frame(1).expect("two events"))
    }

    fn assert_same(read: &Frame, frame: &Frame) {
        assert_eq!(
            std::str::from_utf8(read.sse_chunked()).expect("text"),
            std::str::from_utf8(frame.sse_chunked()).expect("text")
        );
        assert_eq!(read.chunk, frame.chunk);
        assert_eq!(RoutingKey::ALL.map(|k| read.key(k)), RoutingKey::ALL.map(|k| frame.key(k)));
        assert_eq!(
            (read.received_ms(), read.kind(), read.origin()),
            (frame.received_ms(), frame.kind(), frame.origin())
        );
        assert_eq!(read.sequence(), frame.sequence());
    }

    #[test]
    fn a_record_comes_back_as_its_frame() {
        for json in EVENTS {
            let frame = frame(json, 77);
            for base in [frame.received_ms(), frame.received_ms() - 3_000, frame.received_ms() + 1] {
                let mut record = Vec::new();
                frame.write_record(base, &mut record);
                assert_same(&read_back(&record, base).expect(json), &frame);
            }
        }
    }

    /// A record holds neither the id nor the bytes around it, the timestamp is a number, and no key is stored
    /// twice.
    #[test]
    fn a_record_is_smaller_than_what_was_published() {
        for json in EVENTS.iter().filter(|json| !json.contains("timestamp") && !json.contains('\\')) {
            let mut record = Vec::new();
            frame(json, 77).write_record(1_700_000_000_000, &mut record);
            assert!(record.len() < json.len(), "{} bytes of {json}", record.len());
        }
    }

    /// The timestamp may be any time around the receive time: within the same second it is a distance,
    /// otherwise it stays text.
    #[test]
    fn a_timestamp_beside_the_receive_time_comes_back() {
        let event = Event::parse(EVENTS[0]).expect("valid");
        for (timestamp_ms, received_ms) in
            [(0, 0), (999, 1_000), (1_999, 1_000), (1_000, 1_999), (1_700_000_000_000, 1)]
        {
            let mut frame = Frame::encode(&event, timestamp_ms, 9);
            frame.seal(Sequence(77), received_ms, &KEY.encode(TenantId(1), Sequence(77)));
            let mut record = Vec::new();
            frame.write_record(received_ms, &mut record);
            assert_same(&read_back(&record, received_ms).expect("sound"), &frame);
        }
    }

    /// An event that another version encoded differently is stored as it is.
    #[test]
    fn an_event_in_another_shape_is_kept_whole() {
        let frame = frame(EVENTS[0], 77);
        let json = std::str::from_utf8(frame.json()).expect("text");
        for other in [
            json.replace("\",\"type\":", "\", \"type\":"),
            json.replace(".000Z\"}", ".000Z\" }"),
            json.replace("{\"id\":\"", "{ \"id\":"),
        ] {
            let mut whole = Frame::assemble(frame.kind, [None; 4], other.as_bytes(), None, 0);
            whole.seal(frame.sequence(), frame.received_ms(), &KEY.encode(TenantId(1), frame.sequence()));
            let frame = whole;
            let mut record = Vec::new();
            frame.write_record(1_700_000_000_000, &mut record);
            assert_same(&read_back(&record, 1_700_000_000_000).expect("sound"), &frame);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_at_every_length() {
        for json in EVENTS {
            let mut record = Vec::new();
            frame(json, 1).write_record(0, &mut record);
            for len in 0..record.len() {
                assert!(Record::read(&mut &record[..len], 0).is_err(), "{json} cut to {len}");
            }
        }
    }

    /// Any byte may be wrong: the result is an error, or a frame with other content whose parts are all
    /// inside it.
    #[test]
    fn a_record_with_a_wrong_byte_is_an_error_or_another_frame() {
        for json in EVENTS {
            let mut record = Vec::new();
            frame(json, 1).write_record(0, &mut record);
            for at in 0..record.len() {
                for byte in [0, 1, 0x7f, 0x80, 0xff, record[at] ^ 1, record[at].wrapping_add(1)] {
                    let mut damaged = record.clone();
                    damaged[at] = byte;
                    let Ok(record) = Record::read(&mut &damaged[..], 0) else { continue };
                    let mut page = PageWriter::new(TenantId(1), &KEY, Vec::new(), 0);
                    page.push(&record, Sequence(1));
                    let page = page.finish(Bytes::from);
                    let frames = page.frames();
                    for key in RoutingKey::ALL {
                        let _ = frames[0].key(key);
                    }
                    let _ = (frames[0].json(), frames[0].chunk_len(), frames[0].continues_in(&frames[0]));
                }
            }
        }
    }
}
