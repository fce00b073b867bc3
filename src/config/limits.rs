//! The `limits.*` rows of the key table: limits of memory, sizes, connections and rates.

use super::key::{Key, KeyType};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
/// Largest allowed event. Its encoded form must fit one piece (`MAX_VALUE` in `store/format/piece.rs`).
pub(super) const EVENT_BYTES_MAX: usize = 64 * KIB;
/// Events of the largest atomic batch (protocol §8). All of them must fit under the limit of uncommitted
/// events at once.
pub(super) const BATCH_EVENTS_MAX: usize = 1_000;

/// Every key of `limits.*`, in the order of the documentation.
pub(super) const LIMITS: &[Key] = &[
    Key {
        name: "limits.ring_slots",
        kind: KeyType::Size {
            at: |c| &mut c.limits.ring_slots,
            default: 65_536,
            min: 1_024,
            max: 1 << 24,
            zero: None,
        },
        unit: "events, a power of two",
        memory: "8 bytes a slot and active organization at its largest; a ring starts with 64 slots and goes when quiet",
        text: "Number of an organization's newest events that are served without reading the log.",
    },
    Key {
        name: "limits.ring_bytes_per_tenant",
        kind: KeyType::Size {
            at: |c| &mut c.limits.ring_bytes_per_tenant,
            default: 64 * MIB,
            min: 2 * MIB,
            max: 1 << 40,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, for an organization that publishes that much",
        text: "Size of the encoded events in one ring. Older committed events are read from the log.",
    },
    Key {
        name: "limits.ring_bytes_total",
        kind: KeyType::Size {
            at: |c| &mut c.limits.ring_bytes_total,
            default: 512 * MIB,
            min: 2 * MIB,
            max: 1 << 42,
            zero: None,
        },
        unit: "bytes",
        memory: "itself: the bound over all organizations",
        text: "Size of the encoded events in all rings. Above it, a ring that holds more than half of an equal share gives up half of its own; smaller rings are unchanged.",
    },
    Key {
        name: "limits.uncommitted_events",
        kind: KeyType::Size {
            at: |c| &mut c.limits.uncommitted_events,
            default: 16_384,
            min: BATCH_EVENTS_MAX,
            max: 16_384,
            zero: None,
        },
        unit: "events",
        memory: "",
        text: "Events of one organization accepted and not yet on disk, each counted as 512 bytes at least. A publish over the limit waits up to a second, then gets 503.",
    },
    Key {
        name: "limits.unsent_bytes",
        kind: KeyType::Size {
            at: |c| &mut c.limits.unsent_bytes,
            default: 32 * KIB,
            min: KIB,
            max: 16 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "kernel memory, about five times itself for a connection that does not read",
        text: "Bytes that a socket accepts before it counts as blocked (`TCP_NOTSENT_LOWAT`).",
    },
    Key {
        name: "limits.event_bytes",
        kind: KeyType::Size {
            at: |c| &mut c.limits.event_bytes,
            default: EVENT_BYTES_MAX,
            min: KIB,
            max: EVENT_BYTES_MAX,
            zero: None,
        },
        unit: "bytes",
        memory: "",
        text: "Size of one event's JSON; a larger one is refused with 413.",
    },
    Key {
        name: "limits.body_bytes",
        kind: KeyType::Size {
            at: |c| &mut c.limits.body_bytes,
            default: 4 * MIB,
            min: KIB,
            max: 64 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each request in flight",
        text: "Size of a request body; a larger one is refused with 413.",
    },
    Key {
        name: "limits.body_bytes_per_organization",
        kind: KeyType::Size {
            at: |c| &mut c.limits.body_bytes_per_organization,
            default: 64 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each organization whose clients do not finish what they send",
        text: "Incomplete request bodies and WebSocket messages of one organization, without the first 4 KiB of each; further ones get 429 or 1013.",
    },
    Key {
        name: "limits.unread_bytes_per_organization",
        kind: KeyType::Size {
            at: |c| &mut c.limits.unread_bytes_per_organization,
            default: 64 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, up to three times, for each organization whose clients do not read",
        text: "Unread responses of one organization, and the same number of bytes of HTTP/2 event streams; the first 4 KiB of each response and stream are free. Further large responses to reads get 429, to writes at twice the limit; event streams continue in small pieces.",
    },
    Key {
        name: "limits.unauthenticated_bytes",
        kind: KeyType::Size {
            at: |c| &mut c.limits.unauthenticated_bytes,
            default: 8 * MIB,
            min: KIB,
            max: 4096 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself, twice",
        text: "The same for all peers without a valid credential together: incomplete request bodies, HTTP/2 streams, and unread responses. Over the limit requests get 503, and streams are reset.",
    },
    Key {
        name: "limits.unauthenticated_connections",
        kind: KeyType::Size {
            at: |c| &mut c.limits.unauthenticated_connections,
            default: 1_024,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "up to 64 KiB each",
        text: "Connections that have not shown a valid credential yet. One more ends the oldest of the address (IPv6: the /64) that holds the most, so that no address takes room from others that hold fewer. The same number may wait for a trusted proxy to name their client. Each counts for its address too (`limits.connections_per_address`).",
    },
    Key {
        name: "limits.ws_frame_bytes",
        kind: KeyType::Size {
            at: |c| &mut c.limits.ws_frame_bytes,
            default: MIB,
            min: KIB,
            max: 16 * MIB,
            zero: None,
        },
        unit: "bytes",
        memory: "itself for each connection in the middle of sending that much",
        text: "Size of a message from a WebSocket client, all fragments together; a larger one closes with 1009.",
    },
    Key {
        name: "limits.connections",
        kind: KeyType::Size {
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
        kind: KeyType::Size {
            at: |c| &mut c.limits.connections_per_organization,
            default: 0,
            min: 1,
            max: 1 << 24,
            zero: Some("a share where connections run short"),
        },
        unit: "connections",
        memory: "",
        text: "WebSocket and SSE connections of one organization; further ones get 429. By default an organization may hold what others leave; the last eighth of `limits.connections` is for organizations that hold less than an equal share.",
    },
    Key {
        name: "limits.connections_per_user",
        kind: KeyType::Size {
            at: |c| &mut c.limits.connections_per_user,
            default: 64,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "",
        text: "The same for one user, which is a credential with a `sub`. API keys are not users.",
    },
    Key {
        name: "limits.connections_per_address",
        kind: KeyType::Size {
            at: |c| &mut c.limits.connections_per_address,
            default: 1_024,
            min: 1,
            max: 1 << 24,
            zero: Some("no limit"),
        },
        unit: "connections",
        memory: "",
        text: "The same for one peer address (IPv6: one /64), and separately for its connections without a valid credential. Loopback and unix sockets are exempt, unless they are trusted proxies. Behind a proxy set `trusted_proxies`, or all its clients count as one address.",
    },
    Key {
        name: "limits.publish_per_second",
        kind: KeyType::Int {
            at: |c| &mut c.limits.publish_per_second,
            default: 200,
            min: 1,
            max: 10_000_000,
            zero: Some("off"),
        },
        unit: "events per second and user",
        memory: "",
        text: "Publishing rate of one subject without `publish:org`, over all of its connections; bursts of twice as many. Over the limit: `QUOTA_EXCEEDED` with `retry_after`.",
    },
    Key {
        name: "limits.publish_per_second_per_organization",
        kind: KeyType::Int {
            at: |c| &mut c.limits.publish_per_second_per_organization,
            default: 0,
            min: 1,
            max: 100_000_000,
            zero: Some("a share, see [rates](#rates-of-an-organization)"),
        },
        unit: "events per second and organization",
        memory: "",
        text: "Publishing rate of one organization, including `publish:org` and changes of resources; bursts of twice as many. Over the limit: `QUOTA_EXCEEDED` with `retry_after`.",
    },
    Key {
        name: "limits.requests_per_second_per_organization",
        kind: KeyType::Int {
            at: |c| &mut c.limits.requests_per_second_per_organization,
            default: 0,
            min: 1,
            max: 100_000_000,
            zero: Some("a share, see [rates](#rates-of-an-organization)"),
        },
        unit: "requests per second and organization",
        memory: "",
        text: "Authenticated HTTP requests of one organization, including reads and new connections; bursts of twice as many. Over the limit: 429 with `Retry-After`.",
    },
    Key {
        name: "limits.bytes_per_organization",
        kind: KeyType::Int {
            at: |c| &mut c.limits.bytes_per_organization,
            default: 0,
            min: MIB as u64,
            max: 1 << 50,
            zero: Some("a share of `store.max_live_bytes`, see [quotas](#quotas-of-an-organization)"),
        },
        unit: "bytes of disk",
        memory: "",
        text: "Bytes that one organization may store: resources with their indexes, idempotency rows, events. Above it events are trimmed, oldest first, down to a sixteenth of the limit; then a request that adds a resource is refused with 429.",
    },
    Key {
        name: "limits.rows_per_organization",
        kind: KeyType::Int {
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
