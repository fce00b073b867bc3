//! Computes how many connections the process can hold, after raising its descriptor limit as far as possible.

use crate::descriptors;

/// Descriptors reserved for the store, listeners, eventfds, the admin listener and connections that are being
/// refused.
pub(super) const RESERVED: u64 = 192;

/// Raises the soft descriptor limit to the hard one. Returns how many connections fit, at most `wanted` (0:
/// no other limit).
#[must_use]
pub(super) fn raise(wanted: usize) -> usize {
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the descriptor limit could not be raised");
    }
    let descriptors = descriptors::limit();
    let room = usize::try_from(descriptors.saturating_sub(RESERVED).max(1)).unwrap_or(usize::MAX);
    let capacity = if wanted == 0 { room } else { wanted.min(room) };
    if wanted > room {
        tracing::warn!(wanted, capacity, "limits.connections exceeds what the descriptor limit allows");
    }
    tracing::info!(descriptors, connections = capacity, "capacity");
    capacity
}
