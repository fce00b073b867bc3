//! The resources that a load leaves behind: bytes written to disk, disk space of the data directory, peak and
//! final memory.
//!
//! * Bytes written are the block device's own count (`/sys/dev/block/…/stat`), read after a `syncfs`. Other
//!   writes to the device are included. The kernel's count per process is not usable, because it counts a
//!   whole folio for every write into one, and folios of a journal are up to 2 MiB.
//! * Disk space is counted in blocks, so preallocated space counts and holes do not.
//! * Peaks are of resident memory, which the kernel records itself. Sampling PSS would stop the process each
//!   time. Shared pages are in both readings, so they are not in a difference.
//! * The data directory of a daemon that was not started here is unknown. Its rows are left out.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Report;
use crate::target::Target;
use crate::target::process::{self, peak_rss, pss, rss};

/// Bytes of a block in `stat`.
const BLOCK: u64 = 512;
const MIB: f64 = 1_048_576.0;

/// Readings taken before a load.
#[derive(Debug)]
pub(crate) struct Footprint {
    written: Option<u64>,
    disk: Option<u64>,
    rss: Option<u64>,
    pss: Option<u64>,
}

impl Footprint {
    /// Takes the readings now.
    pub(crate) fn start(target: &Target) -> Footprint {
        let resettable = target.pid.is_some_and(process::reset_peak);
        Footprint {
            written: target.data_dir().and_then(|dir| device_writes(&dir)),
            disk: target.data_dir().map(|dir| disk_taken(&dir)),
            rss: target.pid.filter(|_| resettable).and_then(rss),
            pss: target.pid.and_then(pss),
        }
    }

    /// Reports the memory since the start: `peak` and `pss_more`, and the total `pss`.
    pub(crate) fn report_memory(&self, target: &Target, report: &mut Report) {
        let (server, Some(pid)) = (target.server, target.pid) else { return };
        let more = |now: u64, before: u64| (now as f64 - before as f64) / MIB;
        if let Some((before, peak)) = self.rss.zip(peak_rss(pid)) {
            report.add(server, "peak", "memory at its peak, over the start", "MiB", more(peak, before));
        }
        if let Some((before, now)) = self.pss.zip(pss(pid)) {
            report.add(server, "pss_more", "memory afterwards, over the start", "MiB", more(now, before));
            report.add(server, "pss", "memory (PSS) afterwards", "MiB", now as f64 / MIB);
        }
    }

    /// Reports the disk use since the start, per byte of `published` events as they were sent. If an event is
    /// larger when it is read, by the factor `read_share`, it is also reported per byte as read.
    pub(crate) fn report_disk(
        &self,
        target: &Target,
        published: u64,
        read_share: Option<f64>,
        report: &mut Report,
    ) {
        let (server, published) = (target.server, published.max(1) as f64);
        if let Some((before, now)) = self.written.zip(target.data_dir().and_then(|dir| device_writes(&dir))) {
            let written = now.saturating_sub(before) as f64 / published;
            report.add(server, "written", "written to disk per byte published", "", written);
            if let Some(share) = read_share {
                report.add(
                    server,
                    "written_read",
                    "the same per byte of events as read",
                    "",
                    written / share,
                );
            }
        }
        let Some((before, now)) = self.disk.zip(target.data_dir().map(|dir| disk_taken(&dir))) else {
            return;
        };
        let taken = (now as f64 - before as f64) / published;
        report.add(server, "disk", "disk taken per byte published", "", taken);
        if let Some(share) = read_share {
            report.add(server, "disk_read", "the same per byte of events as read", "", taken / share);
        }
        report.add(server, "data", "data directory", "MiB", now as f64 / MIB);
        let live = ["nervewire_log_bytes", "nervewire_row_bytes"].map(|name| target.metric(name));
        if let [Some(log), Some(rows)] = live {
            report.add(server, "live", "events and rows kept", "MiB", (log + rows) / MIB);
            report.add(
                server,
                "disk_live",
                "data directory over what is kept",
                "",
                now as f64 / (log + rows),
            );
        }
    }
}

/// Returns the bytes ever written to the block device of `dir`, after its file system has written everything.
/// Returns `None` if there is no such device, as under tmpfs.
fn device_writes(dir: &Path) -> Option<u64> {
    const SECTOR: u64 = 512;
    let file = fs::File::open(dir).ok()?;
    rustix::fs::syncfs(&file).ok()?;
    let device = file.metadata().ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// Returns the bytes of disk space of all files below `dir`. Files that disappear meanwhile are not counted.
pub(crate) fn disk_taken(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let each = entries.flatten().map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => disk_taken(&entry.path()),
        Ok(it) => it.blocks() * BLOCK,
        Err(_) => 0,
    });
    each.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_counts_what_is_written_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let Some(before) = device_writes(dir.path()) else {
            let device = dir.path().metadata().unwrap().dev();
            assert_eq!(rustix::fs::major(device), 0, "a device that cannot be read"); // no file system on a disk
            return;
        };
        fs::write(dir.path().join("file"), vec![1; 1 << 20]).unwrap();
        assert!(device_writes(dir.path()).unwrap() >= before + (1 << 20));
    }

    #[test]
    fn blocks_are_counted_in_all_folders_and_holes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        fs::write(dir.path().join("folder/file"), [1; 100_000]).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        fs::File::open(dir.path().join("folder/file")).unwrap().sync_all().unwrap();
        let taken = disk_taken(dir.path());
        assert!((100_000..1 << 20).contains(&taken), "{taken}");
        assert_eq!(disk_taken(&dir.path().join("none")), 0);
    }
}
