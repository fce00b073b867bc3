//! Rows that are committed and not yet in the state, in memory: the overlay that every read looks through.
//!
//! * Two tables: commits go into the *active* one; the *frozen* one is on its way into the state. A row that both have is the
//!   active one's.
//! * A commit becomes visible under one lock, all of it or nothing.
//! * Nothing waits for the disk under the lock. A read that needs both the tables and the state takes from the tables first and asks
//!   for the [`Memtable::generation`] afterwards: as long as that is the same, the state holds nothing newer than the frozen
//!   table.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::time::Instant;

use super::journal::Position;
use super::state::Value;
use crate::sync::RwLock;

/// What a row of a table costs in memory besides its key and value, bytes.
const ROW_OVERHEAD: usize = 96;

/// Bytes of memory that a row takes in a table, about.
pub(super) fn row_bytes(key: &Value, value: Option<&Value>) -> usize {
    key.len() + value_bytes(value) + ROW_OVERHEAD
}

fn value_bytes(value: Option<&Value>) -> usize {
    value.map_or(0, |value| value.len())
}

/// How the live bytes of a segment change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    pub(super) bytes: i64,
    pub(super) pieces: i64,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Change) {
        self.bytes += other.bytes;
        self.pieces += other.pieces;
    }
}

/// The rows of consecutive commits; `None`: the row is removed.
#[derive(Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<Value, Option<Value>>,
    /// By the first position of each segment.
    pub(super) live: HashMap<Position, Change>,
    /// The end of the last record in it.
    pub(super) end: Position,
    bytes: usize,
    /// When its first commit came.
    since: Option<Instant>,
}

impl Table {
    /// Bytes of memory that its rows take, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[derive(Default)]
struct Tables {
    active: Table,
    frozen: Option<Arc<Table>>,
}

/// Both tables.
#[derive(Default)]
pub(super) struct Memtable {
    tables: RwLock<Tables>,
    generation: AtomicU64,
}

/// What the active table holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    /// Bytes of memory, about.
    pub(super) bytes: usize,
    /// When its first commit came; `None`: there was none.
    pub(super) since: Option<Instant>,
    /// The commit that was inserted is its first.
    pub(super) is_first: bool,
}

/// A key and what is stored under it; `None`: it is removed.
pub(super) type Row = (Value, Option<Value>);

impl Memtable {
    /// Makes the rows of one commit visible, whose record ends at `end`.
    pub(super) fn insert(
        &self,
        rows: impl Iterator<Item = Row>,
        live: impl Iterator<Item = (Position, Change)>,
        end: Position,
    ) -> Filling {
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
        Filling { bytes: table.bytes, since: table.since, is_first }
    }

    /// What the active table holds.
    pub(super) fn filling(&self) -> Filling {
        let tables = self.tables.read();
        let Table { bytes, since, .. } = tables.active;
        Filling { bytes, since, is_first: false }
    }

    /// Freezes the active table; `None` where it holds nothing. The table that was frozen before must be thawed.
    pub(super) fn freeze(&self) -> Option<Arc<Table>> {
        let mut tables = self.tables.write();
        if tables.active.since.is_none() || tables.frozen.is_some() {
            return tables.frozen.clone();
        }
        let frozen = Arc::new(std::mem::take(&mut tables.active));
        tables.frozen = Some(frozen.clone());
        self.generation.fetch_add(1, Release);
        Some(frozen)
    }

    /// Lets go of the frozen table: the state holds all of it.
    pub(super) fn thaw(&self) {
        let frozen = self.tables.write().frozen.take();
        drop(frozen); // outside of the lock: it may be large
    }

    /// Counts how often a table was frozen.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// How the live bytes of segments differ from what the state says.
    pub(super) fn live(&self) -> HashMap<Position, Change> {
        let tables = self.tables.read();
        let mut live = tables.active.live.clone();
        for (segment, change) in tables.frozen.iter().flat_map(|frozen| &frozen.live) {
            *live.entry(*segment).or_default() += *change;
        }
        live
    }

    /// The row under `key`, if a table has it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Value>> {
        let tables = self.tables.read();
        let active = tables.active.rows.get(key);
        active.or_else(|| tables.frozen.as_ref()?.rows.get(key)).cloned()
    }

    /// Up to `most` rows within bounds, from the lower end or, `backwards`, from the upper one; whether these are all.
    pub(super) fn take(
        &self,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        backwards: bool,
        most: usize,
    ) -> (Vec<Row>, bool) {
        if is_empty(lower, upper) {
            return (Vec::new(), true);
        }
        let tables = self.tables.read();
        let in_order = |table: &Table| -> Vec<Row> {
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

/// Both in order, the newer row where both have a key.
pub(super) fn merge(newer: Vec<Row>, older: Vec<Row>, backwards: bool) -> Vec<Row> {
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

/// Whether no key lies within bounds: a `BTreeMap` panics where they are turned round.
pub(super) fn is_empty(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
    }
}
