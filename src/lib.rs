//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod auth;
pub mod close;
pub mod config;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod frame;
pub mod ids;
pub mod metrics;
pub mod query;
pub mod ring;
pub mod store;
pub mod sync;
pub mod time;
pub mod wake;
