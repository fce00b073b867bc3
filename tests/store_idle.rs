//! The memory of an idle tenant. This file has only one test, so that no other test's memory is counted.

#![allow(clippy::expect_used)] // a test ends where its world does not hold

use nervewire::ids::TenantId;
use nervewire::store::{Store, StoreOptions};

/// Resident memory of this process, bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// 100,000 organizations that publish nothing use no more memory than their counters.
#[test]
fn a_hundred_thousand_idle_tenants_fit() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Store::open(StoreOptions::new(dir.path())).expect("the store opens");
    let before = resident_bytes();
    for tenant in 1..=100_000 {
        opened.log_blocking(TenantId(tenant)).expect("a log");
    }
    let each = resident_bytes().saturating_sub(before) / 100_000;
    println!("{each} bytes of memory per idle tenant");
    assert!(each < 400, "{each} bytes each");
}
