//! The transport of a connection. This is the only place that reads and writes it.
//!
//! * [`Sink::write`] writes until the transport takes no more bytes. It does not know frames or positions.
//! * The worker closes sockets and owns the epoll set; a sink only moves bytes.
//! * [`Sink::Memory`] is for the simulation in `benches/million.rs`, in which everything above the kernel is
//!   the daemon's own code. The daemon never creates one; the cost is a third arm in an existing match.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{RecvFlags, SendFlags};

use super::WriteOutcome;
use super::body_queue::BodyQueue;

/// A connection's transport.
#[derive(Debug)]
pub enum Sink {
    /// A non-blocking socket that the connection owns.
    Socket(OwnedFd),
    /// The body of a response whose socket cannot be taken over, such as HTTP/2.
    Body(Rc<BodyQueue>),
    /// No transport: the bytes are only counted.
    Memory(Rc<MemorySink>),
}

/// Counts what in-memory sinks took. Any number of connections of one worker share it.
#[derive(Debug, Default)]
pub struct MemorySink {
    /// Number of writes, each of which would have been a system call.
    pub writes: Cell<u64>,
    /// Number of bytes.
    pub bytes: Cell<u64>,
}

impl Sink {
    /// Writes as much as the transport takes; repeats short writes until the transport would block.
    pub fn write(&self, bytes: &[u8]) -> WriteOutcome {
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
                            return WriteOutcome { bytes: at, blocked: true, gone: false };
                        }
                        Err(_) => return WriteOutcome { bytes: at, blocked: false, gone: true },
                    }
                }
                WriteOutcome { bytes: at, blocked: false, gone: false }
            }
        }
    }

    /// Reads available input. `Ok(0)` is the end of the input.
    ///
    /// # Errors
    /// `WouldBlock` if no input is available, else the kernel's error. Only a socket has input.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Sink::Body(_) | Sink::Memory(_) => Err(io::ErrorKind::WouldBlock.into()),
            Sink::Socket(fd) => {
                let (n, _) = rustix::net::recv(fd, buf, RecvFlags::DONTWAIT)?;
                Ok(n)
            }
        }
    }

    /// Returns the socket, for operations that only a socket has (shutdown, options, a batched send). `None`
    /// means that [`Sink::write`] must be used.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Socket(fd) => Some(fd.as_fd()),
            Sink::Body(_) | Sink::Memory(_) => None,
        }
    }
}

impl MemorySink {
    /// Takes all bytes. An empty write is not counted as a write, as on a socket.
    fn take(&self, bytes: &[u8]) -> WriteOutcome {
        self.writes.set(self.writes.get() + u64::from(!bytes.is_empty()));
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        WriteOutcome { bytes: bytes.len(), blocked: false, gone: false }
    }
}
