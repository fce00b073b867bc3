//! HTTP: finds the handler for a request's method and path, and turns what handlers return into responses.
//!
//! * Every response has `x-request-id`, and CORS headers if the origin is allowed. All error bodies have the
//!   same shape.
//! * Handlers authenticate first. Only [`crate::auth`] decides what a principal may do.
//! * A handler that subscribes returns a [`GrantedSubscription`]. On HTTP/1 the socket is then taken from
//!   hyper (`connection/h1.rs`).
//!
//! What is where:
//! * `routes.rs`: every route, in one table; `access.rs`: what a route requires of its caller; `dispatch.rs`:
//!   finds the handler of a request.
//! * `events/`, `resources/`, `admin/`, `health.rs`: the handlers. `admin_listener/` is a listener of its
//!   own.
//! * `request/`, `response/`: what handlers read and return.
//! * `connection/`: a connection under hyper; `deadlines.rs`: its time limits.
//! * `schemas/`: the parts of the API's documents that handlers name. `api_docs/`: the OpenAPI and AsyncAPI
//!   documents, and the page that shows them.

mod access;
pub mod admin;
pub mod admin_listener;
mod api_docs;
pub mod connection;
mod deadlines;
mod dispatch;
pub mod events;
pub mod health;
pub mod request;
mod resources;
pub mod response;
mod routes;
mod schemas;

use http::{Method, StatusCode};

use crate::connection::byte_shares::ByteClaim;
use crate::error_response::ErrorResponse;

pub use connection::hyper_io::{HEAD_BYTES, HEADERS};
pub use connection::service::ListenerKind;
pub use resources::users::login::LOGIN_BYTES;

use events::subscribe::GrantedSubscription;
use request::{ApiRequest, cors};
use response::ApiResponse;
use response::body::BodyParts;
use routes::Special;

/// The result of a handler that returns a complete response.
pub(crate) type HandlerResult = Result<ApiResponse, ErrorResponse>;

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
pub async fn handle(request: &mut ApiRequest) -> Result<Handled, ErrorResponse> {
    if request.method == Method::OPTIONS {
        return Ok(cors::preflight(request).into());
    }
    let path = request.path.clone();
    let (route, handler, names) = dispatch::find(&request.method, &path)?;
    let answer = handler(request, names).await;
    // A commit checks the credential itself. Any other response is sent only if the credential is still
    // valid, because the request may have waited for a lock, for the store or for events.
    let is_refusal = answer.as_ref().is_err_and(|refusal| refusal.status.is_client_error());
    if is_refusal || route.special == Special::AnswerOnly || request.method.is_safe() {
        request.confirm()?;
    }
    answer
}

/// Returns 200 or 201 with `{data, success:true}`.
pub(crate) fn created(data: impl serde::Serialize) -> ApiResponse {
    ApiResponse::data(StatusCode::CREATED, data)
}
