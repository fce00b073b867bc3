//! A range of rows as a reader sees it: the memtable overlaid on the state.
//!
//! * Rows are read in chunks of growing size. So reading one row costs one row, and a long scan takes the
//!   lock seldom.
//! * Commits may happen between two chunks. Within a chunk every row is as it was at one moment, or newer if
//!   a later commit has reached the state already. A chunk during which a table was frozen is read again.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use super::error::EngineError;
use super::inner::EngineInner;
use super::memtable::{self, Row};
use super::state::Value;

/// Rows in the first chunk; the next constant is the limit of a chunk.
const FIRST_CHUNK: usize = 2;
const LARGEST_CHUNK: usize = 128;

type Pair = (Value, Value);

/// An iterator that can be read from both ends.
pub(crate) struct MergedRange {
    inner: Arc<EngineInner>,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    /// Rows read from the lower end, in order.
    front: VecDeque<Pair>,
    /// Rows read from the upper end, highest first.
    back: VecDeque<Pair>,
    chunk: usize,
    /// Whether nothing is left between the bounds.
    exhausted: bool,
}

impl MergedRange {
    pub(crate) fn new(inner: Arc<EngineInner>, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> MergedRange {
        MergedRange {
            inner,
            lower,
            upper,
            front: VecDeque::new(),
            back: VecDeque::new(),
            chunk: FIRST_CHUNK,
            exhausted: false,
        }
    }

    /// Reads the next chunk from one end.
    fn fill(&mut self, backwards: bool) -> Result<(), EngineError> {
        while !self.exhausted {
            let most = self.chunk;
            self.chunk = (most * 4).min(LARGEST_CHUNK);
            let generation = self.inner.memtable.generation();
            let bounds = (as_slice(&self.lower), as_slice(&self.upper));
            if memtable::is_empty(bounds.0, bounds.1) {
                self.exhausted = true;
                return Ok(());
            }
            let (newer, all) = self.inner.memtable.take(bounds, backwards, most);
            // If the tables hold more than was read, only rows before that edge count.
            let edge = newer.last().filter(|_| !all).map(|(key, _)| key.clone());
            let within = match (&edge, backwards) {
                (Some(edge), false) => (bounds.0, Bound::Included(&edge[..])),
                (Some(edge), true) => (Bound::Included(&edge[..]), bounds.1),
                (None, _) => bounds,
            };
            // Every removed row may hide a row of the state.
            let hidden = newer.iter().filter(|(_, value)| value.is_none()).count();
            let (older, older_all) = self.of_state(within, backwards, most + hidden)?;
            if self.inner.memtable.generation() != generation {
                self.chunk = most;
                continue;
            }
            // After the last row read from the state there may be more.
            let older_edge = older.last().filter(|_| !older_all).map(|(key, _)| key.clone());
            let mut rows = memtable::merge(newer, older, backwards);
            let edge = older_edge.or(edge);
            if let Some(edge) = &edge {
                rows.retain(|(key, _)| if backwards { key >= edge } else { key <= edge });
            }
            match (edge, backwards) {
                (Some(edge), false) => self.lower = Bound::Excluded(edge.to_vec()),
                (Some(edge), true) => self.upper = Bound::Excluded(edge.to_vec()),
                (None, _) => self.exhausted = true,
            }
            let found = rows.into_iter().filter_map(|(key, value)| Some((key, value?)));
            match backwards {
                false => self.front.extend(found),
                true => self.back.extend(found),
            }
            if !(if backwards { &self.back } else { &self.front }).is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Up to `most` rows of the state. Also returns whether these are all.
    fn of_state(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        backwards: bool,
        most: usize,
    ) -> Result<(Vec<Row>, bool), EngineError> {
        let rows = self.inner.state.between(bounds)?;
        let own = |row: Result<Pair, EngineError>| row.map(|(key, value)| (key, Some(value)));
        let rows: Vec<Row> = match backwards {
            false => rows.take(most).map(own).collect::<Result<_, _>>()?,
            true => rows.rev().take(most).map(own).collect::<Result<_, _>>()?,
        };
        let all = rows.len() < most;
        Ok((rows, all))
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl Iterator for MergedRange {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.is_empty()
            && let Err(error) = self.fill(false)
        {
            self.exhausted = true;
            return Some(Err(error));
        }
        self.front.pop_front().or_else(|| self.back.pop_back()).map(Ok)
    }
}

impl DoubleEndedIterator for MergedRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty()
            && let Err(error) = self.fill(true)
        {
            self.exhausted = true;
            return Some(Err(error));
        }
        self.back.pop_front().or_else(|| self.front.pop_back()).map(Ok)
    }
}
