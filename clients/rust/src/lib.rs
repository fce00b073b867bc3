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
//! // Client::builder(url).credential_provider(async || Some(fetch_token().await)).build()
//!
//! // Create an agent and publish a message to it.
//! let new = NewAgent { name: Some("ada".into()), ..NewAgent::default() };
//! let agent = client.agents().create(&new).await?.value;
//! client.publish(&Event::message(agent.id.as_str(), "user-1", "hello")).await?;
//!
//! // Read all messages from the oldest event on, across reconnects.
//! let filter = Filter::new().types(["message"]).agents([agent.id]);
//! let mut subscription = client.subscribe(filter).position(Position::Earliest);
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
mod client;
mod connection;
mod credential;
mod endpoint;
mod error;
pub mod event;
mod filter;
mod frame_handler;
mod item;
mod macros;
mod publish;
mod read_timeout;
mod request;
pub mod resources;
mod retry;
mod send;
mod sse_parser;
mod sse_stream;
mod subscription;
mod sync;
mod url;
mod ws_stream;

pub use backoff::Backoff;
pub use client::{Client, ClientBuilder};
pub use credential::{Credential, PROVIDER_WAIT_MAX};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ApiError, ClientError};
pub use event::Event;
pub use filter::{Filter, Position};
pub use item::{Gap, Item, ReceivedEvent, Status};
pub use publish::{Ack, Publisher};
pub use request::{Request, Response, Timeouts};
pub use resources::{
    Agent, AgentChange, AgentStatus, Collection, ListOptions, Message, NewAgent, NewMessage, NewTool, Page,
    Tool, ToolChange, Versioned,
};
pub use sse_parser::{SseError, SseEvent, SseParser};
pub use sse_stream::SseStream;
pub use subscription::{Subscription, Transport};
pub use url::encode;
pub use ws_stream::{WsMessage, WsStream};
