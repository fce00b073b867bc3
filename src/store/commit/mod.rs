//! Commits: the queue in front of the disk (`queue.rs`), the thread that writes (`committer.rs`), which
//! writes are refused after a deletion (`tombstones.rs`), and what happens after a commit failed (`reopen.rs`).
//! `inner.rs` is the state that handles and threads of an open store share.

mod committer;
mod inner;
mod queue;
mod reopen;
mod tombstones;

pub(crate) use self::committer::{Committer, CommitterState};
pub(crate) use self::inner::StoreInner;
pub(crate) use self::queue::{Append, Item, Queue};
pub use self::queue::{CommitCallback, CommitError, Frames};
