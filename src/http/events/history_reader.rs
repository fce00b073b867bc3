//! Reads the events after a position and writes them as a response body, one page of the log or one batch of
//! the ring at a time.
//!
//! * A part is made when the previous one has been written. So a response keeps one part in memory, and
//!   nothing is read for a peer that does not read its response.
//! * Before each part the reader's rights are checked again. If they have ended, or the store fails, the body
//!   is cut off, so that the peer cannot take it for a complete one.
//! * Events are copied in their encoded form; none is encoded again. A reader who may see every event and has
//!   no filter receives slices of JSON pages that all such readers share, without a copy.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::connection::admission::PollPermit;
use crate::error_response::ErrorResponse;
use crate::event_ring::RingRead;
use crate::filter::Selection;
use crate::frame::Frame;
use crate::frame::control::{AFTER_BYTES, GapReason};
use crate::frame::frame_page::PageContents;
use crate::frame::json_page::JsonPage;
use crate::http::response::body::{BodyParts, IncompleteBody};
use crate::ids::Sequence;
use crate::store::{JsonEvents, LogRead, Page};
use crate::tenant::Tenant;
use crate::tenant::start::Gap;
use crate::worker::Worker;

/// Bytes up to which a response is built at once, so that its length is known. The last page or frame may
/// exceed it.
pub(crate) const WHOLE_BYTES: usize = 128 * 1024;
/// Bytes of one part of a longer response. The last page or frame may exceed it.
const PART_BYTES: usize = 32 * 1024;
/// Estimated memory of one response in parts: the longest part, and some of it again in hyper.
pub(crate) const CLAIM_BYTES: usize = 256 * 1024;
/// Maximum of bytes of events in one response. At least one event is sent.
const ANSWER_BYTES: usize = 4 << 20;

/// Slices of pages shorter than this are copied, because each slice is a chunk of its own on the wire and
/// keeps its whole page in memory.
const COPIED_BYTES: usize = 4 * 1024;

/// What follows the events of a response.
#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(crate) struct EventPageTail<'a> {
    /// Cursor for the next request. It is after everything that was examined, whether it matched or not.
    next_cursor: &'a str,
    /// Events that are missing before the first one, if any.
    gap: Option<GapView<'a>>,
    /// True if there were no more events at the time of the response.
    caught_up: bool,
    /// Always `true`.
    success: bool,
}

/// Events that are missing: fetch the state again.
#[derive(Serialize, ToSchema)]
#[schema(as = Gap)]
pub(crate) struct GapView<'a> {
    /// Cursor or time of the request, cut to 64 bytes.
    after: &'a str,
    /// Position at which the events continue.
    resumes_at: String,
    /// `trimmed`: continues from the oldest retained event, or after stored events that are damaged.
    /// `unknown_cursor`: continues with new events.
    reason: &'static str,
}

/// A reader of history: its rights, filter and limits.
pub(crate) struct HistoryReader {
    pub(crate) worker: Rc<Worker>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) principal: Arc<Principal>,
    /// A waiting poll is a connection until its response has been sent.
    #[expect(dead_code, reason = "a permit is held for its drop alone")]
    pub(crate) admitted: Option<PollPermit>,
    pub(crate) selection: Selection,
    /// Maximum of events.
    pub(crate) limit: usize,
}

/// How far a reader has come.
pub(crate) struct Progress {
    /// Everything up to this position was examined.
    pub(crate) position: Sequence,
    pub(crate) gap: Option<Gap>,
    /// True if there are no more events for now.
    pub(crate) caught_up: bool,
    /// Number of events found. `bytes` is the size of all of them.
    pub(crate) found: usize,
    bytes: usize,
    /// JSON that was produced and not sent yet.
    part: BodyPart,
}

/// Bytes of a response that are to be sent. Some are slices of pages shared with other readers.
#[derive(Default)]
pub(crate) struct BodyPart {
    slices: VecDeque<Bytes>,
    /// The bytes after the slices.
    tail: Vec<u8>,
    /// Total size of the slices, in bytes.
    sliced: usize,
}

impl BodyPart {
    fn len(&self) -> usize {
        self.sliced + self.tail.len()
    }

    fn push_slice(&mut self, slice: Bytes) {
        if slice.len() < COPIED_BYTES {
            return self.tail.extend_from_slice(&slice);
        }
        self.end_tail();
        self.sliced += slice.len();
        self.slices.push_back(slice);
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.sliced += self.tail.len();
            self.slices.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    /// Returns everything as slices.
    fn into_slices(mut self) -> VecDeque<Bytes> {
        self.end_tail();
        self.slices
    }

    /// Returns everything in one buffer.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        if self.slices.is_empty() {
            return self.tail;
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

/// The result of reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadOutcome {
    /// The response needs no more events.
    Ended,
    /// As many bytes were read as were requested, and there may be more.
    Enough,
}

impl Progress {
    /// Progress that starts right after `position`.
    pub(crate) fn at(position: Sequence, gap: Option<Gap>) -> Progress {
        let part = BodyPart { tail: b"{\"data\":[".to_vec(), ..BodyPart::default() };
        Progress { position, gap, caught_up: false, found: 0, bytes: 0, part }
    }

    /// Adds the events of `events` that match, until the part has `enough` bytes. None of them was examined
    /// before. Each item is a sequence with the event's JSON, or with `None` if the event does not match.
    /// Returns false when the response is full.
    fn take<'f>(
        &mut self,
        limit: usize,
        events: impl Iterator<Item = (Sequence, Option<&'f [u8]>)>,
        enough: usize,
    ) -> bool {
        for (sequence, json) in events {
            if let Some(json) = json {
                let is_full =
                    self.found == limit || (self.bytes + json.len() > ANSWER_BYTES && self.bytes > 0);
                if is_full {
                    return false;
                }
                if self.found > 0 {
                    self.part.tail.push(b',');
                }
                self.part.tail.extend_from_slice(json);
                self.bytes += json.len();
                self.found += 1;
            }
            self.position = sequence;
            if self.part.len() >= enough {
                break;
            }
        }
        true
    }

    /// Calls [`Progress::take`] for a whole page, without examining each event if all of them match.
    fn take_page(&mut self, reader: &HistoryReader, page: &Page) -> bool {
        let (whole, indexes) = page.whole();
        if !reader.selection.matches_all(whole.contents()) {
            return self.take_frames(reader, page.frames().iter(), usize::MAX);
        }
        let events =
            indexes.clone().filter_map(|at| Some((whole.events().sequence(at)?, Some(whole.json(at)))));
        // Framing an event takes more than a comma, so there is room for all of them.
        let left = reader.limit.saturating_sub(self.found);
        self.part
            .tail
            .reserve(whole.bytes_of(indexes.start..indexes.end.min(indexes.start.saturating_add(left))));
        self.take(reader.limit, events, usize::MAX)
    }

    /// Calls [`Progress::take`] for a whole page, for a reader who may see every event and has no filter, but
    /// gets chunks of parts that are not text only with `all_parts`.
    fn take_json(&mut self, limit: usize, events: &JsonEvents, all_parts: bool) -> bool {
        let JsonEvents { page, from } = events;
        let mut from = *from;
        while from < page.events().len() {
            let wanted = match all_parts {
                true => from..page.events().len(),
                false => page.next_without_other_parts(from),
            };
            self.examined(page, wanted.start);
            let left = limit.saturating_sub(self.found).min(wanted.len());
            let mut count = page.fitting(wanted.start, left, ANSWER_BYTES.saturating_sub(self.bytes));
            if self.bytes == 0 {
                count = count.max(left.min(1));
            }
            let taken = wanted.start..wanted.start + count;
            if count > 0 {
                self.part.push_slice(page.json(taken.clone(), self.found > 0));
                self.bytes += page.json_len(taken.clone());
                self.found += count;
                self.examined(page, taken.end);
            }
            if taken.end < wanted.end {
                return false;
            }
            from = wanted.end;
        }
        true
    }

    /// Sets the position after the events of a page before event `end`.
    fn examined(&mut self, page: &JsonPage, end: usize) {
        if let Some(last) = end.checked_sub(1).and_then(|last| page.events().sequence(last)) {
            self.position = self.position.max(last);
        }
    }

    fn take_frames<'f>(
        &mut self,
        reader: &HistoryReader,
        frames: impl Iterator<Item = &'f Frame>,
        enough: usize,
    ) -> bool {
        let matching = |frame: &'f Frame| reader.selection.matches(frame).then(|| frame.json());
        self.take(reader.limit, frames.map(|frame| (frame.sequence(), matching(frame))), enough)
    }
}

impl HistoryReader {
    /// Updates the rights to the current ones.
    ///
    /// # Errors
    /// 401: the credential has ended.
    pub(crate) fn renew(&mut self) -> Result<(), ErrorResponse> {
        self.selection.rights = self.worker.shared.auth.still_valid(&self.principal)?;
        Ok(())
    }

    /// Reads until the part has `enough` bytes, or until the response needs no more.
    ///
    /// # Errors
    /// 503: the store cannot be read.
    pub(crate) async fn read_on(
        &self,
        progress: &mut Progress,
        enough: usize,
    ) -> Result<ReadOutcome, ErrorResponse> {
        let (store, log) = (self.worker.shared.tenants.store(), self.tenant.log());
        let mut batch = Vec::new();
        progress.caught_up = false;
        while progress.part.len() < enough {
            batch.clear();
            let read = self.worker.read_ring(&self.tenant, progress.position, &mut batch);
            // A page is taken without examining each event only if the reader may see the events of all
            // users. The page itself tells which chunks are of parts that are not text.
            let contents = PageContents { has_users: true, has_other_parts: false };
            if matches!(read, RingRead::Behind { .. })
                && self.selection.matches_all(contents)
                && let Some(events) = store.read_json(log, progress.position).await?
            {
                if !progress.take_json(self.limit, &events, self.selection.filter.all_parts()) {
                    return Ok(ReadOutcome::Ended);
                }
                // Reading pages that are in memory never waits, so other tasks need this pause.
                tokio::task::yield_now().await;
                continue;
            }
            match read {
                RingRead::AtHead => {
                    progress.caught_up = true;
                    return Ok(ReadOutcome::Ended);
                }
                RingRead::Frames => {
                    if !progress.take_frames(self, batch.iter().map(|frame| &**frame), enough) {
                        return Ok(ReadOutcome::Ended);
                    }
                }
                RingRead::Behind { .. } => match store.read_log(log, progress.position).await? {
                    LogRead::Page(page) => {
                        // All of it is taken; it is not much, and it may be evicted before the next read.
                        if !progress.take_page(self, &page) {
                            return Ok(ReadOutcome::Ended);
                        }
                        tokio::task::yield_now().await; // see the pause above
                    }
                    // A response can declare one gap. The next response starts with the next one.
                    LogRead::Gap { .. } if progress.gap.is_some() && progress.found > 0 => {
                        return Ok(ReadOutcome::Ended);
                    }
                    LogRead::Gap { resumes_at, .. } => self.note_gap(progress, resumes_at),
                    // A new epoch has started: its first position is the end of the log.
                    LogRead::End { committed } => progress.position = progress.position.max(committed),
                },
            }
        }
        Ok(ReadOutcome::Enough)
    }

    fn note_gap(&self, progress: &mut Progress, resumes_at: Sequence) {
        let after = self.worker.shared.tenants.cursors().encode(self.tenant.id(), progress.position);
        match &mut progress.gap {
            Some(gap) => gap.resumes_at = resumes_at, // there is no event between the two gaps
            None => {
                progress.gap =
                    Some(Gap { after: after.as_str().into(), reason: GapReason::Trimmed, resumes_at });
            }
        }
        progress.position = resumes_at;
    }

    /// Returns the last part: the remaining events, and the fields that follow them.
    pub(crate) fn end(&self, progress: Progress) -> BodyPart {
        let Progress { mut part, gap, .. } = progress;
        let cursor = |position| self.worker.shared.tenants.cursors().encode(self.tenant.id(), position);
        let gap = gap.as_ref().map(|gap| GapView {
            after: &gap.after[..gap.after.floor_char_boundary(AFTER_BYTES)],
            resumes_at: cursor(gap.resumes_at).to_string(),
            reason: gap.reason.name(),
        });
        let next = cursor(progress.position);
        let rest =
            EventPageTail { next_cursor: next.as_str(), gap, caught_up: progress.caught_up, success: true };
        let rest = serde_json::to_vec(&rest).unwrap_or_default(); // texts and flags: this cannot fail
        part.tail.extend_from_slice(b"],");
        part.tail.extend_from_slice(rest.get(1..).unwrap_or_default()); // without its opening brace
        part
    }
}

/// The parts of a response that follow its first part.
pub(crate) struct RemainingBody {
    /// The unsent slices of the last part that was made.
    slices: VecDeque<Bytes>,
    /// The future that makes the next part; `None` if the last part was made or reading has failed.
    next: Option<Pin<Box<dyn Future<Output = Step>>>>,
}

enum Step {
    Part(BodyPart, Box<(HistoryReader, Progress)>),
    Last(BodyPart),
    Broken,
}

impl RemainingBody {
    pub(crate) fn new(reader: HistoryReader, progress: Progress) -> RemainingBody {
        let first = Box::new((reader, progress));
        RemainingBody { slices: VecDeque::new(), next: Some(Box::pin(async move { part_of(first) })) }
    }
}

/// Hands over what was read.
fn part_of(mut answer: Box<(HistoryReader, Progress)>) -> Step {
    // Space for the next part is allocated when it is read, because this part stays in memory until it has
    // been written.
    Step::Part(std::mem::take(&mut answer.1.part), answer)
}

async fn step(mut answer: Box<(HistoryReader, Progress)>) -> Step {
    let (reader, progress) = &mut *answer;
    if reader.renew().is_err() {
        tracing::debug!("cut off a response: the reader's credential has ended");
        return Step::Broken;
    }
    match reader.read_on(progress, PART_BYTES).await {
        Ok(ReadOutcome::Enough) => part_of(answer),
        Ok(ReadOutcome::Ended) => {
            let (reader, progress) = *answer;
            Step::Last(reader.end(progress))
        }
        Err(refusal) => {
            tracing::debug!(code = refusal.code, "cut off a response: the log could not be read");
            Step::Broken
        }
    }
}

impl BodyParts for RemainingBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncompleteBody>>> {
        loop {
            if let Some(slice) = self.slices.pop_front() {
                return Poll::Ready(Some(Ok(slice)));
            }
            let Some(next) = &mut self.next else { return Poll::Ready(None) };
            let step_done = ready!(next.as_mut().poll(cx));
            self.next = None;
            self.slices = match step_done {
                Step::Part(part, answer) => {
                    self.next = Some(Box::pin(step(answer)));
                    part.into_slices()
                }
                Step::Last(part) => part.into_slices(),
                Step::Broken => return Poll::Ready(Some(Err(IncompleteBody))),
            };
        }
    }
}
