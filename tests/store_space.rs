//! A day of simulated time with retention: the journal never takes much more disk space than the data that is
//! kept.

#![allow(clippy::expect_used, clippy::panic)] // a test ends where its world does not hold

#[allow(dead_code, reason = "each test program uses its part of the harness")]
#[path = "store/harness.rs"]
mod harness;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use harness::{Random, publish_at, try_read_all};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{Retention, Store};
use nervewire::time::{Clock, ManualClock};

const SEGMENT_BYTES: u64 = 128 << 10;
const TENANTS: u64 = 3;
const HOUR_MS: u64 = 3_600_000;

/// Bytes of disk that the journal takes.
fn taken(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("journal")).expect("a journal");
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512)).sum()
}

fn live(store: &Store) -> u64 {
    (1..=TENANTS).filter_map(|tenant| store.loaded_log(TenantId(tenant))).map(|log| log.bytes()).sum()
}

/// `NERVEWIRE_DAYS` sets how many days are simulated, each with another retention.
#[tokio::test]
async fn a_day_under_retention_uses_the_kept_bytes_and_two_segments() {
    let days: u64 = std::env::var("NERVEWIRE_DAYS").map_or(1, |text| text.parse().expect("a number"));
    for day in 1..=days {
        let mut random = Random(0x2545_f491_4f6c_dd1d ^ day);
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let retention = Retention {
            max_age_seconds: 3_600 * (2 + random.below(6)),
            max_events: [0, 300 + random.below(500)][random.below(2) as usize],
            max_bytes: [0, (256 << 10) + random.below(512 << 10)][random.below(2) as usize],
        };
        let options = harness::with(dir.path(), |options| {
            options.segment_bytes = SEGMENT_BYTES;
            options.retention = retention;
            options.clock = clock.clone();
        });
        let store = Store::open(options).expect("opened");
        // Kept open, so that the size of each log can be read.
        let mut logs = Vec::new();
        for tenant in 1..=TENANTS {
            logs.push(store.log(TenantId(tenant)).await.expect("a log"));
        }
        for hour in 1..=24 {
            for _ in 0..random.below(20) {
                let (tenant, count) = (TenantId(1 + random.below(TENANTS)), 1 + random.below(20) as usize);
                publish_at(&store, tenant, count, 200 + random.below(3_000) as usize, clock.now_ms()).await;
            }
            clock.advance(HOUR_MS);
            if hour % 8 > 0 {
                continue;
            }
            // Trimmed data is removed with the next checkpoint, seconds later.
            let mut seen = (0, 0);
            for _ in 0..3_000 {
                seen = (taken(dir.path()), live(&store));
                if seen.0 <= seen.1 * 13 / 10 + 2 * SEGMENT_BYTES {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let (taken, live) = seen;
            assert!(
                taken <= live * 13 / 10 + 2 * SEGMENT_BYTES,
                "day {day}, hour {hour}, {retention:?}: {taken} bytes for {live}"
            );
            println!("day {day}, hour {hour}: {taken} bytes taken for {live} kept");
            for log in &logs {
                // Trimming goes on meanwhile: a reader that it overtakes starts again.
                loop {
                    let oldest = Sequence(log.oldest().0);
                    match try_read_all(&store, log, oldest).await {
                        Ok(_) => break,
                        Err(resumes_at) => {
                            assert!(log.oldest().0 > oldest.0, "a gap up to {resumes_at:?} without a trim");
                        }
                    }
                }
            }
        }
        store.close().await;
    }
}
