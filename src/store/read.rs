//! Reading: a small pool of threads, served tenant by tenant in turns.
//!
//! * At most [`READERS`] threads read the disk at once, and at most one of them scans a given tenant's log: what it finds
//!   answers everyone who waits for that stretch, so thousands who resume together cost one scan.
//! * A reader never sees what is not committed: the watermark is read before the range.
//! * It never sees a hole: the low-water mark is read again after the range, and `Gap` said if it has passed the start.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::cache::{Decoded, Page, PageCache};
use super::engine::{Engine, EngineError};
use super::keys::{self, Kind};
use super::log::TenantLog;
use super::pack::{self, Head};
use super::stats::Stats;
use crate::cursor::CursorKey;
use crate::ids::{Sequence, TenantId};
use crate::sync::{Condvar, Mutex, RwLock};

/// Threads that read the disk.
pub(super) const READERS: usize = 4;
/// Most reads that may wait: some more than a machine has connections. Stops a herd from growing the queue for ever.
pub(super) const WAITING_READS: usize = 1 << 18;
/// What one scan decodes ahead.
const SCAN_BYTES: usize = 256 * 1024;

/// What follows a position in a tenant's log.
#[derive(Debug, Clone)]
pub enum LogRead {
    /// Events; the first is the first committed one after the position.
    Page(Arc<Page>),
    /// Events after the position were trimmed; reading goes on after `resumes_at`.
    Gap {
        /// The position before the oldest retained event.
        resumes_at: Sequence,
    },
    /// No event lies between the position and `committed`.
    End {
        /// The commit watermark, as it was before looking.
        committed: Sequence,
    },
}

/// Why nothing could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The database is being opened again, or is closed.
    #[error("the store cannot be read now")]
    Unavailable,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Busy,
    /// The database cannot be read; told in the server's log.
    #[error("the store failed to read")]
    Failed,
}

type Task = Box<dyn FnOnce(Option<&Engine>) + Send>;

enum Job {
    Log(Arc<TenantLog>, Sequence, oneshot::Sender<Result<LogRead, ReadError>>),
    Task(Task),
}

#[derive(Default)]
struct Waiting {
    /// Jobs of tenants that have some; the tenant stands in `turns` unless a thread is busy with it.
    jobs: HashMap<TenantId, VecDeque<Job>>,
    turns: VecDeque<TenantId>,
    /// Jobs in all.
    len: usize,
    closed: bool,
}

/// The pool's queue, and what its threads read from.
pub(super) struct Reads {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    cache: PageCache,
    cursors: CursorKey,
    stats: Arc<Stats>,
}

impl Reads {
    pub(super) fn new(cache_bytes: usize, cursors: CursorKey, stats: Arc<Stats>) -> Reads {
        let cache = PageCache::new(cache_bytes);
        Reads { waiting: Mutex::default(), wake: Condvar::default(), cache, cursors, stats }
    }

    pub(super) fn cache(&self) -> &PageCache {
        &self.cache
    }

    /// Lets the threads end; whoever waits is answered `Unavailable`.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.jobs.clear();
        waiting.turns.clear();
        waiting.len = 0;
        self.wake.notify_all();
    }

    fn push(&self, tenant: TenantId, job: Job) -> Result<(), ReadError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(ReadError::Unavailable);
        }
        if waiting.len >= WAITING_READS {
            return Err(ReadError::Busy);
        }
        waiting.len += 1;
        let mut new = false;
        let jobs = waiting.jobs.entry(tenant).or_insert_with(|| {
            new = true;
            VecDeque::new()
        });
        jobs.push_back(job);
        if new {
            waiting.turns.push_back(tenant);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Runs `task` on a reader thread, in `tenant`'s turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(move |engine: Option<&Engine>| {
            let result = match engine {
                Some(engine) => task(engine).map_err(failed),
                None => Err(ReadError::Unavailable),
            };
            let _ = reply.send(result); // whoever asked may have gone
        });
        self.push(tenant, Job::Task(task))?;
        answer.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// What follows `after`: from memory if it is there, else from a reader thread.
    pub(super) async fn log(&self, log: &Arc<TenantLog>, after: Sequence) -> Result<LogRead, ReadError> {
        if let Some(read) = self.known(log, after) {
            return Ok(read);
        }
        let (reply, answer) = oneshot::channel();
        self.push(log.tenant(), Job::Log(log.clone(), after, reply))?;
        answer.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Whether [`Reads::known`] has a page for a reader at `after`.
    pub(super) fn has_page(&self, log: &TenantLog, after: Sequence) -> bool {
        after >= log.oldest() && self.cache.has(log.tenant(), after)
    }

    /// The answer, if the disk is not needed for it.
    pub(super) fn known(&self, log: &TenantLog, after: Sequence) -> Option<LogRead> {
        // Read first: `last_event` moves before `committed` does, so nothing up to this watermark is overlooked.
        let committed = log.committed();
        if after >= log.last_event() {
            return Some(LogRead::End { committed: committed.max(after) });
        }
        let page = match after < log.oldest() {
            true => None,
            false => Some(self.cache.page(log.tenant(), after)?),
        };
        Some(self.unless_trimmed(log, after, page))
    }

    fn unless_trimmed(&self, log: &TenantLog, after: Sequence, page: Option<Page>) -> LogRead {
        let resumes_at = log.oldest();
        match page {
            Some(page) if after >= resumes_at => LogRead::Page(Arc::new(page)),
            _ => LogRead::Gap { resumes_at },
        }
    }

    /// The body of a reader thread.
    pub(super) fn serve(&self, engine: &RwLock<Option<Engine>>) {
        while let Some((tenant, job)) = self.next() {
            // sled may panic where it meets an IO error: whoever asked is told `Unavailable` by the dropped reply.
            let engine = engine.read();
            let _ = catch_unwind(AssertUnwindSafe(|| self.run_job(engine.as_ref(), job)));
            drop(engine);
            self.done(tenant);
        }
    }

    fn run_job(&self, engine: Option<&Engine>, job: Job) {
        match job {
            Job::Task(task) => task(engine),
            Job::Log(log, after, reply) => {
                let read = match engine {
                    Some(engine) => self.read(engine, &log, after),
                    None => Err(ReadError::Unavailable),
                };
                let _ = reply.send(read); // whoever asked may have gone
            }
        }
    }

    /// Takes the next tenant's next job; the tenant keeps out of the turns until [`Reads::done`].
    fn next(&self) -> Option<(TenantId, Job)> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(tenant) = waiting.turns.pop_front() {
                if let Some(job) = waiting.jobs.get_mut(&tenant).and_then(VecDeque::pop_front) {
                    waiting.len -= 1;
                    return Some((tenant, job));
                }
                waiting.jobs.remove(&tenant);
            } else {
                waiting = self.wake.wait(waiting);
            }
        }
    }

    /// Answers everyone of `tenant` whom the cache can answer now, and lines the tenant up again for the others.
    fn done(&self, tenant: TenantId) {
        let Some(jobs) = self.waiting.lock().jobs.get_mut(&tenant).map(std::mem::take) else { return };
        let before = jobs.len();
        let mut left = VecDeque::new();
        for job in jobs {
            match job {
                Job::Log(log, after, reply) => match self.known(&log, after) {
                    Some(read) => drop(reply.send(Ok(read))),
                    None => left.push_back(Job::Log(log, after, reply)),
                },
                task @ Job::Task(_) => left.push_back(task),
            }
        }
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        waiting.len -= before - left.len();
        let idle = match waiting.jobs.get_mut(&tenant) {
            Some(since) => {
                left.append(since);
                *since = left;
                since.is_empty()
            }
            None => true, // unreachable: only this thread removes a busy tenant's queue
        };
        if idle {
            waiting.jobs.remove(&tenant);
        } else {
            waiting.turns.push_back(tenant);
            self.wake.notify_one();
        }
    }

    fn read(&self, engine: &Engine, log: &TenantLog, after: Sequence) -> Result<LogRead, ReadError> {
        if let Some(read) = self.known(log, after) {
            return Ok(read);
        }
        let committed = log.committed();
        self.stats.log_scans.fetch_add(1, Relaxed);
        let forgotten = self.cache.forgotten();
        let values = self.scan(engine, log.tenant(), after, committed).map_err(failed)?;
        if values.is_empty() {
            return Ok(match after < log.oldest() {
                true => LogRead::Gap { resumes_at: log.oldest() },
                false => LogRead::End { committed: committed.max(after) },
            });
        }
        // The page is cut from what was just read, not from the cache, which may be too small to keep it.
        let fresh = PageCache::new(usize::MAX);
        let copies = values.iter().map(|v| Decoded { from: v.from, frames: v.frames.clone() }).collect();
        fresh.insert(log.tenant(), copies, fresh.forgotten());
        self.cache.insert(log.tenant(), values, forgotten);
        Ok(self.unless_trimmed(log, after, fresh.page(log.tenant(), after)))
    }

    /// Decodes the committed values that hold what follows `after`, up to [`SCAN_BYTES`].
    fn scan(
        &self,
        engine: &Engine,
        tenant: TenantId,
        after: Sequence,
        committed: Sequence,
    ) -> Result<Vec<Decoded>, EngineError> {
        let damaged = |_| EngineError::Engine("a log value is damaged".into());
        let (mut values, mut bytes, mut from) = (Vec::new(), 0, after);
        let start = value_at(engine, tenant, after.next())?;
        for row in engine.range(&start, &keys::after(Kind::Log, tenant)) {
            let (key, value) = row?;
            let (_, first) = keys::parse_log(&key).map_err(|_| damaged(()))?;
            if first > committed {
                break;
            }
            let head = Head::read(&value).map_err(|_| damaged(()))?;
            if head.last(first) <= after {
                continue;
            }
            let (_, frames) = pack::unpack(&value, first, tenant, &self.cursors).map_err(|_| damaged(()))?;
            // What followed `after` in it may all be erased.
            let last = frames.last().map(|frame| frame.sequence()).filter(|last| *last > after);
            let Some(last) = last else { continue };
            // Not the value's own end: where that is erased, a reader at its last event is followed by the next value.
            values.push(Decoded { from, frames });
            from = last;
            bytes += value.len();
            if bytes >= SCAN_BYTES {
                break;
            }
        }
        Ok(values)
    }
}

/// The key of the last value that begins at or before `sequence`, or else where values after it begin.
fn value_at(engine: &Engine, tenant: TenantId, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
    let to = keys::log(tenant, sequence.next());
    let before = engine.last(&keys::log(tenant, Sequence::ZERO), &to)?;
    Ok(before.map_or(to, |(key, _)| key.to_vec()))
}

/// Logs what failed; the reader learns only that it did.
pub(super) fn failed(error: EngineError) -> ReadError {
    tracing::error!(%error, "cannot read the log");
    ReadError::Failed
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use super::super::recover::Recovered;
    use super::*;
    use crate::frame::tests::{KEY, frame};

    fn reads() -> Reads {
        Reads::new(1 << 20, KEY, Arc::default())
    }

    #[test]
    fn tenants_take_turns_and_one_is_never_read_by_two_threads() {
        let reads = reads();
        for tenant in [1, 1, 1, 2, 3] {
            reads.push(TenantId(tenant), Job::Task(Box::new(|_| {}))).expect("room");
        }
        let next = || reads.next().map(|(tenant, _)| tenant.0);
        assert_eq!([next(), next(), next()], [Some(1), Some(2), Some(3)]);
        reads.done(TenantId(2));
        reads.done(TenantId(1));
        assert_eq!(next(), Some(1));
        reads.push(TenantId(2), Job::Task(Box::new(|_| {}))).expect("room");
        reads.done(TenantId(1));
        assert_eq!([next(), next()], [Some(2), Some(1)]);
        reads.close();
        assert_eq!(next(), None);
        assert_eq!(reads.push(TenantId(1), Job::Task(Box::new(|_| {}))), Err(ReadError::Unavailable));
    }

    /// A page is in memory while its events are trimmed: the reader is told of the gap, not handed what is gone.
    #[tokio::test]
    async fn what_was_trimmed_is_a_gap_even_where_it_is_still_decoded() {
        let reads = reads();
        let recovered = Recovered { end: Sequence(9), ..Recovered::default() };
        let log = Arc::new(TenantLog::new(TenantId(1), 1, &recovered, u32::MAX));
        let event = r#"{"type":"custom","channel":"c","data":1}"#;
        let frames = (5..=9).map(|sequence| Arc::new(frame(event, sequence))).collect();
        reads.cache.insert(TenantId(1), vec![Decoded { from: Sequence(0), frames }], 0);
        let read = reads.log(&log, Sequence(0)).await.expect("known");
        assert!(matches!(read, LogRead::Page(page) if page.frames.len() == 5));
        log.oldest.store(6, Release);
        let read = reads.log(&log, Sequence(5)).await.expect("known");
        assert!(matches!(read, LogRead::Gap { resumes_at: Sequence(6) }));
        let read = reads.log(&log, Sequence(6)).await.expect("known");
        assert!(matches!(read, LogRead::Page(page) if page.frames.len() == 3));
        let read = reads.log(&log, Sequence(9)).await.expect("known");
        assert!(matches!(read, LogRead::End { committed } if committed == log.committed()));
    }
}
