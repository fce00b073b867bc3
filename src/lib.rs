//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod auth;
pub mod cli;
pub mod client;
pub mod close;
pub mod config;
pub mod connection;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod frame;
pub mod http;
pub mod ids;
pub mod index;
pub mod lifecycle;
pub mod metrics;
pub mod outcome;
pub mod query;
pub mod ring;
pub mod server;
pub mod store;
pub mod sync;
pub mod tenant;
pub mod time;
pub mod wake;
pub mod worker;
