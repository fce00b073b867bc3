//! The bytes between the pump and an HTTP response body: SSE over HTTP/2, where no socket can be taken over.
//!
//! Both ends live on one worker. The queue is bounded: over [`BODY_BYTES`] it blocks like a full socket, and the worker
//! is told when the body has been drained.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Wrote;

/// Bytes queued for a body before its writer blocks; one write may go over.
pub const BODY_BYTES: usize = 32 * 1024;

/// The queue.
pub struct BodyQueue {
    chunks: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    /// No more will come.
    ended: Cell<bool>,
    /// The body was dropped: the peer is gone.
    dropped: Cell<bool>,
    /// A write was refused since the queue was last drained.
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
    pub fn new(on_room: impl Fn() + 'static) -> Rc<BodyQueue> {
        Rc::new(BodyQueue {
            chunks: RefCell::default(),
            bytes: Cell::new(0),
            ended: Cell::new(false),
            dropped: Cell::new(false),
            refused: Cell::new(false),
            waker: RefCell::default(),
            on_room: Box::new(on_room),
        })
    }

    /// Takes all of `bytes` or none.
    pub fn push(&self, bytes: &[u8]) -> Wrote {
        if self.dropped.get() {
            return Wrote { bytes: 0, blocked: false, gone: true };
        }
        if bytes.is_empty() {
            return Wrote { bytes: 0, blocked: false, gone: false };
        }
        if self.bytes.get() >= BODY_BYTES {
            self.refused.set(true);
            return Wrote { bytes: 0, blocked: true, gone: false };
        }
        self.bytes.set(self.bytes.get() + bytes.len());
        self.chunks.borrow_mut().push_back(Bytes::copy_from_slice(bytes));
        self.wake();
        Wrote { bytes: bytes.len(), blocked: false, gone: false }
    }

    /// No more will come.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// The next bytes; `None` when it has ended.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(chunk) = self.chunks.borrow_mut().pop_front() {
            self.bytes.set(self.bytes.get() - chunk.len());
            if self.bytes.get() < BODY_BYTES && self.refused.replace(false) {
                (self.on_room)();
            }
            return Poll::Ready(Some(chunk));
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
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
