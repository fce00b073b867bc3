//! `publish`: events that the server publishes and acknowledges per second, the CPU time of one, and the
//! latency of an acknowledgement.
//!
//! * The load is a closed loop ([`super::closed_loop`]), so the reported latencies are those at the reported
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

use super::closed_loop::{Plan, Requests};
use super::error::BenchError;
use super::load::{self, MeasuredLoad, RowNames};
use super::progress::Progress;
use super::publisher::{HttpPublish, ws_publish};
use super::report::Report;
use super::stamp::Template;
use super::subscriber::Wire;
use super::target::{Access, Server, Target};
use super::{Common, EVENTS_PER_PUBLISH, http_connection};

/// Channels that the events are spread over.
const CHANNELS: usize = 16;
/// Bytes that a log record has besides the event: the id, the time of receipt, and the channel again.
const ENVELOPE: usize = 110;
/// Number of commits of one bare run.
const BARE_COMMITS: usize = 2_000;
/// Bytes of the largest bare commit. Larger commits are split into several values.
const BARE_MAX: usize = 64 << 10;
/// The rows of this mode.
const THINGS: RowNames = RowNames {
    rate: "events acknowledged",
    cpu: "CPU per event",
    generator: "CPU of the bench per event",
    ack: ["publish to ack", "publish to ack, p50", "publish to ack, p99"],
};

/// The settings of the mode.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of every mode.
    pub common: Common,
    /// [`Wire::Http`] keep-alive or [`Wire::Ws`].
    pub wire: Wire,
    /// Publishers, each with one publish in progress.
    pub clients: usize,
    /// Events in each publish.
    pub batch: usize,
    /// Whether to send lines of NDJSON instead of an event or an array. Only over HTTP.
    pub lines: bool,
    /// Organizations that receive the events in turn.
    pub organizations: usize,
    /// Whether acks wait for the disk.
    pub durable: bool,
    /// Duration of the measurement, in seconds.
    pub seconds: u64,
    /// How long to wait afterwards, before disk and memory are read, in seconds.
    pub rest: u64,
    /// Bytes of an event.
    pub size: usize,
}

/// Runs the mode.
///
/// # Errors
/// A server does not start, refuses, ends or makes no progress.
pub fn run(settings: &Settings, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    check(settings)?;
    let Settings { common, clients, batch, lines, organizations, durable, seconds, size, .. } = settings;
    let wire = settings.wire.name();
    let each = match (batch, lines) {
        (1, false) => "singles".to_owned(),
        (batch, false) => format!("arrays of {batch}"),
        (batch, true) => format!("{batch} lines of NDJSON each"),
    };
    let ack = if *durable { "durable acks" } else { "acks from memory" };
    let to = if *organizations == 1 { String::new() } else { format!(" to {organizations} organizations") };
    let about =
        format!("{clients} clients over {wire}{to}, {each}, {ack}, for {seconds} s, events of {size} bytes");
    let figures = json!({
        "protocol": settings.wire.label(), "clients": clients, "batch": batch, "ndjson": lines,
        "organizations": organizations, "ack": if *durable { "durable" } else { "memory" }, "seconds": seconds,
        "rest": settings.rest, "size": size, "runs": common.runs,
    });
    let mut report = Report::new("publish", about, figures, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        progress.begin("making organizations", 0);
        let access = accesses(&target.access, *organizations, common.patience)?;
        measure(settings, run, &target, &access, &mut report, progress)?;
        drop(target); // so that its disk traffic does not affect the bare programs
        if common.floor {
            beside(settings, run, &access, &mut report, progress)?;
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

fn check(settings: &Settings) -> Result<(), BenchError> {
    let refuse = |what: String| Err(BenchError::Usage(what));
    let Settings { common, clients, batch, organizations, seconds, .. } = settings;
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
    if settings.lines && settings.wire == Wire::Ws {
        return refuse("NDJSON works only over HTTP: leave out --protocol ws".into());
    }
    if settings.wire == Wire::Ws && organizations > clients {
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
    settings: &Settings,
    run: usize,
    target: &Target,
    access: &[Access],
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let there = |access: &Access| Access { credential: access.credential.clone(), ..target.access.clone() };
    let access: Vec<Access> = access.iter().map(there).collect();
    let mut events = Events::new(settings, &access);
    let load = MeasuredLoad {
        plan: Plan {
            wire: settings.wire,
            access: access.iter().cycle().take(settings.clients).cloned().collect(),
            batch: settings.batch,
            ids: true,
            patience: settings.common.patience,
        },
        things: THINGS,
        bytes: settings.batch * Template::custom(0, settings.size).size(),
        time: Duration::from_secs(settings.seconds),
        rest: Duration::from_secs(if target.server == Server::Daemon { settings.rest } else { 0 }),
    };
    load::measure(&load, &mut events, run, target, report, progress)
}

/// Runs the bare programs one after another.
fn beside(
    settings: &Settings,
    run: usize,
    access: &[Access],
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<(), BenchError> {
    let baselines = &settings.common.baselines;
    let bytes = (settings.batch * (settings.size + ENVELOPE)).to_string();
    progress.begin("bare commits", 0);
    let of_row = bytes.parse::<usize>().unwrap_or(BARE_MAX).min(BARE_MAX).to_string();
    let commits =
        bare(&baselines.find("bare_commit")?, &["--commits", &BARE_COMMITS.to_string(), "--bytes", &of_row])?;
    progress.begin("bare appends", settings.seconds);
    let (streams, seconds) = (settings.clients.to_string(), settings.seconds.to_string());
    let arguments = ["--streams", &streams, "--bytes", &bytes, "--seconds", &seconds];
    let appends = bare(&baselines.find("bare_append")?, &arguments)?;
    let batch = settings.batch as f64;
    for (server, figures) in [(Server::Floor, &commits), (Server::Append, &appends)] {
        report.add(server, "p50", THINGS.ack[1], "µs", figure(figures, "p50_ns")? / 1e3);
        report.add(server, "p99", THINGS.ack[2], "µs", figure(figures, "p99_ns")? / 1e3);
    }
    report.add(Server::Append, "rate", THINGS.rate, "1/s", figure(&appends, "rate")? * batch);
    report.add(Server::Append, "cpu", THINGS.cpu, "µs", figure(&appends, "cpu_ns")? / 1e3 / batch);
    if settings.wire == Wire::Http {
        let ids = settings.batch.to_string();
        let parse =
            Target::baseline(Server::Parse, &baselines.find("bare_http")?, &["--ids".into(), ids.into()])?;
        measure(settings, run, &parse, access, report, progress)?;
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
    fn new(settings: &Settings, access: &[Access]) -> Events {
        let Settings { batch, size, lines, durable, .. } = *settings;
        let path = if durable { "/api/v1/events" } else { "/api/v1/events?ack=memory" };
        let content = if lines { "application/x-ndjson" } else { "application/json" };
        let heads = access.iter().map(|access| match settings.wire {
            Wire::Ws => Vec::new(),
            Wire::Http | Wire::Sse => HttpPublish::to(access, path, content).head().to_vec(),
        });
        let bodies = (0..CHANNELS.min(settings.clients)).map(|channel| {
            let mut template = Template::custom(channel, size);
            let (mut body, mut out) = (Vec::new(), Vec::new());
            match lines {
                true => template.lines(channel as u64, batch as u64, 0, &mut body),
                false => template.array(channel as u64, batch as u64, 0, &mut body),
            }
            let single = batch == 1 && !lines;
            let body = if single { &body[1..body.len() - 1] } else { &body[..] };
            match settings.wire {
                Wire::Ws => ws_publish(channel as u64, body, !single, durable, &mut out),
                Wire::Http | Wire::Sse => HttpPublish::rest(body, &mut out),
            }
            out
        });
        Events {
            heads: heads.collect(),
            bodies: bodies.collect(),
            turn: (0..settings.clients).map(|at| at % access.len()).collect(),
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

    fn settings(clients: usize, batch: usize, lines: bool) -> Settings {
        Settings {
            common: Common::default(),
            wire: Wire::Http,
            clients,
            batch,
            lines,
            organizations: 1,
            durable: true,
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
        let mut events = Events::new(&settings(3, 1, false), &organizations);
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
        for (batch, lines, content, starts) in [
            (1, false, "application/json", "{\"type\":\"custom\""),
            (3, false, "application/json", "[{\"type\""),
            (3, true, "application/x-ndjson", "{\"type\""),
        ] {
            let mut events = Events::new(&settings(2, batch, lines), &[access("K: 0")]);
            let request = String::from_utf8(events.next(1).concat()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Type: {content}\r\n")), "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            assert!(body.starts_with(starts), "{body}");
            assert_eq!(body.matches("\"type\":\"custom\"").count(), batch);
        }
    }
}
