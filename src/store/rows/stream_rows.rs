//! Rows of streams: what an open stream needs after a restart, segments of text, and when they expire.
//!
//! * An open stream has one [`OpenStreamRow`]. It is replaced by each checkpoint, and removed by the commit
//!   that ends the stream.
//! * Chunks after the checkpoint are in the tenant's log.
//! * What a stream shows to its readers is a row of [`Table::Streams`](crate::store::Table), which this module
//!   does not know.

use std::sync::Arc;

use super::builder::{PriorValue, Rows, TooLong};
use super::stream_text::{StreamText, take};
use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Engine, EngineError};
use crate::store::format::key_digest;
use crate::store::format::keys::{self, KeyKind};

const VERSION: u8 = 1;

/// How far a stream's text is in segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Every chunk up to this sequence is in a segment.
    pub sequence: Sequence,
    /// The index of the first chunk that is in no segment.
    pub next_index: u64,
    /// Bytes of text in segments.
    pub text_bytes: u64,
    /// Number of segments.
    pub segments: u32,
}

/// What an open stream needs after a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenStreamRow {
    /// How often the stream was opened or taken over.
    pub generation: u32,
    /// SHA-256 of the producer's token.
    pub token_digest: [u8; 32],
    /// How long the producer may be silent, in seconds.
    pub lease_seconds: u32,
    /// Whether the status of the agent follows the stream.
    pub agent_status: bool,
    /// Orders the stream in lists.
    pub number: u64,
    /// When it was opened, Unix milliseconds.
    pub opened_ms: u64,
    /// The log's position when it was opened.
    pub opened_after: Sequence,
    /// How far its text is in segments.
    pub checkpoint: Checkpoint,
    /// Who opened it.
    pub opener: Arc<str>,
    /// The agent that speaks.
    pub agent_id: Option<Arc<str>>,
    /// The user who may read it.
    pub user_id: Option<Arc<str>>,
}

impl OpenStreamRow {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        row.extend_from_slice(&self.generation.to_be_bytes());
        row.extend_from_slice(&self.token_digest);
        row.extend_from_slice(&self.lease_seconds.to_be_bytes());
        row.push(u8::from(self.agent_status));
        let Checkpoint { sequence, next_index, text_bytes, segments } = self.checkpoint;
        for number in [self.number, self.opened_ms, self.opened_after.0, sequence.0, next_index, text_bytes] {
            row.extend_from_slice(&number.to_be_bytes());
        }
        row.extend_from_slice(&segments.to_be_bytes());
        for text in [Some(&self.opener), self.agent_id.as_ref(), self.user_id.as_ref()] {
            // an id is never empty, so 0 means that there is none
            let text = text.map_or("", |text| text);
            row.extend_from_slice(&(text.len() as u32).to_be_bytes());
            row.extend_from_slice(text.as_bytes());
        }
        row
    }

    /// Reads a row; `None` if it is damaged.
    pub(crate) fn read(row: &[u8]) -> Option<OpenStreamRow> {
        let row = &mut row.strip_prefix(&[VERSION])?;
        let generation = u32::from_be_bytes(take(row)?);
        let token_digest = take(row)?;
        let lease_seconds = u32::from_be_bytes(take(row)?);
        let [agent_status] = take(row)?;
        let mut number = || take(row).map(u64::from_be_bytes);
        let (list_number, opened_ms, opened_after) = (number()?, number()?, Sequence(number()?));
        let (sequence, next_index, text_bytes) = (Sequence(number()?), number()?, number()?);
        let segments = u32::from_be_bytes(take(row)?);
        let mut text = || {
            let len = u32::from_be_bytes(take(row)?) as usize;
            let (text, rest) = row.split_at_checked(len)?;
            *row = rest;
            std::str::from_utf8(text).ok().map(Arc::<str>::from)
        };
        let (opener, agent_id, user_id) = (text()?, text()?, text()?);
        let some = |text: Arc<str>| (!text.is_empty()).then_some(text);
        row.is_empty().then_some(OpenStreamRow {
            generation,
            token_digest,
            lease_seconds,
            agent_status: agent_status == 1,
            number: list_number,
            opened_ms,
            opened_after,
            checkpoint: Checkpoint { sequence, next_index, text_bytes, segments },
            opener,
            agent_id: some(agent_id),
            user_id: some(user_id),
        })
    }
}

/// The streams that a tenant has open, and where its log is to be read for them.
#[derive(Clone, Debug, Default)]
pub struct OpenStreams {
    /// Each open stream under its `request_id`.
    pub streams: Vec<(Box<str>, OpenStreamRow)>,
    /// Up to this sequence the log holds no chunk that is in no segment.
    pub floor: Sequence,
    /// True if the tenant has streams, open or ended.
    pub has_any: bool,
}

impl OpenStreams {
    /// The position after which the log may hold chunks that are in no segment; `None` without open streams.
    #[must_use]
    pub fn log_from(&self) -> Option<Sequence> {
        let first = self.streams.iter().map(|(_, row)| row.checkpoint.sequence).min()?;
        Some(first.max(self.floor))
    }
}

/// Something of an ended stream that expires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamExpiry {
    /// When, Unix milliseconds.
    pub due_ms: u64,
    /// The organization.
    pub tenant: TenantId,
    /// The stream's `request_id`.
    pub id: String,
}

impl StreamExpiry {
    fn tail(&self) -> Vec<u8> {
        let (due, tenant) = (self.due_ms.to_be_bytes(), self.tenant.0.to_be_bytes());
        [&due[..], &tenant, self.id.as_bytes()].concat()
    }

    fn read(tail: &[u8]) -> Option<StreamExpiry> {
        let mut tail = tail;
        let (due_ms, tenant) = (take(&mut tail)?, take(&mut tail)?);
        let id = std::str::from_utf8(tail).ok()?.to_owned();
        Some(StreamExpiry {
            due_ms: u64::from_be_bytes(due_ms),
            tenant: TenantId(u64::from_be_bytes(tenant)),
            id,
        })
    }
}

/// The tail of a segment's key.
fn segment_key(id: &str, number: u32) -> [u8; 20] {
    let mut tail = [0; 20];
    tail[..16].copy_from_slice(&key_digest(&[b"stream", id.as_bytes()])[..16]);
    tail[16..].copy_from_slice(&number.to_be_bytes());
    tail
}

impl Rows {
    /// Creates or replaces the row of an open stream. `before` is what is stored now.
    ///
    /// # Errors
    /// [`TooLong`] for an id that is empty or longer than 256 bytes.
    pub fn put_open_stream(
        &mut self,
        tenant: TenantId,
        id: &str,
        row: &OpenStreamRow,
        before: PriorValue,
    ) -> Result<(), TooLong> {
        self.put(KeyKind::OpenStream, tenant, id.as_bytes(), row.write(), before)
    }

    /// Removes the row of an open stream.
    pub fn delete_open_stream(&mut self, tenant: TenantId, id: &str) {
        self.delete(KeyKind::OpenStream, tenant, id.as_bytes(), 0);
    }

    /// Stores a new segment.
    ///
    /// # Errors
    /// [`TooLong`] for a text that was not made by [`StreamText::segments`].
    pub fn put_segment(
        &mut self,
        tenant: TenantId,
        id: &str,
        number: u32,
        text: &StreamText,
    ) -> Result<(), TooLong> {
        self.put(KeyKind::StreamText, tenant, &segment_key(id, number), text.write(), PriorValue::Nothing)
    }

    /// Removes segments of a stream.
    pub fn delete_segments(&mut self, tenant: TenantId, id: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.delete(KeyKind::StreamText, tenant, &segment_key(id, number), 0);
        }
    }

    /// Stores that up to `floor` the tenant's log holds no chunk that is in no segment.
    ///
    /// # Errors
    /// Never, because the key and the row have a fixed length.
    pub fn put_stream_floor(&mut self, tenant: TenantId, floor: Sequence) -> Result<(), TooLong> {
        let row = [&[VERSION], floor.0.to_be_bytes().as_slice()].concat();
        self.put(KeyKind::StreamFloor, tenant, &[], row, PriorValue::Unknown)
    }

    /// Stores when a part of an ended stream expires.
    ///
    /// # Errors
    /// [`TooLong`] for an id that is empty or longer than 256 bytes.
    pub fn put_expiry(&mut self, expiry: &StreamExpiry) -> Result<(), TooLong> {
        let tail = expiry.tail();
        self.put(KeyKind::StreamExpiry, TenantId(0), &tail, vec![VERSION], PriorValue::Unknown)
    }

    /// Removes an expiry that was handled.
    pub fn delete_expiry(&mut self, expiry: &StreamExpiry) {
        self.delete(KeyKind::StreamExpiry, TenantId(0), &expiry.tail(), 0);
    }
}

fn damaged(what: &'static str) -> EngineError {
    EngineError::Engine(format!("{what} is damaged"))
}

/// Reads the value of a floor row; `None` if it is damaged.
pub(crate) fn read_floor(value: &[u8]) -> Option<Sequence> {
    let mut value = value.strip_prefix(&[VERSION])?;
    let floor = take(&mut value).map(u64::from_be_bytes)?;
    value.is_empty().then_some(Sequence(floor))
}

/// The streams that a tenant has open.
pub(crate) fn open_streams(engine: &Engine, tenant: TenantId) -> Result<OpenStreams, EngineError> {
    let (from, to) = (keys::key(KeyKind::OpenStream, tenant, &[]), keys::after(KeyKind::OpenStream, tenant));
    let mut found = OpenStreams::default();
    for row in engine.range(&from, &to) {
        let (key, value) = row?;
        let (_, _, tail) = keys::parse(&key).map_err(|_| damaged("the key of a stream"))?;
        let id = std::str::from_utf8(tail).map_err(|_| damaged("the key of a stream"))?;
        let row = OpenStreamRow::read(&value).ok_or_else(|| damaged("the row of a stream"))?;
        found.streams.push((id.into(), row));
    }
    if let Some(row) = engine.get(&keys::key(KeyKind::StreamFloor, tenant, &[]))? {
        found.floor = read_floor(&row).ok_or_else(|| damaged("the floor of streams"))?;
    }
    let streams = super::row_key(keys::Table::Streams, "");
    let (from, to) = (
        keys::key(KeyKind::Row, tenant, &streams),
        keys::key(KeyKind::Row, tenant, &keys::end_of_prefix(&streams)),
    );
    found.has_any = !found.streams.is_empty() || engine.last(&from, &to)?.is_some();
    Ok(found)
}

/// The tenants that have streams open.
pub(crate) fn tenants_with_open_streams(engine: &Engine) -> Result<Vec<TenantId>, EngineError> {
    let mut found = Vec::new();
    let (mut from, to) = (vec![KeyKind::OpenStream as u8], [KeyKind::OpenStream as u8 + 1]);
    loop {
        let Some(row) = engine.range(&from, &to).next() else { return Ok(found) };
        let tenant = keys::tenant(&row?.0).ok_or_else(|| damaged("the key of a stream"))?;
        found.push(tenant);
        from = keys::after(KeyKind::OpenStream, tenant);
    }
}

/// A segment of a stream; `None` if it does not exist.
pub(crate) fn segment(
    engine: &Engine,
    tenant: TenantId,
    id: &str,
    number: u32,
) -> Result<Option<StreamText>, EngineError> {
    let row = engine.get(&keys::key(KeyKind::StreamText, tenant, &segment_key(id, number)))?;
    row.map(|row| StreamText::read(&row).ok_or_else(|| damaged("a segment of a stream"))).transpose()
}

/// The chunks of a stream's first `count` segments that are after `position`: at least one and about `most`
/// bytes of text, unless there are no more; and whether these are all. What was removed meanwhile is missing.
pub(crate) fn text_after(
    engine: &Engine,
    tenant: TenantId,
    id: &str,
    count: u32,
    position: Sequence,
    most: usize,
) -> Result<(StreamText, bool), EngineError> {
    let read = |number: u32| segment(engine, tenant, id, number);
    let ends_after = |text: &StreamText| text.last().is_some_and(|last| last > position);
    // Most readers start at the first segment. For others the first one that ends after the position is found.
    let mut next = read(0)?;
    let mut first = 0;
    if !next.as_ref().is_some_and(ends_after) {
        let mut end = count;
        while first < end {
            let middle = first + (end - first) / 2;
            match read(middle)?.as_ref().is_some_and(ends_after) {
                true => end = middle,
                false => first = middle + 1,
            }
        }
        next = if first < count { read(first)? } else { None };
    }
    let mut found = StreamText::default();
    while let Some(segment) = next {
        let is_whole = segment.chunks().next().is_some_and(|chunk| chunk.sequence > position);
        if is_whole && found.text_bytes() + segment.text_bytes() <= most {
            found.append(segment);
        } else {
            for chunk in segment.after(position) {
                if !found.is_empty() && found.text_bytes() + chunk.text.len() > most {
                    return Ok((found, false));
                }
                if found.is_empty() {
                    found = StreamText::from_index(chunk.index);
                }
                found.push(chunk.sequence, segment.received_ms(), chunk.text, chunk.part);
            }
        }
        first += 1;
        next = if first < count { read(first)? } else { None };
    }
    Ok((found, true))
}

/// What expires until `now_ms`, the earliest first, at most `most`.
pub(crate) fn due(engine: &Engine, now_ms: u64, most: usize) -> Result<Vec<StreamExpiry>, EngineError> {
    let from = keys::key(KeyKind::StreamExpiry, TenantId(0), &[]);
    let to = keys::key(KeyKind::StreamExpiry, TenantId(0), &now_ms.saturating_add(1).to_be_bytes());
    let mut found = Vec::new();
    for row in engine.range(&from, &to).take(most) {
        let (key, _) = row?;
        let (_, _, tail) = keys::parse(&key).map_err(|_| damaged("an expiry of a stream"))?;
        found.push(StreamExpiry::read(tail).ok_or_else(|| damaged("an expiry of a stream"))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> OpenStreamRow {
        OpenStreamRow {
            generation: 3,
            token_digest: [7; 32],
            lease_seconds: 60,
            agent_status: true,
            number: 1,
            opened_ms: 2,
            opened_after: Sequence(3),
            checkpoint: Checkpoint { sequence: Sequence(9), next_index: 4, text_bytes: 5, segments: 2 },
            opener: "user:ann".into(),
            agent_id: Some("planner".into()),
            user_id: None,
        }
    }

    #[test]
    fn the_row_of_an_open_stream_round_trips_and_refuses_any_other_length() {
        let written = row().write();
        assert_eq!(OpenStreamRow::read(&written), Some(row()));
        for len in 0..written.len() {
            assert_eq!(OpenStreamRow::read(&written[..len]), None, "{len}");
        }
        assert_eq!(OpenStreamRow::read(&[&written[..], &[0]].concat()), None);
    }

    #[test]
    fn open_streams_are_found_by_tenant_and_their_log_from_the_oldest_checkpoint() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = crate::store::engine::tests::engine(dir.path());
        let mut rows = Rows::new();
        for (tenant, id, sequence) in [(3, "a", 9), (3, "b", 20), (5, "a", 4)] {
            let checkpoint = Checkpoint { sequence: Sequence(sequence), ..row().checkpoint };
            let row = OpenStreamRow { checkpoint, ..row() };
            rows.put_open_stream(TenantId(tenant), id, &row, PriorValue::Nothing).expect("short");
        }
        rows.put_stream_floor(TenantId(5), Sequence(6)).expect("short");
        let mut batch = crate::store::engine::Batch::default();
        for change in rows.into_changes() {
            if let super::super::PendingChange::Put { key, value, .. } = change {
                batch.put(key, value);
            }
        }
        engine.commit(batch).expect("committed");
        assert_eq!(tenants_with_open_streams(&engine).expect("read"), [TenantId(3), TenantId(5)]);
        let of = |tenant| open_streams(&engine, TenantId(tenant)).expect("read");
        assert_eq!(of(3).log_from(), Some(Sequence(9)));
        assert_eq!(of(3).streams.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((of(5).log_from(), of(5).has_any), (Some(Sequence(6)), true));
        assert_eq!((of(4).log_from(), of(4).has_any), (None, false));
    }
}
