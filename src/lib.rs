//! Nervewire carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.
//!
//! The map, from what knows nothing to what knows all (`tests/architecture.rs` holds the order; `docs/architecture.md` says why):
//!
//! * numbers and names: [`ids`], [`time`], [`cursor`], [`query`], [`config`], [`metrics`], [`close`], [`sync`], [`memory`],
//!   [`descriptors`], [`whole`]
//! * one event: [`event`] (as sent), [`frame`] (numbered and encoded), [`filter`] (who asks, who may see)
//! * shared by many: [`ring`] and [`wake`] (fan-out without locks), [`index`] (subscribers by hash), [`store`] (log and records)
//! * who and what: [`auth`] (credential to right), [`tenant`] (the write side of an organization),
//!   [`resource`] (agents and messages)
//! * one connection: [`connection`] (as data), [`outcome`] (error to status or close), [`worker`] (the loop that serves them)
//! * the outside: [`http`], [`server`] and [`lifecycle`], [`cli`] and [`client`], [`mod@bench`] (the load tester)

pub mod auth;
pub mod bench;
pub mod cli;
pub mod client;
pub mod close;
pub mod config;
pub mod connection;
pub mod cursor;
pub mod descriptors;
pub mod event;
pub mod filter;
pub mod frame;
pub mod http;
pub mod ids;
pub mod index;
pub mod lifecycle;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod outcome;
pub mod query;
pub mod resource;
pub mod ring;
pub mod server;
pub mod store;
pub mod sync;
pub mod tenant;
pub mod time;
pub mod wake;
pub mod whole;
pub mod worker;
