//! Reads what follows a position and writes it as the body of an answer, a page of the log or a batch of the ring at a time.
//!
//! * A part is made when the one before has been written. So an answer holds one part in memory, and a peer that does not read it is
//!   not read for.
//! * Before each part the reader's rights are looked up. When they have ended, or the store fails, the body breaks off: what was sent
//!   cannot be taken for a whole answer.
//! * Events are spliced in as they were encoded, so that none is encoded again. A reader who may see every event and asks for all is sent
//!   slices of pages of JSON that all such readers share, without copying them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::connection::admission::Polled;
use crate::filter::Selection;
use crate::frame::Frame;
use crate::frame::control::{AFTER_BYTES, GapReason};
use crate::ids::Sequence;
use crate::outcome::Refusal;
use crate::ring::Read;
use crate::store::{JsonEvents, LogRead, Page};
use crate::tenant::Tenant;
use crate::tenant::start::Gap;
use crate::worker::Worker;

use super::body::{Broken, Parts};

/// Bytes that an answer is made of at once, so that its length is said; longer by what the last page or frame adds to it.
pub(super) const WHOLE_BYTES: usize = 128 * 1024;
/// Bytes of a part of a longer answer; longer likewise.
const PART_BYTES: usize = 32 * 1024;
/// What the parts of one answer take in memory, about: the longest part, and some of it again in hyper.
pub(super) const CLAIM_BYTES: usize = 256 * 1024;
/// Bytes of events in one answer; at least one event goes.
const ANSWER_BYTES: usize = 4 << 20;

/// Slices of pages that are shorter are copied: each slice is a chunk of its own on the wire, and holds all of its page in memory.
const COPIED_BYTES: usize = 4 * 1024;

/// What follows the events of an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(super) struct Rest<'a> {
    /// Where the next question goes on: past all that was looked at, whether it matched or not.
    next_cursor: &'a str,
    /// What is missing before the first event.
    gap: Option<GapView<'a>>,
    /// Whether there is nothing more by now.
    caught_up: bool,
    /// Always `true`.
    success: bool,
}

/// Events that are missing: fetch the state anew.
#[derive(Serialize, ToSchema)]
#[schema(as = Gap)]
pub(super) struct GapView<'a> {
    /// The cursor or time that was asked for, cut to 64 bytes.
    after: &'a str,
    /// Where it goes on.
    resumes_at: String,
    /// `trimmed`: from the oldest event that is kept, or the first after stored events that are damaged; `unknown_cursor`: from now on.
    reason: &'static str,
}

/// Who reads, and what for.
pub(super) struct Reader {
    pub(super) worker: Rc<Worker>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) principal: Arc<Principal>,
    /// A waiting poll is a connection, until its answer has been sent.
    #[expect(dead_code, reason = "a place in the limits is held for its drop alone")]
    pub(super) admitted: Option<Polled>,
    pub(super) selection: Selection,
    /// Most events.
    pub(super) limit: usize,
}

/// How far a reader has got.
pub(super) struct Progress {
    /// Everything up to here was looked at.
    pub(super) position: Sequence,
    pub(super) gap: Option<Gap>,
    /// Nothing more is there by now.
    pub(super) caught_up: bool,
    /// Events found, and the bytes of all of them.
    pub(super) found: usize,
    bytes: usize,
    /// What was found and has not been sent, as JSON.
    part: Part,
}

/// Bytes of an answer that are to be sent, some of them slices of pages that others read too.
#[derive(Default)]
pub(super) struct Part {
    slices: VecDeque<Bytes>,
    /// What follows the slices.
    tail: Vec<u8>,
    /// Bytes of the slices.
    sliced: usize,
}

impl Part {
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

    /// All of it, as slices.
    fn into_slices(mut self) -> VecDeque<Bytes> {
        self.end_tail();
        self.slices
    }

    /// All of it in one buffer.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        if self.slices.is_empty() {
            return self.tail;
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

/// What reading came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// There is nothing more to read for the answer.
    Ended,
    /// There is as much as was wanted, and there may be more.
    Enough,
}

impl Progress {
    /// Before the first event after `position`.
    pub(super) fn at(position: Sequence, gap: Option<Gap>) -> Progress {
        let part = Part { tail: b"{\"data\":[".to_vec(), ..Part::default() };
        Progress { position, gap, caught_up: false, found: 0, bytes: 0, part }
    }

    /// Adds those of `events` that are asked for, none of which was looked at before, until the part has `enough` bytes. An event is its
    /// sequence and its JSON, or `None` in its place where it is not asked for. Returns false when the answer is full.
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

    /// [`Progress::take`] of all of a page, without a look at each event where all are asked for.
    fn take_page(&mut self, reader: &Reader, page: &Page) -> bool {
        let (whole, places) = page.whole();
        if !reader.selection.matches_all(whole.has_users()) {
            return self.take_frames(reader, page.frames().iter(), usize::MAX);
        }
        let events =
            places.clone().filter_map(|at| Some((whole.events().sequence(at)?, Some(whole.json(at)))));
        // What frames an event takes more than its comma, so there is room for all.
        let left = reader.limit.saturating_sub(self.found);
        self.part
            .tail
            .reserve(whole.bytes_of(places.start..places.end.min(places.start.saturating_add(left))));
        self.take(reader.limit, events, usize::MAX)
    }

    /// [`Progress::take`] of all of a page, for a reader who may see every event and asks for all.
    fn take_json(&mut self, limit: usize, JsonEvents { page, from }: &JsonEvents) -> bool {
        let left = limit.saturating_sub(self.found);
        let mut count = page.fitting(*from, left, ANSWER_BYTES.saturating_sub(self.bytes));
        if self.bytes == 0 && left > 0 {
            count = count.max(1);
        }
        let places = *from..from.saturating_add(count).min(page.events().len());
        if let Some(last) = places.end.checked_sub(1).filter(|last| last >= from) {
            self.part.push_slice(page.json(places.clone(), self.found > 0));
            self.bytes += page.json_len(places.clone());
            self.found += places.len();
            self.position = page.events().sequence(last).unwrap_or(self.position);
        }
        places.end == page.events().len()
    }

    fn take_frames<'f>(
        &mut self,
        reader: &Reader,
        frames: impl Iterator<Item = &'f Frame>,
        enough: usize,
    ) -> bool {
        let asked = |frame: &'f Frame| reader.selection.matches(frame).then(|| frame.json());
        self.take(reader.limit, frames.map(|frame| (frame.sequence(), asked(frame))), enough)
    }
}

impl Reader {
    /// Takes on today's rights.
    ///
    /// # Errors
    /// 401: the credential has ended.
    pub(super) fn renew(&mut self) -> Result<(), Refusal> {
        self.selection.rights = self.worker.shared.auth.still_valid(&self.principal)?;
        Ok(())
    }

    /// Reads on until what is to be sent has `enough` bytes, or there is nothing more for this answer.
    ///
    /// # Errors
    /// 503: the store cannot be read.
    pub(super) async fn read_on(&self, progress: &mut Progress, enough: usize) -> Result<Outcome, Refusal> {
        let (store, log) = (self.worker.shared.tenants.store(), self.tenant.log());
        let mut batch = Vec::new();
        progress.caught_up = false;
        while progress.part.len() < enough {
            batch.clear();
            let read = self.worker.read_ring(&self.tenant, progress.position, &mut batch);
            // A reader is given pages without a look at each event only if it may see the events of all users.
            if matches!(read, Read::Behind { .. })
                && self.selection.matches_all(true)
                && let Some(events) = store.read_json(log, progress.position).await?
            {
                if !progress.take_json(self.limit, &events) {
                    return Ok(Outcome::Ended);
                }
                // Pages that are in memory already are read without a pause otherwise.
                tokio::task::yield_now().await;
                continue;
            }
            match read {
                Read::AtHead => {
                    progress.caught_up = true;
                    return Ok(Outcome::Ended);
                }
                Read::Frames => {
                    if !progress.take_frames(self, batch.iter().map(|frame| &**frame), enough) {
                        return Ok(Outcome::Ended);
                    }
                }
                Read::Behind { .. } => match store.read_log(log, progress.position).await? {
                    LogRead::Page(page) => {
                        // All of it, which is not much: it may be gone from memory at the next look.
                        if !progress.take_page(self, &page) {
                            return Ok(Outcome::Ended);
                        }
                        tokio::task::yield_now().await; // as above
                    }
                    // An answer has room for one gap; the next answer begins with the next one.
                    LogRead::Gap { .. } if progress.gap.is_some() && progress.found > 0 => {
                        return Ok(Outcome::Ended);
                    }
                    LogRead::Gap { resumes_at, .. } => self.note_gap(progress, resumes_at),
                    // A new epoch has begun: its first position is the log's end.
                    LogRead::End { committed } => progress.position = progress.position.max(committed),
                },
            }
        }
        Ok(Outcome::Enough)
    }

    fn note_gap(&self, progress: &mut Progress, resumes_at: Sequence) {
        let after = self.worker.shared.tenants.cursors().encode(self.tenant.id(), progress.position);
        match &mut progress.gap {
            Some(gap) => gap.resumes_at = resumes_at, // nothing lies between the two
            None => {
                progress.gap =
                    Some(Gap { after: after.as_str().into(), reason: GapReason::Trimmed, resumes_at });
            }
        }
        progress.position = resumes_at;
    }

    /// The last part: what is left, and what follows the events.
    pub(super) fn end(&self, progress: Progress) -> Part {
        let Progress { mut part, gap, .. } = progress;
        let cursor = |position| self.worker.shared.tenants.cursors().encode(self.tenant.id(), position);
        let gap = gap.as_ref().map(|gap| GapView {
            after: &gap.after[..gap.after.floor_char_boundary(AFTER_BYTES)],
            resumes_at: cursor(gap.resumes_at).to_string(),
            reason: gap.reason.name(),
        });
        let next = cursor(progress.position);
        let rest = Rest { next_cursor: next.as_str(), gap, caught_up: progress.caught_up, success: true };
        let rest = serde_json::to_vec(&rest).unwrap_or_default(); // texts and flags: nothing can fail
        part.tail.extend_from_slice(b"],");
        part.tail.extend_from_slice(rest.get(1..).unwrap_or_default()); // without its brace
        part
    }
}

/// What is left of an answer whose first part is read.
pub(super) struct RestOfAnswer {
    /// What is left of the part that was made last.
    slices: VecDeque<Bytes>,
    /// `None`: the last part was made, or could not be.
    next: Option<Pin<Box<dyn Future<Output = Step>>>>,
}

enum Step {
    Part(Part, Box<(Reader, Progress)>),
    Last(Part),
    Broken,
}

impl RestOfAnswer {
    pub(super) fn new(reader: Reader, progress: Progress) -> RestOfAnswer {
        let first = Box::new((reader, progress));
        RestOfAnswer { slices: VecDeque::new(), next: Some(Box::pin(async move { part_of(first) })) }
    }
}

/// Hands over what was read.
fn part_of(mut answer: Box<(Reader, Progress)>) -> Step {
    // Room for the next part is made when it is read: this one is still in memory until it has been written.
    Step::Part(std::mem::take(&mut answer.1.part), answer)
}

async fn step(mut answer: Box<(Reader, Progress)>) -> Step {
    let (reader, progress) = &mut *answer;
    if reader.renew().is_err() {
        tracing::debug!("an answer broke off: its reader's credential ended");
        return Step::Broken;
    }
    match reader.read_on(progress, PART_BYTES).await {
        Ok(Outcome::Enough) => part_of(answer),
        Ok(Outcome::Ended) => {
            let (reader, progress) = *answer;
            Step::Last(reader.end(progress))
        }
        Err(refusal) => {
            tracing::debug!(code = refusal.code, "an answer broke off: the log could not be read");
            Step::Broken
        }
    }
}

impl Parts for RestOfAnswer {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
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
                Step::Broken => return Poll::Ready(Some(Err(Broken))),
            };
        }
    }
}
