//! HTTP: finds the handler for a request's method and path, and turns what handlers return into responses.
//!
//! * Every response has `x-request-id`, and CORS headers if the origin is allowed. All error bodies have the
//!   same shape.
//! * Handlers authenticate first. Only [`crate::auth`] decides what a principal may do.
//! * A handler that subscribes returns a [`GrantedSubscription`]. On HTTP/1 the socket is then taken from hyper
//!   (`conn.rs`).

mod access;
pub mod admin;
pub mod admin_listener;
mod api;
mod backup;
mod client_address;
pub mod conn;
pub mod cors;
mod deadlines;
mod etag;
pub mod events;
mod exposition;
pub mod h2;
pub mod health;
pub mod history;
mod history_reader;
mod host;
mod idempotency;
mod json_error;
mod metrics_page;
mod parameters;
mod proxy_protocol;
pub mod request;
mod request_body;
mod resources;
pub mod response;
pub mod response_body;
mod routes;
pub mod stream_query;
pub mod subscribe;
mod transport;

use http::{Method, StatusCode};

use crate::connection::byte_shares::ByteClaim;
use crate::error_response::ErrorResponse;

pub use resources::users::login::LOGIN_BYTES;

use request::ApiRequest;
use response::ApiResponse;
use response_body::BodyParts;
use routes::Special;
use subscribe::GrantedSubscription;

/// The result of a handler.
pub enum Handled {
    /// A complete response.
    Answer(ApiResponse),
    /// A response whose body is produced while it is sent.
    Streamed(ApiResponse, Box<dyn BodyParts>, ByteClaim),
    /// A subscription that starts now.
    Subscribed(Box<GrantedSubscription>),
}

impl From<ApiResponse> for Handled {
    fn from(answer: ApiResponse) -> Handled {
        Handled::Answer(answer)
    }
}

/// Finds and runs the handler of a request.
///
/// # Errors
/// The handler's error; 404 for an unknown path, 405 for a known path with another method.
pub async fn handle(x: &mut ApiRequest) -> Result<Handled, ErrorResponse> {
    if x.method == Method::OPTIONS {
        return Ok(cors::preflight(x).into());
    }
    let path = x.path.clone();
    let (route, names) = routes::find(&x.method, &path)?;
    let answer = (route.serve)(x, names).await;
    // A commit checks the credential itself. Any other response is sent only if the credential is still
    // valid, because the request may have waited for a lock, for the store or for events.
    let is_refusal = answer.as_ref().is_err_and(|refusal| refusal.status.is_client_error());
    if is_refusal || route.special == Special::AnswerOnly || x.method.is_safe() {
        x.confirm()?;
    }
    answer
}

/// Returns 200 or 201 with `{data, success:true}`.
pub(crate) fn created(data: impl serde::Serialize) -> ApiResponse {
    ApiResponse::data(StatusCode::CREATED, data)
}
