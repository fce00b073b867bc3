//! The documents of the API: OpenAPI 3.1 for requests over HTTP, AsyncAPI 3 for frames over WebSocket and
//! SSE.
//!
//! * Both are generated from the code that serves: the handlers' types, and the tables of events, frames and
//!   filters.
//! * They are the same for every caller, so each is built once and needs no credential.

mod asyncapi;
mod examples;
mod field_limits;
#[cfg(test)]
mod frame_tests;
mod frames;
mod openapi;
mod responses;
pub(super) mod serve;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

/// The OpenAPI document as it is served.
static OPENAPI: LazyLock<String> = LazyLock::new(|| pretty(&openapi::document()));
/// The AsyncAPI document as it is served.
static ASYNCAPI: LazyLock<String> = LazyLock::new(|| pretty(&asyncapi::document()));

fn pretty(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}
