//! The `limits.*` rows of the key table: limits of memory, sizes, connections and rates.

use super::key::{Key, Kind};
use super::table::{KIB, MIB};

/// Largest allowed event. Its encoded form and its key must fit one stored value of 64 KiB
/// (docs/architecture.md, store).
pub(super) const EVENT_BYTES_MAX: usize = 64 * KIB;
/// Events of the largest atomic batch (protocol §8). All of them must fit under the limit of uncommitted
/// events at once.
pub(super) const BATCH_EVENTS_MAX: usize = 1_000;

/// Every key of `limits.*`, in the order of the documentation.
pub(super) const LIMITS: &[Key] = &[
    Key {
        name: "limits.ring_slots",
        kind: Kind::Size {
            at: |c| &mut c.limits.ring_slots,
            default: 65_536,
            min: 1_024,
            max: 1 << 24,
            zero: None,
        },
        unit: "events, a power of two",
        memory: "8 bytes a slot and active organization at its largest; a ring starts with 64 slots and goes when quiet",
        text: "The newest events of an organization that are served without reading the log.",
    },
    Key {
        name: "limits.ring_bytes_per_tenant",
        kind: Kind::Size {
            at: |c| &mut c.limits.ring_bytes_per_tenant,
            default: 64 * MIB,
            min: 2 * MIB,
            max: 1 << 40,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, for an organization that publishes that much",
        text: "Encoded events one ring holds; beyond it the oldest committed ones are read from the log.",
    },
    Key {
        name: "limits.ring_bytes_total",
        kind: Kind::Size {
            at: |c| &mut c.limits.ring_bytes_total,
            default: 512 * MIB,
            min: 2 * MIB,
            max: 1 << 42,
            zero: None,
        },
        unit: "bytes",
        memory: "itself: the bound over all organizations",
        text: "Encoded events all rings together hold. Above it a ring that holds more than half of an equal part gives up half of its own; smaller ones stay.",
    },
    Key {
        name: "limits.uncommitted_events",
        kind: Kind::Size {
            at: |c| &mut c.limits.uncommitted_events,
            default: 16_384,
            min: BATCH_EVENTS_MAX,
            max: 16_384,
            zero: None,
        },
        unit: "events",
        memory: "",
        text: "Events of one organization accepted and not yet on disk, each counted as 512 bytes at least. A publish over it waits up to a second, then gets 503.",
    },
    Key {
        name: "limits.unsent_bytes",
        kind: Kind::Size {
            at: |c| &mut c.limits.unsent_bytes,
            default: 32 * KIB,
            min: KIB,
            max: 16 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "kernel memory, about five times itself for a connection that does not read",
        text: "Bytes a socket takes before it counts as blocked (`TCP_NOTSENT_LOWAT`).",
    },
    Key {
        name: "limits.event_bytes",
        kind: Kind::Size {
            at: |c| &mut c.limits.event_bytes,
            default: EVENT_BYTES_MAX,
            min: KIB,
            max: EVENT_BYTES_MAX,
            zero: None,
        },
        unit: "bytes",
        memory: "",
        text: "One event's JSON; a larger one is refused with 413.",
    },
    Key {
        name: "limits.body_bytes",
        kind: Kind::Size {
            at: |c| &mut c.limits.body_bytes,
            default: 4 * MIB,
            min: KIB,
            max: 64 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each request in flight",
        text: "A request body; a larger one is refused with 413.",
    },
    Key {
        name: "limits.body_bytes_per_organization",
        kind: Kind::Size {
            at: |c| &mut c.limits.body_bytes_per_organization,
            default: 64 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each organization whose clients hold back the ends of what they send",
        text: "Request bodies and WebSocket messages of one organization that have come in part, beside the first 4 KiB of each; further ones get 429 or 1013.",
    },
    Key {
        name: "limits.unread_bytes_per_organization",
        kind: Kind::Size {
            at: |c| &mut c.limits.unread_bytes_per_organization,
            default: 64 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, up to three times, for each organization whose clients do not read",
        text: "Answers of one organization that wait to be read, and as many bytes again of HTTP/2 event streams; of each answer and stream 4 KiB are free. Further large answers to reads get 429, to writes at twice as much; event streams go on in small pieces.",
    },
    Key {
        name: "limits.unauthenticated_bytes",
        kind: Kind::Size {
            at: |c| &mut c.limits.unauthenticated_bytes,
            default: 8 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, twice",
        text: "The same for all peers without a valid credential together: requests whose bodies have come in part, HTTP/2 streams, and answers that wait to be read. Over it requests get 503, and streams are reset.",
    },
    Key {
        name: "limits.unauthenticated_connections",
        kind: Kind::Size {
            at: |c| &mut c.limits.unauthenticated_connections,
            default: 1_024,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "up to 64 KiB each",
        text: "Connections without a valid credential so far. One more ends the oldest of the address (IPv6: the /64) that holds most of them, so that no address takes room from others that hold less. As many again may wait for the name that a trusted proxy gives their client. Each counts for its address too (`limits.connections_per_address`).",
    },
    Key {
        name: "limits.ws_frame_bytes",
        kind: Kind::Size {
            at: |c| &mut c.limits.ws_frame_bytes,
            default: MIB,
            min: KIB,
            max: 16 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each connection in the middle of sending that much",
        text: "A message from a WebSocket client, fragments together; a larger one closes with 1009.",
    },
    Key {
        name: "limits.connections",
        kind: Kind::Size {
            at: |c| &mut c.limits.connections,
            default: 0,
            min: 1,
            max: 1 << 24,
            zero: Some("all the descriptor limit allows"),
        },
        unit: "connections",
        memory: "under 1 KiB of user memory for an idle WebSocket or SSE connection",
        text: "Connections of the process; further ones get 503. The soft descriptor limit is raised to the hard one at start.",
    },
    Key {
        name: "limits.connections_per_organization",
        kind: Kind::Size {
            at: |c| &mut c.limits.connections_per_organization,
            default: 0,
            min: 1,
            max: 1 << 24,
            zero: Some("a share where connections run short"),
        },
        unit: "connections",
        memory: "",
        text: "WebSocket and SSE connections of one organization; further ones get 429. By default an organization may hold what others leave; the last eighth of `limits.connections` is for those that hold less than an equal part of all.",
    },
    Key {
        name: "limits.connections_per_user",
        kind: Kind::Size {
            at: |c| &mut c.limits.connections_per_user,
            default: 64,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "",
        text: "The same for one user, that is a credential with a `sub`. API keys are not users.",
    },
    Key {
        name: "limits.connections_per_address",
        kind: Kind::Size {
            at: |c| &mut c.limits.connections_per_address,
            default: 1_024,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "",
        text: "The same for one peer address (IPv6: one /64), and again for its connections without a valid credential so far. Loopback and unix sockets are exempt, unless they are trusted proxies. Behind a proxy set `trusted_proxies`, or all its clients count as one address.",
    },
    Key {
        name: "limits.publish_per_second",
        kind: Kind::Int {
            at: |c| &mut c.limits.publish_per_second,
            default: 200,
            min: 1,
            max: 10_000_000,
            zero: Some("off"),
        },
        unit: "events per second and user",
        memory: "",
        text: "Publishing rate of one subject without `publish:org`, over all of its connections; twice as many at once. Over it `QUOTA_EXCEEDED` with `retry_after`.",
    },
    Key {
        name: "limits.publish_per_second_per_organization",
        kind: Kind::Int {
            at: |c| &mut c.limits.publish_per_second_per_organization,
            default: 0,
            min: 1,
            max: 100_000_000,
            zero: Some("a share, see [rates](#rates-of-an-organization)"),
        },
        unit: "events per second and organization",
        memory: "",
        text: "Publishing rate of one organization, `publish:org` included, changes of resources too; twice as many at once. Over it `QUOTA_EXCEEDED` with `retry_after`.",
    },
    Key {
        name: "limits.requests_per_second_per_organization",
        kind: Kind::Int {
            at: |c| &mut c.limits.requests_per_second_per_organization,
            default: 0,
            min: 1,
            max: 100_000_000,
            zero: Some("a share, see [rates](#rates-of-an-organization)"),
        },
        unit: "requests per second and organization",
        memory: "",
        text: "Authenticated HTTP requests of one organization, reads and new connections included; twice as many at once. Over it 429 with `Retry-After`.",
    },
    Key {
        name: "limits.bytes_per_organization",
        kind: Kind::Int {
            at: |c| &mut c.limits.bytes_per_organization,
            default: 0,
            min: MIB as u64,
            max: 1 << 50,
            zero: Some("a share of `store.max_live_bytes`, see [quotas](#quotas-of-an-organization)"),
        },
        unit: "bytes of disk",
        memory: "",
        text: "What one organization may keep: resources with their indexes, idempotency rows, events. Events are trimmed, oldest first, down to a sixteenth of it; what adds a resource is then refused with 429.",
    },
    Key {
        name: "limits.rows_per_organization",
        kind: Kind::Int {
            at: |c| &mut c.limits.rows_per_organization,
            default: 10_000_000,
            min: 1,
            max: 1 << 40,
            zero: Some("no limit"),
        },
        unit: "resources",
        memory: "",
        text: "Agents, messages, memories and their versions, core memory, tools and users of one organization; further ones are refused with 429.",
    },
];
