//! `POST /api/v1/events`: publishes one event, an array, or NDJSON. Either all events are published or none.

use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::{Authorized, Publish};
use crate::cursor::CURSOR_LEN;
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::idempotency::idempotency_key;
use crate::http::request::parameters::unknown;
use crate::http::response::{ApiResponse, REPLAYED};
use crate::http::schemas::NewEventOrBatch;
use crate::http::schemas::parameters::{AckParameter, IdempotencyKey};
use crate::tenant::admission::{AckMode, PublishKind, PublishRequest};
use crate::tenant::body_reader::{BodyFormat, BodyReader};
use crate::tenant::draft::DraftOptions;
use crate::tenant::idempotency::{DedupKey, Digest};
use crate::tenant::publish::PublishError;

/// Ids of the published events, in the order they were sent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the answer is written by hand: a batch has a thousand of them")]
struct Published {
    ids: Vec<String>,
}

/// Publishes one event or a batch of at most 1,000. Either all events are published or none.
///
/// # Errors
/// 400 naming the field, 401, 403, 409, 413, 415, 429, 503.
#[utoipa::path(
    post,
    path = "/api/v1/events",
    tag = "events",
    params(IdempotencyKey, AckParameter),
    request_body(content(
        (NewEventOrBatch = "application/json"),
        (String = "application/x-ndjson"),
        (String = "application/ndjson"),
    )),
    responses((status = 201, description = "The events are published, and on disk unless `ack=memory` was set.", body = Published))
)]
pub async fn publish(request: &mut ApiRequest, right: Authorized<Publish>) -> HandlerResult {
    let ack = ack_mode(request)?;
    let format =
        match request.expect_type(&["application/json", "application/x-ndjson", "application/ndjson"])? {
            0 => BodyFormat::Json,
            _ => BodyFormat::Lines,
        };
    let key = idempotency_key(request)?;
    request.shared().tenants.check_writable()?;
    let expected_bytes = request.begin_body(request.shared().config.limits.body_bytes)?;
    let mut reader = BodyReader::new(format);
    let options = DraftOptions { expected_bytes, ..DraftOptions::default() };
    let mut events = request.shared().tenants.draft(options);
    let mut digest = key.is_some().then(Digest::new);
    loop {
        let part = request.next_part().await?;
        let last = part.is_none() || request.body_is_over();
        let part = part.unwrap_or_default();
        request.worker.enter(right.principal().tenant, part.len()).await;
        if let Some(digest) = &mut digest {
            digest.update(&part);
        }
        events.received(request.shared().clock.now_ms());
        reader.read(&part, last, &mut |mut event| events.push(&right, &mut event));
        request.count_body(reader.unread_bytes() + events.memory_bytes())?;
        if last {
            break;
        }
    }
    request.end_body()?;
    let is_batch = reader.is_batch();
    reader.finish()?;
    let key = key.zip(digest).map(|(key, digest)| {
        DedupKey::of_request(&right.principal().subject(), "POST", &request.path, &key, digest.finish())
    });
    let publish_request = PublishRequest {
        actor: request.shared().auth.actor(&right),
        tenant: right.principal().tenant,
        events,
        kind: PublishKind::Events { key, ack },
    };
    let published = request.shared().tenants.publish(publish_request, &request.worker).await;
    let published = published.map_err(|error| match error {
        PublishError::Denied { item, .. } if is_batch => {
            ErrorResponse { details: json!({"item": item}), ..error.into() }
        }
        error => error.into(),
    })?;
    let mut body = Vec::with_capacity(48 + published.ids.len() * (CURSOR_LEN + 3));
    body.extend_from_slice(b"{\"data\":{\"ids\":[");
    for (at, id) in published.ids.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        body.extend_from_slice(&id.0);
        body.push(b'"');
    }
    body.extend_from_slice(b"]},\"success\":true}");
    let mut answer = ApiResponse::raw_json(StatusCode::CREATED, body);
    if published.replayed {
        answer.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Parses `?ack=`.
fn ack_mode(request: &ApiRequest) -> Result<AckMode, ErrorResponse> {
    let mut ack = AckMode::Durable;
    if request.query.is_empty() {
        return Ok(ack);
    }
    for (name, value) in request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("ack", "memory") => ack = AckMode::Memory,
            ("ack", "durable" | "") => {}
            ("ack", _) => return Err(ErrorResponse::bad_request("ack: must be memory or durable")),
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(ack)
}
