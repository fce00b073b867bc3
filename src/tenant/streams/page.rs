//! The events of streams after a position, made from their stored text: for readers that join late or fall
//! behind. They read text, not the log of everybody's traffic.
//!
//! * The events are those of the log, with neighbouring chunks of one stream and part merged. So a reader can
//!   go from here to the live events, and back, at any position.
//! * Events of several streams keep their order, and no merge spans an event of another one of them.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::state::{Stream, StreamFailure};
use crate::event::{Event, EventKind};
use crate::frame::Frame;
use crate::frame::merge::MERGED_BYTES;
use crate::ids::Sequence;
use crate::store::{ReadError, StreamText};
use crate::tenant::{Tenant, Tenants};

/// About how many bytes of text are read at once.
pub(super) const PAGE_TEXT: usize = 64 * 1024;

/// Events of streams after a position.
#[derive(Debug)]
pub struct StreamPage {
    /// The events, in order.
    pub frames: Vec<Arc<Frame>>,
    /// No event of the streams is between the last frame and this position.
    pub through: Sequence,
    /// Each stream in the order of the request; `None` if there is none.
    pub streams: Vec<Option<Stream>>,
}

/// A stream's events that are ready to be sent.
struct Source<'a> {
    stream: &'a Stream,
    text: StreamText,
    /// Where the next chunk is in `text`.
    at: usize,
    /// True if `text` is all there is.
    is_complete: bool,
    /// The events of the end.
    end: VecDeque<(Sequence, Event<'a>)>,
}

impl Tenants {
    /// Returns events of streams after `position`, as many as make up about [`PAGE_TEXT`] bytes of text.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stream_page(
        &self,
        tenant: &Arc<Tenant>,
        ids: &[&str],
        position: Sequence,
    ) -> Result<StreamPage, ReadError> {
        let (views, visible) = self.streams(tenant, ids).await?;
        let mut sources = Vec::with_capacity(views.len());
        for view in views.iter().flatten() {
            let (text, is_complete) = view.text_after(&self.store, tenant, position, PAGE_TEXT).await?;
            let end = end_events(&view.stream).into_iter().filter(|(sequence, _)| *sequence > position);
            sources.push(Source { stream: &view.stream, text, at: 0, is_complete, end: end.collect() });
        }
        let mut frames = Vec::new();
        let through = self.interleave(tenant, &mut sources, &mut frames);
        drop(sources);
        Ok(StreamPage {
            frames,
            through: through.unwrap_or(visible.max(position)),
            streams: views.into_iter().map(|view| view.map(|view| view.stream)).collect(),
        })
    }

    /// Makes the events of `sources` in order. Returns the position of the last one if there may be more.
    fn interleave(
        &self,
        tenant: &Tenant,
        sources: &mut [Source<'_>],
        frames: &mut Vec<Arc<Frame>>,
    ) -> Option<Sequence> {
        let mut bytes = 0;
        let mut last = None;
        loop {
            let next = sources.iter().enumerate().filter_map(|(at, source)| Some((source.next()?, at))).min();
            // A source whose text goes on in the next page ends this one.
            let goes_on = sources.iter().any(|source| source.at == source.text.len() && !source.is_complete);
            if goes_on || bytes >= PAGE_TEXT {
                return last;
            }
            let (_, at) = next?;
            let others = sources.iter().enumerate().filter(|(other, _)| *other != at);
            let until = others.filter_map(|(_, source)| source.next()).min().unwrap_or(Sequence(u64::MAX));
            let source = &mut sources[at];
            if source.at < source.text.len() {
                let (frame, taken) = self.merged(tenant, source, until);
                source.at += taken;
                bytes += frame.chunk_len();
                last = Some(frame.sequence());
                frames.push(Arc::new(frame));
            } else {
                let (sequence, event) = source.end.pop_front()?;
                let ended_ms = source.stream.ended_ms.unwrap_or_default();
                last = Some(sequence);
                frames.push(Arc::new(self.stream_frame(tenant, &event, sequence, ended_ms)));
            }
        }
    }

    /// Makes one event of the next chunks of a source, as many as are before `until` and in one part. Also
    /// returns how many.
    fn merged(&self, tenant: &Tenant, source: &Source<'_>, until: Sequence) -> (Frame, usize) {
        let mut chunks = source.text.chunks_from(source.at);
        let mut event = EventIds::of(source.stream).chunk();
        let (mut text, mut taken, mut last) = (String::new(), 0, Sequence::ZERO);
        if let Some(first) = chunks.next() {
            text.push_str(first.text);
            (event.index, last, taken) = (Some(first.index), first.sequence, 1);
            event.part = first.part.map(Cow::Borrowed);
            let mut bytes = escaped_len(first.text);
            for chunk in chunks {
                bytes += escaped_len(chunk.text);
                if chunk.part != first.part || chunk.sequence >= until || bytes > MERGED_BYTES {
                    break;
                }
                text.push_str(chunk.text);
                (event.index, last, taken) = (Some(chunk.index), chunk.sequence, taken + 1);
                event.first_index = Some(first.index);
            }
        }
        event.chunk = Some(Cow::Owned(text));
        (self.stream_frame(tenant, &event, last, source.text.received_ms()), taken)
    }

    fn stream_frame(&self, tenant: &Tenant, event: &Event<'_>, sequence: Sequence, at_ms: u64) -> Frame {
        let mut frame = Frame::encode(event, at_ms, 0);
        frame.seal(sequence, at_ms, &self.cursors().encode(tenant.id, sequence));
        frame
    }
}

/// Bytes of a text in JSON.
fn escaped_len(text: &str) -> usize {
    let len = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(len).sum()
}

impl Source<'_> {
    /// The sequence of the next event.
    fn next(&self) -> Option<Sequence> {
        let chunk = self.text.chunks_from(self.at).next().map(|chunk| chunk.sequence);
        chunk.or_else(|| self.end.front().map(|(sequence, _)| *sequence))
    }
}

/// The events of a stream's end, with their sequences; none while it is open.
fn end_events(stream: &Stream) -> Vec<(Sequence, Event<'_>)> {
    let Some(end) = stream.end() else { return Vec::new() };
    let events = EventIds::of(stream).end(stream.next_index, stream.error.as_ref());
    let first = end.0 + 1 - events.len() as u64;
    events.into_iter().enumerate().map(|(at, event)| (Sequence(first + at as u64), event)).collect()
}

/// The ids that a stream's events carry.
#[derive(Clone, Copy, Debug)]
pub(in crate::tenant) struct EventIds<'a> {
    pub(in crate::tenant) request_id: &'a str,
    pub(in crate::tenant) agent_id: Option<&'a str>,
    pub(in crate::tenant) user_id: Option<&'a str>,
}

impl<'a> EventIds<'a> {
    fn of(stream: &'a Stream) -> EventIds<'a> {
        EventIds {
            request_id: &stream.request_id,
            agent_id: stream.agent_id.as_deref(),
            user_id: stream.user_id.as_deref(),
        }
    }

    fn event(self, kind: EventKind) -> Event<'a> {
        let mut event = Event::empty(kind);
        event.request_id = Some(Cow::Borrowed(self.request_id));
        event.agent_id = self.agent_id.map(Cow::Borrowed);
        event.user_id = self.user_id.map(Cow::Borrowed);
        event
    }

    /// The event of a chunk, without its text and index.
    pub(in crate::tenant) fn chunk(self) -> Event<'a> {
        let mut event = self.event(EventKind::StreamChunk);
        event.is_final = Some(false);
        event
    }

    /// The events of the end: the error, if there is one, and the final chunk.
    pub(in crate::tenant) fn end(self, next_index: u64, error: Option<&'a StreamFailure>) -> Vec<Event<'a>> {
        let failure = error.map(|error| {
            let mut event = self.event(EventKind::Error);
            event.code = Some(Cow::Borrowed(&error.code));
            event.message = Some(Cow::Borrowed(&error.message));
            event
        });
        let mut last = self.chunk();
        last.chunk = Some(Cow::Borrowed(""));
        last.index = Some(next_index);
        last.is_final = Some(true);
        failure.into_iter().chain([last]).collect()
    }
}
