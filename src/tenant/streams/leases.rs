//! The wheel of leases: which streams may have been silent for too long.
//!
//! * One wheel holds the leases of all organizations. A word of a producer changes nothing here: an entry
//!   that comes due is put back if the stream was renewed meanwhile.
//! * Time is monotonic, in seconds, so a jump of the wall clock ends no stream.

use std::sync::Arc;

use super::state::LEASE_SECONDS;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Slots of one second. A lease is shorter than the wheel is long.
const SLOTS: usize = 1_024;
const _: () = assert!((LEASE_SECONDS.1 as usize) + 1 < SLOTS);

/// A stream whose lease may end.
#[derive(Clone, Debug)]
pub(in crate::tenant) struct Lease {
    pub(in crate::tenant) tenant: TenantId,
    pub(in crate::tenant) id: Arc<str>,
    /// The second in which it is looked at. An entry with another second than the stream has is out of date.
    pub(in crate::tenant) due_s: u64,
}

/// The leases of all streams.
pub(in crate::tenant) struct LeaseWheel(Mutex<Wheel>);

struct Wheel {
    slots: Vec<Vec<Lease>>,
    /// Everything due before this second was taken.
    next_s: u64,
}

impl LeaseWheel {
    pub(in crate::tenant) fn new(now_s: u64) -> LeaseWheel {
        LeaseWheel(Mutex::new(Wheel { slots: vec![Vec::new(); SLOTS], next_s: now_s }))
    }

    /// Adds a stream that is to be looked at in the second `due_s`. Returns the second in which it will be.
    #[must_use]
    pub(in crate::tenant) fn add(&self, due_s: u64, tenant: TenantId, id: Arc<str>) -> u64 {
        let wheel = &mut *self.0.lock();
        let due_s = due_s.clamp(wheel.next_s, wheel.next_s + SLOTS as u64 - 1);
        wheel.slots[due_s as usize % SLOTS].push(Lease { tenant, id, due_s });
        due_s
    }

    /// Takes the streams that are due up to `now_s`.
    pub(in crate::tenant) fn take_due(&self, now_s: u64) -> Vec<Lease> {
        let wheel = &mut *self.0.lock();
        let mut due = Vec::new();
        // After a pause of the whole machine, one round takes everything.
        let rounds = (now_s + 1).saturating_sub(wheel.next_s).min(SLOTS as u64);
        for step in 0..rounds {
            due.append(&mut wheel.slots[(wheel.next_s + step) as usize % SLOTS]);
        }
        wheel.next_s = wheel.next_s.max(now_s + 1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_come_due_in_their_second_and_once() {
        let wheel = LeaseWheel::new(1_000);
        let add = |due_s: u64, id: &str| {
            let _ = wheel.add(due_s, TenantId(1), id.into());
        };
        let due = |now_s: u64| -> Vec<String> {
            wheel.take_due(now_s).into_iter().map(|lease| lease.id.to_string()).collect()
        };
        add(1_005, "a");
        add(1_006, "b");
        add(900, "late");
        assert_eq!(due(1_000), ["late"]);
        assert_eq!(due(1_004), [""; 0]);
        assert_eq!(due(1_005), ["a"]);
        assert_eq!(due(1_005), [""; 0]);
        add(1_000, "past");
        assert_eq!(due(1_006), ["b", "past"]);
        add(1_600, "c");
        assert_eq!(due(9_000_000), ["c"]);
    }
}
