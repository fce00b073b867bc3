//! Events of one publish, encoded as they are parsed. Each is checked for its size, a message without an id
//! gets one, and a message with an id from its publisher is remembered by it.
//!
//! * A size error is reported only after the last event was parsed, because errors in the events themselves
//!   come first.
//! * A draft is the input of [`Tenants::publish_events`]. It does not know rights or organizations.

use super::Tenants;
use super::idempotency::DedupKey;
use super::publish::{PublishError, too_large};
use crate::event::{Event, EventError, EventKind};
use crate::frame::batch::Batch;

/// Encoded events that are about to be published.
#[derive(Debug)]
pub struct Draft {
    pub(super) batch: Batch,
    /// For each event the key made from the `message_id` that its publisher gave. Empty if no event has one.
    pub(super) messages: Vec<Option<DedupKey>>,
    /// Number of events received, encoded or not.
    events: usize,
    /// Maximum of bytes of an event.
    most: usize,
    /// The first event that is too large, with its index. No later event is encoded.
    too_large: Option<(usize, EventError)>,
}

impl Tenants {
    /// Creates an empty draft for events from the connection `origin` (0 for none) with about `expected`
    /// bytes.
    #[must_use]
    pub fn draft(&self, origin: u64, expected: usize) -> Draft {
        Draft {
            batch: Batch::new(self.clock.now_ms(), origin, expected),
            messages: Vec::new(),
            events: 0,
            most: self.limits.event_bytes,
            too_large: None,
        }
    }
}

impl Draft {
    /// Sets the time at which the following events were received. An event without a timestamp gets it.
    pub fn received(&mut self, now_ms: u64) {
        self.batch.received(now_ms);
    }

    /// Encodes one more event. A message without an id gets one.
    pub fn push(&mut self, event: &mut Event<'_>) {
        let at = self.events;
        self.events += 1;
        if self.too_large.is_some() {
            return;
        }
        if let Some(keyed) = DedupKey::of_message(event) {
            self.messages.resize(at, None);
            self.messages.push(Some(keyed));
        } else if event.kind == EventKind::Message {
            event.message_id = Some(crate::ids::fresh("msg").into());
        }
        self.too_large = too_large(self.batch.push(event), self.most).map(|error| (at, error));
    }

    /// Returns true if an event has a key that must be looked up before publishing.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Bytes of memory in use, approximately.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.batch.size() + self.messages.len() * size_of::<Option<DedupKey>>()
    }

    /// Returns the events so far.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
    /// Returns the events without their keys.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.batch
    }

    /// Closes the draft; no more events follow.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], naming the item if there are several.
    pub fn close(&mut self) -> Result<(), PublishError> {
        if let Some((at, error)) = self.too_large.take() {
            return Err(PublishError::TooLarge(if self.events > 1 { error.at(at) } else { error }));
        }
        if self.is_keyed() {
            self.messages.resize(self.events, None);
        }
        self.batch.close();
        Ok(())
    }
}
