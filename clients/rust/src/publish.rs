//! Publishing over REST (protocol §8): one event, or many as one atomic batch, with the requested ack.
//!
//! * With an idempotency key a batch is sent again after a lost connection, 429 and 503, and published once.
//! * Without one it is sent once. Without a response it is unknown whether it was published.

use http::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, ClientError, Request};

/// When the daemon acknowledges a publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// After the sync: the events survive `kill -9` and power loss.
    #[default]
    Durable,
    /// Once the events are queued for delivery. A crash within milliseconds may lose them.
    Memory,
}

/// Publishes with options; see [`Client::publisher`].
#[derive(Clone, Debug)]
pub struct Publisher<'a> {
    client: &'a Client,
    ack: Ack,
    key: Option<String>,
}

impl Client {
    /// Publishes one event durably and returns its id. Takes an [`Event`](crate::Event), or any value that
    /// serializes to one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish(&self, event: &impl Serialize) -> Result<String, ClientError> {
        self.publisher().publish(event).await
    }

    /// Publishes up to 1,000 events durably as one batch and returns their ids.
    ///
    /// # Errors
    /// [`ClientError`]. In this case none was published, or the outcome is unknown (a lost connection,
    /// `details.outcome:"unknown"`).
    pub async fn publish_batch(&self, events: &[impl Serialize]) -> Result<Vec<String>, ClientError> {
        self.publisher().publish_batch(events).await
    }

    /// Returns a publisher, which has options for the acknowledgement and an idempotency key.
    pub fn publisher(&self) -> Publisher<'_> {
        Publisher { client: self, ack: Ack::default(), key: None }
    }
}

impl Publisher<'_> {
    /// Sets the ack.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Sets the idempotency key. The same events under this key are published once within 24 hours, however
    /// often they are sent.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Publishes one event and returns its id.
    ///
    /// # Errors
    /// The same as [`Client::publish`].
    pub async fn publish(self, event: &impl Serialize) -> Result<String, ClientError> {
        let ids = self.send(self.request().json(event)?).await?;
        ids.into_iter().next().ok_or_else(|| ClientError::UnexpectedResponse("no id".into()))
    }

    /// Publishes a batch and returns the ids.
    ///
    /// # Errors
    /// The same as [`Client::publish_batch`].
    pub async fn publish_batch(self, events: &[impl Serialize]) -> Result<Vec<String>, ClientError> {
        self.send(self.request().json(events)?).await
    }

    /// Returns the request without its body.
    fn request(&self) -> Request {
        let query = if self.ack == Ack::Memory { "?ack=memory" } else { "" };
        let request = Request::new(Method::POST, format!("/api/v1/events{query}"));
        match &self.key {
            Some(key) => request.idempotency_key(key),
            None => request,
        }
    }

    async fn send(&self, request: Request) -> Result<Vec<String>, ClientError> {
        #[derive(Deserialize)]
        struct Published {
            ids: Vec<String>,
        }
        let response = self.client.send_with_retries(&request, |_, _| ()).await?;
        Ok(response.decode_data::<Published>()?.ids)
    }
}
