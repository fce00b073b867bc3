//! The queue of bytes between the worker and an HTTP response body: SSE over HTTP/2, where no socket can be
//! taken over.
//!
//! * Both ends are on one worker. The queue blocks like a full socket: it takes what fits into [`BODY_BYTES`]
//!   and notifies the worker when it can take more.
//! * Bytes count until the HTTP connection has written them, so a stream that its client does not read holds
//!   at most [`BODY_BYTES`].
//! * The bytes count against the organization's share of unread bytes. When that share is used up, a stream
//!   still gets the bytes that a [`ByteClaim`] does not count, so a stream that is read continues, only slower.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::WriteOutcome;
use super::byte_shares::{ByteClaim, FREE_BYTES};

/// The most bytes of a body that wait to be written before its writer blocks.
pub const BODY_BYTES: usize = 32 * 1024;

/// The queue of one response body.
pub struct BodyQueue {
    /// Bytes written by the worker and not yet taken by the body.
    queued: RefCell<Vec<u8>>,
    /// Number of bytes in `queued` and of those taken but not yet sent; at most [`BODY_BYTES`].
    bytes: Cell<usize>,
    claim: RefCell<ByteClaim>,
    /// The writer has ended the body.
    ended: Cell<bool>,
    /// The body was dropped because the peer is gone.
    dropped: Cell<bool>,
    /// A write was refused since bytes were last sent.
    refused: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Notifies the worker that the queue takes bytes again, or that the body is gone.
    on_room: Box<dyn Fn()>,
}

impl std::fmt::Debug for BodyQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyQueue").field("bytes", &self.bytes.get()).finish_non_exhaustive()
    }
}

impl BodyQueue {
    /// Creates an empty queue. `on_room` is called when a refused writer may continue, and when the body is
    /// dropped.
    pub fn new(claim: ByteClaim, on_room: impl Fn() + 'static) -> Rc<BodyQueue> {
        Rc::new(BodyQueue {
            queued: RefCell::default(),
            bytes: Cell::new(0),
            claim: RefCell::new(claim),
            ended: Cell::new(false),
            dropped: Cell::new(false),
            refused: Cell::new(false),
            waker: RefCell::default(),
            on_room: Box::new(on_room),
        })
    }

    /// Takes as many of `bytes` as fit.
    pub fn push(&self, bytes: &[u8]) -> WriteOutcome {
        if self.dropped.get() {
            return WriteOutcome { bytes: 0, blocked: false, gone: true };
        }
        let held = self.bytes.get();
        let mut taken = bytes.len().min(BODY_BYTES.saturating_sub(held));
        if self.claim.borrow_mut().set(held + taken).is_err() {
            taken = taken.min(FREE_BYTES.saturating_sub(held));
        }
        if taken > 0 {
            self.bytes.set(held + taken);
            self.queued.borrow_mut().extend_from_slice(&bytes[..taken]);
            self.wake();
        }
        let blocked = taken < bytes.len();
        if blocked {
            self.refused.set(true);
        }
        WriteOutcome { bytes: taken, blocked, gone: false }
    }

    /// Ends the body: no more bytes will be written.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// Returns the next bytes, which count until [`BodyQueue::sent`] is called for them; `None` at the end of
    /// the body.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let queued = std::mem::take(&mut *self.queued.borrow_mut());
        if !queued.is_empty() {
            return Poll::Ready(Some(queued.into()));
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Records that the HTTP connection has written `bytes` of those taken.
    pub fn sent(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        let _ = self.claim.borrow_mut().set(self.bytes.get()); // a smaller number is never refused
        if self.bytes.get() <= BODY_BYTES / 2 && self.refused.replace(false) {
            (self.on_room)();
        }
    }

    /// Records that the reader was dropped.
    pub fn drop_body(&self) {
        self.dropped.set(true);
        (self.on_room)();
    }

    /// Returns true if the reader was dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.dropped.get()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
