//! Copies a backup from the stage to its target directory. Files are linked, or copied if the target is
//! another file system.
//!
//! * The manifest comes last, when everything else is durable.
//! * Every record that is added is checked. A backup with damaged records is kept, because no other copy may
//!   have the sound ones, but the damage is reported.
//! * Segments of a journal never change once they are sealed, so a link is as good as a copy. A restore
//!   copies.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path};
use std::sync::Arc;

use super::error::{BackupError, ProgressSink};
use super::files::{BESIDE, private_file};
use super::manifest::{self, BackupStart, Manifest, ROWS, journal_of};
use crate::store::disk::{Disk, Io, private_dir, sync_dir};
use crate::store::journal::{self, Extent, JournalError, Position, Visit};

/// A backup that was created or extended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// Its manifest now.
    pub manifest: Manifest,
    /// Bytes of the journal that were added.
    pub added_bytes: u64,
    /// Whether it existed and was extended.
    pub was_there: bool,
    /// What is damaged, at most one entry for each segment: in the store that was backed up, or in transit.
    pub damaged: Vec<String>,
}

/// What to do at the target.
pub(super) enum FetchPlan {
    /// There is nothing: make a full backup.
    Whole,
    /// There is a backup: add what came since.
    Add(Box<Manifest>, BackupStart),
}

impl FetchPlan {
    /// Decides what to do with the target `to`.
    ///
    /// # Errors
    /// [`BackupError::Taken`], or what is wrong with the existing backup.
    pub(super) fn of(to: &Path) -> Result<FetchPlan, BackupError> {
        // Creating `a` for `a/../b` would resolve to whatever `b` is, which was not checked.
        let leads_back = to.components().any(|part| part == Component::ParentDir);
        if leads_back && !to.parent().is_some_and(Path::exists) {
            return Err(BackupError::io(to, &io::ErrorKind::NotFound.into()));
        }
        if to.join(manifest::NAME).exists() {
            let manifest = Manifest::read(to)?;
            let since = BackupStart { journal: manifest.journal.clone(), position: manifest.last() };
            return Ok(FetchPlan::Add(Box::new(manifest), since));
        }
        match is_empty(to).map_err(|error| BackupError::io(to, &error))? {
            true => Ok(FetchPlan::Whole),
            false => Err(BackupError::Taken { path: to.to_owned() }),
        }
    }

    pub(super) fn since(&self) -> Option<&BackupStart> {
        match self {
            FetchPlan::Whole => None,
            FetchPlan::Add(_, since) => Some(since),
        }
    }
}

/// Checks that `to`, where a backup of the data directory `dir` is to be written, is outside of `dir`. Symbolic
/// links are followed.
///
/// # Errors
/// [`BackupError::Inside`].
pub fn must_be_outside(dir: &Path, to: &Path) -> Result<(), BackupError> {
    // The part of the path that exists decides: the rest will be created, and is no link.
    let there = to.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    let real = there.map(fs::canonicalize).find_map(Result::ok);
    match (real, fs::canonicalize(dir)) {
        (Some(real), Ok(own)) if real.starts_with(&own) => {
            Err(BackupError::Inside { path: to.to_owned(), dir: dir.to_owned() })
        }
        _ => Ok(()), // nothing is inside a directory that does not exist
    }
}

/// Returns true if `dir` is empty or absent.
pub(super) fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Copies the backup in `stage` into the directory `to`: a new backup, or what came since the existing one.
///
/// # Errors
/// [`BackupError`]; an existing backup is unchanged.
pub fn copy_stage(
    stage: &Path,
    to: &Path,
    progress: &mut dyn ProgressSink,
) -> Result<BackupSummary, BackupError> {
    if let Some(dir) = stage.parent() {
        must_be_outside(dir, to)?;
    }
    let plan = FetchPlan::of(to)?;
    let new = Manifest::read(stage)?;
    let failed = |error: io::Error| BackupError::io(to, &error);
    private_dir(to).map_err(failed)?;
    private_dir(&journal_of(to)).map_err(failed)?;
    let mut made = match plan {
        FetchPlan::Whole => {
            let len = fs::metadata(stage.join(ROWS)).map_err(failed)?.len();
            link_or_copy(&stage.join(ROWS), &to.join(ROWS), len).map_err(failed)?;
            BackupSummary {
                added_bytes: new.journal_bytes(),
                manifest: new.clone(),
                was_there: false,
                damaged: Vec::new(),
            }
        }
        FetchPlan::Add(was, _) => {
            if was.journal != new.journal || new.from != was.last {
                return Err(BackupError::Other);
            }
            let segments = [&was.segments[..], &new.segments].concat();
            let manifest = Manifest { last: new.last, last_ms: new.last_ms, segments, ..*was };
            BackupSummary { added_bytes: new.journal_bytes(), manifest, was_there: true, damaged: Vec::new() }
        }
    };
    copy_segments((&journal_of(stage), &journal_of(to)), &new.segments, link_or_copy, progress)?;
    for name in BESIDE {
        match fs::copy(stage.join(name), to.join(name)).and_then(|_| File::open(to.join(name))?.sync_all()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    made.manifest.write(to)?;
    made.damaged = check_records(&journal_of(to), &new, made.was_there, progress)?;
    Ok(made)
}

/// Checks the records of `new` in the directory `journal`, without those that were there before. Returns what
/// is damaged.
fn check_records(
    journal: &Path,
    new: &Manifest,
    was_there: bool,
    progress: &mut dyn ProgressSink,
) -> Result<Vec<String>, BackupError> {
    let (mut damaged, mut done, mut cancelled) = (Vec::new(), 0, None);
    let extent = Extent { from: new.from(), until: Some(new.journal_end()), is_whole: !was_there };
    let visit = &mut |visit: Visit<'_>| {
        match visit {
            Visit::Damaged(error) => damaged.push(error.to_string()),
            Visit::Segment(segment) => {
                done += segment.end.0.saturating_sub(segment.first.0);
                if let Err(error) = progress.report("bytes checked", done, new.journal_bytes()) {
                    cancelled = Some(error);
                    return Err(JournalError::Io("cancelled".into()));
                }
            }
            Visit::Record(_) | Visit::Torn(_) => {}
        }
        Ok(())
    };
    let checked = journal::check(journal, &(Arc::new(Disk) as Arc<dyn Io>), extent, visit);
    match cancelled {
        Some(error) => Err(error),
        None => Ok(checked.map(|_| damaged)?),
    }
}

/// Transfers segments from one directory to another with `bring`. They are durable on return.
pub(super) fn copy_segments(
    (from, to): (&Path, &Path),
    segments: &[(u64, u64)],
    bring: fn(&Path, &Path, u64) -> io::Result<()>,
    progress: &mut dyn ProgressSink,
) -> Result<(), BackupError> {
    let (of, mut done) = (segments.iter().map(|(first, end)| end.saturating_sub(*first)).sum(), 0);
    for (first, end) in segments {
        progress.report("bytes of segments", done, of)?;
        let (from, len) = journal::file_of(from, Position(*first), Position(*end));
        let (to, _) = journal::file_of(to, Position(*first), Position(*end));
        bring(&from, &to, len).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BackupError::Damaged { file: from.clone(), what: "it is gone".into() },
            io::ErrorKind::UnexpectedEof => {
                BackupError::Damaged { file: from.clone(), what: error.to_string() }
            }
            _ => BackupError::io(&from, &error),
        })?;
        done += end.saturating_sub(*first);
    }
    sync_dir(to).map_err(|error| BackupError::io(to, &error))
}

/// Creates `to` as a hard link to the file `from`, or copies its first `len` bytes if that is not possible.
pub(super) fn link_or_copy(from: &Path, to: &Path, len: u64) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // The file was left by an interrupted attempt.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(to)?;
            fs::hard_link(from, to).or_else(|_| copy(from, to, len))
        }
        // It is another file system, one without links, or a file of another user.
        Err(_) => copy(from, to, len),
    }
}

/// Copies the first `len` bytes of the file `from` to the file `to`. They are durable on return.
pub(super) fn copy(from: &Path, to: &Path, len: u64) -> io::Result<()> {
    let (from, mut to) = (File::open(from)?, private_file(to)?);
    match io::copy(&mut from.take(len), &mut to)? {
        copied if copied == len => to.sync_all(),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was")),
    }
}
