//! The reader of one stream: how far it has read, and whether that is the produced text.
//!
//! It only compares. It knows neither connections nor the transport.

use crate::wire::event_id::{EventId, event_id};
use crate::wire::stream::{ChunkEvent, StreamTexts, chunk_event};

/// What a reader received.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamReader {
    /// The stream that it reads.
    pub(crate) stream: usize,
    /// Index of the next chunk.
    pub(crate) next: u64,
    /// The id of the last event, from which the reader resumes.
    pub(crate) cursor: Option<EventId>,
    /// Chunks whose indices were skipped.
    lost: u64,
    /// Chunks that arrived again.
    repeats: u64,
    /// Events with another text than the producer's, and ends at another index.
    wrong: u64,
    /// Events of the stream's end.
    ends: u64,
    /// `done` frames: all, and those that say that the stream is completed.
    done: u64,
    completed: u64,
}

impl StreamReader {
    /// Creates a reader that has received nothing.
    pub(crate) fn of(stream: usize) -> StreamReader {
        StreamReader { stream, ..StreamReader::default() }
    }

    /// Reads a message. Returns the indices of the chunks that are new, or `None` if it is not a chunk.
    pub(crate) fn event(
        &mut self,
        text: &[u8],
        texts: &StreamTexts,
        chunk_size: usize,
    ) -> Option<std::ops::Range<u64>> {
        let ChunkEvent { first, last, text: chunk, is_final } = chunk_event(text)?;
        if let Some(id) = event_id(text) {
            self.cursor = Some(id);
        }
        if is_final {
            self.ends += 1;
            self.wrong += u64::from(last != self.next);
            return Some(last..last);
        }
        let end = last + 1;
        let count = end.saturating_sub(first);
        let expected = texts.stretch(self.stream, first * chunk_size as u64, count as usize * chunk_size);
        self.wrong += u64::from(chunk != expected);
        self.lost += first.saturating_sub(self.next);
        self.repeats += self.next.min(end).saturating_sub(first);
        let new = self.next.max(first)..end;
        self.next = self.next.max(end);
        Some(new)
    }

    /// Reads a `done` frame.
    pub(crate) fn done(&mut self, is_completed: bool) {
        self.done += 1;
        self.completed += u64::from(is_completed);
    }

    /// Returns true if the reader got `done`.
    pub(crate) fn is_done(&self) -> bool {
        self.done > 0
    }

    /// Returns how many of the first `chunks` never arrived.
    pub(crate) fn lost(&self, chunks: u64) -> u64 {
        self.lost + chunks.saturating_sub(self.next)
    }

    /// Returns the chunks that arrived more than once.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Returns true if the reader has exactly the first `chunks`. If the stream has a certain end, it must
    /// have come once.
    pub(crate) fn is_exact(&self, chunks: u64, has_end: bool) -> bool {
        let end = if has_end { (1, 1, 1) } else { (0, 0, 0) };
        self.next == chunks
            && (self.lost, self.repeats, self.wrong) == (0, 0, 0)
            && (self.ends, self.done, self.completed) == end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4;

    fn event(texts: &StreamTexts, first: u64, last: u64) -> Vec<u8> {
        let text = texts.stretch(2, first * SIZE as u64, (last + 1 - first) as usize * SIZE);
        let text = String::from_utf8(text.to_vec()).unwrap();
        format!(r#"{{"id":"AAAAAAAAAAAAAAAAAAAAB1","chunk":"{text}","is_final":false,"index":{last},"first_index":{first}}}"#)
            .into_bytes()
    }

    fn end(index: u64) -> Vec<u8> {
        format!(r#"{{"chunk":"","is_final":true,"index":{index}}}"#).into_bytes()
    }

    /// Reads events of indices `first..=last`, an end after `chunks`, and `done`.
    fn read(texts: &StreamTexts, events: &[(u64, u64)], chunks: u64) -> StreamReader {
        let mut reader = StreamReader::of(2);
        for (first, last) in events {
            reader.event(&event(texts, *first, *last), texts, SIZE);
        }
        reader.event(&end(chunks), texts, SIZE);
        reader.done(true);
        reader
    }

    #[test]
    fn merged_and_single_chunks_are_the_text() {
        let texts = StreamTexts::new();
        for events in [&[(0, 0), (1, 1), (2, 9)][..], &[(0, 9)], &[(0, 3), (4, 9)]] {
            let reader = read(&texts, events, 10);
            assert!(reader.is_exact(10, true) && reader.is_done(), "{events:?}");
            assert!(reader.cursor.is_some());
            assert!(!reader.is_exact(11, true));
        }
        let mut reader = StreamReader { stream: 2, next: 3, ..StreamReader::default() };
        assert_eq!(reader.event(&event(&texts, 3, 5), &texts, SIZE), Some(3..6));
        assert_eq!(reader.event(&event(&texts, 4, 7), &texts, SIZE), Some(6..8));
        assert!(reader.event(&event(&texts, 4, 7), &texts, SIZE).unwrap().is_empty());
        assert_eq!(reader.event(b"{}", &texts, SIZE), None);
    }

    #[test]
    fn what_is_lost_repeated_wrong_or_without_an_end_is_not_exact() {
        let texts = StreamTexts::new();
        let lost = read(&texts, &[(0, 3), (5, 9)], 10);
        assert_eq!((lost.lost(10), lost.is_exact(10, true)), (1, false));
        let short = read(&texts, &[(0, 3)], 10);
        assert_eq!((short.lost(10), short.is_exact(10, true)), (6, false));
        let repeated = read(&texts, &[(0, 3), (2, 9)], 10);
        assert_eq!((repeated.repeats(), repeated.is_exact(10, true)), (2, false));
        let mut foreign = StreamReader::of(3);
        foreign.event(&event(&texts, 0, 3), &texts, SIZE);
        assert_eq!((foreign.lost(4), foreign.is_exact(4, false)), (0, false));
        let mut without_end = StreamReader::of(2);
        without_end.event(&event(&texts, 0, 3), &texts, SIZE);
        assert!(without_end.is_exact(4, false) && !without_end.is_exact(4, true));
        let mut twice = read(&texts, &[(0, 9)], 10);
        twice.done(true);
        assert!(!twice.is_exact(10, true));
    }
}
