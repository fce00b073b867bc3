//! The chunks that a producer has numbered and the daemon has not acknowledged. It has no socket and no
//! clock.
//!
//! * Indices are consecutive. The oldest chunk kept has the index `first`.
//! * An acknowledgement is the index that the daemon expects next. It removes all chunks before it, and never
//!   moves back: what was acknowledged is on the daemon's disk.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use super::error::StreamError;
use super::part::StreamPart;
use crate::ClientError;

/// Maximum bytes of a chunk's text. A control character becomes six bytes of JSON, so the event stays below
/// the daemon's limit of 64 KiB whatever the text is.
const CHUNK_BYTES_MAX: usize = 8 << 10;
/// Maximum number of chunks in one request, as the protocol allows.
const BATCH_CHUNKS_MAX: usize = 1_000;
/// Bytes of text after which a request is full: with six bytes for each, well below the default
/// `limits.body_bytes`.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes that a chunk counts beside its text, so that tiny chunks cannot take unlimited memory.
const CHUNK_OVERHEAD: usize = 128;

/// A chunk without its index.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) text: String,
    pub(super) part: Option<StreamPart>,
}

impl Chunk {
    /// What the chunk counts towards the limit of unacknowledged text.
    pub(super) fn cost(&self) -> usize {
        self.text.len() + CHUNK_OVERHEAD
    }
}

/// Cuts `text` into pieces of at most [`CHUNK_BYTES_MAX`], between characters.
pub(super) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(text.floor_char_boundary(CHUNK_BYTES_MAX));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[derive(Debug)]
pub(super) struct ChunkBuffer {
    chunks: VecDeque<Chunk>,
    first: u64,
}

impl ChunkBuffer {
    /// Creates a buffer whose next chunk gets the index `first`.
    pub(super) fn new(first: u64) -> Self {
        Self { chunks: VecDeque::new(), first }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The index of the next chunk that is pushed.
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.chunks.push_back(chunk);
    }

    /// Returns the oldest chunks as the body of a request.
    pub(super) fn batch(&self) -> Result<Bytes, ClientError> {
        #[derive(Serialize)]
        struct Numbered<'a> {
            index: u64,
            chunk: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            part: Option<&'a StreamPart>,
        }
        let mut bytes = 0;
        let batch: Vec<Numbered<'_>> = (self.first..)
            .zip(&self.chunks)
            .take(BATCH_CHUNKS_MAX)
            .take_while(|(_, chunk)| {
                let fits = bytes == 0 || bytes + chunk.text.len() <= BATCH_BYTES_MAX;
                bytes += chunk.text.len();
                fits
            })
            .map(|(index, chunk)| Numbered { index, chunk: &chunk.text, part: chunk.part.as_ref() })
            .collect();
        Ok(serde_json::to_vec(&batch).map_err(ClientError::Body)?.into())
    }

    /// Removes the chunks before `next_index`, the index that the daemon expects next. Returns what they
    /// counted.
    pub(super) fn acknowledge(&mut self, next_index: u64) -> Result<usize, StreamError> {
        let stored = next_index.checked_sub(self.first).filter(|_| next_index <= self.next_index());
        let stored = stored.and_then(|stored| usize::try_from(stored).ok());
        let Some(stored) = stored else {
            return Err(StreamError::OutOfStep {
                expected: next_index,
                first: self.first,
                next: self.next_index(),
            });
        };
        self.first = next_index;
        Ok(self.chunks.drain(..stored).map(|chunk| chunk.cost()).sum())
    }

    /// Removes all chunks.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::PartType;

    fn buffer(texts: &[&str]) -> ChunkBuffer {
        let mut buffer = ChunkBuffer::new(7);
        for text in texts {
            buffer.push(Chunk { text: (*text).to_owned(), part: None });
        }
        buffer
    }

    fn batch(buffer: &ChunkBuffer) -> Value {
        serde_json::from_slice(&buffer.batch().unwrap()).unwrap()
    }

    #[test]
    fn chunks_are_numbered_from_the_first_index_and_removed_once_acknowledged() {
        let mut buffer = buffer(&["a", "b"]);
        buffer.push(Chunk { text: "c".into(), part: Some(StreamPart::new(PartType::Reasoning, "r")) });
        assert_eq!(buffer.next_index(), 10);
        assert_eq!(
            batch(&buffer),
            json!([{"index": 7, "chunk": "a"}, {"index": 8, "chunk": "b"},
                {"index": 9, "chunk": "c", "part": {"type": "reasoning", "id": "r"}}])
        );
        assert_eq!(buffer.acknowledge(9).unwrap(), 2 * (1 + CHUNK_OVERHEAD));
        assert_eq!(batch(&buffer).as_array().unwrap().len(), 1);
        assert_eq!(
            (buffer.acknowledge(9).unwrap(), buffer.acknowledge(10).unwrap()),
            (0, 1 + CHUNK_OVERHEAD)
        );
        assert!(buffer.is_empty());
    }

    /// The daemon may neither have lost what it acknowledged nor have text that was not sent.
    #[test]
    fn an_index_outside_of_the_buffer_is_an_error() {
        let mut buffer = buffer(&["a", "b"]);
        for expected in [0, 6, 10, u64::MAX] {
            let error = buffer.acknowledge(expected).unwrap_err();
            assert!(
                matches!(error, StreamError::OutOfStep { expected: e, first: 7, next: 9 } if e == expected),
                "{error}"
            );
        }
        assert_eq!(batch(&buffer).as_array().unwrap().len(), 2, "nothing was removed");
    }

    #[test]
    fn a_request_has_a_limited_size_and_at_least_one_chunk() {
        let text = "x".repeat(BATCH_BYTES_MAX / 2);
        assert_eq!(batch(&buffer(&[&text, &text, "y"])).as_array().unwrap().len(), 2);
        let text = "x".repeat(2 * BATCH_BYTES_MAX);
        assert_eq!(batch(&buffer(&[&text, "y"])).as_array().unwrap().len(), 1);
        let many = vec!["x"; BATCH_CHUNKS_MAX + 1];
        assert_eq!(batch(&buffer(&many)).as_array().unwrap().len(), BATCH_CHUNKS_MAX);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("ab").collect::<Vec<_>>(), ["ab"]);
        let text = "x".repeat(CHUNK_BYTES_MAX - 1) + &"€".repeat(CHUNK_BYTES_MAX);
        let cut: Vec<&str> = pieces(&text).collect();
        assert_eq!(cut.concat(), text);
        assert!(cut.len() == 5 && cut.iter().all(|piece| piece.len() <= CHUNK_BYTES_MAX), "{}", cut.len());
        assert_eq!(cut[0].len(), CHUNK_BYTES_MAX - 1);
    }
}
