//! A client of a Nervewire daemon over TCP or a unix socket: publishing, subscriptions that reconnect with
//! their cursor, and typed resources.
//!
//! * Every wait has a limit ([`Timeouts`], [`Backoff`]); every body, line and frame has a size limit.
//! * A request is sent again only if that does no harm: no byte of it was sent, its credential was refused,
//!   it only reads, or it has an idempotency key. Without a response it is unknown whether the request was
//!   carried out.
//! * Each connection is driven by a task whose handle the client owns; dropping the client ends it.
//! * The credential is sent in the `Authorization` header and nowhere else.
//!
//! The client does not support TLS.
//!
//! ```no_run
//! use nervewire_client::{Client, Event, Filter, Item, NewAgent, Position};
//!
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8080".parse()?, "nwk_…");
//! // For tokens that expire:
//! // Client::builder(url).credential(token).renewing(async || Some(fetch().await)).build()
//!
//! // Create an agent and publish a message to it.
//! let new = NewAgent { name: Some("ada".into()), ..NewAgent::default() };
//! let agent = client.agents().create(&new).await?.value;
//! client.publish(&Event::message(agent.id.as_str(), "user-1", "hello")).await?;
//!
//! // Read all messages from the oldest event on, across reconnects.
//! let filter = Filter::new().types(["message"]).agents([agent.id]);
//! let mut subscription = client.subscribe(filter).starting(Position::Earliest);
//! while let Some(item) = subscription.next().await {
//!     match item? {
//!         Item::Event(received) => match received.event {
//!             Event::Message(message) => println!("{}: {}", message.agent_id, message.content),
//!             other => println!("{other:?}"),
//!         },
//!         Item::Gap(gap) => println!("events after {} are missing: read the state again", gap.after),
//!         status => println!("{status:?}"),
//!     }
//!     // To continue later from here: Position::After(cursor)
//!     let _cursor = subscription.cursor();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The daemon's repository runs the same example in `tests/client.rs`.

mod backoff;
mod credential;
mod endpoint;
mod error;
pub mod event;
mod filter;
mod frame_handler;
mod publish;
mod read_timeout;
mod request;
pub mod resources;
mod retry;
mod send;
mod sse_parser;
mod sse_stream;
mod subscription;
mod ws_stream;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use backoff::Backoff;
pub use credential::{Credential, PROVIDER_WAIT_MAX};
pub use endpoint::{Endpoint, EndpointError, encode};
pub use error::{ApiError, ClientError};
pub use event::Event;
pub use filter::{Filter, Position};
pub use frame_handler::{Gap, Item, ReceivedEvent, Status};
pub use publish::{Ack, Publish};
pub use request::{Reply, Request, Timeouts};
pub use resources::{
    Agent, AgentChange, ListOptions, Message, NewAgent, NewMessage, NewTool, Page, Resources, State, Tool,
    ToolChange, Versioned,
};
pub use sse_parser::{SseError, SseEvent, SseParser};
pub use sse_stream::SseStream;
pub use subscription::{Subscription, Transport};
pub use ws_stream::{WsMessage, WsStream};

/// How long a stream may be silent before its `ready` frame says the heartbeat interval: three default
/// intervals.
pub(crate) const SILENCE_UNTOLD: Duration = Duration::from_secs(90);

/// A client of one daemon. Clones share credential and connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    credentials: credential::Credentials,
    timeouts: Timeouts,
    backoff: Backoff,
    /// Idle connections: at most [`send::IDLE_CONNECTIONS_MAX`].
    idle: Mutex<Vec<send::IdleConnection>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.endpoint)
    }
}

impl Client {
    /// Creates a client with an API key or a JWT that is never renewed. It connects at its first request.
    pub fn new(endpoint: Endpoint, credential: impl Into<Credential>) -> Self {
        Self::builder(endpoint).credential(credential).build()
    }

    /// Starts building a client of the daemon at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> Builder {
        Builder {
            endpoint,
            credential: None,
            provider: None,
            timeouts: Timeouts::default(),
            backoff: Backoff::default(),
        }
    }

    /// The daemon's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }
}

/// A client under construction; see [`Client::builder`].
pub struct Builder {
    endpoint: Endpoint,
    credential: Option<Credential>,
    provider: Option<credential::Provider>,
    timeouts: Timeouts,
    backoff: Backoff,
}

impl Builder {
    /// Sets the API key or JWT.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<Credential>) -> Self {
        self.credential = Some(credential.into());
        self
    }

    /// Sets a provider that is called for another credential whenever the daemon no longer accepts the
    /// current one (401, 4401). It has [`PROVIDER_WAIT_MAX`] to return one. If it returns `None`, the request
    /// fails.
    #[must_use]
    pub fn renewing<C: Into<Credential>, F: Future<Output = Option<C>> + Send + 'static>(
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
        let credentials = credential::Credentials::new(self.credential, self.provider);
        let Self { endpoint, timeouts, backoff, .. } = self;
        Client {
            shared: Arc::new(Shared { endpoint, credentials, timeouts, backoff, idle: Mutex::default() }),
        }
    }
}

/// Acquires the lock, also after a panic of another holder: what these locks guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns `base` with these parameters, whose values are already escaped.
fn path_with_query(base: &str, pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut path = base.to_owned();
    for (n, (name, value)) in pairs.into_iter().enumerate() {
        path.push(if n == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        path.push_str(&value);
    }
    path
}
