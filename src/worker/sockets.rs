//! A worker's own epoll set, nested in its runtime's reactor: thousands of sockets, one waiting task.
//!
//! * Sockets are registered edge-triggered once, for reading and writing, and leave the set when they are
//!   closed.
//! * A [`Token`] consists of a slab slot and its generation, so an event of a closed socket never reaches the
//!   next connection of the slot.
//! * The set knows file descriptors and tokens, not the protocol on them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

/// The most events taken from the kernel at once.
const BATCH: usize = 256;

/// A slot of a worker's slab, with the generation of its present connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Token {
    /// Index into the slab.
    pub slot: u32,
    /// Grows with each connection of the slot.
    pub generation: u32,
}

impl Token {
    /// The worker's own eventfd, which has no slot.
    pub const WAKE: Token = Token { slot: u32::MAX, generation: u32::MAX };

    const fn pack(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }
    const fn unpack(data: u64) -> Token {
        Token { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// An event of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The socket's token.
    pub token: Token,
    /// There is input, or the peer has ended its side.
    pub readable: bool,
    /// The socket takes bytes again.
    pub writable: bool,
    /// The peer has ended its side, or the socket is broken: read the rest to its end.
    pub ended: bool,
}

/// The nested epoll set.
#[derive(Debug)]
pub struct Sockets {
    inner: AsyncFd<OwnedFd>,
}

impl Sockets {
    /// Creates an empty set, watched by the current tokio runtime.
    ///
    /// # Errors
    /// The kernel's error, usually that no file descriptor is left.
    pub fn new() -> io::Result<Sockets> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        // SAFETY: `set` is an open descriptor that the `AsyncFd` owns from here on: no other code closes or
        // replaces it, and an `OwnedFd` always returns the same number.
        #[allow(unsafe_code)]
        let inner = unsafe { AsyncFd::register_with_interest(set, tokio::io::Interest::READABLE) }?;
        Ok(Sockets { inner })
    }

    /// Adds a non-blocking socket, edge-triggered, both directions.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(self.inner.get_ref(), fd, EventData::new_u64(token.pack()), flags)?)
    }

    /// Adds an eventfd that wakes this worker; each ring is an edge.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add_wake(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(
            self.inner.get_ref(),
            fd,
            EventData::new_u64(Token::WAKE.pack()),
            EventFlags::IN | EventFlags::ET,
        )?)
    }

    /// Waits until a socket may be ready.
    ///
    /// # Errors
    /// The reactor's error.
    pub async fn readable(&self) -> io::Result<()> {
        let mut guard = self.inner.readable().await?;
        // Cleared before the set is read: what becomes ready from here on is a new edge.
        guard.clear_ready();
        Ok(())
    }

    /// Takes the events that are ready now, at most [`BATCH`]; returns true if there may be more.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn take(&self, out: &mut VecDeque<Ready>) -> io::Result<bool> {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let (events, _) = match epoll::wait(self.inner.get_ref(), &mut events, Some(&Timespec::default())) {
            Ok(events) => events,
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for event in events.iter() {
            let (flags, data) = (event.flags, event.data);
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            out.push_back(Ready {
                token: Token::unpack(data.u64()),
                readable: gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: gone || flags.contains(EventFlags::OUT),
                ended: gone || flags.contains(EventFlags::RDHUP),
            });
        }
        Ok(events.len() == BATCH)
    }
}
