//! Request bodies that are on their way: how many bytes of them an organization has the daemon keep.
//!
//! * A body that comes in one piece is not counted: it is worked on at once. What waits for the rest of itself is.
//! * The share is the organization's: one that holds back the ends of its bodies fills its own and nobody else's.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::ids::TenantId;

/// The organization's bodies on their way are as many as they may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the organization's requests on their way hold {0} bytes, as many as they may")]
pub struct Full(usize);

/// The counts; an entry lives while a body is on its way.
#[derive(Debug)]
pub struct Bodies {
    most: usize,
    held: DashMap<TenantId, usize>,
}

impl Bodies {
    /// At most `most` bytes of an organization.
    #[must_use]
    pub fn new(most: usize) -> Bodies {
        Bodies { most, held: DashMap::new() }
    }

    /// Bytes that all of them hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held.iter().map(|held| *held.value()).sum()
    }

    /// A body of which nothing is kept yet.
    #[must_use]
    pub fn begin(&self, tenant: TenantId) -> Coming<'_> {
        Coming { bodies: self, tenant, bytes: 0 }
    }
}

/// A body on its way; what it holds is given back when this is dropped.
#[derive(Debug)]
pub struct Coming<'a> {
    bodies: &'a Bodies,
    tenant: TenantId,
    bytes: usize,
}

impl Coming<'_> {
    /// It holds `bytes` now, more than before.
    ///
    /// # Errors
    /// [`Full`]; it holds what it held.
    pub fn holds(&mut self, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        let mut held = self.bodies.held.entry(self.tenant).or_insert(0);
        if *held + more > self.bodies.most {
            return Err(Full(self.bodies.most));
        }
        *held += more;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.bodies.held.entry(self.tenant) {
            *held.get_mut() -= self.bytes;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_organization_has_its_own_share_and_what_is_over_is_given_back() {
        let bodies = Bodies::new(100);
        let (loud, quiet) = (TenantId(1), TenantId(2));
        let (mut first, mut second) = (bodies.begin(loud), bodies.begin(loud));
        first.holds(60).expect("room");
        second.holds(40).expect("room");
        assert_eq!(second.holds(41), Err(Full(100)));
        bodies.begin(quiet).holds(100).expect("another's share");
        drop(first);
        second.holds(100).expect("room again");
        assert_eq!(bodies.begin(loud).holds(1), Err(Full(100)));
        drop(second);
        assert!(bodies.held.is_empty());
    }
}
