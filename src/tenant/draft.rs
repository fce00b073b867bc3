//! Events of one publish, encoded as they are read: each is checked for its size, a message gets its id, and one whose publisher gave
//! it an id is remembered by it.
//!
//! * Nothing is refused before the last event is there: what is wrong with the events themselves comes first.
//! * A draft is what publishing takes ([`Tenants::publish_events`]); it knows no rights and no organization.

use super::Tenants;
use super::idempotency::Keyed;
use super::publish::{PublishError, too_large};
use crate::event::{Event, EventError, Kind};
use crate::frame::batch::Batch;

/// Encoded events that are about to be published.
#[derive(Debug)]
pub struct Draft {
    pub(super) batch: Batch,
    /// For each event the key of the `message_id` that its publisher gave; empty where no event has one.
    pub(super) messages: Vec<Option<Keyed>>,
    /// Events that were given, encoded or not.
    events: usize,
    /// Most bytes of an event.
    most: usize,
    /// The first event that is too large, and its place. None after it is encoded.
    too_large: Option<(usize, EventError)>,
}

impl Tenants {
    /// A draft without events, which come from the connection `origin` (0: none) in about `expected` bytes.
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
    /// Events that are encoded from now on were received at `now_ms`, which is the timestamp of those that have none.
    pub fn received(&mut self, now_ms: u64) {
        self.batch.received(now_ms);
    }

    /// Encodes one more event; gives a message without an id one.
    pub fn push(&mut self, event: &mut Event<'_>) {
        let at = self.events;
        self.events += 1;
        if self.too_large.is_some() {
            return;
        }
        if let Some(keyed) = Keyed::of_message(event) {
            self.messages.resize(at, None);
            self.messages.push(Some(keyed));
        } else if event.kind == Kind::Message {
            event.message_id = Some(crate::ids::fresh("msg").into());
        }
        self.too_large = too_large(self.batch.push(event), self.most).map(|error| (at, error));
    }

    /// Whether an event would be looked up before it is published.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn held(&self) -> usize {
        self.batch.size() + self.messages.len() * size_of::<Option<Keyed>>()
    }

    /// The events so far.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
    /// The events alone, without what they would be looked up by.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.batch
    }

    /// Ends the draft: no more events come.
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
