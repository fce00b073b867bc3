//! The cost of making bytes durable without a daemon: `pwrite` into a preallocated file and `fdatasync`.
//! `nervewire bench publish --floor` compares the daemon's acknowledgement with it.
//!
//! * One stream: an append and its sync, one after another, on one thread.
//! * Several (`--streams`): each has one append in progress and submits the next when it is acknowledged. A
//!   separate thread writes what was submitted during the last sync and syncs it once, as a write-ahead log
//!   does.
//! * The file is allocated and filled with zeros first, and is written in a circle. Neither its size nor its
//!   extents ever change, as in a log that reuses its segments. With `--unwritten` it is only allocated. Then
//!   each sync also makes the file system record what was written, in a journal that it shares with all other
//!   files.
//! * Appends follow each other without padding, as records do.
//!
//! `bare_append --dir DIR --bytes N` prints `{"p50_ns":…,"p99_ns":…,"cpu_ns":…,"rate":…,"n":…,"syncs":…}`.
//! `cpu_ns` is the CPU time of an append and `rate` is appends per second.

#![allow(clippy::print_stdout, missing_docs, reason = "a program beside the daemon")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of the file.
const FILE_BYTES: u64 = 64 << 20;
/// Maximum bytes of one write. What exceeds it is written by further writes before the sync.
const WRITE_MAX: usize = 4 << 20;

#[derive(Parser)]
struct Args {
    /// Directory of the file, on the disk to measure.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of an append.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Number of streams, each with one append in progress.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Duration in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Allocate the file without filling it.
    #[arg(long)]
    unwritten: bool,
}

/// The file, and the position of the next append.
struct Log {
    file: File,
    at: u64,
    /// Bytes to write: as many as one write may have.
    noise: Vec<u8>,
}

impl Log {
    fn make(args: &Args) -> io::Result<Log> {
        let file = File::options().read(true).write(true).create_new(true).open(args.dir.join("append"))?;
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
        if !args.unwritten {
            let zeros = vec![0; WRITE_MAX];
            for at in (0..FILE_BYTES).step_by(WRITE_MAX) {
                file.write_all_at(&zeros, at)?;
            }
        }
        file.sync_all()?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Ok(Log { file, at: 0, noise: noise.take(WRITE_MAX).collect() })
    }

    /// Appends `bytes` more bytes and makes them durable.
    fn append(&mut self, mut bytes: usize) -> io::Result<()> {
        while bytes > 0 {
            let now = bytes.min(WRITE_MAX);
            if self.at + now as u64 > FILE_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(&self.noise[..now], self.at)?;
            self.at += now as u64;
            bytes -= now;
        }
        self.file.sync_data()
    }
}

/// The result of a run.
struct Taken {
    times: Histogram<u64>,
    syncs: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    if args.streams == 0 || args.bytes == 0 || args.bytes > WRITE_MAX {
        return Err(format!("streams are at least 1, bytes 1 to {WRITE_MAX}").into());
    }
    let mut log = Log::make(&args)?;
    let (cpu, began) = (cpu_ns(), Instant::now());
    let until = began + Duration::from_secs(args.seconds);
    let taken = if args.streams == 1 { alone(&mut log, &args, until)? } else { together(log, &args, until)? };
    let elapsed = began.elapsed().as_secs_f64();
    let count = taken.times.len().max(1);
    println!(
        "{{\"p50_ns\":{},\"p99_ns\":{},\"cpu_ns\":{},\"rate\":{:.0},\"n\":{},\"syncs\":{}}}",
        taken.times.value_at_quantile(0.5),
        taken.times.value_at_quantile(0.99),
        (cpu_ns() - cpu) / count,
        count as f64 / elapsed,
        count,
        taken.syncs
    );
    std::fs::remove_file(args.dir.join("append"))?;
    Ok(())
}

fn alone(log: &mut Log, args: &Args, until: Instant) -> Result<Taken, Box<dyn std::error::Error>> {
    let mut times = Histogram::<u64>::new(3)?;
    while Instant::now() < until {
        let began = Instant::now();
        log.append(args.bytes)?;
        times.record(began.elapsed().as_nanos() as u64)?;
    }
    let syncs = times.len();
    Ok(Taken { times, syncs })
}

/// Appends submitted and not yet taken by the writer, with their times.
#[derive(Default)]
struct Queue {
    waiting: Vec<Instant>,
    /// Appends that are durable and whose streams have not submitted the next one.
    durable: usize,
    over: bool,
}

fn together(mut log: Log, args: &Args, until: Instant) -> Result<Taken, Box<dyn std::error::Error>> {
    let queue = Mutex::new(Queue { durable: args.streams, ..Queue::default() });
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<Taken, String> {
            let mut times = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
            let (mut taken, mut syncs) = (Vec::new(), 0);
            loop {
                {
                    let mut queue = lock();
                    while queue.waiting.is_empty() && !queue.over {
                        queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    }
                    if queue.over {
                        return Ok(Taken { times, syncs });
                    }
                    std::mem::swap(&mut taken, &mut queue.waiting);
                }
                let written = log.append(taken.len() * args.bytes);
                syncs += 1;
                let now = Instant::now();
                for handed_in in &taken {
                    let _ = times.record((now - *handed_in).as_nanos() as u64); // never fails: the histogram resizes
                }
                let mut queue = lock();
                queue.durable += taken.len();
                queue.over |= written.is_err();
                changed.notify_all();
                drop(queue);
                written.map_err(|error| error.to_string())?;
                taken.clear();
            }
        });
        let mut queue = lock();
        while !queue.over {
            while queue.durable == 0 && !queue.over {
                queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let now = Instant::now();
            queue.over |= now >= until;
            let again = std::mem::take(&mut queue.durable);
            queue.waiting.extend(std::iter::repeat_n(now, again));
            changed.notify_all();
        }
        drop(queue);
        let taken = writer.join().map_err(|_| "the writer ended")?;
        Ok(taken?)
    })
}

/// Returns the CPU time of this process so far, in nanoseconds, including ended threads.
fn cpu_ns() -> u64 {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(taken.tv_sec.unsigned_abs(), taken.tv_nsec.unsigned_abs() as u32).as_nanos() as u64
}
