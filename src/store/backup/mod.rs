//! Backups: made of a running or a stopped store, restored into a new data directory, and verified.
//!
//! * A backup is the rows of the state, and the journal from a position before them on. The rows are read
//!   while they change, so each is of some position between *from* (a checkpoint) and *first* (the journal's
//!   end when the last row was read). Records hold absolute values: replaying them from *from* to *first* or
//!   later gives the rows of one moment. No earlier position can be restored, because a row may already be
//!   newer.
//! * The live counts of segments are relative. So these rows and the state's position are left out and
//!   rebuilt.
//! * While rows are read and segments linked, a pin keeps segments from being removed (`engine/pin.rs`).
//! * A running daemon makes a backup inside its own data directory (`stage.rs`). The command then links or
//!   copies it from there.
//!
//! The formats are described in `docs/storage.md`; only `manifest.rs` and `rows_file.rs` implement them.

mod error;
mod fetch;
mod files;
mod make;
mod manifest;
mod restore;
mod row_check;
mod rows_file;
mod stage;
mod verify;
mod view;

pub use self::error::{BackupError, ProgressSink};
pub use self::fetch::{BackupSummary, copy_stage, must_be_outside};
pub use self::make::backup;
pub use self::manifest::Manifest;
pub use self::restore::{Restored, Until, restore};
pub use self::stage::StageStatus;
pub use self::verify::{Verified, verify};

pub(crate) use self::files::clear_stage;
pub(crate) use self::manifest::BackupStart;
pub(crate) use self::stage::Stage;
