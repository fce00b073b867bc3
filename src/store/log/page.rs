//! Pages: consecutive events of a tenant's log, decoded into one buffer that all their readers share.
//!
//! * A page holds at most [`PAGE_BYTES`] plus one event. The buffers of pages without readers are reused, and
//!   at most [`IDLE_BUFFERS`] are kept for that. So everything read from the disk passes through the same
//!   memory, however much it is.
//! * Every stretch holds the position from which it is complete, so that it serves a reader at any position
//!   in it.
//! * This module knows neither the cache nor the disk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::CursorKey;
use crate::frame::Frame;
use crate::frame::frame_page::FramePage;
use crate::frame::json_page::{JsonPage, JsonWriter};
use crate::frame::page_writer::PageWriter;
use crate::frame::record::{BadRecord, Record};
use crate::ids::{Sequence, TenantId};
use crate::store::format::piece::{Head, Records};
use crate::sync::Mutex;

/// Size at which a page ends, in bytes.
pub(super) const PAGE_BYTES: usize = 128 * 1024;
/// Estimated bytes that a frame has beyond its record. It must not be too high: it determines how many events
/// are expected in a page.
const FRAME_OVERHEAD: usize = 96;
/// Limit on idle buffers that are kept for reuse, 2 MiB in total.
const IDLE_BUFFERS: usize = 16;

/// Consecutive committed events of one tenant after some position, at least one.
#[derive(Clone, Debug)]
pub struct Page {
    decoded: Arc<FramePage>,
    /// Index of the first frame that was asked for.
    from: usize,
}

impl Page {
    /// The part of `decoded` after `after`; `None` if it is empty.
    pub(crate) fn after(decoded: &Arc<FramePage>, after: Sequence) -> Option<Page> {
        let from = decoded.events().count_to(after);
        (from < decoded.events().len()).then(|| Page { decoded: decoded.clone(), from })
    }

    /// The events, in order.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.decoded.frames().get(self.from..).unwrap_or_default()
    }

    /// The page that holds the events, and their index range in it, for readers that need not look at each
    /// event.
    #[must_use]
    pub fn whole(&self) -> (&Arc<FramePage>, Range<usize>) {
        (&self.decoded, self.from..self.decoded.events().len())
    }
}

/// The events of a [`JsonPage`] after some position, at least one. They are not filtered by user, so only a
/// reader that may see every event of the organization may get them.
#[derive(Clone, Debug)]
pub struct JsonEvents {
    /// The page that holds the events.
    pub page: Arc<JsonPage>,
    /// Index of the first event in the page.
    pub from: usize,
}

impl JsonEvents {
    /// The part of `page` after `after`; `None` if it is empty.
    pub(crate) fn after(page: &Arc<JsonPage>, after: Sequence) -> Option<JsonEvents> {
        let from = page.events().count_to(after);
        (from < page.events().len()).then(|| JsonEvents { page: page.clone(), from })
    }
}

/// A form in which pages of the log are cached.
pub(crate) trait PageForm: Sized {
    /// Builds a page from records.
    type Writer;

    fn writer(tenant: TenantId, cursors: &CursorKey, buf: Vec<u8>, events: usize) -> Self::Writer;
    /// Adds a record as event `sequence`.
    fn push(writer: &mut Self::Writer, record: &Record<'_>, sequence: Sequence);
    /// Bytes so far, and the sequence of the last event.
    fn so_far(writer: &Self::Writer) -> (usize, Option<Sequence>);
    fn finish(writer: Self::Writer, share: impl FnOnce(Vec<u8>) -> Bytes) -> Self;
    /// The sequence of the last event.
    fn last(&self) -> Option<Sequence>;
    /// Bytes of the buffer, and of other memory.
    fn bytes(&self) -> (usize, usize);
}

macro_rules! page_form {
    ($page:ty, $writer:ty) => {
        impl PageForm for $page {
            type Writer = $writer;

            fn writer(tenant: TenantId, cursors: &CursorKey, buf: Vec<u8>, events: usize) -> $writer {
                <$writer>::new(tenant, cursors, buf, events)
            }
            fn push(writer: &mut $writer, record: &Record<'_>, sequence: Sequence) {
                writer.push(record, sequence);
            }
            fn so_far(writer: &$writer) -> (usize, Option<Sequence>) {
                writer.so_far()
            }
            fn finish(writer: $writer, share: impl FnOnce(Vec<u8>) -> Bytes) -> $page {
                writer.finish(share)
            }
            fn last(&self) -> Option<Sequence> {
                self.events().last()
            }
            fn bytes(&self) -> (usize, usize) {
                (self.bytes_len(), self.size())
            }
        }
    };
}

page_form!(FramePage, PageWriter);
page_form!(JsonPage, JsonWriter);

/// Estimated memory of a page, in bytes.
pub(crate) fn size(page: &impl PageForm) -> usize {
    let (bytes, more) = page.bytes();
    // A reused buffer is as large as the largest page that it held.
    let buffer = if bytes > PAGE_BYTES / 2 { bytes.max(PAGE_BYTES) } else { bytes };
    buffer + more
}

/// A page, and the position from which it is complete.
#[derive(Debug)]
pub(crate) struct PageSpan<P = FramePage> {
    /// No event lies between this position and the first one of the page.
    pub(crate) from: Sequence,
    pub(crate) page: Arc<P>,
}

impl<P> Clone for PageSpan<P> {
    fn clone(&self) -> PageSpan<P> {
        PageSpan { from: self.from, page: self.page.clone() }
    }
}

/// Reusable buffers of pages. A buffer returns here when the last reader of its page is dropped.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    idle: Mutex<Vec<Vec<u8>>>,
}

/// A buffer that returns to the pool.
struct PooledBuffer {
    buf: Vec<u8>,
    to: Arc<BufferPool>,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.to.put(std::mem::take(&mut self.buf));
    }
}

impl BufferPool {
    /// Returns an empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.idle.lock().pop().unwrap_or_else(|| Vec::with_capacity(PAGE_BYTES))
    }

    pub(crate) fn put(&self, mut buf: Vec<u8>) {
        buf.clear();
        buf.shrink_to(PAGE_BYTES); // one large event may have grown it
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_BUFFERS {
            idle.push(buf);
        }
    }

    /// The bytes of a complete page: in its own buffer, or copied out of it if the buffer is much too large.
    fn share(self: &Arc<Self>, buf: Vec<u8>) -> Bytes {
        if buf.len() > PAGE_BYTES / 2 {
            return Bytes::from_owner(PooledBuffer { buf, to: self.clone() });
        }
        let bytes = Bytes::copy_from_slice(&buf);
        self.put(buf);
        bytes
    }
}

/// Builds pages from the pieces of one tenant's log, given in order.
pub(crate) struct PageReader<'k, P: PageForm = FramePage> {
    buffers: &'k Arc<BufferPool>,
    tenant: TenantId,
    cursors: &'k CursorKey,
    /// The position from which the page in progress is complete.
    from: Sequence,
    page: Option<P::Writer>,
    done: Vec<PageSpan<P>>,
}

impl<'k, P: PageForm> PageReader<'k, P> {
    /// Starts a reader for pieces that follow `after`, or whose first piece holds it: no event lies between
    /// `after` and the events that follow in these pieces.
    pub(crate) fn new(
        buffers: &'k Arc<BufferPool>,
        tenant: TenantId,
        cursors: &'k CursorKey,
        after: Sequence,
    ) -> PageReader<'k, P> {
        PageReader { buffers, tenant, cursors, from: after, page: None, done: Vec::new() }
    }

    /// Adds the piece that starts at `first`.
    ///
    /// # Errors
    /// [`BadRecord`] if it is damaged, or if its head differs from the `head` in its row.
    pub(crate) fn add(&mut self, piece: &[u8], first: Sequence, head: Head) -> Result<(), BadRecord> {
        let records = Records::of(piece)?;
        if records.head != head {
            return Err(BadRecord("head"));
        }
        let record_len = piece.len() / head.count.max(1) as usize;
        // A piece is read completely, so everything from its beginning is present.
        self.from = self.from.min(Sequence(first.0.saturating_sub(1)));
        for (at, record) in (0..).zip(records) {
            let Some(record) = record? else { continue };
            let sequence = Sequence(first.0.checked_add(at).ok_or(BadRecord("sequence"))?);
            if self.page.as_ref().is_some_and(|page| P::so_far(page).0 + record.frame_len() > PAGE_BYTES) {
                self.close();
            }
            let (tenant, cursors) = (self.tenant, self.cursors);
            let page = self.page.get_or_insert_with(|| {
                let events = PAGE_BYTES / (record_len + FRAME_OVERHEAD);
                P::writer(tenant, cursors, self.buffers.take(), events)
            });
            P::push(page, &record, sequence);
        }
        Ok(())
    }

    /// The last event so far.
    pub(crate) fn last(&self) -> Option<Sequence> {
        let in_progress = self.page.as_ref().and_then(|page| P::so_far(page).1);
        in_progress.or_else(|| self.done.last().and_then(|done| done.page.last()))
    }

    /// The pages, in order.
    pub(crate) fn finish(mut self) -> Vec<PageSpan<P>> {
        self.close();
        std::mem::take(&mut self.done)
    }

    fn close(&mut self) {
        let Some(page) = self.page.take() else { return };
        let page = Arc::new(P::finish(page, |buf| self.buffers.share(buf)));
        let from = self.from;
        self.from = page.last().unwrap_or(from);
        self.done.push(PageSpan { from, page });
    }
}

/// Decodes the events of one piece that starts at `first`. For fuzzers and benches, which have only its
/// bytes.
///
/// # Errors
/// [`BadRecord`] if it is damaged.
#[doc(hidden)]
pub fn decode_piece(
    piece: &[u8],
    first: Sequence,
    tenant: TenantId,
    cursors: &CursorKey,
) -> Result<Vec<Page>, BadRecord> {
    let buffers = Arc::default();
    let mut reader: PageReader<'_> = PageReader::new(&buffers, tenant, cursors, first);
    reader.add(piece, first, Head::read(piece)?)?;
    let page = |stretch: PageSpan| Page { decoded: stretch.page, from: 0 };
    Ok(reader.finish().into_iter().map(page).collect())
}

/// Packs consecutive events as one commit does. For fuzzers and benches.
#[doc(hidden)]
#[must_use]
pub fn encode_pieces(frames: &[Frame]) -> Vec<(Sequence, Vec<u8>)> {
    let (mut packer, mut pieces) = (crate::store::format::piece::Packer::default(), Vec::new());
    for frame in frames {
        // Too large a frame is left out.
        let _ = packer.push(frame, true, &mut |piece| pieces.push((piece.first, piece.value)));
    }
    packer.finish(&mut |piece| pieces.push((piece.first, piece.value)));
    pieces
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::frame::tests::{KEY, frame};
    use crate::store::format::piece::{Packed, Packer};
    use crate::transport::WireFormat;

    /// Pieces of events with `sequences`, which need not be consecutive.
    pub(in crate::store) fn pieces(sequences: impl IntoIterator<Item = u64>, len: usize) -> Vec<Packed> {
        let (mut packer, mut pieces) = (Packer::default(), Vec::new());
        let event = format!(r#"{{"type":"custom","channel":"c","data":"{}"}}"#, "x".repeat(len));
        for sequence in sequences {
            packer.push(&frame(&event, sequence), true, &mut |piece| pieces.push(piece)).expect("fits");
        }
        packer.finish(&mut |piece| pieces.push(piece));
        pieces
    }

    pub(in crate::store) fn stretches(
        from: u64,
        sequences: impl IntoIterator<Item = u64>,
        len: usize,
    ) -> Vec<PageSpan> {
        let buffers = Arc::default();
        let mut reader: PageReader<'_> = PageReader::new(&buffers, TenantId(1), &KEY, Sequence(from));
        for piece in pieces(sequences, len) {
            reader.add(&piece.value, piece.first, piece.head).expect("sound");
        }
        reader.finish()
    }

    #[test]
    fn consecutive_pages_hold_every_event() {
        let pages = stretches(3, (5..=400).chain(500..=600), 1_000);
        let mut next = (5..=400).chain(500..=600);
        let mut from = Sequence(3);
        for stretch in &pages {
            assert_eq!(stretch.from, from);
            assert!(stretch.page.bytes_len() <= PAGE_BYTES);
            for frame in stretch.page.frames() {
                assert_eq!(Some(frame.sequence().0), next.next());
            }
            from = stretch.page.last().expect("not empty");
        }
        assert_eq!((next.next(), pages.len()), (None, 5));
    }

    /// A reader in the middle of a page gets the rest of it as one slice, without copying.
    #[test]
    fn the_frames_of_a_page_are_one_slice() {
        let stretch = &stretches(0, 1..=20, 10)[0];
        let page = Page::after(&stretch.page, Sequence(7)).expect("events follow");
        assert_eq!(page.frames()[0].sequence(), Sequence(8));
        let mut copied = Vec::new();
        page.frames()[2..9]
            .iter()
            .for_each(|frame| frame.encoded(WireFormat::SseChunked).append_to(&mut copied));
        let (whole, places) = page.whole();
        assert_eq!(places, 7..20);
        assert_eq!(whole.sse_chunked(9..16), Some(&copied[..]));
        assert_eq!((whole.sse_chunked(2..2), whole.sse_chunked(0..21)), (None, None));
        assert!(Page::after(&stretch.page, Sequence(20)).is_none());
    }

    /// A key that had to be escaped is stored between two frames, so they are not one slice.
    #[test]
    fn the_bytes_between_two_frames_are_not_sent() {
        let buffers = Arc::default();
        let mut reader: PageReader<'_> = PageReader::new(&buffers, TenantId(1), &KEY, Sequence(0));
        let (mut packer, mut pieces) = (Packer::default(), Vec::new());
        for (sequence, agent) in [(1, "a"), (2, "a"), (3, "\\\""), (4, "a")] {
            let event = format!(r#"{{"type":"message","agent_id":"{agent}","content":"x"}}"#);
            packer.push(&frame(&event, sequence), true, &mut |piece| pieces.push(piece)).expect("fits");
        }
        packer.finish(&mut |piece| pieces.push(piece));
        reader.add(&pieces[0].value, pieces[0].first, pieces[0].head).expect("sound");
        let page = &reader.finish()[0].page;
        assert!(page.sse_chunked(0..2).is_some() && page.sse_chunked(2..4).is_some());
        assert!(page.sse_chunked(1..3).is_none() && page.sse_chunked(0..4).is_none());
    }

    #[test]
    fn the_buffer_of_a_page_is_used_again_when_its_last_reader_has_gone() {
        let buffers: Arc<BufferPool> = Arc::default();
        let read = || {
            let mut reader: PageReader<'_> = PageReader::new(&buffers, TenantId(1), &KEY, Sequence(0));
            for piece in pieces(1..=100, 1_000) {
                reader.add(&piece.value, piece.first, piece.head).expect("sound");
            }
            reader.finish().remove(0).page
        };
        let page = read();
        assert_eq!(buffers.idle.lock().len(), 0);
        let held = page.frames()[3].clone();
        drop(page);
        assert_eq!(buffers.idle.lock().len(), 0, "a reader still holds a frame of it");
        drop(held);
        assert_eq!(buffers.idle.lock().len(), 1);
        let _page = read();
        assert_eq!(buffers.idle.lock().len(), 0);
    }

    /// The row says what its piece holds. Another piece in its place would give events other sequences.
    #[test]
    fn a_piece_that_is_not_what_its_row_says_is_refused() {
        let buffers = Arc::default();
        let mut reader: PageReader<'_> = PageReader::new(&buffers, TenantId(1), &KEY, Sequence(0));
        let piece = pieces(1..=3, 10).remove(0);
        let head = Head { count: 2, ..piece.head };
        assert_eq!(reader.add(&piece.value, piece.first, head), Err(BadRecord("head")));
        assert_eq!(reader.add(&piece.value, Sequence(u64::MAX - 1), piece.head), Err(BadRecord("sequence")));
    }
}
