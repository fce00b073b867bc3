//! `bench publish`: its grammar, and from flags to settings.

use clap::{Args, ValueEnum};

use super::bench::CommonArgs;
use crate::bench::publish::Settings;
use crate::bench::subscriber::Wire;

pub(super) const EXAMPLES: &str = "\
Examples:
  nervewire bench publish                                  # 512 clients over HTTP, durable acks, singles
  nervewire bench publish --protocol ws --bar 'rate>=50000'
  nervewire bench publish --batch 100 --ack memory
  nervewire bench publish --clients 1 --floor --runs 5 --bar 'p50<=1.3x'

--floor runs the bare commit (a sled batch, a flush, an fdatasync) after each run, on the file system of
the temporary directory, where the daemon's data is too.";

/// How publishers speak.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1, one request after the other on a connection.
    Http,
    /// WebSocket.
    Ws,
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
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = Ack::Durable)]
    pub ack: Ack,
    /// How long each run measures
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Common.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl PublishArgs {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            common: self.common.common(),
            wire: match self.protocol {
                Protocol::Http => Wire::Http,
                Protocol::Ws => Wire::Ws,
            },
            clients: self.clients,
            batch: self.batch,
            durable: self.ack == Ack::Durable,
            seconds: self.seconds,
            size: self.size,
        }
    }
}
