//! The registry of every key that the store writes: ordinals, lengths and order.
//!
//! * A key is `kind u8 ‖ tenant u64 BE ‖ tail`. Rows that belong to no tenant have tenant 0, which is never
//!   assigned.
//! * Numbers are big endian, so keys sort by tenant, sequence and ordinal.
//! * Ordinals are stable: a retired one is never used again.
//! * Keys do not know what their values mean. Every value starts with a version byte, except the layout row.

use crate::ids::{Sequence, TenantId};

/// Declares an enum whose ordinals are on disk, with a list of all members in the order of ordinals. The
/// compiler refuses an ordinal that is used twice.
macro_rules! ordinals {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$member_doc:meta])* $member:ident = $ordinal:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        $vis enum $name { $($(#[$member_doc])* $member = $ordinal,)+ }

        impl $name {
            /// Every member, in the order of ordinals.
            $vis const ALL: &[$name] = &[$($name::$member,)+];

            /// The member with an ordinal.
            #[allow(dead_code, reason = "not every enum is read back from its ordinal")]
            $vis fn from_ordinal(ordinal: u8) -> Option<$name> {
                $name::ALL.iter().copied().find(|member| *member as u8 == ordinal)
            }
        }
    };
}

ordinals! {
    /// The kind of a row.
    pub(crate) enum KeyKind {
        /// A row of the store itself; tail: [`MetaKey`] ordinal, 1 byte.
        Meta = 0,
        /// The location of packed events in the journal; tail: first sequence, 8 bytes.
        Log = 1,
        /// A tenant's counters; no tail.
        Counters = 2,
        /// An organization; no tail.
        Organization = 3,
        /// An API key; tail: key id.
        ApiKey = 4,
        /// A revoked token; tail: `jti`.
        Revoked = 5,
        /// A disabled user; tail: `sub`.
        DisabledUser = 6,
        /// An `Idempotency-Key`; tail: its digest, 32 bytes.
        Idempotency = 7,
        /// A client-given `message_id`; tail: digest of user and id, 32 bytes.
        MessageId = 8,
        /// An entry of an expiry lane, in the order of creation; tail: lane u8, ordinal u64.
        Expiry = 9,
        /// A tenant whose rows are being erased; no tail.
        Erase = 10,
        /// Opaque bytes under a name; tail: the name.
        Secret = 11,
        /// A resource; tail: table u8, id.
        Row = 12,
        /// A list index entry; tail: list u8, digest of the group 16 bytes, number u64, id.
        ListEntry = 13,
        /// A posting of the search index; tail: list u8, the rest belongs to the search index.
        Term = 14,
        /// The time from which a user's tokens are valid; tail: `sub`.
        UserSince = 15,
        /// A user whose events are being erased; tail: `sub`.
        EraseUser = 16,
        /// A run: several list index entries of one group; tail: as [`KeyKind::ListEntry`], of the entry that it
        /// started with.
        ListRun = 17,
        /// The usage of a tenant besides its log; no tail.
        Usage = 18,
        /// The live counts of a segment of the journal; tail: the segment's first position, 8 bytes.
        Segment = 19,
        /// What an open stream needs after a restart; tail: its `request_id`.
        OpenStream = 20,
        /// A segment of a stream's text; tail: digest of the `request_id` 16 bytes, number u32.
        StreamText = 21,
        /// The sequence up to which a tenant's log holds no chunk that an open stream still needs; no tail.
        StreamFloor = 22,
        /// When a part of an ended stream expires, under tenant 0; tail: time u64 in Unix milliseconds, tenant
        /// u64, `request_id`.
        StreamExpiry = 23,
    }
}

ordinals! {
    /// A table of resources: the first byte in the tail of a [`KeyKind::Row`].
    pub enum Table {
        /// Agents, by id.
        Agents = 0,
        /// Messages, by id.
        Messages = 1,
        /// Tools, by id.
        Tools = 2,
        /// Users, by id. Under tenant 0: deleted users whose data is still being erased.
        Users = 5,
        /// The user of each email, by email.
        Emails = 6,
        /// Blocks of core memory, by agent, user and label.
        CoreMemory = 7,
        /// Streams, by `request_id`.
        Streams = 8,
        /// Memories, by id.
        Memories = 16,
        /// Earlier versions of memories, by memory and version.
        MemoryVersions = 17,
    }
}

ordinals! {
    /// A list that rows are in: the first byte in the tail of a [`KeyKind::ListEntry`], a [`KeyKind::ListRun`] and a
    /// [`KeyKind::Term`].
    pub enum List {
        /// Every agent.
        AllAgents = 0,
        /// Every message.
        AllMessages = 1,
        /// Messages of an agent.
        MessagesOfAgent = 2,
        /// Messages of a user.
        MessagesOfUser = 3,
        /// Messages of an agent and a user.
        MessagesOfAgentAndUser = 4,
        /// Every tool.
        AllTools = 5,
        /// Tools with a tag.
        ToolsWithTag = 6,
        /// Every stream.
        AllStreams = 7,
        /// Streams of an agent.
        StreamsOfAgent = 8,
        /// Streams of a user.
        StreamsOfUser = 9,
        /// Streams in a state.
        StreamsInState = 10,
        /// Every user.
        AllUsers = 15,
        /// Blocks of core memory of an agent, or of an agent and a user.
        CoreMemoryOfAgent = 16,
        /// Blocks of core memory of a user.
        CoreMemoryOfUser = 17,
        /// Deleted users whose data is still being erased.
        UserErasures = 18,
        /// Every memory, and their postings.
        AllMemories = 32,
        /// Memories of an agent, and their postings.
        MemoriesOfAgent = 33,
        /// Memories of a user, and their postings.
        MemoriesOfUser = 34,
        /// Memories of an agent and a user, and their postings.
        MemoriesOfAgentAndUser = 35,
        /// Versions of a memory.
        VersionsOfMemory = 36,
    }
}

ordinals! {
    /// A lane of rows that expire: the first byte in the tail of a [`KeyKind::Expiry`].
    pub(crate) enum ExpiryLane {
        /// The lane of [`KeyKind::Idempotency`].
        Idempotency = 0,
        /// The lane of [`KeyKind::MessageId`].
        MessageId = 1,
    }
}

/// The allowed length of the tail of a kind's key, in bytes: minimum and maximum.
pub(crate) const fn tail_len(kind: KeyKind) -> (usize, usize) {
    match kind {
        KeyKind::Meta => (1, 1),
        KeyKind::Log | KeyKind::Segment => (8, 8),
        KeyKind::Counters
        | KeyKind::Organization
        | KeyKind::Erase
        | KeyKind::Usage
        | KeyKind::StreamFloor => (0, 0),
        KeyKind::ApiKey
        | KeyKind::Revoked
        | KeyKind::DisabledUser
        | KeyKind::UserSince
        | KeyKind::EraseUser
        | KeyKind::OpenStream => (1, MAX_NAME),
        KeyKind::StreamText => (16 + 4, 16 + 4),
        KeyKind::StreamExpiry => (8 + 8 + 1, 8 + 8 + MAX_NAME),
        KeyKind::Idempotency | KeyKind::MessageId => (32, 32),
        KeyKind::Expiry => (9, 9),
        KeyKind::Secret => (1, 64),
        KeyKind::Row => (1 + 1, 1 + MAX_NAME),
        KeyKind::ListEntry | KeyKind::ListRun => (1 + 16 + 8 + 1, 1 + 16 + 8 + MAX_NAME),
        KeyKind::Term => (1 + 1, 1 + MAX_NAME),
    }
}

impl KeyKind {
    /// The kinds of rows that are erased with a tenant, the log first. Its organization row stays, marked
    /// deleted, so that its number is never assigned again.
    pub(crate) const OF_TENANT: [KeyKind; 18] = [
        KeyKind::Log,
        KeyKind::ApiKey,
        KeyKind::Revoked,
        KeyKind::DisabledUser,
        KeyKind::Idempotency,
        KeyKind::MessageId,
        KeyKind::Expiry,
        KeyKind::Row,
        KeyKind::ListEntry,
        KeyKind::ListRun,
        KeyKind::Term,
        KeyKind::UserSince,
        KeyKind::EraseUser,
        KeyKind::OpenStream,
        KeyKind::StreamText,
        KeyKind::StreamFloor,
        KeyKind::Usage,
        KeyKind::Counters,
    ];
}

/// Bytes before the tail.
pub(crate) const HEAD: usize = 9;
/// Longest `jti`, `sub` or key id, in bytes. Ids are at most 256 bytes, see [`crate::event::ID_BYTES`].
pub(crate) const MAX_NAME: usize = 256;

ordinals! {
    /// The rows of [`KeyKind::Meta`].
    pub(crate) enum MetaKey {
        /// The layout of all other rows.
        Schema = 0,
        /// Store id and cursor key.
        Identity = 1,
        /// The running epoch.
        Epoch = 2,
        /// The version of the scopes that API keys are stored with. `auth` defines its meaning.
        Scopes = 3,
        /// The version of the code that counted the rows of all tenants.
        Usage = 4,
        /// The position of the state in the journal.
        Position = 5,
        /// The id of the journal that the state belongs to.
        Journal = 6,
    }
}

/// A stored key that this version does not know: it is damaged, or a newer version wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key is not one of this version")]
pub(crate) struct BadKey;

/// Builds `kind ‖ tenant ‖ tail`.
pub(crate) fn key(kind: KeyKind, tenant: TenantId, tail: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD + tail.len());
    begin(&mut key, kind, tenant);
    key.extend_from_slice(tail);
    key
}

/// Writes the head of a key into an empty buffer. The caller appends the tail.
pub(crate) fn begin(key: &mut Vec<u8>, kind: KeyKind, tenant: TenantId) {
    key.push(kind as u8);
    key.extend_from_slice(&tenant.0.to_be_bytes());
}

/// The kind of a key.
pub(crate) fn kind_of(key: &[u8]) -> Option<KeyKind> {
    KeyKind::from_ordinal(*key.first()?)
}

/// The first key of a kind, and the first key after all of its keys.
pub(crate) fn kind_range(kind: KeyKind) -> ([u8; 1], [u8; 1]) {
    ([kind as u8], [kind as u8 + 1])
}

/// Returns true if the key is that of a row of a table.
pub(crate) fn is_row(key: &[u8]) -> bool {
    key.first() == Some(&(KeyKind::Row as u8))
}

/// The key of a row of the store itself.
pub(crate) fn meta(row: MetaKey) -> Vec<u8> {
    key(KeyKind::Meta, TenantId(0), &[row as u8])
}

/// The key of the piece whose first event is `first`.
pub(crate) fn log(tenant: TenantId, first: Sequence) -> Vec<u8> {
    key(KeyKind::Log, tenant, &first.0.to_be_bytes())
}

/// The key of entry `ordinal` of an expiry lane.
pub(crate) fn expiry(tenant: TenantId, lane: u8, ordinal: u64) -> Vec<u8> {
    let mut tail = [lane; 9];
    tail[1..].copy_from_slice(&ordinal.to_be_bytes());
    key(KeyKind::Expiry, tenant, &tail)
}

/// The first key after every row of `kind` and `tenant`.
pub(crate) fn after(kind: KeyKind, tenant: TenantId) -> Vec<u8> {
    match tenant.0.checked_add(1) {
        Some(next) => key(kind, TenantId(next), &[]),
        None => vec![kind as u8 + 1],
    }
}

/// The first key tail after all that start with `prefix`.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; MAX_NAME] // only if a list's number and digest are all ones
}

/// Parses a key.
///
/// # Errors
/// [`BadKey`] for an unknown kind, or a tail whose length does not fit the kind.
pub(crate) fn parse(key: &[u8]) -> Result<(KeyKind, TenantId, &[u8]), BadKey> {
    let (head, tail) = key.split_at_checked(HEAD).ok_or(BadKey)?;
    let kind = KeyKind::from_ordinal(head[0]).ok_or(BadKey)?;
    let tenant = u64::from_be_bytes(head[1..].try_into().map_err(|_| BadKey)?);
    let (least, most) = tail_len(kind);
    if tail.len() < least || tail.len() > most {
        return Err(BadKey);
    }
    Ok((kind, TenantId(tenant), tail))
}

/// The tenant of a key.
pub(crate) fn tenant(key: &[u8]) -> Option<TenantId> {
    key.get(1..)?.first_chunk().map(|tenant| TenantId(u64::from_be_bytes(*tenant)))
}

/// Tenant and first sequence of a log key.
pub(crate) fn parse_log(key: &[u8]) -> Result<(TenantId, Sequence), BadKey> {
    match parse(key)? {
        (KeyKind::Log, tenant, tail) => {
            Ok((tenant, Sequence(u64::from_be_bytes(tail.try_into().map_err(|_| BadKey)?))))
        }
        _ => Err(BadKey),
    }
}

/// Tenant, lane and ordinal of an expiry key.
pub(crate) fn parse_expiry(key: &[u8]) -> Result<(TenantId, u8, u64), BadKey> {
    match parse(key)? {
        (KeyKind::Expiry, tenant, tail) => {
            Ok((tenant, tail[0], u64::from_be_bytes(tail[1..].try_into().map_err(|_| BadKey)?)))
        }
        _ => Err(BadKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a changed ordinal, old data directories would be read wrongly. So each is repeated here.
    #[test]
    fn ordinals_are_stable() {
        let kinds: Vec<u8> = KeyKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(kinds, (0..24).collect::<Vec<u8>>());
        let rows: Vec<u8> = MetaKey::ALL.iter().map(|row| *row as u8).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6]);
        let tables: Vec<u8> = Table::ALL.iter().map(|table| *table as u8).collect();
        assert_eq!(tables, [0, 1, 2, 5, 6, 7, 8, 16, 17]);
        let lists: Vec<u8> = List::ALL.iter().map(|list| *list as u8).collect();
        assert_eq!(lists, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18, 32, 33, 34, 35, 36]);
        assert_eq!([ExpiryLane::Idempotency as u8, ExpiryLane::MessageId as u8], [0, 1]);
        for kind in KeyKind::ALL {
            assert_eq!(KeyKind::from_ordinal(*kind as u8), Some(*kind));
        }
    }

    #[test]
    fn every_kind_round_trips_and_refuses_other_lengths() {
        for kind in KeyKind::ALL.iter().copied() {
            let (least, most) = tail_len(kind);
            for len in [least, most] {
                let tail = vec![7; len];
                let written = key(kind, TenantId(0x0102_0304_0506_0708), &tail);
                assert_eq!(written[1..HEAD], [1, 2, 3, 4, 5, 6, 7, 8]);
                assert_eq!(
                    parse(&written),
                    Ok((kind, TenantId(0x0102_0304_0506_0708), tail.as_slice())),
                    "{kind:?}"
                );
            }
            assert_eq!(parse(&key(kind, TenantId(1), &vec![0; most + 1])), Err(BadKey), "{kind:?}");
            if least > 0 {
                assert_eq!(parse(&key(kind, TenantId(1), &vec![0; least - 1])), Err(BadKey), "{kind:?}");
            }
        }
        assert_eq!(parse(&[0; 8]), Err(BadKey));
        assert_eq!(parse(&[200; 9]), Err(BadKey));
    }

    #[test]
    fn log_and_expiry_keys_sort_as_their_numbers() {
        let mut logs: Vec<_> = [0, 1, 255, 256, u64::MAX].map(|s| log(TenantId(3), Sequence(s))).to_vec();
        assert!(logs.is_sorted());
        assert_eq!(parse_log(&logs[3]), Ok((TenantId(3), Sequence(256))));
        logs.push(after(KeyKind::Log, TenantId(3)));
        assert!(logs.is_sorted());
        assert!(after(KeyKind::Log, TenantId(u64::MAX)) > log(TenantId(u64::MAX), Sequence(u64::MAX)));
        assert!(expiry(TenantId(3), 0, u64::MAX) < expiry(TenantId(3), 1, 0));
        assert_eq!(parse_expiry(&expiry(TenantId(3), 1, 9)), Ok((TenantId(3), 1, 9)));
        assert_eq!(parse_log(&expiry(TenantId(3), 1, 9)), Err(BadKey));
        assert_eq!(parse_expiry(&logs[0]), Err(BadKey));
    }
}
