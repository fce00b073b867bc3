//! `/stats`: an organization in numbers.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Authorized, Manage};
use crate::outcome::Refusal;

use super::super::api::parameters::OfOrganization;
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::only_parameter;

/// An organization in numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct View<'a> {
    /// Which.
    org_id: &'a str,
    /// Open now.
    connections: usize,
    /// Events that are kept.
    stored_events: u64,
    /// Their bytes.
    stored_bytes: u64,
    /// Resources that are kept, memories' versions included.
    stored_rows: u64,
    /// Bytes of what is kept besides events: resources with their indexes, idempotency rows, credentials.
    row_bytes: u64,
    /// Remembered `Idempotency-Key`s and `message_id`s.
    idempotency_rows: u64,
    /// Events that are numbered and not yet on disk.
    uncommitted_events: u64,
    /// How long live deliveries took from publishing to the end of the write, since it last had no subscriber.
    publish_to_send: Times,
    /// Before the oldest event that is kept.
    oldest_cursor: &'a str,
    /// After the newest.
    newest_cursor: &'a str,
}

/// How long something took.
#[derive(Serialize, ToSchema)]
#[schema(as = Times)]
struct Times {
    /// How often it happened.
    count: u64,
    /// Microseconds that half of them are under.
    p50_us: u64,
    /// Microseconds that 99 of 100 are under.
    p99_us: u64,
    /// Four to an octave; those that are not empty.
    buckets: Vec<Bucket>,
}

/// How many took so long.
#[derive(Serialize, ToSchema)]
#[schema(as = TimesBucket)]
struct Bucket {
    /// Microseconds they are under; `null`: no bound.
    under_us: Option<u64>,
    /// How many.
    count: u64,
}

/// Shows an organization in numbers.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    tag = "organizations",
    params(OfOrganization),
    responses((status = 200, description = "The numbers.", body = View))
)]
pub(in crate::http) async fn get(x: &Exchange, by: Authorized<Manage>) -> Result<Answer, Refusal> {
    let org_id = only_parameter(x, "org_id")?;
    let organization = x.shared().auth.find_organization(&by, org_id.as_deref())?;
    let tenant = x.shared().tenants.open(organization.tenant).await?;
    let log = tenant.log();
    let cursors = x.shared().tenants.cursors();
    let usage = x.shared().tenants.store().usage(organization.tenant);
    let times = tenant.times().snapshot();
    let buckets = times.buckets().map(|(under_us, count)| Bucket { under_us, count });
    Ok(Answer::data(
        StatusCode::OK,
        View {
            org_id: &organization.id,
            connections: x.shared().admission.of_organization(organization.tenant),
            stored_events: log.events(),
            stored_bytes: log.bytes(),
            stored_rows: usage.rows,
            row_bytes: usage.bytes,
            idempotency_rows: usage.idempotency_rows,
            uncommitted_events: tenant.head().counter().saturating_sub(log.committed().counter()),
            publish_to_send: Times {
                count: times.count(),
                p50_us: times.quantile_us(0.5),
                p99_us: times.quantile_us(0.99),
                buckets: buckets.collect(),
            },
            oldest_cursor: cursors.encode(organization.tenant, log.oldest()).as_str(),
            newest_cursor: cursors.encode(organization.tenant, tenant.head()).as_str(),
        },
    ))
}
