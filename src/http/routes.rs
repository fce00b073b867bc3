//! The table of routes: the only place that connects a method and path with its operation id, the access it
//! needs and its handler.
//!
//! * `dispatch.rs` finds the handler of a request in the table. 404, 405 and `Allow` follow from it too.
//! * The operations of the OpenAPI document (`api_docs/openapi.rs`) follow from it, with their ids and
//!   scopes.
//! * A handler takes what the access type of its row grants (`access.rs`).
//! * `#[utoipa::path]` of the handler repeats method and path, because it does not compile without them. A
//!   test in `api_docs` compares them with the table.

use http::Method;

use super::access::*;
use crate::auth::ScopeSet;

/// A row of the table, without its handler.
pub(super) struct Route {
    /// Each method with the id of its operation in the OpenAPI document.
    pub(super) operations: &'static [(Method, &'static str)],
    /// The path, with names in braces.
    pub(super) path: &'static str,
    /// Scopes of which one is required; `None` if no credential is required.
    pub(super) scopes: Option<ScopeSet>,
    /// Special property of the route.
    pub(super) special: Special,
}

/// A special property of a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// No special property.
    None,
    /// A request with an unsafe method only produces a response, so there is no commit that checks the
    /// credential.
    AnswerOnly,
    /// The response has no end, so it has no `HEAD`.
    Stream,
}

macro_rules! special {
    () => {
        Special::None
    };
    (answer_only) => {
        Special::AnswerOnly
    };
    (stream) => {
        Special::Stream
    };
}

/// Calls `$callback!` with the rows of the table. A row has the methods with their operation ids, the path,
/// the access, the handler with the path's names that it takes, and its special property.
macro_rules! with_routes {
    ($callback:ident) => {
        $callback! {
            GET getHealth "/health": Public, health::health();
            GET getLiveness "/health/live": Public, health::live();
            GET getReadiness "/health/ready": Public, health::ready();
            GET openWebSocket "/api/v1/ws": ByHandler<Subscribe>, subscribe::ws() stream;
            GET openEventStream "/api/v1/sse": ByHandler<Subscribe>, subscribe::sse() stream;
            GET openLlmEventStream "/api/v1/sse/llm": ByHandler<Subscribe>, subscribe::llm_sse() stream;
            GET listEvents "/api/v1/events": ReadsHistory, history::list();
            POST publishEvents "/api/v1/events": Writes<Publish>, publish::publish();
            GET listStreams "/api/v1/streams": Needs<Subscribe>, streams::list();
            POST openStream "/api/v1/streams": Writes<Publish>, streams::open();
            GET getStream "/api/v1/streams/{id}": Needs<Subscribe>, streams::get(id);
            DELETE deleteStreamText "/api/v1/streams/{id}": Writes<Authenticated>, streams::delete(id);
            POST appendStreamChunks "/api/v1/streams/{id}/chunks": Writes<Publish>, streams::chunks::append(id);
            POST finishStream "/api/v1/streams/{id}/finish": Writes<Publish>, streams::finish(id);
            POST failStream "/api/v1/streams/{id}/fail": Writes<Publish>, streams::fail(id);
            POST renewStream "/api/v1/streams/{id}/renew": Writes<Publish>, streams::renew(id);
            POST cancelStream "/api/v1/streams/{id}/cancel": Writes<Authenticated>, streams::cancel(id);
            GET listAgents "/api/v1/agents": Needs<Subscribe>, agents::list();
            POST createAgent "/api/v1/agents": Writes<WriteOwned>, agents::create();
            GET getAgent "/api/v1/agents/{id}": Needs<Subscribe>, agents::get(id);
            PUT putAgent | PATCH updateAgent "/api/v1/agents/{id}": WritesAndReads<WriteOwned>, agents::update(id);
            DELETE deleteAgent "/api/v1/agents/{id}": Writes<WriteOwned>, agents::delete(id);
            GET getAgentState "/api/v1/agents/{id}/state": Needs<Subscribe>, agents::get_state(id);
            PUT setAgentState "/api/v1/agents/{id}/state": Writes<WriteOwned>, agents::set_state(id);
            POST sendAgentMessage "/api/v1/agents/{id}/messages": Writes<WriteAsUser>, agents::send_message(id);
            GET listAgentMemories "/api/v1/agents/{id}/memories": Needs<Subscribe>, memories::list_of_agent(id);
            GET listMemories "/api/v1/memories": Needs<Subscribe>, memories::list();
            POST createMemory "/api/v1/memories": Writes<WriteAsUser>, memories::create();
            POST createMemoryBatch "/api/v1/memories/batch": Writes<WriteAsUser>, memories::batch::create();
            POST deleteMemoryBatch "/api/v1/memories/batch/delete": Writes<WriteAsUser>, memories::batch::delete();
            GET searchMemoriesByQuery "/api/v1/memories/search": Needs<Subscribe>, memories::search::by_query();
            POST searchMemories "/api/v1/memories/search": Needs<Subscribe>, memories::search::by_body() answer_only;
            GET getMemory "/api/v1/memories/{id}": Needs<Subscribe>, memories::get(id);
            PUT putMemory | PATCH updateMemory "/api/v1/memories/{id}": WritesAndReads<WriteAsUser>, memories::update(id);
            DELETE deleteMemory "/api/v1/memories/{id}": Writes<WriteAsUser>, memories::delete(id);
            GET listMemoryVersions "/api/v1/memories/{id}/history": Needs<Subscribe>, memories::history(id);
            GET listMessages "/api/v1/messages": Needs<Subscribe>, messages::list();
            POST createMessage "/api/v1/messages": Writes<WriteAsUser>, messages::create();
            GET getMessage "/api/v1/messages/{id}": Needs<Subscribe>, messages::get(id);
            DELETE deleteMessage "/api/v1/messages/{id}": Writes<WriteAsUser>, messages::delete(id);
            GET listTools "/api/v1/tools": Needs<Subscribe>, tools::list();
            POST createTool "/api/v1/tools": Writes<WriteOwned>, tools::create();
            GET getTool "/api/v1/tools/{id}": Needs<Subscribe>, tools::get(id);
            PUT putTool | PATCH updateTool "/api/v1/tools/{id}": WritesAndReads<WriteOwned>, tools::update(id);
            DELETE deleteTool "/api/v1/tools/{id}": Writes<WriteOwned>, tools::delete(id);
            POST executeTool "/api/v1/tools/{id}/execute": WritesAndReads<WriteOwned>, tools::execute(id);
            GET listOrganizations "/api/v1/organizations": Needs<Operate>, organizations::list();
            POST createOrganization "/api/v1/organizations": Needs<Operate>, organizations::create();
            GET getOrganization "/api/v1/organizations/{id}": Needs<Manage>, organizations::get(id);
            PUT putOrganization | PATCH updateOrganization "/api/v1/organizations/{id}": Needs<Manage>, organizations::update(id);
            DELETE deleteOrganization "/api/v1/organizations/{id}": Needs<Operate>, organizations::delete(id);
            GET listApiKeys "/api/v1/api-keys": Needs<Manage>, api_keys::list();
            POST createApiKey "/api/v1/api-keys": Needs<Manage>, api_keys::create();
            DELETE deleteApiKey "/api/v1/api-keys/{id}": Needs<Manage>, api_keys::delete(id);
            POST createToken "/api/v1/tokens": Needs<Mint>, tokens::create() answer_only;
            DELETE revokeToken "/api/v1/tokens/{jti}": Needs<Manage>, tokens::revoke(jti);
            POST registerUser "/api/v1/users/register": Writes<Manage>, users::register::register();
            POST login "/api/v1/users/login": Public, users::login::login();
            GET listUsers "/api/v1/users": Needs<Manage>, users::list();
            GET getOwnUser "/api/v1/users/me": Needs<Authenticated>, users::me();
            PUT putOwnUser | PATCH updateOwnUser "/api/v1/users/me": Writes<WriteAsUser>, users::update_me();
            PUT changePassword "/api/v1/users/me/password": Writes<Authenticated>, users::login::change_password();
            GET getUser "/api/v1/users/{sub}": Needs<Manage>, users::get(sub);
            DELETE deleteUser "/api/v1/users/{sub}": Writes<Manage>, users::delete(sub);
            PUT setUserDisabled "/api/v1/users/{sub}/disabled": Needs<Manage>, tokens::set_disabled(sub);
            GET listMembers "/api/v1/organizations/{id}/members": Needs<Manage>, users::list_members(id);
            POST addMember "/api/v1/organizations/{id}/members": Writes<Manage>, users::register::add_member(id);
            PUT setMemberRole "/api/v1/organizations/{id}/members/{sub}": Writes<Manage>, users::set_member_role(id, sub);
            DELETE removeMember "/api/v1/organizations/{id}/members/{sub}": Writes<Manage>, users::remove_member(id, sub);
            GET listCoreMemory "/api/v1/agents/{id}/core-memory": Needs<Subscribe>, core_memory::list(id);
            GET getCoreMemory "/api/v1/agents/{id}/core-memory/{label}": Needs<Subscribe>, core_memory::get(id, label);
            PUT putCoreMemory "/api/v1/agents/{id}/core-memory/{label}": Writes<WriteOwned>, core_memory::put(id, label);
            DELETE deleteCoreMemory "/api/v1/agents/{id}/core-memory/{label}": Writes<WriteOwned>, core_memory::delete(id, label);
            POST createTicket "/api/v1/tickets": Needs<Authenticated>, tokens::create_ticket() answer_only;
            GET listConnections "/api/v1/connections": Needs<Authenticated>, connections::list();
            DELETE closeConnections "/api/v1/connections": Needs<Authenticated>, connections::close_all();
            DELETE closeConnection "/api/v1/connections/{id}": Needs<Authenticated>, connections::close(id);
            GET listPresence "/api/v1/presence": Needs<Subscribe>, presence::list();
            GET getStats "/api/v1/stats": Needs<Manage>, stats::get();
            GET getOpenApi "/api-docs/openapi.json": Public, serve::openapi();
            GET getAsyncApi "/api-docs/asyncapi.json": Public, serve::asyncapi();
            GET getDocs "/docs": Public, serve::page();
            GET getDocsFile "/docs/{name}": Public, serve::asset(name);
        }
    };
}
pub(super) use with_routes;

macro_rules! routes {
    ($(
        $($method:ident $id:ident)|+ $path:literal: $access:ty,
        $($handler:ident)::+ ($($name:ident),*) $($flag:ident)?;
    )*) => {
        /// All routes.
        pub(super) static ROUTES: &[Route] = &[$(Route {
            operations: &[$((Method::$method, stringify!($id))),+],
            path: $path,
            scopes: <$access as Access>::SCOPES,
            special: special!($($flag)?),
        }),*];
    };
}
with_routes!(routes);

impl Route {
    /// Returns true if a request with this method is served. `HEAD` is served like `GET` (RFC 9110 §9.3.2),
    /// except for streams.
    pub(super) fn answers(&self, method: &Method) -> bool {
        let has = |wanted: &Method| self.operations.iter().any(|(method, _)| method == wanted);
        has(method) || *method == Method::HEAD && has(&Method::GET) && self.special != Special::Stream
    }

    /// Returns the operation id of a method. The method may be in any case.
    pub(super) fn operation_id(&self, method: &str) -> Option<&'static str> {
        let found = self.operations.iter().find(|(served, _)| served.as_str().eq_ignore_ascii_case(method));
        found.map(|(_, id)| *id)
    }
}
