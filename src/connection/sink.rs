//! Where a connection's bytes go and come from: the one place that touches the transport, so the one seam for another.
//!
//! * [`Sink::write`] takes bytes until the transport takes no more; it knows no frame, and nobody's position.
//! * Closing, lingering and the epoll set are the worker's; a sink only ever moves bytes.
//! * [`Sink::Memory`] is for the simulation (`benches/million.rs`): everything above the kernel is the daemon's own code
//!   then. The daemon makes none; it costs it a third arm of a match that was there.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{RecvFlags, SendFlags};

use super::body::BodyQueue;

/// A connection's transport.
#[derive(Debug)]
pub enum Sink {
    /// A socket of its own, non-blocking.
    Socket(OwnedFd),
    /// The body of an HTTP/2 (or not separable) response.
    Body(Rc<BodyQueue>),
    /// No kernel: what would have left is counted.
    Memory(Rc<Ledger>),
}

/// What in-memory sockets took; any number of connections of one worker share it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Writes so far: what would have been system calls.
    pub writes: Cell<u64>,
    /// Bytes so far.
    pub bytes: Cell<u64>,
}

/// What came of writing to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrote {
    /// Bytes the transport took.
    pub bytes: usize,
    /// It took no more.
    pub blocked: bool,
    /// The transport is dead.
    pub gone: bool,
}

impl Wrote {
    /// Nothing was tried, or nothing was taken.
    #[must_use]
    pub const fn nothing(blocked: bool) -> Wrote {
        Wrote { bytes: 0, blocked, gone: false }
    }
}

impl Sink {
    /// Writes as much as the transport takes; repeats short writes until it would block.
    pub fn write(&self, bytes: &[u8]) -> Wrote {
        match self {
            Sink::Body(queue) => queue.push(bytes),
            Sink::Memory(ledger) => ledger.take(bytes),
            Sink::Socket(fd) => {
                let mut at = 0;
                while at < bytes.len() {
                    match rustix::net::send(fd, &bytes[at..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                        Ok(n) => at += n,
                        Err(rustix::io::Errno::INTR) => {}
                        Err(rustix::io::Errno::AGAIN) => {
                            return Wrote { bytes: at, blocked: true, gone: false };
                        }
                        Err(_) => return Wrote { bytes: at, blocked: false, gone: true },
                    }
                }
                Wrote { bytes: at, blocked: false, gone: false }
            }
        }
    }

    /// Reads what is there. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else what the kernel says. Only a socket has input of its own.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Sink::Body(_) | Sink::Memory(_) => Err(io::ErrorKind::WouldBlock.into()),
            Sink::Socket(fd) => {
                let (n, _) = rustix::net::recv(fd, buf, RecvFlags::DONTWAIT)?;
                Ok(n)
            }
        }
    }

    /// The socket, for what only a socket can (shutdown, options, a batched send); `None`: use [`Sink::write`].
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Socket(fd) => Some(fd.as_fd()),
            Sink::Body(_) | Sink::Memory(_) => None,
        }
    }
}

impl Ledger {
    /// Takes everything; an empty write is none, as on a socket.
    fn take(&self, bytes: &[u8]) -> Wrote {
        self.writes.set(self.writes.get() + u64::from(!bytes.is_empty()));
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        Wrote { bytes: bytes.len(), blocked: false, gone: false }
    }
}
