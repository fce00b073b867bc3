//! Events over HTTP: publish, read history, subscribe.
//!
//! * `publish`: `POST /api/v1/events`.
//! * `history` and `history_reader`: `GET /api/v1/events`, history and long-poll.
//! * `subscribe`: `/api/v1/ws`, `/api/v1/sse`, `/api/v1/sse/llm`.
//! * `stream_query`: the query parameters that reading and subscribing share.

pub mod history;
mod history_reader;
pub mod publish;
pub mod stream_query;
pub mod subscribe;
