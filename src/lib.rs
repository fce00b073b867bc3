//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod cli;
pub mod client;
pub mod config;
pub mod cursor;
pub mod event;
pub mod frame;
pub mod ids;
pub mod time;
