//! How much memory this process may use: what the machine has, or less where a cgroup says so.
//!
//! * Limits of cgroup v2 (`memory.max`) of its own group and of those above it: a systemd unit's `MemoryMax=`, a container's.
//! * Asked once, at start: a limit that is moved later is not seen.

use std::fs;
use std::path::Path;

/// Bytes.
#[must_use]
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(Path::new("/sys/fs/cgroup"), &own).map_or(machine, |limit| limit.min(machine))
}

/// The least limit of the group that `own`, a `/proc/<pid>/cgroup`, names below `root`, and of those above it.
fn limit(root: &Path, own: &str) -> Option<u64> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    groups
        .filter_map(|group| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_up_holds() {
        let root = tempfile::tempdir().expect("a directory");
        let unit = root.path().join("system.slice/nervewire.service");
        fs::create_dir_all(&unit).expect("made");
        let own = "1:name=systemd:/elsewhere\n0::/system.slice/nervewire.service\n";
        assert_eq!(limit(root.path(), own), None, "no limit anywhere");
        fs::write(unit.join("memory.max"), "max\n").expect("written");
        assert_eq!(limit(root.path(), own), None);
        fs::write(root.path().join("system.slice/memory.max"), "4096\n").expect("written");
        assert_eq!(limit(root.path(), own), Some(4096), "that of the slice");
        fs::write(unit.join("memory.max"), "1024\n").expect("written");
        assert_eq!(limit(root.path(), own), Some(1024));
        assert_eq!(limit(root.path(), "0::/\n"), None, "the root has none");
        fs::write(root.path().join("memory.max"), "512\n").expect("written");
        assert_eq!(limit(root.path(), "0::/\n"), Some(512), "but a container's has");
        assert_eq!(limit(root.path(), ""), None, "no cgroup v2");
    }

    #[test]
    fn there_is_some() {
        assert!(memory() > 1 << 20);
    }
}
