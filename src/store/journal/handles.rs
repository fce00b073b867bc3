//! Open segment files for readers: at most [`MAX_OPEN`]; the least recently used one is closed first.
//!
//! A reader holds the file by an `Arc`. So the file stays open for the reader after it is dropped here, and
//! its bytes stay readable after the segment is removed.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::layout::Position;
use crate::sync::Mutex;

/// Number of segment files that are kept open for readers.
pub(super) const MAX_OPEN: usize = 128;

/// The files, by the first position of their segment.
#[derive(Default)]
pub(super) struct Handles(Mutex<Open>);

#[derive(Default)]
struct Open {
    files: HashMap<Position, Used>,
    /// Number of uses so far.
    clock: u64,
}

struct Used {
    file: Arc<File>,
    /// The value of `clock` at its last use.
    at: u64,
}

impl Handles {
    pub(super) fn get(&self, first: Position) -> Option<Arc<File>> {
        let mut open = self.0.lock();
        open.clock += 1;
        let now = open.clock;
        let used = open.files.get_mut(&first)?;
        used.at = now;
        Some(used.file.clone())
    }

    pub(super) fn insert(&self, first: Position, file: Arc<File>) {
        let mut open = self.0.lock();
        if open.files.len() >= MAX_OPEN && !open.files.contains_key(&first) {
            let oldest = open.files.iter().min_by_key(|(_, used)| used.at).map(|(first, _)| *first);
            oldest.and_then(|oldest| open.files.remove(&oldest));
        }
        open.clock += 1;
        let at = open.clock;
        open.files.insert(first, Used { file, at });
    }

    pub(super) fn forget(&self, first: Position) {
        self.0.lock().files.remove(&first);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().files.len()
    }
}
