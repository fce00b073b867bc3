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

use super::engine::EngineError;
use super::places::{At, Group};
use super::walk::{Merged, Walk, Way as _};

/// Largest number of rows read between two skips.
const MOST_ROWS: usize = 7;

/// The result of reading along lists.
#[derive(Debug)]
pub(super) struct Stretch {
    /// The entries found, in order.
    pub(super) places: Vec<At>,
    /// Set if the limit of entries read was reached: the entries after this one are still to be read.
    pub(super) goes_on_after: Option<At>,
}

impl Stretch {
    /// A result that is complete.
    pub(super) fn whole(places: Vec<At>) -> Stretch {
        Stretch { places, goes_on_after: None }
    }
}

impl Walk<'_> {
    /// Returns up to `most` entries after `from` that are in the lists of `lead` and of all `others`. Reads
    /// at most `looks` entries of the leading list. `stands` returns whether an entry of the leading list is
    /// in the others.
    pub(super) fn meet(
        &self,
        lead: Group,
        others: &[Group],
        from: Bound<&At>,
        (most, looks): (usize, usize),
        stands: &impl Fn(&At) -> Result<bool, EngineError>,
    ) -> Result<Stretch, EngineError> {
        let (mut found, mut looked) = (Vec::new(), 0);
        let mut lead = self.merged(&[lead], from)?;
        let mut others = Others { walk: *self, groups: others, ways: Vec::new() };
        // Rows still to be read before the next skip, and how many there were after the last one.
        let (mut rows, mut spare) = (0, 0);
        let (mut near, mut last) = (false, None);
        while found.len() < most
            && let Some(at) = lead.head().cloned()
        {
            if looked == looks {
                return Ok(Stretch { places: found, goes_on_after: last });
            }
            looked += 1;
            last = Some(at.clone());
            lead.pop()?;
            if others.groups.is_empty() || !near && stands(&at)? {
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
        Ok(Stretch::whole(found))
    }
}

/// The lists that do not lead.
struct Others<'e> {
    walk: Walk<'e>,
    groups: &'e [Group],
    /// Their iterators, created when first needed.
    ways: Vec<Merged<'e>>,
}

impl Others<'_> {
    /// The furthest of their next entries from `at` on, and whether all were near; `None` if one of them has
    /// no more.
    fn furthest(&mut self, at: &At) -> Result<Option<(At, bool)>, EngineError> {
        let (mut furthest, mut near) = (at.clone(), true);
        for (which, group) in self.groups.iter().enumerate() {
            match self.ways.get_mut(which) {
                Some(way) => near &= !way.seek(at)?,
                None => {
                    near = false;
                    self.ways.push(self.walk.merged(std::slice::from_ref(group), Bound::Included(at))?);
                }
            }
            let Some(next) = self.ways[which].head() else { return Ok(None) };
            if self.walk.is_before(&furthest, next) {
                furthest = next.clone();
            }
        }
        Ok(Some((furthest, near)))
    }
}
