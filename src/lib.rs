//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.
//!
//! The modules, from the lowest to the highest rank (`tests/architecture.rs` checks the order;
//! `docs/architecture.md` explains it):
//!
//! * numbers and names: [`ids`], [`time`], [`cursor`], [`query`], [`config`], [`metrics`], [`close`],
//!   [`sync`], [`allocator`], [`descriptors`], [`json_integer`], [`transport`]
//! * one event: [`event`] (as sent), [`frame`] (numbered and encoded), [`filter`] (which subscriber gets it)
//! * shared by many connections: [`event_ring`] and [`wake`] (fan-out without locks), [`index`] (subscribers by
//!   hash), [`store`] (log and records)
//! * rights and data: [`auth`] (credential to right), [`tenant`] (the write side of an organization),
//!   [`domain`] (agents and messages)
//! * one connection: [`connection`] (as data), [`error_response`] (error to status or close), [`worker`] (the loop
//!   that serves connections)
//! * the outer layers: [`http`], [`server`] and [`lifecycle`], [`cli`]
//!
//! The load tester behind `nervewire bench` is a crate of its own, `benches/load`.

pub mod allocator;
pub mod auth;
pub mod cli;
pub mod close;
pub mod config;
pub mod connection;
pub mod cursor;
pub mod descriptors;
pub mod domain;
pub mod error_response;
pub mod event;
pub mod event_ring;
pub mod filter;
pub mod frame;
pub mod http;
pub mod ids;
pub mod index;
pub mod json_integer;
pub mod lifecycle;
pub mod memory_limit;
pub mod metrics;
pub mod query;
pub mod server;
pub mod store;
pub mod sync;
pub mod tenant;
pub mod time;
pub mod transport;
pub mod wake;
pub mod worker;
