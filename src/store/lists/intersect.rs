//! Intersection: list index entries that are in all of several lists.
//!
//! * One list leads. The row of its next entry says whether that entry is also in the other lists. The row is
//!   read for the page anyway, and entries of the others are far apart if there are many.
//! * If the entry is not in all of them, the others give the distance to skip: nothing before the furthest of
//!   their next entries is in all lists.
//! * A skip that saves nothing costs more than reading a row. After each such skip in sequence, twice as many
//!   rows are read before the next one, up to [`MOST_ROWS`]. If the entries of the others are near the
//!   leading list's, they are compared instead of rows, which costs less.

use std::ops::Bound;

use super::cursor::{ListCursor as _, ListReader, MergedCursor};
use crate::store::engine::EngineError;
use crate::store::format::{EntryKey, Group};

/// Largest number of rows read between two skips.
const MOST_ROWS: usize = 7;

/// The result of reading along lists.
#[derive(Debug)]
pub(crate) struct ListScan {
    /// The entries found, in order.
    pub(crate) entries: Vec<EntryKey>,
    /// Set if the limit of entries read was reached: the entries after this one are still to be read.
    pub(super) goes_on_after: Option<EntryKey>,
}

impl ListScan {
    /// A result that is complete.
    pub(crate) fn complete(entries: Vec<EntryKey>) -> ListScan {
        ListScan { entries, goes_on_after: None }
    }
}

impl ListReader<'_> {
    /// Returns up to `most` entries after `from` that are in the lists of `lead` and of all `others`. Reads
    /// at most `looks` entries of the leading list. `is_in` returns whether an entry of the leading list is
    /// in the others.
    pub(crate) fn intersect(
        &self,
        lead: Group,
        others: &[Group],
        from: Bound<&EntryKey>,
        (most, looks): (usize, usize),
        is_in: &impl Fn(&EntryKey) -> Result<bool, EngineError>,
    ) -> Result<ListScan, EngineError> {
        let (mut found, mut looked) = (Vec::new(), 0);
        let mut lead = self.merged_cursor(&[lead], from)?;
        let mut others = Others { reader: *self, groups: others, cursors: Vec::new() };
        // Rows still to be read before the next skip, and how many there were after the last one.
        let (mut rows, mut spare) = (0, 0);
        let (mut near, mut last) = (false, None);
        while found.len() < most
            && let Some(at) = lead.head().cloned()
        {
            if looked == looks {
                return Ok(ListScan { entries: found, goes_on_after: last });
            }
            looked += 1;
            last = Some(at.clone());
            lead.pop()?;
            if others.groups.is_empty() || !near && is_in(&at)? {
                found.push(at);
                continue;
            }
            if rows > 0 {
                rows -= 1;
                continue;
            }
            let Some((furthest, all_near)) = others.furthest(&at)? else { break };
            near = all_near;
            if furthest == at {
                found.push(at);
                continue;
            }
            let was_worth_it = near || lead.head().is_some_and(|next| self.is_before(next, &furthest));
            spare = if was_worth_it { 0 } else { (2 * spare + 1).min(MOST_ROWS) };
            rows = spare;
            lead.seek(&furthest)?;
        }
        Ok(ListScan::complete(found))
    }
}

/// The lists that do not lead.
struct Others<'e> {
    reader: ListReader<'e>,
    groups: &'e [Group],
    /// Their iterators, created when first needed.
    cursors: Vec<MergedCursor<'e>>,
}

impl Others<'_> {
    /// The furthest of their next entries from `at` on, and whether all were near; `None` if one of them has
    /// no more.
    fn furthest(&mut self, at: &EntryKey) -> Result<Option<(EntryKey, bool)>, EngineError> {
        let (mut furthest, mut near) = (at.clone(), true);
        for (which, group) in self.groups.iter().enumerate() {
            match self.cursors.get_mut(which) {
                Some(way) => near &= !way.seek(at)?,
                None => {
                    near = false;
                    self.cursors
                        .push(self.reader.merged_cursor(std::slice::from_ref(group), Bound::Included(at))?);
                }
            }
            let Some(next) = self.cursors[which].head() else { return Ok(None) };
            if self.reader.is_before(&furthest, next) {
                furthest = next.clone();
            }
        }
        Ok(Some((furthest, near)))
    }
}
