//! The cost of one durable commit without a daemon: a sled batch of one row, a flush and an fdatasync, one
//! after another. `nervewire bench publish` compares the daemon's acknowledgement with it.
//!
//! * sled is opened as the daemon opens it (`src/store/engine/state.rs`: segment size, cache, housekeeping). The
//!   fsync is made here, because sled's flush does not sync.
//! * It does not know events: keys are counters, values are `--bytes` bytes of noise.
//!
//! `bare_commit --dir DIR --commits N --bytes N` prints `{"p50_ns":…,"p99_ns":…,"n":…}`. DIR must not contain
//! a database.

#![allow(clippy::print_stdout, missing_docs, reason = "a program beside the daemon")]

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use hdrhistogram::Histogram;

/// Same as `store::format::piece::SEGMENT_BYTES`.
const SEGMENT_BYTES: usize = 8 << 20;
/// Same as `StoreOptions::cache_bytes`.
const CACHE_BYTES: u64 = 64 << 20;
/// Same as `store::engine::state::HOUSEKEEPING_MS`.
const HOUSEKEEPING_MS: u64 = 500;

#[derive(Parser)]
struct Args {
    /// Directory of the database, on the disk to measure.
    #[arg(long)]
    dir: PathBuf,
    /// Number of commits.
    #[arg(long, default_value_t = 2_000)]
    commits: u64,
    /// Bytes of a row's value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let path = args.dir.join("bare");
    if path.exists() {
        return Err(format!("{} already exists", path.display()).into());
    }
    let db = sled::Config::new()
        .path(&path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(HOUSEKEEPING_MS))
        .open()?;
    let file = File::options().read(true).write(true).open(path.join("db"))?;
    file.sync_all()?;
    let mut histogram = Histogram::<u64>::new(3)?;
    // The values are noise, so that they cannot be compressed.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    })
    .take(args.bytes)
    .collect();
    for commit in 0..args.commits {
        let started = Instant::now();
        let mut batch = sled::Batch::default();
        batch.insert(&commit.to_be_bytes(), value.as_slice());
        db.apply_batch(batch)?;
        db.flush()?;
        file.sync_data()?;
        histogram.record(started.elapsed().as_nanos() as u64)?;
    }
    println!(
        "{{\"p50_ns\":{},\"p99_ns\":{},\"n\":{}}}",
        histogram.value_at_quantile(0.5),
        histogram.value_at_quantile(0.99),
        histogram.len()
    );
    drop(db);
    std::fs::remove_dir_all(&path)?;
    Ok(())
}
