//! Sends of one fan-out through io_uring: one `io_uring_enter` per batch, its completions reaped before the next.
//!
//! * Every send is complete when [`Sender::push`] (of a full batch) or [`Sender::finish`] returns: the kernel holds no
//!   pointer of ours beyond that, so the shared buffer may be written again.
//! * `MSG_DONTWAIT`: a send that would block completes at once, short or with EAGAIN, and is told by [`Sender::short`].
//! * It knows sockets by the caller's number, and no connections.

#![allow(clippy::panic, reason = "a broken ring ends the program")]
#![allow(
    unsafe_code,
    reason = "the floor of batched submission is what it measures; the daemon does not link this file"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Most sockets registered, by number; the kernel allows as many as the process may open files.
const FIXED: u32 = 16_384;
const EAGAIN: i32 = 11;
const EINTR: i32 = 4;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;

pub(crate) struct Sender {
    ring: IoUring,
    batch: usize,
    /// Entries pushed and not yet submitted.
    queued: usize,
    fixed: bool,
    /// Sends that did not take everything: whose, and how much (`None`: the socket is dead).
    short: Vec<(u32, Option<usize>)>,
}

impl Sender {
    /// A ring for `batch` sends per enter; `fixed`: sockets are registered with [`Sender::learn`].
    pub(crate) fn new(batch: u32, fixed: bool) -> io::Result<Sender> {
        let batch = batch.clamp(1, 4_096);
        let entries = batch.next_power_of_two();
        // Completions are reaped by the thread that submits, in the enter that waits for them: no interrupts (6.1), else
        // fewer (5.19), else as it was.
        let ring = IoUring::<squeue::Entry, cqueue::Entry>::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|_| IoUring::builder().setup_coop_taskrun().build(entries))
            .or_else(|_| IoUring::new(entries))?;
        if fixed {
            ring.submitter().register_files_sparse(FIXED)?;
        }
        Ok(Sender { ring, batch: batch as usize, queued: 0, fixed, short: Vec::new() })
    }

    /// Registers a subscriber's socket.
    pub(crate) fn learn(&mut self, at: u32, fd: &OwnedFd) {
        if self.fixed && at < FIXED {
            let _ = self.ring.submitter().register_files_update(at, &[fd.as_raw_fd()]); // else its sends fail, and it is closed
        }
    }

    /// Takes it out again: the kernel would keep the socket open.
    pub(crate) fn forget(&mut self, at: u32) {
        if self.fixed && at < FIXED {
            let _ = self.ring.submitter().register_files_update(at, &[-1]); // it was there, or never
        }
    }

    /// Queues a send of all of `bytes`, and submits once there is a batch. `bytes` must stay as it is until
    /// [`Sender::finish`] returned. False: the ring is broken.
    pub(crate) fn push(&mut self, at: u32, fd: BorrowedFd<'_>, bytes: &[u8]) -> bool {
        let len = bytes.len() as u32;
        let entry = match self.fixed && at < FIXED {
            true => opcode::Send::new(types::Fixed(at), bytes.as_ptr(), len),
            false => opcode::Send::new(types::Fd(fd.as_fd().as_raw_fd()), bytes.as_ptr(), len),
        };
        let entry = entry.flags(MSG_DONTWAIT | MSG_NOSIGNAL).build();
        let entry = entry.user_data(u64::from(at) << 32 | u64::from(len));
        // SAFETY: the kernel reads `bytes` until the send completes; `submit` reaps every completion of the batch before it
        // returns, and callers neither write nor free `bytes` before `finish`, which submits what is left.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        self.queued += usize::from(pushed.is_ok());
        if self.queued == self.batch {
            self.submit();
        }
        pushed.is_ok()
    }

    /// Submits what is left.
    pub(crate) fn finish(&mut self) {
        self.submit();
    }

    /// Submits the batch and waits for all of it.
    fn submit(&mut self) {
        let mut missing = std::mem::take(&mut self.queued);
        while missing > 0 {
            match self.ring.submit_and_wait(missing) {
                Err(error) if error.raw_os_error() != Some(EINTR) => panic!("io_uring_enter: {error}"),
                _ => {}
            }
            for done in self.ring.completion() {
                missing -= 1;
                let (at, len) = ((done.user_data() >> 32) as u32, done.user_data() as u32 as usize);
                match done.result() {
                    sent if sent >= 0 && sent as usize == len => {}
                    sent if sent >= 0 => self.short.push((at, Some(sent as usize))),
                    error if error == -EAGAIN || error == -EINTR => self.short.push((at, Some(0))),
                    _ => self.short.push((at, None)),
                }
            }
        }
    }

    /// Whose sends did not take everything since it was last asked.
    pub(crate) fn short(&mut self) -> Vec<(u32, Option<usize>)> {
        std::mem::take(&mut self.short)
    }
}
