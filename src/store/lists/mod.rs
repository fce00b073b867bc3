//! Lists of resources: the list index, reading along lists, and pages of them.

pub(crate) mod cursor;
pub(crate) mod index;
pub(crate) mod intersect;
pub(crate) mod page;
