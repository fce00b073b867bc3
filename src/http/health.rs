//! Liveness and readiness of the daemon.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreState;
use crate::worker::SharedState;

use super::HandlerResult;
use super::request::ApiRequest;
use super::response::ApiResponse;

/// Health of the daemon.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy`, `degraded` or `stopping`.
    status: &'static str,
    /// Version of the daemon.
    version: &'static str,
    /// Time of the response.
    #[schema(format = DateTime)]
    timestamp: String,
    /// Individual checks.
    checks: Checks,
}

/// Individual health checks.
#[derive(Serialize, ToSchema)]
#[schema(as = HealthChecks)]
struct Checks {
    /// State of the store: `ok`, `no_space`, `reopening` or `read_only`.
    store: &'static str,
    /// True if the daemon accepts new connections.
    accepting: bool,
}

/// Checks that the process is alive: 200 as long as it can respond.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    responses((status = 200, description = "The process is alive.", body = Health))
)]
pub async fn live(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(liveness(request.shared()))
}

/// Checks that the daemon is ready: 200, or 503 with the reason.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    responses(
        (status = 200, description = "The daemon is ready.", body = Health),
        (status = 503, description = "The daemon is not ready.", body = Health),
    )
)]
pub async fn ready(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(readiness(request.shared()))
}

/// Gets the health of the daemon: 200 while it is ready, otherwise 503.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    responses(
        (status = 200, description = "The daemon is ready.", body = Health),
        (status = 503, description = "The daemon is not ready.", body = Health),
    )
)]
pub async fn health(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(readiness(request.shared()))
}

/// Returns 200 with the daemon's health.
pub(super) fn liveness(shared: &SharedState) -> ApiResponse {
    answer(StatusCode::OK, &report(shared))
}

/// Returns the daemon's health, with 200 while it is ready, otherwise 503.
pub(super) fn readiness(shared: &SharedState) -> ApiResponse {
    let report = report(shared);
    let serves = report.status == "healthy";
    answer(if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &report)
}

fn answer(status: StatusCode, health: &Health) -> ApiResponse {
    ApiResponse::raw_json(status, serde_json::to_vec(health).unwrap_or_default()) // texts and a flag: this cannot fail
}

fn report(shared: &SharedState) -> Health {
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
