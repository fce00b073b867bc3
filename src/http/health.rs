//! Whether the daemon lives, and whether it serves.

use http::StatusCode;
use serde_json::{Value, json};

use crate::store::StoreState;
use crate::worker::Shared;

use super::respond::Answer;

/// Whether it lives: 200 as long as it can answer.
#[must_use]
pub fn live(shared: &Shared) -> Answer {
    Answer::json(StatusCode::OK, &report(shared).1)
}

/// Whether it serves: 200, or 503 with what is in the way.
#[must_use]
pub fn ready(shared: &Shared) -> Answer {
    let (is_ready, body) = report(shared);
    Answer::json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

fn report(shared: &Shared) -> (bool, Value) {
    let store = match shared.tenants.store().state() {
        StoreState::Writable => "ok",
        StoreState::Reserve => "no_space",
        StoreState::Reopening => "reopening",
        _ => "read_only",
    };
    let stopping = shared.is_stopping();
    let ready = store == "ok" && !stopping;
    let status = match (ready, stopping) {
        (true, _) => "healthy",
        (_, true) => "stopping",
        _ => "degraded",
    };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": crate::time::rfc3339(shared.clock.now_ms()),
        "checks": {"store": store, "accepting": !stopping},
    });
    (ready, body)
}
