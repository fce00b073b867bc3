//! `bench publish` and `bench messages`: their grammar, and from flags to settings.

use clap::{Args, ValueEnum};

use super::bench::CommonArgs;
use crate::bench::subscriber::Wire;
use crate::bench::{Common, messages, publish};

pub(super) const EXAMPLES: &str = "\
Examples:
  nervewire bench publish                                  # 512 clients over HTTP, durable acks, singles
  nervewire bench publish --protocol ws --bar 'rate>=50000'
  nervewire bench publish --batch 100 --ack memory
  nervewire bench publish --batch 100 --body ndjson --clients 256 --rest 10
  nervewire bench publish --clients 256 --organizations 10000
  nervewire bench publish --clients 1 --floor --runs 5 --bar 'p50<=1.25x:append'
  nervewire bench publish --batch 100 --before ../old/nervewire --bar 'cpu<=0.5x:before'

--floor runs bare programs after each run, on the file system of the temporary directory, where the
daemon's data is too: `floor` is a sled batch, a flush and an fdatasync; `append` a pwrite and an
fdatasync of the same bytes, those of all clients that wait together; `parse` an HTTP server that reads
the same requests and drops their bodies.";

/// Examples of `bench messages`.
pub(super) const MESSAGES: &str = "\
Examples:
  nervewire bench messages                                 # 256 clients, 10,000 agents, 10,000 users
  nervewire bench messages --agents 1 --users 1
  nervewire bench messages --runs 5 --bar 'rate>=30000'

Each message is durable, of an agent and a user drawn at random, and its event is published.";

/// How publishers speak.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1, one request after the other on a connection.
    Http,
    /// WebSocket.
    Ws,
}

/// How several events are written in one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Body {
    /// A JSON array.
    Json,
    /// Lines of NDJSON; over HTTP alone.
    Ndjson,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// The disk.
    Durable,
    /// Nothing but its place in the order.
    Memory,
}

/// `bench publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// How publishers speak
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    pub protocol: Protocol,
    /// Publishers, each with one publish under way
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub clients: usize,
    /// Events in each publish
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// How several events are written
    #[arg(long, value_enum, default_value_t = Body::Json)]
    pub body: Body,
    /// Organizations, published to in turns; more than one are made first, with a key each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub organizations: usize,
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    pub ack: Ack,
    /// How long each run measures
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub seconds: u64,
    /// How long nothing is done after that, before disk and memory are looked at
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub rest: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Common.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `bench messages`.
#[derive(Debug, Args)]
pub struct MessagesArgs {
    /// Clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub clients: usize,
    /// Agents the messages are of; they are made first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub agents: usize,
    /// Users the messages are to
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub users: usize,
    /// How long each run measures
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    pub seconds: u64,
    /// How long nothing is done after that, before disk and memory are looked at
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub rest: u64,
    /// Bytes of a message's content
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub size: usize,
    /// Common.
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
