//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod auth;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod frame;
pub mod ids;
pub mod query;
pub mod time;
