//! The documents of the API: OpenAPI 3.1 of what is asked over HTTP, AsyncAPI 3 of what flows over WebSocket and SSE.
//!
//! * Both are written from the code that serves: handlers' own types, the tables of events, frames and filters.
//! * What they say is the same for everybody, so it is made once, and nobody needs a credential to read it.

mod answers;
mod asyncapi;
mod examples;
#[cfg(test)]
mod frame_tests;
mod frames;
mod limits;
mod openapi;
pub(super) mod parameters;
pub(super) mod schemas;
pub(super) mod serve;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

/// The OpenAPI document, as it is served.
static OPENAPI: LazyLock<String> = LazyLock::new(|| pretty(&openapi::document()));
/// The AsyncAPI document, as it is served.
static ASYNCAPI: LazyLock<String> = LazyLock::new(|| pretty(&asyncapi::document()));

fn pretty(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}
