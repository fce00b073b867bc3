//! The settings of the daemon: one checked [`Config`], created once before any socket is bound.
//!
//! * Every key is one row of [`KEYS`] (`table.rs`): name, kind, range, default, unit, memory cost, text.
//!   Loading, printing and the tables of `docs/configuration.md` all use that row, so they cannot disagree.
//! * Flags override the environment, and the environment overrides the file. A stronger source replaces the
//!   whole value of a key; lists are never joined.
//! * [`Config::load`] is pure: its input is text and pairs, its output is the settings or *all* problems. It
//!   opens no files; `auth` opens the key files.
//! * Secrets are held in [`Secret`]. No `Debug`, `Display` or error text ever shows one.
//!
//! This module does not know what the settings are used for, whether a port is free or whether a directory is
//! writable.

mod apply;
mod check;
mod error;
mod jwt_keys;
mod key;
mod limits;
mod listen;
mod nearest;
mod print;
mod proxies;
mod raw;
mod secret;
mod serve;
mod sources;
mod table;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, Origin, Problem};
pub use jwt_keys::{JwtAlgorithm, JwtKey, JwtKeyMaterial};
pub use key::{Key, KeyType};
pub use listen::{ListenAddr, ListenAddrError};
pub use print::{print, reference};
pub use proxies::TrustedProxies;
pub use secret::Secret;
pub use serve::ServeOptions;
pub use sources::{CLI_VARIABLES, FileText, FlagValue, Sources};
pub use table::KEYS;
pub use values::{Durability, FanoutSubmission, LogFormat, LogLevel};

/// The source of each key's value, by key name. A key that is missing here has its default.
pub type Origins = BTreeMap<&'static str, Origin>;

/// Every setting of the daemon, checked. Each field is a key; units and ranges are in [`KEYS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Threads that own connections; 0 = one per core.
    pub worker_threads: usize,
    /// How fan-out writes reach the kernel.
    pub fanout_submission: FanoutSubmission,
    /// The public listeners, at least one.
    pub listen: Vec<ListenAddr>,
    /// The address of the admin listener; `None` if it is off (`"off"`).
    pub admin_listen: Option<ListenAddr>,
    /// Directory of the store and of generated keys, relative to the working directory.
    pub data_dir: PathBuf,
    /// Seconds between heartbeats on a WebSocket. A peer that is silent for two of them is closed with 4440.
    pub heartbeat_seconds: u64,
    /// Seconds between keep-alives on an SSE stream.
    pub sse_keepalive_seconds: u64,
    /// Milliseconds within which a request head must be complete.
    pub header_timeout_ms: u64,
    /// Milliseconds that a request body may stall.
    pub body_timeout_ms: u64,
    /// Milliseconds within which a whole request body or WebSocket message must arrive, plus the time that
    /// `min_bytes_per_second` adds.
    pub request_timeout_ms: u64,
    /// Each time this many bytes of a body or message have arrived, its time is extended by a second.
    pub min_bytes_per_second: u64,
    /// Milliseconds that a socket may be blocked without write progress.
    pub write_timeout_ms: u64,
    /// Milliseconds that an HTTP connection may be open without a request.
    pub idle_timeout_ms: u64,
    /// Seconds during which an HTTP connection accepts new requests; 0 = no limit.
    pub connection_age_seconds: u64,
    /// Seconds over which a stopping daemon spreads the closing of connections.
    pub drain_seconds: u64,
    /// Seconds during which a user without a connection still counts as present.
    pub presence_grace_seconds: u64,
    /// Allowed browser origins (`https://app.example`) besides the daemon's own; empty = its own and
    /// localhost.
    pub allowed_origins: Vec<String>,
    /// Whether `?token=` is accepted as a credential.
    pub token_in_query: bool,
    /// The proxies that are trusted to name a client's address.
    pub trusted_proxies: TrustedProxies,
    /// `auth.*`
    pub auth: Auth,
    /// `streams.*`
    pub streams: Streams,
    /// `retention.*`
    pub retention: Retention,
    /// `store.*`
    pub store: Store,
    /// `limits.*`
    pub limits: Limits,
    /// `log.*`
    pub log: Log,
}

/// `auth.*`: foreign keys, and limits of failed credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Keys that verify JWTs of other issuers; empty = only the daemon's own key. Each `kid` is unique, and
    /// at most one key is the default.
    pub jwt_keys: Vec<JwtKey>,
    /// Failed credentials per address (IPv6 /64) and minute; 0 = no limit.
    pub failures_per_minute: u64,
    /// Seconds after its `iat` until which a token of `jwt_keys` is valid at most.
    pub max_token_seconds: u64,
}

/// `streams.*`: limits of LLM streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// `streams.keep_seconds`
    pub keep_seconds: u64,
    /// `streams.open`
    pub open: usize,
    /// `streams.open_per_organization`
    pub open_per_organization: usize,
    /// `streams.bytes`
    pub bytes: u64,
    /// `streams.unknown_wait_seconds`
    pub unknown_wait_seconds: u64,
}

/// `retention.*`: what each organization's log keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Seconds; 0 = no limit by age.
    pub max_age_seconds: u64,
    /// Events; 0 = no limit by count.
    pub max_events: u64,
    /// Bytes of stored values; 0 = no limit by bytes.
    pub max_bytes: u64,
}

/// `store.*`: the log on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Bytes of page cache.
    pub cache_bytes: u64,
    /// Bytes of resource rows kept in memory; 0 = a sixteenth of the memory that the process may use.
    pub row_cache_bytes: u64,
    /// Bytes of one journal segment.
    pub segment_bytes: u64,
    /// Bytes of free disk space below which publishing is answered with 503.
    pub reserve_bytes: u64,
    /// Bytes of live data of all organizations; 0 = a sixth of the file system.
    pub max_live_bytes: u64,
    /// Whether an acknowledgement waits for the disk.
    pub durability: Durability,
}

/// `limits.*`: limits of memory, sizes, connections and rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest number of slots of one organization's ring; a power of two.
    pub ring_slots: usize,
    /// Bytes of frames in one ring.
    pub ring_bytes_per_tenant: usize,
    /// Bytes of frames in all rings together.
    pub ring_bytes_total: usize,
    /// Accepted and not yet committed events of one organization; at most `ring_slots`.
    pub uncommitted_events: usize,
    /// Bytes written to a socket and not yet sent (`TCP_NOTSENT_LOWAT`).
    pub unsent_bytes: usize,
    /// Bytes of one event's JSON.
    pub event_bytes: usize,
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Bytes of one organization's request bodies that have arrived in part.
    pub body_bytes_per_organization: usize,
    /// Bytes of one organization's responses and HTTP/2 event streams that were not read yet.
    pub unread_bytes_per_organization: usize,
    /// Bytes of both kinds, for all peers without a valid credential together.
    pub unauthenticated_bytes: usize,
    /// Connections without a valid credential; 0 = no limit.
    pub unauthenticated_connections: usize,
    /// Bytes of an inbound WebSocket message.
    pub ws_frame_bytes: usize,
    /// Connections of the process; 0 = as many as the descriptor limit allows.
    pub connections: usize,
    /// Connections of one organization; 0 = no limit.
    pub connections_per_organization: usize,
    /// Connections of one user (a principal with a `sub`); 0 = no limit.
    pub connections_per_user: usize,
    /// Connections of one address (IPv6 /64), except for loopback; 0 = no limit.
    pub connections_per_address: usize,
    /// Events per second of one user, for principals without `publish:org`; 0 = no limit.
    pub publish_per_second: u64,
    /// Events per second of one organization; 0 = an equal share.
    pub publish_per_second_per_organization: u64,
    /// Requests per second of one organization; 0 = an equal share.
    pub requests_per_second_per_organization: u64,
    /// Bytes that one organization may store; 0 = a share of `store.max_live_bytes`.
    pub bytes_per_organization: u64,
    /// Resources that one organization may store; 0 = no limit.
    pub rows_per_organization: u64,
}

/// `log.*`: the daemon's own log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// The format of a line.
    pub format: LogFormat,
}

impl Default for Config {
    /// Every key has the default of its row in [`KEYS`].
    fn default() -> Self {
        let mut config = blank();
        for key in KEYS {
            key.reset(&mut config);
        }
        config
    }
}

impl Config {
    /// Builds the settings from these sources, or returns every problem found in them. Opens no files.
    ///
    /// # Errors
    /// [`ConfigError`] with each unknown key, wrong type, value out of range and violated relation.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_traced(sources).map(|(config, _)| config)
    }

    /// As [`Config::load`], and also returns the source of each key that is not at its default.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_traced(sources: &Sources) -> Result<(Self, Origins), ConfigError> {
        let mut problems = Vec::new();
        let mut config = Self::default();
        let mut origins = Origins::new();
        for setting in sources.settings(&mut problems) {
            match apply::apply(setting.key, &setting.value, &mut config) {
                Ok(()) => {
                    origins.insert(setting.key.name, setting.origin);
                }
                Err(what) => problems.push(Problem::new(setting.key.name, setting.origin, what)),
            }
        }
        // If some values are missing, their relations would only repeat the first problem.
        if problems.is_empty() {
            check::relations(&config, &origins, &mut problems);
        }
        if problems.is_empty() { Ok((config, origins)) } else { Err(ConfigError { problems }) }
    }

    /// `heartbeat_seconds` as a duration.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// `sse_keepalive_seconds` as a duration.
    pub fn sse_keepalive(&self) -> Duration {
        Duration::from_secs(self.sse_keepalive_seconds)
    }

    /// `header_timeout_ms` as a duration.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    /// `body_timeout_ms` as a duration.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// How long a body or message may take of which `bytes` have arrived: `request_timeout_ms`, plus a second
    /// for each `min_bytes_per_second`.
    pub fn receive_time(&self, bytes: usize) -> Duration {
        let earned = (bytes as u64).saturating_mul(1_000) / self.min_bytes_per_second.max(1);
        Duration::from_millis(self.request_timeout_ms.saturating_add(earned))
    }

    /// `write_timeout_ms` as a duration.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    /// `presence_grace_seconds` as a duration.
    pub fn presence_grace(&self) -> Duration {
        Duration::from_secs(self.presence_grace_seconds)
    }

    /// `drain_seconds` as a duration.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// A config of zeros that [`Config::default`] fills from the table. It is never visible outside.
fn blank() -> Config {
    Config {
        worker_threads: 0,
        fanout_submission: FanoutSubmission::IoUring,
        listen: Vec::new(),
        admin_listen: None,
        data_dir: PathBuf::new(),
        heartbeat_seconds: 0,
        sse_keepalive_seconds: 0,
        header_timeout_ms: 0,
        body_timeout_ms: 0,
        request_timeout_ms: 0,
        min_bytes_per_second: 0,
        write_timeout_ms: 0,
        idle_timeout_ms: 0,
        connection_age_seconds: 0,
        drain_seconds: 0,
        presence_grace_seconds: 0,
        allowed_origins: Vec::new(),
        token_in_query: false,
        trusted_proxies: TrustedProxies::default(),
        auth: Auth { jwt_keys: Vec::new(), failures_per_minute: 0, max_token_seconds: 0 },
        streams: Streams {
            keep_seconds: 0,
            open: 0,
            open_per_organization: 0,
            bytes: 0,
            unknown_wait_seconds: 0,
        },
        retention: Retention { max_age_seconds: 0, max_events: 0, max_bytes: 0 },
        store: Store {
            cache_bytes: 0,
            row_cache_bytes: 0,
            segment_bytes: 64 << 20,
            reserve_bytes: 0,
            max_live_bytes: 0,
            durability: Durability::Fsync,
        },
        limits: Limits {
            ring_slots: 0,
            ring_bytes_per_tenant: 0,
            ring_bytes_total: 0,
            uncommitted_events: 0,
            unsent_bytes: 0,
            event_bytes: 0,
            body_bytes: 0,
            body_bytes_per_organization: 0,
            unread_bytes_per_organization: 0,
            unauthenticated_bytes: 0,
            unauthenticated_connections: 0,
            ws_frame_bytes: 0,
            connections: 0,
            connections_per_organization: 0,
            connections_per_user: 0,
            connections_per_address: 0,
            publish_per_second: 0,
            publish_per_second_per_organization: 0,
            requests_per_second_per_organization: 0,
            bytes_per_organization: 0,
            rows_per_organization: 0,
        },
        log: Log { level: LogLevel::Info, format: LogFormat::Auto },
    }
}

#[cfg(test)]
mod tests;
