//! `messages`: messages created per second, each with its event, and the CPU time of one.
//!
//! * Agents are created first. Each request creates a message with a random agent and user. With many of
//!   them, the list index entries of messages are far apart. The random sequence is the same in every run.
//! * A closed loop ([`crate::generator::closed_loop`]) of durable requests.

use std::time::Duration;

use serde_json::json;

use crate::common::{Common, help};
use crate::error::BenchError;
use crate::generator::closed_loop::{Plan, Requests};
use crate::generator::measured_load::{self, MeasuredLoad, RowNames};
use crate::progress::Progress;
use crate::report::Report;
use crate::target::Server;
use crate::wire::http_connection;
use crate::wire::request::HttpPublish;
use crate::wire::{Access, Wire};

/// Maximum number of agents or users. Their numbers have a fixed number of digits.
const MOST: usize = 1_000_000;
/// The rows of this mode.
const ROWS: RowNames = RowNames {
    rate: "messages created",
    cpu: "CPU per message",
    generator: "CPU of the bench per message",
    ack: ["request to answer", "request to answer, p50", "request to answer, p99"],
};

const EXAMPLES: &str = "\
Examples:
  nervewire bench messages                                 # 256 clients, 10,000 agents, 10,000 users
  nervewire bench messages --agents 1 --users 1
  nervewire bench messages --runs 5 --bar 'rate>=30000'

Each message is durable, has a random agent and user, and publishes its event.";

/// Measure messages created per second, each with its event, and the CPU time of one
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help(EXAMPLES))]
pub struct Args {
    /// Clients, each with one request in progress
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) clients: usize,
    /// Agents of the messages; they are created first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) agents: usize,
    /// Users that the messages are addressed to
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) users: usize,
    /// Duration of each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    pub(crate) seconds: u64,
    /// Seconds to wait after the run before disk and memory are read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) rest: u64,
    /// Bytes of a message's content
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn connections(args: &Args) -> usize {
    args.clients
}

pub(crate) fn run(args: &Args, progress: &mut dyn Progress) -> Result<Report, BenchError> {
    let Args { common, clients, agents, users, seconds, rest, size } = args;
    common.daemon_alone()?;
    let counts = [*clients, *agents, *users];
    if counts.contains(&0) || agents.max(users) > &MOST || *seconds == 0 || *size == 0 {
        let limits = format!(
            "clients, agents, users, seconds and size are at least 1, agents and users at most {MOST}"
        );
        return Err(BenchError::Usage(limits));
    }
    let about = format!(
        "{clients} clients create messages of {size} bytes of {agents} agents to {users} users, for {seconds} s"
    );
    let parameters = json!({
        "clients": clients, "agents": agents, "users": users, "seconds": seconds, "rest": rest, "size": size,
        "runs": common.runs,
    });
    let mut report = Report::new("messages", about, parameters, &common.bars);
    for run in 0..common.runs {
        let target = common.start(Server::Daemon, None)?;
        progress.begin("making agents", 0);
        let ids = http_connection::many(&target.access, *agents, common.patience, &|caller, at| {
            let made = caller.post("/api/v1/agents", &json!({"name": format!("agent {at}")}))?;
            Ok(made["id"].as_str().unwrap_or_default().to_owned())
        })?;
        let mut messages = Messages::new(&target.access, &ids, *users, *size);
        let load = MeasuredLoad {
            plan: Plan {
                wire: Wire::Http,
                access: vec![target.access.clone(); *clients],
                batch: 1,
                ids: false,
                patience: common.patience,
            },
            rows: ROWS,
            bytes: *size,
            time: Duration::from_secs(*seconds),
            rest: Duration::from_secs(*rest),
        };
        measured_load::measure(&load, &mut messages, run, &target, &mut report, progress)?;
    }
    Ok(report)
}

/// Requests whose first half contains the agent and whose second half contains the user.
struct Messages {
    agents: Vec<Vec<u8>>,
    users: Vec<Vec<u8>>,
    /// State of the random generator, xorshift64.
    drawn: u64,
}

impl Messages {
    fn new(access: &Access, agents: &[String], users: usize, size: usize) -> Messages {
        let users: Vec<Vec<u8>> = (0..users).map(|at| format!("user-{at:06}\"}}").into_bytes()).collect();
        let post = HttpPublish::to(access, "/api/v1/messages", "application/json");
        let content = "x".repeat(size);
        let agent = |id: &String| {
            let start = format!(r#"{{"agent_id":"{id}","content":"{content}","user_id":""#);
            let length = start.len() + users.first().map_or(0, Vec::len); // all user names have the same length
            [post.head(), length.to_string().as_bytes(), b"\r\n\r\n", start.as_bytes()].concat()
        };
        Messages { agents: agents.iter().map(agent).collect(), users, drawn: 0x9e37_79b9_7f4a_7c15 }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.drawn ^= self.drawn << 13;
        self.drawn ^= self.drawn >> 7;
        self.drawn ^= self.drawn << 17;
        usize::try_from((self.drawn >> 32) % below as u64).unwrap_or(0)
    }
}

impl Requests for Messages {
    fn next(&mut self, _: usize) -> [&[u8]; 2] {
        let (agent, user) = (self.draw(self.agents.len()), self.draw(self.users.len()));
        [&self.agents[agent], &self.users[user]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_a_whole_message_and_all_agents_and_users_are_drawn() {
        let access =
            Access { addr: ([127, 0, 0, 1], 1).into(), host: "h".into(), credential: "K: 0\r\n".into() };
        let mut messages = Messages::new(&access, &["a-1".into(), "a-2".into()], 3, 20);
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let request = String::from_utf8(messages.next(0).concat()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            let message: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(message["content"].as_str().map(str::len), Some(20));
            drawn.insert((message["agent_id"].to_string(), message["user_id"].to_string()));
        }
        assert_eq!(drawn.len(), 6, "{drawn:?}");
    }
}
