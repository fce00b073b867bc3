//! Query parameters: which ones a request may have, and which values they accept.
//!
//! * An unknown parameter is refused. If it were ignored, a misspelt `org_id` would act on another
//!   organization than the sender expects.
//! * Credentials are not handled here: every request may carry one, and [`crate::auth`] reads it.

use crate::error_response::ErrorResponse;

use super::ApiRequest;

/// Rows of a page if the request does not say.
pub(crate) const PAGE_DEFAULT: usize = 50;
/// Maximum of rows of a page.
pub(crate) const PAGE_MOST: u64 = 100;
/// Maximum of `offset`. Clients that read further need the cursor.
pub(crate) const OFFSET_MOST: u64 = 10_000;

/// Maximum of events in one response of history.
pub const HISTORY_EVENTS: usize = 1_000;
/// Longest time that a request for history may wait for the first event, in seconds.
pub const HISTORY_WAIT_SECONDS: u64 = 60;

/// The error for a parameter that the request does not support.
pub(crate) fn unknown(name: &str) -> ErrorResponse {
    ErrorResponse::bad_request(format!("{name}: no such parameter"))
}

/// Refuses every parameter.
///
/// # Errors
/// 400 naming the parameter.
pub(crate) fn no_parameters(request: &ApiRequest) -> Result<(), ErrorResponse> {
    match request.parameters()?.first() {
        Some((name, _)) => Err(unknown(name)),
        None => Ok(()),
    }
}

/// Returns the parameter `name` of a request that supports no other. An empty value counts as absent.
///
/// # Errors
/// 400 naming an unknown parameter.
pub(crate) fn only_parameter(request: &ApiRequest, name: &str) -> Result<Option<String>, ErrorResponse> {
    let mut parameter = None;
    for (other, value) in request.parameters()? {
        match other.as_ref() {
            other if other != name => return Err(unknown(other)),
            _ if value.is_empty() => {}
            _ => parameter = Some(value.into_owned()),
        }
    }
    Ok(parameter)
}

/// Unescapes one segment of the path.
///
/// # Errors
/// 404: no resource can have this name.
pub(crate) fn unescaped(segment: &str) -> Result<String, ErrorResponse> {
    crate::query::unescape_path(segment).ok_or_else(ErrorResponse::not_found)
}

/// Parses `true` or `false`.
///
/// # Errors
/// 400 naming the parameter.
pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, ErrorResponse> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ErrorResponse::bad_request(format!("{name}: must be true or false"))),
    }
}

/// Parses a whole number within bounds.
///
/// # Errors
/// 400 naming the parameter and its bounds.
pub(crate) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, ErrorResponse> {
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        ErrorResponse::bad_request(format!("{name}: must be a whole number from {least} to {most}"))
    })
}

/// Parses a number from 0 to 1.
///
/// # Errors
/// 400 naming the parameter.
pub(crate) fn fraction(name: &str, text: &str) -> Result<f64, ErrorResponse> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| ErrorResponse::bad_request(format!("{name}: must be a number from 0 to 1")))
}
