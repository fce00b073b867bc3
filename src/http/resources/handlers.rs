//! The handlers that all listed resources share. [`HttpResource`] has what differs between them over HTTP,
//! [`ListResource`] has the rules.
//!
//! The handlers in the resources' own files carry the texts for the API's documents and call these.

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::{Authorized, Subscribe};
use crate::domain::list_resource::{self, ListResource, PatchResource};
use crate::domain::{AgentUserFilter, PageRequest};
use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::request::etag::{if_match, of_version};
use crate::http::request::parameters::{no_parameters, unescaped};
use crate::http::response::ApiResponse;

use super::page::{page, page_response};
use super::write_request::{HttpCaller, WriteRequest, begin_write, create_once, reader, write_request};

/// A listed resource as HTTP shows it.
pub(super) trait HttpResource: ListResource {
    /// Returns the JSON of the resource.
    fn view<'a>(&'a self, org_id: &'a str) -> impl Serialize;

    /// Reads a query parameter of the list into the filter. Returns false if there is no such parameter.
    fn read_filter(_filter: &mut Self::Filter, _name: &str, _value: &str) -> Result<bool, ErrorResponse> {
        Ok(false)
    }
}

/// Reads `agent_id` and `user_id`. Returns false for another parameter. An empty value counts as absent.
pub(super) fn read_agent_or_user(filter: &mut AgentUserFilter, name: &str, value: &str) -> bool {
    let field = match name {
        "agent_id" => &mut filter.agent_id,
        "user_id" => &mut filter.user_id,
        _ => return false,
    };
    if !value.is_empty() {
        *field = Some(value.to_owned());
    }
    true
}

/// Lists resources.
pub(super) async fn list<R: HttpResource>(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
) -> HandlerResult {
    let caller = reader(request, &right).await?;
    let mut filter = R::Filter::default();
    let page = page(request, |name, value| R::read_filter(&mut filter, name, value))?;
    list_page::<R>(&caller, &filter, &page).await
}

/// Returns a page of a list.
pub(super) async fn list_page<R: HttpResource>(
    caller: &HttpCaller<'_>,
    filter: &R::Filter,
    page: &PageRequest,
) -> HandlerResult {
    let (found, next) = list_resource::list::<R, _>(caller, filter, page).await?;
    let views: Vec<_> = found.iter().map(|resource| resource.view(&caller.principal.org_id)).collect();
    Ok(page_response(&views, next.as_ref()))
}

/// Creates a resource, once for the request's `Idempotency-Key`.
pub(super) async fn create<R: HttpResource<New: DeserializeOwned>>(
    request: &mut ApiRequest,
    right: Authorized<R::WriteRight>,
) -> HandlerResult {
    let WriteRequest { request, right, caller, bytes, body: new } = write_request(request, right).await?;
    let answer = |resource: &R| response(StatusCode::CREATED, &caller, resource);
    create_once(request, &right, &bytes, answer, async |response_rows| {
        list_resource::create(&caller, &right, new, response_rows).await
    })
    .await
}

/// Gets a resource.
pub(super) async fn get<R: HttpResource>(
    request: &ApiRequest,
    right: Authorized<Subscribe>,
    id: &str,
) -> HandlerResult {
    no_parameters(request)?;
    let caller = reader(request, &right).await?;
    let resource: R = list_resource::get(&caller, &unescaped(id)?).await?;
    Ok(response(StatusCode::OK, &caller, &resource))
}

/// Changes the fields of a resource that the body has.
pub(super) async fn update<R: HttpResource + PatchResource<Patch: DeserializeOwned>>(
    request: &mut ApiRequest,
    right: Authorized<R::WriteRight>,
    id: &str,
) -> HandlerResult {
    let WriteRequest { request, right, caller, body: patch, .. } = write_request(request, right).await?;
    let (id, version) = (unescaped(id)?, if_match(request)?);
    let resource: R = list_resource::patch(&caller, &right, &id, version, patch).await?;
    Ok(response(StatusCode::OK, &caller, &resource))
}

/// Deletes a resource.
pub(super) async fn delete<R: HttpResource>(
    request: &ApiRequest,
    right: Authorized<R::WriteRight>,
    id: &str,
) -> HandlerResult {
    no_parameters(request)?;
    let caller = begin_write(request, &right, 0).await?;
    let id = unescaped(id)?;
    let version = if R::HAS_VERSIONS { if_match(request)? } else { None };
    list_resource::delete::<R, _>(&caller, &right, &id, version).await?;
    Ok(ApiResponse::empty())
}

fn response<R: HttpResource>(status: StatusCode, caller: &HttpCaller<'_>, resource: &R) -> ApiResponse {
    let response = ApiResponse::data(status, resource.view(&caller.principal.org_id));
    if R::HAS_VERSIONS { of_version(response, resource.version()) } else { response }
}
