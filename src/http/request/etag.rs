//! Versions of resources: `ETag` is the version in a response, and a change with an `If-Match` of another
//! version is refused (RFC 9110 §13.1.1).

use http::header::{ETAG, HeaderValue, IF_MATCH};

use crate::error_response::ErrorResponse;
use crate::http::response::ApiResponse;

use super::ApiRequest;

/// Adds the `ETag` of this version to a response.
pub(crate) fn of_version(mut answer: ApiResponse, version: u64) -> ApiResponse {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        answer.headers.insert(ETAG, tag);
    }
    answer
}

/// Returns the version in a response's `ETag`, if it has one.
pub(crate) fn version_of(answer: &ApiResponse) -> Option<u64> {
    answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).and_then(read)
}

/// Returns the version that `If-Match` names; `None` means any.
///
/// # Errors
/// 400.
pub(crate) fn if_match(request: &ApiRequest) -> Result<Option<u64>, ErrorResponse> {
    let Some(tag) = request.headers.get(IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let refused = || ErrorResponse::bad_request("If-Match: must be one ETag of this server, such as \"3\"");
    read(tag).map(Some).ok_or_else(refused)
}

fn read(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_etag_round_trips_and_other_text_is_refused() {
        let answer = || ApiResponse::data(StatusCode::OK, ());
        assert_eq!(version_of(&of_version(answer(), u64::MAX)), Some(u64::MAX));
        assert_eq!(version_of(&answer()), None);
        for bad in ["", "3", "\"", "\"x\"", "W/\"3\"", "\"3\", \"4\""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
