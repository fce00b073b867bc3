//! One table of routes: which methods of which path are which operation. 404, 405 and `Allow` follow from it, and the API's
//! document is compared with it.
//!
//! A path that has `GET` has `HEAD`, too, whether or not the table says so, except where `GET` opens a stream: hyper leaves the
//! content of an answer to `HEAD` out.

use std::sync::LazyLock;

use http::Method;
use matchit::Router;

use crate::outcome::Refusal;

/// Most names in braces that a path has.
const NAMES: usize = 2;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the row of the table that names it")]
pub(super) enum Operation {
    Health,
    HealthLive,
    HealthReady,
    OpenWebSocket,
    OpenSse,
    OpenLlmSse,
    ReadEvents,
    PublishEvents,
    ListAgents,
    CreateAgent,
    GetAgent,
    ChangeAgent,
    DeleteAgent,
    GetAgentState,
    SetAgentState,
    SendAgentMessage,
    ListAgentMemories,
    ListMemories,
    CreateMemory,
    CreateMemories,
    DeleteMemories,
    SearchMemories,
    SearchMemoriesByQuery,
    GetMemory,
    ChangeMemory,
    DeleteMemory,
    GetMemoryHistory,
    ListMessages,
    CreateMessage,
    GetMessage,
    DeleteMessage,
    ListTools,
    CreateTool,
    GetTool,
    ChangeTool,
    DeleteTool,
    ExecuteTool,
    ListOrganizations,
    CreateOrganization,
    GetOrganization,
    ChangeOrganization,
    DeleteOrganization,
    ListApiKeys,
    CreateApiKey,
    DeleteApiKey,
    MintToken,
    RevokeToken,
    SetUserDisabled,
    RegisterUser,
    Login,
    ListUsers,
    GetMe,
    ChangeMe,
    ChangePassword,
    GetUser,
    DeleteUser,
    ListMembers,
    AddMember,
    ChangeMember,
    RemoveMember,
    ListCoreMemory,
    GetCoreMemory,
    PutCoreMemory,
    DeleteCoreMemory,
    MakeTicket,
    ListConnections,
    KickConnections,
    KickConnection,
    ListPresence,
    GetStats,
    GetOpenApi,
    GetAsyncApi,
    GetDocs,
    GetDocsFile,
}

impl Operation {
    /// Returns true if the answer is all that a request with an unsafe method brings about: it commits nothing that would
    /// confirm the credential.
    pub(super) const fn is_answer_only(self) -> bool {
        matches!(self, Operation::SearchMemories | Operation::MintToken | Operation::MakeTicket)
    }

    /// Returns true if the answer is a stream: without its content there is nothing to answer.
    const fn is_stream(self) -> bool {
        matches!(self, Operation::OpenWebSocket | Operation::OpenSse | Operation::OpenLlmSse)
    }
}

/// A row of the table.
pub(super) struct Route {
    /// Its methods.
    pub(super) methods: &'static [Method],
    /// Its path, with names in braces.
    pub(super) path: &'static str,
    /// What that is.
    pub(super) operation: Operation,
}

const GET: &[Method] = &[Method::GET];
const PROBE: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];
const PUT: &[Method] = &[Method::PUT];
const CHANGE: &[Method] = &[Method::PUT, Method::PATCH];
const DELETE: &[Method] = &[Method::DELETE];

const fn route(methods: &'static [Method], path: &'static str, operation: Operation) -> Route {
    Route { methods, path, operation }
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    route(PROBE, "/health", Operation::Health),
    route(PROBE, "/health/live", Operation::HealthLive),
    route(PROBE, "/health/ready", Operation::HealthReady),
    route(GET, "/api/v1/ws", Operation::OpenWebSocket),
    route(GET, "/api/v1/sse", Operation::OpenSse),
    route(GET, "/api/v1/sse/llm", Operation::OpenLlmSse),
    route(GET, "/api/v1/events", Operation::ReadEvents),
    route(POST, "/api/v1/events", Operation::PublishEvents),
    route(GET, "/api/v1/agents", Operation::ListAgents),
    route(POST, "/api/v1/agents", Operation::CreateAgent),
    route(GET, "/api/v1/agents/{id}", Operation::GetAgent),
    route(CHANGE, "/api/v1/agents/{id}", Operation::ChangeAgent),
    route(DELETE, "/api/v1/agents/{id}", Operation::DeleteAgent),
    route(GET, "/api/v1/agents/{id}/state", Operation::GetAgentState),
    route(PUT, "/api/v1/agents/{id}/state", Operation::SetAgentState),
    route(POST, "/api/v1/agents/{id}/messages", Operation::SendAgentMessage),
    route(GET, "/api/v1/agents/{id}/memories", Operation::ListAgentMemories),
    route(GET, "/api/v1/memories", Operation::ListMemories),
    route(POST, "/api/v1/memories", Operation::CreateMemory),
    route(POST, "/api/v1/memories/batch", Operation::CreateMemories),
    route(POST, "/api/v1/memories/batch/delete", Operation::DeleteMemories),
    route(GET, "/api/v1/memories/search", Operation::SearchMemoriesByQuery),
    route(POST, "/api/v1/memories/search", Operation::SearchMemories),
    route(GET, "/api/v1/memories/{id}", Operation::GetMemory),
    route(CHANGE, "/api/v1/memories/{id}", Operation::ChangeMemory),
    route(DELETE, "/api/v1/memories/{id}", Operation::DeleteMemory),
    route(GET, "/api/v1/memories/{id}/history", Operation::GetMemoryHistory),
    route(GET, "/api/v1/messages", Operation::ListMessages),
    route(POST, "/api/v1/messages", Operation::CreateMessage),
    route(GET, "/api/v1/messages/{id}", Operation::GetMessage),
    route(DELETE, "/api/v1/messages/{id}", Operation::DeleteMessage),
    route(GET, "/api/v1/tools", Operation::ListTools),
    route(POST, "/api/v1/tools", Operation::CreateTool),
    route(GET, "/api/v1/tools/{id}", Operation::GetTool),
    route(CHANGE, "/api/v1/tools/{id}", Operation::ChangeTool),
    route(DELETE, "/api/v1/tools/{id}", Operation::DeleteTool),
    route(POST, "/api/v1/tools/{id}/execute", Operation::ExecuteTool),
    route(GET, "/api/v1/organizations", Operation::ListOrganizations),
    route(POST, "/api/v1/organizations", Operation::CreateOrganization),
    route(GET, "/api/v1/organizations/{id}", Operation::GetOrganization),
    route(CHANGE, "/api/v1/organizations/{id}", Operation::ChangeOrganization),
    route(DELETE, "/api/v1/organizations/{id}", Operation::DeleteOrganization),
    route(GET, "/api/v1/api-keys", Operation::ListApiKeys),
    route(POST, "/api/v1/api-keys", Operation::CreateApiKey),
    route(DELETE, "/api/v1/api-keys/{id}", Operation::DeleteApiKey),
    route(POST, "/api/v1/tokens", Operation::MintToken),
    route(DELETE, "/api/v1/tokens/{jti}", Operation::RevokeToken),
    route(POST, "/api/v1/users/register", Operation::RegisterUser),
    route(POST, "/api/v1/users/login", Operation::Login),
    route(GET, "/api/v1/users", Operation::ListUsers),
    route(GET, "/api/v1/users/me", Operation::GetMe),
    route(CHANGE, "/api/v1/users/me", Operation::ChangeMe),
    route(PUT, "/api/v1/users/me/password", Operation::ChangePassword),
    route(GET, "/api/v1/users/{sub}", Operation::GetUser),
    route(DELETE, "/api/v1/users/{sub}", Operation::DeleteUser),
    route(PUT, "/api/v1/users/{sub}/disabled", Operation::SetUserDisabled),
    route(GET, "/api/v1/organizations/{id}/members", Operation::ListMembers),
    route(POST, "/api/v1/organizations/{id}/members", Operation::AddMember),
    route(PUT, "/api/v1/organizations/{id}/members/{sub}", Operation::ChangeMember),
    route(DELETE, "/api/v1/organizations/{id}/members/{sub}", Operation::RemoveMember),
    route(GET, "/api/v1/agents/{id}/core-memory", Operation::ListCoreMemory),
    route(GET, "/api/v1/agents/{id}/core-memory/{label}", Operation::GetCoreMemory),
    route(PUT, "/api/v1/agents/{id}/core-memory/{label}", Operation::PutCoreMemory),
    route(DELETE, "/api/v1/agents/{id}/core-memory/{label}", Operation::DeleteCoreMemory),
    route(POST, "/api/v1/tickets", Operation::MakeTicket),
    route(GET, "/api/v1/connections", Operation::ListConnections),
    route(DELETE, "/api/v1/connections", Operation::KickConnections),
    route(DELETE, "/api/v1/connections/{id}", Operation::KickConnection),
    route(GET, "/api/v1/presence", Operation::ListPresence),
    route(GET, "/api/v1/stats", Operation::GetStats),
    route(PROBE, "/api-docs/openapi.json", Operation::GetOpenApi),
    route(PROBE, "/api-docs/asyncapi.json", Operation::GetAsyncApi),
    route(PROBE, "/docs", Operation::GetDocs),
    route(PROBE, "/docs/{name}", Operation::GetDocsFile),
];

/// What stands at a path.
#[derive(Default)]
struct Place {
    operations: Vec<(&'static Method, Operation)>,
    allow: String,
}

impl Place {
    fn operation(&self, method: &Method) -> Option<Operation> {
        let (_, operation) = self.operations.iter().find(|(served, _)| *served == method)?;
        Some(*operation)
    }

    /// Has `HEAD` answered as `GET` is.
    fn add_head(&mut self) {
        let get = self
            .operations
            .iter()
            .position(|(method, operation)| *method == Method::GET && !operation.is_stream());
        if let Some(at) = get.filter(|_| self.operation(&Method::HEAD).is_none())
            && let Some((_, operation)) = self.operations.get(at).copied()
        {
            self.operations.insert(at + 1, (&Method::HEAD, operation));
        }
    }
}

/// Built of [`ROUTES`] alone, which a test has built.
static ROUTER: LazyLock<Router<Place>> = LazyLock::new(router);

fn router() -> Router<Place> {
    let mut router = Router::new();
    for first in ROUTES {
        if ROUTES
            .iter()
            .find(|route| route.path == first.path)
            .is_some_and(|it| it.operation != first.operation)
        {
            continue; // its path is in already, with all of its methods
        }
        let mut place = Place::default();
        for route in ROUTES.iter().filter(|route| route.path == first.path) {
            place.operations.extend(route.methods.iter().map(|method| (method, route.operation)));
        }
        place.add_head();
        let methods: Vec<&str> = place.operations.iter().map(|(method, _)| method.as_str()).collect();
        place.allow = methods.join(", ");
        if let Err(error) = router.insert(first.path, place) {
            tracing::error!(path = first.path, %error, "a route cannot be served");
        }
    }
    router
}

/// What a method of a path asks for, and what stands where the path has names; empty where it has fewer.
///
/// # Errors
/// 404 for an unknown path, 405 for a known one with another method.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Result<(Operation, [&'p str; NAMES]), Refusal> {
    let found = ROUTER.at(path).map_err(|_| Refusal::not_found())?;
    let operation = found.value.operation(method).ok_or_else(|| Refusal::method(&found.value.allow))?;
    let mut names = [""; NAMES];
    for (name, (_, value)) in names.iter_mut().zip(found.params.iter()) {
        *name = value;
    }
    Ok((operation, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_each_of_its_methods() {
        for route in ROUTES {
            let path = route.path.replace(['{', '}'], "");
            for method in route.methods {
                let (operation, names) = find(method, &path).expect("found");
                assert_eq!(operation, route.operation, "{method} {path}");
                let named = route.path.matches('{').count();
                assert_eq!(names.iter().filter(|name| !name.is_empty()).count(), named, "{path}");
            }
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        for path in
            ["/", "", "/api/v1", "/api/v1/agents/", "/api/v1/agents//state", "/api/v2/agents", "//health"]
        {
            assert_eq!(find(&Method::GET, path).expect_err("refused").status, 404, "{path}");
        }
        let refusal = find(&Method::TRACE, "/api/v1/agents/a%2Fb").expect_err("refused");
        assert_eq!((refusal.status.as_u16(), refusal.allow), (405, Some("GET, HEAD, PUT, PATCH, DELETE")));
    }

    #[test]
    fn head_is_served_wherever_get_is_unless_that_opens_a_stream() {
        for route in ROUTES.iter().filter(|route| route.methods.contains(&Method::GET)) {
            let path = route.path.replace(['{', '}'], "");
            let found = find(&Method::HEAD, &path);
            match route.operation.is_stream() {
                true => assert_eq!(found.expect_err("refused").allow, Some("GET"), "{}", route.path),
                false => assert_eq!(found.expect("found").0, route.operation, "{}", route.path),
            }
        }
    }
}
