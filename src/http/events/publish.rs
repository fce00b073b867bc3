//! `POST /api/v1/events`: publishes one event, an array, or NDJSON. Either all events are published or none.

use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::{Authorized, Publish, PublishDenied};
use crate::cursor::CURSOR_LEN;
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::idempotency::idempotency_key;
use crate::http::request::parameters::unknown;
use crate::http::response::{ApiResponse, REPLAYED};
use crate::http::schemas::NewEventOrBatch;
use crate::http::schemas::parameters::{AckParameter, IdempotencyKey};
use crate::tenant::body_reader::{BodyFormat, BodyReader};
use crate::tenant::draft::Draft;
use crate::tenant::idempotency::{DedupKey, Digest, PublishOptions};

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
    let principal = right.principal().clone();
    let durable = wants_durable(request)?;
    let format =
        match request.expect_type(&["application/json", "application/x-ndjson", "application/ndjson"])? {
            0 => BodyFormat::Json,
            _ => BodyFormat::Lines,
        };
    let key = idempotency_key(request)?;
    request.shared().tenants.check_writable()?;
    let expected = request.begin_body(request.shared().config.limits.body_bytes)?;
    let mut intake = PublishBody::new(format, request.shared().tenants.draft(0, expected), &right);
    let mut digest = key.is_some().then(Digest::new);
    loop {
        let part = request.next_part().await?;
        let last = part.is_none() || request.body_is_over();
        let part = part.unwrap_or_default();
        request.worker.enter(principal.tenant, part.len()).await;
        if let Some(digest) = &mut digest {
            digest.update(&part);
        }
        intake.read(&part, last, request.shared().clock.now_ms());
        request.count_body(intake.memory_bytes())?;
        if last {
            break;
        }
    }
    request.end_body()?;
    let (draft, events) = intake.finish()?;
    request.shared().tenants.rates().publish(&principal, events, request.shared().clock.now_ms())?;
    let keyed = key.zip(digest).map(|(key, digest)| {
        DedupKey::of_request(&principal.subject(), "POST", &request.path, &key, digest.finish())
    });
    let tenant = request.tenant(&principal).await?;
    let tenants = &request.shared().tenants;
    let options = PublishOptions { durable, key: keyed };
    let actor = request.shared().auth.actor(&right);
    let published = tenants.publish_events(actor, &tenant, draft, options, &request.worker).await?;
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

/// The events of a request while its body arrives: parsed, checked against the publisher's rights, and
/// encoded.
struct PublishBody<'r> {
    reader: BodyReader,
    draft: Draft,
    right: &'r Authorized<Publish>,
    events: usize,
    /// The first event that the publisher may not publish, with its index. No later event is encoded.
    denied: Option<(usize, PublishDenied)>,
}

impl<'r> PublishBody<'r> {
    fn new(format: BodyFormat, draft: Draft, right: &'r Authorized<Publish>) -> PublishBody<'r> {
        PublishBody { reader: BodyReader::new(format), draft, right, events: 0, denied: None }
    }

    /// Parses the next part of the body, which arrived at `now_ms`. `last` is true for the last part.
    fn read(&mut self, part: &[u8], last: bool, now_ms: u64) {
        let PublishBody { reader, draft, right, events, denied } = self;
        draft.received(now_ms);
        reader.read(part, last, &mut |mut event| {
            if denied.is_none() {
                match right.check(&mut event) {
                    Ok(()) => draft.push(&mut event),
                    Err(error) => *denied = Some((*events, error)),
                }
            }
            *events += 1;
        });
    }

    /// Bytes of memory in use.
    fn memory_bytes(&self) -> usize {
        self.reader.unread_bytes() + self.draft.memory_bytes()
    }

    /// Returns the events to publish, and their number, once the whole body has arrived.
    ///
    /// # Errors
    /// 400 for an invalid event, 403 for one that the caller may not publish.
    fn finish(self) -> Result<(Draft, usize), ErrorResponse> {
        let is_batch = self.reader.is_batch();
        self.reader.finish()?;
        match self.denied {
            None => Ok((self.draft, self.events)),
            Some((at, denied)) => {
                let details = if is_batch { json!({"item": at}) } else { serde_json::Value::Null };
                Err(ErrorResponse { details, ..denied.into() })
            }
        }
    }
}

/// Parses `?ack=`. Returns true if the response must wait for the disk.
fn wants_durable(request: &ApiRequest) -> Result<bool, ErrorResponse> {
    if request.query.is_empty() {
        return Ok(true);
    }
    let mut durable = true;
    for (name, value) in request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("ack", "memory") => durable = false,
            ("ack", "durable" | "") => {}
            ("ack", _) => return Err(ErrorResponse::bad_request("ack: must be memory or durable")),
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(durable)
}
