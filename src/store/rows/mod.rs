//! Rows that callers hand over to be committed, and the rows of organizations and credentials.

pub(crate) mod builder;
pub(crate) mod identity;
pub(crate) mod records;
pub(crate) mod table_rows;
pub(crate) mod usage_rows;
