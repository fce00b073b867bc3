//! The flags of `bench catchup` and `bench open`: the modes that read a log or open it.

use clap::{Args, ValueEnum};

use super::bench::CommonArgs;
use nervewire_load::catchup::ReadTransport;
use nervewire_load::subscriber::Wire;
use nervewire_load::{Common, catchup, open};

/// Examples of `bench catchup`.
pub(super) const CATCHUP: &str = "\
Examples:
  nervewire bench catchup                                  # one reader over SSE, 500 MB
  nervewire bench catchup --readers 100 --megabytes 100
  nervewire bench catchup --by pages --before ../old/nervewire --bar 'per_cpu>=4x:before'

One publisher fills the log first. Then each reader reads all of it. The newest events are in the
organization's ring; --set limits.ring_bytes_per_tenant makes it smaller. Lost, repeated and
reordered events are counted and fail the run.";

/// Examples of `bench open`.
pub(super) const OPEN: &str = "\
Examples:
  nervewire bench open                                     # 1 GB of events
  nervewire bench open --gigabytes 20 --bar 'killed<=2' --bar 'clean<=0.2'
  nervewire bench open --cold                              # the data is not in the page cache

The daemon is killed while events are published. It keeps all events (retention.max_bytes=0, unless
--set changes it), so the temporary directory needs several times --gigabytes of free space. An
acknowledged event that is missing afterwards fails the run.";

/// How a log is read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CatchupTransport {
    /// An SSE stream over HTTP/1.1.
    Sse,
    /// A WebSocket.
    Ws,
    /// `GET /api/v1/events`, 1,000 events a page.
    Pages,
}

/// Flags of `bench catchup`.
#[derive(Debug, Args)]
pub struct CatchupArgs {
    /// How the log is read
    #[arg(long, value_enum, default_value_t = CatchupTransport::Sse)]
    pub by: CatchupTransport,
    /// Readers, which all start at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub readers: usize,
    /// Megabytes of events in the log, as published
    #[arg(long, value_name = "MB", default_value_t = 500.0)]
    pub megabytes: f64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: usize,
    /// Events in each publish that fills the log
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub array: u64,
    /// Seconds to wait after the run before memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub rest: u64,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `bench open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Gigabytes of events in the log, as published
    #[arg(long, value_name = "GB", default_value_t = 1.0)]
    pub gigabytes: f64,
    /// Bytes of an event
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: usize,
    /// Drop the data from the kernel's page cache before each opening
    #[arg(long)]
    pub cold: bool,
    /// Flags of every mode.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl CatchupArgs {
    pub(super) fn settings(&self, common: Common) -> catchup::Settings {
        let CatchupArgs { readers, megabytes, size, array, rest, .. } = *self;
        let by = match self.by {
            CatchupTransport::Sse => ReadTransport::Stream(Wire::Sse),
            CatchupTransport::Ws => ReadTransport::Stream(Wire::Ws),
            CatchupTransport::Pages => ReadTransport::Pages,
        };
        catchup::Settings { common, by, readers, megabytes, size, array, rest }
    }
}

impl OpenArgs {
    pub(super) fn settings(&self, common: Common) -> open::Settings {
        open::Settings { common, gigabytes: self.gigabytes, size: self.size, cold: self.cold }
    }
}
