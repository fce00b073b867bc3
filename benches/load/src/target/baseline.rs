//! Finds and starts the baselines. They are separate programs (`benches/baselines/`) and are never linked in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Server, Target};
use crate::error::BenchError;

/// Returns the path of the program `name` in the given directory, or in `examples/` beside this executable.
pub(crate) fn find(dir: Option<&Path>, name: &str) -> Result<PathBuf, BenchError> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => {
            let exe = std::env::current_exe().map_err(BenchError::io("find this executable"))?;
            exe.parent().unwrap_or(Path::new(".")).join("examples")
        }
    };
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(BenchError::Usage(format!(
        "the baseline {name} is not in {}: build it with `cargo build --release --examples` in the source tree, or say \
         --baselines DIR",
        dir.display()
    )))
}

/// Starts the floor or the naive server. The floor writes at most `depth` events at once.
pub(crate) fn start(dir: Option<&Path>, server: Server, depth: Option<u64>) -> Result<Target, BenchError> {
    let mut arguments: Vec<OsString> = Vec::new();
    if let (Server::Floor, Some(depth)) = (server, depth) {
        arguments.extend(["--depth".into(), depth.max(1).to_string().into()]);
    }
    Target::baseline(server, &find(dir, server.name())?, &arguments)
}
