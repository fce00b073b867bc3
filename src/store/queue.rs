//! What waits to be committed. Its lock is where a tenant's end moves, so queue and sequence agree on order.
//!
//! * Bounded by the permits taken before ([`super::log`]), and for rows alone by [`WAITING_ROWS`].
//! * Pushing never blocks on the disk: the lock is held for a few moves, on both sides.
//! * A commit begins at once where somebody waits for it. Where nobody does, it waits a little for more to come along.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log::{Permit, TenantLog};
use super::rows::{Held, Rows};
use super::stats::Stats;
use crate::frame::Frame;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Bytes of events and rows taken into one commit; more waits for the next. Bounds a batch's memory and its latency.
const COMMIT_BYTES: usize = 8 << 20;
/// How long events that nobody waits for stay out of a commit: each commit costs a dozen thread switches and an fsync.
const UNHURRIED: Duration = Duration::from_millis(4);
/// Bytes of such events that are a commit's worth.
const UNHURRIED_BYTES: usize = 1 << 20;

/// Most items that may wait before rows without events are refused; events are bounded by their permits.
const WAITING_ROWS: usize = 64 * 1024;

/// Why a commit did not happen, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk failed under it: it may be found done after the store has reopened, or not.
    #[error("the commit failed; whether it took place is unknown")]
    Unknown,
    /// The store takes nothing now; nothing was done.
    #[error("the store cannot be written now")]
    Unavailable,
    /// The organization, or a user in whose name it was, was deleted before. Nothing was written.
    #[error("the organization, or the user in whose name this is, was deleted")]
    Deleted,
    /// The frames do not follow the log's end: an epoch began in between. Nothing was written.
    #[error("the sequence is not the log's next")]
    OutOfOrder,
    /// An event is larger than the store takes; the limits in front of it are wrong. It was not written.
    #[error("an event is too large to be stored")]
    TooLarge,
}

/// Whom to tell how a commit ended. Runs on the committer's thread and must be quick; dropped untold by a store that has
/// closed.
pub enum Done {
    /// Nobody.
    Nobody,
    /// A function.
    Call(Box<dyn FnOnce(Result<(), CommitError>) + Send>),
    /// A waiting task.
    Send(oneshot::Sender<Result<(), CommitError>>),
}

impl Done {
    /// One that calls `f`.
    pub fn call(f: impl FnOnce(Result<(), CommitError>) + Send + 'static) -> Done {
        Done::Call(Box::new(f))
    }
    /// One that a task can await.
    #[must_use]
    pub fn channel() -> (Done, oneshot::Receiver<Result<(), CommitError>>) {
        let (send, receive) = oneshot::channel();
        (Done::Send(send), receive)
    }
    /// `first` hears of it, then this.
    #[must_use]
    pub fn after(self, first: impl FnOnce(Result<(), CommitError>) + Send + 'static) -> Done {
        Done::call(move |result| {
            first(result);
            self.tell(result);
        })
    }
    pub(super) fn tell(self, result: Result<(), CommitError>) {
        match self {
            Done::Nobody => {}
            // A defect of one listener must not end the committer, on which everybody waits.
            Done::Call(f) => drop(catch_unwind(AssertUnwindSafe(|| f(result)))),
            Done::Send(send) => drop(send.send(result)), // whoever waited may have gone
        }
    }
}

/// Sealed frames with consecutive sequences; one needs no list.
pub enum Frames {
    /// One event.
    One(Arc<Frame>),
    /// Several; at least one.
    Many(Vec<Arc<Frame>>),
}

impl Frames {
    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Frame>] {
        match self {
            Frames::One(frame) => std::slice::from_ref(frame),
            Frames::Many(frames) => frames,
        }
    }
}

impl From<Arc<Frame>> for Frames {
    fn from(frame: Arc<Frame>) -> Frames {
        Frames::One(frame)
    }
}

impl From<Vec<Arc<Frame>>> for Frames {
    fn from(frames: Vec<Arc<Frame>>) -> Frames {
        Frames::Many(frames)
    }
}

/// Events of one publish, on their way.
pub(super) struct Append {
    pub(super) log: Arc<TenantLog>,
    pub(super) frames: Frames,
    /// Given back when the item goes.
    pub(super) _permit: Option<Permit>,
}

/// One thing to commit.
pub(super) struct Item {
    pub(super) append: Option<Append>,
    pub(super) rows: Rows,
    pub(super) done: Done,
    /// Of its events and rows in memory, and something for itself.
    bytes: usize,
    /// Nobody waits for it.
    unhurried: bool,
    /// Dropped with the item, when everybody was told.
    _held: Vec<Held>,
    /// Refused at the door; told on the committer's thread, since the one who pushed may hold its tenant's lock.
    pub(super) refused: Option<CommitError>,
}

impl Item {
    pub(super) fn new(append: Option<Append>, mut rows: Rows, done: Done) -> Item {
        let frames = append.as_ref().map_or(&[][..], |append| append.frames.as_slice());
        let bytes = frames.iter().map(|frame| frame.size()).sum::<usize>() + rows.weight() + 256;
        let unhurried = append.is_some() && rows.is_empty() && matches!(done, Done::Nobody);
        let _held = rows.take_held();
        Item { append, rows, done, bytes, unhurried, _held, refused: None }
    }
}

/// The queue behind its lock.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) items: VecDeque<Item>,
    /// Their bytes.
    bytes: usize,
    /// Somebody waits for one of them.
    hurried: bool,
    /// Nothing is taken while a failed commit is being dealt with. Written by the committer.
    pub(super) refuse: Option<CommitError>,
    /// The store closes when the queue is empty.
    pub(super) closing: bool,
    /// The committer has gone: nobody would tell anyone anything.
    pub(super) ended: bool,
}

impl Waiting {
    fn is_worth_a_commit(&self) -> bool {
        self.hurried || self.bytes >= UNHURRIED_BYTES
    }

    /// Empties it.
    pub(super) fn take_all(&mut self) -> VecDeque<Item> {
        (self.bytes, self.hurried) = (0, false);
        std::mem::take(&mut self.items)
    }
}

/// The queue.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    stats: Arc<Stats>,
}

impl Queue {
    pub(super) fn new(stats: Arc<Stats>) -> Queue {
        Queue { waiting: Mutex::default(), wake: Condvar::default(), stats }
    }

    /// Enqueues `item` and moves its log's end; refuses it instead if it does not follow.
    pub(super) fn push(&self, mut item: Item) {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return;
        }
        item.refused = waiting.refuse;
        if waiting.closing || (item.append.is_none() && waiting.items.len() >= WAITING_ROWS) {
            item.refused = Some(CommitError::Unavailable);
        }
        if let (Some(append), None) = (&item.append, item.refused) {
            let frames = append.frames.as_slice();
            let mut next = append.log.end().next();
            for frame in frames {
                if frame.sequence() != next {
                    item.refused = Some(CommitError::OutOfOrder);
                    break;
                }
                next = next.next();
            }
            if let (Some(last), None) = (frames.last(), item.refused) {
                append.log.end.store(last.sequence().0, Release);
                append.log.last_received_ms.fetch_max(last.received_ms(), Release);
            }
        }
        let was_worth_it = waiting.is_worth_a_commit();
        waiting.bytes += item.bytes;
        waiting.hurried |= !item.unhurried;
        waiting.items.push_back(item);
        self.stats.queued.store(waiting.items.len() as u64, Relaxed);
        // The committer only sleeps on an empty queue, or on one that is not worth a commit yet.
        if waiting.items.len() == 1 || (!was_worth_it && waiting.is_worth_a_commit()) {
            self.wake.notify_one();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Whether the store closes.
    pub(super) fn is_closing(&self) -> bool {
        self.waiting.lock().closing
    }
    /// Lets the committer finish what waits, and end.
    pub(super) fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_all();
    }

    /// What the next commit takes, after waiting up to `patience` for anything; whether the store closes.
    pub(super) fn take(&self, patience: Duration, into: &mut VecDeque<Item>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.items.is_empty() && !waiting.closing && !patience.is_zero() {
            (waiting, _) = self.wake.wait_for(waiting, patience);
        }
        let until = Instant::now() + UNHURRIED;
        while !waiting.items.is_empty() && !waiting.closing && !waiting.is_worth_a_commit() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (waiting, _) = self.wake.wait_for(waiting, left);
        }
        if waiting.bytes <= COMMIT_BYTES {
            std::mem::swap(&mut waiting.items, into); // two buffers in turn: thousands of moves would hold publishers up
            waiting.bytes = 0;
        } else {
            let mut bytes = 0;
            while bytes < COMMIT_BYTES
                && let Some(item) = waiting.items.pop_front()
            {
                bytes += item.bytes;
                into.push_back(item);
            }
            waiting.bytes -= bytes;
        }
        waiting.hurried &= !waiting.items.is_empty();
        self.stats.queued.store(waiting.items.len() as u64, Relaxed);
        waiting.closing
    }

    /// Waits for `patience`, telling who comes meanwhile that they are refused; whether the store closes.
    pub(super) fn pause(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let mut waiting = self.waiting.lock();
            let refused = waiting.take_all();
            if refused.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                if waiting.closing || left.is_zero() {
                    return waiting.closing;
                }
                drop(self.wake.wait_for(waiting, left));
                continue;
            }
            drop(waiting);
            for item in refused {
                item.done.tell(Err(item.refused.unwrap_or(CommitError::Unavailable)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;
    use crate::ids::{Sequence, TenantId};
    use crate::store::recover::Recovered;

    const EVENT: &str = r#"{"type":"custom","channel":"c","data":1}"#;

    struct Bench {
        queue: Queue,
        log: Arc<TenantLog>,
    }

    impl Bench {
        fn new() -> Bench {
            let log = Arc::new(TenantLog::new(TenantId(1), 1, &Recovered::default(), u32::MAX));
            Bench { queue: Queue::new(Arc::default()), log }
        }

        fn publish(&self, done: Done) {
            let frames = Arc::new(frame(EVENT, self.log.end().next().0)).into();
            let append = Append { log: self.log.clone(), frames, _permit: None };
            self.queue.push(Item::new(Some(append), Rows::default(), done));
        }

        fn is_worth_a_commit(&self) -> bool {
            self.queue.lock().is_worth_a_commit()
        }

        fn take(&self) -> usize {
            let mut items = VecDeque::new();
            self.queue.take(Duration::ZERO, &mut items);
            assert!(items.iter().all(|item| item.refused.is_none()));
            items.len()
        }
    }

    #[test]
    fn what_nobody_waits_for_goes_with_what_somebody_does() {
        let bench = Bench::new();
        bench.publish(Done::Nobody);
        bench.publish(Done::Nobody);
        assert!(!bench.is_worth_a_commit());
        bench.publish(Done::channel().0);
        bench.publish(Done::Nobody);
        assert!(bench.is_worth_a_commit());
        assert_eq!(bench.take(), 4);
        bench.publish(Done::Nobody);
        assert!(!bench.is_worth_a_commit(), "the next commit is nobody's yet");
        assert_eq!(bench.take(), 1, "but it comes all the same");
    }

    #[test]
    fn many_bytes_are_worth_a_commit_by_themselves() {
        let bench = Bench::new();
        while !bench.is_worth_a_commit() {
            bench.publish(Done::Nobody);
        }
        assert!(bench.queue.lock().bytes >= UNHURRIED_BYTES);
        assert!(bench.take() > 100);
        assert_eq!(bench.queue.lock().bytes, 0);
    }

    #[test]
    fn rows_count_as_bytes_of_a_commit_too() {
        let bench = Bench::new();
        let rows = || {
            let mut rows = Rows::new();
            rows.put_secret("name", &[0; 64 * 1024]).expect("short");
            rows
        };
        let many = 2 * COMMIT_BYTES / (64 * 1024);
        for _ in 0..many {
            bench.queue.push(Item::new(None, rows(), Done::channel().0));
        }
        assert!((many / 2 - 2..=many / 2).contains(&bench.take()), "half of them");
    }

    #[test]
    fn a_commit_takes_no_more_than_its_bytes_and_the_rest_keeps_its_order() {
        let bench = Bench::new();
        while bench.queue.lock().bytes <= COMMIT_BYTES + 64 * 1024 {
            bench.publish(Done::Nobody);
        }
        let all = bench.queue.lock().items.len();
        let first = bench.take();
        assert!(first < all);
        let left = bench
            .queue
            .lock()
            .items
            .front()
            .and_then(|item| item.append.as_ref().map(|append| append.frames.as_slice()[0].sequence()));
        let began = Sequence(bench.log.end().0 - all as u64);
        assert_eq!(left, Some(Sequence(began.0 + first as u64 + 1)));
        assert_eq!(first + bench.take(), all);
    }
}
