//! A client of a Nervewire daemon over TCP or a unix socket: publishing, subscriptions that come back with their cursor,
//! and resources, typed.
//!
//! * Every wait has a limit ([`Timeouts`], [`Backoff`]); every body, line and frame has a size limit.
//! * A request is sent again only where that does no harm: not a byte of it left, its credential was refused, it only
//!   reads, or it has an idempotency key. An answer that never came says nothing about what happened.
//! * Each connection is driven by a task whose handle the client owns; dropping the client ends it.
//! * The credential goes into the `Authorization` header and nowhere else.
//!
//! It imports nothing of the daemon but its locks: an honest outsider that shares no parser with what it talks to. It
//! speaks no TLS.
//!
//! ```no_run
//! use nervewire::client::{Client, Event, Filter, Item, NewAgent, Position};
//!
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8080".parse()?, "nwk_…");
//! // With tokens that expire: Client::builder(url).credential(token).renewing(async || Some(fetch().await)).build()
//!
//! // An agent, and what it says.
//! let agent = client.agents().create(&NewAgent { name: Some("ada".into()), ..NewAgent::default() }).await?.value;
//! client.publish(&Event::message(agent.id.as_str(), "user-1", "hello")).await?;
//!
//! // All that was said, from the oldest event on, through whatever happens to the connection.
//! let filter = Filter::new().types(["message"]).agents([agent.id]);
//! let mut subscription = client.subscribe(filter).starting(Position::Earliest);
//! while let Some(item) = subscription.next().await {
//!     match item? {
//!         Item::Event(received) => match received.event {
//!             Event::Message(message) => println!("{}: {}", message.agent_id, message.content),
//!             other => println!("{other:?}"),
//!         },
//!         Item::Gap(gap) => println!("events after {} are missing: read the state anew", gap.after),
//!         status => println!("{status:?}"),
//!     }
//!     // What comes after this, in another life: Position::After(cursor)
//!     let _cursor = subscription.cursor();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The same story runs against a daemon in `tests/client.rs`.

mod backoff;
mod credential;
mod endpoint;
mod error;
pub mod event;
mod filter;
mod follow;
mod http1;
mod policy;
mod publish;
mod request;
pub mod resource;
pub mod resources;
mod silence;
mod sse;
mod stream;
mod subscription;
mod ws;

use std::fmt;
use std::time::Duration;

use crate::sync::{Arc, Mutex};

pub use backoff::Backoff;
pub use credential::{Credential, PROVIDER_WAIT_MAX};
pub use endpoint::{Endpoint, EndpointError, encode};
pub use error::{ClientError, Refusal};
pub use event::Event;
pub use filter::{Filter, Position};
pub use follow::{Gap, Item, Received, Status};
pub use publish::{Ack, Publish};
pub use request::{Reply, Request, Timeouts};
pub use resource::{List, Page, Resources, Versioned};
pub use resources::{Agent, AgentChange, Message, NewAgent, NewMessage, NewTool, State, Tool, ToolChange};
pub use sse::{SseError, SseEvent, SseParser};
pub use stream::SseStream;
pub use subscription::{Subscription, Transport};
pub use ws::{WsMessage, WsStream};

/// How long a stream may be silent whose greeting has not told its heartbeat: three of the default ones.
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
    /// Connections that can take another request: at most [`http1::IDLE_CONNECTIONS_MAX`].
    idle: Mutex<Vec<http1::Kept>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.endpoint)
    }
}

impl Client {
    /// A client with an API key or a JWT that is never renewed. It connects at its first request.
    pub fn new(endpoint: Endpoint, credential: impl Into<Credential>) -> Self {
        Self::builder(endpoint).credential(credential).build()
    }

    /// A client of the daemon at `endpoint`, to be told more about.
    pub fn builder(endpoint: Endpoint) -> Builder {
        Builder {
            endpoint,
            credential: None,
            provider: None,
            timeouts: Timeouts::default(),
            backoff: Backoff::default(),
        }
    }

    /// Where it connects.
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
    /// Shows this API key or JWT.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<Credential>) -> Self {
        self.credential = Some(credential.into());
        self
    }

    /// Asks for another credential whenever the daemon no longer takes the one in force (401, 4401), within
    /// [`PROVIDER_WAIT_MAX`]. `None`: there is none, and the refusal stands.
    #[must_use]
    pub fn renewing<C: Into<Credential>, F: Future<Output = Option<C>> + Send + 'static>(
        mut self,
        provider: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.provider = Some(Box::new(move || {
            let asked = provider();
            Box::pin(async move { asked.await.map(Into::into) })
        }));
        self
    }

    /// How long each step may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How long to wait between attempts, and how many a request gets.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The client. It connects at its first request.
    pub fn build(self) -> Client {
        let credentials = credential::Credentials::new(self.credential, self.provider);
        let Self { endpoint, timeouts, backoff, .. } = self;
        Client {
            shared: Arc::new(Shared { endpoint, credentials, timeouts, backoff, idle: Mutex::default() }),
        }
    }
}

/// `base` with these parameters, whose values are escaped already.
fn path(base: &str, pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut path = base.to_owned();
    for (n, (name, value)) in pairs.into_iter().enumerate() {
        path.push(if n == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        path.push_str(&value);
    }
    path
}
