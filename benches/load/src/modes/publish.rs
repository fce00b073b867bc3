//! `publish`: events that the server publishes and acknowledges per second, the CPU time of one, and the
//! latency of an acknowledgement.
//!
//! * The load is a closed loop ([`crate::generator::closed_loop`]), so the reported latencies are those at the reported
//!   rate. Requests are built once and reused, which leaves the machine to the server.
//! * Events go to one organization, or to many in turn. Over WebSocket a connection belongs to one of them.
//! * With `--floor`, bare programs (`benches/baselines/`) do parts of the work right after each run, on the
//!   same machine and file system: a sled commit (`floor`); one `pwrite` and `fdatasync` of the same bytes,
//!   for all that arrived meanwhile (`append`); and an HTTP server that reads the same requests and drops
//!   their bodies (`parse`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::closed_loop::{Plan, Requests};
use crate::generator::measured_load::{self, MeasuredLoad, RowNames};
use crate::progress::Progress;
use crate::report::Report;
use crate::target::baseline;
use crate::target::{Server, Target};
use crate::wire::http_connection;
use crate::wire::request::{HttpPublish, ws_publish};
use crate::wire::stamp::Template;
use crate::wire::{Access, EVENTS_PER_PUBLISH, Wire};

/// Channels that the events are spread over.
const CHANNELS: usize = 16;
/// Bytes that a log record has besides the event: the id, the time of receipt, and the channel again.
const ENVELOPE: usize = 110;
/// Number of commits of one bare run.
const BARE_COMMITS: usize = 2_000;
/// Bytes of the largest bare commit. Larger commits are split into several values.
const BARE_MAX: usize = 64 << 10;
/// The rows of this mode.
const ROWS: RowNames = RowNames {
    rate: "events acknowledged",
    cpu: "CPU per event",
    generator: "CPU of the bench per event",
    ack: ["publish to ack", "publish to ack, p50", "publish to ack, p99"],
};

/// The protocol of publishers.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1, one request after another on a connection.
    Http,
    /// WebSocket.
    Ws,
}

/// The encoding of several events in one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Body {
    /// A JSON array.
    Json,
    /// Lines of NDJSON; only over HTTP.
    Ndjson,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ack {
    /// The event is on disk.
    Durable,
    /// The event has its sequence.
    Memory,
}

const EXAMPLES: &str = "\
Examples:
  nervewire bench publish                                  # 512 clients over HTTP, durable acks
  nervewire bench publish --protocol ws --bar 'rate>=50000'
  nervewire bench publish --batch 100 --ack memory
  nervewire bench publish --batch 100 --body ndjson --clients 256 --rest 10
  nervewire bench publish --clients 256 --organizations 10000
  nervewire bench publish --clients 1 --floor --runs 5 --bar 'p50<=1.25x:append'
  nervewire bench publish --batch 100 --before ../old/nervewire --bar 'cpu<=0.5x:before'

--floor runs bare programs after each run, on the file system of the temporary directory, which also
holds the daemon's data. `floor` is a sled batch, a flush and an fdatasync. `append` is a pwrite and
an fdatasync of the same bytes, for all waiting clients together. `parse` is an HTTP server that
reads the same requests and drops their bodies.";

/// Measure events published and acknowledged per second, and the latency of acks
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Protocol of publishers
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    pub(crate) protocol: Protocol,
    /// Publishers, each with one publish in progress
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) clients: usize,
    /// Events in each publish
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// Encoding of several events in one body
    #[arg(long, value_enum, default_value_t = Body::Json)]
    pub(crate) body: Body,
    /// Organizations to publish to in turn; if more than one, they are created first, with a key each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) organizations: usize,
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    pub(crate) ack: Ack,
    /// Duration of each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Seconds to wait after the run before disk and memory are read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) rest: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Args {
    const fn wire(&self) -> Wire {
        match self.protocol {
            Protocol::Http => Wire::Http,
            Protocol::Ws => Wire::Ws,
        }
    }

    fn is_ndjson(&self) -> bool {
        self.body == Body::Ndjson
    }

    fn is_durable(&self) -> bool {
        self.ack == Ack::Durable
    }
}

pub(crate) fn connections(args: &Args) -> usize {
    args.clients
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(args)?;
    let Args { common, clients, batch, organizations, seconds, size, .. } = args;
    let (wire, lines, durable) = (args.wire(), args.is_ndjson(), args.is_durable());
    let each = match (batch, lines) {
        (1, false) => "singles".to_owned(),
        (batch, false) => format!("arrays of {batch}"),
        (batch, true) => format!("{batch} lines of NDJSON each"),
    };
    let ack = if durable { "durable acks" } else { "acks from memory" };
    let to = if *organizations == 1 { String::new() } else { format!(" to {organizations} organizations") };
    let about = format!(
        "{clients} clients over {}{to}, {each}, {ack}, for {seconds} s, events of {size} bytes",
        wire.name()
    );
    let figures = json!({
        "protocol": wire.label(), "clients": clients, "batch": batch, "ndjson": lines,
        "organizations": organizations, "ack": if durable { "durable" } else { "memory" }, "seconds": seconds,
        "rest": args.rest, "size": size, "runs": common.runs,
    });
    let mut report = Report::new("publish", about, figures, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        progress.begin("making organizations", 0);
        let access = accesses(&target.access, *organizations, common.patience)?;
        measure(args, run, &target, &access, &mut report, progress)?;
        drop(target); // so that its disk traffic does not affect the bare programs
        if common.floor {
            measure_baselines(args, run, &access, &mut report, progress)?;
        }
    }
    if common.floor {
        report.notes.push(
            "floor: a bare sled batch + flush + fdatasync of one row, one after the other; append: a bare pwrite + fdatasync \
             of the same bytes, one from each client under way; parse: an HTTP server that drops every body"
                .into(),
        );
    }
    Ok(report)
}

fn check(args: &Args) -> Result<(), BenchError> {
    let refuse = |what: String| Err(BenchError::Usage(what));
    let Args { common, clients, batch, organizations, seconds, .. } = args;
    if [*clients, *organizations, common.runs].contains(&0)
        || *seconds == 0
        || !(1..=EVENTS_PER_PUBLISH).contains(batch)
    {
        return refuse(format!(
            "clients, organizations, seconds and runs are at least 1, a batch is 1 to {EVENTS_PER_PUBLISH} events"
        ));
    }
    if common.naive {
        return refuse("the naive server has no log: there is nothing to compare".into());
    }
    if args.is_ndjson() && args.wire() == Wire::Ws {
        return refuse("NDJSON works only over HTTP: leave out --protocol ws".into());
    }
    if args.wire() == Wire::Ws && organizations > clients {
        return refuse("a WebSocket belongs to one organization: use at least as many --clients".into());
    }
    Ok(())
}

/// Returns credentials for `count` organizations: the given one for one organization, new ones for more.
fn accesses(access: &Access, count: usize, patience: Duration) -> Result<Vec<Access>, BenchError> {
    if count == 1 {
        return Ok(vec![access.clone()]);
    }
    http_connection::many(access, count, patience, &|caller, at| {
        let id = format!("bench-{}-{at}", std::process::id());
        caller.post("/api/v1/organizations", &json!({"id": id}))?;
        let key =
            caller.post("/api/v1/api-keys", &json!({"org_id": id, "name": "bench", "scopes": ["*"]}))?;
        Ok(access.with_credential(key["api_key"].as_str().unwrap_or_default()))
    })
}

/// Runs the load against one server. `access` holds the credentials.
fn measure(
    args: &Args,
    run: usize,
    target: &Target,
    access: &[Access],
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let there = |access: &Access| Access { credential: access.credential.clone(), ..target.access.clone() };
    let access: Vec<Access> = access.iter().map(there).collect();
    let mut events = Events::new(args, &access);
    let load = MeasuredLoad {
        plan: Plan {
            wire: args.wire(),
            access: access.iter().cycle().take(args.clients).cloned().collect(),
            batch: args.batch,
            ids: true,
            patience: args.common.patience,
        },
        rows: ROWS,
        bytes: args.batch * Template::custom(0, args.size).size(),
        time: Duration::from_secs(args.seconds),
        rest: Duration::from_secs(if target.server == Server::Daemon { args.rest } else { 0 }),
    };
    measured_load::measure(&load, &mut events, run, target, report, progress)
}

/// Runs the bare programs one after another.
fn measure_baselines(
    args: &Args,
    run: usize,
    access: &[Access],
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let baselines = args.common.baselines.as_deref();
    let bytes = (args.batch * (args.size + ENVELOPE)).to_string();
    progress.begin("bare commits", 0);
    let of_row = bytes.parse::<usize>().unwrap_or(BARE_MAX).min(BARE_MAX).to_string();
    let commits = bare(
        &baseline::find(baselines, "bare_commit")?,
        &["--commits", &BARE_COMMITS.to_string(), "--bytes", &of_row],
    )?;
    progress.begin("bare appends", args.seconds);
    let (streams, seconds) = (args.clients.to_string(), args.seconds.to_string());
    let arguments = ["--streams", &streams, "--bytes", &bytes, "--seconds", &seconds];
    let appends = bare(&baseline::find(baselines, "bare_append")?, &arguments)?;
    let batch = args.batch as f64;
    for (server, figures) in [(Server::Floor, &commits), (Server::Append, &appends)] {
        report.add(server, "p50", ROWS.ack[1], "µs", figure(figures, "p50_ns")? / 1e3);
        report.add(server, "p99", ROWS.ack[2], "µs", figure(figures, "p99_ns")? / 1e3);
    }
    report.add(Server::Append, "rate", ROWS.rate, "1/s", figure(&appends, "rate")? * batch);
    report.add(Server::Append, "cpu", ROWS.cpu, "µs", figure(&appends, "cpu_ns")? / 1e3 / batch);
    if args.wire() == Wire::Http {
        let ids = args.batch.to_string();
        let parse = Target::baseline(
            Server::Parse,
            &baseline::find(baselines, "bare_http")?,
            &["--ids".into(), ids.into()],
        )?;
        measure(args, run, &parse, access, report, progress)?;
    }
    Ok(())
}

/// Runs a bare program in its own directory, in the same place as the daemon's data. Returns its output.
fn bare(program: &Path, arguments: &[&str]) -> Result<Value, BenchError> {
    let dir: PathBuf = std::env::temp_dir().join(format!("nervewire-bench-bare-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(BenchError::io("make a directory"))?;
    let output = Command::new(program).arg("--dir").arg(&dir).args(arguments).output();
    let _ = std::fs::remove_dir_all(&dir); // it removes its files itself, unless it failed
    let output = output.map_err(BenchError::io(format!("run {}", program.display())))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        BenchError::Server(format!("{} printed no figures: {}", program.display(), error.trim()))
    })
}

fn figure(figures: &Value, field: &str) -> Result<f64, BenchError> {
    figures[field]
        .as_f64()
        .ok_or_else(|| BenchError::Server(format!("a bare program printed no {field}: {figures}")))
}

/// The requests of the publishers: a head for each organization, and the same few bodies for all.
struct Events {
    heads: Vec<Vec<u8>>,
    /// By channel.
    bodies: Vec<Vec<u8>>,
    /// The organization that is next at each client.
    turn: Vec<usize>,
}

impl Events {
    fn new(args: &Args, access: &[Access]) -> Events {
        let Args { batch, size, .. } = *args;
        let (wire, lines, durable) = (args.wire(), args.is_ndjson(), args.is_durable());
        let path = if durable { "/api/v1/events" } else { "/api/v1/events?ack=memory" };
        let content = if lines { "application/x-ndjson" } else { "application/json" };
        let heads = access.iter().map(|access| match wire {
            Wire::Ws => Vec::new(),
            Wire::Http | Wire::Sse => HttpPublish::to(access, path, content).head().to_vec(),
        });
        let bodies = (0..CHANNELS.min(args.clients)).map(|channel| {
            let mut template = Template::custom(channel, size);
            let (mut body, mut out) = (Vec::new(), Vec::new());
            match lines {
                true => template.lines(channel as u64, batch as u64, 0, &mut body),
                false => template.array(channel as u64, batch as u64, 0, &mut body),
            }
            let single = batch == 1 && !lines;
            let body = if single { &body[1..body.len() - 1] } else { &body[..] };
            match wire {
                Wire::Ws => ws_publish(channel as u64, body, !single, durable, &mut out),
                Wire::Http | Wire::Sse => HttpPublish::rest(body, &mut out),
            }
            out
        });
        Events {
            heads: heads.collect(),
            bodies: bodies.collect(),
            turn: (0..args.clients).map(|at| at % access.len()).collect(),
        }
    }
}

impl Requests for Events {
    fn next(&mut self, at: usize) -> [&[u8]; 2] {
        let (organizations, clients) = (self.heads.len(), self.turn.len());
        let turn = self.turn[at];
        // For example client 3 of 256 uses organizations 3, 259, 515, … and then 3 again.
        let following = turn + clients;
        self.turn[at] = if following < organizations { following } else { at % organizations };
        [&self.heads[turn], &self.bodies[at % self.bodies.len()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(clients: usize, batch: usize, body: Body) -> Args {
        Args {
            common: Common::default(),
            protocol: Protocol::Http,
            clients,
            batch,
            body,
            organizations: 1,
            ack: Ack::Durable,
            seconds: 1,
            rest: 0,
            size: 128,
        }
    }

    fn access(credential: &str) -> Access {
        Access { addr: ([127, 0, 0, 1], 1).into(), host: "h".into(), credential: format!("{credential}\r\n") }
    }

    #[test]
    fn every_organization_has_its_turn() {
        let organizations: Vec<Access> = (0..7).map(|at| access(&format!("K: {at}"))).collect();
        let mut events = Events::new(&args(3, 1, Body::Json), &organizations);
        let mut of = |at| {
            let [head, _] = events.next(at);
            let head = String::from_utf8_lossy(head).into_owned();
            head.lines().find_map(|line| line.strip_prefix("K: ")?.parse::<usize>().ok()).unwrap()
        };
        assert_eq!([0, 0, 0, 0].map(&mut of), [0, 3, 6, 0]);
        assert_eq!([1, 1, 1, 2, 2, 2].map(&mut of), [1, 4, 1, 2, 5, 2]);
    }

    #[test]
    fn a_request_is_whole_in_each_shape() {
        for (batch, body, content, starts) in [
            (1, Body::Json, "application/json", "{\"type\":\"custom\""),
            (3, Body::Json, "application/json", "[{\"type\""),
            (3, Body::Ndjson, "application/x-ndjson", "{\"type\""),
        ] {
            let mut events = Events::new(&args(2, batch, body), &[access("K: 0")]);
            let request = String::from_utf8(events.next(1).concat()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Type: {content}\r\n")), "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            assert!(body.starts_with(starts), "{body}");
            assert_eq!(body.matches("\"type\":\"custom\"").count(), batch);
        }
    }
}
