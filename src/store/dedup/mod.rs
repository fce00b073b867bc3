//! Rows that are kept for a day, so that a repeated request does nothing more: responses under an
//! `Idempotency-Key`, and `message_id`s.

pub(crate) mod day_clock;
pub(crate) mod lanes;
pub(crate) mod records;
