//! The rows of `limits.*` in the table of keys: bounds of memory, sizes, connections and rates.

use super::key::{Key, Kind};
use super::table::{KIB, MIB};

/// The most one event may have: its encoded form has to fit one stored value of 64 KiB and its key (docs/architecture.md, store).
pub(super) const EVENT_BYTES_MAX: usize = 64 * KIB;
/// Events of the largest atomic batch (protocol §8): all of them must fit under the uncommitted limit at once.
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
        text: "Encoded events all rings together hold.",
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
            default: 16 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, twice",
        text: "The same two for all peers without a valid credential together: request heads and bodies that have come in part, and answers that wait to be read.",
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
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "",
        text: "WebSocket and SSE connections of one organization; further ones get 429.",
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
        text: "The same for one peer address (IPv6: one /64). Loopback and unix sockets are exempt, unless they are trusted proxies. Behind a proxy set `trusted_proxies`, or all its clients count as one address.",
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
        unit: "events per second and connection",
        memory: "",
        text: "Publishing rate of credentials without `publish:org`; over it `QUOTA_EXCEEDED`.",
    },
];
