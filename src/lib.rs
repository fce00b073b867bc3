//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod close;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod frame;
pub mod ids;
pub mod metrics;
pub mod query;
pub mod time;
pub mod ring;
pub mod sync;
pub mod wake;
pub mod config;
