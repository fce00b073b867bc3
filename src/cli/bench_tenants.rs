//! The flags of `bench resume`, `noisy` and `streams`: the modes about many tenants, readers far behind and filters.

use std::time::Duration;

use clap::Args;

use super::bench::{CommonArgs, Transport};
use crate::bench::{Common, noisy, resume, streams};

/// Examples of `bench resume`.
pub(super) const RESUME: &str = "\
Examples:
  nervewire bench resume                                   # 5,000 come back, 2,000 events behind
  nervewire bench resume --transport sse --subscribers 1000 --behind 10000
  nervewire bench resume --runs 5 --bar 'spread<=2' --bar 'sent_ratio<=2' --bar 'live_ratio<=2'

The daemon is given another organization of its own for each part; with --url the key must be the
operator's. Losses and repeats are counted by number and fail the run.";

/// Examples of `bench noisy`.
pub(super) const NOISY: &str = "\
Examples:
  nervewire bench noisy                                    # 5,000 subscribers, half of them stalled
  nervewire bench noisy --stalled 0.9 --publishers 64 --seconds 30
  nervewire bench noisy --runs 5 --bar 'sent_share<=1'     # p99 <= max(2 x alone, 2 ms)

Tenant B's sends are timed in the daemon, and its receipts here. With --url the key must be the
operator's. An event that B loses fails the run; what A loses is told.";

/// Examples of `bench streams`.
pub(super) const STREAMS: &str = "\
Examples:
  nervewire bench streams                                  # 100 and 10,000 streams
  nervewire bench streams --transport sse --streams 1000 --streams 5000
  nervewire bench streams --runs 5 --bar 'many_over_few<=1.3'";

/// `bench resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// How subscribers are connected
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers that leave and come back all at once
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub subscribers: usize,
    /// Events published while they are away
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub behind: u64,
    /// Events in one of those publishes
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Live subscribers of another tenant meanwhile
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub live: usize,
    /// That tenant's publishes a second
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub rate: f64,
    /// How long that tenant is measured alone before
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub alone: f64,
    /// Common.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `bench noisy`.
#[derive(Debug, Args)]
pub struct NoisyArgs {
    /// How subscribers are connected
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers of the loud tenant, A
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub subscribers: usize,
    /// The share of them that never reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub stalled: f64,
    /// Publishers of A, each publishing again as soon as it is answered
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub publishers: usize,
    /// Events in each publish of every other publisher; the rest publish single ones
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// A waits for the disk, instead of asking for `ack=memory`
    #[arg(long)]
    pub durable: bool,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Subscribers of the quiet tenant, B
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub live: usize,
    /// B's publishes a second
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub rate: f64,
    /// How long B is measured alone, and again under A's load
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Common.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `bench streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// How subscribers are connected
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Streams, given twice: few, then many
    #[arg(long, value_name = "N", default_values_t = [100, 10_000])]
    pub streams: Vec<u64>,
    /// Chunks measured, of all streams together, the same for few and for many
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub chunks: u64,
    /// Chunks in each publish, each for another stream
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Common.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A length of time a person gave: negative and absurd ones are none.
fn seconds(given: f64) -> Duration {
    Duration::try_from_secs_f64(given).unwrap_or_default()
}

impl ResumeArgs {
    pub(super) fn settings(&self, common: Common) -> resume::Settings {
        resume::Settings {
            common,
            wire: self.transport.wire(),
            subscribers: self.subscribers,
            behind: self.behind,
            array: self.array,
            size: self.size,
            live: self.live,
            rate: self.rate,
            alone: seconds(self.alone),
        }
    }
}

impl NoisyArgs {
    pub(super) fn settings(&self, common: Common) -> noisy::Settings {
        noisy::Settings {
            common,
            wire: self.transport.wire(),
            subscribers: self.subscribers,
            stalled: self.stalled,
            publishers: self.publishers,
            array: self.array,
            durable: self.durable,
            size: self.size,
            live: self.live,
            rate: self.rate,
            seconds: seconds(self.seconds),
        }
    }
}

impl StreamsArgs {
    pub(super) fn settings(
        &self,
        common: Common,
    ) -> Result<streams::Settings, crate::bench::error::BenchError> {
        let streams = self.streams.as_slice().try_into().map_err(|_| {
            crate::bench::error::BenchError::Usage("--streams is given twice: few, then many".into())
        })?;
        Ok(streams::Settings {
            common,
            wire: self.transport.wire(),
            streams,
            chunks: self.chunks,
            array: self.array,
        })
    }
}
