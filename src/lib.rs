//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.

pub mod config;
