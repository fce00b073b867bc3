//! Consecutive chunks of one stream: their texts, indices, sequences and parts.
//!
//! * In memory this is a stream's tail, on disk a segment of its text. Both are read in the same way, so a
//!   reader does not know which one a chunk came from.
//! * Indices are consecutive, sequences grow. A chunk may be empty.
//! * It does not know the stream's state, nor how its chunks look as events.

use crate::ids::Sequence;
use crate::store::format::piece::MAX_VALUE;

/// The most bytes of text in one segment, unless it is a single chunk.
pub(crate) const SEGMENT_BYTES: usize = 64 * 1024;
/// Bytes that a chunk counts besides its text, in memory and at most on disk.
pub const CHUNK_WEIGHT: usize = 16;
const VERSION: u8 = 1;
/// Bytes before the parts: version, first index, time of receipt, number of chunks, number of parts.
const HEAD: usize = 1 + 8 + 8 + 4 + 4;

/// One chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredChunk<'a> {
    /// The chunk's number in the stream, from 0.
    pub index: u64,
    /// The sequence of its event.
    pub sequence: Sequence,
    /// The text.
    pub text: &'a str,
    /// The part that it belongs to, as JSON; `None` for text.
    pub part: Option<&'a str>,
}

/// Consecutive chunks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamText {
    first_index: u64,
    /// When the last chunk was received, Unix milliseconds.
    received_ms: u64,
    chunks: Vec<ChunkEnd>,
    /// The parts, each with the place of its first chunk. Chunks before the first one have none.
    parts: Vec<(u32, Option<Box<str>>)>,
    text: String,
}

/// Where a chunk's text ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ChunkEnd {
    sequence: u64,
    end: u32,
}

impl StreamText {
    /// Creates a text without chunks whose first one will be `first_index`.
    #[must_use]
    pub fn from_index(first_index: u64) -> StreamText {
        StreamText { first_index, ..StreamText::default() }
    }

    /// Adds the next chunk.
    pub fn push(&mut self, sequence: Sequence, received_ms: u64, text: &str, part: Option<&str>) {
        let last = self.parts.last().and_then(|(_, part)| part.as_deref());
        if last != part {
            self.parts.push((self.chunks.len() as u32, part.map(Into::into)));
        }
        self.text.push_str(text);
        self.chunks.push(ChunkEnd { sequence: sequence.0, end: self.text.len() as u32 });
        self.received_ms = received_ms;
    }

    /// Returns true if there are no chunks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
    /// Number of chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }
    /// The index of the chunk after the last one.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.first_index + self.chunks.len() as u64
    }
    /// The index of the first chunk.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.first_index
    }
    /// The sequence of the last chunk.
    #[must_use]
    pub fn last(&self) -> Option<Sequence> {
        self.chunks.last().map(|chunk| Sequence(chunk.sequence))
    }
    /// Bytes of text.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }
    /// When the last chunk was received, Unix milliseconds; 0 if there is none.
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }
    /// Bytes that it counts: text, and [`CHUNK_WEIGHT`] for each chunk and part.
    #[must_use]
    pub fn weight(&self) -> usize {
        let parts = self.parts.iter().map(|(_, part)| CHUNK_WEIGHT + part.as_deref().map_or(0, str::len));
        self.text.len() + self.chunks.len() * CHUNK_WEIGHT + parts.sum::<usize>()
    }

    /// The chunks, from place `from` on.
    pub fn chunks_from(&self, from: usize) -> impl Iterator<Item = StoredChunk<'_>> {
        let mut part = self.parts.partition_point(|(at, _)| *at as usize <= from);
        (from..self.chunks.len()).map(move |at| {
            while self.parts.get(part).is_some_and(|(first, _)| *first as usize <= at) {
                part += 1;
            }
            StoredChunk {
                index: self.first_index + at as u64,
                sequence: Sequence(self.chunks[at].sequence),
                text: &self.text[self.start(at)..self.chunks[at].end as usize],
                part: part.checked_sub(1).and_then(|part| self.parts[part].1.as_deref()),
            }
        })
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = StoredChunk<'_>> {
        self.chunks_from(0)
    }

    /// The chunks whose sequences are after `position`, in order.
    pub fn after(&self, position: Sequence) -> impl Iterator<Item = StoredChunk<'_>> {
        self.chunks_from(self.chunks.partition_point(|chunk| chunk.sequence <= position.0))
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.chunks[before].end as usize)
    }

    /// Adds the chunks of `later` that this text does not have. The first of them must be the next one here.
    pub fn extend(&mut self, later: &StreamText) {
        let known = self.next_index().saturating_sub(later.first_index) as usize;
        for chunk in later.chunks_from(known) {
            self.push(chunk.sequence, later.received_ms, chunk.text, chunk.part);
        }
    }

    /// Adds all chunks of `next`, which follow the last one here.
    pub fn append(&mut self, next: StreamText) {
        if self.is_empty() {
            *self = next;
            return;
        }
        let (chunks, bytes) = (self.chunks.len() as u32, self.text.len() as u32);
        // Chunks of `next` before its first part have none, which is to be said if those before them have one.
        let begins_with_part = next.parts.first().is_some_and(|(at, _)| *at == 0);
        if !begins_with_part && self.parts.last().is_some_and(|(_, part)| part.is_some()) && !next.is_empty()
        {
            self.parts.push((chunks, None));
        }
        let last = self.parts.last().and_then(|(_, part)| part.clone());
        let same = begins_with_part && next.parts.first().is_some_and(|(_, part)| *part == last);
        let parts = next.parts.into_iter().skip(usize::from(same));
        self.parts.extend(parts.map(|(at, part)| (at + chunks, part)));
        self.chunks.extend(next.chunks.into_iter().map(|it| ChunkEnd { end: it.end + bytes, ..it }));
        self.text.push_str(&next.text);
        self.received_ms = next.received_ms;
    }

    /// Removes the chunks before `index`, and their memory.
    pub fn forget_before(&mut self, index: u64) {
        let from = index.saturating_sub(self.first_index).min(self.chunks.len() as u64) as usize;
        if from == 0 {
            return;
        }
        let mut rest = StreamText::from_index(self.first_index + from as u64);
        for chunk in self.chunks_from(from) {
            rest.push(chunk.sequence, self.received_ms, chunk.text, chunk.part);
        }
        *self = rest;
    }

    /// The chunks as segments, each of which fits a row.
    #[must_use]
    pub fn segments(&self) -> Vec<StreamText> {
        self.segments_from(self.first_index)
    }

    /// The chunks from `index` on as segments, each of which fits a row.
    #[must_use]
    pub fn segments_from(&self, index: u64) -> Vec<StreamText> {
        let from = index.saturating_sub(self.first_index).min(self.chunks.len() as u64) as usize;
        let mut segments: Vec<StreamText> = Vec::new();
        for chunk in self.chunks_from(from) {
            let more = chunk.text.len() + 2 * CHUNK_WEIGHT + chunk.part.map_or(0, str::len);
            if segments.last().is_none_or(|segment| segment.weight() + more > SEGMENT_BYTES) {
                segments.push(StreamText::from_index(chunk.index));
            }
            if let Some(segment) = segments.last_mut() {
                segment.push(chunk.sequence, self.received_ms, chunk.text, chunk.part);
            }
        }
        segments
    }

    /// The bytes on disk.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEAD + self.weight());
        row.push(VERSION);
        row.extend_from_slice(&self.first_index.to_be_bytes());
        row.extend_from_slice(&self.received_ms.to_be_bytes());
        row.extend_from_slice(&(self.chunks.len() as u32).to_be_bytes());
        row.extend_from_slice(&(self.parts.len() as u32).to_be_bytes());
        for (first, part) in &self.parts {
            put_varint(&mut row, u64::from(*first));
            // 0 means no part; a part is never empty
            let part = part.as_deref().unwrap_or_default();
            put_varint(&mut row, part.len() as u64);
            row.extend_from_slice(part.as_bytes());
        }
        let (mut sequence, mut end) = (0, 0);
        for chunk in &self.chunks {
            put_varint(&mut row, u64::from(chunk.end - end));
            put_varint(&mut row, chunk.sequence - sequence);
            (sequence, end) = (chunk.sequence, chunk.end);
        }
        row.extend_from_slice(self.text.as_bytes());
        row
    }

    /// Reads the bytes on disk; `None` if they are damaged.
    #[must_use]
    pub fn read(row: &[u8]) -> Option<StreamText> {
        let mut row = row.strip_prefix(&[VERSION])?;
        let first_index = u64::from_be_bytes(take(&mut row)?);
        let received_ms = u64::from_be_bytes(take(&mut row)?);
        let count = u32::from_be_bytes(take(&mut row)?) as usize;
        let parts_count = u32::from_be_bytes(take(&mut row)?) as usize;
        if count > MAX_VALUE || parts_count > count || first_index.checked_add(count as u64).is_none() {
            return None;
        }
        let mut parts: Vec<(u32, Option<Box<str>>)> = Vec::with_capacity(parts_count);
        for _ in 0..parts_count {
            let first = u32::try_from(take_varint(&mut row)?).ok()?;
            let len = usize::try_from(take_varint(&mut row)?).ok()?;
            let (part, rest) = row.split_at_checked(len)?;
            let part = std::str::from_utf8(part).ok()?;
            if parts.last().is_some_and(|(before, _)| *before >= first) || first as usize >= count {
                return None;
            }
            parts.push((first, (!part.is_empty()).then(|| part.into())));
            row = rest;
        }
        let mut chunks = Vec::with_capacity(count);
        let (mut sequence, mut end) = (0u64, 0u32);
        for at in 0..count {
            end = end.checked_add(u32::try_from(take_varint(&mut row)?).ok()?)?;
            let more = take_varint(&mut row)?;
            if at > 0 && more == 0 {
                return None; // sequences grow
            }
            sequence = sequence.checked_add(more)?;
            chunks.push(ChunkEnd { sequence, end });
        }
        let text = std::str::from_utf8(row).ok()?;
        let bounds = chunks.iter().all(|chunk| text.is_char_boundary(chunk.end as usize));
        (bounds && text.len() == end as usize).then(|| StreamText {
            first_index,
            received_ms,
            chunks,
            parts,
            text: text.to_owned(),
        })
    }
}

/// Takes a fixed number of bytes from the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Appends a number in groups of 7 bits, the lowest first.
fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes)?;
        let group = u64::from(byte & 0x7f);
        if group.leading_zeros() < shift {
            return None;
        }
        number |= group << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PART: &str = r#"{"type":"reasoning","id":"r"}"#;

    fn text(chunks: &[(u64, &str, Option<&str>)]) -> StreamText {
        let mut text = StreamText::from_index(7);
        for (sequence, chunk, part) in chunks {
            text.push(Sequence(*sequence), 5, chunk, *part);
        }
        text
    }

    #[test]
    fn chunks_keep_text_index_sequence_and_part() {
        let text = text(&[(3, "a", None), (4, "", Some(PART)), (9, "ü", Some(PART)), (10, "x", None)]);
        let found: Vec<_> = text.chunks().map(|it| (it.index, it.sequence.0, it.text, it.part)).collect();
        let expected =
            [(7, 3, "a", None), (8, 4, "", Some(PART)), (9, 9, "ü", Some(PART)), (10, 10, "x", None)];
        assert_eq!(found, expected);
        assert_eq!(
            text.after(Sequence(4)).map(|it| (it.index, it.part)).collect::<Vec<_>>(),
            [(9, Some(PART)), (10, None)]
        );
        assert_eq!(StreamText::read(&text.write()), Some(text));
    }

    #[test]
    fn what_is_forgotten_and_added_again_is_the_same() {
        let whole = text(&[(3, "a", None), (4, "b", Some(PART)), (9, "c", Some(PART)), (10, "d", None)]);
        let mut rest = whole.clone();
        rest.forget_before(9);
        assert_eq!((rest.first_index(), rest.len()), (9, 2));
        let mut begin = text(&[(3, "a", None), (4, "b", Some(PART)), (9, "c", Some(PART))]);
        begin.extend(&rest);
        assert_eq!(begin, whole);
        rest.forget_before(100);
        assert!(rest.is_empty() && rest.next_index() == 11);
    }

    proptest! {
        #[test]
        fn any_chunks_round_trip_in_segments_that_fit_a_row(
            chunks in proptest::collection::vec((1..9u64, "[a-zü]{0,40}", any::<bool>(), 0..30_000usize), 0..60)
        ) {
            let (mut whole, mut sequence) = (StreamText::from_index(3), 0);
            for (step, chunk, has_part, repeat) in chunks {
                sequence += step;
                let long = repeat % 10 == 0;
                let chunk = if long { "y".repeat(repeat * 2) } else { chunk };
                whole.push(Sequence(sequence), 9, &chunk, has_part.then_some(PART));
            }
            let mut joined = StreamText::from_index(3);
            let mut appended = StreamText::from_index(3);
            for segment in whole.segments() {
                let row = segment.write();
                prop_assert!(row.len() <= MAX_VALUE, "{}", row.len());
                let read = StreamText::read(&row);
                prop_assert_eq!(read.as_ref(), Some(&segment));
                joined.extend(&segment);
                appended.append(segment);
            }
            prop_assert_eq!(&joined, &whole);
            prop_assert_eq!(appended, whole);
        }

        #[test]
        fn damaged_rows_never_panic(mut row in proptest::collection::vec(any::<u8>(), 0..200), sound in any::<bool>()) {
            if sound {
                row = [text(&[(3, "a", None), (4, "b", Some(PART))]).write(), row].concat();
            } else if let Some(first) = row.first_mut() {
                *first = VERSION;
            }
            if let Some(read) = StreamText::read(&row) {
                prop_assert_eq!(read.chunks().map(|chunk| chunk.text.len()).sum::<usize>(), read.text_bytes());
            }
        }
    }
}
