//! Options for opening a journal.

use std::path::PathBuf;
use std::sync::Arc;

use super::layout::Position;
use crate::store::disk::Io;

/// Options for opening a journal.
pub(crate) struct Options {
    /// The directory of the segments; created if absent, but its parent must exist.
    pub(crate) dir: PathBuf,
    /// Size of a segment in bytes, reserved on disk from the start. A long record may make one longer.
    pub(crate) segment_bytes: u64,
    /// Where the journal ends, if known. Records after it are cut like a torn tail, even if they are sound.
    pub(crate) end: Option<Position>,
    /// The journal's id, if known. The journal of another store is refused.
    pub(crate) id: Option<[u8; 16]>,
    /// The disk.
    pub(crate) io: Arc<dyn Io>,
}
