//! The commit queue: items that wait to be committed. A tenant's log end moves under its lock, so queue and
//! sequences agree on the order.
//!
//! * It is bounded by permits that are acquired first ([`Permit`]), and for rows alone by [`WAITING_ROWS`].
//! * Pushing never waits for the disk: both sides hold the lock only to move a few items.
//! * A commit starts at once if somebody waits for an item. Otherwise it waits a little, so that more items
//!   share it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::frame::Frame;
use crate::store::log::{Permit, TenantLog};
use crate::store::rows::{CommitGuard, Rows};
use crate::store::stats::Stats;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Limit on the bytes of events and rows in one commit; the rest waits for the next. It bounds a batch's
/// memory and latency.
const COMMIT_BYTES: usize = 8 << 20;
/// How long events without a waiter stay out of a commit. Each commit costs a dozen thread switches and an
/// fsync.
const COMMIT_DELAY: Duration = Duration::from_millis(4);
/// Bytes of such events that start a commit.
const COMMIT_DELAY_BYTES: usize = 1 << 20;

/// Limit on waiting items above which rows without a permit are refused. Events are bounded by their permits.
const WAITING_ROWS: usize = 64 * 1024;

/// Why a commit failed. Nothing was stored, unless it is [`CommitError::Unknown`]. Subscribers may have
/// received the events before, so a publisher is answered that the outcome is unknown, unless it is
/// [`CommitError::Deleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk failed during the commit. The commit may or may not exist after the store has been opened
    /// again.
    #[error("the commit failed; whether it took place is unknown")]
    Unknown,
    /// The store accepts no writes now.
    #[error("the store cannot be written now")]
    Unavailable,
    /// The organization, or a user on whose behalf this was, had been deleted.
    #[error("the organization, or the user on whose behalf this is, was deleted")]
    Deleted,
    /// The frames do not follow the log's end, because a new epoch started.
    #[error("the sequence is not the log's next")]
    OutOfOrder,
    /// An event is larger than the store accepts: the limits in front of the store are wrong.
    #[error("an event is too large to be stored")]
    TooLarge,
}

/// How to report the result of a commit. It runs on the committer's thread and must be quick. A store that
/// has closed drops it without a report.
pub enum CommitCallback {
    /// No report.
    None,
    /// Calls a function.
    Call(Box<dyn FnOnce(Result<(), CommitError>) + Send>),
    /// Sends to a waiting task.
    Send(oneshot::Sender<Result<(), CommitError>>),
}

impl CommitCallback {
    /// A report that calls `f`.
    pub fn call(f: impl FnOnce(Result<(), CommitError>) + Send + 'static) -> CommitCallback {
        CommitCallback::Call(Box::new(f))
    }
    /// A report that a task can await.
    #[must_use]
    pub fn channel() -> (CommitCallback, oneshot::Receiver<Result<(), CommitError>>) {
        let (send, receive) = oneshot::channel();
        (CommitCallback::Send(send), receive)
    }
    /// Calls `first` with the result, then makes this report.
    #[must_use]
    pub fn after(self, first: impl FnOnce(Result<(), CommitError>) + Send + 'static) -> CommitCallback {
        CommitCallback::call(move |result| {
            first(result);
            self.call_with(result);
        })
    }
    pub(super) fn call_with(self, result: Result<(), CommitError>) {
        match self {
            CommitCallback::None => {}
            // A panic in one listener must not end the committer, which everything depends on.
            CommitCallback::Call(f) => drop(catch_unwind(AssertUnwindSafe(|| f(result)))),
            CommitCallback::Send(send) => drop(send.send(result)), // the waiter may have gone
        }
    }
}

/// Sealed frames with consecutive sequences. A single one needs no list.
pub enum Frames {
    /// One event.
    One(Arc<Frame>),
    /// Several; at least one.
    Many(Vec<Arc<Frame>>),
}

impl Frames {
    /// The frames in order.
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

/// The events of one publish.
pub(crate) struct Append {
    pub(crate) log: Arc<TenantLog>,
    pub(crate) frames: Frames,
    /// Released when the item is dropped.
    pub(crate) _permit: Option<Permit>,
}

/// One item to commit.
pub(crate) struct Item {
    pub(crate) append: Option<Append>,
    pub(crate) rows: Rows,
    pub(crate) done: CommitCallback,
    /// Estimated memory of its events and rows, plus a constant for the item.
    bytes: usize,
    /// Nobody waits for this item.
    is_unawaited: bool,
    /// Room that rows without events have waited for; released when the item is dropped.
    room: Option<Permit>,
    /// Dropped with the item, after the result was reported.
    _held: Vec<CommitGuard>,
    /// Refused when it was pushed. The committer's thread reports it, because the caller may hold its
    /// tenant's lock.
    pub(crate) refused: Option<CommitError>,
}

impl Item {
    pub(crate) fn new(append: Option<Append>, mut rows: Rows, done: CommitCallback) -> Item {
        let frames = append.as_ref().map_or(&[][..], |append| append.frames.as_slice());
        let bytes = frames.iter().map(|frame| frame.size()).sum::<usize>() + rows.weight() + 256;
        let is_unawaited = append.is_some() && rows.is_empty() && matches!(done, CommitCallback::None);
        let _held = rows.take_guards();
        Item { append, rows, done, bytes, is_unawaited, room: None, _held, refused: None }
    }

    /// Rows without events for which there is room.
    pub(crate) fn with_room(rows: Rows, room: Permit, done: CommitCallback) -> Item {
        Item { room: Some(room), ..Item::new(None, rows, done) }
    }
}

/// The queue's data, behind its lock.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) items: VecDeque<Item>,
    /// Bytes of the items.
    bytes: usize,
    /// Somebody waits for one of the items.
    has_awaited: bool,
    /// Every item is refused with this error while a failed commit is being handled. Written by the
    /// committer.
    pub(crate) refuse: Option<CommitError>,
    /// The store closes once the queue is empty.
    pub(crate) closing: bool,
    /// The committer has ended, so nothing more can be reported.
    pub(crate) ended: bool,
}

impl Pending {
    fn needs_commit_now(&self) -> bool {
        self.has_awaited || self.bytes >= COMMIT_DELAY_BYTES
    }

    /// Takes all items.
    pub(super) fn take_all(&mut self) -> VecDeque<Item> {
        (self.bytes, self.has_awaited) = (0, false);
        std::mem::take(&mut self.items)
    }
}

/// The commit queue.
pub(crate) struct Queue {
    waiting: Mutex<Pending>,
    wake: Condvar,
    stats: Arc<Stats>,
}

impl Queue {
    pub(crate) fn new(stats: Arc<Stats>) -> Queue {
        Queue { waiting: Mutex::default(), wake: Condvar::default(), stats }
    }

    /// Enqueues `item` and moves its log's end. Refuses the item if its frames do not follow that end.
    pub(crate) fn push(&self, mut item: Item) {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return;
        }
        item.refused = waiting.refuse;
        let has_room = item.append.is_some() || item.room.is_some();
        if waiting.closing || (!has_room && waiting.items.len() >= WAITING_ROWS) {
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
        let was_worth_it = waiting.needs_commit_now();
        waiting.bytes += item.bytes;
        waiting.has_awaited |= !item.is_unawaited;
        waiting.items.push_back(item);
        self.stats.queued.store(waiting.items.len() as u64, Relaxed);
        // The committer sleeps only on a queue that is empty or not yet worth a commit.
        if waiting.items.len() == 1 || (!was_worth_it && waiting.needs_commit_now()) {
            self.wake.notify_one();
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Pending> {
        self.waiting.lock()
    }

    /// Returns true if the store is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.waiting.lock().closing
    }
    /// Makes the committer finish the waiting items and end.
    pub(crate) fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_all();
    }

    /// Moves the items of the next commit into `into`, after waiting up to `patience` for any. Returns
    /// whether the store is closing.
    pub(crate) fn take(&self, patience: Duration, into: &mut VecDeque<Item>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.items.is_empty() && !waiting.closing && !patience.is_zero() {
            (waiting, _) = self.wake.wait_for(waiting, patience);
        }
        let until = Instant::now() + COMMIT_DELAY;
        while !waiting.items.is_empty() && !waiting.closing && !waiting.needs_commit_now() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (waiting, _) = self.wake.wait_for(waiting, left);
        }
        if waiting.bytes <= COMMIT_BYTES {
            // Two buffers are swapped: moving thousands of items would delay publishers.
            std::mem::swap(&mut waiting.items, into);
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
        waiting.has_awaited &= !waiting.items.is_empty();
        self.stats.queued.store(waiting.items.len() as u64, Relaxed);
        waiting.closing
    }

    /// Waits for `patience` and refuses items that arrive meanwhile. Returns whether the store is closing.
    pub(crate) fn pause(&self, patience: Duration) -> bool {
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
                item.done.call_with(Err(item.refused.unwrap_or(CommitError::Unavailable)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;
    use crate::ids::{Sequence, TenantId};
    use crate::store::format::LogCounters;

    const EVENT: &str = r#"{"type":"custom","channel":"c","data":1}"#;

    struct Bench {
        queue: Queue,
        log: Arc<TenantLog>,
    }

    impl Bench {
        fn new() -> Bench {
            let log = Arc::new(TenantLog::new(TenantId(1), 1, &LogCounters::default(), u32::MAX));
            Bench { queue: Queue::new(Arc::default()), log }
        }

        fn publish(&self, done: CommitCallback) {
            let frames = Arc::new(frame(EVENT, self.log.end().next().0)).into();
            let append = Append { log: self.log.clone(), frames, _permit: None };
            self.queue.push(Item::new(Some(append), Rows::default(), done));
        }

        fn needs_commit_now(&self) -> bool {
            self.queue.lock().needs_commit_now()
        }

        fn take(&self) -> usize {
            let mut items = VecDeque::new();
            self.queue.take(Duration::ZERO, &mut items);
            assert!(items.iter().all(|item| item.refused.is_none()));
            items.len()
        }
    }

    #[test]
    fn unawaited_items_join_the_commit_of_awaited_ones() {
        let bench = Bench::new();
        bench.publish(CommitCallback::None);
        bench.publish(CommitCallback::None);
        assert!(!bench.needs_commit_now());
        bench.publish(CommitCallback::channel().0);
        bench.publish(CommitCallback::None);
        assert!(bench.needs_commit_now());
        assert_eq!(bench.take(), 4);
        bench.publish(CommitCallback::None);
        assert!(!bench.needs_commit_now(), "nobody waits for the next commit yet");
        assert_eq!(bench.take(), 1, "the commit happens anyway");
    }

    #[test]
    fn enough_bytes_start_a_commit_without_a_waiter() {
        let bench = Bench::new();
        while !bench.needs_commit_now() {
            bench.publish(CommitCallback::None);
        }
        assert!(bench.queue.lock().bytes >= COMMIT_DELAY_BYTES);
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
            bench.queue.push(Item::new(None, rows(), CommitCallback::channel().0));
        }
        assert!((many / 2 - 2..=many / 2).contains(&bench.take()), "half of them");
    }

    #[test]
    fn a_commit_takes_no_more_than_its_bytes_and_the_rest_keeps_its_order() {
        let bench = Bench::new();
        while bench.queue.lock().bytes <= COMMIT_BYTES + 64 * 1024 {
            bench.publish(CommitCallback::None);
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
