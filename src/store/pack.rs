//! What the log keeps under one key: the events of one commit of one tenant, packed.
//!
//! * `version u8 ‖ count u32 BE ‖ min received u64 BE ‖ max received u64 BE ‖ count frame records`. Sequences are not in it:
//!   they are consecutive from the key's, in one epoch.
//! * A value is the unit of reading and of trimming. It is closed at [`PACK_BYTES`]; a single event may pass that, no
//!   value passes [`MAX_VALUE`]: sled moves leaf pages (up to 20 values) over a quarter segment into files it never
//!   fsyncs, and 20 × 72 KiB stay below a quarter of 8 MiB.
//! * What was erased of a value stays as one byte, [`ERASED`], so that no other event gets another sequence and nothing that
//!   counts values or events is wrong.
//! * The codec knows no tenant state, clock or disk.

use std::sync::Arc;

use super::keys;
use super::tombstones::Users;
use crate::cursor::CursorKey;
use crate::event;
use crate::frame::Frame;
use crate::frame::record::BadRecord;
use crate::ids::{Sequence, TenantId};

/// Bytes of sled's segments, fixed at creation.
pub(crate) const SEGMENT_BYTES: usize = 8 << 20;
/// Most bytes of a stored value of any kind.
pub const MAX_VALUE: usize = 72 * 1024;
/// Where a packed value is closed.
pub(crate) const PACK_BYTES: usize = 64 * 1024;
/// Most bytes of one event as its publisher sends it; configuration may lower it, never raise it.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// Most bytes the record adds to the event: routing keys again, the id, a user id and a time set by the server, header.
const ENVELOPE: usize = 4 * 1024;
/// Values of one leaf page of sled 0.34, with room: it splits above 16.
const LEAF_VALUES: usize = 20;

const VERSION: u8 = 1;
/// A value of which something was erased.
const VERSION_ERASED: u8 = 2;
/// Stands where the record of an erased event was; no record begins with it.
const ERASED: u8 = u8::MAX;
const HEADER: usize = 1 + 4 + 8 + 8;

const _: () = assert!(HEADER + MAX_EVENT_BYTES + ENVELOPE <= MAX_VALUE);
const _: () = assert!(4 * event::ID_BYTES + 6 * event::ID_BYTES + 512 <= ENVELOPE);
const _: () = assert!(PACK_BYTES <= MAX_VALUE);
const _: () = assert!(LEAF_VALUES * (MAX_VALUE + keys::HEAD + keys::MAX_NAME) <= SEGMENT_BYTES / 4);

/// The head of a stored value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Events in it, 1 or more.
    pub(crate) count: u32,
    /// Receive time of its first event, Unix milliseconds.
    pub(crate) min_ms: u64,
    /// Receive time of its last event, Unix milliseconds.
    pub(crate) max_ms: u64,
}

impl Head {
    /// Reads the head of a stored value.
    ///
    /// # Errors
    /// [`BadRecord`] for another version or too few bytes.
    pub(crate) fn read(value: &[u8]) -> Result<Head, BadRecord> {
        let head: &[u8; HEADER] = value.first_chunk().ok_or(BadRecord("value"))?;
        let u64_at = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let count = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if !matches!(head[0], VERSION | VERSION_ERASED) || count == 0 {
            return Err(BadRecord("version"));
        }
        Ok(Head { count, min_ms: u64_at(5), max_ms: u64_at(13) })
    }

    /// The sequence of the last event of the value that starts at `first`.
    pub(crate) fn last(&self, first: Sequence) -> Sequence {
        Sequence(first.0 + u64::from(self.count) - 1)
    }
}

/// Reads a whole value back, without what was erased of it.
///
/// # Errors
/// [`BadRecord`] when it is damaged; nothing is read past its end.
pub(crate) fn unpack(
    value: &[u8],
    first: Sequence,
    tenant: TenantId,
    cursors: &CursorKey,
) -> Result<(Head, Vec<Arc<Frame>>), BadRecord> {
    let head = Head::read(value)?;
    let mut input = &value[HEADER..];
    let mut frames = Vec::with_capacity((head.count as usize).min(input.len()));
    for at in 0..u64::from(head.count) {
        if let Some(frame) = record(&mut input, Sequence(first.0 + at), tenant, cursors)? {
            frames.push(Arc::new(frame));
        }
    }
    match input.is_empty() {
        true => Ok((head, frames)),
        false => Err(BadRecord("trailing bytes")),
    }
}

/// Reads one record off the front of `input`; `None`: it was erased.
fn record(
    input: &mut &[u8],
    sequence: Sequence,
    tenant: TenantId,
    cursors: &CursorKey,
) -> Result<Option<Frame>, BadRecord> {
    match input.split_first() {
        Some((&ERASED, rest)) => {
            *input = rest;
            Ok(None)
        }
        _ => Frame::read_record(input, sequence, tenant, cursors).map(Some),
    }
}

/// Most users for whose names a value is searched before it is decoded: each search reads all of it.
const SEARCHED: usize = 4;

/// The value without the events of `users` and those that tell of their coming and going; `None` if it has none.
///
/// # Errors
/// [`BadRecord`] when it is damaged.
pub(crate) fn without_users(
    value: &[u8],
    first: Sequence,
    tenant: TenantId,
    cursors: &CursorKey,
    users: &Users,
) -> Result<Option<Vec<u8>>, BadRecord> {
    // Routing keys are kept as they are, so they would be found.
    let found = |key: &str| memchr::memmem::find(value, key.as_bytes()).is_some();
    if users.len() <= SEARCHED && !users.keys().any(found) {
        return Ok(None);
    }
    let head = Head::read(value)?;
    let (mut input, mut kept, mut changed) = (&value[HEADER..], value[..HEADER].to_vec(), false);
    for at in 0..u64::from(head.count) {
        let before = input;
        let frame = record(&mut input, Sequence(first.0 + at), tenant, cursors)?;
        if frame.is_some_and(|frame| users.concern(&frame)) {
            kept.push(ERASED);
            changed = true;
        } else {
            kept.extend_from_slice(&before[..before.len() - input.len()]);
        }
    }
    kept[0] = VERSION_ERASED;
    Ok(changed.then_some(kept))
}

/// A closed value, ready to be written.
pub(crate) struct Packed {
    pub(crate) first: Sequence,
    pub(crate) head: Head,
    pub(crate) value: Vec<u8>,
}

/// Packs consecutive frames into values.
#[derive(Default)]
pub(crate) struct Packer {
    /// Of the open value; meaningless while `count` is 0.
    first: Sequence,
    count: u32,
    min_ms: u64,
    max_ms: u64,
    buf: Vec<u8>,
    /// Something was left out of the open value.
    erased: bool,
}

/// An event does not fit a value: the limits in front of the store are wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Packer {
    /// Adds a frame, or, where it is not to be `kept`, what stands for an erased one; hands closed values to `sink`. A frame that
    /// does not follow the one before starts a new value.
    ///
    /// # Errors
    /// [`TooLarge`]: the frame was left out, the others stand.
    pub(crate) fn push(
        &mut self,
        frame: &Frame,
        kept: bool,
        sink: &mut impl FnMut(Packed),
    ) -> Result<(), TooLarge> {
        if self.count > 0 && frame.sequence().0 != self.first.0 + u64::from(self.count) {
            self.finish(sink);
        }
        if self.buf.is_empty() {
            self.buf.resize(HEADER, 0);
        }
        let before = self.buf.len();
        match kept {
            true => frame.write_record(&mut self.buf),
            false => self.buf.push(ERASED),
        }
        let record = self.buf.len() - before;
        if HEADER + record > MAX_VALUE {
            self.buf.truncate(before);
            return Err(TooLarge);
        }
        if self.count > 0 && self.buf.len() > PACK_BYTES {
            let mut next = Vec::with_capacity(HEADER + record);
            next.resize(HEADER, 0);
            next.extend_from_slice(&self.buf[before..]);
            self.buf.truncate(before);
            self.finish(sink);
            self.buf = next;
        }
        if self.count == 0 {
            (self.first, self.min_ms) = (frame.sequence(), frame.received_ms());
        }
        self.count += 1;
        self.erased |= !kept;
        self.max_ms = frame.received_ms();
        Ok(())
    }

    /// Closes the open value, if there is one.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Packed)) {
        if self.count == 0 {
            return;
        }
        let mut value = std::mem::take(&mut self.buf);
        value[0] = if std::mem::take(&mut self.erased) { VERSION_ERASED } else { VERSION };
        value[1..5].copy_from_slice(&self.count.to_be_bytes());
        value[5..13].copy_from_slice(&self.min_ms.to_be_bytes());
        value[13..21].copy_from_slice(&self.max_ms.to_be_bytes());
        let head = Head { count: self.count, min_ms: self.min_ms, max_ms: self.max_ms };
        self.count = 0;
        sink(Packed { first: self.first, head, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::presence_channel;
    use crate::frame::Key;
    use crate::frame::tests::{KEY, frame};

    fn users(sub: &str) -> Users {
        let mut users = Users::default();
        users.add(sub);
        users
    }

    fn pack(frames: &[Frame]) -> Vec<Packed> {
        let (mut packer, mut out) = (Packer::default(), Vec::new());
        for frame in frames {
            packer.push(frame, true, &mut |p| out.push(p)).expect("fits");
        }
        packer.finish(&mut |p| out.push(p));
        out
    }

    fn message(len: usize, sequence: u64) -> Frame {
        let text = "x".repeat(len);
        frame(&format!(r#"{{"type":"message","agent_id":"a","content":"{text}"}}"#), sequence)
    }

    #[test]
    fn a_commit_becomes_values_of_at_most_64_kib_and_comes_back() {
        let frames: Vec<_> = (1..=300).map(|s| message(1000, s)).collect();
        let packed = pack(&frames);
        assert!(packed.len() > 4 && packed.iter().all(|p| p.value.len() <= PACK_BYTES));
        let mut next = 1;
        for value in &packed {
            assert_eq!(value.first, Sequence(next));
            let (head, read) = unpack(&value.value, value.first, TenantId(1), &KEY).expect("sound");
            assert_eq!((head, Head::read(&value.value)), (value.head, Ok(value.head)));
            for frame in &read {
                assert_eq!(frame.sse(), frames[next as usize - 1].sse());
                next += 1;
            }
            assert_eq!(head.last(value.first), Sequence(next - 1));
        }
        assert_eq!(next, 301);
    }

    #[test]
    fn a_value_never_spans_a_jump_in_the_sequence() {
        let packed = pack(&[message(10, 1), message(10, 2), message(10, 9)]);
        assert_eq!(packed.iter().map(|p| (p.first.0, p.head.count)).collect::<Vec<_>>(), [(1, 2), (9, 1)]);
    }

    /// The largest event a publisher may send, with every server-set field at its longest, fits; one far above is
    /// refused without harm to its neighbours.
    #[test]
    fn the_largest_event_fits_and_a_larger_is_left_out() {
        let id = "i".repeat(event::ID_BYTES);
        let head = format!(
            r#"{{"type":"message","agent_id":"{id}","user_id":"{id}","message_id":"{id}","content":""#
        );
        let body = "x".repeat(MAX_EVENT_BYTES - head.len() - 2);
        let biggest = frame(&format!("{head}{body}\"}}"), 2);
        let packed = pack(&[message(10, 1), biggest, message(10, 3)]);
        assert_eq!(packed.len(), 3);
        assert!(packed.iter().all(|p| p.value.len() <= MAX_VALUE));

        let (mut packer, mut out) = (Packer::default(), Vec::new());
        packer.push(&message(10, 1), true, &mut |p| out.push(p)).expect("fits");
        assert_eq!(packer.push(&message(MAX_VALUE, 2), true, &mut |p| out.push(p)), Err(TooLarge));
        packer.push(&message(10, 3), true, &mut |p| out.push(p)).expect("fits");
        packer.finish(&mut |p| out.push(p));
        assert_eq!(out.iter().map(|p| p.first.0).collect::<Vec<_>>(), [1, 3]);
        assert!(out.iter().all(|p| unpack(&p.value, p.first, TenantId(1), &KEY).is_ok()));
    }

    #[test]
    fn a_users_events_are_erased_and_every_other_keeps_its_sequence() {
        let of = |user: &str, sequence| {
            frame(
                &format!(r#"{{"type":"message","agent_id":"ann","user_id":"{user}","content":"ann"}}"#),
                sequence,
            )
        };
        let value = pack(&[of("ann", 5), of("bob", 6), of("ann", 7), of("anna", 8)]).remove(0).value;
        let erase = |value: &[u8], user: &str| {
            without_users(value, Sequence(5), TenantId(1), &KEY, &users(user)).expect("sound")
        };
        assert_eq!(erase(&value, "eve"), None);
        let erased = erase(&value, "ann").expect("changed");
        let (head, frames) = unpack(&erased, Sequence(5), TenantId(1), &KEY).expect("sound");
        assert_eq!((head.count, head.last(Sequence(5))), (4, Sequence(8)));
        let left: Vec<_> = frames.iter().map(|f| (f.sequence().0, f.key(Key::User))).collect();
        assert_eq!(left, [(6, Some("bob")), (8, Some("anna"))]);
        assert_eq!(frames[0].sse(), of("bob", 6).sse());
        assert_eq!(erase(&erased, "ann"), None, "once is enough");
        let none = erase(&erase(&erased, "bob").expect("changed"), "anna").expect("changed");
        assert!(unpack(&none, Sequence(5), TenantId(1), &KEY).expect("sound").1.is_empty());
    }

    /// They name the user, and have no `user_id`: the whole organization sees them.
    #[test]
    fn what_tells_of_a_users_presence_is_erased_with_the_user() {
        let of = |sub: &str, sequence| {
            let channel = presence_channel(sub);
            frame(&format!(r#"{{"type":"custom","channel":"{channel}","data":{{"sub":"{sub}"}}}}"#), sequence)
        };
        let value = pack(&[of("a/b", 5), of("a", 6), of("a/b", 7), of("b", 8)]).remove(0).value;
        let erased = without_users(&value, Sequence(5), TenantId(1), &KEY, &users("a/b"))
            .expect("sound")
            .expect("changed");
        let (_, frames) = unpack(&erased, Sequence(5), TenantId(1), &KEY).expect("sound");
        let left: Vec<_> = frames.iter().map(|f| (f.sequence().0, f.key(Key::Channel))).collect();
        assert_eq!(left, [(6, Some("presence/a")), (8, Some("presence/b"))]);
    }

    #[test]
    fn a_damaged_value_is_an_error_at_every_length() {
        let value = &pack(&[message(3, 1), message(3, 2)])[0].value;
        for len in 0..value.len() {
            assert!(unpack(&value[..len], Sequence(1), TenantId(1), &KEY).is_err(), "cut to {len}");
        }
        let mut longer = value.clone();
        longer.push(0);
        assert!(unpack(&longer, Sequence(1), TenantId(1), &KEY).is_err());
    }
}
