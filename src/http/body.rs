//! Response bodies: whole, or the reading end of a subscriber's queue; and the flow of one connection, which knows when
//! everything answered so far is written.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::connection::body::BodyQueue;

/// How far the responses of one HTTP/1 connection have got. A socket may leave hyper only when [`Flow::is_clean`].
#[derive(Debug, Default)]
pub struct Flow {
    /// Responses whose body hyper still holds.
    open: Cell<u32>,
    /// Bytes may lie in hyper's buffer: set when a body ends, cleared by the flush that follows.
    dirty: Cell<bool>,
}

impl Flow {
    /// Whether hyper holds nothing that the peer has not got.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.open.get() == 0 && !self.dirty.get()
    }
    /// hyper's buffer is empty: it flushes the transport only then.
    pub fn flushed(&self) {
        if self.open.get() == 0 {
            self.dirty.set(false);
        }
    }
}

enum Content {
    Whole(Option<Bytes>),
    Queue(Rc<BodyQueue>),
}

/// A response body.
pub struct Body {
    content: Content,
    flow: Rc<Flow>,
}

impl Body {
    /// All of it at once.
    pub fn whole(bytes: impl Into<Bytes>, flow: &Rc<Flow>) -> Body {
        let bytes: Bytes = bytes.into();
        Body::open(Content::Whole((!bytes.is_empty()).then_some(bytes)), flow)
    }
    /// What the pump writes.
    pub fn queue(queue: Rc<BodyQueue>, flow: &Rc<Flow>) -> Body {
        Body::open(Content::Queue(queue), flow)
    }
    fn open(content: Content, flow: &Rc<Flow>) -> Body {
        flow.open.set(flow.open.get() + 1);
        Body { content, flow: flow.clone() }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.flow.open.set(self.flow.open.get().saturating_sub(1));
        self.flow.dirty.set(true);
        if let Content::Queue(queue) = &self.content {
            queue.drop_body();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Queue(queue) => queue.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Queue(_) => SizeHint::default(),
        }
    }
}
