//! `idle-streams`: the memory of open streams that nobody reads or writes.
//!
//! * The streams are opened over keep-alive connections, which are closed before memory is read. Their lease is
//!   the longest.
//! * Memory is that of the daemon at rest, before the first stream and after the last. It includes what opening
//!   leaves in the allocator, in the store and in the organization's ring, which has a fixed size. So `later`
//!   counts the second half of the streams alone.
//! * The daemon must say that all of them are open.

use std::time::Duration;

use serde_json::json;

use super::idle::at_rest;
use crate::common::{Common, help, whole_seconds};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::Report;
use crate::target::process::rss;
use crate::target::{Server, Target};
use crate::wire::http_connection::many;
use crate::wire::stream::open_body;

const MIB: f64 = 1_048_576.0;

const EXAMPLES: &str = "\
Examples:
  nervewire bench idle-streams --bar 'bytes<=1024'         # 100,000 streams
  nervewire bench idle-streams --streams 10000";

/// Measure the memory of an open stream that nobody reads or writes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Streams
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) streams: usize,
    /// Seconds that memory must be stable before it is reported
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = whole_seconds)]
    pub(crate) rest: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(_: &Args) -> usize {
    64
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { streams, rest, common } = args;
    common.daemon_alone()?;
    if *streams < 2 || common.runs == 0 {
        return Err(BenchError::Usage("streams are at least 2, and runs at least 1".into()));
    }
    let parameters = json!({"streams": streams, "rest": rest.as_secs(), "runs": common.runs});
    let about = format!("{streams} open streams that nobody reads or writes");
    let mut report = Report::new("idle-streams", about, parameters, &common.bars);
    let mut limits = common.clone();
    if common.daemon.url.is_none() {
        // One more, which is opened before memory is read.
        for key in ["streams.open", "streams.open_per_organization"] {
            limits.daemon.set.insert(0, format!("{key}={}", streams + 1));
        }
    }
    for run in 0..common.runs {
        let target = limits.start(Server::Daemon, None)?;
        measure(args, run, &target, &mut report, progress)?;
    }
    Ok(report)
}

fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let daemon = Server::Daemon;
    let pid = target
        .pid
        .ok_or_else(|| BenchError::Usage("idle-streams reads the daemon's memory: give --pid".into()))?;
    let name = format!("bench-{:x}", crate::wire::stamp::now_ns());
    let open = |from: usize, to: usize| {
        many(&target.access, to - from, args.common.patience, &|caller, at| {
            caller.post("/api/v1/streams", &open_body(&format!("{name}-{}", from + at), false))
        })
    };
    let resting = || -> Result<[f64; 2], BenchError> {
        let pss = at_rest(pid, args.rest)?.pss;
        Ok([rss(pid).unwrap_or_default() as f64, pss as f64])
    };
    let half = args.streams / 2;
    open(0, 1)?;
    progress.begin("memory without streams", 0);
    let before = resting()?;
    progress.begin("opening streams", 0);
    open(1, half + 1)?;
    let between = resting()?;
    open(half + 1, args.streams + 1)?;
    progress.begin("memory with the streams", 0);
    let after = resting()?;
    let each = |from: f64, to: f64, count: usize| (to - from) / count as f64;
    report.add(daemon, "rss_before", "RSS before", "MiB", before[0] / MIB);
    report.add(daemon, "rss_after", "RSS with the streams", "MiB", after[0] / MIB);
    report.add(daemon, "bytes", "RSS per stream", "bytes", each(before[0], after[0], args.streams));
    report.add(daemon, "pss_bytes", "PSS per stream", "bytes", each(before[1], after[1], args.streams));
    let later = each(between[0], after[0], args.streams - half);
    report.add(daemon, "later", "RSS per stream of the second half", "bytes", later);
    if let Some(open) = target.metric("nervewire_streams_open") {
        report.add(daemon, "open", "streams open", "", open);
        if open < args.streams as f64 {
            let fault = format_args!("{open} of {} streams are open", args.streams);
            report.fault(daemon, run, fault);
        }
    }
    Ok(())
}
