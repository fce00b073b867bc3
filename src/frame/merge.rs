//! Merges runs of `stream_chunk`s for a reader that is behind: fewer, longer chunks with the same text.
//!
//! Two frames are merged if they are neighbours in what the reader sees, agree in everything but text, index
//! and time, their indices follow each other, and the earlier one is not final. So a merged chunk is of one
//! part, and lacks no chunk between its first index and its last. The escaped texts are joined as they are, so
//! nothing is decoded again.

use std::sync::Arc;

use super::encode::JsonObject;
use super::{CHUNK_SAME_AT, Chunk, Frame, KeyText, RoutingKey, TIMESTAMP_LEN};
use crate::event::EventKind;

/// The most bytes of text in a merged chunk.
pub const MERGED_BYTES: usize = 64 * 1024;

impl Chunk {
    /// Returns true if the index of `next` follows this chunk's, or neither has one.
    fn precedes(&self, next: &Chunk) -> bool {
        match (self.index, next.first_index.or(next.index)) {
            (Some(last), Some(first)) => last.checked_add(1) == Some(first),
            (last, first) => last == first,
        }
    }
}

impl Frame {
    fn chunk_same(&self, chunk: &Chunk) -> &[u8] {
        &self.json()[CHUNK_SAME_AT..chunk.same_end as usize]
    }

    fn chunk_text(&self, chunk: &Chunk) -> &[u8] {
        let json = self.json();
        &json[chunk.text_at as usize..json.len() - 2]
    }

    /// Returns the text of a key, for a frame whose JSON has the same fields before the text.
    fn key_text(&self, key: RoutingKey) -> Option<KeyText<'_>> {
        let text = self.key(key)?;
        let at = usize::from(self.keys[key as usize].at).checked_sub(self.json_at());
        Some(at.map_or(KeyText::Apart(text), |at| KeyText::InJson { at, len: text.len() }))
    }

    /// Returns true if `next`, the following frame that a reader sees, continues this frame's text.
    #[must_use]
    pub fn continues_in(&self, next: &Frame) -> bool {
        let (Some(a), Some(b)) = (&self.chunk, &next.chunk) else { return false };
        !a.is_final && a.precedes(b) && self.chunk_same(a) == next.chunk_same(b)
    }

    /// Returns the bytes of escaped text; 0 for other kinds.
    #[must_use]
    pub fn chunk_len(&self) -> usize {
        self.chunk.as_ref().map_or(0, |chunk| self.chunk_text(chunk).len())
    }
}

/// Returns one frame for a run of frames in which each [`Frame::continues_in`] the next. It has the joined
/// text, the id, index, `is_final` and timestamp of the last, and the `first_index` of the first. A run of
/// one is that frame itself.
#[must_use]
pub fn merge(run: &[Arc<Frame>]) -> Option<Arc<Frame>> {
    let (first, last) = (run.first()?, run.last()?);
    if run.len() == 1 {
        return Some(first.clone());
    }
    let (a, b) = (first.chunk.as_ref()?, last.chunk.as_ref()?);
    let mut part = Chunk { first_index: a.first_index.or(a.index), text_at: 0, ..*b };
    let mut out = Vec::with_capacity(last.json().len() + run.iter().map(|f| f.chunk_len()).sum::<usize>());
    let mut json = JsonObject::new(&mut out);
    json.start(EventKind::StreamChunk);
    json.out.extend_from_slice(last.chunk_same(b));
    part.same_end = json.len();
    json.chunk_progress(&part);
    // The `"timestamp":"…","chunk":"` of the last frame, which is right before its text.
    let tail = b"\"timestamp\":\"".len() + TIMESTAMP_LEN + b"\",\"chunk\":\"".len();
    let text_at = b.text_at as usize;
    json.out.extend_from_slice(&last.json()[text_at - tail..text_at]);
    part.text_at = json.len();
    for frame in run {
        json.out.extend_from_slice(frame.chunk_text(frame.chunk.as_ref()?));
    }
    json.out.extend_from_slice(b"\"}");
    // The bytes before the text are those of the last frame, so its keys keep their positions.
    let keys = RoutingKey::ALL.map(|key| last.key_text(key));
    let mut merged = Frame::assemble(EventKind::StreamChunk, keys, &out, Some(part), last.origin);
    let mut id = crate::cursor::Cursor([0; crate::cursor::CURSOR_LEN]);
    id.0.copy_from_slice(last.id());
    merged.seal(last.sequence, last.received_ms, &id);
    Some(Arc::new(merged))
}

/// Joins neighbouring chunks of `frames` (what one reader sees, in order) into as few as [`MERGED_BYTES`]
/// allows. Returns how many original frames each one replaces. Unmerged frames cost one comparison, no copy
/// and no allocation.
pub fn coalesce(frames: &mut Vec<Arc<Frame>>) -> Vec<u32> {
    let mut runs = Vec::with_capacity(frames.len());
    let (mut at, mut kept) = (0, 0);
    while at < frames.len() {
        let mut end = at + 1;
        let mut bytes = frames[at].chunk_len();
        while end < frames.len() && frames[end - 1].continues_in(&frames[end]) {
            bytes += frames[end].chunk_len();
            if bytes > MERGED_BYTES {
                break;
            }
            end += 1;
        }
        let merged = if end - at > 1 { merge(&frames[at..end]) } else { None };
        match merged {
            Some(merged) => {
                frames[kept] = merged;
                kept += 1;
                runs.push((end - at) as u32);
            }
            // Nearly every run is of one frame. A longer run holds only chunks; if that were wrong, still no
            // frame may be lost.
            None => {
                for one in at..end {
                    frames.swap(kept, one);
                    kept += 1;
                    runs.push(1);
                }
            }
        }
        at = end;
    }
    frames.truncate(kept);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;

    fn chunk(sequence: u64, request: &str, text: &str, index: u64, is_final: bool) -> Arc<Frame> {
        let json = serde_json::json!({"type":"stream_chunk","request_id":request,"chunk":text,"index":index,"is_final":is_final});
        Arc::new(frame(&json.to_string(), sequence))
    }

    fn shown(frame: &Frame) -> serde_json::Value {
        serde_json::from_slice(frame.json()).expect("json")
    }

    #[test]
    fn a_run_becomes_one_chunk_with_the_last_ones_id() {
        let mut frames = vec![
            chunk(1, "r", "Hel\"", 0, false),
            chunk(2, "r", "lo\n", 1, false),
            chunk(3, "r", "", 2, true),
        ];
        let last = shown(&frames[2]);
        assert_eq!(coalesce(&mut frames), [3]);
        let json = shown(&frames[0]);
        assert_eq!(json["chunk"], "Hel\"lo\n");
        assert_eq!(
            (&json["first_index"], &json["index"], &json["is_final"]),
            (&0.into(), &2.into(), &true.into())
        );
        assert_eq!((&json["id"], &json["timestamp"]), (&last["id"], &last["timestamp"]));
        assert_eq!(frames[0].sequence().0, 3);
        assert_eq!(frames[0].key(RoutingKey::Request), Some("r"));
    }

    #[test]
    fn merged_runs_merge_again() {
        let first = merge(&[chunk(1, "r", "a", 0, false), chunk(2, "r", "b", 1, false)]).expect("run");
        let both = merge(&[first, chunk(3, "r", "c", 2, false)]).expect("run");
        assert_eq!(
            (shown(&both)["chunk"].as_str(), shown(&both)["first_index"].as_u64()),
            (Some("abc"), Some(0))
        );
    }

    #[test]
    fn what_differs_or_ended_does_not_merge() {
        let mut frames = vec![
            chunk(1, "r", "a", 0, false),
            chunk(2, "s", "b", 0, false),
            chunk(3, "r", "c", 1, true),
            chunk(4, "r", "d", 0, false),
        ];
        assert_eq!(coalesce(&mut frames), [1; 4]);
        assert_eq!(frames.len(), 4);
    }

    fn of_part(sequence: u64, index: Option<u64>, text: &str, part: Option<&str>) -> Arc<Frame> {
        let mut json =
            serde_json::json!({"type":"stream_chunk","request_id":"r","chunk":text,"is_final":false});
        if let Some(index) = index {
            json["index"] = index.into();
        }
        if let Some(part) = part {
            json["part"] = serde_json::from_str(part).expect("JSON");
        }
        Arc::new(frame(&json.to_string(), sequence))
    }

    #[test]
    fn chunks_merge_within_one_part_only() {
        let reasoning = Some(r#"{"type":"reasoning","id":"a"}"#);
        let mut frames = vec![
            of_part(1, Some(0), "a", reasoning),
            // The order of the keys makes no difference.
            of_part(2, Some(1), "b", Some(r#"{"id":"a","type":"reasoning"}"#)),
            of_part(3, Some(2), "c", Some(r#"{"type":"reasoning","id":"b"}"#)),
            of_part(4, Some(3), "d", Some(r#"{"type":"text","id":"b"}"#)),
            of_part(5, Some(4), "e", Some(r#"{"type":"text","id":"b","name":"n"}"#)),
            of_part(6, Some(5), "f", None),
            of_part(7, Some(6), "g", None),
        ];
        assert_eq!(coalesce(&mut frames), [2, 1, 1, 1, 2]);
        let texts: Vec<_> = frames.iter().map(|frame| shown(frame)["chunk"].clone()).collect();
        assert_eq!(texts, ["ab", "c", "d", "e", "fg"]);
        assert_eq!(shown(&frames[0])["part"], serde_json::json!({"type":"reasoning","id":"a"}));
        let other: Vec<bool> = frames.iter().map(|frame| frame.is_of_other_part()).collect();
        assert_eq!(other, [true, true, false, false, false]);
    }

    #[test]
    fn chunks_merge_only_if_their_indices_follow_each_other() {
        let indices =
            [Some(0), Some(1), Some(3), Some(4), Some(4), None, None, Some(5), Some(u64::MAX), Some(0)];
        let mut frames: Vec<_> = indices
            .into_iter()
            .zip(1..)
            .map(|(index, sequence)| of_part(sequence, index, "x", None))
            .collect();
        assert_eq!(coalesce(&mut frames), [2, 2, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn a_merged_chunk_is_bounded() {
        let text = "x".repeat(MERGED_BYTES / 2);
        let mut frames: Vec<_> = (0..4).map(|i| chunk(i, "r", &text, i, false)).collect();
        assert_eq!(coalesce(&mut frames), [2, 2]);
        assert!(frames.iter().all(|f| f.chunk_len() <= MERGED_BYTES));
    }
}
