//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod cli;
pub mod client;
pub mod close;
pub mod auth;
pub mod config;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod frame;
pub mod ids;
pub mod metrics;
pub mod query;
pub mod time;
/// Stands in for `connection/mod.rs`, until it is whole.
pub mod connection {
    pub mod client;
}
pub mod index;
pub mod ring;
pub mod sync;
pub mod wake;
