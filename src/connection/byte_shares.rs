//! Limits the bytes that the daemon keeps for each organization because a peer has not sent or not read the
//! rest.
//!
//! * There are three limits of this kind: incomplete input (bodies of requests, WebSocket messages),
//!   responses that are not read, and event streams over HTTP/2 that are not read. Each organization has its
//!   own share of each.
//! * All peers without a valid credential have one share together.
//! * The first [`FREE_BYTES`] of each request, response or connection are not counted, so that small and
//!   quick ones cost no look-up. They are bounded by the number of connections.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::ids::TenantId;

/// Bytes of one request, response or connection that are not counted.
pub const FREE_BYTES: usize = 4 * 1024;

/// The share is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShareExceeded {
    /// The share of an organization is used up.
    #[error("the organization's {what} have reached their limit of {most} bytes")]
    Organization {
        /// What is counted, in the plural.
        what: &'static str,
        /// The size of the share in bytes.
        most: usize,
    },
    /// The share of all peers without a credential is used up.
    #[error("too many requests without a credential are in progress")]
    Unauthenticated,
}

/// The counted bytes; an entry exists while there is a claim on it.
#[derive(Debug)]
pub struct ByteShares {
    what: &'static str,
    most: usize,
    unauthenticated: usize,
    claimed: DashMap<Option<TenantId>, usize>,
}

impl ByteShares {
    /// Allows at most `most` bytes for one organization, and `unauthenticated` for all peers without a
    /// credential. `what` names in the plural what is counted.
    #[must_use]
    pub fn new(what: &'static str, most: usize, unauthenticated: usize) -> Arc<ByteShares> {
        Arc::new(ByteShares { what, most, unauthenticated, claimed: DashMap::new() })
    }

    /// Returns the number of bytes that are counted now, in total.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.claimed.iter().map(|held| *held.value()).sum()
    }

    /// Checks whether a request may begin that will [force](ByteClaim::force) its claim. This check has a share
    /// of its own above the share at which claims are refused, so that users that may only read cannot keep
    /// others from writing.
    ///
    /// # Errors
    /// [`ShareExceeded`].
    pub fn check(&self, tenant: Option<TenantId>) -> Result<(), ShareExceeded> {
        let (most, full) = self.limit(tenant);
        let held = self.claimed.get(&tenant).map_or(0, |held| *held);
        if held < most.saturating_mul(2) { Ok(()) } else { Err(full) }
    }

    /// Creates a claim of 0 bytes on the share of `tenant` (`None`: of peers without a credential).
    #[must_use]
    pub fn claim(self: &Arc<Self>, tenant: Option<TenantId>) -> ByteClaim {
        ByteClaim { shares: self.clone(), tenant, bytes: 0 }
    }

    fn limit(&self, tenant: Option<TenantId>) -> (usize, ShareExceeded) {
        match tenant {
            Some(_) => (self.most, ShareExceeded::Organization { what: self.what, most: self.most }),
            None => (self.unauthenticated, ShareExceeded::Unauthenticated),
        }
    }
}

/// The counted bytes of one request, response or connection; released when this is dropped.
#[derive(Debug)]
pub struct ByteClaim {
    shares: Arc<ByteShares>,
    tenant: Option<TenantId>,
    /// The number of bytes that are counted.
    bytes: usize,
}

impl ByteClaim {
    /// Sets the number of bytes that are kept.
    ///
    /// # Errors
    /// [`ShareExceeded`]: the share has no room for the increase; the claim stays as it was.
    pub fn set(&mut self, bytes: usize) -> Result<(), ShareExceeded> {
        let (most, full) = self.shares.limit(self.tenant);
        let free = self.tenant.is_some() && bytes <= FREE_BYTES;
        let counted = if free { 0 } else { bytes };
        if counted > self.bytes {
            let more = counted - self.bytes;
            match self.shares.claimed.entry(self.tenant) {
                Entry::Occupied(mut held) if held.get() + more <= most => *held.get_mut() += more,
                Entry::Vacant(vacant) if more <= most => drop(vacant.insert(more)),
                _ => return Err(full),
            }
        } else {
            self.release(self.bytes - counted);
        }
        self.bytes = counted;
        Ok(())
    }

    /// Like [`ByteClaim::set`], for bytes that can no longer be refused: the share may be exceeded.
    pub fn force(&mut self, bytes: usize) {
        if self.set(bytes).is_err() {
            *self.shares.claimed.entry(self.tenant).or_insert(0) += bytes.saturating_sub(self.bytes);
            self.bytes = self.bytes.max(bytes);
        }
    }

    fn release(&self, bytes: usize) {
        if bytes > 0
            && let Entry::Occupied(mut held) = self.shares.claimed.entry(self.tenant)
        {
            *held.get_mut() = held.get().saturating_sub(bytes);
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

impl Drop for ByteClaim {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_organization_has_its_own_share_and_unused_bytes_are_released() {
        let shares = ByteShares::new("bodies", 100_000, 20_000);
        let (loud, quiet) = (Some(TenantId(1)), Some(TenantId(2)));
        let full = Err(ShareExceeded::Organization { what: "bodies", most: 100_000 });
        let (mut first, mut second) = (shares.claim(loud), shares.claim(loud));
        assert_eq!(first.set(60_000), Ok(()));
        assert_eq!(second.set(40_000), Ok(()));
        assert_eq!(second.set(40_001), full);
        assert_eq!(shares.check(loud), Ok(()));
        assert_eq!(shares.claim(loud).set(FREE_BYTES), Ok(()), "the first bytes are free");
        assert_eq!(shares.claim(quiet).set(100_000), Ok(()), "another's share");
        assert_eq!(shares.claim(None).set(20_001), Err(ShareExceeded::Unauthenticated));
        drop(first);
        assert_eq!(second.set(100_000), Ok(()));
        assert_eq!(second.set(50_000), Ok(()));
        assert_eq!(shares.bytes(), 50_000);
        let mut third = shares.claim(loud);
        third.force(150_000);
        assert_eq!(shares.bytes(), 200_000);
        assert_eq!(third.set(150_001), full);
        assert_eq!(shares.check(loud), full);
        drop((second, third));
        assert!(shares.claimed.is_empty());
    }
}
