//! Reading: a small pool of threads that serves tenants in turns (`read_queue.rs`).
//!
//! * At most [`READERS`](super::read_queue::READERS) threads read the disk at once, and at most one of them scans a given tenant's log.
//!   What it finds serves everyone who waits for that stretch, so thousands of clients that resume together
//!   cost one scan.
//! * A reader never sees uncommitted events: the watermark is read before the range.
//! * A reader never misses events silently: the low-water mark is read again after the range, and `Gap` is
//!   returned if it has passed the start. A damaged piece is also a gap: the events before it come first,
//!   then the gap, then the events after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::log_read::{LogRead, ReadError, failed};
use super::page::{BufferPool, JsonEvents, Page, PageForm, PageReader, PageSpan};
use super::page_cache::PageCache;
use super::read_queue::{LaneKind, LogWaiter, ReadQueue, ReadTask, ReplyJob};
use super::tenant_log::TenantLog;
use crate::cursor::CursorKey;
use crate::frame::json_page::JsonPage;
use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Damage, Engine, EngineError};
use crate::store::format::LogEntry;
use crate::store::format::keys::{self, KeyKind};
use crate::store::rows::records;
use crate::store::stats::Stats;
use crate::sync::RwLock;

/// Bytes of pieces that one scan decodes ahead. It is several pages, so that there are fewer hand-overs
/// between threads.
const SCAN_BYTES: usize = 512 * 1024;
/// The part of the page cache's memory for pages of JSON, as a divisor. Readers at nearby positions share
/// them.
const JSON_SHARE: usize = 4;

/// The pool's queue, and the caches that its threads use.
pub(crate) struct ReadPool {
    queue: ReadQueue,
    /// Pages of frames.
    cache: PageCache,
    /// Pages of JSON. Both caches are invalidated together.
    json_cache: PageCache<JsonPage>,
    buffers: Arc<BufferPool>,
    cursors: CursorKey,
    stats: Arc<Stats>,
}

/// The result of a scan of the log after a position.
struct Scanned<P> {
    pages: Vec<PageSpan<P>>,
    /// Set if only damaged pieces follow up to this sequence, the last one in them.
    damaged_to: Option<Sequence>,
}

impl ReadPool {
    pub(crate) fn new(cache_bytes: usize, cursors: CursorKey, stats: Arc<Stats>) -> ReadPool {
        let json_bytes = cache_bytes / JSON_SHARE;
        ReadPool {
            queue: ReadQueue::default(),
            cache: PageCache::new(cache_bytes - json_bytes),
            json_cache: PageCache::new(json_bytes),
            buffers: Arc::default(),
            cursors,
            stats,
        }
    }

    /// Drops the pages of `tenant`. Reads in progress are not cached.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.cache.forget(tenant);
        self.json_cache.forget(tenant);
    }

    /// Drops all pages. Reads in progress are not cached.
    pub(crate) fn clear(&self) {
        self.cache.clear();
        self.json_cache.clear();
    }

    /// Bytes of cached pages.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache.bytes() + self.json_cache.bytes()
    }

    /// Ends the threads. Waiting reads return `Unavailable`.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Runs `task` on a reader thread, in `tenant`'s turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let mut task = Some(task);
        let once = move |engine: &Engine| task.take().map(|task| task(engine)).transpose();
        self.queued(tenant, LaneKind::Short, once).await
    }

    /// Runs the slices of a long `task` in `tenant`'s turns, until one returns a result.
    pub(crate) async fn run_long<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnMut(&Engine) -> Result<Option<T>, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.queued(tenant, LaneKind::Long, task).await
    }

    async fn queued<T: Send + 'static>(
        &self,
        tenant: TenantId,
        kind: LaneKind,
        task: impl FnMut(&Engine) -> Result<Option<T>, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(tenant, kind, Box::new(ReplyJob { reply: Some(reply), task }))?;
        answer.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// What follows `after`: from memory if possible, else from a reader thread.
    pub(crate) async fn log(&self, log: &Arc<TenantLog>, after: Sequence) -> Result<LogRead, ReadError> {
        if let Some(read) = self.read_cached(log, after) {
            return Ok(read);
        }
        let (reply, answer) = oneshot::channel();
        self.queue.push_log(after, LogWaiter { log: log.clone(), reply })?;
        answer.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// The events after `after` as JSON, for a reader that may see every event: from memory if possible, else
    /// from a reader thread. Returns `None` if they are in memory as frames or if no event can be read there;
    /// [`ReadPool::log`] tells which.
    pub(crate) async fn json(
        self: &Arc<Self>,
        log: &Arc<TenantLog>,
        after: Sequence,
    ) -> Result<Option<JsonEvents>, ReadError> {
        if after >= log.last_event() || after < log.oldest() {
            return Ok(None);
        }
        if let Some(events) = self.json_from_cache(log, after) {
            return Ok(Some(events));
        }
        if self.cache.has(log.tenant(), after) {
            return Ok(None);
        }
        let (reads, log) = (self.clone(), log.clone());
        self.run(log.tenant(), move |engine| reads.read_json(engine, &log, after)).await
    }

    fn json_from_cache(&self, log: &TenantLog, after: Sequence) -> Option<JsonEvents> {
        let events = JsonEvents::after(&self.json_cache.page(log.tenant(), after)?, after)?;
        // This comes after the page was taken, as in `ReadPool::page_or_gap`.
        (after >= log.oldest()).then_some(events)
    }

    fn read_json(
        &self,
        engine: &Engine,
        log: &TenantLog,
        after: Sequence,
    ) -> Result<Option<JsonEvents>, EngineError> {
        // Another read may have cached it meanwhile.
        if let Some(events) = self.json_from_cache(log, after) {
            return Ok(Some(events));
        }
        let committed = log.committed();
        self.stats.log_scans.fetch_add(1, Relaxed);
        let forgotten = self.json_cache.forgotten();
        let fresh = self.scan(engine, log.tenant(), after, committed, &self.json_cache)?.pages;
        self.json_cache.insert(log.tenant(), &fresh, forgotten);
        let events = page_after(&fresh, after).and_then(|page| JsonEvents::after(page, after));
        Ok(events.filter(|_| after >= log.oldest()))
    }

    /// Returns true if [`ReadPool::read_cached`] has a page for a reader at `after`.
    pub(crate) fn has_page(&self, log: &TenantLog, after: Sequence) -> bool {
        after >= log.oldest() && self.cache.has(log.tenant(), after)
    }

    /// The result, if it is known without the disk.
    pub(crate) fn read_cached(&self, log: &TenantLog, after: Sequence) -> Option<LogRead> {
        // This is loaded first: `last_event` moves before `committed` does, so no event up to this watermark
        // is missed.
        let committed = log.committed();
        if after >= log.last_event() {
            return Some(LogRead::End { committed: committed.max(after) });
        }
        let page = match after < log.oldest() {
            true => None,
            false => Some(Page::after(&self.cache.page(log.tenant(), after)?, after)?),
        };
        Some(self.page_or_gap(log, after, page))
    }

    fn page_or_gap(&self, log: &TenantLog, after: Sequence, page: Option<Page>) -> LogRead {
        let resumes_at = log.oldest();
        match page {
            Some(page) if after >= resumes_at => LogRead::Page(page),
            _ => LogRead::Gap { resumes_at, is_damaged: false },
        }
    }

    /// The body of a reader thread.
    pub(crate) fn serve(&self, engine: &RwLock<Option<Engine>>) {
        while let Some((tenant, work)) = self.queue.next() {
            // sled may panic on an IO error. The dropped reply then gives the caller `Unavailable`.
            let engine = engine.read();
            let (kind, unfinished) = match work {
                ReadTask::Job(kind, mut job) => {
                    let ended = catch_unwind(AssertUnwindSafe(|| job.run(engine.as_ref()))).unwrap_or(true);
                    (kind, (!ended).then_some(job))
                }
                ReadTask::Log(after, waiters) => {
                    let _ = catch_unwind(AssertUnwindSafe(|| self.answer(engine.as_ref(), after, waiters)));
                    (LaneKind::Short, None)
                }
            };
            drop(engine);
            self.queue.done(tenant, kind, unfinished);
        }
    }

    /// Answers the readers that wait at `after`, and all others that the same pages can serve.
    fn answer(&self, engine: Option<&Engine>, after: Sequence, waiters: Vec<LogWaiter>) {
        let Some(log) = waiters.first().map(|waiter| waiter.log.clone()) else { return };
        let mut fresh = Vec::new();
        let read = match engine {
            Some(engine) => self.read(engine, &log, after, &mut fresh),
            None => Err(ReadError::Unavailable),
        };
        for waiter in waiters {
            let _ = waiter.reply.send(read.clone()); // the caller may have gone
        }
        let last = fresh.last().and_then(|stretch| stretch.page.last()).unwrap_or(after);
        for (position, waiter) in self.queue.take_waiters(log.tenant(), log.oldest(), (after, last)) {
            let page = page_after(&fresh, position).and_then(|page| Page::after(page, position));
            if page.is_none() && position >= log.oldest() {
                let _ = self.queue.push_log(position, waiter); // if refused, the dropped reply answers it
                continue;
            }
            let _ = waiter.reply.send(Ok(self.page_or_gap(&waiter.log, position, page))); // as above
        }
    }

    /// Reads what follows `after`. Stores the pages read for it in `fresh`, because the cache may be too
    /// small to keep them.
    fn read(
        &self,
        engine: &Engine,
        log: &TenantLog,
        after: Sequence,
        fresh: &mut Vec<PageSpan>,
    ) -> Result<LogRead, ReadError> {
        if let Some(read) = self.read_cached(log, after) {
            return Ok(read);
        }
        let committed = log.committed();
        self.stats.log_scans.fetch_add(1, Relaxed);
        let forgotten = self.cache.forgotten();
        let scanned = self.scan(engine, log.tenant(), after, committed, &self.cache).map_err(failed)?;
        *fresh = scanned.pages;
        self.cache.insert(log.tenant(), fresh, forgotten);
        match page_after(fresh, after).and_then(|page| Page::after(page, after)) {
            Some(page) => Ok(self.page_or_gap(log, after, Some(page))),
            None if after < log.oldest() => Ok(LogRead::Gap { resumes_at: log.oldest(), is_damaged: false }),
            None => Ok(match scanned.damaged_to {
                Some(resumes_at) => LogRead::Gap { resumes_at, is_damaged: true },
                None => LogRead::End { committed: committed.max(after) },
            }),
        }
    }

    /// Decodes the committed pieces after `after`: up to [`SCAN_BYTES`] of them, up to where `cache`
    /// continues, or up to a damaged piece.
    fn scan<P: PageForm>(
        &self,
        engine: &Engine,
        tenant: TenantId,
        after: Sequence,
        committed: Sequence,
        cache: &PageCache<P>,
    ) -> Result<Scanned<P>, EngineError> {
        let damaged = |_| EngineError::Engine("a log value is damaged".into());
        let (mut pages, mut bytes) = (PageReader::<P>::new(&self.buffers, tenant, &self.cursors, after), 0);
        let start = value_at(engine, tenant, after.next())?;
        let mut damaged_to = None;
        let mut piece = self.buffers.take();
        for row in engine.range(&start, &keys::after(KeyKind::Log, tenant)) {
            let (key, value) = row?;
            let (_, first) = keys::parse_log(&key).map_err(|_| damaged(()))?;
            if first > committed {
                break;
            }
            let entry = LogEntry::read(&value).map_err(|_| damaged(()))?;
            if entry.head.last(first) <= after {
                continue;
            }
            // All events found so far may be erased. Then the scan continues.
            if let Some(last) = pages.last().filter(|last| *last > after)
                && (bytes >= SCAN_BYTES || cache.has(tenant, last))
            {
                break;
            }
            match read_piece(engine, &key, entry, &mut piece)? {
                PieceRead::Gone => continue,
                PieceRead::Damaged(damage) => {
                    let last = entry.head.last(first);
                    let name = || records::name_of(engine, tenant);
                    self.stats.damaged.note(tenant, (first, last), &damage, name);
                    bytes += entry.piece.len as usize;
                    // The events before the damaged piece come first.
                    if pages.last().is_some_and(|last| last > after) {
                        break;
                    }
                    damaged_to = Some(last.min(committed));
                    if bytes >= SCAN_BYTES {
                        break;
                    }
                    continue;
                }
                PieceRead::Whole if damaged_to.is_some() => break,
                PieceRead::Whole => {}
            }
            pages.add(&piece, first, entry.head).map_err(|_| damaged(()))?;
            bytes += piece.len();
        }
        self.buffers.put(piece);
        Ok(Scanned { pages: pages.finish(), damaged_to })
    }
}

/// The result of reading a piece.
pub(crate) enum PieceRead {
    /// The bytes pass their check.
    Whole,
    /// The piece was trimmed.
    Gone,
    /// The bytes fail their check.
    Damaged(Box<Damage>),
}

/// Reads the piece that a row of the log points at into `piece`. Since the row was read, the piece may have
/// been moved or trimmed.
pub(super) fn read_piece(
    engine: &Engine,
    key: &[u8],
    mut entry: LogEntry,
    piece: &mut Vec<u8>,
) -> Result<PieceRead, EngineError> {
    loop {
        let error = match engine.piece_into(&entry.piece, piece) {
            Ok(()) => return Ok(PieceRead::Whole),
            Err(error) => error,
        };
        let Some(row) = engine.get(key)? else { return Ok(PieceRead::Gone) };
        match (LogEntry::read(&row), error) {
            (Ok(moved), _) if moved.piece != entry.piece => entry = moved,
            (_, EngineError::Damaged(damage)) => return Ok(PieceRead::Damaged(damage)),
            (_, error) => return Err(error),
        }
    }
}

/// The page that follows `after`, among those read for it.
fn page_after<P: PageForm>(pages: &[PageSpan<P>], after: Sequence) -> Option<&Arc<P>> {
    let found = pages.iter().find(|stretch| stretch.page.last().is_some_and(|last| last > after))?;
    (found.from <= after).then_some(&found.page)
}

/// The key of the last value that starts at or before `sequence`; if there is none, the key from which later
/// values start.
fn value_at(engine: &Engine, tenant: TenantId, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
    let to = keys::log(tenant, sequence.next());
    let before = engine.last(&keys::log(tenant, Sequence::ZERO), &to)?;
    Ok(before.map_or(to, |(key, _)| key.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use super::*;
    use crate::frame::tests::KEY;
    use crate::store::format::LogCounters;
    use crate::store::log::page::tests::{pieces, stretches};

    fn reads() -> ReadPool {
        ReadPool::new(1 << 20, KEY, Arc::default())
    }

    /// The events of a cached page are trimmed. The reader gets a gap, not the trimmed events.
    #[tokio::test]
    async fn trimmed_events_are_a_gap_even_if_their_page_is_cached() {
        let reads = reads();
        let recovered = LogCounters { end: Sequence(9), ..LogCounters::default() };
        let log = Arc::new(TenantLog::new(TenantId(1), 1, &recovered, u32::MAX));
        reads.cache.insert(TenantId(1), &stretches(0, 5..=9, 1), 0);
        let read = reads.log(&log, Sequence(0)).await.expect("known");
        assert!(matches!(read, LogRead::Page(page) if page.frames().len() == 5));
        log.oldest.store(6, Release);
        let read = reads.log(&log, Sequence(5)).await.expect("known");
        assert!(matches!(read, LogRead::Gap { resumes_at: Sequence(6), is_damaged: false }));
        let read = reads.log(&log, Sequence(6)).await.expect("known");
        assert!(matches!(read, LogRead::Page(page) if page.frames().len() == 3));
        let read = reads.log(&log, Sequence(9)).await.expect("known");
        assert!(matches!(read, LogRead::End { committed } if committed == log.committed()));
    }

    /// The events of cached pages of JSON are trimmed, erased, or read again after a failure. The cached
    /// pages are not shown.
    #[tokio::test]
    async fn json_of_trimmed_or_forgotten_events_is_not_returned() {
        let reads = Arc::new(reads());
        let recovered = LogCounters { end: Sequence(9), ..LogCounters::default() };
        let log = Arc::new(TenantLog::new(TenantId(1), 1, &recovered, u32::MAX));
        let fill = || {
            let mut pages = PageReader::<JsonPage>::new(&reads.buffers, TenantId(1), &KEY, Sequence(0));
            for piece in pieces(5..=9, 1) {
                pages.add(&piece.value, piece.first, piece.head).expect("sound");
            }
            reads.json_cache.insert(TenantId(1), &pages.finish(), reads.json_cache.forgotten());
        };
        fill();
        let read = reads.json(&log, Sequence(6)).await.expect("known").expect("in memory");
        assert_eq!(read.page.events().sequence(read.from), Some(Sequence(7)));
        assert!(reads.json(&log, Sequence(9)).await.expect("known").is_none(), "nothing follows");
        reads.forget(TenantId(1));
        assert!(reads.json_from_cache(&log, Sequence(6)).is_none());
        fill();
        reads.clear();
        assert!(reads.json_from_cache(&log, Sequence(6)).is_none());
        fill();
        log.oldest.store(7, Release);
        assert!(reads.json(&log, Sequence(6)).await.expect("known").is_none());
        assert!(
            reads.json_from_cache(&log, Sequence(6)).is_none()
                && reads.json_from_cache(&log, Sequence(7)).is_some()
        );
    }
}
