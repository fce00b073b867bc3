//! The disk as the store sees it.
//!
//! `io.rs` has a method for each system call, so that tests can make each fail. `space.rs` watches the free
//! space and decides what the store accepts. `dirs.rs` creates directories and makes them durable.

mod dirs;
mod io;
mod space;

pub(crate) use self::dirs::{private_dir, sync_dir};
pub use self::io::{Disk, Io, Space};
pub use self::space::StoreState;
pub(crate) use self::space::{SpaceWatch, StateWatch, drop_ballast};
