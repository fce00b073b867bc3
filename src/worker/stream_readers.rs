//! Which connections read named streams from their start, and what each of them still waits for.
//!
//! It knows slots and views, not connections; `read_streams.rs` serves them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::frame::control::Ref;
use crate::ids::Sequence;
use crate::tenant::streams::{Stream, StreamState};

/// Streams that a subscription reads from their start.
#[derive(Debug)]
pub struct StreamSubscription {
    /// The streams, without duplicates.
    pub ids: Vec<Arc<str>>,
    /// What is known of each.
    pub streams: Vec<Option<Stream>>,
    /// The `ref` of the `subscribe`, for a later error.
    pub reference: Option<Ref>,
}

/// The ids of the streams of one reader.
pub(super) type StreamIds = Arc<[Arc<str>]>;

/// The readers of streams on one worker.
#[derive(Debug, Default)]
pub(super) struct StreamReaders {
    /// By slot.
    readers: HashMap<u32, StreamReader>,
    /// The slots of the readers of a stream, by view.
    by_stream: HashMap<(u32, Arc<str>), Vec<u32>>,
    /// Distinguishes the subscriptions of one connection.
    serial: u64,
}

/// A connection that reads streams.
#[derive(Debug)]
pub(super) struct StreamReader {
    pub(super) ids: StreamIds,
    /// The streams that have ended, in the order of `ids`.
    pub(super) ended: Vec<Option<Box<Stream>>>,
    pub(super) reference: Option<Ref>,
    pub(super) view: u32,
    pub(super) serial: u64,
    /// True while its streams are being looked up.
    pub(super) is_looked_up: bool,
    /// True if one of them ended meanwhile, so that they are looked up again.
    pub(super) has_news: bool,
}

impl StreamReaders {
    /// Adds a reader. Returns the number of its subscription.
    pub(super) fn insert(&mut self, slot: u32, view: u32, subscription: StreamSubscription) -> u64 {
        self.remove(slot);
        self.serial += 1;
        for id in &subscription.ids {
            self.by_stream.entry((view, id.clone())).or_default().push(slot);
        }
        let mut reader = StreamReader {
            ended: vec![None; subscription.ids.len()],
            ids: subscription.ids.into(),
            reference: subscription.reference,
            view,
            serial: self.serial,
            is_looked_up: false,
            has_news: false,
        };
        reader.note(subscription.streams);
        self.readers.insert(slot, reader);
        self.serial
    }

    /// Returns the reader in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&StreamReader> {
        self.readers.get(&slot)
    }

    /// Returns the reader in a slot.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut StreamReader> {
        self.readers.get_mut(&slot)
    }

    /// Returns true if there are no readers.
    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// The slots of the readers of a stream.
    pub(super) fn of_stream(&self, view: u32, id: &str) -> Vec<u32> {
        self.by_stream.get(&(view, Arc::from(id))).cloned().unwrap_or_default()
    }

    /// Removes a reader. Does nothing for a connection that is none.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(reader) = self.readers.remove(&slot) else { return };
        for id in reader.ids.iter() {
            let key = (reader.view, id.clone());
            if let Some(slots) = self.by_stream.get_mut(&key) {
                slots.retain(|other| *other != slot);
                if slots.is_empty() {
                    self.by_stream.remove(&key);
                }
            }
        }
    }
}

impl StreamReader {
    /// Notes which streams have ended.
    pub(super) fn note(&mut self, streams: Vec<Option<Stream>>) {
        for (ended, stream) in self.ended.iter_mut().zip(streams) {
            if let Some(stream) = stream.filter(|stream| stream.state != StreamState::Open) {
                *ended = Some(Box::new(stream));
            }
        }
    }

    /// The position at which all streams have ended; `None` while one is open.
    pub(super) fn end(&self) -> Option<Sequence> {
        let ends = self.ended.iter().map(|stream| stream.as_ref().and_then(|stream| stream.end()));
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}
