//! HTTP: from a request's method and path to its handler, and from what handlers answer to responses.
//!
//! * Every answer carries `x-request-id`, and CORS headers where the origin is allowed; every non-2xx body has one shape.
//! * Handlers authenticate first and learn what a principal may do from [`crate::auth`] alone.
//! * A handler that subscribes answers with a [`Subscribed`]; on HTTP/1 its socket then leaves hyper (`conn.rs`).

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

use admin::{api_keys, connections, organizations, stats, tokens};
use api::serve;
use body::Parts;
use exchange::Exchange;
use resources::{agents, blocks, memories, messages, presence, tools, users};
use respond::Answer;
use routes::Operation;
use subscribe::Subscribed;

/// What a handler came to.
pub enum Handled {
    /// An answer, complete.
    Answer(Answer),
    /// An answer without its body, which is made while it is sent.
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
/// The handler's refusal; 404 for an unknown path, 405 for a known one with another method.
pub async fn handle(x: &mut Exchange) -> Result<Handled, Refusal> {
    if x.method == Method::OPTIONS {
        return Ok(cors::preflight(x).into());
    }
    let path = x.path.clone();
    let (operation, [id, second]) = routes::find(&x.method, &path)?;
    let answer = match operation {
        Operation::OpenWebSocket => return subscribe::ws(x).await,
        Operation::OpenSse => return subscribe::sse(x).await,
        Operation::OpenLlmSse => return subscribe::llm_sse(x).await,
        Operation::ReadEvents => return history::get(x).await,
        Operation::Health => Ok(health::health(x.shared())),
        Operation::HealthReady => Ok(health::ready(x.shared())),
        Operation::HealthLive => Ok(health::live(x.shared())),
        Operation::PublishEvents => events::post(x).await,
        Operation::ListAgents => agents::list(x).await,
        Operation::CreateAgent => agents::create(x).await,
        Operation::GetAgent => agents::get(x, id).await,
        Operation::ChangeAgent => agents::change(x, id).await,
        Operation::DeleteAgent => agents::delete(x, id).await,
        Operation::GetAgentState => agents::get_state(x, id).await,
        Operation::SetAgentState => agents::set_state(x, id).await,
        Operation::SendAgentMessage => agents::say(x, id).await,
        Operation::ListAgentMemories => memories::list_of_agent(x, id).await,
        Operation::ListMemories => memories::list(x).await,
        Operation::CreateMemory => memories::create(x).await,
        Operation::CreateMemories => memories::batch::create(x).await,
        Operation::DeleteMemories => memories::batch::delete(x).await,
        Operation::SearchMemories => memories::search::by_body(x).await,
        Operation::SearchMemoriesByQuery => memories::search::by_query(x).await,
        Operation::GetMemory => memories::get(x, id).await,
        Operation::ChangeMemory => memories::change(x, id).await,
        Operation::DeleteMemory => memories::delete(x, id).await,
        Operation::GetMemoryHistory => memories::history(x, id).await,
        Operation::ListMessages => messages::list(x).await,
        Operation::CreateMessage => messages::create(x).await,
        Operation::GetMessage => messages::get(x, id).await,
        Operation::DeleteMessage => messages::delete(x, id).await,
        Operation::ListTools => tools::list(x).await,
        Operation::CreateTool => tools::create(x).await,
        Operation::GetTool => tools::get(x, id).await,
        Operation::ChangeTool => tools::change(x, id).await,
        Operation::DeleteTool => tools::delete(x, id).await,
        Operation::ExecuteTool => tools::execute(x, id).await,
        Operation::ListOrganizations => organizations::list(x),
        Operation::CreateOrganization => organizations::create(x).await,
        Operation::GetOrganization => organizations::get(x, id),
        Operation::ChangeOrganization => organizations::change(x, id).await,
        Operation::DeleteOrganization => organizations::delete(x, id).await,
        Operation::ListApiKeys => api_keys::list(x),
        Operation::CreateApiKey => api_keys::create(x).await,
        Operation::DeleteApiKey => api_keys::delete(x, id).await,
        Operation::MintToken => tokens::mint(x).await,
        Operation::RevokeToken => tokens::revoke(x, id).await,
        Operation::RegisterUser => users::register::register(x).await,
        Operation::Login => users::login::login(x).await,
        Operation::ListUsers => users::list(x).await,
        Operation::GetMe => users::me(x).await,
        Operation::ChangeMe => users::change_me(x).await,
        Operation::ChangePassword => users::login::change_password(x).await,
        Operation::GetUser => users::get(x, id).await,
        Operation::DeleteUser => users::delete(x, id).await,
        Operation::ListMembers => users::list_members(x, id).await,
        Operation::AddMember => users::register::add_member(x, id).await,
        Operation::ChangeMember => users::change_member(x, id, second).await,
        Operation::RemoveMember => users::remove_member(x, id, second).await,
        Operation::ListCoreMemory => blocks::list(x, id).await,
        Operation::GetCoreMemory => blocks::get(x, id, second).await,
        Operation::PutCoreMemory => blocks::put(x, id, second).await,
        Operation::DeleteCoreMemory => blocks::delete(x, id, second).await,
        Operation::SetUserDisabled => tokens::set_disabled(x, id).await,
        Operation::MakeTicket => tokens::make_ticket(x).await,
        Operation::ListConnections => connections::list(x).await,
        Operation::KickConnections => connections::kick_all(x).await,
        Operation::KickConnection => connections::kick_one(x, id).await,
        Operation::ListPresence => presence::list(x).await,
        Operation::GetOpenApi => Ok(serve::openapi(x)),
        Operation::GetAsyncApi => Ok(serve::asyncapi(x)),
        Operation::GetDocs => Ok(serve::page(x)),
        Operation::GetDocsFile => serve::asset(x, id),
        Operation::GetStats => stats::get(x).await,
    };
    // A commit confirms the credential itself. Any other answer is given only to a credential that holds now: it may have waited
    // for a lock, for a turn at the store or for news.
    let is_refusal = answer.as_ref().is_err_and(|refusal| refusal.status.is_client_error());
    if is_refusal || operation.is_answer_only() || x.method.is_safe() {
        x.confirm()?;
    }
    answer.map(Handled::from)
}

/// 200 or 201 with `{data, success:true}`.
pub(crate) fn created(data: impl serde::Serialize) -> Answer {
    Answer::data(StatusCode::CREATED, data)
}
