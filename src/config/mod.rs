//! The daemon's settings: one checked [`Config`], made once before anything binds.
//!
//! * Every key is one row of [`KEYS`] (`table.rs`): name, kind, range, default, unit, memory cost, text. Loading, printing and
//!   the tables of `docs/configuration.md` come from that row, so they cannot disagree.
//! * Strength rises file < environment < flags. A later source replaces a key whole; lists are never joined.
//! * [`Config::load`] is pure: text and pairs in, settings or *all* problems out. It opens nothing; key files are opened by `auth`.
//! * Secrets live in [`Secret`]; no `Debug`, `Display` or error text ever shows one.
//!
//! It does not know what the settings are used for, nor whether a port is free or a directory writable.

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
pub use key::{Key, Kind};
pub use listen::{ListenAddr, ListenAddrError};
pub use nearest::{levenshtein, nearest};
pub use print::{print, reference};
pub use proxies::TrustedProxies;
pub use secret::Secret;
pub use serve::ServeOptions;
pub use sources::{CLI_VARIABLES, FileText, FlagValue, Sources};
pub use table::KEYS;
pub use values::{Durability, FanoutSubmission, LogFormat, LogLevel};

/// Where each key's effective value came from, by key name; a key absent here has its default.
pub type Origins = BTreeMap<&'static str, Origin>;

/// Every setting of the daemon, checked. Field = key; units and ranges stand in [`KEYS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Threads that own connections; 0 = one per core.
    pub worker_threads: usize,
    /// How fan-out writes reach the kernel.
    pub fanout_submission: FanoutSubmission,
    /// Public listeners, at least one.
    pub listen: Vec<ListenAddr>,
    /// The admin listener; `None` when switched off (`"off"`).
    pub admin_listen: Option<ListenAddr>,
    /// Directory of the store and of generated keys; relative to the working directory.
    pub data_dir: PathBuf,
    /// Seconds between heartbeats on a WebSocket; a peer silent for two of them is closed 4440.
    pub heartbeat_seconds: u64,
    /// Seconds between keep-alives on an SSE stream.
    pub sse_keepalive_seconds: u64,
    /// Milliseconds a request head may take.
    pub header_timeout_ms: u64,
    /// Milliseconds a request body may go without a byte.
    pub body_timeout_ms: u64,
    /// Milliseconds a whole request body or WebSocket message may take, beside what `min_bytes_per_second` grants.
    pub request_timeout_ms: u64,
    /// Bytes of a body or message that extend its time by a second.
    pub min_bytes_per_second: u64,
    /// Milliseconds a socket may be blocked without write progress.
    pub write_timeout_ms: u64,
    /// Milliseconds an HTTP connection may be open without a request.
    pub idle_timeout_ms: u64,
    /// Seconds for which an HTTP connection takes new requests; 0 = no limit.
    pub connection_age_seconds: u64,
    /// Seconds over which a stopping daemon spreads its closes.
    pub drain_seconds: u64,
    /// Seconds for which a user without a connection still counts as present.
    pub presence_grace_seconds: u64,
    /// Browser origins (`https://app.example`) besides the same one; empty = the same origin and localhost.
    pub allowed_origins: Vec<String>,
    /// Whether `?token=` is a credential.
    pub token_in_query: bool,
    /// The peers whose word about a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// `auth.*`
    pub auth: Auth,
    /// `retention.*`
    pub retention: Retention,
    /// `store.*`
    pub store: Store,
    /// `limits.*`
    pub limits: Limits,
    /// `log.*`
    pub log: Log,
}

/// `auth.*`: who may speak, and how often they may fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Keys that verify JWTs of others; empty = only the daemon's own key. `kid`s are distinct, at most one is the default.
    pub jwt_keys: Vec<JwtKey>,
    /// Failed credentials per address (IPv6 /64) and minute; 0 = off.
    pub failures_per_minute: u64,
    /// Seconds after `iat` for which a token of `jwt_keys` holds at most.
    pub max_token_seconds: u64,
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
    /// Bytes of rows of resources kept in memory; 0 = a sixteenth of what this process may use.
    pub row_cache_bytes: u64,
    /// Bytes of a segment of the journal.
    pub segment_bytes: u64,
    /// Bytes of free disk under which publishing answers 503.
    pub reserve_bytes: u64,
    /// Bytes of live data over all organizations; 0 = a sixth of the file system.
    pub max_live_bytes: u64,
    /// Whether an acknowledgement waits for the disk.
    pub durability: Durability,
}

/// `limits.*`: bounds of memory, sizes, connections and rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Slots of one organization's ring at its largest; a power of two.
    pub ring_slots: usize,
    /// Bytes of frames one ring may hold.
    pub ring_bytes_per_tenant: usize,
    /// Bytes of frames all rings together may hold.
    pub ring_bytes_total: usize,
    /// Events of one organization accepted and not yet committed; at most `ring_slots`.
    pub uncommitted_events: usize,
    /// Bytes written to a socket and not yet sent (`TCP_NOTSENT_LOWAT`).
    pub unsent_bytes: usize,
    /// Bytes of one event's JSON.
    pub event_bytes: usize,
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Bytes of one organization's request bodies that are on their way.
    pub body_bytes_per_organization: usize,
    /// Bytes of one organization's answers and HTTP/2 event streams that are not read.
    pub unread_bytes_per_organization: usize,
    /// Bytes of both kinds of all peers without a valid credential.
    pub unauthenticated_bytes: usize,
    /// Sockets whose peers have not shown a valid credential; 0 = no limit.
    pub unauthenticated_connections: usize,
    /// Bytes of an inbound WebSocket message.
    pub ws_frame_bytes: usize,
    /// Connections of the process; 0 = all the descriptor limit allows.
    pub connections: usize,
    /// Connections of one organization; 0 = no limit.
    pub connections_per_organization: usize,
    /// Connections of one user (principals with a `sub`); 0 = no limit.
    pub connections_per_user: usize,
    /// Connections of one address (IPv6 /64), loopback exempt; 0 = no limit.
    pub connections_per_address: usize,
    /// Events per second and user, of principals without `publish:org`; 0 = off.
    pub publish_per_second: u64,
    /// Events per second and organization; 0 = a share.
    pub publish_per_second_per_organization: u64,
    /// Requests per second and organization; 0 = a share.
    pub requests_per_second_per_organization: u64,
    /// Bytes one organization may keep; 0 = a share of `store.max_live_bytes`.
    pub bytes_per_organization: u64,
    /// Resources one organization may keep; 0 = no limit.
    pub rows_per_organization: u64,
}

/// `log.*`: the daemon's own log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least important level written.
    pub level: LogLevel,
    /// Shape of a line.
    pub format: LogFormat,
}

impl Default for Config {
    /// Every key at the default of its row in [`KEYS`].
    fn default() -> Self {
        let mut config = blank();
        for key in KEYS {
            key.reset(&mut config);
        }
        config
    }
}

impl Config {
    /// The settings these sources make, or every problem found in them. Opens nothing.
    ///
    /// # Errors
    /// [`ConfigError`] with each unknown key, wrong type, value out of range and broken relation.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_traced(sources).map(|(config, _)| config)
    }

    /// As [`Config::load`], with the origin of each key that some source set.
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
        // Relations of values that did not all arrive would only echo the first complaint.
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

    /// How long a body or message may take of which `bytes` have come: `request_timeout_ms`, and a second for each
    /// `min_bytes_per_second`.
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

/// A config of zeros, which [`Config::default`] fills from the table; never seen outside.
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
