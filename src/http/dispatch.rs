//! Finds the handler of a request in the table of routes.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;

use http::Method;
use matchit::Router;

use crate::error_response::ErrorResponse;

use super::access::*;
use super::admin::{api_keys, connections, organizations, stats, tokens};
use super::api_docs::serve;
use super::events::{history, publish, subscribe};
use super::request::ApiRequest;
use super::resources::{agents, core_memory, memories, messages, presence, streams, tools, users};
use super::routes::{ROUTES, Route, with_routes};
use super::{Handled, health};

/// Maximum of names in braces in one path.
const NAMES: usize = 2;

/// The values in a request's path for the names in the route's path. Unused ones are empty.
type Names<'a> = [&'a str; NAMES];

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<Handled, ErrorResponse>> + 'a>>;

/// Checks the access, then runs the handler.
type Handler = for<'a> fn(&'a mut ApiRequest, Names<'a>) -> Outcome<'a>;

macro_rules! handlers {
    ($(
        $($method:ident $id:ident)|+ $path:literal: $access:ty,
        $($handler:ident)::+ ($($name:ident),*) $($flag:ident)?;
    )*) => {
        /// The handlers of [`ROUTES`], in the same order.
        static HANDLERS: &[Handler] = &[$(
            |request, names| Box::pin(async move {
                let granted = <$access as Access>::check(request)?;
                let [$($name,)* ..] = names;
                Ok(Handled::from($($handler)::+(request, granted, $($name),*).await?))
            })
        ),*];
    };
}
with_routes!(handlers);

/// The routes of one path.
#[derive(Default)]
struct PathRoutes {
    routes: Vec<(&'static Route, Handler)>,
    /// Value of the header `Allow`.
    allow: String,
}

/// The router is built from [`ROUTES`] only, so any test that uses it proves that it can be built.
static ROUTER: LazyLock<Router<PathRoutes>> = LazyLock::new(router);

fn router() -> Router<PathRoutes> {
    let mut router = Router::new();
    for (at, first) in ROUTES.iter().enumerate() {
        if ROUTES[..at].iter().any(|earlier| earlier.path == first.path) {
            continue; // the path was added already, with all of its methods
        }
        let handled = ROUTES.iter().zip(HANDLERS.iter().copied());
        let routes: Vec<_> = handled.filter(|(route, _)| route.path == first.path).collect();
        let operations = routes.iter().flat_map(|(route, _)| route.operations);
        let mut methods: Vec<&str> = operations.map(|(method, _)| method.as_str()).collect();
        if routes.iter().any(|(route, _)| route.answers(&Method::HEAD)) {
            methods.insert(1, "HEAD");
        }
        let allow = methods.join(", ");
        if let Err(error) = router.insert(first.path, PathRoutes { routes, allow }) {
            tracing::error!(path = first.path, %error, "cannot add a route");
        }
    }
    router
}

/// A route that was found, with its handler and the values of the path's names.
type Found<'p> = (&'static Route, Handler, Names<'p>);

/// Finds the route of a method and path.
///
/// # Errors
/// 404 for an unknown path, 405 for a known one with another method.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Result<Found<'p>, ErrorResponse> {
    let found = ROUTER.at(path).map_err(|_| ErrorResponse::not_found())?;
    let route = found.value.routes.iter().find(|(route, _)| route.answers(method));
    let (route, handler) = route.ok_or_else(|| ErrorResponse::method(&found.value.allow))?;
    let mut names = [""; NAMES];
    for (name, (_, value)) in names.iter_mut().zip(found.params.iter()) {
        *name = value;
    }
    Ok((*route, *handler, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::Special;

    #[test]
    fn every_route_is_found_by_its_method_and_path() {
        for route in ROUTES {
            let path = route.path.replace(['{', '}'], "");
            for (method, _) in route.operations {
                let (found, _, names) = find(method, &path).expect("found");
                assert!(std::ptr::eq(found, route), "{method} {path}");
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
            assert_eq!(find(&Method::GET, path).map(|_| ()).expect_err("refused").status, 404, "{path}");
        }
        let refusal = find(&Method::TRACE, "/api/v1/agents/a%2Fb").map(|_| ()).expect_err("refused");
        assert_eq!((refusal.status.as_u16(), refusal.allow), (405, Some("GET, HEAD, PUT, PATCH, DELETE")));
    }

    #[test]
    fn head_is_served_wherever_get_is_unless_that_opens_a_stream() {
        for route in ROUTES.iter().filter(|route| route.operation_id("get").is_some()) {
            let path = route.path.replace(['{', '}'], "");
            let found = find(&Method::HEAD, &path);
            match route.special == Special::Stream {
                true => {
                    let refusal = found.map(|_| ()).expect_err("refused");
                    assert_eq!(refusal.allow, Some("GET"), "{path}");
                }
                false => assert!(std::ptr::eq(found.expect("found").0, route), "{path}"),
            }
        }
    }
}
