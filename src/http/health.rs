//! Whether the daemon lives, and whether it serves.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreState;
use crate::worker::Shared;

use crate::outcome::Refusal;

use super::exchange::Exchange;
use super::respond::Answer;

/// How the daemon is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy`, `degraded` or `stopping`.
    status: &'static str,
    /// The daemon's version.
    version: &'static str,
    /// Now.
    #[schema(format = DateTime)]
    timestamp: String,
    /// What it is made of.
    checks: Checks,
}

/// What a daemon's health is made of.
#[derive(Serialize, ToSchema)]
#[schema(as = HealthChecks)]
struct Checks {
    /// `ok`, `no_space`, `reopening` or `read_only`.
    store: &'static str,
    /// Whether it takes new connections.
    accepting: bool,
}

/// Tells whether the process is alive: 200 as long as it can answer.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    responses((status = 200, description = "The process is alive.", body = Health))
)]
pub async fn live(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(liveness(x.shared()))
}

/// Tells whether the daemon serves: 200, or 503 with what prevents it.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    responses(
        (status = 200, description = "The daemon serves.", body = Health),
        (status = 503, description = "The daemon does not serve.", body = Health),
    )
)]
pub async fn ready(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(readiness(x.shared()))
}

/// Tells how the daemon is: 200 while it serves, else 503.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    responses(
        (status = 200, description = "The daemon serves.", body = Health),
        (status = 503, description = "The daemon does not serve.", body = Health),
    )
)]
pub async fn health(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(readiness(x.shared()))
}

/// 200 with the daemon's health.
pub(super) fn liveness(shared: &Shared) -> Answer {
    answer(StatusCode::OK, &report(shared))
}

/// 200 with the daemon's health while it serves, else 503.
pub(super) fn readiness(shared: &Shared) -> Answer {
    let report = report(shared);
    let serves = report.status == "healthy";
    answer(if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &report)
}

fn answer(status: StatusCode, health: &Health) -> Answer {
    Answer::raw_json(status, serde_json::to_vec(health).unwrap_or_default()) // texts and a flag: nothing can fail
}

fn report(shared: &Shared) -> Health {
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
    Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        timestamp: crate::time::rfc3339(shared.clock.now_ms()),
        checks: Checks { store, accepting: !stopping },
    }
}
