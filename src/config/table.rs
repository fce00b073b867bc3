//! The table of keys. It is the only place that declares a key's name, field in [`super::Config`], range,
//! default, unit, memory cost and text. The rows of `limits.*` are in `limits.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::key::{Key, KeyType};
use super::limits::{KIB, LIMITS, MIB};
use super::values::{Durability, FanoutSubmission, LogFormat, LogLevel};

const GIB: usize = 1 << 30;
const YEAR_SECONDS: u64 = 366 * 24 * 3600;

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Every key, in the order of the documentation.
pub static KEYS: &[Key] = &join::<{ GENERAL.len() + LIMITS.len() + LOG.len() }>([GENERAL, LIMITS, LOG]);

impl Key {
    /// Finds the key with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }
}

const fn join<const N: usize>(parts: [&[Key]; 3]) -> [Key; N] {
    let mut joined = [GENERAL[0]; N];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            joined[at] = parts[part][row];
            (row, at) = (row + 1, at + 1);
        }
        part += 1;
    }
    joined
}

const GENERAL: &[Key] = &[
    Key {
        name: "listen",
        kind: KeyType::Listens { at: |c| &mut c.listen, default: local(8080) },
        unit: "address",
        memory: "",
        text: "Addresses for clients: `addr:port` (IPv4, or IPv6 in brackets), `name:port` (every address of the name) or `unix:/path`, one or several. Port 0 lets the kernel choose. An inherited socket (systemd) replaces them.",
    },
    Key {
        name: "admin_listen",
        kind: KeyType::Listen { at: |c| &mut c.admin_listen, default: local(8081) },
        unit: "address",
        memory: "",
        text: "Address of `/metrics`, probes and operator endpoints; `\"off\"` for none. Keep it off public networks.",
    },
    Key {
        name: "data_dir",
        kind: KeyType::Path { at: |c| &mut c.data_dir, default: "./nervewire-data" },
        unit: "path",
        memory: "",
        text: "Directory of the store and of generated keys, created at the first start with mode 0700. Relative to the working directory. Only one daemon may use it at a time.",
    },
    Key {
        name: "worker_threads",
        kind: KeyType::Size {
            at: |c| &mut c.worker_threads,
            default: 0,
            min: 1,
            max: 64,
            zero: Some("one per core"),
        },
        unit: "threads",
        memory: "a stack, scratch buffers and an index each",
        text: "Threads that own connections.",
    },
    Key {
        name: "fanout_submission",
        kind: KeyType::Word {
            words: FanoutSubmission::WORDS,
            default: "io_uring",
            get: |c| c.fanout_submission.word(),
            set: |c, word| word.parse().map(|value| c.fanout_submission = value).is_ok(),
        },
        unit: "",
        memory: "a ring of 64 entries per worker with `io_uring`",
        text: "How live events are written: up to 64 connections by one system call (`io_uring`), or one each (`send`). If the kernel or a sandbox refuses io_uring, the daemon uses `send` and logs it.",
    },
    Key {
        name: "heartbeat_seconds",
        kind: KeyType::Int { at: |c| &mut c.heartbeat_seconds, default: 30, min: 1, max: 3_600, zero: None },
        unit: "seconds",
        memory: "",
        text: "Interval between two pings on a WebSocket, spread over the connections. A peer that is silent for two intervals is closed with 4440.",
    },
    Key {
        name: "sse_keepalive_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.sse_keepalive_seconds,
            default: 15,
            min: 1,
            max: 3_600,
            zero: None,
        },
        unit: "seconds",
        memory: "",
        text: "Interval between two keep-alives on an SSE stream. Keep it below the idle timeout of the proxies in front.",
    },
    Key {
        name: "header_timeout_ms",
        kind: KeyType::Int {
            at: |c| &mut c.header_timeout_ms,
            default: 10_000,
            min: 50,
            max: 600_000,
            zero: None,
        },
        unit: "milliseconds",
        memory: "",
        text: "Time for a request head, from the start of the connection. Then the connection is closed.",
    },
    Key {
        name: "body_timeout_ms",
        kind: KeyType::Int {
            at: |c| &mut c.body_timeout_ms,
            default: 30_000,
            min: 50,
            max: 3_600_000,
            zero: None,
        },
        unit: "milliseconds",
        memory: "",
        text: "How long a request body may stall. Then the request fails and its connection ends.",
    },
    Key {
        name: "request_timeout_ms",
        kind: KeyType::Int {
            at: |c| &mut c.request_timeout_ms,
            default: 30_000,
            min: 50,
            max: 3_600_000,
            zero: None,
        },
        unit: "milliseconds",
        memory: "",
        text: "Time for a whole request body or WebSocket message to arrive, plus the time that `min_bytes_per_second` adds. Then a request gets 408 and a WebSocket 4408.",
    },
    Key {
        name: "min_bytes_per_second",
        kind: KeyType::Int {
            at: |c| &mut c.min_bytes_per_second,
            default: 4_096,
            min: 1,
            max: 1 << 30,
            zero: None,
        },
        unit: "bytes per second",
        memory: "",
        text: "Each time this many bytes of a request body or message have arrived, `request_timeout_ms` is extended by a second. So a client that keeps this rate never times out.",
    },
    Key {
        name: "write_timeout_ms",
        kind: KeyType::Int {
            at: |c| &mut c.write_timeout_ms,
            default: 60_000,
            min: 100,
            max: 3_600_000,
            zero: None,
        },
        unit: "milliseconds",
        memory: "",
        text: "How long a WebSocket, an event stream or a response may go without write progress while bytes wait. Then it is closed with 4408, or its connection or HTTP/2 stream ends. A slow reader makes progress and stays connected.",
    },
    Key {
        name: "idle_timeout_ms",
        kind: KeyType::Int {
            at: |c| &mut c.idle_timeout_ms,
            default: 75_000,
            min: 50,
            max: 3_600_000,
            zero: None,
        },
        unit: "milliseconds",
        memory: "",
        text: "How long an HTTP connection may stay open without a request; HTTP/2 gets a GOAWAY. Keep it above the idle timeout of the proxies in front. A WebSocket or event stream counts as an open request.",
    },
    Key {
        name: "connection_age_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.connection_age_seconds,
            default: 3_600,
            min: 1,
            max: 30 * 24 * 3_600,
            zero: Some("no limit"),
        },
        unit: "seconds",
        memory: "",
        text: "How long an HTTP connection accepts new requests. Then it ends when its open requests are done, event streams over HTTP/2 included (GOAWAY). WebSockets and HTTP/1 event streams are not affected.",
    },
    Key {
        name: "drain_seconds",
        kind: KeyType::Int { at: |c| &mut c.drain_seconds, default: 10, min: 0, max: 3_600, zero: None },
        unit: "seconds",
        memory: "",
        text: "Time over which a stopping daemon spreads the closing of its connections, so that they do not all reconnect at once.",
    },
    Key {
        name: "presence_grace_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.presence_grace_seconds,
            default: 10,
            min: 0,
            max: 3_600,
            zero: None,
        },
        unit: "seconds",
        memory: "",
        text: "How long a user without a connection still counts as present, in organizations with presence switched on.",
    },
    Key {
        name: "allowed_origins",
        kind: KeyType::WebOrigins { at: |c| &mut c.allowed_origins },
        unit: "origins",
        memory: "",
        text: "Browser origins (`https://app.example`) that may use WebSocket, CORS and cookies, besides the daemon's own origin. Empty: only its own and localhost.",
    },
    Key {
        name: "token_in_query",
        kind: KeyType::Bool { at: |c| &mut c.token_in_query, default: true },
        unit: "",
        memory: "",
        text: "Whether `?token=` is accepted as a credential. Proxies log URLs, so switch it off if your clients can use headers, tickets or the cookie.",
    },
    Key {
        name: "trusted_proxies",
        kind: KeyType::Proxies { at: |c| &mut c.trusted_proxies },
        unit: "addresses, networks or `unix`",
        memory: "",
        text: "Proxies in front of the daemon: `192.0.2.1`, `10.0.0.0/8`, or `unix` for all peers of a unix socket. `X-Forwarded-For`, `Forwarded` or PROXY protocol v2 is trusted only from them to name the client, which the limits per address count; see [behind a proxy](operations.md#behind-a-proxy).",
    },
    Key {
        name: "auth.failures_per_minute",
        kind: KeyType::Int {
            at: |c| &mut c.auth.failures_per_minute,
            default: 60,
            min: 1,
            max: 1_000_000,
            zero: Some("off"),
        },
        unit: "per minute and address",
        memory: "",
        text: "Failed credentials allowed to one address (IPv6: one /64); further failures get 429, and valid credentials are always accepted. The same number of wrong passwords is allowed separately; further passwords from the address are not verified and get 429.",
    },
    Key {
        name: "auth.max_token_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.auth.max_token_seconds,
            default: 30 * 24 * 3600,
            min: 60,
            max: 10 * YEAR_SECONDS,
            zero: None,
        },
        unit: "seconds",
        memory: "",
        text: "How long after its `iat` a JWT of `auth.jwt_keys` is valid at most, whatever its `exp` says. A JWT without `iat` is refused if its `exp` is further away than this.",
    },
    Key {
        name: "auth.jwt_keys",
        kind: KeyType::JwtKeys,
        unit: "keys",
        memory: "",
        text: "Keys that verify the JWTs of other issuers, see [below](#authjwt_keys). Without any, only the daemon's own HS256 key in `data_dir` is used.",
    },
    Key {
        name: "retention.max_age_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.retention.max_age_seconds,
            default: 7 * 24 * 3600,
            min: 1,
            max: 100 * YEAR_SECONDS,
            zero: Some("no limit by age"),
        },
        unit: "seconds",
        memory: "",
        text: "How long an organization's events are kept at least. Whole stored values are removed, so up to one value more stays.",
    },
    Key {
        name: "retention.max_events",
        kind: KeyType::Int {
            at: |c| &mut c.retention.max_events,
            default: 0,
            min: 1,
            max: 1 << 40,
            zero: Some("no limit by count"),
        },
        unit: "events",
        memory: "",
        text: "How many events of an organization are kept at least.",
    },
    Key {
        name: "retention.max_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.retention.max_bytes,
            default: GIB as u64,
            min: 128 * KIB as u64,
            max: 1 << 50,
            zero: Some("no limit by bytes"),
        },
        unit: "bytes",
        memory: "",
        text: "How many bytes of stored values an organization may keep. On disk it takes two to three times as much.",
    },
    Key {
        name: "streams.keep_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.streams.keep_seconds,
            default: 86_400,
            min: 1,
            max: 10 * YEAR_SECONDS,
            zero: None,
        },
        unit: "seconds",
        memory: "",
        text: "How long the text of an ended stream is kept. Its state is kept ten times as long.",
    },
    Key {
        name: "streams.open",
        kind: KeyType::Size {
            at: |c| &mut c.streams.open,
            default: 100_000,
            min: 1,
            max: 1 << 24,
            zero: None,
        },
        unit: "streams",
        memory: "at most 1 KiB for an idle stream, and up to 16 KiB of newest text for one that grows",
        text: "Number of open streams of all organizations. Opening more is refused with 429.",
    },
    Key {
        name: "streams.open_per_organization",
        kind: KeyType::Size {
            at: |c| &mut c.streams.open_per_organization,
            default: 10_000,
            min: 1,
            max: 1 << 24,
            zero: None,
        },
        unit: "streams",
        memory: "as `streams.open`",
        text: "Number of open streams of one organization. Opening more is refused with 429.",
    },
    Key {
        name: "streams.bytes",
        kind: KeyType::Int {
            at: |c| &mut c.streams.bytes,
            default: 8 * MIB as u64,
            min: KIB as u64,
            max: 1 << 32,
            zero: None,
        },
        unit: "bytes",
        memory: "",
        text: "Size of one stream's text. A chunk that would exceed it is refused with 413, and the stream stays open.",
    },
    Key {
        name: "streams.unknown_wait_seconds",
        kind: KeyType::Int {
            at: |c| &mut c.streams.unknown_wait_seconds,
            default: 60,
            min: 1,
            max: 3_600,
            zero: None,
        },
        unit: "seconds",
        memory: "",
        text: "How long a reader waits for a stream that does not exist yet. Then its connection is closed.",
    },
    Key {
        name: "store.cache_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.store.cache_bytes,
            default: 64 * MIB as u64,
            min: MIB as u64,
            max: 1 << 40,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, once the log has grown",
        text: "Page cache of the storage engine, for rows. Another 32 MiB cache events that were decoded for readers, a quarter of it as JSON for `GET /api/v1/events`, the rest as frames. Replay is served from the rings first.",
    },
    Key {
        name: "store.row_cache_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.store.row_cache_bytes,
            default: 0,
            min: MIB as u64,
            max: 1 << 40,
            zero: Some("a sixteenth of the memory it may use, at least 32 MiB"),
        },
        unit: "bytes",
        memory: "itself, once as many rows of resources were written or read",
        text: "The latest resource rows, kept in memory. A page of cached rows costs the same in a large organization as in a small one.",
    },
    Key {
        name: "store.segment_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.store.segment_bytes,
            default: 64 * MIB as u64,
            min: MIB as u64,
            max: 1 << 30,
            zero: None,
        },
        unit: "bytes of disk",
        memory: "",
        text: "Size of a segment of the journal; at most a 64th of the file system. Disk space is freed in whole segments.",
    },
    Key {
        name: "store.reserve_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.store.reserve_bytes,
            default: 256 * MIB as u64,
            min: MIB as u64,
            max: 1 << 50,
            zero: None,
        },
        unit: "bytes of disk",
        memory: "",
        text: "Free disk space below which publishing gets 503, because the store must never fill the disk.",
    },
    Key {
        name: "store.max_live_bytes",
        kind: KeyType::Int {
            at: |c| &mut c.store.max_live_bytes,
            default: 0,
            min: MIB as u64,
            max: 1 << 50,
            zero: Some("a sixth of the file system"),
        },
        unit: "bytes of disk",
        memory: "",
        text: "Live data of all organizations, events and resources. Above it, events of the organizations that store the most are trimmed, but never those of one that stores no more than an equal share. From half of it on, organizations over their share cannot add resources. The file may take three times as much; only `nervewire compact` shrinks it.",
    },
    Key {
        name: "store.durability",
        kind: KeyType::Word {
            words: Durability::WORDS,
            default: "fsync",
            get: |c| c.store.durability.word(),
            set: |c, word| word.parse().map(|value| c.store.durability = value).is_ok(),
        },
        unit: "",
        memory: "",
        text: "What an acknowledgement means: `fsync` survives power loss; `memory` is lost with the process and is for tests.",
    },
];

const LOG: &[Key] = &[
    Key {
        name: "log.level",
        kind: KeyType::Word {
            words: LogLevel::WORDS,
            default: "info",
            get: |c| c.log.level.word(),
            set: |c, word| word.parse().map(|value| c.log.level = value).is_ok(),
        },
        unit: "",
        memory: "",
        text: "The least severe level that is written to standard error. `NERVEWIRE_LOG`, a filter by module, overrides it.",
    },
    Key {
        name: "log.format",
        kind: KeyType::Word {
            words: LogFormat::WORDS,
            default: "auto",
            get: |c| c.log.format.word(),
            set: |c, word| word.parse().map(|value| c.log.format = value).is_ok(),
        },
        unit: "",
        memory: "",
        text: "`auto` is `human` on a terminal and `json` otherwise.",
    },
];
