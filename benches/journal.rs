//! Measures a record of the journal, and beside it a bare appender on the same disk that writes the same
//! bytes into preallocated space and calls fdatasync.
//!
//! `cargo bench --bench journal`. `append` has no sync: its time is CPU time, and its throughput shows the
//! CPU time of a byte.

#![allow(missing_docs, clippy::expect_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nervewire::store::journal_harness::Appender;

/// Bytes of a segment, and of the bare appender's file.
const SEGMENT: u64 = 64 << 20;
/// A single small event, a page of events, and a large commit.
const SIZES: [(&str, usize); 3] = [("400_B", 400), ("64_KiB", 64 << 10), ("1_MiB", 1 << 20)];

/// Appends with `pwrite` to a preallocated file, and creates a new file when it is full.
struct Bare<'a> {
    dir: &'a Path,
    file: File,
    at: u64,
}

impl Bare<'_> {
    fn new(dir: &Path) -> Bare<'_> {
        Bare { dir, file: Bare::file(dir), at: 0 }
    }

    fn file(dir: &Path) -> File {
        let file = File::create(dir.join("bare")).expect("created");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT).expect("allocated");
        file.sync_all().expect("synced");
        file
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > SEGMENT {
            (self.file, self.at) = (Bare::file(self.dir), 0);
        }
        self.file.write_all_at(bytes, self.at).expect("written");
        self.at += bytes.len() as u64;
    }
}

fn appends(c: &mut Criterion) {
    for (group, syncs) in [("append_sync", true), ("append", false)] {
        let mut group = c.benchmark_group(group);
        group.sample_size(30).measurement_time(Duration::from_secs(5));
        for (name, len) in SIZES {
            let dir = tempfile::tempdir().expect("a directory");
            let bytes = Bytes::from(vec![b'x'; len]);
            group.throughput(Throughput::Bytes(len as u64));
            let mut journal = Appender::open(&dir.path().join("journal"), SEGMENT).expect("it opens");
            group.bench_function(format!("{name}/journal"), |b| {
                b.iter(|| {
                    journal.append(bytes.clone()).expect("appended");
                    if syncs {
                        journal.sync().expect("synced");
                    }
                });
            });
            let mut bare = Bare::new(dir.path());
            group.bench_function(format!("{name}/bare"), |b| {
                b.iter(|| {
                    bare.append(&bytes);
                    if syncs {
                        bare.file.sync_data().expect("synced");
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, appends);
criterion_main!(benches);
