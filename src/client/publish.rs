//! Publishing over REST (protocol §8): one event or many as one atomic batch, with the ack one asks for.
//!
//! * With an idempotency key a batch is sent again after a lost connection, 429 and 503, and published once.
//! * Without one it is sent once: an answer that never came says nothing about what happened.

use http::Method;
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, Request};

/// What an answer to a publish means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The events survive `kill -9` and power loss.
    #[default]
    Durable,
    /// The daemon has them and delivers them; a crash within milliseconds may take them.
    Memory,
}

/// A publish under construction; see [`Client::publishing`].
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    client: &'a Client,
    ack: Ack,
    key: Option<String>,
}

impl Client {
    /// Publishes one event durably; answers its id. An [`Event`](super::Event), or whatever serializes to one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish(&self, event: &impl Serialize) -> Result<String, ClientError> {
        self.publishing().one(event).await
    }

    /// Publishes up to 1,000 events as one batch, durably; answers their ids.
    ///
    /// # Errors
    /// [`ClientError`]; then none was published, or nothing can be told (a lost connection, `details.outcome:"unknown"`).
    pub async fn publish_all(&self, events: &[impl Serialize]) -> Result<Vec<String>, ClientError> {
        self.publishing().all(events).await
    }

    /// A publish with more to say than which events.
    pub fn publishing(&self) -> Publish<'_> {
        Publish { client: self, ack: Ack::default(), key: None }
    }
}

impl Publish<'_> {
    /// Asks for this ack.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Under this key the same events are published once within 24 hours, however often they are sent.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Publishes one event; answers its id.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn one(self, event: &impl Serialize) -> Result<String, ClientError> {
        let ids = self.send(self.request().json(event)?).await?;
        ids.into_iter().next().ok_or_else(|| ClientError::Shape("no id".into()))
    }

    /// Publishes a batch; answers the ids.
    ///
    /// # Errors
    /// As [`Client::publish_all`].
    pub async fn all(self, events: &[impl Serialize]) -> Result<Vec<String>, ClientError> {
        self.send(self.request().json(events)?).await
    }

    /// The request, its body still to come.
    pub(crate) fn request(&self) -> Request {
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
        let reply = self.client.send_repeated(&request, |_, _| ()).await?;
        Ok(reply.data::<Published>()?.ids)
    }
}
