//! The record format of the log before the journal: routing keys and the whole JSON. It is read in data
//! directories that an older version created.
//!
//! `kind u8 ‖ key_present u8 ‖ received_ms ‖ origin ‖ [chunk: same_end ‖ text_at ‖ flags u8 ‖ index? ‖
//! first_index?] ‖ (len ‖ bytes) per present key ‖ len ‖ json`, numbers as LEB128.

use super::record::{
    BadRecord, BodyForm, HAS_FIRST_INDEX, HAS_INDEX, IS_FINAL, JSON_BYTES, KEY_BYTES, Record, StoredChunk,
    StoredKey, byte, get, small, take,
};
use crate::event::EventKind;

/// Reads one record from the front of `input` and advances it.
///
/// # Errors
/// [`BadRecord`] if the bytes are not such a record; nothing is read past the end.
pub fn read<'a>(input: &mut &'a [u8]) -> Result<Record<'a>, BadRecord> {
    let kind = EventKind::from_ordinal(byte(input)?).ok_or(BadRecord("kind"))?;
    let present = byte(input)?;
    let received_ms = get(input)?;
    let origin = get(input)?;
    let chunk = match kind {
        EventKind::StreamChunk => Some(read_chunk(input)?),
        _ => None,
    };
    let mut keys = [None; 4];
    for (bit, slot) in keys.iter_mut().enumerate() {
        if present & (1 << bit) != 0 {
            *slot = Some(StoredKey::Apart(take(input, KEY_BYTES)?));
        }
    }
    let body = take(input, JSON_BYTES)?;
    Record { kind, received_ms, origin, form: BodyForm::Whole, chunk, keys, body }.checked()
}

fn read_chunk(input: &mut &[u8]) -> Result<StoredChunk, BadRecord> {
    let (same_len, head_len) = (small(get(input)?)?, small(get(input)?)?);
    let flags = byte(input)?;
    let index = if flags & HAS_INDEX != 0 { Some(get(input)?) } else { None };
    let first_index = if flags & HAS_FIRST_INDEX != 0 { Some(get(input)?) } else { None };
    // The version that wrote this format knew no parts.
    Ok(StoredChunk { same_len, head_len, index, first_index, is_final: flags & IS_FINAL != 0, is_text: true })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::record::put;
    use super::super::{Frame, RoutingKey};
    use super::*;

    /// Writes a record as the version before the journal did.
    pub(crate) fn write(frame: &Frame, out: &mut Vec<u8>) {
        out.extend([frame.kind as u8, frame.key_present]);
        put(out, frame.received_ms);
        put(out, frame.origin);
        if let Some(chunk) = &frame.chunk {
            put(out, u64::from(chunk.same_end));
            put(out, u64::from(chunk.text_at));
            let mut flags = if chunk.is_final { IS_FINAL } else { 0 };
            flags |= if chunk.index.is_some() { HAS_INDEX } else { 0 };
            flags |= if chunk.first_index.is_some() { HAS_FIRST_INDEX } else { 0 };
            out.push(flags);
            chunk.index.into_iter().chain(chunk.first_index).for_each(|n| put(out, n));
        }
        for key in RoutingKey::ALL.iter().filter_map(|key| frame.key(*key)) {
            put(out, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
        }
        put(out, frame.json().len() as u64);
        out.extend_from_slice(frame.json());
    }

    /// The bytes that version 0.1 wrote for an event. They exist in data directories, so no change of the
    /// code may change how they are read.
    #[test]
    fn a_record_of_an_old_directory_is_read() {
        let record = b"\x05\x08\x80\xd0\x95\xff\xbc\x31\x00\x03a/b\x66{\"id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"type\":\"custom\",\"channel\":\"a/b\",\"timestamp\":\"2023-11-14T22:13:20.000Z\"}";
        let mut input = &record[..];
        let record = read(&mut input).expect("a record");
        assert!(input.is_empty());
        assert_eq!((record.kind, record.received_ms), (EventKind::Custom, 1_700_000_000_000));
        assert_eq!((record.key(RoutingKey::Channel), record.key(RoutingKey::User)), (Some("a/b"), None));
    }
}
