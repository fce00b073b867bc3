//! The open streams of one organization, in memory, behind the tenant's lock.
//!
//! * What is here is as the commit queue will write it: a word changes the stream in the moment in which its
//!   commit is queued. If a commit fails, the table is emptied and read again from the disk (`load.rs`).
//! * A stream that ends stays here until its end is on disk, so that readers see it open until then and
//!   producers see it ended.
//! * An idle stream has no tail: it costs its state alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::StreamError;
use super::state::StreamState;
use super::token;
use crate::ids::Sequence;
use crate::store::{Checkpoint, OpenStreamRow, StreamText};

/// The weight of a tail at which it is written to segments ([`StreamText::weight`]).
pub(in crate::tenant) const TAIL_BYTES: usize = 16 * 1024;
/// How long text may be in no segment, in seconds.
pub(in crate::tenant) const CHECKPOINT_SECONDS: u64 = 10;
/// How often the floor of a tenant's streams is written, in seconds. A start reads the log from there.
pub(in crate::tenant) const FLOOR_SECONDS: u64 = 60;

/// What a producer is told when its stream ends without its doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerNotice {
    /// The stream was cancelled.
    Cancelled,
    /// The stream was taken over or abandoned, or its organization or user was deleted.
    Lost,
}

/// A producer that can be told that its stream has ended.
#[derive(Clone)]
pub struct Producer {
    /// Distinguishes producers, such as the id of a connection.
    pub origin: u64,
    /// Is called with the stream's id. It must not wait.
    pub notify: Arc<NotifyProducer>,
}

/// Tells a producer what has become of the stream with an id.
pub(crate) type NotifyProducer = dyn Fn(&str, ProducerNotice) + Send + Sync;

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// An open stream.
#[derive(Debug)]
pub(in crate::tenant) struct OpenStream {
    /// As it is on disk, or will be when the queued commits are done. Its checkpoint is on disk.
    pub(in crate::tenant) row: OpenStreamRow,
    /// The index that the next chunk gets.
    pub(in crate::tenant) next_index: u64,
    /// Bytes of text.
    pub(in crate::tenant) text_bytes: u64,
    /// The chunks after the checkpoint.
    pub(in crate::tenant) tail: StreamText,
    /// The checkpoint that is being committed.
    pub(in crate::tenant) in_flight: Option<Checkpoint>,
    /// When the oldest chunk of the tail came, in monotonic seconds.
    pub(in crate::tenant) tail_since_s: u64,
    /// When the producer was last heard, in monotonic seconds.
    pub(in crate::tenant) heard_s: u64,
    /// The second of its one valid entry in the wheel of leases.
    pub(in crate::tenant) wheel_s: u64,
    /// When it was opened, in monotonic microseconds; `None` after its first chunk.
    pub(in crate::tenant) awaits_first_us: Option<u64>,
    /// The terminal state, from the moment in which its commit is queued.
    pub(in crate::tenant) ending: Option<StreamState>,
    /// The producer that spoke last.
    pub(in crate::tenant) producer: Option<Producer>,
}

impl OpenStream {
    /// A stream without chunks after its checkpoint.
    pub(in crate::tenant) fn new(row: OpenStreamRow, now_s: u64) -> OpenStream {
        let Checkpoint { next_index, text_bytes, .. } = row.checkpoint;
        OpenStream {
            row,
            next_index,
            text_bytes,
            tail: StreamText::from_index(next_index),
            in_flight: None,
            tail_since_s: now_s,
            heard_s: now_s,
            wheel_s: 0,
            awaits_first_us: None,
            ending: None,
            producer: None,
        }
    }

    /// Adds a committed or queued chunk.
    pub(in crate::tenant) fn push(
        &mut self,
        sequence: Sequence,
        received_ms: u64,
        text: &str,
        part: Option<&str>,
    ) {
        self.tail.push(sequence, received_ms, text, part);
        self.next_index += 1;
        self.text_bytes += text.len() as u64;
    }

    /// Notes who speaks now, so that it can be told of an end without its doing.
    pub(in crate::tenant) fn note_producer(&mut self, producer: Option<&Producer>) {
        if let Some(producer) = producer
            && self.producer.as_ref().is_none_or(|known| known.origin != producer.origin)
        {
            self.producer = Some(producer.clone());
        }
    }

    /// The second in which the lease has ended. The producer may have been heard at the end of its second, so
    /// this is never too early.
    pub(in crate::tenant) fn lease_ends_s(&self) -> u64 {
        self.heard_s + u64::from(self.row.lease_seconds) + 1
    }

    /// The checkpoint that covers the whole tail, with the segments that it adds. They follow those of the
    /// checkpoint that is being committed, if there is one.
    pub(in crate::tenant) fn next_checkpoint(&self) -> (Checkpoint, Vec<StreamText>) {
        let base = self.in_flight.unwrap_or(self.row.checkpoint);
        let segments = self.tail.segments_from(base.next_index);
        let checkpoint = Checkpoint {
            sequence: self.tail.last().unwrap_or(base.sequence),
            next_index: self.next_index,
            text_bytes: self.text_bytes,
            segments: base.segments + segments.len() as u32,
        };
        (checkpoint, segments)
    }
}

/// The open streams of one organization.
#[derive(Debug, Default)]
pub(in crate::tenant) struct StreamTable {
    streams: HashMap<Arc<str>, OpenStream>,
    /// The streams that have a tail.
    with_tail: HashSet<Arc<str>>,
    /// True if the table has every open stream.
    pub(in crate::tenant) is_loaded: bool,
    /// True if the organization may have streams, open or ended.
    pub(in crate::tenant) has_any: bool,
    /// Counts how often the table was emptied, so that what was read before is not put into it.
    pub(in crate::tenant) resets: u64,
    /// The floor that was last written, and when, in monotonic seconds.
    pub(in crate::tenant) floor: (Sequence, u64),
}

impl StreamTable {
    /// Number of open streams.
    pub(in crate::tenant) fn len(&self) -> usize {
        self.streams.len()
    }
    /// Returns true if no stream is open.
    pub(in crate::tenant) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
    /// Adds a stream, or replaces it.
    pub(in crate::tenant) fn insert(&mut self, id: Arc<str>, stream: OpenStream) {
        if !stream.tail.is_empty() {
            self.with_tail.insert(id.clone());
        }
        self.streams.insert(id, stream);
        self.has_any = true;
    }
    /// Removes a stream.
    pub(in crate::tenant) fn remove(&mut self, id: &str) -> Option<OpenStream> {
        self.with_tail.remove(id);
        self.streams.remove(id)
    }
    /// Returns a stream, also one that is ending.
    pub(in crate::tenant) fn get(&self, id: &str) -> Option<&OpenStream> {
        self.streams.get(id)
    }
    /// Returns a stream, also one that is ending.
    pub(in crate::tenant) fn get_mut(&mut self, id: &str) -> Option<&mut OpenStream> {
        self.streams.get_mut(id)
    }
    /// Every stream.
    pub(in crate::tenant) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &OpenStream)> {
        self.streams.iter()
    }
    /// The streams that have a tail.
    pub(in crate::tenant) fn with_tail(&self) -> impl Iterator<Item = (&Arc<str>, &OpenStream)> {
        self.with_tail.iter().filter_map(|id| self.streams.get_key_value(&**id))
    }

    /// Returns a stream whose producer holds `token`.
    ///
    /// # Errors
    /// [`StreamError`]: the streams are not loaded, the stream is not open or has ended, or the token is not
    /// the newest one.
    pub(in crate::tenant) fn producer(
        &mut self,
        id: &str,
        token: &str,
    ) -> Result<&mut OpenStream, StreamError> {
        let stream = self.open(id)?;
        token::check(token, stream.row.generation, &stream.row.token_digest)?;
        match stream.ending {
            None => Ok(stream),
            Some(state) => Err(StreamError::Ended(state)),
        }
    }

    /// Returns a stream, also one that is ending.
    ///
    /// # Errors
    /// [`StreamError::NotLoaded`], [`StreamError::NotOpen`].
    pub(in crate::tenant) fn open(&mut self, id: &str) -> Result<&mut OpenStream, StreamError> {
        if !self.is_loaded {
            return Err(StreamError::NotLoaded);
        }
        self.streams.get_mut(id).ok_or(StreamError::NotOpen)
    }

    /// Notes that a stream has a tail, or has none any more.
    pub(in crate::tenant) fn note_tail(&mut self, id: &str) {
        match self.streams.get_key_value(id) {
            Some((id, stream)) if !stream.tail.is_empty() => drop(self.with_tail.insert(id.clone())),
            _ => drop(self.with_tail.remove(id)),
        }
    }

    /// What the log keeps after a change that may have emptied a tail: `now`, unless no stream has a tail. The
    /// exact position is found once a second ([`StreamTable::kept_after`] visits every tail).
    pub(in crate::tenant) fn kept_after_now(&self, now: Option<Sequence>) -> Option<Sequence> {
        if self.with_tail.is_empty() { None } else { now }
    }

    /// The position after which the log holds chunks that are in no segment; `None` if there are none. Visits
    /// every stream that has a tail.
    pub(in crate::tenant) fn kept_after(&self) -> Option<Sequence> {
        let first = |stream: &OpenStream| stream.tail.chunks().next().map(|chunk| chunk.sequence.0 - 1);
        self.with_tail().filter_map(|(_, stream)| first(stream)).min().map(Sequence)
    }

    /// Empties the table. Returns the streams that were open.
    pub(in crate::tenant) fn reset(&mut self) -> usize {
        let open = self.streams.len();
        *self = StreamTable { has_any: self.has_any, resets: self.resets + 1, ..StreamTable::default() };
        open
    }
}
