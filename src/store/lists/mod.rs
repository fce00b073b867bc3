//! Lists of resources: the list index (`index.rs`), cursors along it (`cursor.rs`), entries that are in several
//! lists (`intersect.rs`), and pages of rows (`page.rs`).

mod cursor;
pub(crate) mod index;
mod intersect;
mod page;

pub use self::page::{GroupSelector, ListPage, ListQuery};
pub(crate) use self::page::{PageRead, SLICE};
