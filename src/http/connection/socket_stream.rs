//! The socket of a client: TCP or Unix.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::http::deadlines::DeadlineAction;
use crate::worker::Accepted;

/// A TCP or Unix socket.
pub(super) enum SocketStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl SocketStream {
    /// Closes the socket. With [`DeadlineAction::Reset`] the peer loses what it has not read.
    pub(super) fn end(self, end: DeadlineAction) {
        if end == DeadlineAction::Reset
            && let SocketStream::Tcp(stream) = &self
        {
            // the socket is closed even if this fails
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    pub(super) fn from_accepted(accepted: Accepted) -> io::Result<(SocketStream, Option<IpAddr>)> {
        Ok(match accepted {
            Accepted::Tcp(stream, peer) => {
                (SocketStream::Tcp(TcpStream::from_std(stream)?), Some(peer.to_canonical()))
            }
            Accepted::Unix(stream) => (SocketStream::Unix(UnixStream::from_std(stream)?), None),
        })
    }

    /// Takes the socket out of the runtime's reactor. It stays non-blocking.
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            SocketStream::Tcp(stream) => stream.into_std()?.into(),
            SocketStream::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            SocketStream::Tcp($stream) => $call,
            SocketStream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }
}
