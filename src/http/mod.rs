//! HTTP: from a request's method and path to its handler, and from what handlers answer to responses.
//!
//! * Every answer carries `x-request-id`, and CORS headers where the origin is allowed; every non-2xx body has one shape.
//! * Handlers authenticate first and learn what a principal may do from [`crate::auth`] alone.
//! * A handler that subscribes answers with a [`Subscribed`]; on HTTP/1 its socket then leaves hyper (`conn.rs`).

pub mod admin;
pub mod admin_listener;
pub mod body;
pub mod conn;
pub mod cors;
pub mod criteria;
pub mod events;
pub mod exchange;
pub mod health;
pub mod history;
pub mod metrics_page;
mod once;
mod resources;
pub mod respond;
pub mod subscribe;
mod transport;

use http::{Method, StatusCode};

use crate::outcome::Refusal;

use exchange::Exchange;
use respond::Answer;
use subscribe::Subscribed;

/// What a handler came to.
pub enum Handled {
    /// An answer, complete.
    Answer(Answer),
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
/// The handler's refusal; 404 for an unknown path, 405 for a known one with another method.
pub async fn handle(x: &mut Exchange) -> Result<Handled, Refusal> {
    if x.method == Method::OPTIONS {
        return Ok(cors::preflight(x).into());
    }
    let path = x.path.clone();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if let ["health", rest @ ..] = segments.as_slice() {
        only(x, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        return health::answer(x, rest).map(Handled::from);
    }
    let ["api", "v1", rest @ ..] = segments.as_slice() else { return Err(Refusal::not_found()) };
    match (rest, x.method.as_str()) {
        (["ws"], "GET") => subscribe::ws(x).await,
        (["sse"], "GET") => subscribe::sse(x, false).await,
        (["sse", "llm"], "GET") => subscribe::sse(x, true).await,
        (["ws" | "sse"] | ["sse", "llm"], _) => Err(Refusal::method("GET")),
        (["events"], "GET") => history::get(x).await.map(Handled::from),
        (["events"], "POST") => events::post(x).await.map(Handled::from),
        (["events"], _) => Err(Refusal::method("GET, POST")),
        (["agents", rest @ ..], _) => resources::agents::handle(x, rest).await.map(Handled::from),
        (["messages", rest @ ..], _) => resources::messages::handle(x, rest).await.map(Handled::from),
        (["tools", rest @ ..], _) => resources::tools::handle(x, rest).await.map(Handled::from),
        (rest, _) => admin::handle(x, rest).await.map(Handled::from),
    }
}

/// Refuses other methods.
pub(crate) fn only(x: &Exchange, methods: &[Method], allow: &'static str) -> Result<(), Refusal> {
    match methods.contains(&x.method) {
        true => Ok(()),
        false => Err(Refusal::method(allow)),
    }
}

/// 200 or 201 with `{data, success:true}`.
pub(crate) fn created(data: impl serde::Serialize) -> Answer {
    Answer::data(StatusCode::CREATED, data)
}
