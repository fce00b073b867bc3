//! `open`: how long a daemon with a large log takes to start, after `kill -9` during publishing and after an
//! orderly stop.
//!
//! * The time is from before the process is created until its ready file exists. The daemon writes the file
//!   after its listeners are open.
//! * After each opening, the number of events is compared with the acknowledged ones. Fewer events fail the
//!   run.
//! * Without `cold`, the kernel's page cache may hold the data. With `cold`, the kernel is asked to drop the
//!   data's files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;
use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::closed_loop::{Clients, Plan, Requests};
use crate::generator::engine::Engine;
use crate::progress::Progress;
use crate::report::Report;
use crate::report::footprint::disk_taken;
use crate::target::process;
use crate::target::tenants;
use crate::target::{Server, Target};
use crate::wire::Wire;
use crate::wire::request::HttpPublish;
use crate::wire::stamp::Template;

/// Number of publishers that fill the log.
const CLIENTS: usize = 16;
/// Events in each of their publishes.
const BATCH: u64 = 100;
/// Disables the limit by bytes, unless `--set` overrides it, so that no published event is removed.
const KEEP: &str = "retention.max_bytes=0";
const GIGABYTE: f64 = 1e9;

const EXAMPLES: &str = "\
Examples:
  nervewire bench open                                     # 1 GB of events
  nervewire bench open --gigabytes 20 --bar 'killed<=2' --bar 'clean<=0.2'
  nervewire bench open --cold                              # the data is not in the page cache

The daemon is killed while events are published. It keeps all events (retention.max_bytes=0, unless
--set changes it), so the temporary directory needs several times --gigabytes of free space. An
acknowledged event that is missing afterwards fails the run.";

/// Measure how long a daemon with a large log takes to start after kill -9 and after an orderly stop
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Gigabytes of events in the log, as published
    #[arg(long, value_name = "GB", default_value_t = 1.0)]
    pub(crate) gigabytes: f64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(crate) size: usize,
    /// Drop the data from the kernel's page cache before each opening
    #[arg(long)]
    pub(crate) cold: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(_: &Args) -> usize {
    CLIENTS
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, gigabytes, size, cold } = args;
    common.daemon_alone()?;
    if common.daemon.url.is_some() {
        return Err(BenchError::Usage("this mode kills the daemon: it starts one, leave --url out".into()));
    }
    if !gigabytes.is_finite() {
        return Err(BenchError::Usage("--gigabytes must be a number".into()));
    }
    let cache = if *cold { "not in the page cache" } else { "the page cache as it is" };
    let about = format!("opening {gigabytes} GB of events of {size} bytes, {cache}");
    let parameters = json!({"gigabytes": gigabytes, "size": size, "cold": cold, "runs": common.runs});
    let mut report = Report::new("open", about, parameters, &common.bars);
    let mut keeping = common.clone();
    keeping.daemon.set.insert(0, KEEP.into());
    for run in 0..common.runs {
        let mut target = keeping.start(Server::Daemon, None)?;
        measure(args, run, &mut target, &mut report, progress)?;
    }
    Ok(report)
}

fn measure(
    args: &Args,
    run: usize,
    target: &mut Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let patience = args.common.patience;
    let acknowledged = fill_and_kill(args, target, progress)?;
    let names = [
        ("killed", "killed_cpu", "opening after kill -9", "CPU of it"),
        ("clean", "clean_cpu", "opening after an orderly end", "CPU of it"),
    ];
    for (key, cpu_key, name, cpu_name) in names {
        if key == "clean" {
            let took = target.end(Signal::TERM, patience)?;
            report.add(Server::Daemon, "stop", "ending in order", "s", took.as_secs_f64());
        }
        let data = target.data_dir().unwrap_or_default();
        if args.cold {
            drop_from_page_cache(&data)?;
        }
        progress.begin(name, 0);
        let took = target.start_again(patience)?;
        let cpu = target.cpu().unwrap_or_default().total;
        report.add(Server::Daemon, key, name, "s", took.as_secs_f64());
        report.add(Server::Daemon, cpu_key, cpu_name, "s", cpu.as_secs_f64());
        let there = tenants::stats(&target.access)?.stored_events;
        report.delivery_faults.deliveries += acknowledged.min(there);
        if there < acknowledged {
            let fault = format!("{name}: {acknowledged} events were acknowledged, {there} are stored");
            report.fault(Server::Daemon, run, fault);
        }
    }
    if let Some(bytes) = target.pid.and_then(process::pss) {
        report.add(Server::Daemon, "pss", "memory (PSS) once open", "MiB", bytes as f64 / f64::from(1 << 20));
    }
    let data = target.data_dir().map_or(0, |dir| disk_taken(&dir));
    report.add(Server::Daemon, "data", "data directory", "MiB", data as f64 / f64::from(1 << 20));
    Ok(())
}

/// Publishes until the given number is acknowledged, and kills the daemon while more are in progress. Returns
/// the number of acknowledged events.
fn fill_and_kill(args: &Args, target: &mut Target, progress: &mut dyn Progress) -> Result<u64, BenchError> {
    let mut template = Template::custom(0, args.size);
    let (mut body, mut rest) = (Vec::new(), Vec::new());
    template.array(0, BATCH, 0, &mut body);
    HttpPublish::rest(&body, &mut rest);
    let mut same = RepeatedRequest { head: HttpPublish::new(&target.access, true).head().to_vec(), rest };
    let plan = Plan {
        wire: Wire::Http,
        access: vec![target.access.clone(); CLIENTS],
        batch: BATCH as usize,
        ids: true,
        patience: args.common.patience,
    };
    let mut engine = Engine::new()?;
    let mut clients = Clients::open(&plan, &mut same, &mut engine, progress)?;
    let each = template.size() as f64 * BATCH as f64;
    let most = ((args.gigabytes * GIGABYTE / each) as u64).max(1);
    progress.begin("filling the log", most);
    let mut done = 0;
    while done < most {
        let until = Instant::now() + Duration::from_secs(1);
        clients.run(&mut engine, until, most, &mut |_| {})?;
        done = clients.acknowledged;
        progress.at(done);
    }
    target.end(Signal::KILL, args.common.patience)?;
    Ok(clients.acknowledged * BATCH)
}

/// Sends one request repeatedly.
struct RepeatedRequest {
    head: Vec<u8>,
    rest: Vec<u8>,
}

impl Requests for RepeatedRequest {
    fn next(&mut self, _: usize) -> [&[u8]; 2] {
        [&self.head, &self.rest]
    }
}

/// Writes the files below `dir` to disk and makes the kernel drop them from the page cache.
fn drop_from_page_cache(dir: &Path) -> Result<(), BenchError> {
    let failed = || BenchError::io(format!("drop {} from the page cache", dir.display()));
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            drop_from_page_cache(&entry.path())?;
        } else {
            let file = fs::File::open(entry.path()).map_err(failed())?;
            file.sync_all().map_err(failed())?;
            fadvise(&file, 0, None, Advice::DontNeed)
                .map_err(BenchError::sys("drop a file from the page cache"))?;
        }
    }
    Ok(())
}
