//! Quotas: what each organization stores besides its log, and how much it may store. `usage.rs` decides which
//! rows count, `ledger.rs` holds the numbers, the limits and the reservations. Both know no engine.

mod ledger;
pub(crate) mod usage;

pub use self::ledger::{Growth, OverQuota, QuotaTotals, Reservation};
pub(crate) use self::ledger::{QuotaLimits, Quotas};
