//! The memory that this process may use: the machine's, or less if a cgroup limits it.
//!
//! * The limits are those of its own group and of the groups above it, of cgroup v2 (`memory.max`) and v1
//!   (`memory.limit_in_bytes`): a systemd unit's `MemoryMax=`, a container's limit.
//! * The limit is read once, at start; a later change is not seen.

use std::fs;
use std::path::Path;

/// Returns the memory in bytes.
#[must_use]
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(Path::new("/sys/fs/cgroup"), &own).map_or(machine, |limit| limit.min(machine))
}

/// Returns the lowest limit of the groups that `own`, a `/proc/<pid>/cgroup`, names below `root`, and of
/// those above them.
fn limit(root: &Path, own: &str) -> Option<u64> {
    let limits_of = |line: &str| {
        let (_, group) = line.split_once(':')?;
        let (controllers, group) = group.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let groups = Path::new(group.trim_start_matches('/')).ancestors();
        groups.filter_map(|group| read(&root.join(group).join(file))).min()
    };
    own.lines().filter_map(limits_of).min()
}

/// Reads a number from a file.
fn read(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
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
        assert_eq!(limit(root.path(), ""), None, "no cgroups");
        let old = "5:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n";
        assert_eq!(limit(root.path(), old), Some(512));
        fs::create_dir_all(root.path().join("memory/pod")).expect("made");
        fs::write(root.path().join("memory/pod/memory.limit_in_bytes"), "256\n").expect("written");
        assert_eq!(limit(root.path(), old), Some(256), "of v1");
    }

    #[test]
    fn there_is_some() {
        assert!(memory() > 1 << 20);
    }
}
