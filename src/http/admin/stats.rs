//! `/stats`: statistics of one organization.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Manage};
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::OrganizationParameter;

use super::only_parameter;

/// Statistics of an organization.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsView<'a> {
    /// Organization that the statistics are about.
    org_id: &'a str,
    /// Connections that are open now.
    connections: usize,
    /// Events that are stored.
    stored_events: u64,
    /// Bytes of the stored events.
    stored_bytes: u64,
    /// Stored resources, including versions of memories.
    stored_rows: u64,
    /// Bytes stored besides events: resources with their indexes, idempotency rows and credentials.
    row_bytes: u64,
    /// Stored `Idempotency-Key`s and `message_id`s.
    idempotency_rows: u64,
    /// Events that have a sequence and are not on disk yet.
    uncommitted_events: u64,
    /// Time of live deliveries, from the publish to the end of the write. It restarts when the organization
    /// has had no subscriber.
    publish_to_send: TimesView,
    /// Cursor before the oldest stored event.
    oldest_cursor: &'a str,
    /// Cursor after the newest event.
    newest_cursor: &'a str,
}

/// Distribution of durations.
#[derive(Serialize, ToSchema)]
#[schema(as = Times)]
struct TimesView {
    /// Number of measurements.
    count: u64,
    /// Median, in microseconds.
    p50_us: u64,
    /// 99th percentile, in microseconds.
    p99_us: u64,
    /// Histogram with four buckets for each doubling of the time. Empty buckets are left out.
    buckets: Vec<TimesBucketView>,
}

/// One bucket of the histogram.
#[derive(Serialize, ToSchema)]
#[schema(as = TimesBucket)]
struct TimesBucketView {
    /// Upper bound in microseconds; `null` means no bound.
    under_us: Option<u64>,
    /// Number of measurements in this bucket.
    count: u64,
}

/// Gets statistics of an organization.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    tag = "organizations",
    params(OrganizationParameter),
    responses((status = 200, description = "The statistics.", body = StatsView))
)]
pub(crate) async fn get(request: &ApiRequest, right: Authorized<Manage>) -> HandlerResult {
    let org_id = only_parameter(request, "org_id")?;
    let organization = request.shared().auth.find_organization(&right, org_id.as_deref())?;
    let tenant = request.shared().tenants.open(organization.tenant).await?;
    let log = tenant.log();
    let cursors = request.shared().tenants.cursors();
    let usage = request.shared().tenants.store().usage(organization.tenant);
    let times = tenant.times().snapshot();
    let buckets = times.buckets().map(|(under_us, count)| TimesBucketView { under_us, count });
    Ok(ApiResponse::data(
        StatusCode::OK,
        StatsView {
            org_id: &organization.id,
            connections: request.shared().admission.of_organization(organization.tenant),
            stored_events: log.events(),
            stored_bytes: log.bytes(),
            stored_rows: usage.rows,
            row_bytes: usage.bytes,
            idempotency_rows: usage.idempotency_rows,
            uncommitted_events: tenant.last_visible().counter().saturating_sub(log.committed().counter()),
            publish_to_send: TimesView {
                count: times.count(),
                p50_us: times.quantile_us(0.5),
                p99_us: times.quantile_us(0.99),
                buckets: buckets.collect(),
            },
            oldest_cursor: cursors.encode(organization.tenant, log.oldest()).as_str(),
            newest_cursor: cursors.encode(organization.tenant, tenant.last_visible()).as_str(),
        },
    ))
}
