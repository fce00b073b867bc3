//! `bench publish` and `bench messages`: their command-line grammar, and the conversion of flags to settings.

use clap::{Args, ValueEnum};

use super::bench::CommonArgs;
use nervewire_load::subscriber::Wire;
use nervewire_load::{Common, messages, publish};

pub(super) const EXAMPLES: &str = "\
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

/// Examples of `bench messages`.
pub(super) const MESSAGES: &str = "\
Examples:
  nervewire bench messages                                 # 256 clients, 10,000 agents, 10,000 users
  nervewire bench messages --agents 1 --users 1
  nervewire bench messages --runs 5 --bar 'rate>=30000'

Each message is durable, has a random agent and user, and publishes its event.";

/// The protocol of publishers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1, one request after another on a connection.
    Http,
    /// WebSocket.
    Ws,
}

/// The encoding of several events in one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Body {
    /// A JSON array.
    Json,
    /// Lines of NDJSON; only over HTTP.
    Ndjson,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// The event is on disk.
    Durable,
    /// The event has its sequence.
    Memory,
}

/// Flags of `bench publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Protocol of publishers
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    pub protocol: Protocol,
    /// Publishers, each with one publish in progress
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub clients: usize,
    /// Events in each publish
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Encoding of several events in one body
    #[arg(long, value_enum, default_value_t = Body::Json)]
    pub body: Body,
    /// Organizations to publish to in turn; if more than one, they are created first, with a key each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub organizations: usize,
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    pub ack: Ack,
    /// Duration of each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub seconds: u64,
    /// Seconds to wait after the run before disk and memory are read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub rest: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench messages`.
#[derive(Debug, Args)]
pub struct MessagesArgs {
    /// Clients, each with one request in progress
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub clients: usize,
    /// Agents of the messages; they are created first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub agents: usize,
    /// Users that the messages are addressed to
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub users: usize,
    /// Duration of each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    pub seconds: u64,
    /// Seconds to wait after the run before disk and memory are read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub rest: u64,
    /// Bytes of a message's content
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub size: usize,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl PublishArgs {
    pub(super) fn settings(&self, common: Common) -> publish::Settings {
        publish::Settings {
            common,
            wire: match self.protocol {
                Protocol::Http => Wire::Http,
                Protocol::Ws => Wire::Ws,
            },
            clients: self.clients,
            batch: self.batch,
            lines: self.body == Body::Ndjson,
            organizations: self.organizations,
            durable: self.ack == Ack::Durable,
            seconds: self.seconds,
            rest: self.rest,
            size: self.size,
        }
    }
}

impl MessagesArgs {
    pub(super) fn settings(&self, common: Common) -> messages::Settings {
        let MessagesArgs { clients, agents, users, seconds, rest, size, .. } = *self;
        messages::Settings { common, clients, agents, users, seconds, rest, size }
    }
}
