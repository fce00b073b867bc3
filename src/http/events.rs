//! `POST /api/v1/events`: one event, an array, or NDJSON; all of it or nothing.

use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::{Publish, Use};
use crate::outcome::Refusal;
use crate::tenant::idempotency::{Keyed, PublishOptions};
use crate::tenant::intake;

use super::api::parameters::{Ack, IdempotencyKey};
use super::api::schemas::NewEventOrBatch;
use super::exchange::Exchange;
use super::once::idempotency_key;
use super::parameters::unknown;
use super::respond::{Answer, REPLAYED};

/// The ids of what was published, in the order it was given.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the answer is written by hand: a batch has a thousand of them")]
struct Published {
    ids: Vec<String>,
}

/// Publishes one event or a batch of at most 1,000: all of it or nothing.
///
/// # Errors
/// 400 naming the field, 401, 403, 409, 413, 415, 429, 503.
#[utoipa::path(
    post,
    path = "/api/v1/events",
    tag = "events",
    params(IdempotencyKey, Ack),
    request_body(content(
        (NewEventOrBatch = "application/json"),
        (String = "application/x-ndjson"),
        (String = "application/ndjson"),
    )),
    responses((status = 201, description = "It is on disk, or as far as was asked for.", body = Published))
)]
pub async fn post(x: &mut Exchange) -> Result<Answer, Refusal> {
    x.shared().serving()?;
    let principal = x.principal(Use::Rest)?;
    let right = principal.authorize::<Publish>()?;
    let durable = wants_durable(x)?;
    let format = x.expect_type(&["application/json", "application/x-ndjson", "application/ndjson"])?;
    let key = idempotency_key(x)?;
    x.shared().tenants.check_writable()?;
    let body = x.body().await?;
    x.worker.enter(principal.tenant, body.len()).await;
    let text = std::str::from_utf8(&body).map_err(|_| Refusal::invalid("", "is not UTF-8"))?;
    let mut events = if format == 0 { intake::parse_json(text)? } else { intake::parse_ndjson(text)? };
    let single = format == 0 && events.len() == 1 && !text.trim_ascii_start().starts_with('[');
    for (at, event) in events.iter_mut().enumerate() {
        right.check(event).map_err(|denied| {
            let details = if single { serde_json::Value::Null } else { json!({"item": at}) };
            Refusal { details, ..denied.into() }
        })?;
    }
    x.shared().rates.publish(&principal, events.len(), x.shared().clock.now_ms())?;
    let keyed = key.map(|key| Keyed::of_request(&principal.subject(), "POST", &x.path, &key, &body));
    let tenant = x.tenant(&principal).await?;
    let tenants = &x.shared().tenants;
    let options = PublishOptions { origin: 0, durable, key: keyed };
    let actor = x.shared().auth.actor(&right);
    let published = tenants.publish_events(actor, &tenant, &mut events, options, &x.worker).await?;
    let mut body = Vec::with_capacity(48 + published.ids.len() * 25);
    body.extend_from_slice(b"{\"data\":{\"ids\":[");
    for (at, id) in published.ids.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        body.extend_from_slice(&tenants.cursors().encode(tenant.id(), *id).0);
        body.push(b'"');
    }
    body.extend_from_slice(b"]},\"success\":true}");
    let mut answer = Answer::raw_json(StatusCode::CREATED, body);
    if published.replayed {
        answer.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// `?ack=`: whether the answer waits for the disk.
fn wants_durable(x: &Exchange) -> Result<bool, Refusal> {
    let mut durable = true;
    for (name, value) in x.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("ack", "memory") => durable = false,
            ("ack", "durable" | "") => {}
            ("ack", _) => return Err(Refusal::bad_request("ack: must be memory or durable")),
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(durable)
}
