//! Rows that are kept for a day, so that a repeated request does nothing more: responses under an
//! `Idempotency-Key`, and `message_id`s. `records.rs` has the rows, `lanes.rs` the order in which they expire,
//! `day_clock.rs` the clock that ages them.

mod day_clock;
mod lanes;
mod records;

pub(crate) use self::day_clock::DayClock;
pub(crate) use self::lanes::DayLanes;
pub use self::records::{DAY_MS, IdempotencyRecord, MessageIdRecord, StoredResponse};
pub(crate) use self::records::{fresh, read_idempotency, read_message_id};
