//! A frame as the log keeps it: routing keys and JSON, little endian, lengths as LEB128.
//!
//! `kind u8 ‖ key_present u8 ‖ received_ms ‖ origin ‖ [chunk: same_end ‖ text_at ‖ flags u8 ‖ index? ‖ first_index?] ‖
//! (len ‖ bytes) per present key ‖ len ‖ json`. The sequence is not in it: it follows from the place in the log.

use super::{Chunk, Frame, Key, KeyText};
use crate::cursor::CursorKey;
use crate::event::Kind;
use crate::ids::{Sequence, TenantId};

/// A stored record cannot be read: the log is damaged or of another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log record is damaged: {0}")]
pub struct BadRecord(pub &'static str);

const HAS_INDEX: u8 = 1;
const HAS_FIRST_INDEX: u8 = 2;
const IS_FINAL: u8 = 4;

impl Frame {
    /// Appends this frame's record to `out`.
    pub fn write_record(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.push(self.key_present);
        put(out, self.received_ms);
        put(out, self.origin);
        if let Some(chunk) = &self.chunk {
            put(out, u64::from(chunk.same_end));
            put(out, u64::from(chunk.text_at));
            let mut flags = if chunk.is_final { IS_FINAL } else { 0 };
            flags |= if chunk.index.is_some() { HAS_INDEX } else { 0 };
            flags |= if chunk.first_index.is_some() { HAS_FIRST_INDEX } else { 0 };
            out.push(flags);
            chunk.index.into_iter().chain(chunk.first_index).for_each(|n| put(out, n));
        }
        for key in Key::ALL.iter().filter_map(|key| self.key(*key)) {
            put(out, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
        }
        put(out, self.json().len() as u64);
        out.extend_from_slice(self.json());
    }

    /// Reads one record off the front of `input`, which is moved past it, as event `sequence` of `tenant`.
    ///
    /// # Errors
    /// [`BadRecord`] when the bytes are not such a record; nothing is read past the end.
    pub fn read_record(
        input: &mut &[u8],
        sequence: Sequence,
        tenant: TenantId,
        cursors: &CursorKey,
    ) -> Result<Frame, BadRecord> {
        let kind = Kind::from_ordinal(byte(input)?).ok_or(BadRecord("kind"))?;
        let present = byte(input)?;
        let received_ms = get(input)?;
        let origin = get(input)?;
        let chunk = match kind {
            Kind::StreamChunk => Some(read_chunk(input)?),
            _ => None,
        };
        let mut keys = [None; 4];
        for (at, slot) in keys.iter_mut().enumerate() {
            if present & (1 << at) != 0 {
                let key = take(input, u64::from(u16::MAX / 4))?;
                let text = std::str::from_utf8(key).map_err(|_| BadRecord("key"))?;
                *slot = Some(KeyText::Apart(text));
            }
        }
        let json = take(input, u64::from(u32::MAX / 4))?;
        let well_formed = json.len() > super::JSON_ID.len() + crate::cursor::CURSOR_LEN
            && chunk.is_none_or(|c| {
                super::CHUNK_SAME_AT <= c.same_end as usize
                    && c.same_end <= c.text_at
                    && (c.text_at as usize) + 2 <= json.len()
            });
        if !well_formed {
            return Err(BadRecord("json"));
        }
        let mut frame = Frame::assemble(kind, keys, json, chunk, origin);
        frame.seal(sequence, received_ms, &cursors.encode(tenant, sequence));
        Ok(frame)
    }

    /// The `id` inside the JSON.
    pub(super) fn id(&self) -> &[u8] {
        let at = super::JSON_ID.len();
        &self.json()[at..at + crate::cursor::CURSOR_LEN]
    }
}

fn read_chunk(input: &mut &[u8]) -> Result<Chunk, BadRecord> {
    let same_end = u32::try_from(get(input)?).map_err(|_| BadRecord("chunk"))?;
    let text_at = u32::try_from(get(input)?).map_err(|_| BadRecord("chunk"))?;
    let flags = byte(input)?;
    let index = if flags & HAS_INDEX != 0 { Some(get(input)?) } else { None };
    let first_index = if flags & HAS_FIRST_INDEX != 0 { Some(get(input)?) } else { None };
    Ok(Chunk { same_end, text_at, index, first_index, is_final: flags & IS_FINAL != 0 })
}

/// Appends `n` as LEB128: 7 bits a byte, low first.
pub fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads a LEB128 number off the front of `input`.
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

fn byte(input: &mut &[u8]) -> Result<u8, BadRecord> {
    let (&first, rest) = input.split_first().ok_or(BadRecord("end"))?;
    *input = rest;
    Ok(first)
}

fn take<'a>(input: &mut &'a [u8], max: u64) -> Result<&'a [u8], BadRecord> {
    let len = get(input)?;
    if len > max || len > input.len() as u64 {
        return Err(BadRecord("length"));
    }
    let (taken, rest) = input.split_at(len as usize);
    *input = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::{KEY, frame};

    const EVENTS: [&str; 3] = [
        r#"{"type":"message","agent_id":"a","user_id":"ü","content":"x"}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"a","is_final":true,"index":4,"metadata":{"a":1}}"#,
        r#"{"type":"custom","channel":"a/b","data":null}"#,
    ];

    #[test]
    fn a_record_comes_back_as_its_frame() {
        for json in EVENTS {
            let frame = frame(json, 77);
            let mut record = Vec::new();
            frame.write_record(&mut record);
            let mut input = record.as_slice();
            let read = Frame::read_record(&mut input, Sequence(77), TenantId(1), &KEY).expect(json);
            assert!(input.is_empty());
            assert_eq!((read.sse_chunked(), read.chunk), (frame.sse_chunked(), frame.chunk));
            assert_eq!(Key::ALL.map(|k| read.key(k)), Key::ALL.map(|k| frame.key(k)));
            assert_eq!(read.received_ms(), frame.received_ms());
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_at_every_length() {
        for json in EVENTS {
            let mut record = Vec::new();
            frame(json, 1).write_record(&mut record);
            for len in 0..record.len() {
                let read = Frame::read_record(&mut &record[..len], Sequence(1), TenantId(1), &KEY);
                assert!(read.is_err(), "{json} cut to {len}");
            }
        }
    }
}
