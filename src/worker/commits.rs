//! Tasks of this worker that wait for a commit. They are notified by mail, so that all acks of a commit ring
//! the bell once.
//!
//! * Waking a task from another thread costs that thread a system call, which the committer would pay for
//!   every ack. Mail costs one per burst, and the tasks are woken here, on their own thread.
//! * Exactly one mail comes for each wait, also when the store drops its [`CommitCallback`] without calling it. Only
//!   then is the slot free again, so a slot needs no generation.
//! * There are at most as many waits as publishes in progress: one per HTTP request or paused WebSocket.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::store::{CommitCallback, CommitError};
use crate::tenant::publish::CommitWaiter;

use super::mail::{CommitNotice, Mail};
use super::slab::Slab;
use super::{SharedState, Worker};

/// The result of a commit.
type Outcome = Result<(), CommitError>;

#[derive(Debug)]
enum WaitState {
    /// No result yet; holds the waker once the wait was polled.
    Pending(Option<Waker>),
    /// The result has arrived and was not fetched yet.
    Done(Outcome),
    /// The waiting task is gone.
    Abandoned,
}

/// The waits of one worker.
#[derive(Debug, Default)]
pub(super) struct CommitWaits(RefCell<Slab<WaitState>>);

impl CommitWaits {
    /// Returns the number of slots in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn on_notice(&self, notice: &CommitNotice) {
        let mut waits = self.0.borrow_mut();
        let Some(waiting) = waits.get_mut(notice.slot as usize) else { return };
        match std::mem::replace(waiting, WaitState::Done(notice.outcome)) {
            WaitState::Pending(waker) => {
                drop(waits); // a waker may run any code
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            WaitState::Abandoned | WaitState::Done(_) => drop(waits.remove(notice.slot as usize)),
        }
    }
}

/// Completes when the commit is over. Must stay on its worker's thread.
pub struct CommitWait {
    worker: Rc<Worker>,
    slot: u32,
    /// The slot was released.
    over: bool,
}

impl CommitWaiter for Rc<Worker> {
    type Wait = CommitWait;

    fn register(&self) -> (CommitCallback, CommitWait) {
        let slot = self.commits.0.borrow_mut().insert(WaitState::Pending(None)) as u32;
        let mut notifier = CommitNotifier { shared: self.shared.clone(), worker: self.id, slot, sent: false };
        let done = CommitCallback::call(move |outcome| notifier.notify(outcome));
        (done, CommitWait { worker: self.clone(), slot, over: false })
    }
}

impl Future for CommitWait {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let slot = self.slot as usize;
        let mut waits = self.worker.commits.0.borrow_mut();
        let outcome = match waits.get_mut(slot) {
            Some(WaitState::Pending(waker)) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(WaitState::Done(outcome)) => *outcome,
            Some(WaitState::Abandoned) | None => Err(CommitError::Unavailable), // polled after its end
        };
        waits.remove(slot);
        drop(waits);
        self.over = true;
        Poll::Ready(outcome)
    }
}

impl Drop for CommitWait {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut waits = self.worker.commits.0.borrow_mut();
        match waits.get_mut(self.slot as usize) {
            Some(waiting @ WaitState::Pending(_)) => *waiting = WaitState::Abandoned, // its mail releases the slot
            _ => drop(waits.remove(self.slot as usize)),
        }
    }
}

/// The committer's side of a wait; sends the result, also when dropped.
struct CommitNotifier {
    shared: Arc<SharedState>,
    worker: usize,
    slot: u32,
    sent: bool,
}

impl CommitNotifier {
    fn notify(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.sent, true) {
            self.shared.mail[self.worker].push(Mail::CommitNotice(CommitNotice { slot: self.slot, outcome }));
        }
    }
}

impl Drop for CommitNotifier {
    fn drop(&mut self) {
        self.notify(Err(CommitError::Unavailable));
    }
}
