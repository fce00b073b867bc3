//! How a turn's writes reach the kernel: one system call each, or all of them by one `io_uring_enter`.
//!
//! * Every write is complete when [`Submission::write`] returns: no buffer and no descriptor is lent beyond it.
//! * Batching is an optimisation that may be missing (old kernel, seccomp, a limit on locked memory): then, and when a ring
//!   fails later, every write is a `send`. What subscribers get is the same.
//! * It knows tokens and bytes, not frames, positions or tenants.
#![allow(
    unsafe_code,
    reason = "the submission queue; worth it by `just fanout-submission`, argued at each block"
)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::config::FanoutSubmission;
use crate::connection::{Connection, Wrote};

use super::fanout::SENDS_PER_TURN;
use super::slab::Slab;
use super::sockets::Token;

/// Writes between two looks at the clock when each is a system call.
const SENDS_PER_LOOK: usize = 16;
/// Fewer writes than this are not worth a batch.
const LEAST_BATCH: usize = 4;
const _: () = assert!(SENDS_PER_TURN == 64, "a bit of a u64 each, and entries of a ring are a power of two");

/// One write of a turn: to whom, which of the joined bytes, and what came of it.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) token: Token,
    /// Which group of the turn the bytes are of.
    pub(crate) group: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Set by [`Submission::write`]; given as blocked, nothing is tried.
    pub(crate) wrote: Wrote,
}

/// One worker's way to write.
pub(crate) struct Submission {
    /// `None`: one `send` each.
    ring: Option<IoUring>,
}

impl Submission {
    /// As configured; a refusing kernel is told in the log.
    pub(crate) fn new(how: FanoutSubmission) -> Submission {
        Submission::with(how, make_ring)
    }

    /// With a ring of one's own making.
    pub(super) fn with(how: FanoutSubmission, make: impl FnOnce() -> io::Result<IoUring>) -> Submission {
        let ring = match how {
            FanoutSubmission::Send => None,
            FanoutSubmission::IoUring => match make() {
                Ok(ring) => Some(ring),
                Err(error) => {
                    tracing::info!(%error, "io_uring is not to be had: fan-out writes by send");
                    None
                }
            },
        };
        Submission { ring }
    }

    /// Writes worth giving to [`Submission::write`] at once.
    pub(crate) fn depth(&self) -> usize {
        match self.ring {
            Some(_) => SENDS_PER_TURN,
            None => SENDS_PER_LOOK,
        }
    }

    /// Writes each connection's part of `joined`, and says in [`Out::wrote`] what came of it.
    pub(crate) fn write(&mut self, connections: &Slab<Connection>, joined: &[u8], outs: &mut [Out]) {
        match &mut self.ring {
            Some(ring) if (LEAST_BATCH..=SENDS_PER_TURN).contains(&outs.len()) => {
                if let Err(error) = write_batch(ring, connections, joined, outs) {
                    tracing::warn!(%error, "io_uring failed: fan-out writes by send from now on");
                    self.ring = None;
                }
            }
            _ => outs.iter_mut().for_each(|out| write_one(connections, joined, out, 0)),
        }
    }
}

fn make_ring() -> io::Result<IoUring> {
    let entries = SENDS_PER_TURN as u32;
    // Older kernels know neither flag, which only save work.
    let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries);
    ring.or_else(|_| IoUring::<squeue::Entry, cqueue::Entry>::new(entries))
}

/// A ring whose descriptor is no ring any more: every submission fails.
#[cfg(test)]
pub(super) fn broken_ring() -> io::Result<IoUring> {
    use std::os::fd::{FromRawFd, OwnedFd};
    let ring = make_ring()?;
    // SAFETY: the descriptor is the ring's and stays so; it is closed once, by the ring.
    let mut fd = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(ring.as_raw_fd()) });
    rustix::io::dup2(std::fs::File::open("/dev/null")?, &mut fd)?;
    Ok(ring)
}

/// By a system call of its own, from `at` of its bytes on.
fn write_one(connections: &Slab<Connection>, joined: &[u8], out: &mut Out, at: usize) {
    if out.wrote.blocked {
        return;
    }
    let Some(connection) = connections.get(out.token.slot as usize) else { return };
    let more = connection.sink.write(&joined[out.start + at..out.end]);
    out.wrote = Wrote { bytes: at + more.bytes, ..more };
}

/// By one submission. Every one of `outs` is dealt with, also on an error, after which the ring is of no use.
fn write_batch(
    ring: &mut IoUring,
    connections: &Slab<Connection>,
    joined: &[u8],
    outs: &mut [Out],
) -> io::Result<()> {
    // Bit per entry that the ring has and that has not completed.
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
        // SAFETY: the kernel reads `bytes` and looks the descriptor up before this function returns: it leaves only when
        // every submitted entry has completed, `joined` and `connections` are borrowed until then, and what could not be
        // submitted goes with the ring.
        let pushed = unsafe { ring.submission().push(&entry) };
        match pushed {
            Ok(()) => waiting |= 1 << at,
            Err(_) => write_one(connections, joined, out, 0), // more than a ring holds; callers give no more
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
            // Entries are taken in order, and a send that may not wait completes as it is submitted. So what is left is
            // the tail of the queue, which the kernel never saw.
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

/// Books a completion; a short write goes on as a `send` until it would block.
fn complete(connections: &Slab<Connection>, joined: &[u8], out: &mut Out, result: i32) {
    match usize::try_from(result) {
        Ok(bytes) if bytes == out.end - out.start => {
            out.wrote = Wrote { bytes, blocked: false, gone: false };
        }
        Ok(bytes) => write_one(connections, joined, out, bytes),
        Err(_) => {
            let errno = rustix::io::Errno::from_raw_os_error(-result);
            match errno {
                rustix::io::Errno::AGAIN => out.wrote = Wrote::nothing(true),
                rustix::io::Errno::INTR => write_one(connections, joined, out, 0),
                _ => out.wrote = Wrote { bytes: 0, blocked: false, gone: true },
            }
        }
    }
}
