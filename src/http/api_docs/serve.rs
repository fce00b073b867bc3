//! `/api-docs/openapi.json`, `/api-docs/asyncapi.json`, and `/docs`, a page that shows both without loading
//! anything from other sites.
//!
//! * Nothing here is secret or differs between callers, so no credential is needed. One `ETag` covers all of
//!   it and changes only with the binary.
//! * The page may load from its own origin only and has no inline script or style
//!   (`Content-Security-Policy`), so text in a document cannot be executed.

use std::sync::LazyLock;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ring::digest;

use crate::error_response::ErrorResponse;
use crate::http::HandlerResult;
use crate::http::request::ApiRequest;
use crate::http::response::ApiResponse;
use crate::http::schemas::parameters::IfNoneMatch;

use super::{ASYNCAPI, OPENAPI};

/// The content security policy of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const JSON: &str = "application/json";

/// A file of the page.
pub(super) struct File {
    /// Name of the file below `/docs/`.
    pub(super) name: &'static str,
    kind: &'static str,
    /// The bytes that are sent. They are gzip if `packed` is set, which every browser supports.
    bytes: &'static [u8],
    packed: bool,
}

const PAGE: File = File {
    name: "",
    kind: "text/html; charset=utf-8",
    bytes: include_bytes!("page/page.html"),
    packed: false,
};
/// The files that the page loads.
pub(super) const FILES: [File; 4] = [
    File {
        name: "page.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/page.js"),
        packed: false,
    },
    File {
        name: "page.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("page/page.css"),
        packed: false,
    },
    File {
        name: "swagger-ui-bundle.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/vendor/swagger-ui-bundle.js.gz"),
        packed: true,
    },
    File {
        name: "swagger-ui.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("page/vendor/swagger-ui.css.gz"),
        packed: true,
    },
];

/// One `ETag` for the page, its files and both documents. All of them are part of the binary and change
/// together; they are hashed once.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut digest = digest::Context::new(&digest::SHA256);
    let files = [&PAGE].into_iter().chain(&FILES).map(|file| file.bytes);
    for bytes in files.chain([OPENAPI.as_bytes(), ASYNCAPI.as_bytes()]) {
        digest.update(bytes);
    }
    let hex: String = digest.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
});

/// Gets the OpenAPI document.
#[utoipa::path(
    get,
    path = "/api-docs/openapi.json",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The document.", content((Object = "application/json"))),
        (status = 304, description = "Not modified since the copy that `If-None-Match` names."),
    )
)]
pub(crate) async fn openapi(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(fresh(request, JSON, OPENAPI.as_bytes()))
}

/// Gets the AsyncAPI document.
#[utoipa::path(
    get,
    path = "/api-docs/asyncapi.json",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The document.", content((Object = "application/json"))),
        (status = 304, description = "Not modified since the copy that `If-None-Match` names."),
    )
)]
pub(crate) async fn asyncapi(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(fresh(request, JSON, ASYNCAPI.as_bytes()))
}

/// Gets a page that shows both documents.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The page.", content((String = "text/html"))),
        (status = 304, description = "Not modified since the copy that `If-None-Match` names."),
    )
)]
pub(crate) async fn page(request: &ApiRequest, _: ()) -> HandlerResult {
    Ok(file(request, &PAGE))
}

/// Gets a file of the documentation page.
///
/// # Errors
/// 404.
#[utoipa::path(
    get,
    path = "/docs/{name}",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The file.", content((String = "text/javascript"), (String = "text/css"))),
        (status = 304, description = "Not modified since the copy that `If-None-Match` names."),
    )
)]
pub(crate) async fn asset(request: &ApiRequest, _: (), name: &str) -> HandlerResult {
    FILES.iter().find(|it| it.name == name).map(|it| file(request, it)).ok_or_else(ErrorResponse::not_found)
}

fn file(request: &ApiRequest, file: &File) -> ApiResponse {
    let mut answer = fresh(request, file.kind, file.bytes);
    answer.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer.headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let same_origin = HeaderValue::from_static("same-origin");
    answer.headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same_origin);
    if file.packed && answer.status == StatusCode::OK {
        answer.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// Returns the bytes, or 304 if the caller has the current version.
fn fresh(request: &ApiRequest, kind: &'static str, bytes: &'static [u8]) -> ApiResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, TAG.clone());
    // caches store it, and revalidate it each time
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let known = request.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|list| list.split(',')).map(str::trim);
    if known.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == TAG.as_bytes()) {
        return ApiResponse { status: StatusCode::NOT_MODIFIED, headers, body: [].as_slice().into() };
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    ApiResponse { status: StatusCode::OK, headers, body: bytes.into() }
}
