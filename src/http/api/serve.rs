//! `/api-docs/openapi.json`, `/api-docs/asyncapi.json`, and `/docs`, which shows both without asking anybody else.
//!
//! * Nothing here is a secret or differs between callers: no credential, and one `ETag` for all of it, which stands as long as
//!   the binary.
//! * The page may load from its own origin alone, and no script or style stands inside it (`Content-Security-Policy`): text
//!   that a document carries cannot become a program.

use std::sync::LazyLock;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ring::digest;

use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::parameters::IfNoneMatch;
use super::{ASYNCAPI, OPENAPI};
use crate::outcome::Refusal;

/// What the page may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const JSON: &str = "application/json";

/// A file of the page.
pub(super) struct File {
    /// Its name below `/docs/`.
    pub(super) name: &'static str,
    kind: &'static str,
    /// As it goes over the wire; what is packed is packed with gzip, which every browser reads.
    bytes: &'static [u8],
    packed: bool,
}

const PAGE: File = File {
    name: "",
    kind: "text/html; charset=utf-8",
    bytes: include_bytes!("../docs/page.html"),
    packed: false,
};
/// The files of the page, besides itself.
pub(super) const FILES: [File; 4] = [
    File {
        name: "page.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../docs/page.js"),
        packed: false,
    },
    File {
        name: "page.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../docs/page.css"),
        packed: false,
    },
    File {
        name: "swagger-ui-bundle.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../docs/vendor/swagger-ui-bundle.js.gz"),
        packed: true,
    },
    File {
        name: "swagger-ui.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../docs/vendor/swagger-ui.css.gz"),
        packed: true,
    },
];

/// Names all of the above and both documents: what the binary carries changes together, and is read through once.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut digest = digest::Context::new(&digest::SHA256);
    let files = [&PAGE].into_iter().chain(&FILES).map(|file| file.bytes);
    for bytes in files.chain([OPENAPI.as_bytes(), ASYNCAPI.as_bytes()]) {
        digest.update(bytes);
    }
    let hex: String = digest.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
});

/// The OpenAPI document.
#[utoipa::path(
    get,
    path = "/api-docs/openapi.json",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The document.", content((Object = "application/json"))),
        (status = 304, description = "It is still the one of `If-None-Match`."),
    )
)]
pub(in crate::http) async fn openapi(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(fresh(x, JSON, OPENAPI.as_bytes()))
}

/// The AsyncAPI document.
#[utoipa::path(
    get,
    path = "/api-docs/asyncapi.json",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The document.", content((Object = "application/json"))),
        (status = 304, description = "It is still the one of `If-None-Match`."),
    )
)]
pub(in crate::http) async fn asyncapi(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(fresh(x, JSON, ASYNCAPI.as_bytes()))
}

/// A page that shows both documents.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "documents",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The page.", content((String = "text/html"))),
        (status = 304, description = "It is still the one of `If-None-Match`."),
    )
)]
pub(in crate::http) async fn page(x: &Exchange, _: ()) -> Result<Answer, Refusal> {
    Ok(file(x, &PAGE))
}

/// A file of that page.
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
        (status = 304, description = "It is still the one of `If-None-Match`."),
    )
)]
pub(in crate::http) async fn asset(x: &Exchange, _: (), name: &str) -> Result<Answer, Refusal> {
    FILES.iter().find(|it| it.name == name).map(|it| file(x, it)).ok_or_else(Refusal::not_found)
}

fn file(x: &Exchange, file: &File) -> Answer {
    let mut answer = fresh(x, file.kind, file.bytes);
    answer.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer.headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let same_origin = HeaderValue::from_static("same-origin");
    answer.headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same_origin);
    if file.packed && answer.status == StatusCode::OK {
        answer.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// The bytes, or 304 where the caller has them.
fn fresh(x: &Exchange, kind: &'static str, bytes: &'static [u8]) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, TAG.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")); // kept, and asked about each time
    let known = x.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|list| list.split(',')).map(str::trim);
    if known.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == TAG.as_bytes()) {
        return Answer { status: StatusCode::NOT_MODIFIED, headers, body: [].as_slice().into() };
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Answer { status: StatusCode::OK, headers, body: bytes.into() }
}
