//! How the writes of a turn reach the kernel: one system call each, or all of them by one `io_uring_enter`.
//!
//! * Every write is complete when [`Submission::write`] returns: no buffer and no descriptor is in use after
//!   it.
//! * Batching is an optimisation that may be unavailable (old kernel, seccomp, a limit on locked memory).
//!   Then, and if a ring fails later, every write is a `send`. Subscribers get the same.
//! * It knows tokens and bytes, not frames, positions or tenants.
#![allow(
    unsafe_code,
    reason = "the submission queue; worth it by `just fanout-submission`, argued at each block"
)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::config::FanoutSubmission;
use crate::connection::{Connection, WriteOutcome};

use super::slab::Slab;
use super::sockets::Token;

/// The most writes of one submission: one bit of a `u64` each.
pub(super) const BATCH_WRITES: usize = 64;
/// Writes between two reads of the clock when each write is a system call.
const SENDS_PER_LOOK: usize = 16;
/// With fewer writes than this a batch is not worth it.
const LEAST_BATCH: usize = 4;
const _: () = assert!(BATCH_WRITES == 64, "a bit of a u64 each, and entries of a ring are a power of two");

/// One write of a turn: its connection, its group of bytes, and its result.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) token: Token,
    /// The group of the turn whose bytes are written.
    pub(crate) group: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The result, set by [`Submission::write`]. If it is blocked from the start, nothing is tried.
    pub(crate) wrote: WriteOutcome,
}

/// Writes for one worker.
pub(crate) struct Submission {
    /// `None` means one `send` per write.
    ring: Option<IoUring>,
}

impl Submission {
    /// Creates it as configured; if the kernel refuses, that is logged.
    pub(crate) fn new(how: FanoutSubmission) -> Submission {
        Submission::with(how, make_ring)
    }

    /// Creates it with a ring from `make`.
    pub(super) fn with(how: FanoutSubmission, make: impl FnOnce() -> io::Result<IoUring>) -> Submission {
        let ring = match how {
            FanoutSubmission::Send => None,
            FanoutSubmission::IoUring => match make() {
                Ok(ring) => Some(ring),
                Err(error) => {
                    tracing::info!(%error, "io_uring is not available; fan-out uses send");
                    None
                }
            },
        };
        Submission { ring }
    }

    /// Returns how many writes to pass to [`Submission::write`] at once.
    pub(crate) fn depth(&self) -> usize {
        match self.ring {
            Some(_) => BATCH_WRITES,
            None => SENDS_PER_LOOK,
        }
    }

    /// Writes each connection's part of `joined`, and sets the result in [`PendingWrite::wrote`].
    pub(crate) fn write(&mut self, connections: &Slab<Connection>, joined: &[u8], outs: &mut [PendingWrite]) {
        match &mut self.ring {
            Some(ring) if (LEAST_BATCH..=BATCH_WRITES).contains(&outs.len()) => {
                if let Err(error) = write_batch(ring, connections, joined, outs) {
                    tracing::warn!(%error, "io_uring failed; fan-out uses send from now on");
                    self.ring = None;
                }
            }
            _ => outs.iter_mut().for_each(|out| write_one(connections, joined, out, 0)),
        }
    }
}

fn make_ring() -> io::Result<IoUring> {
    let entries = BATCH_WRITES as u32;
    // Older kernels do not know these flags, which only save work.
    let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries);
    ring.or_else(|_| IoUring::<squeue::Entry, cqueue::Entry>::new(entries))
}

/// Returns a ring whose descriptor is not a ring any more: every submission fails.
#[cfg(test)]
pub(super) fn broken_ring() -> io::Result<IoUring> {
    use std::os::fd::{FromRawFd, OwnedFd};
    let ring = make_ring()?;
    // SAFETY: the descriptor belongs to the ring and stays so; the ring closes it once.
    let mut fd = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(ring.as_raw_fd()) });
    rustix::io::dup2(std::fs::File::open("/dev/null")?, &mut fd)?;
    Ok(ring)
}

/// Writes by a system call, starting at byte `at`.
fn write_one(connections: &Slab<Connection>, joined: &[u8], out: &mut PendingWrite, at: usize) {
    if out.wrote.blocked {
        return;
    }
    let Some(connection) = connections.get(out.token.slot as usize) else { return };
    let more = connection.sink.write(&joined[out.start + at..out.end]);
    out.wrote = WriteOutcome { bytes: at + more.bytes, ..more };
}

/// Writes by one submission. Every one of `outs` gets its result, also on an error, after which the ring must
/// not be used.
fn write_batch(
    ring: &mut IoUring,
    connections: &Slab<Connection>,
    joined: &[u8],
    outs: &mut [PendingWrite],
) -> io::Result<()> {
    // One bit per entry that the ring has and that has not completed.
    let mut waiting = 0u64;
    for (at, out) in outs.iter_mut().enumerate() {
        let socket = connections.get(out.token.slot as usize).and_then(|connection| connection.sink.socket());
        let Some(socket) = socket.filter(|_| !out.wrote.blocked) else {
            write_one(connections, joined, out, 0);
            continue;
        };
        let bytes = &joined[out.start..out.end];
        let flags = (rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL).bits() as i32;
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(flags)
            .build()
            .user_data(at as u64);
        // SAFETY: the kernel reads `bytes` and looks up the descriptor before this function returns: it
        // returns only when every submitted entry has completed, `joined` and `connections` are borrowed
        // until then, and what could not be submitted is dropped with the ring.
        let pushed = unsafe { ring.submission().push(&entry) };
        match pushed {
            Ok(()) => waiting |= 1 << at,
            Err(_) => write_one(connections, joined, out, 0), // the ring is full, which callers avoid
        }
    }
    while waiting != 0 {
        let result = ring.submit_and_wait(waiting.count_ones() as usize);
        for done in ring.completion() {
            waiting &= !(1 << done.user_data());
            if let Some(out) = outs.get_mut(done.user_data() as usize) {
                complete(connections, joined, out, done.result());
            }
        }
        if let Err(error) = result
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Entries are taken in order, and a send that may not wait completes as it is submitted. So what
            // is left is the tail of the queue, which the kernel never saw.
            if ring.submission().len() == waiting.count_ones() as usize {
                for (_, out) in outs.iter_mut().enumerate().filter(|(at, _)| waiting & (1 << at) != 0) {
                    write_one(connections, joined, out, 0);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Records a completion; a short write continues as a `send` until it would block.
fn complete(connections: &Slab<Connection>, joined: &[u8], out: &mut PendingWrite, result: i32) {
    match usize::try_from(result) {
        Ok(bytes) if bytes == out.end - out.start => {
            out.wrote = WriteOutcome { bytes, blocked: false, gone: false };
        }
        Ok(bytes) => write_one(connections, joined, out, bytes),
        Err(_) => {
            let errno = rustix::io::Errno::from_raw_os_error(-result);
            match errno {
                rustix::io::Errno::AGAIN => out.wrote = WriteOutcome::nothing(true),
                rustix::io::Errno::INTR => write_one(connections, joined, out, 0),
                _ => out.wrote = WriteOutcome { bytes: 0, blocked: false, gone: true },
            }
        }
    }
}
