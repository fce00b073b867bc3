//! Opening: what the journal holds beyond the state is replayed into the memtable.

use std::collections::HashSet;
use std::sync::Arc;

use super::applier::{write_position, write_rows};
use super::error::EngineError;
use super::inner::EngineInner;
use super::live_bytes::{LiveBytes, LiveBytesChange};
use super::memtable::Memtable;
use super::progress::{Progress, TABLE_BYTES};
use super::state::{State, Value};
use crate::store::format::keys::{self, MetaKey};
use crate::store::format::piece_of;
use crate::store::journal::{self, Change, Journal, JournalError, Position, Record};
use crate::sync::Mutex;

/// State of an opening: the state database, and in memory what the journal holds beyond it.
pub(crate) struct Replay {
    state: State,
    live: LiveBytes,
    memtable: Memtable,
    /// The first position of each segment, in order.
    segments: Vec<Position>,
}

impl Replay {
    pub(crate) fn new(state: State, live: LiveBytes) -> Replay {
        Replay { state, live, memtable: Memtable::default(), segments: Vec::new() }
    }

    /// Opens the journal and replays every record from `from` on.
    pub(crate) fn run(
        mut self,
        options: journal::Options,
        from: Position,
    ) -> Result<(Journal, Replay), EngineError> {
        self.segments =
            journal::first_positions(&options.dir).map_err(|error| EngineError::io(&error, false))?;
        let mut failed = None;
        let result = Journal::open(options, from, &mut |record| {
            self.take(record).map_err(|error| {
                let what = error.to_string();
                failed = Some(error);
                JournalError::Io(what)
            })
        });
        match (result, failed) {
            (_, Some(error)) => Err(error),
            (journal, None) => Ok((journal?, self)),
        }
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), EngineError> {
        let (mut rows, mut live) = (Vec::new(), Vec::new());
        for change in record.changes() {
            match change? {
                Change::Put { key, value } => {
                    if let Some(piece) = piece_of(key, value) {
                        live.push((piece, 1));
                    }
                    rows.push((Value::from(key), Some(Value::from(value))));
                }
                Change::Delete { key } => rows.push((Value::from(key), None)),
                Change::Free(piece) => live.push((piece, -1)),
                Change::Piece(_) => {}
            }
        }
        let segment_of = |position: Position| {
            let after = self.segments.partition_point(|first| *first <= position);
            self.segments.get(after.checked_sub(1)?).copied()
        };
        // Records that the state counts already are not counted again.
        let live = live
            .into_iter()
            .filter_map(|(piece, sign)| {
                Some((segment_of(piece.position)?, LiveBytesChange::of(&piece, sign)))
            })
            .filter(|(segment, _)| !self.live.counts(*segment, record.end));
        let filling = self.memtable.insert(rows.into_iter(), live, record.end);
        if filling.bytes >= TABLE_BYTES
            && let Some(table) = self.memtable.freeze()
        {
            write_rows(&self.state, &table, |_| ())?;
            write_position(&self.state, &table, &mut self.live)?;
            self.memtable.thaw();
        }
        Ok(())
    }

    /// Records which journal the state belongs to, and checks that every segment with live pieces exists.
    ///
    /// # Errors
    /// [`EngineError`]: a segment is missing.
    pub(crate) fn check(&self, journal: &Journal) -> Result<(), EngineError> {
        let id = keys::meta(MetaKey::Journal);
        if self.state.get(&id)?.is_none() {
            self.state.write(&id, Some(&Value::from([&[1], journal.id().as_slice()].concat())))?;
        }
        let there: HashSet<Position> = journal.segments().iter().map(|segment| segment.first).collect();
        match self.live.segments().find(|segment| !there.contains(segment)) {
            None => Ok(()),
            Some(first) => {
                let file = journal.path_of(first);
                let what = format!(
                    "{} is missing, and events lie in it: restore the data directory from a backup",
                    file.display()
                );
                Err(EngineError::Engine(what))
            }
        }
    }

    pub(crate) fn into_inner(self, journal: Journal) -> EngineInner {
        EngineInner {
            journal,
            state: self.state,
            memtable: self.memtable,
            live: Mutex::new(self.live),
            progress: Progress::default(),
            pins: Arc::default(),
        }
    }
}
