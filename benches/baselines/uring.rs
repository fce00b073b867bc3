//! Sends of one fan-out through io_uring: one `io_uring_enter` per batch. Its completions are reaped before
//! the next.
//!
//! * Every send is complete when [`Sender::push`] (of a full batch) or [`Sender::finish`] returns. The kernel
//!   then holds no pointer of this program, so the shared buffer may be overwritten.
//! * `MSG_DONTWAIT`: a send that would block completes at once, short or with EAGAIN. [`Sender::short`]
//!   returns it.
//! * This file knows sockets by the caller's number, and no connections.

#![allow(clippy::panic, reason = "a broken ring ends the program")]
#![allow(
    unsafe_code,
    reason = "the floor of batched submission is what it measures; the daemon does not link this file"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Maximum number of registered sockets. The kernel allows as many as the process may open files.
const FIXED: u32 = 16_384;
const EAGAIN: i32 = 11;
const EINTR: i32 = 4;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;

pub(crate) struct Sender {
    ring: IoUring,
    batch: usize,
    /// Entries that are pushed and not yet submitted.
    queued: usize,
    fixed: bool,
    /// Sends that were not accepted completely: the socket, and the number of sent bytes (`None` if the
    /// socket is dead).
    short: Vec<(u32, Option<usize>)>,
}

impl Sender {
    /// Creates a ring for `batch` sends per enter. With `fixed`, sockets are registered with
    /// [`Sender::learn`].
    pub(crate) fn new(batch: u32, fixed: bool) -> io::Result<Sender> {
        let batch = batch.clamp(1, 4_096);
        let entries = batch.next_power_of_two();
        // The thread that submits also reaps completions, in the enter that waits for them. So the ring needs
        // no interrupts (kernel 6.1), or fewer (5.19); older kernels use the default.
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
            let _ = self.ring.submitter().register_files_update(at, &[fd.as_raw_fd()]); // on failure, its sends fail and it is closed
        }
    }

    /// Unregisters the socket. Otherwise the kernel would keep it open.
    pub(crate) fn forget(&mut self, at: u32) {
        if self.fixed && at < FIXED {
            let _ = self.ring.submitter().register_files_update(at, &[-1]); // it may never have been registered
        }
    }

    /// Queues a send of all of `bytes`, and submits a full batch. `bytes` must not change until
    /// [`Sender::finish`] has returned. Returns false if the ring is broken.
    pub(crate) fn push(&mut self, at: u32, fd: BorrowedFd<'_>, bytes: &[u8]) -> bool {
        let len = bytes.len() as u32;
        let entry = match self.fixed && at < FIXED {
            true => opcode::Send::new(types::Fixed(at), bytes.as_ptr(), len),
            false => opcode::Send::new(types::Fd(fd.as_fd().as_raw_fd()), bytes.as_ptr(), len),
        };
        let entry = entry.flags(MSG_DONTWAIT | MSG_NOSIGNAL).build();
        let entry = entry.user_data(u64::from(at) << 32 | u64::from(len));
        // SAFETY: the kernel reads `bytes` until the send completes. `submit` reaps every completion of the
        // batch before it returns, and callers neither write nor free `bytes` before `finish`, which submits
        // the rest.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        self.queued += usize::from(pushed.is_ok());
        if self.queued == self.batch {
            self.submit();
        }
        pushed.is_ok()
    }

    /// Submits the rest.
    pub(crate) fn finish(&mut self) {
        self.submit();
    }

    /// Submits the batch and waits for all completions.
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

    /// Returns the sends since the last call that were not accepted completely.
    pub(crate) fn short(&mut self) -> Vec<(u32, Option<usize>)> {
        std::mem::take(&mut self.short)
    }
}
