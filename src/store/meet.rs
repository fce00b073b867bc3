//! Places that stand in all of several lists.
//!
//! * One list leads. Whether its next place stands in the others too, the row says itself: it is read for the page anyway, and
//!   the others' places lie far apart where they are many.
//! * Where it does not, the others say how far to leap: nothing before the furthest of their next places stands in all of them.
//! * A leap that spares nothing costs more than a row that is looked at: after each in a row, twice as many rows are looked at
//!   before the next, up to [`MOST_ROWS`]. Where the others go along with the leading one, place by place, they are asked instead
//!   of rows: that costs less.

use std::ops::Bound;

use super::engine::EngineError;
use super::places::{At, Group};
use super::walk::{Merged, Walk, Way as _};

/// Most rows that are looked at between two leaps.
const MOST_ROWS: usize = 7;

/// What a walk along lists came to.
#[derive(Debug)]
pub(super) struct Stretch {
    /// In order.
    pub(super) places: Vec<At>,
    /// It has looked at as many places as it may; those after this one have yet to be looked at.
    pub(super) goes_on_after: Option<At>,
}

impl Stretch {
    /// A walk that has looked at everything it was to.
    pub(super) fn whole(places: Vec<At>) -> Stretch {
        Stretch { places, goes_on_after: None }
    }
}

impl Walk<'_> {
    /// Up to `most` places after `from` in the lists of `lead` and of all `others`, having looked at up to `looks` of the first;
    /// `stands` says of a place in the first whether it stands in the others.
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
        // Rows still to be looked at before the next leap, and how many that were after the last one.
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
    /// Their ways, once one was asked for.
    ways: Vec<Merged<'e>>,
}

impl Others<'_> {
    /// The furthest of their next places from `at` on, and whether all were near; `None`: one of them has none.
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
