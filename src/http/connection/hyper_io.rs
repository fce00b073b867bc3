//! The IO that hyper reads and writes: a socket that replays the bytes read during protocol detection, tracks
//! what is written, and replaces hyper's own error responses.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;

use crate::error_response::ErrorResponse;
use crate::http::deadlines::Activity;
use crate::http::response::ApiResponse;
use crate::http::response::body::WriteProgress;
use crate::worker::Worker;

use super::socket_stream::SocketStream;

/// Maximum of bytes of a request head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Maximum of headers of a request. This is hyper's own default; setting it would make hyper fill two buffers
/// for each head.
pub const HEADERS: usize = 100;

/// The IO of one HTTP connection; [`WriteProgress`] tracks what is written.
pub(super) struct HyperIo {
    inner: TokioIo<SocketStream>,
    /// Bytes that were read during protocol detection. They are replayed first.
    first: Bytes,
    /// Set on HTTP/1 only.
    flow: Option<Rc<WriteProgress>>,
    /// Bytes to send in place of hyper's own error response, with the position reached.
    own: Option<(Vec<u8>, usize)>,
    /// True if nothing was read because the socket accepted no bytes.
    starved: bool,
    activity: Rc<Activity>,
    worker: Rc<Worker>,
}

impl hyper::rt::Read for HyperIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let len = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(len));
            return Poll::Ready(Ok(()));
        }
        // Nothing more is read from a peer that does not read its responses. Otherwise hyper would go on
        // answering pipelined requests.
        if self.flow.is_some() && self.activity.is_blocked() {
            self.starved = true;
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.read();
        }
        read
    }
}

impl HyperIo {
    /// Creates the IO of a socket that replays `first`. On HTTP/1 it has a `flow`.
    pub(super) fn new(
        stream: SocketStream,
        first: Bytes,
        flow: Option<Rc<WriteProgress>>,
        activity: &Rc<Activity>,
        worker: &Rc<Worker>,
    ) -> HyperIo {
        let (activity, worker) = (activity.clone(), worker.clone());
        HyperIo { inner: TokioIo::new(stream), first, flow, own: None, starved: false, activity, worker }
    }

    fn record_write(&mut self, cx: &mut Context<'_>, blocked: bool) {
        self.activity.wrote(blocked);
        if !blocked && std::mem::take(&mut self.starved) {
            cx.waker().wake_by_ref(); // so that hyper reads again
        }
    }

    /// Returns the socket, taken back from hyper.
    pub(super) fn into_stream(self) -> SocketStream {
        self.inner.into_inner()
    }

    /// Returns the response to send in place of one that hyper made on its own, while no response of ours is
    /// in progress.
    fn replacement(&self, head: &[u8]) -> Option<Vec<u8>> {
        let idle = self.flow.as_ref().is_some_and(|flow| flow.is_clean());
        if !idle || !head.starts_with(b"HTTP/1.1 4") && !head.starts_with(b"HTTP/1.0 4") {
            return None;
        }
        let status = StatusCode::from_bytes(head.get(9..12)?).ok()?;
        let message = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                format!("the request head is over {HEAD_BYTES} bytes or {HEADERS} fields")
            }
            StatusCode::URI_TOO_LONG => "the request target is too long".into(),
            StatusCode::REQUEST_TIMEOUT => "the request head was not received in time".into(),
            _ => "the request is not valid HTTP".into(),
        };
        let refusal = ErrorResponse::new(status, "BAD_REQUEST", message);
        Some(ApiResponse::error(&refusal, &*self.worker.shared.clock).to_final_bytes())
    }

    /// Writes the replacement, if there is one.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, at)) = &mut self.own {
            if *at == bytes.len() {
                self.own = None;
                break;
            }
            let n = ready!(hyper::rt::Write::poll_write(Pin::new(&mut self.inner), cx, &bytes[*at..]))?;
            *at += n;
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for HyperIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.own.is_none()
            && let Some(own) = self.replacement(buf)
        {
            self.own = Some((own, 0));
        }
        if self.own.is_some() {
            ready!(self.poll_own(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.record_write(cx, wrote.is_pending());
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        if let Some(flow) = &self.flow {
            flow.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        if self.own.is_some() || self.replacement(first).is_some() {
            return self.poll_write(cx, first);
        }
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.record_write(cx, wrote.is_pending());
        wrote
    }
}
