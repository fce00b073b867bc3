//! Rows that are kept for a day, so that a repeated request does nothing more.

pub(crate) mod lanes;
