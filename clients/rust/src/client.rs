//! A client of one daemon and its builder: address, credential, time limits, idle connections.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::connection::Connection;
use crate::credential::{Credentials, Provider};
use crate::{Backoff, Credential, Endpoint, Timeouts};

/// A client of one daemon. Clones share credential and connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) timeouts: Timeouts,
    pub(crate) backoff: Backoff,
    /// Idle connections: at most [`IDLE_CONNECTIONS_MAX`](crate::send::IDLE_CONNECTIONS_MAX).
    pub(crate) idle: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.endpoint)
    }
}

impl Client {
    /// Creates a client with an API key or a JWT that is never renewed. It connects at its first request.
    pub fn new(endpoint: Endpoint, credential: impl Into<Credential>) -> Self {
        Self::builder(endpoint).credential(credential).build()
    }

    /// Starts building a client of the daemon at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            credential: None,
            provider: None,
            timeouts: Timeouts::default(),
            backoff: Backoff::default(),
        }
    }

    /// The daemon's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }
}

/// A client under construction; see [`Client::builder`].
pub struct ClientBuilder {
    endpoint: Endpoint,
    credential: Option<Credential>,
    provider: Option<Provider>,
    timeouts: Timeouts,
    backoff: Backoff,
}

impl ClientBuilder {
    /// Sets the API key or JWT.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<Credential>) -> Self {
        self.credential = Some(credential.into());
        self
    }

    /// Sets a provider that is called for another credential whenever the daemon no longer accepts the
    /// current one (401, 4401). It has [`PROVIDER_WAIT_MAX`](crate::PROVIDER_WAIT_MAX) to return one. If it
    /// returns `None`, the request fails.
    #[must_use]
    pub fn credential_provider<C: Into<Credential>, F: Future<Output = Option<C>> + Send + 'static>(
        mut self,
        provider: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.provider = Some(Box::new(move || {
            let renewal = provider();
            Box::pin(async move { renewal.await.map(Into::into) })
        }));
        self
    }

    /// Sets the time limit of each step.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets the wait times between attempts and the number of attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Builds the client. It connects at its first request.
    pub fn build(self) -> Client {
        let credentials = Credentials::new(self.credential, self.provider);
        let Self { endpoint, timeouts, backoff, .. } = self;
        Client { inner: Arc::new(Inner { endpoint, credentials, timeouts, backoff, idle: Mutex::default() }) }
    }
}
