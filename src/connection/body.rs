//! The bytes between the pump and an HTTP response body: SSE over HTTP/2, where no socket can be taken over.
//!
//! * Both ends live on one worker. The queue blocks like a full socket: it takes what fits into [`BODY_BYTES`], and the worker
//!   learns when it takes more.
//! * Bytes count until the connection has written them, so a stream that nobody reads holds at most [`BODY_BYTES`].
//! * They count against the organization's share of what is not read. Where that is used up, a stream still gets what a
//!   [`Claim`] leaves uncounted, so one that is read goes on, slower.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Wrote;
use super::shares::{Claim, FREE_BYTES};

/// Bytes of a body that wait to be written before its writer blocks.
pub const BODY_BYTES: usize = 32 * 1024;

/// The queue.
pub struct BodyQueue {
    /// Written by the pump and not yet taken by the body.
    queued: RefCell<Vec<u8>>,
    /// Bytes in `queued`, and taken and not yet sent; at most [`BODY_BYTES`].
    bytes: Cell<usize>,
    claim: RefCell<Claim>,
    /// No more will come.
    ended: Cell<bool>,
    /// The body was dropped: the peer is gone.
    dropped: Cell<bool>,
    /// A write was refused since bytes were last sent.
    refused: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Tells the worker that the queue takes bytes again, or that the body is gone.
    on_room: Box<dyn Fn()>,
}

impl std::fmt::Debug for BodyQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyQueue").field("bytes", &self.bytes.get()).finish_non_exhaustive()
    }
}

impl BodyQueue {
    /// An empty queue; `on_room` is called when a refused writer may go on, and when the body is dropped.
    pub fn new(claim: Claim, on_room: impl Fn() + 'static) -> Rc<BodyQueue> {
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

    /// Takes as many of `bytes` as there is room for.
    pub fn push(&self, bytes: &[u8]) -> Wrote {
        if self.dropped.get() {
            return Wrote { bytes: 0, blocked: false, gone: true };
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
        Wrote { bytes: taken, blocked, gone: false }
    }

    /// No more will come.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// The next bytes, which count until [`BodyQueue::sent`]; `None` when it has ended.
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

    /// The connection has written `bytes` of what was taken.
    pub fn sent(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        let _ = self.claim.borrow_mut().set(self.bytes.get()); // fewer bytes than before are never refused
        if self.bytes.get() <= BODY_BYTES / 2 && self.refused.replace(false) {
            (self.on_room)();
        }
    }

    /// The reading end is gone.
    pub fn drop_body(&self) {
        self.dropped.set(true);
        (self.on_room)();
    }

    /// Whether the reading end is gone.
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
