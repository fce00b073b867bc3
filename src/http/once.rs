//! `Idempotency-Key` on requests other than publishing: done once, answered as often as asked.
//!
//! * The key's row joins the commit of what was done, so after any crash both are there or neither.
//! * A repeat shows what was made as it was then, and its `ETag` is that version's.
//! * An answer that carries a secret is not kept: a repeat learns the id of what was made, if it has one, never the secret.

use http::header::HeaderValue;
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

use crate::auth::{Authorized, Right};
use crate::outcome::Refusal;
use crate::store::{self, Rows};
use crate::tenant::idempotency::{Digest, Keyed, Once};
use crate::worker::Shared;

use super::exchange::Exchange;
use super::respond::{Answer, REPLAYED};
use super::version::{of_version, version_of};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, bytes.
const KEY_BYTES: usize = 255;

/// Whose turn it is.
pub(super) enum Turn {
    /// To do it; `None`: without a key.
    First(Option<Once>),
    /// It was done: this is the answer.
    Repeat(Answer),
}

/// The request's key, if it has one.
///
/// # Errors
/// 400.
pub(super) fn idempotency_key(x: &Exchange) -> Result<Option<String>, Refusal> {
    let Some(key) = x.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match key.to_str().ok().filter(visible) {
        Some(key) if (1..=KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            Err(Refusal::bad_request(format!("Idempotency-Key: must be 1 to {KEY_BYTES} visible characters")))
        }
    }
}

/// Finds out whether this request is the first under its key; one that is not alone waits.
///
/// # Errors
/// 400 for the key, 401 where the credential ended while waiting, 409 where it was used with another body or for an answer that held a
/// secret, 503.
pub(super) async fn turn(
    shared: &Shared,
    x: &Exchange,
    right: &Authorized<impl Right>,
    body: &[u8],
) -> Result<Turn, Refusal> {
    let Some(key) = idempotency_key(x)? else { return Ok(Turn::First(None)) };
    let principal = right.principal();
    let keyed = Keyed::of_request(&principal.subject(), x.method.as_str(), &x.path, &key, Digest::of(body));
    match shared.tenants.once(shared.auth.actor(right), principal.tenant, keyed).await? {
        Ok(once) => Ok(Turn::First(Some(once))),
        Err(store::Answer::Stored { status, version, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut answer = Answer::raw_json(status, body);
            if let Some(version) = version {
                answer = of_version(answer, version);
            }
            answer.headers.insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(Turn::Repeat(answer))
        }
        Err(store::Answer::Withheld { id }) => {
            let message =
                "this was done under the same Idempotency-Key; its answer held a secret and is not repeated";
            let details = if id.is_empty() { Value::Null } else { json!({"id": id}) };
            Err(Refusal { details, ..Refusal::conflict(message) })
        }
        Err(store::Answer::Published { .. }) => {
            Err(Refusal::conflict("the Idempotency-Key was used to publish"))
        }
    }
}

/// The rows that keep an answer without a secret; nothing is answered where nothing is to be kept.
pub(super) fn kept(once: Option<&Once>, answer: impl FnOnce() -> Answer) -> Rows {
    let stored = || {
        let answer = answer();
        store::Answer::Stored {
            status: answer.status.as_u16(),
            version: version_of(&answer),
            body: answer.body.into_owned(),
        }
    };
    once.map_or_else(Rows::new, |once| once.rows(stored()))
}

/// The rows that remember that something with a secret was made.
pub(super) fn withheld(once: Option<&Once>, id: &str) -> Rows {
    once.map_or_else(Rows::new, |once| once.rows(store::Answer::Withheld { id: id.to_owned() }))
}

/// [`withheld`], written: for what is kept nowhere, so that its row is all there is to commit.
///
/// # Errors
/// 503.
pub(super) async fn withhold(
    shared: &Shared,
    right: &Authorized<impl Right>,
    once: Option<&Once>,
    id: &str,
) -> Result<(), Refusal> {
    if once.is_some() {
        let mut rows = withheld(once, id);
        rows.hold_room(shared.tenants.store().reserve(right.principal().tenant, rows.growth())?);
        shared.tenants.write(shared.auth.actor(right), rows).await?;
    }
    Ok(())
}
