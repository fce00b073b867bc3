//! The memtable: rows that are committed and not yet in the state. Every read overlays it on the state.
//!
//! * There are two tables. Commits go into the *active* one; the *frozen* one is being written into the
//!   state. If both have a row, the active one's is current.
//! * A commit becomes visible under one lock, all of it or nothing.
//! * Nothing waits for the disk under the lock. A read that needs both the tables and the state reads the
//!   tables first and checks the [`Memtable::generation`] afterwards. As long as it is the same, the state
//!   holds nothing newer than the frozen table.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::time::Instant;

use super::live_bytes::LiveBytesChange;
use super::state::Value;
use crate::store::journal::Position;
use crate::sync::RwLock;

/// Estimated memory overhead of a row in a table, in bytes.
const ROW_OVERHEAD: usize = 96;

/// Estimated memory of a row in a table, in bytes.
pub(super) fn row_bytes(key: &Value, value: Option<&Value>) -> usize {
    key.len() + value_bytes(value) + ROW_OVERHEAD
}

fn value_bytes(value: Option<&Value>) -> usize {
    value.map_or(0, |value| value.len())
}

/// The rows of consecutive commits; `None` if the row is removed.
#[derive(Default)]
pub(super) struct CommittedRows {
    pub(crate) rows: BTreeMap<Value, Option<Value>>,
    /// Changes of live counts, by the first position of each segment.
    pub(crate) live: HashMap<Position, LiveBytesChange>,
    /// The end of the last record in the table.
    pub(crate) end: Position,
    bytes: usize,
    /// When its first commit was inserted.
    since: Option<Instant>,
}

impl CommittedRows {
    /// Estimated memory of its rows, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[derive(Default)]
struct Tables {
    active: CommittedRows,
    frozen: Option<Arc<CommittedRows>>,
}

/// Both tables.
#[derive(Default)]
pub(crate) struct Memtable {
    tables: RwLock<Tables>,
    generation: AtomicU64,
}

/// How full the active table is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveSize {
    /// Estimated memory, in bytes.
    pub(crate) bytes: usize,
    /// When its first commit was inserted; `None` if there was none.
    pub(crate) since: Option<Instant>,
    /// Whether the inserted commit is its first.
    pub(super) is_first: bool,
}

/// A key and its value; `None` if the row is removed.
pub(crate) type Row = (Value, Option<Value>);

impl Memtable {
    /// Makes the rows of one commit visible. The commit's record ends at `end`.
    pub(crate) fn insert(
        &self,
        rows: impl Iterator<Item = Row>,
        live: impl Iterator<Item = (Position, LiveBytesChange)>,
        end: Position,
    ) -> ActiveSize {
        let mut tables = self.tables.write();
        let table = &mut tables.active;
        for (key, value) in rows {
            let (without, with) = (row_bytes(&key, None), row_bytes(&key, value.as_ref()));
            // The key and the row's own cost are counted once.
            let before = table.rows.insert(key, value).map_or(0, |old| without + value_bytes(old.as_ref()));
            table.bytes = (table.bytes + with).saturating_sub(before);
        }
        for (segment, change) in live {
            *table.live.entry(segment).or_default() += change;
        }
        table.end = end;
        let is_first = table.since.is_none();
        table.since.get_or_insert_with(Instant::now);
        ActiveSize { bytes: table.bytes, since: table.since, is_first }
    }

    /// How full the active table is.
    pub(crate) fn filling(&self) -> ActiveSize {
        let tables = self.tables.read();
        let CommittedRows { bytes, since, .. } = tables.active;
        ActiveSize { bytes, since, is_first: false }
    }

    /// Freezes the active table; returns `None` if it is empty. The previously frozen table must be thawed
    /// first.
    pub(super) fn freeze(&self) -> Option<Arc<CommittedRows>> {
        let mut tables = self.tables.write();
        if tables.active.since.is_none() || tables.frozen.is_some() {
            return tables.frozen.clone();
        }
        let frozen = Arc::new(std::mem::take(&mut tables.active));
        tables.frozen = Some(frozen.clone());
        self.generation.fetch_add(1, Release);
        Some(frozen)
    }

    /// Drops the frozen table, because the state holds all of it.
    pub(super) fn thaw(&self) {
        let frozen = self.tables.write().frozen.take();
        drop(frozen); // outside of the lock, because it may be large
    }

    /// Number of times that a table was frozen.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The difference between the live counts of segments and the state's.
    pub(crate) fn live(&self) -> HashMap<Position, LiveBytesChange> {
        let tables = self.tables.read();
        let mut live = tables.active.live.clone();
        for (segment, change) in tables.frozen.iter().flat_map(|frozen| &frozen.live) {
            *live.entry(*segment).or_default() += *change;
        }
        live
    }

    /// The row under `key`, if a table has it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Value>> {
        let tables = self.tables.read();
        let active = tables.active.rows.get(key);
        active.or_else(|| tables.frozen.as_ref()?.rows.get(key)).cloned()
    }

    /// Up to `most` rows within bounds, from the lower end or, if `backwards`, from the upper one. Also
    /// returns whether these are all.
    pub(crate) fn take(
        &self,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        backwards: bool,
        most: usize,
    ) -> (Vec<Row>, bool) {
        if is_empty(lower, upper) {
            return (Vec::new(), true);
        }
        let tables = self.tables.read();
        let in_order = |table: &CommittedRows| -> Vec<Row> {
            let range = table.rows.range::<[u8], _>((lower, upper));
            let own = |(key, value): (&Value, &Option<Value>)| (key.clone(), value.clone());
            match backwards {
                false => range.take(most + 1).map(own).collect(),
                true => range.rev().take(most + 1).map(own).collect(),
            }
        };
        let active = in_order(&tables.active);
        let frozen = tables.frozen.as_ref().map_or_else(Vec::new, |frozen| in_order(frozen));
        drop(tables);
        let mut rows = merge(active, frozen, backwards);
        let all = rows.len() <= most;
        rows.truncate(most);
        (rows, all)
    }
}

/// Merges both in order. If both have a key, the newer row is taken.
pub(crate) fn merge(newer: Vec<Row>, older: Vec<Row>, backwards: bool) -> Vec<Row> {
    if older.is_empty() {
        return newer;
    }
    let mut rows = Vec::with_capacity(newer.len() + older.len());
    let (mut newer, mut older) = (newer.into_iter().peekable(), older.into_iter().peekable());
    loop {
        let order = match (newer.peek(), older.peek()) {
            (Some((a, _)), Some((b, _))) if backwards => b.cmp(a),
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return rows,
        };
        match order {
            std::cmp::Ordering::Less => rows.extend(newer.next()),
            std::cmp::Ordering::Greater => rows.extend(older.next()),
            std::cmp::Ordering::Equal => {
                rows.extend(newer.next());
                older.next();
            }
        }
    }
}

/// Returns true if the bounds contain no key. A `BTreeMap` panics if they are reversed.
pub(crate) fn is_empty(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
    }
}
