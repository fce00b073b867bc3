//! Files and directories that all parts of a backup name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The directory in a data directory in which a backup is made.
pub(super) const STAGE: &str = "backup";
/// Files in a data directory that belong to its store but are not part of it: the key that signs tokens.
pub(super) const BESIDE: [&str; 1] = ["auth.key"];

/// Creates a file with access for this user only.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Removes what is left of an earlier backup.
pub(crate) fn clear_stage(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(STAGE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
