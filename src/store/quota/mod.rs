//! Quotas: what each organization stores besides its log, and how much it may store.

pub(crate) mod ledger;
pub(crate) mod usage;
