//! A view: the rows of a state with those of later records overlaid, for one reader.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::error::BackupError;
use super::rows_file::TakeRow;
use crate::store::engine::{EngineError, State};
use crate::store::journal::{Change, JournalError, Record};

/// The rows as of the end of a journal.
pub(super) struct View {
    pub(super) state: State,
    /// Rows that the state does not have yet; `None` if the row is removed.
    newer: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl View {
    pub(super) fn new(state: State) -> View {
        View { state, newer: BTreeMap::new() }
    }

    /// Overlays the rows of a record.
    pub(super) fn apply(&mut self, record: &Record<'_>) -> Result<(), JournalError> {
        for change in record.changes() {
            match change? {
                Change::Put { key, value } => drop(self.newer.insert(key.to_vec(), Some(value.to_vec()))),
                Change::Delete { key } => drop(self.newer.insert(key.to_vec(), None)),
                Change::Free(_) | Change::Piece(_) => {}
            }
        }
        Ok(())
    }

    /// The row under `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self.newer.get(key) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.state.get(key)?.map(|value| value.to_vec())),
        }
    }

    /// Passes every row to `take`, in key order.
    pub(super) fn each(&self, take: &mut TakeRow<'_>) -> Result<(), BackupError> {
        let mut newer = self.newer.iter().peekable();
        for row in self.state.between((Bound::Unbounded, Bound::Unbounded))? {
            let (key, value) = row?;
            let mut replaced = false;
            while let Some((newer_key, row)) = newer.next_if(|(newer_key, _)| newer_key.as_slice() <= &*key) {
                replaced |= newer_key.as_slice() == &*key;
                if let Some(row) = row {
                    take(newer_key, row)?;
                }
            }
            if !replaced {
                take(&key, &value)?;
            }
        }
        for (key, row) in newer {
            if let Some(row) = row {
                take(key, row)?;
            }
        }
        Ok(())
    }
}
