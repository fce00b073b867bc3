//! Whether the daemon lives, and whether it serves.

use http::StatusCode;
use serde_json::json;

use crate::outcome::Refusal;
use crate::store::StoreState;
use crate::worker::Shared;

use super::exchange::Exchange;
use super::respond::Answer;

/// `/health`, `/health/live`, `/health/ready`.
///
/// # Errors
/// 404 for anything else below `/health`.
pub fn answer(x: &Exchange, rest: &[&str]) -> Result<Answer, Refusal> {
    report(x.shared(), rest).ok_or_else(Refusal::not_found)
}

/// The same without a request, for the admin listener.
#[must_use]
pub fn report(shared: &Shared, rest: &[&str]) -> Option<Answer> {
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
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match rest {
        [] | ["ready"] => Some(Answer::json(code, &body)),
        ["live"] => Some(Answer::json(StatusCode::OK, &body)),
        _ => None,
    }
}
