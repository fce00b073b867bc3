//! A *piece*: the events of one commit of one tenant, packed.
//!
//! * `version u8 ‖ count u16 BE ‖ span u16 BE ‖ min received as LEB128 ‖ count records`. `span` is the time
//!   from the first to the last receive time, in milliseconds. Sequences are not stored: they are consecutive
//!   from the one in the row's key, in one epoch.
//! * A piece is the unit of writing and of trimming. It is closed at [`PACK_BYTES`]. A single event may
//!   exceed that, but no piece exceeds [`MAX_VALUE`].
//! * An erased event leaves one byte, [`ERASED`], so that other events keep their sequences and the counts of
//!   pieces and events stay correct.
//! * Versions 1 and 2 are of data directories before the journal, where pieces were values of the storage
//!   engine: `version u8 ‖ count u32 BE ‖ min received u64 BE ‖ max received u64 BE ‖ count old records`.
//! * The codec knows no tenant state, clock or disk.

use super::deleted_users::DeletedUsers;
use super::keys;
use crate::event;
use crate::frame::record::{self, BadRecord, Record};
use crate::frame::{Frame, RoutingKey, legacy_record};
use crate::ids::Sequence;

/// Size of sled's segments in bytes, fixed at creation.
pub(crate) const SEGMENT_BYTES: usize = 8 << 20;
/// Limit of a piece, and of a stored value of any kind, in bytes. sled moves leaf pages (up to 20 values) of
/// more than a quarter segment into files that it never syncs; 20 × 72 KiB stay below a quarter of 8 MiB.
pub const MAX_VALUE: usize = 72 * 1024;
/// Size at which a piece is closed, in bytes.
pub(super) const PACK_BYTES: usize = 64 * 1024;
/// Limit of one event as its publisher sends it, in bytes. Configuration may lower it, never raise it.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// Limit of what the record adds to the event, in bytes: routing keys again, the id, a user id and a time set
/// by the server, and a header.
const ENVELOPE: usize = 4 * 1024;
/// Values of one leaf page of sled 0.34, with a margin: it splits above 16.
const LEAF_VALUES: usize = 20;

/// Versions of old pieces; the second is of pieces with erased events.
const OLD: u8 = 1;
const OLD_ERASED: u8 = 2;
const VERSION: u8 = 3;
/// Written in place of the record of an erased event. No record starts with it.
const ERASED: u8 = u8::MAX;
/// Limit of the bytes before the records.
const HEADER: usize = 1 + 2 + 2 + 10;

const _: () = assert!(HEADER + MAX_EVENT_BYTES + ENVELOPE <= MAX_VALUE);
const _: () = assert!(4 * event::ID_BYTES + 6 * event::ID_BYTES + 512 <= ENVELOPE);
const _: () = assert!(PACK_BYTES <= MAX_VALUE);
const _: () = assert!(LEAF_VALUES * (MAX_VALUE + keys::HEAD + keys::MAX_NAME) <= SEGMENT_BYTES / 4);

/// The head of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Number of events, 1 or more.
    pub(crate) count: u32,
    /// Receive time of its first event, Unix milliseconds.
    pub(crate) min_ms: u64,
    /// Receive time of its last event, Unix milliseconds.
    pub(crate) max_ms: u64,
}

impl Head {
    /// Reads the head of a piece.
    ///
    /// # Errors
    /// [`BadRecord`] for another version or too few bytes.
    pub(crate) fn read(piece: &[u8]) -> Result<Head, BadRecord> {
        Ok(Records::of(piece)?.head)
    }

    /// The sequence of the last event of the piece that starts at `first`.
    pub(crate) fn last(&self, first: Sequence) -> Sequence {
        Sequence(first.0.saturating_add(u64::from(self.count) - 1))
    }
}

/// Iterates over the records of a piece in order; an erased event is `None`. Ends after the first error.
pub(crate) struct Records<'a> {
    pub(crate) head: Head,
    is_old: bool,
    /// The unread bytes, which hold exactly the remaining records.
    input: &'a [u8],
    left: u32,
}

impl<'a> Records<'a> {
    /// The records of a whole piece.
    ///
    /// # Errors
    /// [`BadRecord`] for another version or a damaged head.
    pub(crate) fn of(piece: &'a [u8]) -> Result<Records<'a>, BadRecord> {
        let (head, input) = match piece.first() {
            Some(&VERSION) => read_head(piece)?,
            Some(&(OLD | OLD_ERASED)) => read_old_head(piece)?,
            Some(_) => return Err(BadRecord("version")),
            None => return Err(BadRecord("end")),
        };
        match head.count {
            0 => Err(BadRecord("count")),
            left => Ok(Records { head, is_old: piece[0] != VERSION, input, left }),
        }
    }

    fn read(&mut self) -> Result<Option<Record<'a>>, BadRecord> {
        if let Some((&ERASED, rest)) = self.input.split_first() {
            self.input = rest;
            return Ok(None);
        }
        match self.is_old {
            true => legacy_record::read(&mut self.input).map(Some),
            false => Record::read(&mut self.input, self.head.min_ms).map(Some),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Option<Record<'a>>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            // This error is returned once: nothing is left to read after it.
            return (!std::mem::take(&mut self.input).is_empty()).then_some(Err(BadRecord("trailing bytes")));
        }
        self.left -= 1;
        let read = self.read();
        if read.is_err() {
            (self.left, self.input) = (0, &[]);
        }
        Some(read)
    }
}

/// Reads all of a piece and returns its head.
///
/// # Errors
/// [`BadRecord`] if it is damaged.
pub(crate) fn check(piece: &[u8]) -> Result<Head, BadRecord> {
    let records = Records::of(piece)?;
    let head = records.head;
    for record in records {
        record?;
    }
    Ok(head)
}

fn read_head(piece: &[u8]) -> Result<(Head, &[u8]), BadRecord> {
    let (&[_, c0, c1, s0, s1], mut rest) = piece.split_first_chunk().ok_or(BadRecord("end"))?;
    let (count, span) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([s0, s1]));
    let min_ms = record::get(&mut rest)?;
    let max_ms = min_ms.checked_add(u64::from(span)).ok_or(BadRecord("time"))?;
    Ok((Head { count: u32::from(count), min_ms, max_ms }, rest))
}

fn read_old_head(piece: &[u8]) -> Result<(Head, &[u8]), BadRecord> {
    fn field<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadRecord> {
        let (field, tail) = rest.split_first_chunk().ok_or(BadRecord("end"))?;
        *rest = tail;
        Ok(*field)
    }
    let mut rest = piece.get(1..).unwrap_or_default();
    let head = Head {
        count: u32::from_be_bytes(field(&mut rest)?),
        min_ms: u64::from_be_bytes(field(&mut rest)?),
        max_ms: u64::from_be_bytes(field(&mut rest)?),
    };
    Ok((head, rest))
}

/// Largest number of users whose names are searched for before a piece is parsed. Each search reads the whole
/// piece.
const SEARCHED: usize = 4;

/// Returns the piece without the events of `users` and their presence events; `None` if it has none of these.
///
/// # Errors
/// [`BadRecord`] if it is damaged.
pub(crate) fn without_users(piece: &[u8], users: &DeletedUsers) -> Result<Option<Vec<u8>>, BadRecord> {
    // Routing keys are stored unescaped, so a byte search finds them.
    let found = |key: &str| memchr::memmem::find(piece, key.as_bytes()).is_some();
    if users.len() <= SEARCHED && !users.keys().any(found) {
        return Ok(None);
    }
    let mut records = Records::of(piece)?;
    let mut kept = piece[..piece.len() - records.input.len()].to_vec();
    let mut changed = false;
    loop {
        let before = records.input;
        let Some(record) = records.next() else { break };
        if record?.is_some_and(|record| {
            users.concern(record.key(RoutingKey::User), record.key(RoutingKey::Channel))
        }) {
            kept.push(ERASED);
            changed = true;
        } else {
            kept.extend_from_slice(&before[..before.len() - records.input.len()]);
        }
    }
    if kept[0] == OLD {
        kept[0] = OLD_ERASED;
    }
    Ok(changed.then_some(kept))
}

/// A closed piece, ready to be written.
pub(crate) struct Packed {
    pub(crate) first: Sequence,
    pub(crate) head: Head,
    pub(crate) value: Vec<u8>,
}

/// Packs consecutive frames into pieces.
#[derive(Default)]
pub(crate) struct Packer {
    /// The first sequence of the open piece; not valid while `count` is 0.
    first: Sequence,
    count: u16,
    min_ms: u64,
    max_ms: u64,
    buf: Vec<u8>,
}

/// An event does not fit into a piece: the limits in front of the store are wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Packer {
    /// Returns true if a piece can hold the frame. [`Packer::push`] takes such a frame.
    pub(crate) fn fits(frame: &Frame) -> bool {
        if HEADER + frame.size() + ENVELOPE <= MAX_VALUE {
            return true; // almost every frame; see `ENVELOPE`
        }
        let mut record = Vec::new();
        frame.write_record(frame.received_ms().saturating_sub(u64::from(u16::MAX)), &mut record);
        HEADER + record.len() <= MAX_VALUE
    }

    /// Adds a frame, or the mark of an erased one unless it is `kept`. Passes closed pieces to `sink`. A
    /// frame that does not follow the previous one starts a new piece.
    ///
    /// # Errors
    /// [`TooLarge`]: the frame was left out; the others remain.
    pub(crate) fn push(
        &mut self,
        frame: &Frame,
        kept: bool,
        sink: &mut impl FnMut(Packed),
    ) -> Result<(), TooLarge> {
        if self.count > 0 && !self.takes(frame) {
            self.finish(sink);
        }
        if self.count == 0 {
            self.begin(frame);
        }
        let before = self.buf.len();
        self.write(frame, kept);
        let record = self.buf.len() - before;
        if HEADER + record > MAX_VALUE {
            self.buf.truncate(before);
            return Err(TooLarge);
        }
        if self.count > 0 && self.buf.len() > PACK_BYTES {
            self.buf.truncate(before);
            self.finish(sink);
            self.begin(frame);
            self.write(frame, kept);
        }
        self.count += 1;
        self.max_ms = frame.received_ms();
        Ok(())
    }

    /// Returns true if the open piece can take the frame.
    fn takes(&self, frame: &Frame) -> bool {
        let span = frame.received_ms().checked_sub(self.min_ms);
        frame.sequence().0 == self.first.0 + u64::from(self.count)
            && self.count < u16::MAX
            && span.is_some_and(|span| span <= u64::from(u16::MAX))
    }

    fn begin(&mut self, frame: &Frame) {
        (self.first, self.min_ms) = (frame.sequence(), frame.received_ms());
        self.buf.clear();
        self.buf.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
        record::put(&mut self.buf, self.min_ms);
    }

    fn write(&mut self, frame: &Frame, kept: bool) {
        match kept {
            true => frame.write_record(self.min_ms, &mut self.buf),
            false => self.buf.push(ERASED),
        }
    }

    /// Closes the open piece, if there is one.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Packed)) {
        if self.count == 0 {
            return;
        }
        let mut value = std::mem::take(&mut self.buf);
        let span = self.max_ms.saturating_sub(self.min_ms) as u16; // see `Packer::takes`
        value[1..3].copy_from_slice(&self.count.to_be_bytes());
        value[3..5].copy_from_slice(&span.to_be_bytes());
        let head = Head { count: u32::from(self.count), min_ms: self.min_ms, max_ms: self.max_ms };
        self.count = 0;
        sink(Packed { first: self.first, head, value });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::presence_channel;
    use crate::frame::page_writer::PageWriter;
    use crate::frame::tests::{KEY, frame};
    use crate::ids::TenantId;

    /// The frames of a piece that starts at `first`, without erased events.
    fn unpack(piece: &[u8], first: u64) -> Result<(Head, Vec<Frame>), BadRecord> {
        let (records, mut page) = (Records::of(piece)?, PageWriter::new(TenantId(1), &KEY, Vec::new(), 0));
        let head = records.head;
        for (sequence, record) in (first..).zip(records) {
            if let Some(record) = record? {
                page.push(&record, Sequence(sequence));
            }
        }
        Ok((head, page.finish(Bytes::from).frames().to_vec()))
    }

    /// Packs frames as the version before the journal did.
    fn pack_old(frames: &[Frame]) -> Vec<u8> {
        let mut value = vec![OLD];
        value.extend((frames.len() as u32).to_be_bytes());
        value.extend(frames.iter().map(Frame::received_ms).min().unwrap_or_default().to_be_bytes());
        value.extend(frames.iter().map(Frame::received_ms).max().unwrap_or_default().to_be_bytes());
        frames.iter().for_each(|frame| legacy_record::tests::write(frame, &mut value));
        value
    }

    fn users(sub: &str) -> DeletedUsers {
        let mut users = DeletedUsers::default();
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
    fn a_commit_round_trips_in_pieces_of_at_most_64_kib() {
        let frames: Vec<_> = (1..=300).map(|s| message(1000, s)).collect();
        let packed = pack(&frames);
        assert!(packed.len() > 4 && packed.iter().all(|p| p.value.len() <= PACK_BYTES));
        let mut next = 1;
        for value in &packed {
            assert_eq!(value.first, Sequence(next));
            let (head, read) = unpack(&value.value, value.first.0).expect("sound");
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
    fn a_piece_never_spans_a_jump_in_the_sequence() {
        let packed = pack(&[message(10, 1), message(10, 2), message(10, 9)]);
        assert_eq!(packed.iter().map(|p| (p.first.0, p.head.count)).collect::<Vec<_>>(), [(1, 2), (9, 1)]);
    }

    /// The largest event a publisher may send, with every server-set field at its longest, fits. One far
    /// above the limit is refused and does not affect its neighbours.
    #[test]
    fn the_largest_event_fits_and_a_larger_is_left_out() {
        let id = "i".repeat(event::ID_BYTES);
        let head = format!(
            r#"{{"type":"message","agent_id":"{id}","user_id":"{id}","message_id":"{id}","content":""#
        );
        let body = "x".repeat(MAX_EVENT_BYTES - head.len() - 2);
        let biggest = frame(&format!("{head}{body}\"}}"), 2);
        assert!(Packer::fits(&biggest) && !Packer::fits(&message(MAX_VALUE, 2)));
        let packed = pack(&[message(10, 1), biggest, message(10, 3)]);
        assert_eq!(packed.len(), 3);
        assert!(packed.iter().all(|p| p.value.len() <= MAX_VALUE));

        let (mut packer, mut out) = (Packer::default(), Vec::new());
        packer.push(&message(10, 1), true, &mut |p| out.push(p)).expect("fits");
        assert_eq!(packer.push(&message(MAX_VALUE, 2), true, &mut |p| out.push(p)), Err(TooLarge));
        packer.push(&message(10, 3), true, &mut |p| out.push(p)).expect("fits");
        packer.finish(&mut |p| out.push(p));
        assert_eq!(out.iter().map(|p| p.first.0).collect::<Vec<_>>(), [1, 3]);
        assert!(out.iter().all(|p| unpack(&p.value, p.first.0).is_ok()));
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
        let erase = |value: &[u8], user: &str| without_users(value, &users(user)).expect("sound");
        assert_eq!(erase(&value, "eve"), None);
        let erased = erase(&value, "ann").expect("changed");
        let (head, frames) = unpack(&erased, 5).expect("sound");
        assert_eq!((head.count, head.last(Sequence(5))), (4, Sequence(8)));
        let left: Vec<_> = frames.iter().map(|f| (f.sequence().0, f.key(RoutingKey::User))).collect();
        assert_eq!(left, [(6, Some("bob")), (8, Some("anna"))]);
        assert_eq!(frames[0].sse(), of("bob", 6).sse());
        assert_eq!(erase(&erased, "ann"), None, "nothing is left to erase");
        let none = erase(&erase(&erased, "bob").expect("changed"), "anna").expect("changed");
        assert!(unpack(&none, 5).expect("sound").1.is_empty());
    }

    /// Presence events name the user but have no `user_id`: the whole organization sees them.
    #[test]
    fn presence_events_of_a_user_are_erased_with_the_user() {
        let of = |sub: &str, sequence| {
            let channel = presence_channel(sub);
            frame(&format!(r#"{{"type":"custom","channel":"{channel}","data":{{"sub":"{sub}"}}}}"#), sequence)
        };
        let value = pack(&[of("a/b", 5), of("a", 6), of("a/b", 7), of("b", 8)]).remove(0).value;
        let erased = without_users(&value, &users("a/b")).expect("sound").expect("changed");
        let (_, frames) = unpack(&erased, 5).expect("sound");
        let left: Vec<_> = frames.iter().map(|f| (f.sequence().0, f.key(RoutingKey::Channel))).collect();
        assert_eq!(left, [(6, Some("presence/a")), (8, Some("presence/b"))]);
    }

    /// Pieces of a data directory of the previous version are kept unchanged. They give the same frames and
    /// can be erased from.
    #[test]
    fn pieces_of_the_version_before_are_read_and_erased_from() {
        let chunk = r#"{"type":"stream_chunk","request_id":"r\"","chunk":"a","is_final":true,"index":4,"user_id":"ann"}"#;
        let frames = [message(10, 5), frame(chunk, 6), message(3, 7)];
        let old = pack_old(&frames);
        let (head, read) = unpack(&old, 5).expect("sound");
        assert_eq!((head, Head::read(&old)), (Head { count: 3, ..pack(&frames)[0].head }, Ok(head)));
        for (frame, read) in frames.iter().zip(&read) {
            assert_eq!(read.sse(), frame.sse());
            assert_eq!(RoutingKey::ALL.map(|key| read.key(key)), RoutingKey::ALL.map(|key| frame.key(key)));
        }
        let erased = without_users(&old, &users("ann")).expect("sound").expect("changed");
        let left: Vec<_> = unpack(&erased, 5).expect("sound").1.iter().map(|f| f.sequence().0).collect();
        assert_eq!((erased[0], left), (OLD_ERASED, vec![5, 7]));
    }

    /// An event that was queued for so long that its time does not fit into the open piece starts the next
    /// one.
    #[test]
    fn a_piece_never_spans_more_than_a_minute() {
        let at = |sequence, received_ms| {
            let mut frame = message(1, sequence);
            frame.seal(Sequence(sequence), received_ms, &KEY.encode(TenantId(1), Sequence(sequence)));
            frame
        };
        let packed = pack(&[at(1, 1_000), at(2, 66_535), at(3, 66_536), at(4, 66_535)]);
        let heads: Vec<_> = packed.iter().map(|p| (p.head.count, p.head.min_ms, p.head.max_ms)).collect();
        assert_eq!(heads, [(2, 1_000, 66_535), (1, 66_536, 66_536), (1, 66_535, 66_535)]);
        for piece in packed {
            assert_eq!(unpack(&piece.value, piece.first.0).expect("sound").0, piece.head);
        }
    }

    /// The bytes on disk equal those of `docs/storage.md`.
    #[test]
    fn the_example_of_the_storage_page_is_what_is_written() {
        let page = include_str!("../../../docs/storage.md");
        let example = page.split("received at the time that is its timestamp:\n\n```text\n").nth(1);
        let example = example.and_then(|rest| rest.split("```").next()).expect("the example");
        let bytes: Vec<u8> = example
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
            .collect();
        let event = frame(r#"{"type":"custom","channel":"a/b","data":1}"#, 7);
        assert_eq!(pack(std::slice::from_ref(&event))[0].value, bytes);
        let (_, read) = unpack(&bytes, 7).expect("sound");
        assert_eq!(read[0].sse_chunked(), event.sse_chunked());
    }

    #[test]
    fn a_damaged_piece_is_an_error_at_every_length() {
        let frames = [message(3, 1), message(3, 2)];
        for piece in [pack(&frames).remove(0).value, pack_old(&frames)] {
            for len in 0..piece.len() {
                assert!(unpack(&piece[..len], 1).is_err(), "cut to {len}");
            }
            let mut longer = piece.clone();
            longer.push(0);
            assert!(unpack(&longer, 1).is_err());
            let mut none = piece;
            none[1..5].fill(0);
            assert!(Head::read(&none).is_err());
        }
    }
}
