//! The disk as the store sees it: each system call as a method that tests can fail, and the free space with
//! what it lets the store accept.

pub(crate) mod dirs;
pub(crate) mod io;
pub(crate) mod space;
