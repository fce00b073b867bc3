//! Administration over REST: organizations, API keys, tokens, tickets, users, connections, statistics.
//!
//! The rules are in [`crate::auth`]; this module only has the request and response types. The command line
//! calls the same functions on a data directory.

pub(crate) mod api_keys;
pub(crate) mod connections;
pub(crate) mod organizations;
pub(crate) mod stats;
pub(crate) mod tokens;

use serde::Serialize;

use crate::error_response::ErrorResponse;

use super::request::ApiRequest;
use super::request::parameters::{
    OFFSET_MOST, PAGE_DEFAULT, PAGE_MOST, no_parameters, number, only_parameter, unescaped, unknown,
};
use super::response::ApiResponse;

/// The query parameters that a list may have.
struct Parameters {
    after: Option<String>,
    /// Number of rows to skip.
    offset: usize,
    limit: usize,
    org_id: Option<String>,
}

impl Parameters {
    /// Number of rows to find: those that are skipped and those that are shown.
    fn reach(&self) -> usize {
        self.offset + self.limit
    }
}

/// Reads the parameters of a list. Only those in `known` are accepted.
fn parameters(request: &ApiRequest, known: &[&str]) -> Result<Parameters, ErrorResponse> {
    let mut read = Parameters { after: None, offset: 0, limit: PAGE_DEFAULT, org_id: None };
    let mut offset = None;
    for (name, value) in request.parameters()? {
        match name.as_ref() {
            other if !known.contains(&other) => return Err(unknown(other)),
            _ if value.is_empty() => {}
            "cursor" => read.after = Some(value.into_owned()),
            "org_id" => read.org_id = Some(value.into_owned()),
            "offset" => offset = Some(number("offset", &value, 0, OFFSET_MOST)? as usize),
            _ => read.limit = number("limit", &value, 1, PAGE_MOST)? as usize,
        }
    }
    if read.after.is_some() && offset.is_some() {
        return Err(ErrorResponse::bad_request("cursor and offset cannot be given together"));
    }
    read.offset = offset.unwrap_or_default();
    Ok(read)
}

/// Returns 200 with one page of what was found within [`Parameters::reach`]. The cursor of the next page is
/// the last row's id if there may be more rows.
fn list<T: Serialize>(found: &[T], page: &Parameters, id: impl Fn(&T) -> &str) -> ApiResponse {
    let rows = found.get(page.offset..).unwrap_or_default();
    let next = rows.last().filter(|_| rows.len() == page.limit).map(|row| id(row).to_owned());
    ApiResponse::list(rows, next)
}
