//! The Rust client of Nervewire: publishing, subscriptions that reconnect with their cursor, LLM streams, and
//! resources.
//!
//! Rules that keep it correct:
//!
//! * Every wait has a limit ([`Timeouts`], [`Backoff`]); every body, line and frame has a size limit.
//! * A request is sent again only if that does no harm: no byte of it was sent, its credential was refused,
//!   it only reads, or the daemon carries it out once however often it is sent (an idempotency key, a chunk's
//!   index). Without a response it is unknown whether the request was carried out.
//! * Each connection is driven by a task whose handle the client owns; dropping the client ends it.
//! * The credential is sent in the `Authorization` header and nowhere else.

#![doc = include_str!("../README.md")]

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
mod stream_end;
mod streams;
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
pub use item::{Gap, Item, ReceivedEvent, Status, StreamDone};
pub use publish::{Ack, Publisher};
pub use request::{Request, Response, Timeouts};
pub use resources::{
    Agent, AgentChange, AgentStatus, Collection, ListOptions, Message, NewAgent, NewMessage, NewTool, Page,
    Tool, ToolChange, Versioned,
};
pub use sse_parser::{SseError, SseEvent, SseParser};
pub use sse_stream::SseStream;
pub use stream_end::{StreamEnd, StreamFailure, StreamState};
pub use streams::{
    GetStream, OpenStream, PartType, StreamError, StreamFilter, StreamInfo, StreamItem, StreamPart,
    StreamReader, StreamText, StreamWriter,
};
pub use subscription::{Subscription, Transport};
pub use url::encode;
pub use ws_stream::{WsMessage, WsStream};
