//! Verification of a stopped data directory or of a backup: every record, row, pointer and counter.
//!
//! * The journal is read once: each record that stores a piece of a log is compared with the log's row. A row
//!   that some record stored, with the same bytes, is sound; any other points to the wrong location.
//! * Counters are compared with what was counted: of each log, of organizations' usage, and of the live
//!   pieces in each segment.
//! * Verification continues after a problem. The rows of a backup are rebuilt in a temporary directory, as a
//!   restore would do.
//! * It takes 8 bytes of memory for each piece of a log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{BackupError, ProgressSink};
use super::files::hex;
use super::manifest::{self, Manifest, journal_of};
use super::restore::{Until, replay, take_rows};
use super::row_check;
use super::view::View;
use crate::ids::{Sequence, TenantId};
use crate::store::data_dir::take_lock;
use crate::store::disk::{Disk, Io};
use crate::store::engine::{self, LiveBytesChange, SegmentCounts, State, guard_damaged};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::format::{LogCounters, LogEntry, piece, piece_of};
use crate::store::journal::{self, Change, Extent, JournalError, PieceLocation, Position, Record, Visit};
use crate::store::quota::usage::{self, Difference, Usage, counted_key};
use crate::store::rows::records::{self, Organization};

/// Problems that are listed; further ones are only counted.
const LISTED: usize = 100;
const CACHE_BYTES: u64 = 64 << 20;
/// Rows between two progress reports.
const TOLD_EVERY: u64 = 4_096;

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Verified {
    /// Whether it was a backup.
    pub is_backup: bool,
    /// Organizations that are not deleted.
    pub organizations: u64,
    /// Segments of the journal.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Rows.
    pub rows: u64,
    /// Pieces of logs.
    pub pieces: u64,
    /// Events in them.
    pub events: u64,
    /// Number of problems.
    pub found: u64,
    /// The first problems.
    pub problems: Vec<String>,
}

impl Verified {
    fn problem(&mut self, what: impl Into<String>) {
        self.found += 1;
        if self.problems.len() < LISTED {
            self.problems.push(what.into());
        }
    }
}

/// Verifies the stopped data directory or the backup in `dir`.
///
/// # Errors
/// [`BackupError`] if it could not be read. What is wrong with it is in [`Verified::problems`].
pub fn verify(dir: &Path, progress: &mut dyn ProgressSink) -> Result<Verified, BackupError> {
    let mut found = Verified::default();
    let result = match dir.join(manifest::NAME).exists() {
        true => {
            found.is_backup = true;
            backup(dir, &mut found, progress)
        }
        false => {
            crate::store::data_dir::find(dir)?;
            let _lock = take_lock(dir)?;
            if !engine::has_state(dir) && !dir.join("log.old").exists() {
                found.problem("the state log/db is missing: the next start builds it again from the journal");
                return Ok(found);
            }
            guard_damaged(|| data_dir(dir, &mut found, progress))
        }
    };
    match result {
        Err(BackupError::Damaged { file, what }) => found.problem(format!("{}: {what}", file.display())),
        Err(BackupError::Store(what)) => found.problem(what),
        other => other?,
    }
    Ok(found)
}

fn disk() -> Arc<dyn Io> {
    Arc::new(Disk)
}

/// A directory that is removed when this is dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // the system cleans its temporary directory
    }
}

fn backup(dir: &Path, found: &mut Verified, progress: &mut dyn ProgressSink) -> Result<(), BackupError> {
    let manifest = Manifest::read(dir)?;
    let name = format!("nervewire-verify-{}-{}", std::process::id(), crate::ids::fresh("v"));
    let temporary = Temporary(std::env::temp_dir().join(name));
    let state = State::open(&temporary.0, CACHE_BYTES, disk())?;
    let check = |progress: &mut dyn ProgressSink| {
        take_rows(dir, &manifest, &state, progress)?;
        replay(&journal_of(dir), &manifest, Until::End, &state, progress)
    };
    let made = check(progress);
    let extent = Extent { from: manifest.from(), until: Some(manifest.journal_end()), is_whole: true };
    let mut verifier = Verifier::new(View::new(state), journal_of(dir), extent, found);
    match made {
        Ok(_) => verifier.run(None, progress),
        Err(error) => {
            // The rows are incomplete, so they are not checked; the journal is.
            verifier.found.problem(error.to_string());
            verifier.read_journal(false, progress)
        }
    }
}

fn data_dir(dir: &Path, found: &mut Verified, progress: &mut dyn ProgressSink) -> Result<(), BackupError> {
    let state = State::open(&engine::path(dir), CACHE_BYTES, disk())?;
    let layout = state.get(&keys::meta(MetaKey::Schema))?.and_then(|row| row.first_chunk().copied());
    // If there is no such row, it is reported as missing later.
    if let Some(found) = layout.map(u32::from_be_bytes).filter(|layout| !engine::is_readable(*layout)) {
        let known = engine::SCHEMA;
        return Err(BackupError::Layout { found, known });
    }
    let (from, own) = (engine::position(&state)?, engine::journal_of(&state)?);
    let journal = engine::journal_path(dir);
    let firsts = journal::first_positions(&journal).map_err(|error| BackupError::io(&journal, &error))?;
    let (mut view, mut live, mut begins_here) = (View::new(state), Changes::new(), false);
    let extent = Extent { from, until: None, is_whole: false };
    let visit = &mut |visit: Visit<'_>| match visit {
        Visit::Record(record) if record.position >= from => {
            begins_here |= record.position == from;
            for change in record.changes() {
                let (piece, sign) = match change? {
                    Change::Put { key, value } => (piece_of(key, value), 1),
                    Change::Free(piece) => (Some(piece), -1),
                    _ => (None, 0),
                };
                if let Some(piece) = piece {
                    *live.entry(segment_of(&firsts, &piece)).or_default() +=
                        LiveBytesChange::of(&piece, sign);
                }
            }
            view.apply(record)
        }
        _ => Ok(()), // damage is reported when the whole journal is read
    };
    let (id, end) = journal::check(&journal, &disk(), extent, visit)?;
    if let Some(own) = own.filter(|own| *own != id && !firsts.is_empty()) {
        let (dir, own, id) = (journal.display(), hex(&own), hex(&id));
        found.problem(format!("{dir}: it is the journal {id} of another store; the state belongs to {own}"));
        return Ok(()); // what it holds says nothing of these rows
    }
    if !begins_here && from != end {
        found.problem(format!("no record of the journal begins at {from}, the position of the state"));
    }
    Verifier::new(view, journal, Extent { is_whole: true, ..extent }, found).run(Some(&live), progress)
}

/// How live counts differ from their rows, by segment; `None` is for pieces that no segment holds.
type Changes = HashMap<Option<Position>, LiveBytesChange>;

fn segment_of(firsts: &[Position], piece: &PieceLocation) -> Option<Position> {
    let after = firsts.partition_point(|first| *first <= piece.position);
    firsts.get(after.checked_sub(1)?).copied()
}

/// The counts of one log.
#[derive(Default)]
struct Log {
    /// Its counters row, if there is one that can be read.
    row: Option<LogCounters>,
    events: u64,
    bytes: u64,
    /// The part of the counts that the row includes: it may be behind by some pieces.
    counted: (u64, u64),
    last: Sequence,
}

struct Verifier<'f> {
    view: View,
    journal: PathBuf,
    extent: Extent,
    firsts: Vec<Position>,
    found: &'f mut Verified,
    /// Positions of pieces that a log's row points at and that a record confirms.
    confirmed: Vec<u64>,
    live: BTreeMap<Position, SegmentCounts>,
}

impl<'f> Verifier<'f> {
    fn new(view: View, journal: PathBuf, extent: Extent, found: &'f mut Verified) -> Verifier<'f> {
        let firsts = journal::first_positions(&journal).unwrap_or_default();
        let (confirmed, live) = (Vec::new(), BTreeMap::new());
        Verifier { view, journal, extent, firsts, found, confirmed, live }
    }

    /// Checks everything. `changes` is how live counts differ from their rows, if there are such rows.
    fn run(&mut self, changes: Option<&Changes>, progress: &mut dyn ProgressSink) -> Result<(), BackupError> {
        self.read_journal(true, progress)?;
        self.confirmed.sort_unstable();
        self.read_rows(changes, progress)
    }

    fn read_journal(&mut self, hold_rows: bool, progress: &mut dyn ProgressSink) -> Result<(), BackupError> {
        let (mut failed, mut done) = (None, 0);
        let (journal, extent) = (self.journal.clone(), self.extent);
        let visit = &mut |visit: Visit<'_>| match visit {
            Visit::Segment(segment) => {
                self.found.segments += 1;
                done += segment.bytes;
                progress.report("bytes of the journal", done, 0).map_err(|error| {
                    failed = Some(error);
                    JournalError::Io("cancelled".into())
                })
            }
            Visit::Damaged(error) => {
                self.found.problem(error.to_string());
                Ok(())
            }
            Visit::Torn(_) => Ok(()),
            Visit::Record(record) => {
                self.found.records += 1;
                if !hold_rows {
                    return Ok(());
                }
                self.record(record).map_err(|error| {
                    let what = error.to_string();
                    failed = Some(error);
                    JournalError::Io(what)
                })
            }
        };
        let checked = journal::check(&journal, &disk(), extent, visit);
        match failed {
            Some(error) => Err(error),
            None => Ok(checked.map(drop)?),
        }
    }

    /// Compares the pieces of a record with the rows of their logs.
    fn record(&mut self, record: &Record<'_>) -> Result<(), BackupError> {
        for change in record.changes() {
            let (key, value) = match change {
                Ok(Change::Put { key, value }) => (key, value),
                Ok(_) => continue,
                Err(error) => {
                    self.found.problem(error.to_string());
                    return Ok(());
                }
            };
            let Some(piece) = piece_of(key, value) else { continue };
            let Some(bytes) = record.bytes(piece) else { continue };
            if self.view.get(key)?.as_deref() != Some(value) {
                continue; // trimmed or rewritten since
            }
            self.confirmed.push(piece.position.0);
            if let Some(segment) = segment_of(&self.firsts, &piece) {
                let counts = self.live.entry(segment).or_default();
                *counts = counts.after(LiveBytesChange::of(&piece, 1));
            }
            if let Err(what) = self.piece(key, value, &piece, bytes) {
                self.found.problem(format!("the piece at position {}: {what}", piece.position));
            }
        }
        Ok(())
    }

    fn piece(
        &self,
        key: &[u8],
        value: &[u8],
        piece: &PieceLocation,
        bytes: &[u8],
    ) -> Result<(), &'static str> {
        let entry = LogEntry::read(value).map_err(|_| "its row cannot be read")?;
        keys::parse_log(key).map_err(|_| "its key cannot be read")?;
        if journal::crc(bytes) != piece.crc {
            return Err("its checksum does not match");
        }
        let head = piece::check(bytes).map_err(|_| "its events cannot be read")?;
        if head != entry.head { Err("its row disagrees with it") } else { Ok(()) }
    }

    fn read_rows(
        &mut self,
        changes: Option<&Changes>,
        progress: &mut dyn ProgressSink,
    ) -> Result<(), BackupError> {
        let (mut logs, mut kept) = (HashMap::<TenantId, Log>::new(), HashMap::<TenantId, Difference>::new());
        let (mut usages, mut segments) = (HashMap::new(), BTreeMap::new());
        let (mut organizations, mut tenants, mut erased) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut metas, mut problems, mut rows) = (HashSet::new(), Vec::new(), 0);
        let (mut counters, mut existing) = (HashMap::new(), 0);
        self.view.each(&mut |key, value| {
            rows += 1;
            if rows % TOLD_EVERY == 1 {
                progress.report("rows", rows, 0)?;
            }
            let kind = match row_check::check(key, value) {
                Ok(kind) => kind,
                Err(what) => {
                    problems.push(format!("the row {}: {what}", name(key)));
                    return Ok(());
                }
            };
            let tenant = keys::tenant(key).unwrap_or(TenantId(0));
            if tenant.0 != 0 {
                tenants.insert(tenant);
            }
            if let Some((kind, tenant)) = counted_key(key) {
                kept.entry(tenant).or_default().add(kind, key.len(), None, Some(value.len()));
            }
            match kind {
                KeyKind::Meta => drop(metas.insert(key.to_vec())),
                KeyKind::Organization => {
                    organizations.insert(tenant);
                    let row = records::read::<Organization>(key, value);
                    existing += u64::from(row.is_ok_and(|row| !row.deleted));
                }
                KeyKind::Erase => drop(erased.insert(tenant)),
                KeyKind::Usage => drop(usages.insert(tenant, Usage::read(value).unwrap_or_default())),
                KeyKind::Counters => drop(LogCounters::read(value).map(|row| counters.insert(tenant, row))),
                KeyKind::Segment => {
                    let first = key.last_chunk().map(|first| Position(u64::from_be_bytes(*first)));
                    segments.insert(first, SegmentCounts::read(value).unwrap_or_default());
                }
                KeyKind::Log => {
                    if let Err(what) = self.log_row(key, value, &mut logs)? {
                        problems.push(format!("the row {}: {what}", name(key)));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        self.found.rows = rows;
        for row in [MetaKey::Schema, MetaKey::Identity, MetaKey::Epoch] {
            let is_needed = row != MetaKey::Epoch || !tenants.is_empty();
            if is_needed && !metas.contains(&keys::meta(row)) {
                problems.push(format!("the row {row:?} of the store itself is missing"));
            }
        }
        problems.extend(
            tenants
                .difference(&organizations)
                .map(|it| format!("organization {} has rows, but no row of its own", it.0)),
        );
        // Rows of an organization that is being erased are removed kind by kind.
        logs.retain(|tenant, _| !erased.contains(tenant));
        counters.retain(|tenant, _| !erased.contains(tenant));
        problems.extend(logs.iter().filter_map(|(tenant, log)| disagreement(*tenant, log)));
        let without_log =
            counters.iter().filter(|(tenant, row)| row.events > 0 && !logs.contains_key(tenant));
        problems.extend(without_log.map(|(tenant, row)| {
            format!("the log of organization {} has no events, its counters say {}", tenant.0, row.events)
        }));
        if self.view.get(&keys::meta(MetaKey::Usage))?.as_deref() == Some(&[usage::VERSION]) {
            let all: HashSet<TenantId> = kept.keys().chain(usages.keys()).copied().collect();
            for tenant in all {
                let counted = kept.get(&tenant).copied().unwrap_or_default().applied_to(Usage::default());
                let stored = usages.get(&tenant).copied().unwrap_or_default();
                if counted != stored {
                    problems.push(format!(
                        "organization {} keeps {} resources and {} bytes, its usage says {} and {}",
                        tenant.0, counted.rows, counted.bytes, stored.rows, stored.bytes
                    ));
                }
            }
        }
        if let Some(changes) = changes {
            problems.extend(self.live_problems(&segments, changes));
        }
        self.found.organizations = existing;
        self.found.events = logs.values().map(|log| log.events).sum();
        problems.sort_unstable();
        problems.into_iter().for_each(|problem| self.found.problem(problem));
        self.found.pieces = self.confirmed.len() as u64;
        Ok(())
    }

    /// Counts a row of a log. Returns what is wrong with it.
    fn log_row(
        &self,
        key: &[u8],
        value: &[u8],
        logs: &mut HashMap<TenantId, Log>,
    ) -> Result<Result<(), String>, BackupError> {
        let (Ok((tenant, first)), Ok(entry)) = (keys::parse_log(key), LogEntry::read(value)) else {
            return Ok(Err("it cannot be read".into()));
        };
        let log = match logs.entry(tenant) {
            std::collections::hash_map::Entry::Occupied(log) => log.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let row = self.view.get(&keys::key(KeyKind::Counters, tenant, &[]))?;
                let row = row.and_then(|row| LogCounters::read(&row));
                new.insert(Log { row, ..Log::default() })
            }
        };
        let overlaps = first <= log.last && log.events > 0;
        log.last = entry.head.last(first);
        log.events += u64::from(entry.head.count);
        log.bytes += entry.bytes(key);
        if log.row.is_some_and(|row| log.last <= row.end) {
            log.counted = (log.events, log.bytes);
        }
        if overlaps {
            return Ok(Err("it begins before the piece before it ends".into()));
        }
        if self.confirmed.binary_search(&entry.piece.position.0).is_ok() {
            return Ok(Ok(()));
        }
        Ok(Err(match segment_of(&self.firsts, &entry.piece) {
            None => format!("it points at position {}, which no segment holds", entry.piece.position),
            Some(_) => format!(
                "it points at position {}, where no sound record has stored this piece for it",
                entry.piece.position
            ),
        }))
    }

    fn live_problems(
        &self,
        rows: &BTreeMap<Option<Position>, SegmentCounts>,
        changes: &Changes,
    ) -> Vec<String> {
        let of_changes = changes.keys().copied();
        let all: HashSet<Option<Position>> =
            rows.keys().copied().chain(of_changes).chain(self.live.keys().copied().map(Some)).collect();
        let problem = |segment: Option<Position>| {
            let stored = rows.get(&segment).copied().unwrap_or_default();
            let stored = stored.after(changes.get(&segment).copied().unwrap_or_default());
            let found = segment.and_then(|segment| self.live.get(&segment)).copied().unwrap_or_default();
            (stored != found).then(|| {
                let at = segment.map_or("?".into(), |segment| segment.to_string());
                format!(
                    "the segment at {at} has {} live pieces of {} bytes, its row says {} of {}",
                    found.pieces, found.bytes, stored.pieces, stored.bytes
                )
            })
        };
        all.into_iter().filter_map(problem).collect()
    }
}

/// Describes a difference between a log's counters and its events.
fn disagreement(tenant: TenantId, log: &Log) -> Option<String> {
    let Some(row) = log.row else {
        return Some(format!("the log of organization {} has no counters", tenant.0));
    };
    let is_right = log.counted == (row.events, row.bytes) && row.end <= log.last && row.events > 0;
    (!is_right).then(|| {
        format!(
            "the log of organization {} has {} events of {} bytes up to {}, its counters say {} of {}",
            tenant.0, log.counted.0, log.counted.1, row.end.0, row.events, row.bytes
        )
    })
}

/// Formats a key for people: its kind, its organization, the rest in hexadecimal.
fn name(key: &[u8]) -> String {
    match keys::parse(key) {
        Ok((kind, tenant, tail)) => format!("{kind:?} {} {}", tenant.0, hex(tail)),
        Err(_) => hex(key),
    }
}
