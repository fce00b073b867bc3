//! HTTP: finds the handler for a request's method and path, and turns what handlers return into responses.
//!
//! * Every response has `x-request-id`, and CORS headers if the origin is allowed. All error bodies have the
//!   same shape.
//! * Handlers authenticate first. Only [`crate::auth`] decides what a principal may do.
//! * A handler that subscribes returns a [`Subscribed`]. On HTTP/1 the socket is then taken from hyper
//!   (`conn.rs`).

mod access;
pub mod admin;
pub mod admin_listener;
mod api;
mod backup;
pub mod body;
mod client_address;
pub mod conn;
pub mod cors;
pub mod criteria;
mod deadlines;
pub mod events;
pub mod exchange;
mod exposition;
pub mod h2;
pub mod health;
pub mod history;
mod history_reader;
mod host;
mod incoming;
mod metrics_page;
mod misread;
mod once;
mod parameters;
mod proxy_protocol;
mod resources;
pub mod respond;
mod routes;
pub mod subscribe;
mod transport;
mod version;

use http::{Method, StatusCode};

use crate::connection::shares::Claim;
use crate::outcome::Refusal;

pub use resources::users::login::LOGIN_BYTES;

use body::Parts;
use exchange::Exchange;
use respond::Answer;
use routes::Special;
use subscribe::Subscribed;

/// The result of a handler.
pub enum Handled {
    /// A complete response.
    Answer(Answer),
    /// A response whose body is produced while it is sent.
    Streamed(Answer, Box<dyn Parts>, Claim),
    /// A subscription that starts now.
    Subscribed(Box<Subscribed>),
}

impl From<Answer> for Handled {
    fn from(answer: Answer) -> Handled {
        Handled::Answer(answer)
    }
}

/// Finds and runs the handler of a request.
///
/// # Errors
/// The handler's error; 404 for an unknown path, 405 for a known path with another method.
pub async fn handle(x: &mut Exchange) -> Result<Handled, Refusal> {
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
pub(crate) fn created(data: impl serde::Serialize) -> Answer {
    Answer::data(StatusCode::CREATED, data)
}
