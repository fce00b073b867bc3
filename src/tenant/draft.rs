//! Events of one publish, encoded as they are read. Each is checked against the rights of its publisher and
//! for its size, a message without an id gets one, and a message with an id from its publisher is remembered
//! by it.
//!
//! * The errors are kept until the last event was read, because errors in the events themselves come first.
//!   Admission reports them ([`super::admission`]).
//! * Only [`Draft::push`] and [`Tenants::internal_draft`] add events. So a draft holds no event of a client
//!   that was not checked.

use super::Tenants;
use super::idempotency::DedupKey;
use super::publish::PublishError;
use super::rate::RateCharge;
use crate::auth::{Authorized, Publish, PublishDenied};
use crate::event::{Event, EventError, EventKind};
use crate::frame::batch::Batch;

/// Encoded events that are about to be published.
#[derive(Debug)]
pub struct Draft {
    pub(super) batch: Batch,
    /// For each event the key made from the `message_id` that its publisher gave. Empty if no event has one.
    pub(super) messages: Vec<Option<DedupKey>>,
    pub(super) charge: RateCharge,
    /// The `request_id`s of the events. Neighbouring events with the same one are in it once.
    pub(super) request_ids: Vec<Box<str>>,
    /// Number of events received, encoded or not.
    events: usize,
    /// Maximum of bytes of an event.
    most: usize,
    /// The first event that its publisher may not publish, with its index. No later event is encoded.
    denied: Option<(usize, PublishDenied)>,
    /// The first event that is too large, with its index. No later event is encoded.
    too_large: Option<(usize, EventError)>,
}

/// What is known of a client's events before they are read.
#[derive(Clone, Copy, Default, Debug)]
pub struct DraftOptions {
    /// The connection that they come from; 0 for none.
    pub origin: u64,
    /// Their bytes, approximately; 0 if not known.
    pub expected_bytes: usize,
    /// The charge of their rate, if their number is known.
    pub charge: RateCharge,
}

impl Tenants {
    /// Creates an empty draft for a client's events.
    #[must_use]
    pub fn draft(&self, options: DraftOptions) -> Draft {
        Draft {
            batch: Batch::new(self.clock.now_ms(), options.origin, options.expected_bytes),
            messages: Vec::new(),
            charge: options.charge,
            request_ids: Vec::new(),
            events: 0,
            most: self.limits.event_bytes,
            denied: None,
            too_large: None,
        }
    }

    /// Creates a draft with events that the daemon makes: those that report a change of a resource, and
    /// presence. They are checked against no right, because their maker has done that.
    #[must_use]
    pub fn internal_draft(&self, charge: RateCharge, events: &[Event<'_>]) -> Draft {
        let mut draft = self.draft(DraftOptions { charge, ..DraftOptions::default() });
        for event in events {
            draft.encode(event);
        }
        draft
    }
}

impl Draft {
    /// Sets the time at which the following events were received. An event without a timestamp gets it.
    pub fn received(&mut self, now_ms: u64) {
        self.batch.received(now_ms);
    }

    /// Checks one more event against the rights of its publisher, and encodes it. A message without an id
    /// gets one.
    pub fn push(&mut self, right: &Authorized<Publish>, event: &mut Event<'_>) {
        if self.denied.is_none()
            && let Err(reason) = right.check(event)
        {
            self.denied = Some((self.events, reason));
        }
        if self.denied.is_none() && self.too_large.is_none() {
            if let Some(keyed) = DedupKey::of_message(event) {
                self.messages.resize(self.events, None);
                self.messages.push(Some(keyed));
            } else if event.kind == EventKind::Message {
                event.message_id = Some(crate::ids::fresh("msg").into());
            }
        }
        self.encode(event);
    }

    fn encode(&mut self, event: &Event<'_>) {
        let at = self.events;
        self.events += 1;
        if self.denied.is_some() || self.too_large.is_some() {
            return;
        }
        if let Some(id) = event.request_id.as_deref()
            && self.request_ids.last().is_none_or(|last| **last != *id)
        {
            self.request_ids.push(id.into());
        }
        let len = self.batch.push(event);
        if len > self.most {
            let error = EventError::new("", format!("is {len} bytes, the limit is {}", self.most));
            self.too_large = Some((at, error));
        }
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

    /// Number of events received, encoded or not.
    pub(super) fn received_events(&self) -> usize {
        self.events
    }

    /// Checks that the publisher may publish all events.
    ///
    /// # Errors
    /// [`PublishError::Denied`].
    pub(super) fn check_rights(&self) -> Result<(), PublishError> {
        match self.denied {
            None => Ok(()),
            Some((item, reason)) => Err(PublishError::Denied { item, reason }),
        }
    }

    /// Closes the draft; no more events follow.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], naming the item if there are several.
    pub(super) fn close(&mut self) -> Result<(), PublishError> {
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
