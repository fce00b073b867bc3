//! Response bodies: a complete one, one that is produced part by part, or the reading end of a subscriber's
//! queue. [`WriteProgress`] tracks which bytes of the responses of one connection or stream are not written
//! yet.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::connection::body_queue::BodyQueue;
use crate::connection::byte_shares::ByteClaim;
use crate::http::deadlines::RequestGuard;

/// Bytes that a body hands over at once on HTTP/2, where hyper buffers everything until the peer's window
/// accepts it.
const PIECE_BYTES: usize = 16 * 1024;

/// Tracks how far the responses of one HTTP/1 connection, or of one HTTP/2 stream, have been written. A
/// socket may be taken from hyper only when [`WriteProgress::is_clean`] returns true.
#[derive(Debug)]
pub struct WriteProgress {
    /// True if complete bodies are handed over in pieces of [`PIECE_BYTES`].
    in_pieces: bool,
    /// Number of responses whose body hyper still has.
    open: Cell<u32>,
    /// True if hyper's buffer may have bytes. Set when a body ends, cleared by the flush that follows.
    dirty: Cell<bool>,
    /// Bytes of bodies that hyper has received and not written.
    unsent: Cell<usize>,
    /// When `unsent` last fell, or rose from 0.
    progress: Cell<Instant>,
    /// Woken when `unsent` falls to 0.
    waker: RefCell<Option<Waker>>,
}

impl WriteProgress {
    /// A flow for an HTTP/1 connection.
    #[must_use]
    pub fn of_connection() -> Rc<WriteProgress> {
        WriteProgress::new(false)
    }
    /// A flow for an HTTP/2 stream.
    #[must_use]
    pub fn of_stream() -> Rc<WriteProgress> {
        WriteProgress::new(true)
    }
    fn new(in_pieces: bool) -> Rc<WriteProgress> {
        Rc::new(WriteProgress {
            in_pieces,
            open: Cell::new(0),
            dirty: Cell::new(false),
            unsent: Cell::new(0),
            progress: Cell::new(Instant::now()),
            waker: RefCell::default(),
        })
    }
    /// Returns true if hyper buffers nothing that the peer has not received.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.open.get() == 0 && !self.dirty.get()
    }
    /// Notes that hyper's buffer is empty. hyper flushes the transport only then.
    pub fn flushed(&self) {
        if self.open.get() == 0 {
            self.dirty.set(false);
        }
    }
    /// The time since which bytes wait to be written without progress; `None` if none wait.
    #[must_use]
    pub fn waits_since(&self) -> Option<Instant> {
        (self.unsent.get() > 0).then(|| self.progress.get())
    }
    /// Ready when no bytes wait to be written.
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent.get() == 0 {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn add_unsent(&self, bytes: usize) {
        if self.unsent.get() == 0 {
            self.progress.set(Instant::now());
        }
        self.unsent.set(self.unsent.get() + bytes);
    }
    fn on_sent(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.unsent.set(self.unsent.get().saturating_sub(bytes));
        self.progress.set(Instant::now());
        if self.unsent.get() == 0
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// A body could not be completed. hyper then closes the connection, or resets the HTTP/2 stream, so that the
/// peer cannot take the truncated body for a complete one.
#[derive(Debug, thiserror::Error)]
#[error("the response body could not be completed")]
pub struct IncompleteBody;

/// Produces a body part by part. A part is requested when the previous ones have been written.
pub trait BodyParts {
    /// The next part; `None` when the body is complete.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, IncompleteBody>>>;
}

enum BodyContent {
    /// A complete body, with the claim of its memory on the organization's share.
    Whole(Bytes, Option<Rc<ByteClaim>>),
    /// What remains of the current part, and a claim for the memory of one part.
    Parts(Box<dyn BodyParts>, Bytes, Rc<ByteClaim>),
    Queue(Rc<BodyQueue>),
}

/// A response body.
pub struct Body {
    content: BodyContent,
    flow: Rc<WriteProgress>,
    busy: Option<RequestGuard>,
}

impl Body {
    /// A complete body. Static bytes take no memory and need no claim.
    pub fn whole(bytes: Cow<'static, [u8]>, claim: Option<ByteClaim>, flow: &Rc<WriteProgress>) -> Body {
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Body::open(BodyContent::Whole(bytes, claim.map(Rc::new)), flow)
    }
    /// A body that `parts` produces. `claim` covers the part that is in memory.
    pub fn parts(parts: Box<dyn BodyParts>, claim: ByteClaim, flow: &Rc<WriteProgress>) -> Body {
        Body::open(BodyContent::Parts(parts, Bytes::new(), Rc::new(claim)), flow)
    }
    /// A body that reads what the pump writes into `queue`.
    pub fn queue(queue: Rc<BodyQueue>, flow: &Rc<WriteProgress>) -> Body {
        Body::open(BodyContent::Queue(queue), flow)
    }
    fn open(content: BodyContent, flow: &Rc<WriteProgress>) -> Body {
        flow.open.set(flow.open.get() + 1);
        Body { content, flow: flow.clone(), busy: None }
    }
    /// Removes everything that is to be sent, for the response to `HEAD`. A queue is closed.
    pub(crate) fn empty(&mut self) {
        if let BodyContent::Queue(queue) = &self.content {
            queue.drop_body();
        }
        self.content = BodyContent::Whole(Bytes::new(), None);
    }
    /// Marks the connection as busy until the body ends.
    pub(crate) fn keep(&mut self, busy: RequestGuard) {
        self.busy = Some(busy);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.flow.open.set(self.flow.open.get().saturating_sub(1));
        self.flow.dirty.set(true);
        if let BodyContent::Queue(queue) = &self.content {
            queue.drop_body();
        }
    }
}

/// Bytes on their way through hyper. They are counted until they are written or dropped.
pub struct BodyData {
    bytes: Bytes,
    flow: Rc<WriteProgress>,
    source: BodySource,
}

/// The owner of the bytes. It is kept alive until they are written.
#[expect(dead_code, reason = "a claim is held for its drop alone")]
enum BodySource {
    Whole(Option<Rc<ByteClaim>>),
    Queue(Rc<BodyQueue>),
}

impl BodyData {
    fn new(bytes: Bytes, flow: &Rc<WriteProgress>, source: BodySource) -> BodyData {
        flow.add_unsent(bytes.len());
        BodyData { bytes, flow: flow.clone(), source }
    }
    fn sent(&self, bytes: usize) {
        self.flow.on_sent(bytes);
        if let BodySource::Queue(queue) = &self.source {
            queue.sent(bytes);
        }
    }
}

impl Buf for BodyData {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }
    fn chunk(&self) -> &[u8] {
        &self.bytes
    }
    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.sent(bytes);
    }
}

impl Drop for BodyData {
    fn drop(&mut self) {
        self.sent(self.bytes.len());
    }
}

impl http_body::Body for Body {
    type Data = BodyData;
    type Error = IncompleteBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<BodyData>, IncompleteBody>>> {
        let Body { content, flow, .. } = &mut *self;
        let most = if flow.in_pieces { PIECE_BYTES } else { usize::MAX };
        let data = match content {
            BodyContent::Whole(bytes, _) if bytes.is_empty() => return Poll::Ready(None),
            BodyContent::Whole(bytes, claim) => {
                let piece = bytes.split_to(bytes.len().min(most));
                BodyData::new(piece, flow, BodySource::Whole(claim.clone()))
            }
            BodyContent::Parts(parts, part, claim) => {
                while part.is_empty() {
                    match ready!(parts.poll_part(cx)) {
                        Some(Ok(next)) => *part = next,
                        Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                        None => return Poll::Ready(None),
                    }
                }
                let piece = part.split_to(part.len().min(most));
                BodyData::new(piece, flow, BodySource::Whole(Some(claim.clone())))
            }
            BodyContent::Queue(queue) => match ready!(queue.poll(cx)) {
                Some(bytes) => BodyData::new(bytes, flow, BodySource::Queue(queue.clone())),
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, BodyContent::Whole(bytes, _) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            BodyContent::Parts(..) | BodyContent::Queue(_) => SizeHint::default(),
        }
    }
}
