//! The flags of `bench resume`, `noisy` and `streams`: the modes with many tenants, readers far behind, or
//! filters.

use std::time::Duration;

use clap::Args;

use super::bench::{CommonArgs, Transport};
use nervewire_load::{Common, noisy, resume, streams};

/// Examples of `bench resume`.
pub(super) const RESUME: &str = "\
Examples:
  nervewire bench resume                                   # 5,000 reconnect, 2,000 events behind
  nervewire bench resume --transport sse --subscribers 1000 --behind 10000
  nervewire bench resume --runs 5 --bar 'spread<=2' --bar 'sent_ratio<=2' --bar 'live_ratio<=2'

A new organization is created for each part; with --url the key must be an operator key. Lost and
repeated events are counted and fail the run.";

/// Examples of `bench noisy`.
pub(super) const NOISY: &str = "\
Examples:
  nervewire bench noisy                                    # 5,000 subscribers, half of them stalled
  nervewire bench noisy --stalled 0.9 --publishers 64 --seconds 30
  nervewire bench noisy --runs 5 --bar 'sent_share<=1'     # p99 <= max(2 x alone, 2 ms)

The sends of tenant B are timed in the daemon, and its receipts in this process. With --url the key
must be an operator key. An event lost by B fails the run; events lost by A are reported.";

/// Examples of `bench streams`.
pub(super) const STREAMS: &str = "\
Examples:
  nervewire bench streams                                  # 100 and 10,000 streams
  nervewire bench streams --transport sse --streams 1000 --streams 5000
  nervewire bench streams --runs 5 --bar 'many_over_few<=1.3'";

/// Flags of `bench resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers that disconnect and all reconnect at once
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub subscribers: usize,
    /// Events published while the subscribers are away
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub behind: u64,
    /// Events in each of those publishes
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Live subscribers of another tenant during the run
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub live: usize,
    /// Publishes per second of that tenant
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub rate: f64,
    /// Seconds to measure that tenant alone first
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub alone: f64,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench noisy`.
#[derive(Debug, Args)]
pub struct NoisyArgs {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Subscribers of the busy tenant, A
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub subscribers: usize,
    /// Share of these subscribers that never reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub stalled: f64,
    /// Publishers of A; each publishes again as soon as it gets a response
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub publishers: usize,
    /// Events in each publish of every second publisher; the others publish single events
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Publishers of A wait for the disk, instead of using `ack=memory`
    #[arg(long)]
    pub durable: bool,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Subscribers of the quiet tenant, B
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub live: usize,
    /// Publishes per second of B
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub rate: f64,
    /// Seconds to measure B alone, and again under A's load
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// Transport of subscribers
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub transport: Transport,
    /// Number of streams; give the flag twice: few, then many
    #[arg(long, value_name = "N", default_values_t = [100, 10_000])]
    pub streams: Vec<u64>,
    /// Chunks to measure, of all streams together; the same number for few and many streams
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub chunks: u64,
    /// Chunks in each publish, each for a different stream
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Converts a number of seconds given by a user. A negative or absurdly large number becomes zero.
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
    ) -> Result<streams::Settings, nervewire_load::error::BenchError> {
        let streams = self.streams.as_slice().try_into().map_err(|_| {
            nervewire_load::error::BenchError::Usage("give --streams twice: few, then many".into())
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
