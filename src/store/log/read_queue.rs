//! The read queue: each organization has queues of its own, and organizations are served in turns.
//!
//! * There are two lanes. Short reads may use any thread. Long ones (searches and intersections) use at most
//!   [`LONG_AT_ONCE`] of them, and release their thread after each slice of their work.
//! * At most one job of an organization runs in a lane, so at most one thread scans its log.
//! * The number of waiting jobs of an organization is bounded, and jobs whose caller has gone are skipped.
//! * This module knows jobs and positions, not what they read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::log_read::{LogRead, ReadError, failed};
use super::tenant_log::TenantLog;
use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Engine, EngineError};
use crate::sync::{Condvar, Mutex};

/// Number of threads that read the disk.
pub(crate) const READERS: usize = 4;
/// Limit on the threads that long reads use; the others are kept for short ones.
const LONG_AT_ONCE: usize = READERS / 2;
/// Limit on waiting reads: somewhat more than a machine has connections. It keeps the queues bounded when
/// many clients return at once.
const WAITING: usize = 1 << 18;
/// Limit on waiting short reads of one organization: of its requests and publishes.
pub const SHORT_WAITING: usize = 1 << 14;
/// Limit on waiting long reads of one organization.
pub const LONG_WAITING: usize = 64;
/// Limit on readers of one organization that wait for a stretch of its log. A subscriber above it tries
/// again.
const LOG_WAITING: usize = 1 << 16;

/// A read that runs on a reader thread.
pub(crate) trait Job: Send {
    /// Runs one slice; returns true at the end. The engine is `None` if the database is not open.
    fn run(&mut self, engine: Option<&Engine>) -> bool;
    /// Returns true if nobody waits for the result any more.
    fn is_abandoned(&self) -> bool;
}

/// A job that sends its result. It returns `None` while work remains for another slice.
pub(crate) struct ReplyJob<T, F> {
    pub(super) reply: Option<oneshot::Sender<Result<T, ReadError>>>,
    pub(crate) task: F,
}

impl<T: Send, F: FnMut(&Engine) -> Result<Option<T>, EngineError> + Send> Job for ReplyJob<T, F> {
    fn run(&mut self, engine: Option<&Engine>) -> bool {
        let result = match engine {
            Some(engine) => (self.task)(engine).map_err(failed).transpose(),
            None => Some(Err(ReadError::Unavailable)),
        };
        let Some(result) = result else { return false };
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(result); // the caller may have gone
        }
        true
    }

    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A reader that waits for the events after a position.
pub(crate) struct LogWaiter {
    pub(crate) log: Arc<TenantLog>,
    pub(super) reply: oneshot::Sender<Result<LogRead, ReadError>>,
}

/// Which threads a read may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LaneKind {
    Short,
    Long,
}

/// The next work of a thread.
pub(crate) enum ReadTask {
    Job(LaneKind, Box<dyn Job>),
    /// All readers that wait at one position.
    Log(Sequence, Vec<LogWaiter>),
}

/// The waiting work of one organization in a lane.
#[derive(Default)]
struct TenantQueue {
    jobs: VecDeque<Box<dyn Job>>,
    logs: BTreeMap<Sequence, Vec<LogWaiter>>,
    /// Number of entries in all `logs`.
    log_waiters: usize,
    /// The log is read from here on, and from its beginning after its end. So a position is skipped at most
    /// once.
    log_at: Sequence,
    /// Whether the log is next: jobs and the log alternate.
    log_is_next: bool,
}

impl TenantQueue {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.logs.is_empty()
    }

    /// Takes the next work. Also returns the number of entries removed with it.
    fn next(&mut self, kind: LaneKind) -> (Option<ReadTask>, usize) {
        let mut gone = 0;
        self.log_is_next = !self.log_is_next;
        if (self.log_is_next || self.jobs.is_empty()) && !self.logs.is_empty() {
            while let Some((after, waiters)) = self.next_position() {
                gone += waiters.len();
                self.log_waiters -= waiters.len();
                let waiting: Vec<_> = waiters.into_iter().filter(|it| !it.reply.is_closed()).collect();
                if !waiting.is_empty() {
                    return (Some(ReadTask::Log(after, waiting)), gone);
                }
            }
        }
        while let Some(job) = self.jobs.pop_front() {
            gone += 1;
            if !job.is_abandoned() {
                return (Some(ReadTask::Job(kind, job)), gone);
            }
        }
        if self.logs.is_empty() {
            return (None, gone);
        }
        self.log_is_next = false;
        let (work, more) = self.next(kind);
        (work, gone + more)
    }

    fn next_position(&mut self) -> Option<(Sequence, Vec<LogWaiter>)> {
        let after =
            self.logs.range(self.log_at..).next().or_else(|| self.logs.iter().next()).map(|it| *it.0)?;
        self.log_at = after.next();
        self.logs.remove_entry(&after)
    }
}

/// The organizations with waiting or running work in a lane.
#[derive(Default)]
struct Lane {
    tenants: HashMap<TenantId, TenantQueue>,
    /// Organizations with waiting work and no running work, each once.
    turns: VecDeque<TenantId>,
}

impl Lane {
    fn queue(&mut self, tenant: TenantId) -> &mut TenantQueue {
        self.tenants.entry(tenant).or_insert_with(|| {
            self.turns.push_back(tenant);
            TenantQueue::default()
        })
    }

    /// Takes the next organization's next work. The organization gets no other turn until [`Lane::done`].
    fn next(&mut self, kind: LaneKind, len: &mut usize) -> Option<(TenantId, ReadTask)> {
        while let Some(tenant) = self.turns.pop_front() {
            let Some(queue) = self.tenants.get_mut(&tenant) else { continue };
            let (work, gone) = queue.next(kind);
            *len -= gone;
            match work {
                Some(work) => return Some((tenant, work)),
                None => drop(self.tenants.remove(&tenant)),
            }
        }
        None
    }

    /// Marks the organization's work as done. Returns whether it has more, which waits for its next turn.
    fn done(&mut self, tenant: TenantId) -> bool {
        match self.tenants.get(&tenant).is_none_or(TenantQueue::is_empty) {
            true => drop(self.tenants.remove(&tenant)),
            false => self.turns.push_back(tenant),
        }
        self.tenants.contains_key(&tenant)
    }
}

#[derive(Default)]
struct WaitingReads {
    short: Lane,
    long: Lane,
    /// Number of running long reads.
    long_under_way: usize,
    /// Number of entries in all queues.
    len: usize,
    closed: bool,
}

/// The queues of a thread pool.
#[derive(Default)]
pub(crate) struct ReadQueue {
    waiting: Mutex<WaitingReads>,
    wake: Condvar,
}

impl ReadQueue {
    /// Ends the threads. The dropped replies answer waiting reads with `Unavailable`.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock();
        *waiting = WaitingReads { closed: true, ..WaitingReads::default() };
        self.wake.notify_all();
    }

    pub(crate) fn push(&self, tenant: TenantId, kind: LaneKind, job: Box<dyn Job>) -> Result<(), ReadError> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.open()?;
        let (lane, most) = match kind {
            LaneKind::Short => (&mut waiting.short, SHORT_WAITING),
            LaneKind::Long => (&mut waiting.long, LONG_WAITING),
        };
        let queue = lane.queue(tenant);
        if queue.jobs.len() >= most {
            // Only abandoned long reads are removed here: they make room at once, and there are few to check.
            if kind == LaneKind::Long {
                let before = queue.jobs.len();
                queue.jobs.retain(|job| !job.is_abandoned());
                waiting.len -= before - queue.jobs.len();
            }
            if queue.jobs.len() >= most {
                return Err(ReadError::OverShare);
            }
        }
        queue.jobs.push_back(job);
        waiting.len += 1;
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn push_log(&self, after: Sequence, waiter: LogWaiter) -> Result<(), ReadError> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.open()?;
        let queue = waiting.short.queue(waiter.log.tenant());
        if queue.log_waiters >= LOG_WAITING {
            return Err(ReadError::OverShare);
        }
        queue.log_waiters += 1;
        queue.logs.entry(after).or_default().push(waiter);
        waiting.len += 1;
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for work; `None` when the pool ends. Each work is followed by [`ReadQueue::done`].
    pub(crate) fn next(&self) -> Option<(TenantId, ReadTask)> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let lanes = &mut *waiting;
            // Long reads come first: they use only some of the threads, and would wait forever behind short
            // ones.
            if lanes.long_under_way < LONG_AT_ONCE
                && let Some(work) = lanes.long.next(LaneKind::Long, &mut lanes.len)
            {
                lanes.long_under_way += 1;
                return Some(work);
            }
            if let Some(work) = lanes.short.next(LaneKind::Short, &mut lanes.len) {
                return Some(work);
            }
            waiting = self.wake.wait(waiting);
        }
    }

    /// Marks the work of an organization in a lane as done, except for the slices of `unfinished`, which
    /// follow in its next turns.
    pub(crate) fn done(&self, tenant: TenantId, kind: LaneKind, unfinished: Option<Box<dyn Job>>) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        let lanes = &mut *waiting;
        let lane = match kind {
            LaneKind::Short => &mut lanes.short,
            LaneKind::Long => {
                lanes.long_under_way -= 1;
                &mut lanes.long
            }
        };
        if let Some(job) = unfinished
            && let Some(queue) = lane.tenants.get_mut(&tenant)
        {
            queue.jobs.push_front(job);
            lanes.len += 1;
        }
        if lane.done(tenant) {
            self.wake.notify_one();
        }
    }

    /// Takes every reader of `tenant` that waits before `oldest`, or from `after` up to before `last`. It is
    /// for the thread that has read that stretch.
    pub(super) fn take_waiters(
        &self,
        tenant: TenantId,
        oldest: Sequence,
        (after, last): (Sequence, Sequence),
    ) -> Vec<(Sequence, LogWaiter)> {
        let mut waiting = self.waiting.lock();
        let lanes = &mut *waiting;
        let Some(queue) = lanes.short.tenants.get_mut(&tenant) else { return Vec::new() };
        let stretches = [(Sequence::ZERO, oldest), (after.max(oldest), last)];
        let positions: Vec<Sequence> = stretches
            .into_iter()
            .filter(|(from, to)| from < to)
            .flat_map(|(from, to)| queue.logs.range(from..to).map(|(position, _)| *position))
            .collect();
        let mut taken = Vec::new();
        for position in positions {
            let waiters = queue.logs.remove(&position).unwrap_or_default();
            taken.extend(waiters.into_iter().map(|waiter| (position, waiter)));
        }
        queue.log_waiters -= taken.len();
        lanes.len -= taken.len();
        taken
    }
}

impl WaitingReads {
    fn open(&mut self) -> Result<&mut WaitingReads, ReadError> {
        match (self.closed, self.len >= WAITING) {
            (true, _) => Err(ReadError::Unavailable),
            (false, true) => Err(ReadError::Busy),
            (false, false) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::LogCounters;

    /// A job with this many slices, which sends its number as its name, and its waiter.
    struct Sliced(u32, oneshot::Sender<()>);

    impl Job for Sliced {
        fn run(&mut self, _: Option<&Engine>) -> bool {
            self.0 -= 1;
            self.0 == 0
        }
        fn is_abandoned(&self) -> bool {
            self.1.is_closed()
        }
    }

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);
    const C: TenantId = TenantId(3);

    fn push(queue: &ReadQueue, tenant: TenantId, kind: LaneKind, slices: u32) -> oneshot::Receiver<()> {
        let (reply, waits) = oneshot::channel();
        queue.push(tenant, kind, Box::new(Sliced(slices, reply))).expect("room");
        waits
    }

    /// Takes the next job, which must exist.
    fn next(queue: &ReadQueue) -> (TenantId, LaneKind, Box<dyn Job>) {
        match queue.next().expect("open") {
            (tenant, ReadTask::Job(kind, job)) => (tenant, kind, job),
            (_, ReadTask::Log(..)) => panic!("a job is next"),
        }
    }

    /// Runs a slice of the next job. Returns its tenant.
    fn serve(queue: &ReadQueue) -> TenantId {
        let (tenant, kind, mut job) = next(queue);
        let unfinished = (!job.run(None)).then_some(job);
        queue.done(tenant, kind, unfinished);
        tenant
    }

    #[test]
    fn organizations_take_turns_however_many_reads_one_has_queued() {
        let queue = ReadQueue::default();
        let _waits: Vec<_> = [A, A, A, B, C].map(|it| push(&queue, it, LaneKind::Short, 1)).into();
        assert_eq!([(); 5].map(|()| serve(&queue)), [A, B, C, A, A]);
        assert!(queue.waiting.lock().short.tenants.is_empty());
        assert_eq!(queue.waiting.lock().len, 0);
    }

    #[test]
    fn a_long_read_releases_its_thread_after_each_slice() {
        let queue = ReadQueue::default();
        let _waits = [push(&queue, A, LaneKind::Long, 3), push(&queue, A, LaneKind::Long, 1)];
        let _other = push(&queue, B, LaneKind::Long, 1);
        assert_eq!([(); 5].map(|()| serve(&queue)), [A, B, A, A, A]);
        assert_eq!(queue.waiting.lock().len, 0);
    }

    #[test]
    fn an_organization_runs_one_read_of_a_lane_and_long_reads_leave_threads_free() {
        let queue = ReadQueue::default();
        let _long: Vec<_> = [A, A, B, C].map(|it| push(&queue, it, LaneKind::Long, 1)).into();
        let _short = [push(&queue, A, LaneKind::Short, 1), push(&queue, B, LaneKind::Short, 1)];
        let taken = [(); 4].map(|()| next(&queue)).map(|(tenant, kind, _)| (tenant, kind));
        let expected = [(A, LaneKind::Long), (B, LaneKind::Long), (A, LaneKind::Short), (B, LaneKind::Short)];
        assert_eq!(taken, expected);
        queue.done(A, LaneKind::Long, None);
        assert_eq!(next(&queue).0, C, "an organization that waits comes before one that has had a turn");
    }

    #[test]
    fn an_organization_over_its_share_is_refused_and_abandoned_reads_leave_the_queue() {
        let queue = ReadQueue::default();
        let waits: Vec<_> = (0..LONG_WAITING).map(|_| push(&queue, A, LaneKind::Long, 1)).collect();
        // A running job that continues with another slice comes before them.
        let (tenant, kind, job) = next(&queue);
        let more = push(&queue, A, LaneKind::Long, 1);
        queue.done(tenant, kind, Some(job));
        let (reply, _waits) = oneshot::channel();
        let refused = queue.push(A, LaneKind::Long, Box::new(Sliced(1, reply)));
        assert_eq!(refused, Err(ReadError::OverShare));
        drop(more);
        let _other = push(&queue, B, LaneKind::Long, 1);
        drop(waits);
        let _room = push(&queue, A, LaneKind::Long, 1);
        assert_eq!((serve(&queue), serve(&queue), queue.waiting.lock().len), (A, B, 0));
        // Abandoned jobs that are still queued are skipped.
        drop(push(&queue, A, LaneKind::Short, 1));
        let _last = push(&queue, B, LaneKind::Short, 1);
        assert_eq!((serve(&queue), queue.waiting.lock().len), (B, 0));
        queue.close();
        assert!(queue.next().is_none());
        let (reply, _waits) = oneshot::channel();
        let closed = queue.push(A, LaneKind::Short, Box::new(Sliced(1, reply)));
        assert_eq!(closed, Err(ReadError::Unavailable));
    }

    #[test]
    fn readers_of_a_log_are_served_by_position_and_in_turn_with_jobs() {
        let queue = ReadQueue::default();
        let log = Arc::new(TenantLog::new(A, 1, &LogCounters::default(), u32::MAX));
        let mut replies = Vec::new();
        let mut wait = |after: u64| {
            let (reply, answer) = oneshot::channel();
            replies.push(answer);
            queue.push_log(Sequence(after), LogWaiter { log: log.clone(), reply }).expect("room");
        };
        [30, 10, 20, 20, 40, 25].into_iter().for_each(&mut wait);
        let _job = push(&queue, A, LaneKind::Short, 1);
        let Some((_, ReadTask::Log(Sequence(10), at))) = queue.next() else { panic!("the first position") };
        assert_eq!(at.len(), 1);
        // The pages answer readers in that stretch, and those before the oldest event.
        let taken = queue.take_waiters(A, Sequence(0), (Sequence(10), Sequence(30)));
        assert_eq!(taken.iter().map(|(position, _)| position.0).collect::<Vec<_>>(), [20, 20, 25]);
        wait(5);
        queue.done(A, LaneKind::Short, None);
        assert_eq!(serve(&queue), A, "a job has its turn between two positions");
        let Some((_, ReadTask::Log(Sequence(30), _))) = queue.next() else {
            panic!("the log continues after the last position")
        };
        let taken = queue.take_waiters(A, Sequence(6), (Sequence(30), Sequence(31)));
        assert_eq!(taken.iter().map(|(position, _)| position.0).collect::<Vec<_>>(), [5]);
        queue.done(A, LaneKind::Short, None);
        replies.clear();
        queue.close();
    }
}
